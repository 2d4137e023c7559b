// srq_input: where frames enter the design; alone in mending a tlast in the wrong place. What leaves it has whole frames only.
//
//   HEIGHT, WIDTH, CHANNELS  the frame; LANES divides CHANNELS
//   BITS                     of a value
//   PAD                      the value that fills a frame cut short, in every lane
//
// tlast before the frame's last beat: the rest of the frame is filled with PAD, the next beat begins the next frame.
// No tlast on the frame's last beat: the frame is passed on, and beats up to and with the next tlast are dropped.
// Both set frame_error, which stays up until reset.
// Latency 1 cycle; a beat per cycle.
module srq_input #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 4,
    parameter LANES = 2,
    parameter BITS = 8,
    parameter [BITS-1:0] PAD = 0
) (
    input wire clk,
    input wire rst,

    input wire [LANES*BITS-1:0] s_tdata,
    input wire s_tvalid,
    output wire s_tready,
    input wire s_tlast,

    output reg [LANES*BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output reg m_tlast,

    output reg frame_error
);
    localparam PASS = 2'd0;
    localparam FILL = 2'd1;
    localparam DROP = 2'd2;

    generate
        if (CHANNELS % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    reg [1:0] state;
    wire ends;  // the beat that comes next is a frame's last

    wire moves = !m_tvalid || m_tready;
    assign s_tready = (state == DROP) || (state == PASS && moves);
    wire passes = (state == PASS) && s_tvalid && moves;
    wire fills = (state == FILL) && moves;

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * (CHANNELS / LANES))
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(passes || fills),
        .last(ends)
    );

    initial begin
        state = PASS;
        m_tvalid = 1'b0;
        frame_error = 1'b0;
    end

    always @(posedge clk) begin
        if (moves) begin
            m_tdata <= (state == FILL) ? {LANES{PAD}} : s_tdata;
            m_tlast <= ends;
        end
    end

    always @(posedge clk) begin
        if (rst) begin
            state <= PASS;
            m_tvalid <= 1'b0;
            frame_error <= 1'b0;
        end else begin
            if (moves) m_tvalid <= passes || fills;
            if (passes && s_tlast != ends) begin
                frame_error <= 1'b1;
                state <= s_tlast ? FILL : DROP;
            end
            if (fills && ends) state <= PASS;
            if (state == DROP && s_tvalid && s_tlast) state <= PASS;
        end
    end
endmodule
