// srq_shift_right: arithmetic shift to the right by a variable amount, and whether a 1 was shifted out.
//
//   BITS         width of the value, signed
//   AMOUNT_BITS  at least 1; an amount beyond BITS leaves the sign
//   lost         `rest`, or any bit that was shifted out
// Latency: 2 cycles with `en` high (the lower and the upper half of the amount); a value per cycle.
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
module srq_shift_right #(
    parameter BITS = 32,
    parameter AMOUNT_BITS = 5
) (
    input  wire                    clk,
    input  wire                    en,
    input  wire signed [BITS-1:0]  value,
    input  wire                    rest,
    input  wire [AMOUNT_BITS-1:0]  amount,
    output wire signed [BITS-1:0]  shifted,
    output wire                    lost
);
    localparam LOWER = (AMOUNT_BITS + 1) / 2;  // steps before the first register

    genvar step;
    generate
        for (step = 0; step <= AMOUNT_BITS; step = step + 1) begin : g_step
            wire signed [BITS-1:0]  now;
            wire                    gone;
            wire [AMOUNT_BITS-1:0]  by;
            if (step == 0) begin : g_in
                assign now = value;
                assign gone = rest;
                assign by = amount;
            end else begin : g_move
                localparam DISTANCE = 1 << (step - 1);
                localparam OUT = (DISTANCE < BITS) ? DISTANCE : BITS;
                wire signed [BITS-1:0] was = g_step[step-1].now;
                wire move = g_step[step-1].by[step-1];
                wire signed [BITS-1:0] moved = move ? was >>> DISTANCE : was;
                wire fell = g_step[step-1].gone || (move && |was[OUT-1:0]);
                if (step == LOWER || step == AMOUNT_BITS) begin : g_register
                    reg signed [BITS-1:0] kept;
                    initial kept = {BITS{1'b0}};
                    reg kept_gone;
                    initial kept_gone = 1'b0;
                    reg [AMOUNT_BITS-1:0] kept_by;
                    initial kept_by = {AMOUNT_BITS{1'b0}};
                    always @(posedge clk) if (en) begin
                        kept <= moved;
                        kept_gone <= fell;
                        kept_by <= g_step[step-1].by;
                    end
                    assign now = kept;
                    assign gone = kept_gone;
                    assign by = kept_by;
                end else begin : g_wires
                    assign now = moved;
                    assign gone = fell;
                    assign by = g_step[step-1].by;
                end
            end
        end
        if (LOWER == AMOUNT_BITS) begin : g_second  // a single step: one register more
            reg signed [BITS-1:0] kept;
            initial kept = {BITS{1'b0}};
            reg kept_gone;
            initial kept_gone = 1'b0;
            always @(posedge clk) if (en) begin
                kept <= g_step[AMOUNT_BITS].now;
                kept_gone <= g_step[AMOUNT_BITS].gone;
            end
            assign shifted = kept;
            assign lost = kept_gone;
        end else begin : g_both
            assign shifted = g_step[AMOUNT_BITS].now;
            assign lost = g_step[AMOUNT_BITS].gone;
        end
    endgenerate
endmodule
/* verilator lint_on UNUSED */
