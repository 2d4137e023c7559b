"""One FINN node as instances of the RTL library, and the Verilog around them with FINN's ports. Needs no FINN."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import onnx

from srq_hw.backends.finn.ops.lanes import node_lanes
from srq_hw.backends.finn.ops.nodes import DUPLICATE, base_type, image_size, input_reach, input_tensors, node_graph
from srq_hw.backends.rtl.emit import instance_lines, library_files
from srq_hw.backends.rtl.folding import Folding
from srq_hw.backends.rtl.limits import refuse
from srq_hw.backends.rtl.netlist import Fabric, Instance, Netlist, Stream
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.rtl.stitch import verilog_names
from srq_hw.backends.rtl.units import unit

#: FINN pads every tdata to whole bytes
BYTE = 8


@dataclass(frozen=True)
class Hardware:
    """What computes a node: streams in and out in FINN's order, instances in the order of the stream."""

    inputs: tuple[Stream, ...]
    outputs: tuple[Stream, ...]
    instances: tuple[Instance, ...]

    @property
    def library(self) -> tuple[str, ...]:
        """File names of the RTL library that the instances need."""
        return library_files(_netlist(self, "node"))

    @property
    def memories(self) -> dict[str, str]:
        """File name -> `$readmemh` text."""
        return {file: text for instance in self.instances for file, text in instance.memories.items()}


def hardware(onnx_node: onnx.NodeProto, port: int) -> Hardware:
    """The node for multipliers whose wide input has so many bits (`netlist.Fabric.port`).

    InputError where PE or SIMD do not divide the channels, or the library cannot do it (`limits`).
    """
    return _hardware(onnx_node.SerializeToString(deterministic=True), port)


@lru_cache(maxsize=8)
def _hardware(serialized: bytes, port: int) -> Hardware:
    """Kept for a few nodes: FINN asks for LUTs, DSPs, block RAMs and UltraRAMs one after the other."""
    onnx_node = onnx.NodeProto.FromString(serialized)
    lanes = node_lanes(onnx_node)
    height, width = image_size(onnx_node)
    stem = verilog_names([onnx_node.name or "node"])[onnx_node.name or "node"]
    ins = tuple(
        Stream(f"{stem}__{t.name}", height, width, t.channels, count, t.bits, t.signed)
        for t, count in zip(input_tensors(onnx_node), lanes.inputs, strict=True)
    )
    if base_type(onnx_node) == DUPLICATE:
        return _fork(stem, ins[0], len(onnx_node.output))
    graph = node_graph(onnx_node)
    refuse(graph)
    node = graph.nodes[0]
    folding = Folding(lanes.cycles, {node.name: lanes})
    plan = Plan(graph, (height, width), folding, Fabric(port), {node.name: stem}, input_reach(onnx_node))
    instances = unit(plan, node, ins)
    return Hardware(ins, (instances[-1].ports["m"],), instances)


def _fork(stem: str, source: Stream, count: int) -> Hardware:
    """A chain of two-way forks."""
    made: list[Instance] = []
    arms: list[Stream] = []
    stream = source
    for index in range(count - 1):
        last = index == count - 2
        arm, rest = (
            replace(source, name=f"{stem}__out{index}"),
            replace(source, name=f"{stem}__out{index + 1}" if last else f"{stem}__rest{index}"),
        )
        ports = {"s": stream, "m0": arm, "m1": rest}
        parameters: dict[str, int | str] = {"BITS": source.tdata_bits}
        name = f"{stem}__fork{index}"
        made.append(Instance("srq_duplicate", name, parameters, ports, {}, "", f"copy {index} of {count}"))
        arms.append(arm)
        stream = rest
    return Hardware((source,), (*arms, stream), tuple(made))


def wrapper_text(name: str, made: Hardware, folder: str) -> str:
    """The module `name` with FINN's ports: ap_clk, ap_rst_n (synchronous, active low), in<i>_V_TDATA and so on.

    tdata is padded with zeros to whole bytes, lane 0 lowest; there is no tlast. folder: where the memory files are; it
    stands in the text, because FINN simulates and synthesises elsewhere. During reset the module takes and offers no
    beat, whatever its neighbours do.
    """
    where = f"{folder.rstrip('/')}/"
    streams = [f"in{index}_V" for index in range(len(made.inputs))]
    streams += [f"out{index}_V" for index in range(len(made.outputs))]
    lines = [
        f"// {name}: one node of a FINN graph on the RTL library of srq-hw. Generated.",
        "/* verilator lint_off UNUSEDSIGNAL */  // padding of tdata, and tlast, which FINN does not have",
        f"module {name} (",
        '    (* X_INTERFACE_INFO = "xilinx.com:signal:clock:1.0 ap_clk CLK" *)',
        f'    (* X_INTERFACE_PARAMETER = "ASSOCIATED_BUSIF {":".join(streams)}, ASSOCIATED_RESET ap_rst_n" *)',
        "    input wire ap_clk,",
        '    (* X_INTERFACE_PARAMETER = "POLARITY ACTIVE_LOW" *)',
        "    input wire ap_rst_n,",
        *_ports(made),
        ");",
        "    wire clk = ap_clk;",
        "    wire rst = !ap_rst_n;",
    ]
    for index, stream in enumerate(made.inputs):
        outer, inner = f"in{index}_V", stream.name
        lines += [
            "",
            f"    wire [{stream.tdata_bits - 1}:0] {inner}_tdata = {outer}_TDATA[{stream.tdata_bits - 1}:0];",
            f"    wire {inner}_tvalid = {outer}_TVALID;",
            f"    wire {inner}_tready;",
            f"    wire {inner}_tlast = 1'b0;  // the modules count their beats",
            f"    assign {outer}_TREADY = {inner}_tready && ap_rst_n;",
        ]
    netlist = _netlist(made, name)
    for instance in made.instances:
        placed = {
            key: where + value if key.endswith("FILE") and isinstance(value, str) else value
            for key, value in instance.parameters.items()
        }
        lines += ["", *instance_lines(replace(instance, parameters=placed), netlist)]
    for index, stream in enumerate(made.outputs):
        outer, inner = f"out{index}_V", stream.name
        padding = padded(stream) - stream.tdata_bits
        tdata = f"{{{padding}'d0, {inner}_tdata}}" if padding else f"{inner}_tdata"
        lines += [
            "",
            f"    assign {outer}_TDATA = {tdata};",
            f"    assign {outer}_TVALID = {inner}_tvalid && ap_rst_n;",
            f"    assign {inner}_tready = {outer}_TREADY;",
        ]
    return "\n".join([*lines, "endmodule", "/* verilator lint_on UNUSEDSIGNAL */", ""])


def padded(stream: Stream) -> int:
    """Bits of the stream's tdata on FINN's side."""
    return -(-stream.tdata_bits // BYTE) * BYTE


def _ports(made: Hardware) -> Iterator[str]:
    sides = [(f"in{index}_V", stream, "input", "output") for index, stream in enumerate(made.inputs)]
    sides += [(f"out{index}_V", stream, "output", "input") for index, stream in enumerate(made.outputs)]
    for index, (name, stream, forward, backward) in enumerate(sides):
        end = "" if index == len(sides) - 1 else ","
        yield ""
        yield f"    {forward} wire [{padded(stream) - 1}:0] {name}_TDATA,"
        yield f"    {forward} wire {name}_TVALID,"
        yield f"    {backward} wire {name}_TREADY{end}"


def _netlist(made: Hardware, name: str) -> Netlist:
    """As `emit` wants it; no stream is called like this output, so every one gets its wires."""
    first = made.inputs[0]
    return Netlist(name, (first.height, first.width), first, replace(made.outputs[0], name=""), made.instances)
