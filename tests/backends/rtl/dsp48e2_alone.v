// Test top: one DSP48E2 between two operand streams and a product stream; OPMODE and MREG as the test wants them.
module dsp48e2_alone #(
    parameter OPMODE = 5,
    parameter MREG = 0
) (
    input  wire        clk,
    input  wire        rst,
    input  wire [26:0] a_tdata,
    input  wire        a_tvalid,
    output wire        a_tready,
    input  wire [17:0] b_tdata,
    input  wire        b_tvalid,
    output wire        b_tready,
    output reg  [47:0] m_tdata,
    output reg         m_tvalid,
    input  wire        m_tready
);
    wire free = !m_tvalid || m_tready;
    wire [8:0] opmode = OPMODE;
    wire [47:0] product;
    assign a_tready = free && b_tvalid;
    assign b_tready = free && a_tvalid;
    initial m_tvalid = 1'b0;
    always @(posedge clk) begin
        if (free) m_tdata <= product;
        if (rst) m_tvalid <= 1'b0;
        else if (free) m_tvalid <= a_tvalid && b_tvalid;
    end

    DSP48E2 #(
        .ACASCREG(0), .ADREG(0), .ALUMODEREG(0), .AREG(0), .BCASCREG(0), .BREG(0), .CARRYINREG(0), .CARRYINSELREG(0),
        .CREG(0), .DREG(0), .INMODEREG(0), .MREG(MREG), .OPMODEREG(0), .PREG(0)
    ) dsp (
        .A({3'b000, a_tdata}), .ACIN(30'd0), .ALUMODE(4'd0), .B(b_tdata), .BCIN(18'd0), .C(48'd0), .CARRYIN(1'b0),
        .CARRYINSEL(3'd0), .D(27'd0), .INMODE(5'd0), .OPMODE(opmode), .P(product), .PCIN(48'd0)
    );
endmodule
