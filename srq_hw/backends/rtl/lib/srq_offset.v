// srq_offset: m = s + offset[c], lane by lane, exact; also a plain extension to more bits.
//
//   HEIGHT, WIDTH, CHANNELS  the frame; LANES divides CHANNELS
//   IN_BITS, IN_SIGNED       values of s
//   OUT_BITS                 of the signed result; wide enough for every value, nothing saturates here
//   FILE                     CHANNELS/LANES words of LANES offsets of OUT_BITS bits, lane 0 lowest; channel c in lane
//                            c % LANES of word c / LANES. "": every offset is 0
//   STYLE                    see srq_rom
//
// Latency 2 cycles, without FILE 1; a beat per cycle.
module srq_offset #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 4,
    parameter LANES = 2,
    parameter IN_BITS = 8,
    parameter IN_SIGNED = 1,
    parameter OUT_BITS = 9,
    parameter FILE = "",
    /* verilator lint_off UNUSED */
    parameter STYLE = "auto"  // idle without FILE
    /* verilator lint_on UNUSED */
) (
    input wire clk,
    input wire rst,

    input wire [LANES*IN_BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire s_tlast,  // counted here instead
    /* verilator lint_on UNUSEDSIGNAL */

    output reg [LANES*OUT_BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    localparam FOLDS = CHANNELS / LANES;  // beats per pixel

    generate
        if (CHANNELS % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    wire moves = !m_tvalid || m_tready;
    wire [LANES*IN_BITS-1:0] beat;
    wire [LANES*OUT_BITS-1:0] offsets;
    wire beat_valid;

    generate
        if (FILE != "") begin : file
            localparam ADDRESS = (FOLDS > 1) ? $clog2(FOLDS) : 1;
            localparam [31:0] FINAL = FOLDS - 1;
            (* rom_style = STYLE, ram_style = STYLE *) reg [LANES*OUT_BITS-1:0] words [0:FOLDS-1];
            initial $readmemh(FILE, words);

            reg [LANES*OUT_BITS-1:0] word;
            reg [LANES*IN_BITS-1:0] held;
            reg held_valid;
            reg [ADDRESS-1:0] fold;
            initial begin
                held_valid = 1'b0;
                fold = 0;
            end

            assign s_tready = !held_valid || moves;
            assign beat = held;
            assign offsets = word;
            assign beat_valid = held_valid;

            always @(posedge clk) begin
                if (s_tready) begin
                    held <= s_tdata;
                    word <= words[fold];
                end
            end

            always @(posedge clk) begin
                if (rst) begin
                    held_valid <= 1'b0;
                    fold <= 0;
                end else if (s_tready) begin
                    held_valid <= s_tvalid;
                    if (s_tvalid) fold <= (fold == FINAL[ADDRESS-1:0]) ? {ADDRESS{1'b0}} : fold + 1'b1;
                end
            end
        end else begin : zero
            assign s_tready = moves;
            assign beat = s_tdata;
            assign offsets = {LANES * OUT_BITS{1'b0}};
            assign beat_valid = s_tvalid;
        end
    endgenerate

    initial m_tvalid = 1'b0;

    always @(posedge clk) begin
        if (rst) m_tvalid <= 1'b0;
        else if (moves) m_tvalid <= beat_valid;
    end

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
            wire [IN_BITS-1:0] bits = beat[lane*IN_BITS+:IN_BITS];
            wire signed [IN_BITS:0] value = {(IN_SIGNED != 0) && bits[IN_BITS-1], bits};
            wire signed [OUT_BITS-1:0] offset = offsets[lane*OUT_BITS+:OUT_BITS];
            // Both operands are signed, so Verilog extends them by their sign to the width of the target.
            /* verilator lint_off WIDTH */
            wire signed [OUT_BITS-1:0] sum = value + offset;
            /* verilator lint_on WIDTH */

            always @(posedge clk) begin
                if (moves) m_tdata[lane*OUT_BITS+:OUT_BITS] <= sum;
            end
        end
    endgenerate

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * FOLDS)
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
