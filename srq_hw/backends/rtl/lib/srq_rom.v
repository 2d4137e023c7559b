// srq_rom: plays a memory file as an endless stream, word 0 .. DEPTH-1 and again from word 0.
//
// Weights, biases and other constants of a folded layer: the consumer takes one word per beat that it computes.
//   WIDTH  bits per word
//   DEPTH  words
//   FILE   hex file, one word per line, DEPTH lines (none: undefined words)
//   STYLE  rom_style / ram_style attribute: "block", or "auto" (LUTs while it is small); Yosys refuses to map a memory
//          that is never written with "distributed"
// Latency: the first word is valid one cycle after reset; a word per cycle.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
/* verilator lint_off UNDRIVEN */  // a memory without a file stays empty
module srq_rom #(
    parameter WIDTH = 8,
    parameter DEPTH = 4,
    parameter FILE = "",
    parameter STYLE = "auto"
) (
    input  wire             clk,
    input  wire             rst,
    output wire [WIDTH-1:0] m_tdata,
    output wire             m_tvalid,
    input  wire             m_tready
);
    localparam ADDRESS_BITS = (DEPTH > 1) ? $clog2(DEPTH) : 1;
    localparam [ADDRESS_BITS-1:0] LAST = DEPTH - 1;

    (* rom_style = STYLE, ram_style = STYLE *) reg [WIDTH-1:0] memory [0:DEPTH-1];
    generate
        if (FILE != "") begin : g_file
            initial $readmemh(FILE, memory);
        end
    endgenerate

    reg [WIDTH-1:0] word;
    initial word = {WIDTH{1'b0}};
    reg [ADDRESS_BITS-1:0] address;  // of the word that follows `word`
    initial address = {ADDRESS_BITS{1'b0}};
    reg valid;
    initial valid = 1'b0;

    wire load = !valid || m_tready;

    always @(posedge clk) if (load) word <= memory[address];

    always @(posedge clk) begin
        if (rst) begin
            address <= {ADDRESS_BITS{1'b0}};
            valid <= 1'b0;
        end else if (load) begin
            address <= (address == LAST) ? {ADDRESS_BITS{1'b0}} : address + 1'b1;
            valid <= 1'b1;
        end
    end

    assign m_tdata = word;
    assign m_tvalid = valid;
endmodule
/* verilator lint_on WIDTH */
/* verilator lint_on UNUSED */
/* verilator lint_on UNDRIVEN */
