// srq_conv_core: folded 2-D convolution, stride 1, size kept by padding, bias included; exact accumulators out. Its
// weights come as a stream, from srq_rom in srq_conv and from srq_store in srq_conv_load.
//
//   acc[y, x, o] = bias[o] + sum over ky, kx, c of weight[o, c, ky, kx] * input[y + ky - KH/2, x + kx - KW/2, c]
//
// Padding is the integer ZERO_POINT, so that a zero point needs nothing but bias[o] - ZERO_POINT * sum(weight[o]);
// with EDGE it is the nearest pixel of the image, and the bias for a zero point is the same.
// Streams: s CHANNELS_IN in beats of SIMD, m CHANNELS_OUT in beats of PE accumulators (ACC_BITS, signed), w weights, for
// every pixel all of them: words [pe][simd], simd lowest (DEPTHWISE: [pe]); order: output fold, kernel row, kernel column,
// input fold of the group.
//   HEIGHT, WIDTH, KH, KW, ZERO_POINT, EDGE, RAM_STYLE      see srq_window
//   PE, SIMD, W_BITS, W_NARROW, A_BITS, A_SIGNED, USE_DSP, PORT, BIAS_BITS, ACC_BITS   see srq_mac; PE divides CHANNELS_OUT,
//                                                           SIMD divides CHANNELS_IN
//   GROUPS       channel groups; PE divides CHANNELS_OUT / GROUPS, SIMD divides CHANNELS_IN / GROUPS
//   DEPTHWISE    1: one input channel per output channel, PE = SIMD lanes side by side (GROUPS is not read)
//   BIAS_FILE    CHANNELS_OUT/PE words of PE biases
// Cycles per frame: HEIGHT * WIDTH * CHANNELS_OUT/PE * KH * KW * CHANNELS_IN/GROUPS/SIMD without stalls; DEPTHWISE:
// HEIGHT * WIDTH * CHANNELS_OUT/PE * KH * KW.
// A 1 x 1 kernel has no line buffer: with one output fold the stream goes straight to the multipliers, with several a
// few pixels are kept to be repeated.
module srq_conv_core #(
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
    parameter RAM_STYLE = "auto"
) (
    input  wire                    clk,
    input  wire                    rst,
    input  wire [SIMD*A_BITS-1:0]  s_tdata,
    input  wire                    s_tvalid,
    output wire                    s_tready,
    input  wire [PE*(DEPTHWISE?1:SIMD)*W_BITS-1:0] w_tdata,
    input  wire                    w_tvalid,
    output wire                    w_tready,
    output wire [PE*ACC_BITS-1:0]  m_tdata,
    output wire                    m_tvalid,
    input  wire                    m_tready,
    output wire                    m_tlast
);
    localparam FOLDS_OUT = CHANNELS_OUT / PE;
    localparam PARTS = DEPTHWISE ? FOLDS_OUT : GROUPS;  // pieces of the window that go out one after the other
    localparam FOLD = KH * KW * (CHANNELS_IN / SIMD / PARTS);  // beats per result
    localparam INPUTS = DEPTHWISE ? 1 : SIMD;  // of one output

    generate
        if (CHANNELS_OUT % (PE * PARTS) != 0 || CHANNELS_IN % (SIMD * PARTS) != 0) begin : g_wrong_folding
            srq_error_folding_does_not_divide_channels stop ();
        end
        if (DEPTHWISE && (PE != SIMD || CHANNELS_IN != CHANNELS_OUT)) begin : g_wrong_depthwise
            srq_error_depthwise_needs_as_many_lanes_in_as_out stop ();
        end
    endgenerate

    wire [SIMD*A_BITS-1:0] window_tdata;
    wire window_tvalid, window_tready;
    generate
        if (KH * KW * FOLDS_OUT == 1 || (KH * KW == 1 && DEPTHWISE)) begin : g_straight
            assign window_tdata = s_tdata;
            assign window_tvalid = s_tvalid;
            assign s_tready = window_tready;
        end else begin : g_window
            /* verilator lint_off PINCONNECTEMPTY */
            srq_window #(
                .HEIGHT(HEIGHT), .WIDTH(WIDTH), .CHANNELS(CHANNELS_IN), .LANES(SIMD), .BITS(A_BITS), .KH(KH), .KW(KW),
                .GROUPS(PARTS), .REPEAT(FOLDS_OUT / PARTS), .ZERO_POINT(ZERO_POINT), .EDGE(EDGE),
                .RAM_STYLE(RAM_STYLE)
            ) window (
                .clk(clk), .rst(rst), .s_tdata(s_tdata), .s_tvalid(s_tvalid), .s_tready(s_tready),
                .m_tdata(window_tdata), .m_tvalid(window_tvalid), .m_tready(window_tready), .m_tlast()
            );
            /* verilator lint_on PINCONNECTEMPTY */
        end
    endgenerate

    wire [PE*BIAS_BITS-1:0] bias_tdata;
    wire bias_tvalid, bias_tready;
    srq_rom #(.WIDTH(PE * BIAS_BITS), .DEPTH(FOLDS_OUT), .FILE(BIAS_FILE)) biases (
        .clk(clk), .rst(rst), .m_tdata(bias_tdata), .m_tvalid(bias_tvalid), .m_tready(bias_tready)
    );

    srq_mac #(
        .PE(PE), .SIMD(INPUTS), .DEPTHWISE(DEPTHWISE), .W_BITS(W_BITS), .W_NARROW(W_NARROW), .A_BITS(A_BITS),
        .A_SIGNED(A_SIGNED), .USE_DSP(USE_DSP), .PORT(PORT), .FOLD(FOLD), .RESULTS(HEIGHT * WIDTH * FOLDS_OUT), .BIAS(1),
        .BIAS_BITS(BIAS_BITS), .ACC_BITS(ACC_BITS)
    ) mac (
        .clk(clk), .rst(rst), .s_tdata(window_tdata), .s_tvalid(window_tvalid), .s_tready(window_tready),
        .w_tdata(w_tdata), .w_tvalid(w_tvalid), .w_tready(w_tready),
        .b_tdata(bias_tdata), .b_tvalid(bias_tvalid), .b_tready(bias_tready),
        .m_tdata(m_tdata), .m_tvalid(m_tvalid), .m_tready(m_tready), .m_tlast(m_tlast)
    );
endmodule
