// srq_output: where frames leave the design: a register slice that puts tlast on the last beat of every frame.
//
//   HEIGHT, WIDTH, CHANNELS  the frame; LANES divides CHANNELS
//   BITS                     of a value
//
// Latency 1 cycle; a beat per cycle. m_tready ends in a register, so what stands outside meets no path through here.
module srq_output #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 4,
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

    output wire [LANES*BITS-1:0] m_tdata,
    output wire m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    wire ends;

    generate
        if (CHANNELS % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * (CHANNELS / LANES))
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(s_tvalid && s_tready),
        .last(ends)
    );

    srq_skid #(
        .BITS(LANES * BITS)
    ) slice (
        .clk(clk),
        .rst(rst),
        .s_tdata(s_tdata),
        .s_tvalid(s_tvalid),
        .s_tready(s_tready),
        .s_tlast(ends),
        .m_tdata(m_tdata),
        .m_tvalid(m_tvalid),
        .m_tready(m_tready),
        .m_tlast(m_tlast)
    );
endmodule
