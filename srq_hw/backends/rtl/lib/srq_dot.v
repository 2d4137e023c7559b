// srq_dot: PE dot products of SIMD weights with the same SIMD activations, several weights to one DSP multiplier.
//
//   dot[p] = sum over s of weight[p][s] * activation[s]          (exact)
//
// Weights of LANES different outputs share a multiplication. They are added up at a distance of GAP bits,
//   A = w0 + (w1 << GAP) + (w2 << 2*GAP) ...,   A * x = w0*x + (w1*x << GAP) + (w2*x << 2*GAP) ...
// and up to GROUP such products are summed before they are taken apart. A lane of that sum, with the borrow that it
// gets from the lane below, is a signed number of GAP + 1 bits: the product's low GAP bits, and a sign bit that has
// been added to the lowest bit of the lane above. That lowest bit is the parity of the ANDs of the lowest bits of its
// factors, so exclusive-or recovers the sign. Each negative lane has borrowed 1 from the next, which is given back.
//   8 x 8 bit: 2 lanes, gap 18 (19 with W_NARROW), sums of 8 (16);  4 x 4 bit: 4 lanes, gap 7, sums of 1;
//   8 x 4 bit: 2 lanes;  4 x 8 bit: 3 lanes.  Weights of 2 bits (or USE_DSP = 0): shifted additions, no multiplier.
//
//   PE, SIMD   outputs and inputs; PE need not be a multiple of the lanes
//   W_BITS     weight bits, signed, 2..16
//   W_NARROW   1: no weight is the most negative number (a narrow range quantizer)
//   A_BITS     activation bits, 1..16;  A_SIGNED 0 or 1
//   USE_DSP    0: products from LUTs
//   PORT       bits of the multiplier's wide input: 27 of a DSP48E2, 25 of a DSP48E1
//   TAG_BITS   bits that travel with the data
// weights: [pe][simd], simd in the lower bits. dots: PE numbers of W_BITS + A_BITS + clog2(SIMD) bits.
// Latency in cycles with `en` high: 4 + clog2(min(GROUP, SIMD)) + clog2(GROUPS) for DSPs, 2 + clog2(SIMD) for LUTs;
// a result per cycle. rst clears the tag only.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
/* verilator lint_off UNUSED */  // some signals and style attributes are idle for some parameters
module srq_dot #(
    parameter PE = 4,
    parameter SIMD = 4,
    parameter W_BITS = 8,
    parameter W_NARROW = 0,
    parameter A_BITS = 8,
    parameter A_SIGNED = 1,
    parameter USE_DSP = (W_BITS > 2),
    parameter PORT = 27,
    parameter TAG_BITS = 1
) (
    input  wire                        clk,
    input  wire                        rst,
    input  wire                        en,
    input  wire [SIMD*A_BITS-1:0]      activations,
    input  wire [PE*SIMD*W_BITS-1:0]   weights,
    input  wire [TAG_BITS-1:0]         tag,
    output wire [PE*(W_BITS+A_BITS+((SIMD > 1) ? $clog2(SIMD) : 0))-1:0] dots,
    output wire [TAG_BITS-1:0]         dots_tag
);
    localparam PRODUCT = W_BITS + A_BITS;  // bits of one signed product
    localparam DOT = PRODUCT + ((SIMD > 1) ? $clog2(SIMD) : 0);
    // The packed weights need one bit more than the top weight: a lane below may borrow from it.
    localparam ROOM = PORT - W_BITS - (W_NARROW ? 0 : 1);
    localparam FIT = (ROOM >= PRODUCT - 1) ? ROOM / (PRODUCT - 1) + 1 : 1;
    localparam LANES = (FIT < PE) ? FIT : PE;
    localparam GAP = (LANES > 1) ? ROOM / (LANES - 1) : PRODUCT + 15;
    localparam MOST = 1 << (GAP + 1 - PRODUCT);
    localparam GROUP = (MOST < SIMD) ? MOST : SIMD;
    localparam GROUPS = (SIMD + GROUP - 1) / GROUP;
    localparam UNITS = (PE + LANES - 1) / LANES;  // multipliers per activation
    localparam GROUP_LEVELS = (GROUP > 1) ? $clog2(GROUP) : 0;
    localparam LEVELS = (GROUPS > 1) ? $clog2(GROUPS) : 0;
    localparam LATENCY = USE_DSP ? 4 + GROUP_LEVELS + LEVELS : 2 + ((SIMD > 1) ? $clog2(SIMD) : 0);

    // The tag's shift register: its length is the latency.
    reg [LATENCY*TAG_BITS-1:0] tags;
    initial tags = {LATENCY*TAG_BITS{1'b0}};
    always @(posedge clk) begin
        if (rst) tags <= {LATENCY*TAG_BITS{1'b0}};
        else if (en) tags <= (tags << TAG_BITS) | {{(LATENCY-1)*TAG_BITS{1'b0}}, tag};
    end
    assign dots_tag = tags[LATENCY*TAG_BITS-1 -: TAG_BITS];

    genvar p, s, u, g, k;
    generate
        if (USE_DSP) begin : g_dsp
            // Activations, one register for all multipliers.
            reg [SIMD*A_BITS-1:0] x;
            initial x = {SIMD*A_BITS{1'b0}};
            always @(posedge clk) if (en) x <= activations;

            for (u = 0; u < UNITS; u = u + 1) begin : g_unit
                localparam USED = (PE - u * LANES < LANES) ? PE - u * LANES : LANES;
                localparam PACKED = (USED - 1) * GAP + W_BITS + ((USED > 1) ? 1 - W_NARROW : 0);
                localparam WIDE = (USED - 1) * GAP + PRODUCT;  // bits of a packed product
                localparam SUM = WIDE + GROUP_LEVELS;
                if (USED > 1 && PACKED > PORT) begin : g_wrong
                    srq_error_packed_weights_exceed_the_multiplier stop ();
                end
                wire [USED*GROUPS-1:0] sign;  // of lane k in group g, at [k*GROUPS+g]

                for (g = 0; g < GROUPS; g = g + 1) begin : g_group
                    localparam COUNT = (SIMD - g * GROUP < GROUP) ? SIMD - g * GROUP : GROUP;
                    wire [GROUP*WIDE-1:0]  products;
                    wire [SUM-1:0]         total;
                    wire [USED*GROUP-1:0]  low;  // lowest bit of each product, at [k*GROUP+s]

                    for (s = 0; s < GROUP; s = s + 1) begin : g_simd
                        if (s < COUNT) begin : g_multiply
                            localparam S = g * GROUP + s;
                            wire [PACKED-1:0] together;
                            for (k = 0; k < USED; k = k + 1) begin : g_pack
                                localparam LEFT = PACKED - k * GAP;
                                localparam FIELD = (k == USED - 1) ? LEFT : GAP;
                                wire signed [W_BITS-1:0] w = weights[((u*LANES+k)*SIMD+S)*W_BITS +: W_BITS];
                                wire signed [W_BITS:0] field;  // the weight, less what the lane below borrows
                                if (k == 0) begin : g_first
                                    assign field = w;
                                end else begin : g_next
                                    assign field = w - $signed({1'b0, g_pack[k-1].field[W_BITS]});
                                end
                                if (FIELD > W_BITS) begin : g_extend
                                    assign together[k*GAP +: FIELD] =
                                        {{(FIELD-W_BITS){field[W_BITS]}}, field[W_BITS-1:0]};
                                end else begin : g_cut
                                    assign together[k*GAP +: FIELD] = field[FIELD-1:0];
                                end
                                reg w_low;
                                initial w_low = 1'b0;
                                always @(posedge clk) if (en) w_low <= w[0];
                                assign low[k*GROUP+s] = w_low & x[S*A_BITS];
                            end
                            reg signed [PACKED-1:0] a;
                            initial a = {PACKED{1'b0}};
                            reg signed [WIDE-1:0] product;
                            initial product = {WIDE{1'b0}};
                            reg signed [WIDE-1:0] result;
                            initial result = {WIDE{1'b0}};
                            wire signed [A_BITS:0]   b =
                                {(A_SIGNED ? x[S*A_BITS+A_BITS-1] : 1'b0), x[S*A_BITS +: A_BITS]};
                            always @(posedge clk) if (en) begin  // A, M and P registers of the DSP
                                a <= together;
                                product <= a * b;
                                result <= product;
                            end
                            assign products[s*WIDE +: WIDE] = result;
                        end else begin : g_absent
                            assign products[s*WIDE +: WIDE] = {WIDE{1'b0}};
                            for (k = 0; k < USED; k = k + 1) begin : g_low
                                assign low[k*GROUP+s] = 1'b0;
                            end
                        end
                    end

                    srq_adder_tree #(.N(GROUP), .WIDTH(WIDE)) adder (
                        .clk(clk), .en(en), .terms(products), .sum(total)
                    );

                    for (k = 0; k < USED; k = k + 1) begin : g_lane
                        if (k < USED - 1) begin : g_inner
                            wire signed [GAP:0] value;
                            if (MOST >= 2 * GROUP) begin : g_loose  // the sign bit lies below the lane above
                                assign value = {total[k*GAP+GAP-1], total[k*GAP +: GAP]};
                            end else begin : g_tight
                                // Parity of the lane above, as late as the sum.
                                reg [GROUP_LEVELS+1:0] parity;
                                initial parity = {(GROUP_LEVELS+2){1'b0}};
                                always @(posedge clk) if (en)
                                    parity <= {parity[GROUP_LEVELS:0], ^low[(k+1)*GROUP +: GROUP]};
                                assign value = {total[k*GAP+GAP] ^ parity[GROUP_LEVELS+1], total[k*GAP +: GAP]};
                            end
                            assign sign[k*GROUPS+g] = value[GAP];
                        end else begin : g_top
                            wire signed [SUM-k*GAP-1:0] value = total[SUM-1 : k*GAP];
                            assign sign[k*GROUPS+g] = 1'b0;
                        end
                    end
                end

                for (k = 0; k < USED; k = k + 1) begin : g_sum
                    // Bits of a lane: a group's sum, with the borrow.
                    localparam LANE = PRODUCT + GROUP_LEVELS;
                    wire [GROUPS*LANE-1:0]       lanes;
                    wire signed [LANE+LEVELS-1:0] part;
                    reg signed [DOT-1:0] total;
                    initial total = {DOT{1'b0}};
                    for (g = 0; g < GROUPS; g = g + 1) begin : g_take
                        if (k < USED - 1) begin : g_inner
                            assign lanes[g*LANE +: LANE] = {
                                g_group[g].g_lane[k].g_inner.value[GAP],
                                g_group[g].g_lane[k].g_inner.value[LANE-2:0]
                            };
                        end else begin : g_top
                            assign lanes[g*LANE +: LANE] = g_group[g].g_lane[k].g_top.value;
                        end
                    end
                    srq_adder_tree #(.N(GROUPS), .WIDTH(LANE)) adder (
                        .clk(clk), .en(en), .terms(lanes), .sum(part)
                    );
                    if (k == 0) begin : g_lowest
                        always @(posedge clk) if (en) total <= part;
                    end else begin : g_higher
                        // How many groups of the lane below have borrowed.
                        wire [GROUPS*2-1:0]        borrow;
                        wire signed [LEVELS+1:0]   borrowed;
                        for (g = 0; g < GROUPS; g = g + 1) begin : g_borrow
                            assign borrow[2*g +: 2] = {1'b0, sign[(k-1)*GROUPS+g]};
                        end
                        srq_adder_tree #(.N(GROUPS), .WIDTH(2)) counter (
                            .clk(clk), .en(en), .terms(borrow), .sum(borrowed)
                        );
                        always @(posedge clk) if (en) total <= part + borrowed;
                    end
                    assign dots[(u*LANES+k)*DOT +: DOT] = total;
                end
            end
        end else begin : g_lut
            for (p = 0; p < PE; p = p + 1) begin : g_pe
                wire [SIMD*PRODUCT-1:0] products;
                for (s = 0; s < SIMD; s = s + 1) begin : g_simd
                    wire [W_BITS-1:0]  w = weights[(p*SIMD+s)*W_BITS +: W_BITS];
                    wire [A_BITS-1:0]  x = activations[s*A_BITS +: A_BITS];
                    wire signed [PRODUCT-1:0] wide = {{W_BITS{A_SIGNED ? x[A_BITS-1] : 1'b0}}, x};
                    reg signed [PRODUCT-1:0]  value;
                    reg signed [PRODUCT-1:0] result;
                    initial result = {PRODUCT{1'b0}};
                    integer i;
                    always @* begin  // two's complement: the highest bit counts negative
                        value = w[W_BITS-1] ? -(wide <<< (W_BITS - 1)) : {PRODUCT{1'b0}};
                        for (i = 0; i < W_BITS - 1; i = i + 1)
                            value = value + (w[i] ? (wide <<< i) : {PRODUCT{1'b0}});
                    end
                    always @(posedge clk) if (en) result <= value;
                    assign products[s*PRODUCT +: PRODUCT] = result;
                end
                wire [DOT-1:0] sum;
                reg [DOT-1:0] total;
                initial total = {DOT{1'b0}};
                srq_adder_tree #(.N(SIMD), .WIDTH(PRODUCT)) adder (
                    .clk(clk), .en(en), .terms(products), .sum(sum)
                );
                always @(posedge clk) if (en) total <= sum;
                assign dots[p*DOT +: DOT] = total;
            end
        end
    endgenerate
endmodule
/* verilator lint_on WIDTH */
/* verilator lint_on UNUSED */
