// srq_add: m = (a - A_ZERO) * A_FACTOR + (b - B_ZERO) * B_FACTOR, lane by lane, exact.
//
//   HEIGHT, WIDTH, CHANNELS    the frame; LANES divides CHANNELS
//   A_BITS, A_SIGNED, A_ZERO   values of a; A_FACTOR a signed constant of FACTOR_BITS bits (the same for b)
//   OUT_BITS                   of the signed result; wide enough for every value of a and b, nothing saturates here
//
// Beats of a and b are paired in the order of their arrival; neither side waits for the other's valid.
// Latency 3 cycles after the later of the two; a beat per cycle.
module srq_add #(
    parameter HEIGHT = 4,
    parameter WIDTH = 4,
    parameter CHANNELS = 4,
    parameter LANES = 2,
    parameter A_BITS = 8,
    parameter A_SIGNED = 1,
    parameter A_ZERO = 0,
    parameter A_FACTOR = 1,
    parameter B_BITS = 8,
    parameter B_SIGNED = 1,
    parameter B_ZERO = 0,
    parameter B_FACTOR = 1,
    parameter FACTOR_BITS = 16,
    parameter OUT_BITS = 26
) (
    input wire clk,
    input wire rst,

    input wire [LANES*A_BITS-1:0] a_tdata,
    input wire a_tvalid,
    output wire a_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire a_tlast,  // counted here instead
    /* verilator lint_on UNUSEDSIGNAL */

    input wire [LANES*B_BITS-1:0] b_tdata,
    input wire b_tvalid,
    output wire b_tready,
    /* verilator lint_off UNUSEDSIGNAL */
    input wire b_tlast,
    /* verilator lint_on UNUSEDSIGNAL */

    output reg [LANES*OUT_BITS-1:0] m_tdata,
    output reg m_tvalid,
    input wire m_tready,
    output wire m_tlast
);
    generate
        if (CHANNELS % LANES != 0) begin : wrong
            srq_error_lanes_do_not_divide_channels stop ();
        end
    endgenerate

    // One beat of each side waits for its partner here.
    reg [LANES*A_BITS-1:0] a_beat;
    reg [LANES*B_BITS-1:0] b_beat;
    reg a_full;
    reg b_full;
    reg product_valid;

    wire sum_moves = !m_tvalid || m_tready;
    wire product_moves = !product_valid || sum_moves;
    wire pair = a_full && b_full && product_moves;

    assign a_tready = !a_full || pair;
    assign b_tready = !b_full || pair;

    initial begin
        a_full = 1'b0;
        b_full = 1'b0;
        product_valid = 1'b0;
        m_tvalid = 1'b0;
    end

    always @(posedge clk) begin
        if (a_tready) a_beat <= a_tdata;
        if (b_tready) b_beat <= b_tdata;
    end

    always @(posedge clk) begin
        if (rst) begin
            a_full <= 1'b0;
            b_full <= 1'b0;
            product_valid <= 1'b0;
            m_tvalid <= 1'b0;
        end else begin
            if (a_tready) a_full <= a_tvalid;
            if (b_tready) b_full <= b_tvalid;
            if (product_moves) product_valid <= pair;
            if (sum_moves) m_tvalid <= product_valid;
        end
    end

    // Zero points and factors at fixed widths; a zero point lies among the values of its stream.
    /* verilator lint_off WIDTH */
    localparam signed [A_BITS+1:0] A_OFFSET = A_ZERO;
    localparam signed [B_BITS+1:0] B_OFFSET = B_ZERO;
    localparam signed [FACTOR_BITS-1:0] A_SCALE = A_FACTOR;
    localparam signed [FACTOR_BITS-1:0] B_SCALE = B_FACTOR;
    /* verilator lint_on WIDTH */

    genvar lane;
    generate
        for (lane = 0; lane < LANES; lane = lane + 1) begin : lanes
            wire [A_BITS-1:0] a_bits = a_beat[lane*A_BITS+:A_BITS];
            wire [B_BITS-1:0] b_bits = b_beat[lane*B_BITS+:B_BITS];
            wire signed [A_BITS+1:0] a_value = {{2{(A_SIGNED != 0) && a_bits[A_BITS-1]}}, a_bits};
            wire signed [B_BITS+1:0] b_value = {{2{(B_SIGNED != 0) && b_bits[B_BITS-1]}}, b_bits};
            wire signed [A_BITS+1:0] a_centred = a_value - A_OFFSET;
            wire signed [B_BITS+1:0] b_centred = b_value - B_OFFSET;

            // All operands are signed, so Verilog extends them by their sign to the width of the target.
            /* verilator lint_off WIDTH */
            reg signed [A_BITS+FACTOR_BITS+1:0] a_product;
            reg signed [B_BITS+FACTOR_BITS+1:0] b_product;
            wire signed [OUT_BITS-1:0] sum = a_product + b_product;

            always @(posedge clk) begin
                if (product_moves) begin
                    a_product <= a_centred * A_SCALE;
                    b_product <= b_centred * B_SCALE;
                end
                if (sum_moves) m_tdata[lane*OUT_BITS+:OUT_BITS] <= sum;
            end
            /* verilator lint_on WIDTH */
        end
    endgenerate

    srq_frame #(
        .BEATS(HEIGHT * WIDTH * (CHANNELS / LANES))
    ) frame (
        .clk(clk),
        .rst(rst),
        .step(m_tvalid && m_tready),
        .last(m_tlast)
    );
endmodule
