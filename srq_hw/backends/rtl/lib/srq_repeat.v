// srq_repeat: nearest-neighbour upsampling; every pixel becomes FACTOR x FACTOR pixels of itself.
//
//   HEIGHT, WIDTH, CHANNELS  the frame of s; LANES divides CHANNELS
//   BITS                     of a value
//   RAM_STYLE                of the row buffer, two rows of s
//
// Latency: a row of s and 3 cycles. While one row is read FACTOR times the next fills, so m runs without a gap.
module srq_repeat #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 4,
    parameter FACTOR = 2,
    parameter LANES = 2,
    parameter BITS = 8,
    parameter RAM_STYLE = "auto"
) (
    input wire clk,
    input wire rst,

    input wire [LANES*BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire s_tlast,  // counted here instead
    /* verilator lint_on UNUSEDSIGNAL */

    output reg [LANES*BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    localparam BEATS = CHANNELS / LANES;  // per pixel
    localparam ROW_WORDS = WIDTH * BEATS;
    localparam ADDRESS = (ROW_WORDS > 1) ? $clog2(ROW_WORDS) : 1;
    localparam BEAT_BITS = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam TIMES_BITS = (FACTOR > 1) ? $clog2(FACTOR) : 1;
    localparam [31:0] FINAL_BEAT = BEATS - 1;
    localparam [31:0] FINAL_TIME = FACTOR - 1;
    localparam [31:0] FINAL_WORD = ROW_WORDS - 1;

    generate
        if (CHANNELS % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    // The order of reading: rows of m, pixels of s, copies of the pixel, its beats.
    reg [TIMES_BITS-1:0] row;
    reg [TIMES_BITS-1:0] copy;
    reg [BEAT_BITS-1:0] beat;
    reg [ADDRESS-1:0] pixel_at;  // first word of the pixel
    reg [ADDRESS-1:0] read_at;

    wire beats_end = (beat == FINAL_BEAT[BEAT_BITS-1:0]);
    wire copies_end = beats_end && (copy == FINAL_TIME[TIMES_BITS-1:0]);
    wire row_ends = copies_end && (read_at == FINAL_WORD[ADDRESS-1:0]);
    wire rows_end = row_ends && (row == FINAL_TIME[TIMES_BITS-1:0]);

    wire row_valid;
    wire [LANES*BITS-1:0] word;
    reg word_valid;

    wire moves = !m_tvalid || m_tready;
    wire word_moves = !word_valid || moves;
    wire read = row_valid && word_moves;

    srq_rows #(
        .BITS(LANES * BITS),
        .WORDS(ROW_WORDS),
        .ADDRESS(ADDRESS),
        .RAM_STYLE(RAM_STYLE)
    ) rows (
        .clk(clk),
        .rst(rst),
        .s_tdata(s_tdata),
        .s_tvalid(s_tvalid),
        .s_tready(s_tready),
        .row_valid(row_valid),
        .row_done(read && rows_end),
        .read(read),
        .read_at(read_at),
        .word(word)
    );

    initial begin
        row = 0;
        copy = 0;
        beat = 0;
        pixel_at = 0;
        read_at = 0;
        word_valid = 1'b0;
        m_tvalid = 1'b0;
    end

    always @(posedge clk) begin
        if (rst) begin
            row <= 0;
            copy <= 0;
            beat <= 0;
            pixel_at <= 0;
            read_at <= 0;
        end else if (read) begin
            beat <= beats_end ? {BEAT_BITS{1'b0}} : beat + 1'b1;
            if (beats_end) copy <= copies_end ? {TIMES_BITS{1'b0}} : copy + 1'b1;
            if (row_ends) row <= rows_end ? {TIMES_BITS{1'b0}} : row + 1'b1;

            if (row_ends) read_at <= 0;
            else if (beats_end && !copies_end) read_at <= pixel_at;
            else read_at <= read_at + 1'b1;

            if (row_ends) pixel_at <= 0;
            else if (copies_end) pixel_at <= read_at + 1'b1;
        end
    end

    always @(posedge clk) begin
        if (rst) begin
            word_valid <= 1'b0;
            m_tvalid <= 1'b0;
        end else begin
            if (word_moves) word_valid <= read;
            if (moves) m_tvalid <= word_valid;
        end
    end

    always @(posedge clk) begin
        if (moves) m_tdata <= word;
    end

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * BEATS * FACTOR * FACTOR)
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
