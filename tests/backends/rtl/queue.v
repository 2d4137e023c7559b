// What every stream buffer must do, as assertions: each beat once, in order, and a stalled beat stays as it is.
// DUT and ROOM (the beats that fit) are put in by the test.
module queue (
    input wire clk,
    input wire rst,
    input wire data,
    input wire last,
    input wire valid,
    input wire ready
);
    wire s_tready;
    wire m_tdata;
    wire m_tvalid;
    wire m_tlast;

    DUT dut (
        .clk(clk),
        .rst(rst),
        .s_tdata(data),
        .s_tvalid(valid),
        .s_tready(s_tready),
        .s_tlast(last),
        .m_tdata(m_tdata),
        .m_tvalid(m_tvalid),
        .m_tready(ready),
        .m_tlast(m_tlast)
    );

    // The reference: beats enter above those that are held and leave from the bottom.
    reg [2*ROOM+1:0] beats = 0;
    reg [3:0] held = 0;
    reg stalled = 0;
    reg [1:0] stalled_beat = 0;

    wire enters = valid && s_tready;
    wire leaves = m_tvalid && ready;
    wire [2*ROOM+1:0] rest = leaves ? beats >> 2 : beats;
    wire [3:0] left = held - leaves;
    wire [2*ROOM+1:0] entering = {last, data};

    always @(posedge clk) begin
        stalled <= m_tvalid && !ready && !rst;
        stalled_beat <= {m_tlast, m_tdata};
        held <= rst ? 4'd0 : left + enters;
        beats <= rst ? 0 : enters ? rest | (entering << (2 * left)) : rest;
    end

    always @* begin
        if (m_tvalid) assert (held != 0 && {m_tlast, m_tdata} == beats[1:0]);
        if (enters) assert (held < ROOM);
        if (stalled) assert (m_tvalid && {m_tlast, m_tdata} == stalled_beat);
        if (held == ROOM) assert (m_tvalid);
    end
endmodule
