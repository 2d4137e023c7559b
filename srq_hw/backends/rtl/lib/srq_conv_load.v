// srq_conv_load: folded 2-D convolution (srq_conv_core) whose weights are written at run time; until they are, it takes
// no window.
//
//   HEIGHT, WIDTH, CHANNELS_IN, CHANNELS_OUT, KH, KW, GROUPS, DEPTHWISE, PE, SIMD, W_BITS, W_NARROW, A_BITS, A_SIGNED,
//   ZERO_POINT, EDGE, USE_DSP, PORT, BIAS_BITS, ACC_BITS, BIAS_FILE, RAM_STYLE   see srq_conv_core
//   LOAD, WEIGHT_STYLE  see srq_store: bits per beat of load and next, memory of the weights
// Streams load and next: srq_store's, for the core's words w.
module srq_conv_load #(
    parameter HEIGHT = 8,
    parameter WIDTH = 8,
    parameter CHANNELS_IN = 4,
    parameter CHANNELS_OUT = 4,
    parameter KH = 3,
    parameter KW = 3,
    parameter GROUPS = 1,
    parameter DEPTHWISE = 0,
    parameter PE = 4,
    parameter SIMD = 4,
    parameter W_BITS = 8,
    parameter W_NARROW = 0,
    parameter A_BITS = 8,
    parameter A_SIGNED = 1,
    parameter ZERO_POINT = 0,
    parameter EDGE = 0,
    parameter USE_DSP = (W_BITS > 2),
    parameter PORT = 27,
    parameter BIAS_BITS = 24,
    parameter ACC_BITS = 24,
    parameter BIAS_FILE = "",
    parameter LOAD = 32,
    parameter WEIGHT_STYLE = "ultra",
    parameter RAM_STYLE = "auto"
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire [SIMD*A_BITS-1:0]  s_tdata,
    input  wire                    s_tvalid,
    output wire                    s_tready,
    input  wire [LOAD-1:0]         load_tdata,
    input  wire                    load_tvalid,
    output wire                    load_tready,
    input  wire                    load_tlast,
    output wire [LOAD-1:0]         next_tdata,
    output wire                    next_tvalid,
    input  wire                    next_tready,
    output wire                    next_tlast,
    output wire [PE*ACC_BITS-1:0]  m_tdata,
    output wire                    m_tvalid,
    input  wire                    m_tready,
    output wire                    m_tlast
);
    localparam INPUTS = DEPTHWISE ? 1 : SIMD;  // of one output
    localparam WORDS = CHANNELS_OUT / PE * KH * KW * (DEPTHWISE ? 1 : CHANNELS_IN / SIMD / GROUPS);
    localparam WORD = PE * INPUTS * W_BITS;

    wire [WORD-1:0] w_tdata;
    wire w_tvalid, w_tready;
    srq_store #(.WIDTH(WORD), .DEPTH(WORDS), .LOAD(LOAD), .STYLE(WEIGHT_STYLE)) weights (
        .clk(clk), .rst(rst),
        .load_tdata(load_tdata), .load_tvalid(load_tvalid), .load_tready(load_tready), .load_tlast(load_tlast),
        .next_tdata(next_tdata), .next_tvalid(next_tvalid), .next_tready(next_tready), .next_tlast(next_tlast),
        .m_tdata(w_tdata), .m_tvalid(w_tvalid), .m_tready(w_tready)
    );

    srq_conv_core #(
        .HEIGHT(HEIGHT), .WIDTH(WIDTH), .CHANNELS_IN(CHANNELS_IN), .CHANNELS_OUT(CHANNELS_OUT), .KH(KH), .KW(KW),
        .GROUPS(GROUPS), .DEPTHWISE(DEPTHWISE), .PE(PE), .SIMD(SIMD), .W_BITS(W_BITS), .W_NARROW(W_NARROW),
        .A_BITS(A_BITS), .A_SIGNED(A_SIGNED), .ZERO_POINT(ZERO_POINT), .EDGE(EDGE), .USE_DSP(USE_DSP), .PORT(PORT),
        .BIAS_BITS(BIAS_BITS), .ACC_BITS(ACC_BITS), .BIAS_FILE(BIAS_FILE), .RAM_STYLE(RAM_STYLE)
    ) core (
        .clk(clk), .rst(rst), .s_tdata(s_tdata), .s_tvalid(s_tvalid), .s_tready(s_tready),
        .w_tdata(w_tdata), .w_tvalid(w_tvalid), .w_tready(w_tready),
        .m_tdata(m_tdata), .m_tvalid(m_tvalid), .m_tready(m_tready), .m_tlast(m_tlast)
    );
endmodule
