// srq_mac: folded matrix-vector product, PE outputs x SIMD inputs per cycle, with bias.
//
//   result[p] = bias[p] + sum over FOLD beats and s of weight[beat][p][s] * activation[beat][s]
//
// Streams
//   s  activations, SIMD x A_BITS
//   w  weights, [pe][simd] x W_BITS with simd lowest, one beat for each beat of s; from srq_rom, or loaded at run time
//   b  biases, PE x BIAS_BITS signed, one beat per result; ignored with BIAS = 0
//   m  accumulators, PE x ACC_BITS signed
// Parameters
//   PE, SIMD, W_BITS, W_NARROW, A_BITS, A_SIGNED, USE_DSP, PORT   see srq_dot
//   DEPTHWISE  1: output p has the input p alone, result[p] = bias[p] + sum of weight[beat][p] * activation[beat][p];
//              s has PE lanes and w is PE weights, SIMD is 1. A multiplier per lane: nothing is shared
//   FOLD       beats per result
//   RESULTS    results per frame, for tlast
//   ACC_BITS   accumulator bits; the caller proves that no sum needs more
// Latency from the last beat of a fold: that of srq_dot + 2 cycles, + 1 where FOLD is 1; a beat per cycle.
// With FOLD > 1 the pipeline is halted by registers only: m_tready does not reach s_tready.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
module srq_mac #(
    parameter PE = 4,
    parameter SIMD = 4,
    parameter W_BITS = 8,
    parameter W_NARROW = 0,
    parameter A_BITS = 8,
    parameter A_SIGNED = 1,
    parameter USE_DSP = (W_BITS > 2),
    parameter PORT = 27,
    parameter DEPTHWISE = 0,
    parameter FOLD = 9,
    parameter RESULTS = 16,
    parameter BIAS = 1,
    parameter BIAS_BITS = 24,
    parameter ACC_BITS = 24
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire [(DEPTHWISE?PE:SIMD)*A_BITS-1:0] s_tdata,
    input  wire                       s_tvalid,
    output wire                       s_tready,
    input  wire [PE*SIMD*W_BITS-1:0]  w_tdata,
    input  wire                       w_tvalid,
    output wire                       w_tready,
    input  wire [PE*BIAS_BITS-1:0]    b_tdata,
    input  wire                       b_tvalid,
    output wire                       b_tready,
    output wire [PE*ACC_BITS-1:0]     m_tdata,
    output wire                       m_tvalid,
    input  wire                       m_tready,
    output wire                       m_tlast
);
    localparam DOT = W_BITS + A_BITS + ((SIMD > 1) ? $clog2(SIMD) : 0);
    localparam FOLD_BITS = (FOLD > 1) ? $clog2(FOLD) : 1;
    localparam [FOLD_BITS-1:0] FOLD_LAST = FOLD - 1;
    localparam RESULT_BITS = (RESULTS > 1) ? $clog2(RESULTS) : 1;
    localparam [RESULT_BITS-1:0] RESULT_LAST = RESULTS - 1;

    // Input: a beat needs an activation word and a weight word.
    wire en;
    wire take = s_tvalid && w_tvalid;
    assign s_tready = en && w_tvalid;
    assign w_tready = en && s_tvalid;

    reg [FOLD_BITS-1:0] beat;
    initial beat = {FOLD_BITS{1'b0}};
    wire first = (beat == {FOLD_BITS{1'b0}});
    wire last = (beat == FOLD_LAST);
    always @(posedge clk) begin
        if (rst) beat <= {FOLD_BITS{1'b0}};
        else if (en && take) beat <= last ? {FOLD_BITS{1'b0}} : beat + 1'b1;
    end

    wire [PE*DOT-1:0] dots;
    wire dots_valid, dots_first, dots_last;
    // One unit for all outputs, or one for each lane.
    localparam UNITS = DEPTHWISE ? PE : 1;
    localparam UNIT_PE = DEPTHWISE ? 1 : PE;
    wire [UNITS*3-1:0] dots_tags;
    assign {dots_valid, dots_first, dots_last} = dots_tags[2:0];
    genvar u;
    generate
        for (u = 0; u < UNITS; u = u + 1) begin : g_unit
            srq_dot #(
                .PE(UNIT_PE), .SIMD(SIMD), .W_BITS(W_BITS), .W_NARROW(W_NARROW), .A_BITS(A_BITS), .A_SIGNED(A_SIGNED),
                .USE_DSP(USE_DSP), .PORT(PORT), .TAG_BITS(3)
            ) dot (
                .clk(clk), .rst(rst), .en(en),
                .activations(s_tdata[u*SIMD*A_BITS +: SIMD*A_BITS]),
                .weights(w_tdata[u*SIMD*W_BITS +: UNIT_PE*SIMD*W_BITS]),
                .tag({take, take && first, take && last}),
                .dots(dots[u*DOT +: UNIT_PE*DOT]), .dots_tag(dots_tags[u*3 +: 3])
            );
        end
    endgenerate

    // Accumulators start from the bias.
    wire bias_ready = !BIAS || b_tvalid || !dots_first;
    assign b_tready = BIAS && en && dots_first;

    reg [PE*ACC_BITS-1:0] sums;
    initial sums = {PE*ACC_BITS{1'b0}};
    reg done;  // the sums are a result
    initial done = 1'b0;
    genvar p;
    generate
        for (p = 0; p < PE; p = p + 1) begin : g_pe
            wire signed [BIAS_BITS-1:0] bias = b_tdata[p*BIAS_BITS +: BIAS_BITS];
            wire signed [ACC_BITS-1:0]  start = BIAS ? bias : $signed({ACC_BITS{1'b0}});
            wire signed [ACC_BITS-1:0]  sum = sums[p*ACC_BITS +: ACC_BITS];
            wire signed [DOT-1:0]       part = dots[p*DOT +: DOT];
            always @(posedge clk) if (en && dots_valid)
                sums[p*ACC_BITS +: ACC_BITS] <= (dots_first ? start : sum) + part;
        end
    endgenerate

    wire sent;  // a result leaves `sums`
    generate
        if (FOLD == 1) begin : g_direct
            // Every beat is a result: the accumulator is the output register.
            assign en = (!done || m_tready) && bias_ready;
            assign sent = done && m_tready;
            assign m_tdata = sums;
            assign m_tvalid = done;
        end else begin : g_held
            reg [PE*ACC_BITS-1:0] held;
            initial held = {PE*ACC_BITS{1'b0}};
            reg full;
            initial full = 1'b0;
            assign en = !(done && full) && bias_ready;
            assign sent = done && !full;
            always @(posedge clk) if (sent) held <= sums;
            always @(posedge clk) begin
                if (rst) full <= 1'b0;
                else full <= sent || (full && !m_tready);
            end
            assign m_tdata = held;
            assign m_tvalid = full;
        end
    endgenerate

    always @(posedge clk) begin
        if (rst) done <= 1'b0;
        else done <= (en && dots_last) || (done && !sent);
    end

    reg [RESULT_BITS-1:0] result;
    initial result = {RESULT_BITS{1'b0}};
    assign m_tlast = (result == RESULT_LAST);
    always @(posedge clk) begin
        if (rst) result <= {RESULT_BITS{1'b0}};
        else if (m_tvalid && m_tready) result <= m_tlast ? {RESULT_BITS{1'b0}} : result + 1'b1;
    end
endmodule
/* verilator lint_on WIDTH */
