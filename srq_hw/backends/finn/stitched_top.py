"""Verilog top of a stitched FINN graph: the generated modules in graph order, converters and FIFOs of ours between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from srq_hw.backends.finn.ops.wrapper import padded
from srq_hw.backends.finn.stitched_units import Unit, Units
from srq_hw.backends.rtl.emit import instance_lines
from srq_hw.backends.rtl.netlist import Instance, Netlist, Stream
from srq_hw.backends.rtl.units import converted

TOP = "finn_stitched"
#: beats a FIFO holds beyond rows and pixels, for the registers of the units
SPARE = 32
#: pixels that a unit may hold back beyond what it looks ahead
PIXELS = 2
#: windows that wait in front of a matrix unit: FINN's reads the next one while it computes only as far as it has room
WINDOWS = 2
#: inputs of FINN's wrappers that are no stream of the graph: registers by AXI-lite, set selectors, all unused
_LITE = tuple(f"s_axilite_{name}" for name in (
    "AWVALID", "AWADDR", "WVALID", "WDATA", "WSTRB", "BREADY", "ARVALID", "ARADDR", "RREADY"
))  # fmt: skip
_UNUSED: dict[str, tuple[str, ...]] = {
    "FMPadding": _LITE,
    "Thresholding": (*_LITE, "in1_V_TVALID", "in1_V_TDATA"),
    "memory": (*_LITE, "s_axilite_AWPROT", "s_axilite_ARPROT", "s_axis_0_tvalid", "s_axis_0_tdata"),
}


@dataclass(frozen=True)
class Top:
    """The text, the streams "s" and "m" of the module, converters (stream -> lanes before, behind) and FIFO depths."""

    text: str
    source: Stream
    sink: Stream
    converters: Mapping[str, tuple[int, int]]
    fifos: Mapping[str, int]


@dataclass
class _Builder:
    """Grows the text; `waiting` are streams that have no reader yet, `behind` how far each lags, in rows and pixels."""

    lines: list[str] = field(default_factory=list)
    waiting: dict[str, Stream] = field(default_factory=dict)
    behind: dict[str, tuple[int, int]] = field(default_factory=dict)
    converters: dict[str, tuple[int, int]] = field(default_factory=dict)
    fifos: dict[str, int] = field(default_factory=dict)

    def instance(self, instance: Instance) -> None:
        out = instance.ports["m"]
        netlist = Netlist(TOP, (out.height, out.width), out, replace(out, name=""), (instance,))
        self.lines += ["", *instance_lines(instance, netlist)]

    def take(self, tensor: str, lanes: int) -> Stream:
        """The stream of a tensor with the lanes that its reader wants."""
        stream = self.waiting.pop(tensor)
        extra, out = converted(stream, lanes, f"{stream.name}__x{lanes}")
        for instance in extra:
            self.instance(instance)
            self.converters[stream.name] = (stream.lanes, lanes)
        return out

    def queue(self, stream: Stream, depth: int) -> Stream:
        """The stream behind a FIFO."""
        out = replace(stream, name=f"{stream.name}__fifo")
        parameters: dict[str, int | str] = {"BITS": stream.tdata_bits, "DEPTH": depth}
        ports = {"s": stream, "m": out}
        self.instance(Instance("srq_fifo", out.name, parameters, ports, {}, "", f"up to {depth} beats wait"))
        self.fifos[stream.name] = depth
        return out


def write_top(graph: Units, units: Sequence[Unit]) -> Top:
    """The top of a graph whose units have their origin settled.

    Where streams meet, each waits in a FIFO for the slowest one: `_depth`. During reset no unit is offered or asked for
    a beat; FINN's padding takes a ready output for an accepted beat then.
    """
    builder = _Builder()
    reads = [list(zip(unit.tensors, unit.inputs, strict=False)) for unit in units]
    first = next(stream for pairs in reads for tensor, stream in pairs if tensor == graph.source)
    source = replace(first, name="s")
    builder.waiting[graph.source], builder.behind[graph.source] = source, (0, 0)
    for unit, pairs in zip(units, reads, strict=True):
        ins = [builder.take(tensor, stream.lanes) for tensor, stream in pairs]
        lags = [builder.behind[tensor] for tensor in unit.tensors[: len(ins)]]
        if len(ins) > 1:
            ins = [builder.queue(stream, _depth(stream, lag, lags)) for stream, lag in zip(ins, lags, strict=True)]
        elif unit.kind in _QUEUES:
            ins = [builder.queue(ins[0], _QUEUES[unit.kind](unit, ins[0]))]
        builder.lines += ["", *_unit_lines(unit, ins)]
        for tensor, stream in zip(unit.tensors[len(ins) :], unit.outputs, strict=True):
            builder.waiting[tensor] = stream
            builder.behind[tensor] = _delayed(unit, lags)
    last = builder.waiting.pop(graph.sink)
    sink = replace(last, name="m")
    parameters: dict[str, int | str] = {"HEIGHT": last.height, "WIDTH": last.width, "CHANNELS": last.channels}
    parameters |= {"LANES": last.lanes, "BITS": last.bits}
    leave = Instance("srq_output", "exit", parameters, {"s": last, "m": sink}, {}, "", "tlast on a frame's last beat")
    netlist = Netlist(TOP, (last.height, last.width), source, sink, (leave,))
    lines = [
        "// Generated modules of a FINN graph in a row, for simulation. Generated by srq-hw.",
        f"module {TOP} (",
        "    input wire clk,",
        "    input wire rst,",
        f"    input wire [{source.tdata_bits - 1}:0] s_tdata,",
        "    input wire s_tvalid,",
        "    output wire s_tready,",
        "    input wire s_tlast,",
        f"    output wire [{sink.tdata_bits - 1}:0] m_tdata,",
        "    output wire m_tvalid,",
        "    input wire m_tready,",
        "    output wire m_tlast",
        ");",
        *builder.lines,
        "",
        *instance_lines(leave, netlist),
        "endmodule",
        "",
    ]
    return Top("\n".join(lines), source, sink, builder.converters, builder.fifos)


# --- how long the early side of a join waits ----------------------------------------------------------------------


def _delayed(unit: Unit, lags: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(rows, pixels) that a unit's output lags behind the image, in its own rows, at most.

    A window looks half a kernel ahead and starts a row with padding, for which it gets a row more. What makes an image
    larger waits for a whole row.
    """
    rows, pixels = (max(lag[axis] for lag in lags) for axis in (0, 1))
    rows += unit.ahead[0] + 1 if unit.ahead[0] else 0
    pixels += unit.ahead[1] + PIXELS
    factor = unit.outputs[0].height // unit.inputs[0].height
    if factor > 1 and unit.kind != "FMPadding":
        return (rows + 1) * factor, pixels * factor
    return rows, pixels


def _depth(stream: Stream, lag: tuple[int, int], lags: Sequence[tuple[int, int]]) -> int:
    """Beats of a stream that may have to wait for the one with the largest lag."""
    rows, pixels = max(other[0] for other in lags) - lag[0], max(other[1] for other in lags) - lag[1]
    return (rows * stream.width + pixels) * stream.folds + SPARE


def _rows_of_padding(unit: Unit, stream: Stream) -> int:
    """FINN's window unit takes nothing of the next frame while it still hands out this one's last windows."""
    rows, columns = ((big - small) // 2 for big, small in zip(_size(unit.outputs[0]), _size(stream), strict=True))
    return (rows * stream.width + columns + 1) * stream.folds + SPARE


def _size(stream: Stream) -> tuple[int, int]:
    return stream.height, stream.width


#: depth of the FIFO in front of a unit, where there is one
_QUEUES: dict[str, Callable[[Unit, Stream], int]] = {
    "FMPadding": _rows_of_padding,
    "MVAU": lambda unit, stream: WINDOWS * stream.folds,
}


# --- Verilog of a unit --------------------------------------------------------------------------------------------


def _unit_lines(unit: Unit, ins: Sequence[Stream]) -> Iterator[str]:
    """An instance with FINN's ports, and the wires of its outputs without padding."""
    theirs = unit.origin in ("finn", "patched")
    connections = [".ap_clk(clk), .ap_rst_n(!rst)"]
    yield f"    // {unit.name}: {unit.origin}"
    for index, stream in enumerate(ins):
        padding = padded(stream) - stream.tdata_bits
        tdata = f"{{{padding}'d0, {stream.name}_tdata}}" if padding else f"{stream.name}_tdata"
        yield f"    wire {unit.name}__in{index}_tready;"
        yield f"    assign {stream.name}_tready = {unit.name}__in{index}_tready && !rst;"
        connections.append(
            f".in{index}_V_TDATA({tdata}), .in{index}_V_TVALID({stream.name}_tvalid && !rst), "
            f".in{index}_V_TREADY({unit.name}__in{index}_tready)"
        )
    for index, stream in enumerate(unit.outputs):
        name = stream.name
        yield f"    wire [{padded(stream) - 1}:0] {name}_padded;"
        yield f"    wire [{stream.tdata_bits - 1}:0] {name}_tdata = {name}_padded[{stream.tdata_bits - 1}:0];"
        yield f"    wire {name}_tvalid, {name}_tready;"
        yield f"    wire {name}_tlast = 1'b0;"
        connections.append(
            f".out{index}_V_TDATA({name}_padded), .out{index}_V_TVALID({name}_tvalid), "
            f".out{index}_V_TREADY({name}_tready && !rst)"
        )
    if theirs and unit.kind == "MVAU":
        yield from _memory_lines(unit)
        weights = f"{unit.name}__weights"
        connections[0] += ", .ap_clk2x(clk)"
        connections.append(
            f".in1_V_TDATA({weights}_tdata), .in1_V_TVALID({weights}_tvalid), .in1_V_TREADY({weights}_tready)"
        )
    if theirs:
        connections += [f".{name}(0)" for name in _UNUSED.get(unit.kind, ())]
    yield f"    {unit.name} u_{unit.name} ("
    yield from _comma(connections)
    yield "    );"


def _memory_lines(unit: Unit) -> Iterator[str]:
    """The memory that streams a matrix unit's weights; FINN connects the two in Vivado's block design."""
    bits = unit.inputs[0].lanes * unit.outputs[0].lanes * unit.weight_bits
    name = f"{unit.name}__weights"
    yield f"    wire [{-(-bits // 8) * 8 - 1}:0] {name}_tdata;"
    yield f"    wire {name}_tvalid, {name}_tready;"
    yield f"    {unit.name}_memstream_wrapper u_{name} ("
    yield from _comma(
        [
            ".ap_clk(clk), .ap_clk2x(clk), .ap_rst_n(!rst)",
            f".m_axis_0_tdata({name}_tdata), .m_axis_0_tvalid({name}_tvalid), .m_axis_0_tready({name}_tready)",
            *(f".{port}(0)" for port in _UNUSED["memory"]),
        ]
    )
    yield "    );"


def _comma(items: Sequence[str]) -> Iterator[str]:
    for index, item in enumerate(items):
        yield f"        {item}{',' if index < len(items) - 1 else ''}"
