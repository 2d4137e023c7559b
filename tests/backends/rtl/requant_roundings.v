// Test top: one accumulator stream through srq_requant under all five rounding rules at once, in lock step.
module requant_roundings #(
    parameter LANES = 5,
    parameter BEATS = 16,
    parameter FILE = ""
) (
    input  wire                 clk,
    input  wire                 rst,
    input  wire [LANES*10-1:0]  s_tdata,
    input  wire                 s_tvalid,
    output wire                 s_tready,
    output wire [5*LANES*8-1:0] m_tdata,
    output wire                 m_tvalid,
    input  wire                 m_tready,
    output wire                 m_tlast
);
    wire [4:0] readies, valids, lasts;
    genvar rule;
    generate
        for (rule = 0; rule < 5; rule = rule + 1) begin : g_rule
            srq_requant #(
                .LANES(LANES), .BEATS(BEATS), .ACC_BITS(10), .OUT_BITS(8), .MULT_BITS(3), .SHIFT_MIN(0), .SHIFT_MAX(4),
                .ROUNDING(rule), .ZERO_POINT(7), .LO(-100), .HI(100), .FILE(FILE)
            ) requant (
                .clk(clk), .rst(rst), .s_tdata(s_tdata), .s_tvalid(s_tvalid), .s_tready(readies[rule]),
                .m_tdata(m_tdata[rule*LANES*8 +: LANES*8]), .m_tvalid(valids[rule]), .m_tready(m_tready),
                .m_tlast(lasts[rule])
            );
        end
    endgenerate
    assign s_tready = readies[0];
    assign m_tvalid = valids[0];
    assign m_tlast = &lasts;
endmodule
