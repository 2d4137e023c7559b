// srq_requant: accumulators to a quantized type,  y = clamp(round(acc * M[c] / 2**S[c]) + ZERO_POINT, LO, HI).
//
// Streams: s LANES x ACC_BITS signed, m LANES x OUT_BITS; channel c in lane c % LANES of beat c / LANES of a pixel.
//   LANES, FOLDS  channels = LANES * FOLDS (FOLDS = 1 with equal parameters in all lanes: one for the tensor)
//   BEATS         beats per frame, for tlast
//   ACC_BITS, OUT_BITS   widths
//   MULTIPLY      0: no multiplier (M = 1, a power-of-two ratio)
//   MULT_BITS     bits of M, signed: an unsigned 16-bit multiplier has 17
//   NEGATIVE      1: a second multiplier for acc < 0 (PReLU); it may be negative
//   SHIFT_MIN, SHIFT_MAX   range of S; a negative S multiplies by 2**-S. Equal: no shifter
//   ROUNDING      0 half_even, 1 half_up, 2 half_away, 3 floor, 4 trunc
//   FILE          FOLDS words of LANES entries, lane 0 lowest; an entry is, highest bits first,
//                   {negative M (only with NEGATIVE), M, S - SHIFT_MIN in clog2(SHIFT_MAX - SHIFT_MIN + 1) bits}
//                 without M where MULTIPLY is 0 and without S where SHIFT_MIN is SHIFT_MAX; neither: no file
//   STYLE         see srq_rom
//   PORT          see srq_wide_multiply, which makes the product of parts, a DSP each
// Latency: 9 cycles; a beat per cycle.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
/* verilator lint_off UNDRIVEN */  // a memory without a file stays empty
module srq_requant #(
    parameter LANES = 4,
    parameter FOLDS = 1,
    parameter BEATS = 16,
    parameter ACC_BITS = 24,
    parameter OUT_BITS = 8,
    parameter MULTIPLY = 1,
    parameter MULT_BITS = 17,
    parameter NEGATIVE = 0,
    parameter SHIFT_MIN = 0,
    parameter SHIFT_MAX = 31,
    parameter ROUNDING = 0,
    parameter ZERO_POINT = 0,
    parameter LO = -128,
    parameter HI = 127,
    parameter FILE = "",
    parameter STYLE = "auto",
    parameter PORT = 27
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire [LANES*ACC_BITS-1:0]  s_tdata,
    input  wire                       s_tvalid,
    output wire                       s_tready,
    output wire [LANES*OUT_BITS-1:0]  m_tdata,
    output wire                       m_tvalid,
    input  wire                       m_tready,
    output wire                       m_tlast
);
    localparam LATENCY = 9;
    localparam SHIFT_BITS = $clog2(SHIFT_MAX - SHIFT_MIN + 1);  // 0: a constant
    localparam M_BITS = MULTIPLY ? MULT_BITS : 0;
    localparam N_BITS = (MULTIPLY && NEGATIVE) ? MULT_BITS : 0;
    localparam ENTRY = N_BITS + M_BITS + SHIFT_BITS;
    localparam WORD = (ENTRY > 0) ? LANES * ENTRY : 1;

    generate
        if (SHIFT_MIN > SHIFT_MAX || LO > HI || ROUNDING < 0 || ROUNDING > 4) begin : g_wrong
            srq_error_shift_range_clamp_range_or_rounding stop ();
        end
    endgenerate

    // ---- flow: the whole pipeline advances while the output is free ------------------------------------------------
    reg [LATENCY-1:0] valids;
    initial valids = {LATENCY{1'b0}};
    wire en = !m_tvalid || m_tready;
    wire take = en && s_tvalid;
    assign s_tready = en;
    assign m_tvalid = valids[LATENCY-1];
    always @(posedge clk) begin
        if (rst) valids <= {LATENCY{1'b0}};
        else if (en) valids <= {valids[LATENCY-2:0], s_tvalid};
    end

    localparam BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam integer BEAT_END = BEATS - 1;
    reg [BEAT_BITS-1:0] beat;
    initial beat = {BEAT_BITS{1'b0}};
    assign m_tlast = (beat == BEAT_END[BEAT_BITS-1:0]);
    always @(posedge clk) begin
        if (rst) beat <= {BEAT_BITS{1'b0}};
        else if (m_tvalid && m_tready) beat <= m_tlast ? {BEAT_BITS{1'b0}} : beat + 1'b1;
    end

    // ---- stage 1: accumulators and their parameters ----------------------------------------------------------------
    reg [LANES*ACC_BITS-1:0] acc1;
    initial acc1 = {LANES*ACC_BITS{1'b0}};
    always @(posedge clk) if (en) acc1 <= s_tdata;

    wire [WORD-1:0] word1;
    generate
        if (ENTRY > 0) begin : g_entries
            localparam FOLD_BITS = (FOLDS > 1) ? $clog2(FOLDS) : 1;
            localparam integer FOLD_END = FOLDS - 1;
            (* rom_style = STYLE, ram_style = STYLE *) reg [WORD-1:0] entries [0:FOLDS-1];
            if (FILE != "") begin : g_file
                initial $readmemh(FILE, entries);
            end
            reg [WORD-1:0] word;
            initial word = {WORD{1'b0}};
            reg [FOLD_BITS-1:0] fold;
            initial fold = {FOLD_BITS{1'b0}};
            always @(posedge clk) if (en) word <= entries[fold];
            always @(posedge clk) begin
                if (rst) fold <= {FOLD_BITS{1'b0}};
                else if (take) fold <= (fold == FOLD_END[FOLD_BITS-1:0]) ? {FOLD_BITS{1'b0}} : fold + 1'b1;
            end
            assign word1 = word;
        end else begin : g_constant
            assign word1 = {WORD{1'b0}};
        end
    endgenerate

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
            localparam PRODUCT = ACC_BITS + M_BITS;
            wire signed [ACC_BITS-1:0] acc = acc1[lane*ACC_BITS +: ACC_BITS];
            wire signed [PRODUCT-1:0]  product5;

            // ---- stages 2 to 5: acc * M --------------------------------------------------------------------------
            if (MULTIPLY) begin : g_multiply
                wire signed [MULT_BITS-1:0] positive = word1[lane*ENTRY+SHIFT_BITS +: MULT_BITS];
                reg signed [MULT_BITS-1:0] factor2;
                initial factor2 = {MULT_BITS{1'b0}};
                reg signed [ACC_BITS-1:0] acc2;
                initial acc2 = {ACC_BITS{1'b0}};
                always @(posedge clk) if (en) acc2 <= acc;
                if (NEGATIVE) begin : g_slope
                    wire signed [MULT_BITS-1:0] slope = word1[lane*ENTRY+SHIFT_BITS+MULT_BITS +: MULT_BITS];
                    always @(posedge clk) if (en) factor2 <= acc[ACC_BITS-1] ? slope : positive;
                end else begin : g_one
                    always @(posedge clk) if (en) factor2 <= positive;
                end
                srq_wide_multiply #(.A_BITS(ACC_BITS), .B_BITS(MULT_BITS), .PORT(PORT)) multiply (
                    .clk(clk), .en(en), .a(acc2), .b(factor2), .product(product5)
                );
            end else begin : g_pass
                reg [4*ACC_BITS-1:0] accs;
                initial accs = {4*ACC_BITS{1'b0}};
                always @(posedge clk) if (en) accs <= {accs[3*ACC_BITS-1:0], acc};
                assign product5 = accs[4*ACC_BITS-1 -: ACC_BITS];
            end

            // ---- stages 6 and 7: shift ----------------------------------------------------------------------------
            // The value keeps one bit below the binary point, `half`, and `rest` says whether anything below that is 1.
            // A constant part of the shift costs nothing: left where SHIFT_MIN is negative or 0, right else.
            localparam UP = (SHIFT_MIN < 1) ? 1 - SHIFT_MIN : 0;
            localparam DOWN = (SHIFT_MIN < 1) ? 0 : SHIFT_MIN - 1;
            localparam SHIFTED = (PRODUCT + UP - DOWN > 2) ? PRODUCT + UP - DOWN : 2;
            wire signed [PRODUCT+UP-1:0] raised = {product5, {UP{1'b0}}};
            wire signed [SHIFTED-1:0]    placed5 = raised >>> DOWN;
            wire                         rest5;
            if (DOWN == 0) begin : g_nothing_lost
                assign rest5 = 1'b0;
            end else if (DOWN < PRODUCT) begin : g_lost
                assign rest5 = |product5[DOWN-1:0];
            end else begin : g_all_lost
                assign rest5 = |product5;
            end

            wire signed [SHIFTED-1:0] shifted7;
            wire                      rest7;
            if (SHIFT_BITS > 0) begin : g_shift
                // The amount waits for the product.
                reg [4*SHIFT_BITS-1:0] amounts;
                initial amounts = {4*SHIFT_BITS{1'b0}};
                always @(posedge clk) if (en) amounts <= {amounts[3*SHIFT_BITS-1:0], word1[lane*ENTRY +: SHIFT_BITS]};
                wire [SHIFT_BITS-1:0] amount5 = amounts[4*SHIFT_BITS-1 -: SHIFT_BITS];
                srq_shift_right #(.BITS(SHIFTED), .AMOUNT_BITS(SHIFT_BITS)) shift (
                    .clk(clk), .en(en), .value(placed5), .rest(rest5), .amount(amount5),
                    .shifted(shifted7), .lost(rest7)
                );
            end else begin : g_constant
                reg signed [SHIFTED-1:0] value6, value7;
                initial begin
                    value6 = {SHIFTED{1'b0}};
                    value7 = {SHIFTED{1'b0}};
                end
                reg rest6, rest_7;
                initial begin
                    rest6 = 1'b0;
                    rest_7 = 1'b0;
                end
                always @(posedge clk) if (en) begin
                    value6 <= placed5;
                    rest6 <= rest5;
                    value7 <= value6;
                    rest_7 <= rest6;
                end
                assign shifted7 = value7;
                assign rest7 = rest_7;
            end

            // ---- stage 8: round, stage 9: clamp --------------------------------------------------------------------
            wire signed [SHIFTED-2:0] floor7 = shifted7[SHIFTED-1:1];
            wire half7 = shifted7[0];
            wire minus7 = shifted7[SHIFTED-1];
            wire up7;
            if (ROUNDING == 0) begin : g_half_even
                assign up7 = half7 && (rest7 || floor7[0]);
            end else if (ROUNDING == 1) begin : g_half_up
                assign up7 = half7;
            end else if (ROUNDING == 2) begin : g_half_away
                assign up7 = half7 && (rest7 || !minus7);
            end else if (ROUNDING == 3) begin : g_floor
                assign up7 = 1'b0;
            end else begin : g_trunc
                assign up7 = minus7 && (half7 || rest7);
            end

            // Bounds and value in one width; the zero point comes after the clamp.
            localparam ROUNDED = (SHIFTED > OUT_BITS + 2) ? SHIFTED : OUT_BITS + 2;
            localparam signed [ROUNDED-1:0] LEAST = LO - ZERO_POINT;
            localparam signed [ROUNDED-1:0] MOST = HI - ZERO_POINT;
            localparam [OUT_BITS-1:0] OFFSET = ZERO_POINT;
            wire signed [ROUNDED-1:0] floor_wide = floor7;
            reg signed [ROUNDED-1:0] rounded8;
            initial rounded8 = {ROUNDED{1'b0}};
            reg [OUT_BITS-1:0] result9;
            initial result9 = {OUT_BITS{1'b0}};
            wire [OUT_BITS-1:0] clamped = (rounded8 < LEAST) ? LEAST[OUT_BITS-1:0]
                                        : (rounded8 > MOST) ? MOST[OUT_BITS-1:0] : rounded8[OUT_BITS-1:0];
            always @(posedge clk) if (en) begin
                rounded8 <= floor_wide + $signed({{(ROUNDED-1){1'b0}}, up7});
                result9 <= clamped + OFFSET;
            end
            assign m_tdata[lane*OUT_BITS +: OUT_BITS] = result9;
        end
    endgenerate
endmodule
/* verilator lint_on WIDTH */
/* verilator lint_on UNUSED */
/* verilator lint_on UNDRIVEN */
