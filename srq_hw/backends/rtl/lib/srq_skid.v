// srq_skid: a register slice. Valid, data and tlast leave from registers, and so does ready.
//
//   BITS  width of tdata
//
// Latency 1 cycle; a beat per cycle.
module srq_skid #(
    parameter BITS = 8
) (
    input wire clk,
    input wire rst,

    input wire [BITS-1:0] s_tdata,
    input wire s_tvalid,
    output reg s_tready,
    input wire s_tlast,

    output reg [BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output reg m_tlast
);
    // The beat that arrives in the cycle in which the consumer stalls, because s_tready can fall only one cycle later.
    reg [BITS:0] spare;
    reg spare_full;

    wire arrives = s_tvalid && s_tready;
    wire moves = !m_tvalid || m_tready;
    wire spare_full_next = !moves && (spare_full || arrives);

    initial begin
        s_tready = 1'b0;
        m_tvalid = 1'b0;
        spare_full = 1'b0;
    end

    always @(posedge clk) begin
        if (arrives) spare <= {s_tlast, s_tdata};
        if (moves) {m_tlast, m_tdata} <= spare_full ? spare : {s_tlast, s_tdata};
    end

    always @(posedge clk) begin
        if (rst) begin
            s_tready <= 1'b0;
            m_tvalid <= 1'b0;
            spare_full <= 1'b0;
        end else begin
            if (moves) m_tvalid <= spare_full || arrives;
            spare_full <= spare_full_next;
            s_tready <= !spare_full_next;
        end
    end
endmodule
