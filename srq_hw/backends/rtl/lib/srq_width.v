// srq_width: the same values in the same order with another number of lanes.
//
//   HEIGHT, WIDTH, CHANNELS  the frame; both lane counts divide CHANNELS
//   IN_LANES, OUT_LANES      values per beat of s and of m
//   BITS                     of a value
//
// Beats of s are gathered into words of lcm(IN_LANES, OUT_LANES) values and handed on in pieces. Where one lane count
// divides the other, one of the two steps falls away.
// Latency 1 cycle after the beat that fills a word, 2 where neither count divides the other. The side that takes more
// beats for a frame runs without a gap.
module srq_width #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 8,
    parameter IN_LANES = 2,
    parameter OUT_LANES = 4,
    parameter BITS = 8
) (
    input wire clk,
    input wire rst,

    input wire [IN_LANES*BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire s_tlast,  // counted here instead
    /* verilator lint_on UNUSEDSIGNAL */

    output wire [OUT_LANES*BITS-1:0] m_tdata,
    output wire m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    function integer common_divisor(input integer first, input integer second);
        integer a, b, rest;
        begin
            a = first;
            b = second;
            while (b != 0) begin
                rest = a % b;
                a = b;
                b = rest;
            end
            common_divisor = a;
        end
    endfunction

    localparam GATHER = OUT_LANES / common_divisor(IN_LANES, OUT_LANES);  // beats of s per word
    localparam PIECES = IN_LANES / common_divisor(IN_LANES, OUT_LANES);  // beats of m per word
    localparam IN_BITS = IN_LANES * BITS;
    localparam OUT_BITS = OUT_LANES * BITS;
    localparam WORD_BITS = IN_BITS * GATHER;

    generate
        if (CHANNELS % IN_LANES != 0 || CHANNELS % OUT_LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    wire [WORD_BITS-1:0] word;
    wire word_valid;
    wire word_ready;

    generate
        if (GATHER == 1) begin : through
            assign word = s_tdata;
            assign word_valid = s_tvalid;
            assign s_tready = word_ready;
        end else begin : gather
            localparam COUNT = $clog2(GATHER);
            localparam [31:0] FINAL = GATHER - 1;

            reg [WORD_BITS-1:0] full;
            reg full_valid;
            reg [WORD_BITS-IN_BITS-1:0] part;  // shifted in from the top, all but the last beat of a word
            reg [COUNT-1:0] count;
            wire fills = (count == FINAL[COUNT-1:0]);
            wire [WORD_BITS-1:0] shifted = {s_tdata, part};

            assign word = full;
            assign word_valid = full_valid;
            assign s_tready = !fills || !full_valid || word_ready;

            initial begin
                full_valid = 1'b0;
                count = 0;
            end

            always @(posedge clk) begin
                if (s_tvalid && s_tready) begin
                    part <= shifted[WORD_BITS-1:IN_BITS];
                    if (fills) full <= shifted;
                end
            end

            always @(posedge clk) begin
                if (rst) begin
                    full_valid <= 1'b0;
                    count <= 0;
                end else begin
                    if (word_ready) full_valid <= 1'b0;
                    if (s_tvalid && s_tready) begin
                        count <= fills ? {COUNT{1'b0}} : count + 1'b1;
                        if (fills) full_valid <= 1'b1;
                    end
                end
            end
        end
    endgenerate

    generate
        if (PIECES == 1 && GATHER > 1) begin : whole
            assign m_tdata = word;
            assign m_tvalid = word_valid;
            assign word_ready = m_tready;
        end else begin : split
            localparam COUNT = $clog2(PIECES + 1);
            localparam [31:0] ALL = PIECES;

            reg [WORD_BITS-1:0] pieces;  // the lowest is on offer
            reg [COUNT-1:0] left;

            assign m_tdata = pieces[OUT_BITS-1:0];
            assign m_tvalid = (left != 0);
            assign word_ready = (left == 0) || (left == 1 && m_tready);

            initial left = 0;

            always @(posedge clk) begin
                if (word_ready) pieces <= word;
                else if (m_tready) pieces <= pieces >> OUT_BITS;
            end

            always @(posedge clk) begin
                if (rst) left <= 0;
                else if (word_ready) left <= word_valid ? ALL[COUNT-1:0] : {COUNT{1'b0}};
                else if (m_tready) left <= left - 1'b1;
            end
        end
    endgenerate

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * (CHANNELS / OUT_LANES))
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
