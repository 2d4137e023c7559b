// A simulation model of AMD's DSP48E2 in the one configuration that Yosys gives it: a multiplier without registers,
//
//   P = A[26:0] * B        (27 x 18 bits signed, the 45-bit product extended to 48)
//
// After the public user guide UG579: with A_INPUT and B_INPUT "DIRECT", AREG = BREG = 0 and INMODE = 00000 the operands
// are the ports A and B; with AMULTSEL "A" and BMULTSEL "B" the multiplier takes their low 27 and 18 bits and neither the
// pre-adder nor D; OPMODE = 00_000_01_01 puts the product on X and Y and 0 on W and Z; ALUMODE = 0000 adds
// W + X + Y + Z + CIN; CARRYINSEL = 000 makes CIN the port CARRYIN. USE_SIMD "ONE48": one 48-bit sum.
// Whatever else is asked for is no result: a parameter stops the build at a module that does not exist, a mode pin stops
// the simulation, and a port that is not declared here stops the build too.
module DSP48E2 #(
    parameter ACASCREG = 1,  // the defaults are the primitive's, so that one that is left out is noticed
    parameter ADREG = 1,
    parameter ALUMODEREG = 1,
    parameter AMULTSEL = "A",
    parameter AREG = 1,
    parameter A_INPUT = "DIRECT",
    parameter BCASCREG = 1,
    parameter BMULTSEL = "B",
    parameter BREG = 1,
    parameter B_INPUT = "DIRECT",
    parameter CARRYINREG = 1,
    parameter CARRYINSELREG = 1,
    parameter CREG = 1,
    parameter DREG = 1,
    parameter INMODEREG = 1,
    parameter MREG = 1,
    parameter OPMODEREG = 1,
    parameter PREG = 1,
    parameter USE_MULT = "MULTIPLY",
    parameter USE_SIMD = "ONE48"
) (
    input  wire [29:0] A,
    input  wire [29:0] ACIN,
    input  wire [3:0]  ALUMODE,
    input  wire [17:0] B,
    input  wire [17:0] BCIN,
    input  wire [47:0] C,
    input  wire        CARRYIN,
    input  wire [2:0]  CARRYINSEL,
    input  wire [26:0] D,
    input  wire [4:0]  INMODE,
    input  wire [8:0]  OPMODE,
    output wire [47:0] P,
    input  wire [47:0] PCIN
);
    localparam REGISTERS = ACASCREG + ADREG + ALUMODEREG + AREG + BCASCREG + BREG + CARRYINREG + CARRYINSELREG + CREG
        + DREG + INMODEREG + MREG + OPMODEREG + PREG;  // each is 0, 1 or 2
    generate
        if (REGISTERS != 0) begin : g_registers
            srq_error_dsp48e2_model_has_no_registers stop ();
        end
        if (A_INPUT != "DIRECT" || B_INPUT != "DIRECT") begin : g_cascade
            srq_error_dsp48e2_model_has_no_cascade stop ();
        end
        if (AMULTSEL != "A" || BMULTSEL != "B") begin : g_preadder
            srq_error_dsp48e2_model_has_no_preadder stop ();
        end
        if (USE_MULT != "MULTIPLY" || USE_SIMD != "ONE48") begin : g_use
            srq_error_dsp48e2_model_only_multiplies stop ();
        end
    endgenerate

    wire modelled = (ALUMODE == 4'b0000) && (CARRYINSEL == 3'b000) && (CARRYIN == 1'b0) && (INMODE == 5'b00000)
        && (OPMODE == 9'b000000101);
    always @* begin
        if (!modelled) begin
            $fdisplay(32'h80000002, "DSP48E2 model: OPMODE %b, ALUMODE %b, INMODE %b, CARRYINSEL %b, CARRYIN %b",
                OPMODE, ALUMODE, INMODE, CARRYINSEL, CARRYIN);  // to standard error
            $fatal(1, "DSP48E2 model: this mode is not modelled");
        end
    end

    wire signed [26:0] a = A[26:0];
    wire signed [17:0] b = B;
    wire signed [44:0] product = a * b;
    assign P = {{3{product[44]}}, product};
endmodule
