"""What makes instances asks: the graph, lanes, streams; parameters that several units share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from srq_hw.backends.rtl.folding import Folding, Goal, Lanes
from srq_hw.backends.rtl.netlist import FABRIC, Fabric, Stream
from srq_hw.graph.check import bounds
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.opspec import Bounds


@dataclass(frozen=True)
class Plan:
    """All that a unit may ask: the graph, the input size (H, W), lanes, intervals, the Verilog name of each node."""

    graph: IntGraph
    size: tuple[int, int]
    folding: Folding
    fabric: Fabric
    names: Mapping[str, str]
    reach: Mapping[str, Bounds]

    @staticmethod
    def of(graph: IntGraph, goal: Goal, folding: Folding, names: Mapping[str, str]) -> Plan:
        """With the intervals that really arrive."""
        return Plan(graph, goal.size, folding, goal.fabric, names, bounds(graph))

    def lanes(self, node: Node) -> Lanes:
        """How many values it works on at once."""
        return self.folding.nodes[node.name]

    def stream(self, tensor: str, name: str, lanes: int) -> Stream:
        """A tensor on the way, `lanes` of its channels in a beat."""
        t = self.graph.tensors[tensor]
        height, width = (side * t.upscale for side in self.size)
        return Stream(name, height, width, t.channels, lanes, t.bits, t.signed)


def port_parameter(plan: Plan) -> dict[str, int]:
    """PORT, where the multipliers are not those of a DSP48E2."""
    return {} if plan.fabric.port == FABRIC.port else {"PORT": plan.fabric.port}


def rows_parameter(lanes: Lanes) -> dict[str, int | str]:
    """RAM_STYLE of a buffer of rows, where one was chosen."""
    return {"RAM_STYLE": lanes.rows} if lanes.rows else {}


def frame_parameters(stream: Stream) -> dict[str, int | str]:
    """HEIGHT, WIDTH, CHANNELS."""
    return {"HEIGHT": stream.height, "WIDTH": stream.width, "CHANNELS": stream.channels}


def size_text(stream: Stream) -> str:
    """Frames of a stream in words."""
    return f"{stream.height}x{stream.width}x{stream.channels}"
