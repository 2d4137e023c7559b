// What a store of weights must do, as assertions: its share of a set is played from word 0 on, again and again, from a
// fixed number of cycles behind its last beat on; the rest goes on in order. A set may end within the share.
// WIDTH_, DEPTH_, LOAD_, STYLE_ and PACK_, the words of a row, are put in by the test. The first beat of a set comes when
// the rest of the one before has left, so that it is known when it arrives.
module share (
    input wire clk,
    input wire rst,
    input wire [LOAD_-1:0] data,
    input wire last,
    input wire valid,
    input wire next_ready,
    input wire ready
);
    localparam PACK = PACK_;
    localparam ROW = (PACK * WIDTH_ + LOAD_ - 1) / LOAD_ * LOAD_;  // bits sent for a row
    localparam OWN = (DEPTH_ + PACK - 1) / PACK * ROW / LOAD_;     // beats of the share
    localparam LATENCY = (PACK == 1) ? 3 : 4;

    wire load_tready, next_tvalid, next_tlast, m_tvalid;
    wire [LOAD_-1:0] next_tdata;
    wire [WIDTH_-1:0] m_tdata;
    wire offered;
    srq_store #(.WIDTH(WIDTH_), .DEPTH(DEPTH_), .LOAD(LOAD_), .STYLE(STYLE_)) dut (
        .clk(clk), .rst(rst),
        .load_tdata(data), .load_tvalid(offered), .load_tready(load_tready), .load_tlast(last),
        .next_tdata(next_tdata), .next_tvalid(next_tvalid), .next_tready(next_ready), .next_tlast(next_tlast),
        .m_tdata(m_tdata), .m_tvalid(m_tvalid), .m_tready(ready)
    );

    // The share.
    reg [OWN*LOAD_-1:0] own = 0;
    reg [3:0] got = 0;     // beats of the share in the set that comes
    reg whole = 0;         // the share is complete
    reg [2:0] age = 0;     // cycles since its last beat
    reg [3:0] row = 0, part = 0;  // of the word that is due
    wire [2*OWN*LOAD_-1:0] due = own >> (row * ROW + part * WIDTH_);
    wire final_word = (row * PACK + part == DEPTH_ - 1);
    // The rest.
    reg [2*LOAD_+1:0] rest = 0;
    reg [1:0] held = 0;

    assign offered = valid && (got != 0 || held == 0);
    wire enters = offered && load_tready;
    wire mine = enters && got != OWN;
    wire others = enters && got == OWN;
    wire leaves = next_tvalid && next_ready;
    wire [2*LOAD_+1:0] remain = leaves ? rest >> (LOAD_ + 1) : rest;
    wire [1:0] left = held - leaves;
    wire [2*LOAD_+1:0] entering = {last, data};
    wire moves = m_tvalid && ready && age > 1;

    always @(posedge clk) begin
        if (mine) own[got*LOAD_ +: LOAD_] <= data;
        if (mine) age <= 1;
        else if (age != 7 && age != 0) age <= age + 1;
        if (mine) {row, part} <= 0;
        else if (moves && final_word) {row, part} <= 0;
        else if (moves && part == PACK - 1) {row, part} <= {row + 4'd1, 4'd0};
        else if (moves) part <= part + 1;
        if (enters) got <= last ? 0 : got + mine;
        if (mine) whole <= (got == OWN - 1);
        held <= left + others;
        rest <= others ? remain | (entering << (left * (LOAD_ + 1))) : remain;
        if (rst) begin
            got <= 0;
            whole <= 0;
            age <= 0;
            held <= 0;
            rest <= 0;
        end
    end

    always @* begin
        if (m_tvalid && age != 1) assert (whole && m_tdata == due[WIDTH_-1:0]);
        assert (m_tvalid || !whole || age < LATENCY);
        if (age > 1 && age < LATENCY) assert (!m_tvalid);
        assert (next_tvalid == (held != 0));
        if (next_tvalid) assert ({next_tlast, next_tdata} == rest[LOAD_:0]);
        if (others) assert (held < 2);
    end
endmodule
