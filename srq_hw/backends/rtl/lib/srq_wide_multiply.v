// srq_wide_multiply: signed product of two numbers, made of parts that fit a PORT x 18 DSP multiplier.
//
// a is cut into parts of PORT - 1 bits, b into parts of 17; all but the highest part are unsigned (one sign bit is added).
//   A_BITS, B_BITS   widths, signed
//   PORT             27 for a DSP48E2, 25 for a DSP48E1
// Latency: 3 cycles with `en` high (products, sums over the parts of a, total); a product per cycle.
/* verilator lint_off WIDTH */  // operands and constants take the declared width of the result
module srq_wide_multiply #(
    parameter A_BITS = 24,
    parameter B_BITS = 17,
    parameter PORT = 27
) (
    input  wire                              clk,
    input  wire                              en,
    input  wire signed [A_BITS-1:0]          a,
    input  wire signed [B_BITS-1:0]          b,
    output reg  signed [A_BITS+B_BITS-1:0]   product
);
    localparam PRODUCT = A_BITS + B_BITS;
    localparam A_PART = PORT - 1;
    localparam B_PART = 17;
    localparam A_PARTS = (A_BITS > A_PART + 1) ? (A_BITS - 2) / A_PART + 1 : 1;
    localparam B_PARTS = (B_BITS > B_PART + 1) ? (B_BITS - 2) / B_PART + 1 : 1;

    wire [A_PARTS*B_PARTS*PRODUCT-1:0] placed;  // part products where they belong
    genvar i, j;
    generate
        for (i = 0; i < A_PARTS; i = i + 1) begin : g_a
            localparam A_LEFT = A_BITS - i * A_PART;
            localparam A_WIDE = (i == A_PARTS - 1) ? A_LEFT : A_PART + 1;
            wire signed [A_WIDE-1:0] a_part;
            if (i == A_PARTS - 1) begin : g_top
                assign a_part = a[A_BITS-1 : i*A_PART];
            end else begin : g_low
                assign a_part = {1'b0, a[i*A_PART +: A_PART]};
            end
            for (j = 0; j < B_PARTS; j = j + 1) begin : g_b
                localparam B_LEFT = B_BITS - j * B_PART;
                localparam B_WIDE = (j == B_PARTS - 1) ? B_LEFT : B_PART + 1;
                wire signed [B_WIDE-1:0] b_part;
                if (j == B_PARTS - 1) begin : g_top
                    assign b_part = b[B_BITS-1 : j*B_PART];
                end else begin : g_low
                    assign b_part = {1'b0, b[j*B_PART +: B_PART]};
                end
                reg signed [A_WIDE+B_WIDE-1:0] part;
                initial part = {(A_WIDE+B_WIDE){1'b0}};
                always @(posedge clk) if (en) part <= a_part * b_part;
                wire signed [PRODUCT-1:0] wide = part;
                assign placed[(j*A_PARTS+i)*PRODUCT +: PRODUCT] = wide <<< (i * A_PART + j * B_PART);
            end
        end
    endgenerate

    wire [B_PARTS*PRODUCT-1:0] rows;  // sums over the parts of a
    generate
        for (j = 0; j < B_PARTS; j = j + 1) begin : g_row
            reg [PRODUCT-1:0] sum;
            reg [PRODUCT-1:0] row;
            initial row = {PRODUCT{1'b0}};
            integer k;
            always @* begin
                sum = {PRODUCT{1'b0}};
                for (k = 0; k < A_PARTS; k = k + 1) sum = sum + placed[(j*A_PARTS+k)*PRODUCT +: PRODUCT];
            end
            always @(posedge clk) if (en) row <= sum;
            assign rows[j*PRODUCT +: PRODUCT] = row;
        end
    endgenerate

    reg [PRODUCT-1:0] total;
    integer n;
    always @* begin
        total = {PRODUCT{1'b0}};
        for (n = 0; n < B_PARTS; n = n + 1) total = total + rows[n*PRODUCT +: PRODUCT];
    end
    initial product = {PRODUCT{1'b0}};
    always @(posedge clk) if (en) product <= total;
endmodule
/* verilator lint_on WIDTH */
