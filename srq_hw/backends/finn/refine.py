"""Memory-aware refinement of a folded graph: PE x SIMD and memory of every unit (runs inside the worker).

FINN's SetFolding takes the first PE and SIMD that meet the cycles and leaves memories to Vivado ("auto"). But a weight
memory of 1,152 rows x 256 bits takes 15 block RAMs, one of 1,024 x 288 with the same weights 8. So for each unit every
setting that is as fast as needed is listed with its cost, and one setting per unit is chosen such that the design takes
a small, even share of LUTs, DSPs, block RAM and UltraRAM. The settings are node attributes: FINN's sources, the folding
file and the estimate all follow from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from srq_hw.backends.finn.estimate import Device, converter_luts, node_cost
from srq_hw.backends.finn.figures import figures, node_figures
from srq_hw.backends.finn.memory import threshold_rows

RESOURCES = ("LUT", "DSP", "BRAM_18K", "URAM")
#: bits of weights that one PE, and a whole unit, may read per cycle (FINN warns of routing trouble above the latter)
PE_WEIGHT_BITS, UNIT_WEIGHT_BITS = 288, 8191
#: units with more multipliers than this multiple of what the cycles need are not looked at
SPARE_LANES = 4
#: powers of the norm, one descent each: the larger, the more the fullest resource counts
POWERS = (4, 8, 16)
#: passes of a descent over all units; a pass that changes nothing ends it earlier
PASSES = 12


@dataclass(frozen=True)
class Choice:
    """One setting of a unit: node attributes, cost per RESOURCES, and stream bits per cycle (the tie break)."""

    settings: tuple[tuple[str, Any], ...]
    cost: tuple[int, ...]
    stream: int = 0


def refine(model: Any, device: Device, cycles: int) -> dict[str, int]:
    """Set PE, SIMD and memories of the matrix units, the memories of thresholds and windows, for `cycles` per frame.

    Where a node that is not refined is slower than `cycles`, its cycles are what the matrix units have to meet. What
    fits with FINN's PE and SIMD, weights in block RAM, windows as FINN has them and thresholds in LUTs still fits
    afterwards: costs are those of `node_cost`, which the estimate adds up. Returns a `summary`.
    """
    from qonnx.custom_op.registry import getCustomOp

    make_memories_explicit(model)
    table = figures(model, device)
    slowest = max((row.cycles for row in table if not row.op.startswith("MVAU_rtl")), default=0)
    known: dict[tuple[Any, ...], list[Choice]] = {}
    units = []
    for node in model.graph.node:
        if node.op_type in _CHOICES:
            key = _signature(model, node)
            if key not in known:
                known[key] = _CHOICES[node.op_type](model, node, device, max(cycles, slowest))
            units.append((node, known[key]))
    total = [sum(node_cost(row, device)[key] for row in table) for key in RESOURCES]
    folded = {row.name: (row.pe, row.simd) for row in table}
    for (node, choices), pick in zip(units, choose(total, [item for _, item in units], device), strict=True):
        op = getCustomOp(node)
        for name, value in choices[pick].settings:
            op.set_nodeattr(name, value)
    return summary(model, folded)


def summary(model: Any, folded: dict[str, tuple[int, int]]) -> dict[str, int]:
    """How many units of each kind there are and what they got. folded: PE and SIMD by node as FINN had set them."""
    from qonnx.custom_op.registry import getCustomOp

    counts = dict.fromkeys(("matrix", "refolded", "rom", "thresholds", "blocks", "windows", "block", "ultra"), 0)
    for node in model.graph.node:
        op = getCustomOp(node)
        if node.op_type == "MVAU_rtl":
            counts["matrix"] += 1
            counts["refolded"] += (op.get_nodeattr("PE"), op.get_nodeattr("SIMD")) != folded[node.name]
            counts["rom"] += op.get_nodeattr("ram_style") == "distributed"
        elif node.op_type == "Thresholding_rtl":
            counts["thresholds"] += 1
            counts["blocks"] += op.get_nodeattr("depth_trigger_bram") < op.get_nodeattr("depth_trigger_uram")
        elif node.op_type == "ConvolutionInputGenerator_rtl":
            counts["windows"] += 1
            counts["block"] += op.get_nodeattr("ram_style") == "block"
            counts["ultra"] += op.get_nodeattr("ram_style") == "ultra"
    return counts


def make_memories_explicit(model: Any) -> None:
    """Weights of RTL matrix units in block RAM, thresholds in LUTs: FINN's "auto" would leave both to Vivado."""
    from qonnx.custom_op.registry import getCustomOp

    for node in model.graph.node:
        op = getCustomOp(node)
        if node.op_type == "MVAU_rtl" and op.get_nodeattr("ram_style") == "auto":
            op.set_nodeattr("ram_style", "block")
        if node.op_type == "Thresholding_rtl":
            for name, value in _trigger(op, None):
                op.set_nodeattr(name, value)


def choose(total: list[int], units: list[list[Choice]], device: Device) -> list[int]:
    """Which choice every unit takes: descent from the first one of each, one unit at a time, to the lowest score.

    total: the design's cost with every unit's first choice. The score is a p-norm of the shares of what may be used,
    narrower streams where that is equal; the power rises, so that in the end the fullest resource decides.
    Where this ends above the limits, and further than it started, the first choices stay.
    """
    counts = (device.lut, device.dsp, device.bram36, device.uram)
    per = (1, 1, 2, 1)  # a block RAM is two RAMB18
    limits = [max(unit * int(count * device.utilization_max), 1) for unit, count in zip(per, counts, strict=True)]
    used, picks = list(total), [0] * len(units)
    for power in POWERS:
        for _ in range(PASSES):
            before = list(picks)
            for index, choices in enumerate(units):
                rest = [amount - own for amount, own in zip(used, choices[picks[index]].cost, strict=True)]
                tried = [[a + b for a, b in zip(rest, choice.cost, strict=True)] for choice in choices]
                scores = [
                    (_score(cost, limits, power), choice.stream) for cost, choice in zip(tried, choices, strict=True)
                ]
                best = min(range(len(choices)), key=scores.__getitem__)
                if scores[best] < scores[picks[index]]:
                    picks[index], used = best, tried[best]
            if picks == before:
                break
    return picks if _fullest(used, limits) <= max(1.0, _fullest(total, limits)) else [0] * len(units)


def _score(cost: list[int], limits: list[int], power: int) -> float:
    shares = [amount / limit for amount, limit in zip(cost, limits, strict=True)]
    norm: float = sum(share**power for share in shares) ** (1 / power)
    return round(norm + 1e-3 * sum(shares), 12)


def _fullest(cost: list[int], limits: list[int]) -> float:
    return max(amount / limit for amount, limit in zip(cost, limits, strict=True))


def _signature(model: Any, node: Any) -> tuple[Any, ...]:
    """Equal for nodes with the same choices at the same cost."""
    attributes = tuple(sorted(item.SerializeToString(deterministic=True) for item in node.attribute))
    lanes = neighbour_lanes(model, node)
    return node.op_type, attributes, lanes, model.get_initializer(node.input[1]).min() if len(node.input) > 1 else 0


def neighbour_lanes(model: Any, node: Any) -> tuple[int | None, int | None]:
    """Elements per beat of the stream that arrives at the node and of the one its reader takes; None: no neighbour."""
    from qonnx.custom_op.registry import getCustomOp

    source, readers = model.find_producer(node.input[0]), model.find_consumers(node.output[0]) or []
    before = after = None
    if source is not None:
        before = int(getCustomOp(source).get_folded_output_shape(list(source.output).index(node.input[0]))[-1])
    if readers:
        port = list(readers[0].input).index(node.output[0])
        after = int(getCustomOp(readers[0]).get_folded_input_shape(port)[-1])
    return before, after


# --- the choices of one unit; the first one is how it is set now ----------------------------------------------------


def matrix_choices(model: Any, node: Any, device: Device, cycles: int) -> list[Choice]:
    """PE, SIMD and weight memory of an RTL matrix unit that needs at most `cycles`; leaves the node as it was.

    The streams on both sides keep integer width ratios. FINN's own choice comes first and is all there is where no
    other meets the cycles; where it misses them and others do not, it is left out.
    """
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    rows, columns = int(op.get_nodeattr("MW")), int(op.get_nodeattr("MH"))
    finn = int(op.get_nodeattr("PE")), int(op.get_nodeattr("SIMD"))
    style = op.get_nodeattr("ram_style")
    before, after = neighbour_lanes(model, node)
    bits = op.get_input_datatype(0).bitwidth()
    weight_bits, least = op.get_input_datatype(1).bitwidth(), -(-op.get_exp_cycles() * finn[0] * finn[1] // cycles)
    most = min(UNIT_WEIGHT_BITS // weight_bits, max(SPARE_LANES * least, finn[0] * finn[1]))
    pairs = [finn] + [
        (pe, simd)
        for pe in _divisors(columns)
        for simd in _divisors(rows)
        if (pe, simd) != finn
        and least <= pe * simd <= most
        and simd * weight_bits <= PE_WEIGHT_BITS
        and _whole(simd, before, finn[1])
        and _whole(pe, after, finn[0])
    ]
    if finn[0] * finn[1] < least and len(pairs) > 1:
        pairs = pairs[1:]
    found = []
    for pe, simd in pairs:
        op.set_nodeattr("PE", pe)
        op.set_nodeattr("SIMD", simd)
        stream = simd * bits + op.get_outstream_width(0)
        for memory in ("block", "distributed"):
            settings = (("PE", pe), ("SIMD", simd), ("ram_style", memory))
            found.append(
                _choice(model, node, device, settings, stream, converter_luts((before or simd) * bits, simd * bits))
            )
    for name, value in (("PE", finn[0]), ("SIMD", finn[1]), ("ram_style", style)):
        op.set_nodeattr(name, value)
    return _useful(found)


def threshold_choices(model: Any, node: Any, device: Device, cycles: int) -> list[Choice]:
    """Where a threshold layer's search stages go from LUTs to block RAM; leaves the node all in LUTs."""
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    folds = int(op.get_nodeattr("NumChannels")) // int(op.get_nodeattr("PE"))
    triggers = [None, *threshold_rows(folds, op.get_output_datatype().bitwidth())]
    found = [_choice(model, node, device, _trigger(op, trigger)) for trigger in triggers]
    for name, value in _trigger(op, None):
        op.set_nodeattr(name, value)
    return _useful(found)


def window_choices(model: Any, node: Any, device: Device, cycles: int) -> list[Choice]:
    """The memory of a window generator: LUTs (FINN's default), block RAM, or UltraRAM where there is any."""
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    style = op.get_nodeattr("ram_style")
    styles = [style]
    if op.select_impl_style() == "default":
        styles += [item for item in ("distributed", "block", *(["ultra"] if device.uram else [])) if item != style]
    found = [_choice(model, node, device, (("ram_style", item),)) for item in styles]
    op.set_nodeattr("ram_style", style)
    return _useful(found)


_CHOICES = {
    "MVAU_rtl": matrix_choices,
    "Thresholding_rtl": threshold_choices,
    "ConvolutionInputGenerator_rtl": window_choices,
}


def _choice(
    model: Any, node: Any, device: Device, settings: tuple[tuple[str, Any], ...], stream: int = 0, feed: int = 0
) -> Choice:
    """Set the node and read its cost. feed: LUTs of the width converter in front of it."""
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    for name, value in settings:
        op.set_nodeattr(name, value)
    cost = node_cost(node_figures(model, node, device), device)
    cost["LUT"] += feed
    return Choice(settings, tuple(cost[key] for key in RESOURCES), stream)


def _useful(choices: list[Choice]) -> list[Choice]:
    """The first choice and all that no other one beats or equals in everything."""
    kept = [choices[0]]
    for choice in choices[1:]:
        worse = any(
            all(a <= b for a, b in zip((*other.cost, other.stream), (*choice.cost, choice.stream), strict=True))
            for other in choices
            if other is not choice and other != choice
        )
        if not worse:
            kept.append(choice)
    return kept


def _trigger(op: Any, rows: int | None) -> tuple[tuple[str, Any], ...]:
    """Attributes that put threshold memories of `rows` rows or more into block RAM and the others, or all, into LUTs.

    Both triggers are set: a zero means "auto" to the RTL, and UltraRAM to FINN's estimate.
    """
    folds = int(op.get_nodeattr("NumChannels")) // int(op.get_nodeattr("PE"))
    never = threshold_rows(folds, op.get_output_datatype().bitwidth())[-1] + 1
    return ("depth_trigger_bram", never if rows is None else rows), ("depth_trigger_uram", never)


def _whole(lanes: int, neighbour: int | None, now: int) -> bool:
    """True where one of the two stream widths is a multiple of the other; at the design's edge the width stays."""
    return lanes == now if neighbour is None else max(lanes, neighbour) % min(lanes, neighbour) == 0


def _divisors(number: int) -> list[int]:
    return [value for value in range(1, number + 1) if number % value == 0]
