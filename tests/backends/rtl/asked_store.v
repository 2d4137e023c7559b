// A store whose endless stream ends: it plays as many words as it is asked for.
//
// ask  {in, out, words}, one beat for each set: once so many beats with tlast have come in and so many have left by next,
//      `words` words are taken. The set behind is held back until then, so that no word that is on offer changes.
module asked_store #(
    parameter WIDTH = 16,
    parameter DEPTH = 8,
    parameter LOAD = 32,
    parameter STYLE = "ultra"
) (
    input  wire             clk,
    input  wire             rst,

    input  wire [LOAD-1:0]  load_tdata,
    input  wire             load_tvalid,
    output wire             load_tready,
    input  wire             load_tlast,

    input  wire [47:0]      ask_tdata,
    input  wire             ask_tvalid,
    output wire             ask_tready,

    output wire [LOAD-1:0]  next_tdata,
    output wire             next_tvalid,
    input  wire             next_tready,
    output wire             next_tlast,

    output wire [WIDTH-1:0] m_tdata,
    output wire             m_tvalid,
    input  wire             m_tready
);
    reg [15:0] sets, sets_before, ends, answered;  // that came in, a cycle ago, that left by next, asks that are done
    reg [15:0] in, out, words;
    reg asked;
    initial begin
        sets = 0;
        sets_before = 0;
        ends = 0;
        answered = 0;
        asked = 0;
    end

    wire held = (sets > answered);
    wire play = asked && sets_before >= in && ends >= out && words != 0;
    wire done = asked && (words == 0 || (words == 1 && m_tvalid && m_tready));
    assign ask_tready = !asked;

    wire store_tready, store_tvalid;
    srq_store #(.WIDTH(WIDTH), .DEPTH(DEPTH), .LOAD(LOAD), .STYLE(STYLE)) store (
        .clk(clk), .rst(rst),
        .load_tdata(load_tdata), .load_tvalid(load_tvalid && !held), .load_tready(store_tready), .load_tlast(load_tlast),
        .next_tdata(next_tdata), .next_tvalid(next_tvalid), .next_tready(next_tready), .next_tlast(next_tlast),
        .m_tdata(m_tdata), .m_tvalid(store_tvalid), .m_tready(m_tready && play)
    );
    assign load_tready = store_tready && !held;
    assign m_tvalid = store_tvalid && play;

    always @(posedge clk) begin
        if (rst) begin
            sets <= 0;
            sets_before <= 0;
            ends <= 0;
            answered <= 0;
            asked <= 0;
        end else begin
            if (load_tvalid && load_tready && load_tlast) sets <= sets + 1;
            sets_before <= sets;  // by then its last beat is in, where none of a set before waits
            if (next_tvalid && next_tready && next_tlast) ends <= ends + 1;
            if (done) answered <= answered + 1;
            asked <= asked ? !done : ask_tvalid;
        end
        if (!asked) {in, out, words} <= ask_tdata;
        else if (m_tvalid && m_tready) words <= words - 1;
    end
endmodule
