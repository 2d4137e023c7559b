// srq_frame: tlast of a stream that is made of frames of BEATS beats.
//
//   step  a beat of the stream is accepted in this cycle (valid and ready)
//   last  the beat on offer, accepted or not, ends a frame; a register
module srq_frame #(
    parameter BEATS = 16
) (
    input wire clk,
    input wire rst,
    input wire step,
    output reg last
);
    localparam WIDTH = (BEATS > 1) ? $clog2(BEATS) : 1;
    localparam [31:0] FINAL = BEATS - 1;

    reg [WIDTH-1:0] beat;
    wire [WIDTH-1:0] beat_next = last ? {WIDTH{1'b0}} : beat + 1'b1;

    initial begin
        beat = 0;
        last = (BEATS == 1);
    end

    always @(posedge clk) begin
        if (rst) begin
            beat <= 0;
            last <= (BEATS == 1);
        end else if (step) begin
            beat <= beat_next;
            last <= (beat_next == FINAL[WIDTH-1:0]);
        end
    end
endmodule
