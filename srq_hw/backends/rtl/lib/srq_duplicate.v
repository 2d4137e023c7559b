// srq_duplicate: a fork. Every beat of s goes to m0 and to m1, tlast with it.
//
//   BITS  width of tdata
//
// Latency 1 cycle; a beat per cycle. A beat is accepted when both registers are free, so the branches are never more
// than one beat apart: what one branch needs to run ahead of the other is a FIFO's task.
module srq_duplicate #(
    parameter BITS = 8
) (
    input wire clk,
    input wire rst,

    input wire [BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,
    input wire s_tlast,

    output wire [BITS-1:0] m0_tdata,
    output reg m0_tvalid,
    input wire m0_tready,
    output wire m0_tlast,

    output wire [BITS-1:0] m1_tdata,
    output reg m1_tvalid,
    input wire m1_tready,
    output wire m1_tlast
);
    // Both offer the same beat: one register serves the two of them.
    reg [BITS:0] beat;
    assign {m0_tlast, m0_tdata} = beat;
    assign {m1_tlast, m1_tdata} = beat;

    assign s_tready = (!m0_tvalid || m0_tready) && (!m1_tvalid || m1_tready);

    initial begin
        m0_tvalid = 1'b0;
        m1_tvalid = 1'b0;
    end

    always @(posedge clk) begin
        if (s_tready) beat <= {s_tlast, s_tdata};
    end

    always @(posedge clk) begin
        if (rst) begin
            m0_tvalid <= 1'b0;
            m1_tvalid <= 1'b0;
        end else if (s_tready) begin
            m0_tvalid <= s_tvalid;
            m1_tvalid <= s_tvalid;
        end else begin
            if (m0_tready) m0_tvalid <= 1'b0;
            if (m1_tready) m1_tvalid <= 1'b0;
        end
    end
endmodule
