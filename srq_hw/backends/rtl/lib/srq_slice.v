// srq_slice: the channels FIRST to FIRST + COUNT - 1 of every pixel; the others are dropped.
//
//   HEIGHT, WIDTH, CHANNELS  the frame of s; LANES divides CHANNELS, FIRST and COUNT
//   BITS                     of a value
//
// Latency 1 cycle; a beat of s per cycle.
module srq_slice #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 8,
    parameter FIRST = 2,
    parameter COUNT = 4,
    parameter LANES = 2,
    parameter BITS = 8
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
    localparam BEATS = CHANNELS / LANES;
    localparam ADDRESS = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam [31:0] FINAL = BEATS - 1;
    localparam [31:0] OPENS = (FIRST == 0) ? BEATS - 1 : FIRST / LANES - 1;  // the beat before the first that is kept
    localparam [31:0] CLOSES = (FIRST + COUNT) / LANES - 1;  // the last that is kept

    generate
        if (CHANNELS % LANES != 0 || FIRST % LANES != 0 || COUNT % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
        if (COUNT < 1 || FIRST + COUNT > CHANNELS) begin : outside
            srq_error_slice_outside_channels stop ();
        end
    endgenerate

    reg [ADDRESS-1:0] beat;  // of the pixel
    reg keep;

    assign s_tready = !m_tvalid || m_tready;
    wire arrives = s_tvalid && s_tready;

    initial begin
        m_tvalid = 1'b0;
        beat = 0;
        keep = (FIRST == 0);
    end

    always @(posedge clk) begin
        if (s_tready) m_tdata <= s_tdata;
    end

    always @(posedge clk) begin
        if (rst) begin
            m_tvalid <= 1'b0;
            beat <= 0;
            keep <= (FIRST == 0);
        end else begin
            if (s_tready) m_tvalid <= s_tvalid && keep;
            if (arrives) begin
                beat <= (beat == FINAL[ADDRESS-1:0]) ? {ADDRESS{1'b0}} : beat + 1'b1;
                if (beat == CLOSES[ADDRESS-1:0]) keep <= 1'b0;
                if (beat == OPENS[ADDRESS-1:0]) keep <= 1'b1;
            end
        end
    end

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * (COUNT / LANES))
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
