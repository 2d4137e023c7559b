// srq_shuffle: depth to space. Every pixel becomes BLOCK x BLOCK pixels with CHANNELS / BLOCK**2 channels:
//     m[y * BLOCK + dy, x * BLOCK + dx, c] = s[y, x, order(dy, dx, c)]
//     CRD = 1 (PyTorch's PixelShuffle)  order = c * BLOCK**2 + dy * BLOCK + dx
//     CRD = 0 (TensorFlow, DCR)         order = (dy * BLOCK + dx) * CHANNELS / BLOCK**2 + c
//
//   HEIGHT, WIDTH, CHANNELS  the frame of s; IN_LANES divides CHANNELS, OUT_LANES divides CHANNELS / BLOCK**2
//   BITS                     of a value
//   RAM_STYLE                of the row buffer, two rows of s
//
// A row of s is read BLOCK times, once for each row of m. For DCR with the same lanes on both sides a word of the buffer
// is a beat; else it is a whole pixel, from which every beat takes its values.
// Latency: a row of s and 3 cycles. While one row is read the next fills: the side that takes more beats for a frame
// runs without a gap.
module srq_shuffle #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 12,
    parameter BLOCK = 2,
    parameter CRD = 1,
    parameter IN_LANES = 12,
    parameter OUT_LANES = 3,
    parameter BITS = 8,
    parameter RAM_STYLE = "auto"
) (
    input wire clk,
    input wire rst,

    input wire [IN_LANES*BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire s_tlast,  // counted here instead
    /* verilator lint_on UNUSEDSIGNAL */

    output reg [OUT_LANES*BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    localparam OUT_CHANNELS = CHANNELS / (BLOCK * BLOCK);
    localparam OUT_BEATS = OUT_CHANNELS / OUT_LANES;  // per pixel of m
    localparam RUN = BLOCK * OUT_BEATS;  // beats of m that one pixel of s gives to one row of m
    localparam PIECES = BLOCK * RUN;  // beats of m in one pixel of s
    localparam BY_PIXEL = (CRD != 0) || (IN_LANES != OUT_LANES);
    localparam WORD_LANES = BY_PIXEL ? CHANNELS : IN_LANES;
    localparam PIXEL_WORDS = CHANNELS / WORD_LANES;
    localparam ROW_WORDS = WIDTH * PIXEL_WORDS;
    localparam ADDRESS = (ROW_WORDS > 1) ? $clog2(ROW_WORDS) : 1;

    generate
        if (CHANNELS % (BLOCK * BLOCK) != 0) begin : no_blocks
            srq_error_block_does_not_divide_channels stop ();
        end
        if (CHANNELS % IN_LANES != 0 || OUT_CHANNELS % OUT_LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    // Beats of s to words of the buffer.
    wire [WORD_LANES*BITS-1:0] word_in;
    wire word_in_valid;
    wire word_in_ready;

    generate
        if (WORD_LANES == IN_LANES) begin : as_it_is
            assign word_in = s_tdata;
            assign word_in_valid = s_tvalid;
            assign s_tready = word_in_ready;
        end else begin : gather
            /* verilator lint_off PINCONNECTEMPTY */
            srq_width #(
                .HEIGHT(HEIGHT),
                .WIDTH(WIDTH),
                .CHANNELS(CHANNELS),
                .IN_LANES(IN_LANES),
                .OUT_LANES(WORD_LANES),
                .BITS(BITS)
            ) pixel (
                .clk(clk),
                .rst(rst),
                .s_tdata(s_tdata),
                .s_tvalid(s_tvalid),
                .s_tready(s_tready),
                .s_tlast(1'b0),
                .m_tdata(word_in),
                .m_tvalid(word_in_valid),
                .m_tready(word_in_ready),
                .m_tlast()
            );
            /* verilator lint_on PINCONNECTEMPTY */
        end
    endgenerate

    // The order of reading: rows of m, pixels of s, beats of the run.
    localparam BLOCK_BITS = (BLOCK > 1) ? $clog2(BLOCK) : 1;
    localparam WIDTH_BITS = (WIDTH > 1) ? $clog2(WIDTH) : 1;
    localparam PIECE_BITS = !BY_PIXEL ? ADDRESS : (PIECES > 1) ? $clog2(PIECES) : 1;
    localparam [31:0] FINAL_ROW = BLOCK - 1;
    localparam [31:0] FINAL_COLUMN = WIDTH - 1;
    localparam [31:0] FINAL_OF_RUN = RUN - 1;
    localparam [31:0] RUN_WORD = RUN;
    localparam [31:0] PIXEL_WORDS_WORD = PIXEL_WORDS;

    reg [BLOCK_BITS-1:0] row;  // dy
    reg [WIDTH_BITS-1:0] column;  // x
    reg [ADDRESS-1:0] column_at;  // x * PIXEL_WORDS
    reg [PIECE_BITS-1:0] of_run;  // dx * OUT_BEATS + beat
    reg [PIECE_BITS-1:0] run_at;  // dy * RUN

    wire [PIECE_BITS-1:0] piece = run_at + of_run;
    wire run_ends = (of_run == FINAL_OF_RUN[PIECE_BITS-1:0]);
    wire row_ends = run_ends && (column == FINAL_COLUMN[WIDTH_BITS-1:0]);
    wire rows_end = row_ends && (row == FINAL_ROW[BLOCK_BITS-1:0]);

    wire row_valid;
    wire [WORD_LANES*BITS-1:0] word;
    wire [ADDRESS-1:0] read_at;
    reg word_valid;

    wire moves = !m_tvalid || m_tready;
    wire word_moves = !word_valid || moves;
    wire read = row_valid && word_moves;

    srq_rows #(
        .BITS(WORD_LANES * BITS),
        .WORDS(ROW_WORDS),
        .ADDRESS(ADDRESS),
        .RAM_STYLE(RAM_STYLE)
    ) rows (
        .clk(clk),
        .rst(rst),
        .s_tdata(word_in),
        .s_tvalid(word_in_valid),
        .s_tready(word_in_ready),
        .row_valid(row_valid),
        .row_done(read && rows_end),
        .read(read),
        .read_at(read_at),
        .word(word)
    );

    initial begin
        row = 0;
        column = 0;
        column_at = 0;
        of_run = 0;
        run_at = 0;
        word_valid = 1'b0;
        m_tvalid = 1'b0;
    end

    always @(posedge clk) begin
        if (rst) begin
            row <= 0;
            column <= 0;
            column_at <= 0;
            of_run <= 0;
            run_at <= 0;
        end else if (read) begin
            of_run <= run_ends ? {PIECE_BITS{1'b0}} : of_run + 1'b1;
            if (run_ends) begin
                column <= row_ends ? {WIDTH_BITS{1'b0}} : column + 1'b1;
                column_at <= row_ends ? {ADDRESS{1'b0}} : column_at + PIXEL_WORDS_WORD[ADDRESS-1:0];
            end
            if (row_ends) begin
                row <= rows_end ? {BLOCK_BITS{1'b0}} : row + 1'b1;
                run_at <= rows_end ? {PIECE_BITS{1'b0}} : run_at + RUN_WORD[PIECE_BITS-1:0];
            end
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

    // Words to beats of m.
    generate
        if (BY_PIXEL) begin : by_pixel
            // All beats of the pixel side by side in the order of `piece`; one is taken.
            wire [PIECES*OUT_LANES*BITS-1:0] beats;
            reg [PIECE_BITS-1:0] word_piece;
            genvar block;
            genvar channel;
            for (block = 0; block < BLOCK * BLOCK; block = block + 1) begin : blocks
                for (channel = 0; channel < OUT_CHANNELS; channel = channel + 1) begin : channels
                    localparam FROM = (CRD != 0) ? channel * BLOCK * BLOCK + block : block * OUT_CHANNELS + channel;
                    assign beats[(block*OUT_CHANNELS+channel)*BITS+:BITS] = word[FROM*BITS+:BITS];
                end
            end

            assign read_at = column_at;
            always @(posedge clk) begin
                if (read) word_piece <= piece;
                if (moves) m_tdata <= beats[word_piece*(OUT_LANES*BITS)+:OUT_LANES*BITS];
            end
        end else begin : by_beat
            assign read_at = column_at + piece;
            always @(posedge clk) begin
                if (moves) m_tdata <= word;
            end
        end
    endgenerate

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * PIECES)
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
