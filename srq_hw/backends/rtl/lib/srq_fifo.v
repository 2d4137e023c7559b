// srq_fifo: a FIFO of whole beats, first word falls through, output registered.
//
// Holds DEPTH beats in memory and one more in the output register; order, data and tlast unchanged.
//
//   BITS       width of tdata
//   DEPTH      beats in memory, at least 2
//   RAM_STYLE  "distributed", "block", "ultra" or "auto"; the reader is registered, so any of them fits
//
// Latency 2 cycles from an accepted beat to m_tvalid; a beat per cycle for as long as neither side stalls.
// A stall of the consumer is felt by the producer only when the memory is full.
module srq_fifo #(
    parameter BITS = 8,
    parameter DEPTH = 16,
    /* verilator lint_off UNUSEDPARAM */
    parameter RAM_STYLE = "auto"  // read by synthesis only
    /* verilator lint_on UNUSEDPARAM */
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
    localparam ADDRESS = $clog2(DEPTH);
    localparam [31:0] FINAL = DEPTH - 1;
    localparam [31:0] FULL = DEPTH;

    (* ram_style = RAM_STYLE *) reg [BITS:0] memory [0:DEPTH-1];

    reg [ADDRESS-1:0] write_at;
    reg [ADDRESS-1:0] read_at;
    reg [ADDRESS:0] held;  // beats in memory, 0 to DEPTH

    wire write = s_tvalid && s_tready;
    wire read = (held != 0) && (!m_tvalid || m_tready);
    wire [ADDRESS:0] held_next = held + {{ADDRESS{1'b0}}, write} - {{ADDRESS{1'b0}}, read};

    initial begin
        s_tready = 1'b0;
        m_tvalid = 1'b0;
        write_at = 0;
        read_at = 0;
        held = 0;
    end

    // Memory and its reader, without reset so that a block RAM takes them.
    always @(posedge clk) begin
        if (write) memory[write_at] <= {s_tlast, s_tdata};
        if (read) {m_tlast, m_tdata} <= memory[read_at];
    end

    always @(posedge clk) begin
        if (rst) begin
            s_tready <= 1'b0;
            m_tvalid <= 1'b0;
            write_at <= 0;
            read_at <= 0;
            held <= 0;
        end else begin
            if (write) write_at <= (write_at == FINAL[ADDRESS-1:0]) ? {ADDRESS{1'b0}} : write_at + 1'b1;
            if (read) read_at <= (read_at == FINAL[ADDRESS-1:0]) ? {ADDRESS{1'b0}} : read_at + 1'b1;
            held <= held_next;
            s_tready <= held_next != FULL[ADDRESS:0];
            m_tvalid <= read || (m_tvalid && !m_tready);
        end
    end
endmodule
