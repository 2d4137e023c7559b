// srq_conv: folded 2-D convolution (srq_conv_core) with its weights in a memory that is part of the design.
//
//   HEIGHT, WIDTH, CHANNELS_IN, CHANNELS_OUT, KH, KW, GROUPS, DEPTHWISE, PE, SIMD, W_BITS, W_NARROW, A_BITS, A_SIGNED,
//   ZERO_POINT, EDGE, USE_DSP, PORT, BIAS_BITS, ACC_BITS, BIAS_FILE, RAM_STYLE   see srq_conv_core
//   WEIGHT_FILE  the core's words w, one per line. WEIGHT_STYLE: its memory
module srq_conv #(
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
    parameter WEIGHT_FILE = "",
    parameter BIAS_FILE = "",
    parameter WEIGHT_STYLE = "auto",
    parameter RAM_STYLE = "auto"
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire [SIMD*A_BITS-1:0]  s_tdata,
    input  wire                    s_tvalid,
    output wire                    s_tready,
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
    srq_rom #(.WIDTH(WORD), .DEPTH(WORDS), .FILE(WEIGHT_FILE), .STYLE(WEIGHT_STYLE)) weights (
        .clk(clk), .rst(rst), .m_tdata(w_tdata), .m_tvalid(w_tvalid), .m_tready(w_tready)
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
