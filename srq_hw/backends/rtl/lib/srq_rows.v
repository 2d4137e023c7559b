// srq_rows: two rows of words; one is read in any order while the other fills.
//
//   BITS       of a word
//   WORDS      of a row
//   RAM_STYLE  of the memory; the reader is registered
//
// A row is on offer while row_valid is up: read takes the word at read_at into `word` at the next edge, row_done, in the
// cycle of the last read, gives the row back.
module srq_rows #(
    parameter BITS = 8,
    parameter WORDS = 16,
    parameter ADDRESS = (WORDS > 1) ? $clog2(WORDS) : 1,
    /* verilator lint_off UNUSEDPARAM */
    parameter RAM_STYLE = "auto"  // read by synthesis only
    /* verilator lint_on UNUSEDPARAM */
) (
    input wire clk,
    input wire rst,

    input wire [BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,

    output wire row_valid,
    input wire row_done,
    input wire read,
    input wire [ADDRESS-1:0] read_at,
    output reg [BITS-1:0] word
);
    localparam [31:0] FINAL = WORDS - 1;

    (* ram_style = RAM_STYLE *) reg [BITS-1:0] memory [0:(2<<ADDRESS)-1];

    reg [1:0] full;  // one bit for each of the two rows
    reg fill;  // the row that fills
    reg drain;  // the row that is read
    reg [ADDRESS-1:0] write_at;

    assign s_tready = !full[fill];
    assign row_valid = full[drain];
    wire write = s_tvalid && s_tready;
    wire row_filled = write && (write_at == FINAL[ADDRESS-1:0]);

    initial begin
        full = 2'b00;
        fill = 1'b0;
        drain = 1'b0;
        write_at = 0;
    end

    always @(posedge clk) begin
        if (write) memory[{fill, write_at}] <= s_tdata;
        if (read) word <= memory[{drain, read_at}];
    end

    always @(posedge clk) begin
        if (rst) begin
            full <= 2'b00;
            fill <= 1'b0;
            drain <= 1'b0;
            write_at <= 0;
        end else begin
            if (write) write_at <= row_filled ? {ADDRESS{1'b0}} : write_at + 1'b1;
            if (row_filled) begin
                full[fill] <= 1'b1;
                fill <= !fill;
            end
            if (row_done) begin
                full[drain] <= 1'b0;
                drain <= !drain;
            end
        end
    end
endmodule
