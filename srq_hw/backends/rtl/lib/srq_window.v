// srq_window: the KH x KW neighbourhood of every pixel, beat by beat, from a line buffer; stride 1, same size.
//
// For each output pixel, for each of GROUPS channel groups: REPEAT times the KH * KW * CHANNELS / GROUPS / LANES beats
// of the group, channel fold innermost, then kernel column, then kernel row. What lies outside the image reads as
// ZERO_POINT in every lane, or, with EDGE, as the nearest pixel of the image.
// The buffer, about KH rows, is a ring of beats in raster order: writing goes on while windows are read, from one row
// to the next and from one frame to the next.
//   HEIGHT, WIDTH, CHANNELS, LANES (divides CHANNELS), BITS   the stream
//   KH, KW      odd kernel sizes
//   GROUPS      channel groups; LANES divides CHANNELS / GROUPS
//   REPEAT      times each group's window is sent (its output folds in the convolution)
//   ZERO_POINT  the padding integer
//   EDGE        1: row and column are clamped to the image instead (edge pixels repeated); ZERO_POINT is not read
//   RAM_STYLE   attribute of the buffer; with "ultra" a word holds two, four or eight beats, where UltraRAM's 72 bits take
//               them, each in bytes of its own (9 bits), by which it is written. What was never written is never sent.
// Throughput: a beat per cycle once KH / 2 rows and KW / 2 + 1 pixels are in; HEIGHT * WIDTH * REPEAT * KH * KW *
// CHANNELS / LANES beats per frame in all. Latency from the last beat that a window needs to its first beat: 4 cycles, with
// EDGE (and a kernel larger than 1 x 1) 6.
// KH * KW * CHANNELS / LANES * REPEAT must be at least 2 (below that there is nothing to repeat).
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
/* verilator lint_off UNSIGNED */  // an edge of no width makes a comparison constant
module srq_window #(
    parameter HEIGHT = 8,
    parameter WIDTH = 8,
    parameter CHANNELS = 4,
    parameter LANES = 4,
    parameter BITS = 8,
    parameter KH = 3,
    parameter KW = 3,
    parameter GROUPS = 1,
    parameter REPEAT = 1,
    parameter ZERO_POINT = 0,
    parameter EDGE = 0,
    parameter RAM_STYLE = "auto"
) (
    input  wire                   clk,
    input  wire                   rst,
    input  wire [LANES*BITS-1:0]  s_tdata,
    input  wire                   s_tvalid,
    output reg                    s_tready,
    output reg  [LANES*BITS-1:0]  m_tdata,
    output reg                    m_tvalid,
    input  wire                   m_tready,
    output reg                    m_tlast
);
    initial begin
        s_tready = 1'b0;
        m_tdata = {LANES*BITS{1'b0}};
        m_tvalid = 1'b0;
        m_tlast = 1'b0;
    end

    localparam FOLDS = CHANNELS / LANES;  // beats per pixel
    localparam ROW = WIDTH * FOLDS;
    localparam PH = KH / 2;
    localparam PW = KW / 2;
    localparam SPAN = (KH - 1) * ROW + KW * FOLDS;  // beats from a window's first pixel to its last

    generate
        if (CHANNELS % (LANES * GROUPS) != 0) begin : g_wrong_lanes
            srq_error_lanes_do_not_divide_channels stop ();
        end
        if (KH % 2 == 0 || KW % 2 == 0 || KH * KW * FOLDS * REPEAT < 2) begin : g_wrong_kernel
            srq_error_kernel_is_even_or_needs_no_window stop ();
        end
    endgenerate

    // Ring: what one window spans, and a row (at least a few pixels) to be written meanwhile. A power of two where that
    // costs at most a quarter more.
    localparam AHEAD = ((KH > 1 && WIDTH > 2 * KW) ? WIDTH - KW : KW + 3) * FOLDS;
    localparam WANTED = SPAN + AHEAD + 4;
    localparam ADDRESS_BITS = $clog2(WANTED);
    localparam POWER = 1 << ADDRESS_BITS;
    localparam TDATA = LANES * BITS;
    localparam PACK = (RAM_STYLE != "ultra" || TDATA > 36) ? 1 : (TDATA > 18) ? 2 : (TDATA > 9) ? 4 : 8;  // beats per word
    localparam RING = (POWER <= 512 || 4 * POWER <= 5 * WANTED) ? POWER : (WANTED + PACK - 1) / PACK * PACK;
    localparam LEVEL_BITS = $clog2(RING + 1);

    // ---- writer ----------------------------------------------------------------------------------------------------
    localparam [ADDRESS_BITS-1:0] RING_LAST = RING - 1;
    // The padding in front of pixel 0 occupies addresses, too: window 0 starts at address 0.
    localparam [ADDRESS_BITS-1:0] START = PH * ROW + PW * FOLDS;
    reg [ADDRESS_BITS-1:0] write_address;
    initial write_address = START;
    wire write = s_tvalid && s_tready;

    always @(posedge clk) begin
        if (rst) write_address <= START;
        else if (write) write_address <= (write_address == RING_LAST) ? {ADDRESS_BITS{1'b0}} : write_address + 1'b1;
    end

    // ---- which window may start ------------------------------------------------------------------------------------
    // `level` counts the beats from the first one of the next window; that window may start when it reaches `need`,
    // which is smaller at the right and lower edges. The window being read begins FOLDS beats earlier.
    localparam X_BITS = (WIDTH > 1) ? $clog2(WIDTH) : 1;
    localparam Y_BITS = (HEIGHT > 1) ? $clog2(HEIGHT) : 1;
    localparam [X_BITS-1:0] X_LAST = WIDTH - 1;
    localparam [Y_BITS-1:0] Y_LAST = HEIGHT - 1;
    localparam FIRST_COLUMNS = PW + 1 + ((PW < WIDTH) ? PW : WIDTH - 1);  // columns down to the last that exists
    localparam FIRST_ROWS = PH + ((PH < HEIGHT) ? PH : HEIGHT - 1);       // rows above the last that exists
    localparam [LEVEL_BITS-1:0] NEED = FIRST_ROWS * ROW + FIRST_COLUMNS * FOLDS;
    localparam [LEVEL_BITS-1:0] MOVE_BACK = (FIRST_COLUMNS - PW - 1) * FOLDS;
    localparam [LEVEL_BITS-1:0] PIXEL = FOLDS;
    localparam [LEVEL_BITS-1:0] LINE = ROW;
    localparam [LEVEL_BITS-1:0] LEVEL_START = START;
    localparam [LEVEL_BITS-1:0] LIMIT = RING - FOLDS - 1;

    reg [LEVEL_BITS-1:0] level;
    initial level = LEVEL_START;
    reg [LEVEL_BITS-1:0] need;
    initial need = NEED;
    reg [X_BITS-1:0] next_x;
    initial next_x = {X_BITS{1'b0}};
    reg [Y_BITS-1:0] next_y;
    initial next_y = {Y_BITS{1'b0}};
    reg may_start;
    initial may_start = 1'b0;
    wire                 start;  // first beat of a window is read
    wire next_x_end = (next_x == X_LAST);
    wire next_y_end = (next_y == Y_LAST);
    wire right_edge = (next_x + PW >= WIDTH - 1);
    wire lower_edge = (next_y + PH >= HEIGHT - 1);

    always @(posedge clk) begin
        s_tready <= !rst && (level < LIMIT);
        may_start <= !rst && !start && (level >= need);
        if (rst) begin
            level <= LEVEL_START;
            need <= NEED;
            next_x <= {X_BITS{1'b0}};
            next_y <= {Y_BITS{1'b0}};
        end else begin
            level <= level + {{(LEVEL_BITS-1){1'b0}}, write} - (start ? PIXEL : {LEVEL_BITS{1'b0}});
            if (start) begin
                next_x <= next_x_end ? {X_BITS{1'b0}} : next_x + 1'b1;
                if (!next_x_end) begin
                    if (right_edge) need <= need - PIXEL;
                end else begin
                    next_y <= next_y_end ? {Y_BITS{1'b0}} : next_y + 1'b1;
                    if (next_y_end) need <= NEED;
                    else need <= need + MOVE_BACK - (lower_edge ? LINE : {LEVEL_BITS{1'b0}});
                end
            end
        end
    end

    // ---- reader: y, x, group, repeat, kernel row, kernel column, fold -----------------------------------------------
    localparam OWN = FOLDS / GROUPS;  // beats per pixel and group
    localparam F_BITS = (OWN > 1) ? $clog2(OWN) : 1;
    localparam GROUP_BITS = (GROUPS > 1) ? $clog2(GROUPS) : 1;
    localparam KW_BITS = (KW > 1) ? $clog2(KW) : 1;
    localparam KH_BITS = (KH > 1) ? $clog2(KH) : 1;
    localparam REPEAT_BITS = (REPEAT > 1) ? $clog2(REPEAT) : 1;
    localparam COLUMN_BITS = $clog2(WIDTH + KW) + 1;
    localparam ROW_BITS = $clog2(HEIGHT + KH) + 1;
    localparam [F_BITS-1:0] F_LAST = OWN - 1;
    localparam [KW_BITS-1:0] KW_LAST = KW - 1;
    localparam [KH_BITS-1:0] KH_LAST = KH - 1;
    localparam [REPEAT_BITS-1:0] REPEAT_LAST = REPEAT - 1;
    localparam [GROUP_BITS-1:0] GROUP_LAST = GROUPS - 1;
    // Address steps, all forward in the ring.
    localparam BACK = (KH - 1) * ROW + (KW - 1) * FOLDS + OWN - 1;  // from a group's last beat to its first
    localparam [ADDRESS_BITS:0] STEP_COLUMN = FOLDS - OWN + 1;
    localparam [ADDRESS_BITS:0] STEP_ROW = (ROW - (KW - 1) * FOLDS - OWN + 1 + RING) % RING;
    localparam [ADDRESS_BITS:0] STEP_AGAIN = RING - BACK;
    localparam [ADDRESS_BITS:0] STEP_ON = RING - BACK + OWN;  // to the next group; after the last one to the next pixel
    localparam [ADDRESS_BITS:0] STEP_ONE = 1;
    localparam [ADDRESS_BITS:0] RING_SIZE = RING;
    // Image position of the beat; unsigned, so that left of 0 is large.
    localparam [COLUMN_BITS-1:0] COLUMN_START = -PW;
    localparam [COLUMN_BITS-1:0] COLUMN_BACK = KW - 1;
    localparam [COLUMN_BITS-1:0] COLUMN_NEXT = KW - 2;  // KW = 1: -1, one column on
    localparam [COLUMN_BITS-1:0] COLUMNS = WIDTH;
    localparam [COLUMN_BITS-1:0] COLUMN_END = WIDTH - 1 + PW;
    localparam [ROW_BITS-1:0] ROW_START = -PH;
    localparam [ROW_BITS-1:0] ROW_BACK = KH - 1;
    localparam [ROW_BITS-1:0] ROW_NEXT = KH - 2;
    localparam [ROW_BITS-1:0] ROWS = HEIGHT;
    localparam [ROW_BITS-1:0] ROW_END = HEIGHT - 1 + PH;

    reg [F_BITS-1:0] fold;
    initial fold = {F_BITS{1'b0}};
    reg [KW_BITS-1:0] kx;
    initial kx = {KW_BITS{1'b0}};
    reg [KH_BITS-1:0] ky;
    initial ky = {KH_BITS{1'b0}};
    reg [REPEAT_BITS-1:0] pass;
    initial pass = {REPEAT_BITS{1'b0}};
    reg [GROUP_BITS-1:0] group;
    initial group = {GROUP_BITS{1'b0}};
    reg [COLUMN_BITS-1:0] column;
    initial column = COLUMN_START;
    reg [ROW_BITS-1:0] row;
    initial row = ROW_START;
    reg [ADDRESS_BITS-1:0] address;
    initial address = {ADDRESS_BITS{1'b0}};
    reg running;  // inside a window
    initial running = 1'b0;

    wire fold_end = (fold == F_LAST);
    wire kx_end = fold_end && (kx == KW_LAST);
    wire ky_end = kx_end && (ky == KH_LAST);
    wire group_end = ky_end && (pass == REPEAT_LAST);
    wire pixel_end = group_end && (group == GROUP_LAST);
    wire row_end = pixel_end && (column == COLUMN_END);
    wire frame_end = row_end && (row == ROW_END);

    wire en = !m_tvalid || m_tready;
    wire go = en && (running || may_start);
    assign start = go && !running;

    wire [ADDRESS_BITS:0] step = 
        group_end ? STEP_ON : ky_end ? STEP_AGAIN : kx_end ? STEP_ROW : fold_end ? STEP_COLUMN : STEP_ONE;
    wire [ADDRESS_BITS+1:0] moved = {2'b00, address} + {1'b0, step};
    wire [ADDRESS_BITS+1:0] wrapped = (moved >= {1'b0, RING_SIZE}) ? moved - {1'b0, RING_SIZE} : moved;

    always @(posedge clk) begin
        if (rst) begin
            fold <= {F_BITS{1'b0}};
            kx <= {KW_BITS{1'b0}};
            ky <= {KH_BITS{1'b0}};
            pass <= {REPEAT_BITS{1'b0}};
            group <= {GROUP_BITS{1'b0}};
            column <= COLUMN_START;
            row <= ROW_START;
            address <= {ADDRESS_BITS{1'b0}};
            running <= 1'b0;
        end else if (go) begin
            running <= !pixel_end;
            address <= wrapped[ADDRESS_BITS-1:0];
            fold <= fold_end ? {F_BITS{1'b0}} : fold + 1'b1;
            if (fold_end) begin
                kx <= kx_end ? {KW_BITS{1'b0}} : kx + 1'b1;
                if (row_end) column <= COLUMN_START;
                else if (pixel_end) column <= column - COLUMN_NEXT;
                else if (kx_end) column <= column - COLUMN_BACK;
                else column <= column + 1'b1;
            end
            if (kx_end) begin
                ky <= ky_end ? {KH_BITS{1'b0}} : ky + 1'b1;
                if (frame_end) row <= ROW_START;
                else if (row_end) row <= row - ROW_NEXT;
                else if (ky_end) row <= row - ROW_BACK;
                else row <= row + 1'b1;
            end
            if (group_end) group <= pixel_end ? {GROUP_BITS{1'b0}} : group + 1'b1;
            if (ky_end) pass <= group_end ? {REPEAT_BITS{1'b0}} : pass + 1'b1;
        end
    end

    // ---- edge: the address of the nearest pixel of the image -------------------------------------------------------
    // That pixel is never in front of the window's first, so the ring still holds it, nor behind the last that exists,
    // which `need` waits for. With these two cycles a window may start while the last two beats of the one before are
    // not read yet. Its start frees the first pixel of that window; those two beats lie behind it in any kernel.
    wire [ADDRESS_BITS-1:0] place;
    wire read, outside_read, last_read;
    generate
        if (EDGE != 0 && KH * KW > 1) begin : g_edge
            // Beats from pixel (x, y) to the image, for at most PW columns and PH rows outside it.
            function signed [ADDRESS_BITS:0] to_image;
                input signed [COLUMN_BITS-1:0] x;
                input signed [ROW_BITS-1:0] y;
                integer i;
                begin
                    to_image = {(ADDRESS_BITS+1){1'b0}};
                    for (i = 1; i <= PW; i = i + 1) begin
                        if (x == -i) to_image = i * FOLDS;
                        if (x == WIDTH - 1 + i) to_image = -i * FOLDS;
                    end
                    for (i = 1; i <= PH; i = i + 1) begin
                        if (y == -i) to_image = to_image + i * ROW;
                        if (y == HEIGHT - 1 + i) to_image = to_image - i * ROW;
                    end
                end
            endfunction

            localparam signed [ADDRESS_BITS+1:0] AROUND = RING;
            reg [ADDRESS_BITS-1:0] address1, address2;
            reg signed [ADDRESS_BITS:0] aside1;
            reg read1, read2, last1, last2;
            initial begin
                address1 = {ADDRESS_BITS{1'b0}};
                address2 = {ADDRESS_BITS{1'b0}};
                aside1 = {(ADDRESS_BITS+1){1'b0}};
                read1 = 1'b0;
                read2 = 1'b0;
                last1 = 1'b0;
                last2 = 1'b0;
            end
            wire signed [ADDRESS_BITS+1:0] beside = $signed({2'b00, address1}) + aside1;
            wire signed [ADDRESS_BITS+1:0] nearest =
                (beside < 0) ? beside + AROUND : (beside >= AROUND) ? beside - AROUND : beside;
            always @(posedge clk) begin
                if (rst) begin
                    read1 <= 1'b0;
                    read2 <= 1'b0;
                end else if (en) begin
                    read1 <= go;
                    read2 <= read1;
                end
                if (en) begin
                    address1 <= address;
                    aside1 <= to_image(column, row);
                    last1 <= frame_end;
                    address2 <= nearest[ADDRESS_BITS-1:0];
                    last2 <= last1;
                end
            end
            assign place = address2;
            assign read = read2;
            assign last_read = last2;
            assign outside_read = 1'b0;
        end else begin : g_padding
            assign place = address;
            assign read = go;
            assign last_read = frame_end;
            assign outside_read = (column >= COLUMNS) || (row >= ROWS);
        end
    endgenerate

    // ---- memory, padding -------------------------------------------------------------------------------------------
    localparam [BITS-1:0] PADDING = ZERO_POINT;
    wire [TDATA-1:0] beat;
    generate
        if (PACK == 1) begin : g_beats
            (* ram_style = RAM_STYLE *) reg [TDATA-1:0] ring [0:RING-1];
            reg [TDATA-1:0] word;
            initial word = {TDATA{1'b0}};
            always @(posedge clk) if (write) ring[write_address] <= s_tdata;
            always @(posedge clk) if (en) word <= ring[place];
            assign beat = word;
        end else begin : g_words
            localparam PART = 72 / PACK;
            localparam WHERE_BITS = $clog2(PACK);  // of an address: which beat of its word
            (* ram_style = RAM_STYLE *) reg [PACK*PART-1:0] ring [0:(RING+PACK-1)/PACK-1];
            reg [PACK*PART-1:0] word;
            initial word = {PACK*PART{1'b0}};
            reg [WHERE_BITS-1:0] where;
            initial where = {WHERE_BITS{1'b0}};
            wire [PART-1:0] given = s_tdata;
            wire [WHERE_BITS-1:0] write_where = write_address[WHERE_BITS-1:0];
            integer i;
            always @(posedge clk) begin
                for (i = 0; i < PACK; i = i + 1)
                    if (write && write_where == i) ring[write_address >> WHERE_BITS][i*PART +: PART] <= given;
            end
            always @(posedge clk) begin
                if (en) begin
                    word <= ring[place >> WHERE_BITS];
                    where <= place[WHERE_BITS-1:0];
                end
            end
            assign beat = word[where*PART +: TDATA];
        end
    endgenerate
    reg valid, outside, last;
    initial begin
        valid = 1'b0;
        outside = 1'b0;
        last = 1'b0;
    end

    always @(posedge clk) if (en) m_tdata <= outside ? {LANES{PADDING}} : beat;
    always @(posedge clk) begin
        if (rst) begin
            valid <= 1'b0;
            m_tvalid <= 1'b0;
        end else if (en) begin
            valid <= read;
            outside <= outside_read;
            last <= last_read;
            m_tvalid <= valid;
            m_tlast <= last;
        end
    end
endmodule
/* verilator lint_on WIDTH */
/* verilator lint_on UNUSED */
/* verilator lint_on UNSIGNED */
