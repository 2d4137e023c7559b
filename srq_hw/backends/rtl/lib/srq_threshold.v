// srq_threshold: y = LO + number of thresholds that the accumulator reaches (acc >= T), by binary search.
//
// The alternative to srq_requant for few levels: any monotone function, exact.
// Streams: s LANES x ACC_BITS signed, m LANES x BITS; channel c in lane c % LANES of beat c / LANES of a pixel.
//   LANES, FOLDS  channels = LANES * FOLDS
//   BEATS         beats per frame, for tlast
//   BITS          levels: 2**BITS - 1 ascending thresholds per channel
//   T_BITS        bits of a threshold, signed (ACC_BITS + 1 where one may lie out of reach)
//   LO            the lowest level
//   FILE          name of the memory files without their ends. Step j = 0 .. BITS-1 of lane l reads
//                 <FILE>_<j>_<lll>.hex (three decimal digits of l): FOLDS times 2**j thresholds, those with the indices
//                 i * 2**(BITS-j) + 2**(BITS-1-j) - 1, i = 0 .. 2**j - 1, of channel fold * LANES + l
//   STYLE         see srq_rom
// Latency: 2 * BITS + 1 cycles; a beat per cycle.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
/* verilator lint_off UNDRIVEN */  // a memory without a file stays empty
module srq_threshold #(
    parameter LANES = 4,
    parameter FOLDS = 1,
    parameter BEATS = 16,
    parameter ACC_BITS = 24,
    parameter T_BITS = 24,
    parameter BITS = 4,
    parameter LO = 0,
    parameter FILE = "",
    parameter STYLE = "auto"
) (
    input  wire                       clk,
    input  wire                       rst,
    input  wire [LANES*ACC_BITS-1:0]  s_tdata,
    input  wire                       s_tvalid,
    output wire                       s_tready,
    output wire [LANES*BITS-1:0]      m_tdata,
    output wire                       m_tvalid,
    input  wire                       m_tready,
    output wire                       m_tlast
);
    localparam LATENCY = 2 * BITS + 1;
    localparam FOLD_BITS = (FOLDS > 1) ? $clog2(FOLDS) : 1;
    localparam integer FOLD_END = FOLDS - 1;
    localparam BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam integer BEAT_END = BEATS - 1;

    reg [LATENCY-1:0] valids;
    initial valids = {LATENCY{1'b0}};
    wire en = !m_tvalid || m_tready;
    assign s_tready = en;
    assign m_tvalid = valids[LATENCY-1];
    always @(posedge clk) begin
        if (rst) valids <= {LATENCY{1'b0}};
        else if (en) valids <= {valids[LATENCY-2:0], s_tvalid};
    end

    reg [BEAT_BITS-1:0] beat;
    initial beat = {BEAT_BITS{1'b0}};
    assign m_tlast = (beat == BEAT_END[BEAT_BITS-1:0]);
    always @(posedge clk) begin
        if (rst) beat <= {BEAT_BITS{1'b0}};
        else if (m_tvalid && m_tready) beat <= m_tlast ? {BEAT_BITS{1'b0}} : beat + 1'b1;
    end

    // Channel fold of the beat that enters; every step passes it on.
    reg [FOLD_BITS-1:0] fold;
    initial fold = {FOLD_BITS{1'b0}};
    always @(posedge clk) begin
        if (rst) fold <= {FOLD_BITS{1'b0}};
        else if (en && s_tvalid) fold <= (fold == FOLD_END[FOLD_BITS-1:0]) ? {FOLD_BITS{1'b0}} : fold + 1'b1;
    end

    genvar step, lane;
    generate
        for (step = 0; step < BITS; step = step + 1) begin : g_step
            wire [LANES*ACC_BITS-1:0] acc_in;
            wire [FOLD_BITS-1:0]      fold_in;
            wire [LANES*BITS-1:0]     found_in;  // bits found so far, in the lowest places
            if (step == 0) begin : g_first
                assign acc_in = s_tdata;
                assign fold_in = fold;
                assign found_in = {LANES*BITS{1'b0}};
            end else begin : g_next
                assign acc_in = g_step[step-1].acc_out;
                assign fold_in = g_step[step-1].fold_out;
                assign found_in = g_step[step-1].found_out;
            end
            reg [LANES*ACC_BITS-1:0] acc_read, acc_out;
            initial begin
                acc_read = {LANES*ACC_BITS{1'b0}};
                acc_out = {LANES*ACC_BITS{1'b0}};
            end
            reg [FOLD_BITS-1:0] fold_read, fold_out;
            initial begin
                fold_read = {FOLD_BITS{1'b0}};
                fold_out = {FOLD_BITS{1'b0}};
            end
            reg [LANES*BITS-1:0] found_read;
            initial found_read = {LANES*BITS{1'b0}};
            wire [LANES*BITS-1:0]    found_out;
            always @(posedge clk) if (en) begin
                acc_read <= acc_in;
                fold_read <= fold_in;
                found_read <= found_in;
                acc_out <= acc_read;
                fold_out <= fold_read;
            end

            for (lane = 0; lane < LANES; lane = lane + 1) begin : g_lane
                localparam [7:0] STEP_DIGIT = 48 + step;
                localparam [7:0] HUNDREDS = 48 + lane / 100, TENS = 48 + (lane / 10) % 10, ONES = 48 + lane % 10;
                localparam DEPTH = FOLDS << step;
                localparam ADDRESS_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1;
                (* rom_style = STYLE, ram_style = STYLE *) reg signed [T_BITS-1:0] thresholds [0:DEPTH-1];
                if (FILE != "") begin : g_file
                    initial $readmemh({FILE, "_", STEP_DIGIT, "_", HUNDREDS, TENS, ONES, ".hex"}, thresholds);
                end

                wire [FOLD_BITS+BITS-1:0] place =
                    ({{BITS{1'b0}}, fold_in} << step) | {{FOLD_BITS{1'b0}}, found_in[lane*BITS +: BITS]};
                reg signed [T_BITS-1:0] threshold;
                initial threshold = {T_BITS{1'b0}};
                always @(posedge clk) if (en) threshold <= thresholds[place[ADDRESS_BITS-1:0]];

                wire signed [ACC_BITS-1:0] acc = acc_read[lane*ACC_BITS +: ACC_BITS];
                wire [BITS-1:0] so_far = found_read[lane*BITS +: BITS];
                reg [BITS-1:0] found;
                initial found = {BITS{1'b0}};
                always @(posedge clk) if (en) found <= (so_far << 1) | {{(BITS){1'b0}}, acc >= threshold};
                assign found_out[lane*BITS +: BITS] = found;
            end
        end

        localparam [BITS-1:0] LOWEST = LO;
        for (lane = 0; lane < LANES; lane = lane + 1) begin : g_level
            reg [BITS-1:0] level;
            initial level = {BITS{1'b0}};
            always @(posedge clk) if (en) level <= g_step[BITS-1].found_out[lane*BITS +: BITS] + LOWEST;
            assign m_tdata[lane*BITS +: BITS] = level;
        end
    endgenerate
endmodule
/* verilator lint_on WIDTH */
/* verilator lint_on UNUSED */
/* verilator lint_on UNDRIVEN */
