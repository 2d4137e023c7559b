"""PSNR in the loop: move every scale until the quantized output image is nearest to the float network's.

Coordinate descent on multiplicative factors. No high-resolution images are needed: the float network is the reference.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srq_hw.normalform.normal import evaluate
from srq_hw.quantize.calibration import Calibration, Range
from srq_hw.quantize.freeze import edges_of, quant_net
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.recipe import ImageSearch
from srq_hw.quantize.requant import multiplier_bits, shifts_only
from srq_hw.quantize.scales import solve_scales
from srq_hw.quantize.stepwise import Stepwise, Values, batches
from srq_hw.quantize.weight_search import legal_steps
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
Real = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]

#: a move must lower the error by this fraction, else it is noise of the float32 sums
LEAST_GAIN = 1e-4


@dataclass(frozen=True)
class Coordinate:
    """What one factor multiplies: the quantizer groups that `freeze` keeps equal, or one convolution's weight steps.

    first: position in `plan.layers` of the first layer that it changes.
    """

    first: int
    groups: tuple[str, ...] = ()
    conv: str = ""


def searches(options: ImageSearch, target: Target) -> bool:
    """Whether the options ask for a search on this target."""
    return options.targets == "all" or shifts_only(target)


def refine(
    plan: QuantPlan,
    calibration: Calibration,
    target: Target,
    patches: Sequence[Image],
    options: ImageSearch,
    progress: Progress | None = None,
) -> Calibration:
    """The calibration with refined scales; never a larger error on the patches than the one given.

    patches: uint8 (H, W, C); the first ``options.patches`` of them are used. Error: mean squared difference of the
    output images (QuantNet, float32, scales as `freeze` will merge them), both clamped to 0..255 grey levels; the
    float one is never rounded. Deterministic in its order; with ``options.seconds`` the machine's speed decides how
    far it gets. On a shift-only target the factors are 1/2 and 2, whatever the options say.
    """
    return _Search(plan, calibration, target, patches, options).run(progress)


class _Search:
    """The network being moved, what it is compared with, and the best scales so far."""

    def __init__(
        self,
        plan: QuantPlan,
        calibration: Calibration,
        target: Target,
        patches: Sequence[Image],
        options: ImageSearch,
    ) -> None:
        self.plan, self.target, self.options, self.start = plan, target, options, calibration
        self.net = quant_net(plan, calibration, target)
        self.walk = Stepwise(self.net, batches(patches[: options.patches]))
        output = plan.point_of(plan.layers[-1].name)
        end = self.walk.position[output.name]
        self.output = plan.layers[end].inputs[0] if options.output == "real" else output.name
        self.stop = end if options.output == "real" else end + 1
        self.wanted = self._float_output(output.tensor)
        self.fixed = {point.group for point in plan.points.values() if point.fixed}
        self.fractions = {point.group for point in plan.points.values() if point.grey_fraction}
        self.edges = edges_of(plan)
        self.scales = self._solve(calibration.scales)
        self.weights = dict(calibration.weights)

    def run(self, progress: Progress | None) -> Calibration:
        deadline = None if self.options.seconds is None else time.monotonic() + self.options.seconds
        self._load(self.scales)
        coordinates = self._coordinates()
        total, least = self.options.sweeps * len(coordinates), self._error({}, 0)
        for sweep in range(self.options.sweeps):
            before, position = least, 0
            values: Values = {}
            for index, coordinate in enumerate(coordinates):
                values = self.walk.run(values, position, coordinate.first)
                position = coordinate.first
                least = self._move(coordinate, self._factors(coordinate, sweep), values, least)
                if progress:
                    progress(sweep * len(coordinates) + index + 1, total)
                if deadline is not None and time.monotonic() >= deadline:
                    return self._result()
            if least >= before and shifts_only(self.target):
                break  # the factors of a later sweep are the same
        if progress:
            progress(total, total)
        return self._result()

    def _factors(self, coordinate: Coordinate, sweep: int) -> tuple[list[float], list[float]]:
        """(falling from 1, rising from 1); every sweep halves the logarithms, where they need not be powers of two."""
        factors = [0.5, 2.0]
        if not shifts_only(self.target) and self.fractions.isdisjoint(coordinate.groups):
            factors = [factor ** (0.5**sweep) for factor in self.options.factors]
        below = sorted((factor for factor in factors if factor < 1), reverse=True)
        return below, sorted(factor for factor in factors if factor > 1)

    def _move(
        self, coordinate: Coordinate, factors: tuple[list[float], list[float]], values: Values, least: float
    ) -> float:
        """Walk down, or where that does not help up, while the error falls; keep the best factor."""
        best = 1.0
        for side in factors:
            for factor in side:
                self._apply(coordinate, factor)
                error = self._error(values, coordinate.first)
                if error >= least * (1 - LEAST_GAIN):
                    break
                least, best = error, factor
            if best != 1.0:
                break
        scales, weights = self._moved(coordinate, best)
        self.scales, self.weights = scales, weights
        self._apply(coordinate, 1.0)
        return least

    def _moved(self, coordinate: Coordinate, factor: float) -> tuple[dict[str, float], dict[str, Real]]:
        scales, weights = self.scales, self.weights
        if factor != 1.0 and coordinate.groups:
            scales = self._solve(scales | {group: scales[group] * factor for group in coordinate.groups})
        if factor != 1.0 and coordinate.conv:
            weights = weights | {coordinate.conv: self._legal(coordinate.conv, weights[coordinate.conv] * factor)}
        return scales, weights

    def _apply(self, coordinate: Coordinate, factor: float) -> None:
        scales, weights = self._moved(coordinate, factor)
        if coordinate.groups:
            self._load(scales)
        else:
            steps = torch.from_numpy(weights[coordinate.conv]).float().reshape(-1, 1, 1, 1)
            with torch.no_grad():
                self.net.weight_step(coordinate.conv).value.copy_(steps)

    def _load(self, scales: dict[str, float]) -> None:
        with torch.no_grad():
            for group, step in scales.items():
                self.net.step(group).value.fill_(step)

    def _legal(self, conv: str, steps: Real) -> Real:
        layer = self.plan.layer(conv)
        return legal_steps(steps, layer, self.scales[self.plan.point_of(layer.inputs[0]).group], self.target)

    def _solve(self, scales: dict[str, float]) -> dict[str, float]:
        """The scales that `freeze` will make of these."""
        return solve_scales(scales, self.fixed, self.edges, multiplier_bits(self.target), self.fractions)

    def _error(self, values: Values, start: int) -> float:
        """Mean squared error of the output, grey levels squared."""
        found = self.walk.run(values, start, self.stop)[self.output]
        pairs = zip(found, self.wanted, strict=True)
        total = sum(float((part.clamp(0, 255) - aim).double().square().sum()) for part, aim in pairs)
        return total / sum(aim.numel() for aim in self.wanted)

    def _float_output(self, tensor: str) -> list[Tensor]:
        """The float network's tensor in front of the output quantizer, clamped; float32, one per batch."""
        found: list[Tensor] = []
        net = self.plan.net

        def tap(name: str, values: Tensor) -> None:
            if name == tensor:
                found.append((values / net.grey_level).clamp(0, 255))

        with torch.no_grad():
            for images in self.walk.images:
                evaluate(net, images * net.grey_level, tap)
        return found

    def _coordinates(self) -> list[Coordinate]:
        """In execution order. Groups that `freeze` merges are one: four times one of them is four times all."""
        first: dict[str, int] = {}
        for name, point in self.plan.points.items():
            first[point.group] = min(first.get(point.group, len(self.walk.layers)), self.walk.position[name])
        found: dict[tuple[str, ...], Coordinate] = {}
        for group in self.scales:
            moved = self._solve(self.scales | {group: 4.0 * self.scales[group]})
            together = tuple(sorted(name for name in moved if moved[name] == 4.0 * self.scales[name]))
            touched = [first[name] for name in moved if moved[name] != self.scales[name]]
            if group in together and group not in self.fixed:
                found[together] = Coordinate(min([*touched, *(first[name] for name in together)]), together)
        ordered = list(found.values())
        if self.options.weights:
            convs = (layer.name for layer in self.plan.layers if layer.op == "conv")
            ordered += [Coordinate(self.walk.position[name], conv=name) for name in convs]
        return sorted(ordered, key=lambda coordinate: coordinate.first)

    def _result(self) -> Calibration:
        weights = {name: self._legal(name, steps) for name, steps in self.weights.items()}
        return with_scales(self.plan, self.start, self.scales, weights)


def with_scales(
    plan: QuantPlan, calibration: Calibration, scales: dict[str, float], weights: dict[str, Real]
) -> Calibration:
    """The calibration with other scales; the range of every quantizer that moved tells what is kept of its data now."""
    ranges: dict[str, Range] = {}
    for name, seen in calibration.ranges.items():
        point = plan.points[name]
        lo, hi = point.range
        step = scales[point.group]
        moved = step != calibration.scales[point.group]
        lower, upper = max(seen.data_min, lo * step), min(seen.data_max, hi * step)
        ranges[name] = replace(seen, lower=min(lower, upper), upper=upper) if moved else seen
    return Calibration(scales, weights, ranges)
