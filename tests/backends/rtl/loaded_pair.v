// Two convolutions with weights written at run time: a stream of images each, one chain for the weights of both.
//
// Keeps what a host must: a set of weights comes while no frame is inside, the frame for it when the set is in.
//   A_*, B_*  of the first and the second: a kernel of K x K, IN to OUT channels, PE and SIMD lanes; 8 bits all of them
module loaded_pair #(
    parameter HEIGHT = 4,
    parameter WIDTH = 5,
    parameter A_K = 3,
    parameter A_IN = 4,
    parameter A_OUT = 6,
    parameter A_PE = 3,
    parameter A_SIMD = 2,
    parameter A_BIAS = "a.hex",
    parameter B_K = 1,
    parameter B_IN = 6,
    parameter B_OUT = 4,
    parameter B_PE = 4,
    parameter B_SIMD = 3,
    parameter B_BIAS = "b.hex",
    parameter ACC_BITS = 26
) (
    input  wire                     clk,
    input  wire                     rst,

    input  wire [31:0]              load_tdata,
    input  wire                     load_tvalid,
    output wire                     load_tready,
    input  wire                     load_tlast,
    output wire [31:0]              next_tdata,
    output wire                     next_tvalid,
    input  wire                     next_tready,
    output wire                     next_tlast,

    input  wire [A_SIMD*8-1:0]      sa_tdata,
    input  wire                     sa_tvalid,
    output wire                     sa_tready,
    output wire [A_PE*ACC_BITS-1:0] ma_tdata,
    output wire                     ma_tvalid,
    input  wire                     ma_tready,
    output wire                     ma_tlast,

    input  wire [B_SIMD*8-1:0]      sb_tdata,
    input  wire                     sb_tvalid,
    output wire                     sb_tready,
    output wire [B_PE*ACC_BITS-1:0] mb_tdata,
    output wire                     mb_tvalid,
    input  wire                     mb_tready,
    output wire                     mb_tlast
);
    localparam A_FRAME = HEIGHT * WIDTH * A_IN / A_SIMD;
    localparam B_FRAME = HEIGHT * WIDTH * B_IN / B_SIMD;

    reg [15:0] sets, a_in, a_out, b_in, b_out;  // sets and beats that came in, frames that left
    initial {sets, a_in, a_out, b_in, b_out} = 0;
    wire load_now = a_out == sets && b_out == sets;
    wire a_now = a_in < sets * A_FRAME;
    wire b_now = b_in < sets * B_FRAME;
    always @(posedge clk) begin
        if (rst) {sets, a_in, a_out, b_in, b_out} <= 0;
        else begin
            sets <= sets + (load_tvalid && load_tready && load_tlast);
            a_in <= a_in + (sa_tvalid && sa_tready);
            b_in <= b_in + (sb_tvalid && sb_tready);
            a_out <= a_out + (ma_tvalid && ma_tready && ma_tlast);
            b_out <= b_out + (mb_tvalid && mb_tready && mb_tlast);
        end
    end

    wire load_free, a_free, b_free;
    assign load_tready = load_free && load_now;
    assign sa_tready = a_free && a_now;
    assign sb_tready = b_free && b_now;

    wire [31:0] chain_tdata;
    wire chain_tvalid, chain_tready, chain_tlast;
    srq_conv_load #(
        .HEIGHT(HEIGHT), .WIDTH(WIDTH), .CHANNELS_IN(A_IN), .CHANNELS_OUT(A_OUT), .KH(A_K), .KW(A_K), .PE(A_PE),
        .SIMD(A_SIMD), .ACC_BITS(ACC_BITS), .BIAS_FILE(A_BIAS)
    ) a (
        .clk(clk), .rst(rst),
        .load_tdata(load_tdata), .load_tvalid(load_tvalid && load_now), .load_tready(load_free), .load_tlast(load_tlast),
        .next_tdata(chain_tdata), .next_tvalid(chain_tvalid), .next_tready(chain_tready), .next_tlast(chain_tlast),
        .s_tdata(sa_tdata), .s_tvalid(sa_tvalid && a_now), .s_tready(a_free),
        .m_tdata(ma_tdata), .m_tvalid(ma_tvalid), .m_tready(ma_tready), .m_tlast(ma_tlast)
    );
    srq_conv_load #(
        .HEIGHT(HEIGHT), .WIDTH(WIDTH), .CHANNELS_IN(B_IN), .CHANNELS_OUT(B_OUT), .KH(B_K), .KW(B_K), .PE(B_PE),
        .SIMD(B_SIMD), .ACC_BITS(ACC_BITS), .BIAS_FILE(B_BIAS)
    ) b (
        .clk(clk), .rst(rst),
        .load_tdata(chain_tdata), .load_tvalid(chain_tvalid), .load_tready(chain_tready), .load_tlast(chain_tlast),
        .next_tdata(next_tdata), .next_tvalid(next_tvalid), .next_tready(next_tready), .next_tlast(next_tlast),
        .s_tdata(sb_tdata), .s_tvalid(sb_tvalid && b_now), .s_tready(b_free),
        .m_tdata(mb_tdata), .m_tvalid(mb_tvalid), .m_tready(mb_tready), .m_tlast(mb_tlast)
    );
endmodule
