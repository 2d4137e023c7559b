"""All wrappers side by side in one Verilog top, so that one compilation and one run serve every case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from op_cases import Case

from srq_hw.backends.finn.ops.wrapper import Hardware, padded
from srq_hw.backends.rtl.netlist import Stream
from srq_hw.backends.rtl.verilate import LIBRARY, Design, Port

TOP = "srq_finn_ops"


def ports(case: Case, made: Hardware) -> list[tuple[Port, str, Stream]]:
    """(port of the bench, FINN's name of it, stream) of every stream of a case, inputs first."""
    named = [(f"in{index}", stream) for index, stream in enumerate(made.inputs)]
    named += [(f"out{index}", stream) for index, stream in enumerate(made.outputs)]
    return [
        (Port(f"{case.name}_{name}", stream.lanes, stream.bits, stream.signed), f"{name}_V", stream)
        for name, stream in named
    ]


def bench(cases: Sequence[tuple[Case, Hardware]], sources: Sequence[Path], folder: Path) -> Design:
    """Design of all cases. sources: their wrappers, with bare names of memory files.

    Padding of inputs is all ones; the flag padding_wrong rises where padding of an output is not zero. Every output's
    TREADY is low in one reset and high in the next; ready_in_reset says what comes next. tlast is counted here, FINN
    has none.
    """
    head, body, wrong = [], [], ["1'b0"]
    inputs, outputs = [], []
    for case, made in cases:
        connections = [".ap_clk(clk), .ap_rst_n(!rst)"]
        for port, outer, stream in ports(case, made):
            name, bits, pad = port.name, stream.tdata_bits, padded(stream) - stream.tdata_bits
            into = outer.startswith("in")
            (inputs if into else outputs).append(port)
            forward, backward = ("input", "output") if into else ("output", "input")
            head += [f"{forward} wire [{bits - 1}:0] {name}_tdata", f"{forward} wire {name}_tvalid"]
            head += [f"{backward} wire {name}_tready", f"{forward} wire {name}_tlast"]
            if into:
                tdata = f"{{{{{pad}{{1'b1}}}}, {name}_tdata}}" if pad else f"{name}_tdata"
                connections.append(f".{outer}_TDATA({tdata}), .{outer}_TVALID({name}_tvalid)")
                connections.append(f".{outer}_TREADY({name}_tready)")
                continue
            body.append(f"    wire [{padded(stream) - 1}:0] {name}_wide;")
            body.append(f"    assign {name}_tdata = {name}_wide[{bits - 1}:0];")
            body.append(
                f"    srq_frame #(.BEATS({stream.beats})) {name}_frame (.clk(clk), .rst(rst), "
                f".step({name}_tvalid && {name}_tready), .last({name}_tlast));"
            )
            connections.append(f".{outer}_TDATA({name}_wide), .{outer}_TVALID({name}_tvalid)")
            connections.append(f".{outer}_TREADY(rst ? ready_in_reset : {name}_tready)")
            if pad:
                wrong.append(f"({name}_tvalid && {name}_wide[{padded(stream) - 1}:{bits}] != 0)")
        body.append(f"    {case.name} u_{case.name} ({', '.join(connections)});")
    text = [
        "/* verilator lint_off UNUSEDSIGNAL */",
        f"module {TOP} (",
        "    input wire clk, input wire rst, output reg padding_wrong, output reg ready_in_reset,",
        ",\n".join(f"    {line}" for line in head),
        ");",
        *body,
        "    reg was_rst;",
        "    initial begin",
        "        ready_in_reset = 1'b0;",
        "        was_rst = 1'b0;",
        "    end",
        "    always @(posedge clk) begin",
        "        was_rst <= rst;",
        "        if (was_rst && !rst) ready_in_reset <= !ready_in_reset;",
        "    end",
        "    always @(posedge clk) begin",
        "        if (rst) padding_wrong <= 1'b0;",
        f"        else if ({' || '.join(wrong)}) padding_wrong <= 1'b1;",
        "    end",
        "endmodule",
        "",
    ]
    top = folder / f"{TOP}.v"
    top.write_text("\n".join(text))
    needed = {LIBRARY / name for _, made in cases for name in made.library} | {LIBRARY / "srq_frame.v"}
    files = (*sorted(needed), *sources, top)
    memories = {file: text for _, made in cases for file, text in made.memories.items()}
    return Design(TOP, files, {}, tuple(inputs), tuple(outputs), memories, ("padding_wrong", "ready_in_reset"))
