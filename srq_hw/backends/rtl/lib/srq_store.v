// srq_store: words that are written at run time, played as an endless stream as srq_rom plays a file.
//
// Stores stand in a chain: the first one takes its share of what comes, then passes the rest on to the next, up to the
// beat with tlast. The next set of words begins behind that, with the first store.
//   WIDTH  bits per word
//   DEPTH  words
//   LOAD   bits per beat of the chain
//   STYLE  ram_style attribute; with "ultra" a row of the memory holds as many words as UltraRAM's 72 bits take
// Streams
//   load  the set: this store's rows, each in as many beats as it takes, lowest bits first, then those of the stores behind
//   next  the rest
//   m     word 0 .. DEPTH-1 and again from word 0; valid from the store's last beat on, until a new set's first beat
// Reset forgets the words. A set that comes while words are taken changes them at once: send it to an idle design.
// Latency: a beat is passed on in the next cycle; the first word is valid 4 cycles after the store's last beat came in, 3
// where a row is a word; a word per cycle.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
/* verilator lint_off UNUSED */  // a row may end within a beat; style attributes are idle in simulation
module srq_store #(
    parameter WIDTH = 16,
    parameter DEPTH = 8,
    parameter LOAD = 32,
    parameter STYLE = "ultra"
) (
    input  wire             clk,
    input  wire             rst,

    input  wire [LOAD-1:0]  load_tdata,
    input  wire             load_tvalid,
    output wire             load_tready,
    input  wire             load_tlast,

    output wire [LOAD-1:0]  next_tdata,
    output wire             next_tvalid,
    input  wire             next_tready,
    output wire             next_tlast,

    output wire [WIDTH-1:0] m_tdata,
    output wire             m_tvalid,
    input  wire             m_tready
);
    localparam FIT = (STYLE == "ultra" && WIDTH <= 36) ? 72 / WIDTH : 1;
    localparam PACK = (FIT > DEPTH) ? DEPTH : FIT;  // words per row
    localparam ROWS = (DEPTH + PACK - 1) / PACK;
    localparam ROW = PACK * WIDTH;
    localparam BEATS = (ROW + LOAD - 1) / LOAD;  // of the chain per row
    localparam ADDRESS_BITS = (ROWS > 1) ? $clog2(ROWS) : 1;
    localparam BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam [ADDRESS_BITS-1:0] LAST_ROW = ROWS - 1;
    localparam [BEAT_BITS-1:0] LAST_BEAT = BEATS - 1;

    (* ram_style = STYLE *) reg [ROW-1:0] memory [0:ROWS-1];

    // ---- writing ---------------------------------------------------------------------------------------------------
    wire [LOAD-1:0] beat;
    wire beat_valid, beat_ready, beat_last;
    srq_skid #(.BITS(LOAD)) arriving (
        .clk(clk), .rst(rst),
        .s_tdata(load_tdata), .s_tvalid(load_tvalid), .s_tready(load_tready), .s_tlast(load_tlast),
        .m_tdata(beat), .m_tvalid(beat_valid), .m_tready(beat_ready), .m_tlast(beat_last)
    );

    reg full;  // the rest of the set is for others
    initial full = 1'b0;
    reg loaded;  // words may be taken
    initial loaded = 1'b0;
    reg [ADDRESS_BITS-1:0] write_row;
    initial write_row = {ADDRESS_BITS{1'b0}};
    reg [BEAT_BITS-1:0] write_beat;
    initial write_beat = {BEAT_BITS{1'b0}};

    assign next_tdata = beat;
    assign next_tlast = beat_last;
    assign next_tvalid = beat_valid && full;
    assign beat_ready = !full || next_tready;

    wire taken = beat_valid && !full;
    wire row_end = taken && (write_beat == LAST_BEAT);
    wire all_end = row_end && (write_row == LAST_ROW);
    wire set_end = beat_valid && beat_ready && beat_last;

    wire [BEATS*LOAD-1:0] row_given;
    generate
        if (BEATS > 1) begin : g_gather
            reg [(BEATS-1)*LOAD-1:0] gathered;
            initial gathered = {(BEATS-1)*LOAD{1'b0}};
            always @(posedge clk) if (taken) gathered <= row_given[BEATS*LOAD-1:LOAD];
            assign row_given = {beat, gathered};
        end else begin : g_whole
            assign row_given = beat;
        end
    endgenerate
    always @(posedge clk) if (row_end) memory[write_row] <= row_given[ROW-1:0];

    always @(posedge clk) begin
        if (rst) begin
            full <= 1'b0;
            loaded <= 1'b0;
            write_row <= {ADDRESS_BITS{1'b0}};
            write_beat <= {BEAT_BITS{1'b0}};
        end else begin
            full <= (full || all_end) && !set_end;
            loaded <= all_end || (loaded && !taken);
            if (set_end || all_end) write_row <= {ADDRESS_BITS{1'b0}};
            else if (row_end) write_row <= write_row + 1'b1;
            if (set_end || row_end) write_beat <= {BEAT_BITS{1'b0}};
            else if (taken) write_beat <= write_beat + 1'b1;
        end
    end

    // ---- playing ---------------------------------------------------------------------------------------------------
    wire clear = rst || !loaded || taken;
    reg [ADDRESS_BITS-1:0] address;  // of the row that follows `row`
    initial address = {ADDRESS_BITS{1'b0}};
    reg [ROW-1:0] row;
    initial row = {ROW{1'b0}};
    reg row_valid;
    initial row_valid = 1'b0;
    wire row_done;  // the next row may take its place

    wire read = !row_valid || row_done;
    always @(posedge clk) if (read) row <= memory[address];
    always @(posedge clk) begin
        if (clear) begin
            address <= {ADDRESS_BITS{1'b0}};
            row_valid <= 1'b0;
        end else if (read) begin
            address <= (address == LAST_ROW) ? {ADDRESS_BITS{1'b0}} : address + 1'b1;
            row_valid <= 1'b1;
        end
    end

    generate
        if (PACK == 1) begin : g_word
            assign m_tdata = row;
            assign m_tvalid = row_valid;
            assign row_done = m_tready;
        end else begin : g_words
            localparam PART_BITS = $clog2(PACK);
            localparam [PART_BITS-1:0] LAST_PART = PACK - 1;
            localparam [PART_BITS-1:0] FINAL_PART = (DEPTH - 1) % PACK;  // of the last row
            reg [PART_BITS-1:0] part;
            initial part = {PART_BITS{1'b0}};
            reg final_row;  // `row` is the last one
            initial final_row = 1'b0;
            reg [WIDTH-1:0] word;
            initial word = {WIDTH{1'b0}};
            reg valid;
            initial valid = 1'b0;
            wire move = row_valid && (!valid || m_tready);
            assign row_done = move && (part == (final_row ? FINAL_PART : LAST_PART));
            always @(posedge clk) if (read) final_row <= (address == LAST_ROW);
            always @(posedge clk) if (move) word <= row[part*WIDTH +: WIDTH];
            always @(posedge clk) begin
                if (clear) begin
                    part <= {PART_BITS{1'b0}};
                    valid <= 1'b0;
                end else begin
                    if (row_done) part <= {PART_BITS{1'b0}};
                    else if (move) part <= part + 1'b1;
                    if (move) valid <= 1'b1;
                    else if (m_tready) valid <= 1'b0;
                end
            end
            assign m_tdata = word;
            assign m_tvalid = valid;
        end
    endgenerate
endmodule
/* verilator lint_on WIDTH */
/* verilator lint_on UNUSED */
