"""Folding: how parallel every node runs. FINN's SetFolding, searched over frame rates for one that fits the device."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from srq_hw.backends.finn.estimate import Device, Estimate, estimate
from srq_hw.backends.finn.figures import figures
from srq_hw.backends.finn.refine import PE_WEIGHT_BITS, refine

if TYPE_CHECKING:
    from srq_hw.backends.finn.flow import Flow

#: weight bits per cycle and PE that FINN's folding may use: its default first, more where a rate needs it
WEIGHT_STREAM_BITS = (36, PE_WEIGHT_BITS)
#: node attributes that a folding file holds
FOLDING_KEYS = ("PE", "SIMD", "parallel_window", "ram_style", "mem_mode", "resType", "runtime_writeable_weights",
                "depth_trigger_uram", "depth_trigger_bram", "inFIFODepths", "outFIFODepths")  # fmt: skip


def remember_shuffle_cycles() -> None:
    """FINN simulates an outer shuffle element by element each time it is asked for its cycles: keep the answers."""
    from finn.custom_op.fpgadataflow.outer_shuffle import OuterShuffle

    slow = OuterShuffle.get_exp_cycles
    known: dict[tuple[Any, ...], int] = {}

    def cycles(self: Any) -> int:
        key = (
            tuple(self.get_nodeattr("transpose_in_shape")),
            tuple(self.get_nodeattr("perm")),
            self.get_nodeattr("SIMD"),
        )
        if key not in known:
            known[key] = slow(self)
        return known[key]

    OuterShuffle.get_exp_cycles = cycles


def fold(flow: Flow, model: Any, fps: float, device: Device) -> tuple[Any, dict[str, int]]:
    """A folded copy of the specialised graph for the wanted frames per second, shuffles decomposed, memories chosen.

    The second result is what `refine` says it did.

    FINN folds what is specialised already; a Shuffle is not at that point, so its SIMD is chosen here by FINN's rule:
    the smallest divisor of the innermost length that meets the cycles.
    """
    flow.config.target_fps = fps
    model = deepcopy(model)
    model = flow.finn("target_fps_parallelization", model)
    cycles = int(device.clock_mhz * 1e6 / fps)
    with flow.step("fold_shuffles", model):
        _fold_shuffles(model, cycles)
    known = set(model.get_all_tensor_names())
    model = flow.finn("transpose_decomposition", model)
    settle_names(model, known)
    with flow.step("refine", model):
        refined = refine(model, device, cycles)
    return model, refined


def _fold_shuffles(model: Any, cycles: int) -> None:
    from qonnx.custom_op.registry import getCustomOp

    for node in model.get_nodes_by_op_type("Shuffle"):
        op = getCustomOp(node)
        shape, permutation = op.get_nodeattr("transpose_in_shape"), list(op.get_nodeattr("perm"))
        lanes = 1  # an inner shuffle moves single elements
        if permutation[-1] == len(permutation) - 1:
            lanes = math.gcd(
                int(shape[-1]), int(op.get_nodeattr("in_shape")[-1]), int(op.get_nodeattr("out_shape")[-1])
            )
        for simd in (value for value in range(1, lanes + 1) if lanes % value == 0):
            op.set_nodeattr("SIMD", simd)
            if op.get_exp_cycles() <= cycles:
                break


@dataclass(frozen=True)
class Folding:
    """A folded model, its estimate, the rate it was folded for, what `refine` did, and the rates tried: (fps, met)."""

    model: Any
    estimate: Estimate
    fps: float
    refined: dict[str, int]
    tried: tuple[tuple[float, bool], ...]


def choose_folding(flow: Flow, model: Any, device: Device, ladder: list[float], fallback: float) -> Folding:
    """The highest rate of the ladder (ascending) that a folding meets within the device.

    Where no rate is met, the fastest folding that fits; where none fits, the one for the fallback rate.
    """
    hls = any(node.op_type == "MVAU_hls" for node in model.graph.node)
    widths = WEIGHT_STREAM_BITS if hls else WEIGHT_STREAM_BITS[-1:]  # `refine` narrows RTL matrix units itself
    made: list[Folding] = []
    tried: dict[float, bool] = {}

    def attempt(fps: float) -> bool:
        if fps not in tried:
            tried[fps] = False
            for width in widths:
                flow.config.mvau_wwidth_max = width
                folded, refined = fold(flow, model, fps, device)
                with flow.step("estimate", folded):
                    made.append(Folding(folded, estimate(figures(folded, device), device), fps, refined, ()))
                tried[fps] = made[-1].estimate.fits and made[-1].estimate.fps >= fps
                if made[-1].estimate.fps >= fps:
                    break  # more weights per cycle only cost more
        return tried[fps]

    if not attempt(ladder[-1]) and attempt(ladder[0]):
        low, high = 0, len(ladder) - 1  # ladder[low] is met, ladder[high] is not
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if attempt(ladder[middle]) else (low, middle)
    fitting = [item for item in made if item.estimate.fits]
    if not fitting:
        attempt(fallback)
        fitting = [next(item for item in made if item.fps == fallback)]
    met = [item for item in fitting if item.estimate.fps >= item.fps]
    best = max(met, key=lambda item: item.fps) if met else max(fitting, key=lambda item: item.estimate.fps)
    return replace(best, tried=tuple(sorted(tried.items())))


def folding_config(model: Any) -> dict[str, Any]:
    """FINN's folding configuration of the model, as `folding_config_file` takes it."""
    from qonnx.custom_op.registry import getCustomOp

    config: dict[str, Any] = {"Defaults": {}}
    for node in model.graph.node:
        op = getCustomOp(node)
        allowed = op.get_nodeattr_types()
        config[node.name] = {key: _plain(op.get_nodeattr(key)) for key in FOLDING_KEYS if key in allowed}
    return config


def _plain(value: Any) -> Any:
    return [int(item) for item in value] if hasattr(value, "__len__") and not isinstance(value, str) else value


def settle_names(model: Any, known: set[str]) -> None:
    """FINN gives new tensors random names; call them after their node, so that the same input gives the same bytes."""
    for node in model.graph.node:
        for index, name in enumerate(list(node.output)):
            if name not in known:
                model.rename_tensor(name, f"{node.name}_out{index}")
