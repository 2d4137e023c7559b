"""FIFOs of skips by rule, without the analysis of `rtl.schedule`: what they hold, which memory they take.

Where two streams meet, the early one waits for as many rows of the image as the late one lies behind: a k x k
convolution needs k // 2 rows of its input ahead, an upsampling a whole row. The FIFO stands on that stream of the early
arm, back to a fork, on which the rows are the fewest bits. The generator's analysis (`rtl.fifos`) has the last word.
"""

from __future__ import annotations

from math import ceil

from srq_hw.backends.rtl.costs import Cost
from srq_hw.backends.rtl.fifos import SPARE, ULTRA_BITS, ULTRA_WIDTH
from srq_hw.backends.rtl.folding import divisors
from srq_hw.backends.rtl.netlist import Fabric, Instance, Stream
from srq_hw.backends.search.library import Library
from srq_hw.graph.ir import IntGraph, Node

Size = tuple[int, int]

#: what the analysis holds over these rows, because streams come in bursts: 1.5 to 1.9 times in EDSRs of 2 to 8 blocks
BURSTS = 1.7
#: operators whose first output row waits for a whole row of the input
_WHOLE_ROW = ("DepthToSpace", "ResizeNearest", "ResizeFilter")


def delays(graph: IntGraph, width: int) -> dict[str, float]:
    """Tensor -> rows of the image that must be in before its first row comes out; fractions are pixels of a row."""
    late = {graph.input: 0.0}
    for node in graph.nodes:
        scale = graph.tensors[node.inputs[0]].upscale
        ahead = 0.0
        if node.op in ("Conv", "ResizeFilter"):
            rows, columns = _kernel(node)
            ahead += (rows // 2 + columns // 2 / (width * scale)) / scale
        if node.op in _WHOLE_ROW:
            ahead += 1 / scale
        late[node.output] = max(late[name] for name in node.inputs) + ahead
    return late


def waiting(graph: IntGraph, size: Size) -> list[tuple[str, int]]:
    """(tensor, values that wait on it) for every early input of an Add or Concat. size: (H, W) of the image."""
    late = delays(graph, size[1])
    found = []
    for node in graph.nodes:
        if len(node.inputs) < 2:
            continue
        last = max(late[name] for name in node.inputs)
        for name in node.inputs:
            rows = last - late[name]
            if rows > 0:
                place = min(_arm(graph, name), key=lambda arm: _row(graph, arm, size[1]) * graph.tensors[arm].bits)
                found.append((place, ceil(BURSTS * rows * _row(graph, place, size[1]))))
    return found


def fifo_cost(graph: IntGraph, size: Size, fabric: Fabric, library: Library) -> Cost:
    """Of all FIFOs of the design; their bits, and so their memories, hardly depend on the lanes."""
    total = Cost()
    for name, values in waiting(graph, size):
        tensor = graph.tensors[name]
        side = (size[0] * tensor.upscale, size[1] * tensor.upscale)
        lanes = tensor.channels
        ultra = fabric.ultra and values * tensor.bits >= ULTRA_BITS
        if ultra:  # as many values to a word as it takes
            lanes = max(n for n in divisors(tensor.channels) if n == 1 or n * tensor.bits < ULTRA_WIDTH)
        stream = Stream(name, *side, tensor.channels, lanes, tensor.bits, tensor.signed)
        parameters: dict[str, int | str] = {"BITS": stream.tdata_bits, "DEPTH": -(-values // lanes) + SPARE}
        if ultra:
            parameters["RAM_STYLE"] = "ultra"
        total += library.instance(Instance("srq_fifo", name, parameters, {"s": stream, "m": stream}))
    return total


def _kernel(node: Node) -> tuple[int, int]:
    if node.op == "Conv":
        rows, columns = node.params["weight"].shape[2:]
        return int(rows), int(columns)
    taps = int(node.params["taps"].shape[1])
    return taps, taps


def _row(graph: IntGraph, name: str, width: int) -> int:
    """Values of a tensor in the time of one row of the image."""
    tensor = graph.tensors[name]
    return width * tensor.upscale**2 * tensor.channels


def _arm(graph: IntGraph, name: str) -> list[str]:
    """The tensor and those before it up to a fork, a join, or the image."""
    arm = [name]
    while len(graph.consumers(name)) + (name == graph.output) == 1:
        node = graph.producer(name)
        if node is None or len(node.inputs) > 1:
            break
        name = node.inputs[0]
        arm.append(name)
    return arm
