// srq_concat: the channels of a, then those of b, pixel by pixel.
//
//   HEIGHT, WIDTH           the frame
//   A_CHANNELS, B_CHANNELS  LANES divides both
//   BITS                    of a value
//
// Latency 1 cycle; a beat per cycle. b waits while a pixel's channels of a pass, and the other way round.
module srq_concat #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter A_CHANNELS = 4,
    parameter B_CHANNELS = 2,
    parameter LANES = 2,
    parameter BITS = 8
) (
    input wire clk,
    input wire rst,

    input wire [LANES*BITS-1:0] a_tdata,
    input wire a_tvalid,
    output wire a_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire a_tlast,  // counted here instead
    /* verilator lint_on UNUSEDSIGNAL */

    input wire [LANES*BITS-1:0] b_tdata,
    input wire b_tvalid,
    output wire b_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire b_tlast,
    /* verilator lint_on UNUSEDSIGNAL */

    output reg [LANES*BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    localparam A_BEATS = A_CHANNELS / LANES;
    localparam B_BEATS = B_CHANNELS / LANES;
    localparam COUNT = $clog2(A_BEATS + B_BEATS);
    localparam [31:0] FINAL_A = A_BEATS - 1;
    localparam [31:0] FINAL = A_BEATS + B_BEATS - 1;

    generate
        if (A_CHANNELS % LANES != 0 || B_CHANNELS % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    reg [COUNT-1:0] beat;  // of the pixel
    reg turn_b;

    wire moves = !m_tvalid || m_tready;
    wire arrives = turn_b ? b_tvalid : a_tvalid;
    assign a_tready = moves && !turn_b;
    assign b_tready = moves && turn_b;

    initial begin
        m_tvalid = 1'b0;
        beat = 0;
        turn_b = 1'b0;
    end

    always @(posedge clk) begin
        if (moves) m_tdata <= turn_b ? b_tdata : a_tdata;
    end

    always @(posedge clk) begin
        if (rst) begin
            m_tvalid <= 1'b0;
            beat <= 0;
            turn_b <= 1'b0;
        end else if (moves) begin
            m_tvalid <= arrives;
            if (arrives) begin
                beat <= (beat == FINAL[COUNT-1:0]) ? {COUNT{1'b0}} : beat + 1'b1;
                if (beat == FINAL_A[COUNT-1:0]) turn_b <= 1'b1;
                if (beat == FINAL[COUNT-1:0]) turn_b <= 1'b0;
            end
        end
    end

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * (A_BEATS + B_BEATS))
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
