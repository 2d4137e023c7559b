// srq_adder_tree: sum of N signed numbers, a register after every level.
//
//   N      numbers
//   WIDTH  bits of each, signed; the sum has WIDTH + clog2(N) bits and cannot overflow
// Latency: clog2(N) cycles with `en` high (0 for N = 1); a sum per cycle.
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
module srq_adder_tree #(
    parameter N = 4,
    parameter WIDTH = 8
) (
    input  wire                                        clk,
    input  wire                                        en,
    input  wire [N*WIDTH-1:0]                          terms,
    output wire [WIDTH+((N > 1) ? $clog2(N) : 0)-1:0]  sum
);
    localparam LEVELS = (N > 1) ? $clog2(N) : 0;

    genvar level, i;
    generate
        for (level = 0; level <= LEVELS; level = level + 1) begin : g_level
            // Numbers that are left after this level: N / 2**level, rounded up.
            localparam COUNT = (N + (1 << level) - 1) >> level;
            localparam BITS = WIDTH + level;
            wire [COUNT*BITS-1:0] value;
            if (level == 0) begin : g_terms
                assign value = terms;
            end else begin : g_sums
                localparam BELOW = (N + (1 << (level - 1)) - 1) >> (level - 1);
                for (i = 0; i < COUNT; i = i + 1) begin : g_pair
                    wire signed [BITS-2:0] a = g_level[level-1].value[2*i*(BITS-1) +: BITS-1];
                    reg signed [BITS-1:0] total;
                    initial total = {BITS{1'b0}};
                    if (2 * i + 1 < BELOW) begin : g_add
                        wire signed [BITS-2:0] b = g_level[level-1].value[(2*i+1)*(BITS-1) +: BITS-1];
                        always @(posedge clk) if (en) total <= a + b;
                    end else begin : g_pass
                        always @(posedge clk) if (en) total <= {a[BITS-2], a};
                    end
                    assign value[i*BITS +: BITS] = total;
                end
            end
        end
    endgenerate

    assign sum = g_level[LEVELS].value;
endmodule
/* verilator lint_on UNUSED */
