"""What every layer's width costs in the output image: one convolution narrowed at a time, all others held.

The error is the mean squared difference of the output images of the quantized and of the float network, grey levels
squared. Only what lies behind the changed convolution is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.fixedpoint import int_range
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.quantize.calibrate import calibrate, sample_patches
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.fakequant import FakeQuant, fake_quant
from srq_hw.quantize.freeze import quant_net
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.stepwise import Stepwise, Values, batches
from srq_hw.target import Bits, Target

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
#: convolution -> (bits of its weights, bits of its input)
Widths = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Damage:
    """Of one convolution: bits -> growth of the error, of its weights and of its input, the rest as it was."""

    weights: dict[int, float]
    activations: dict[int, float]


@dataclass(frozen=True)
class _Range:
    """A quantizer of a convolution's input."""

    step: float
    lo: int
    hi: int


def plain(recipe: Recipe) -> Recipe:
    """The recipe without what takes minutes and what a policy decides: clipping searches and weight ranges stay."""
    weights = recipe.weights
    if weights.method == "joint":
        weights = weights.model_copy(update={"method": "mse", "activation_steps": None})
    changes = {"search": None, "reconstruct": None, "bias_correction": False, "weights": weights}
    return recipe.model_copy(update=changes)


def allowed_widths(limits: Bits, least: int, most: int, what: str, target: str) -> tuple[int, ...]:
    """Widths of least..most that the target has. InputError where there are none."""
    found = tuple(range(max(least, limits.min), min(most, limits.max) + 1))
    if not found:
        raise InputError(
            f"--widths {least}-{most}: target {target} allows {limits.min} to {limits.max} bits for {what}; choose "
            "widths among them"
        )
    return found


class Probe:
    """The network with a quantizer of every width at every convolution, ready to be measured.

    weight_bits, input_bits: convolution -> widths it may have (one where nothing can be chosen: it reads the image).
    """

    def __init__(
        self,
        net: NormalNet,
        target: Target,
        recipe: Recipe,
        images: Sequence[Image],
        widths: tuple[int, int],
        sums: int,
        patches: int,
    ) -> None:
        rules = target.integer
        weights = allowed_widths(rules.weights.bits, *widths, "weights", target.name)
        inputs = allowed_widths(rules.activations.bits, *widths, "activations", target.name)
        count = max(len(weights), len(inputs))
        pairs = [(weights[max(i, -len(weights))], inputs[max(i, -len(inputs))]) for i in range(-count, 0)]
        self._rounding, narrow = rules.requant.rounding, rules.weights.narrow_range
        self._weights: dict[str, dict[int, Tensor]] = {}
        self._ranges: dict[str, dict[int, _Range]] = {}
        for pair in pairs:  # the widest comes last and stays
            plan = make_plan(net, target, *pair, LayerPolicy(sums=sums))
            found = calibrate(plan, target, plain(recipe), images)
            self._keep(plan, found, narrow)
        self.plan, self.calibration = plan, found
        self.weight_bits = {name: tuple(sorted(table)) for name, table in self._weights.items()}
        self.input_bits = {name: tuple(sorted(table)) for name, table in self._ranges.items()}
        self.widest: Widths = {name: (max(self.weight_bits[name]), max(self.input_bits[name])) for name in self.convs}
        self._net = quant_net(plan, found, target)
        for name, point in plan.points.items():
            step = torch.tensor(found.scales[point.group])
            self._net.set_quantizer(name, FakeQuant(step.clone, *point.range, self._rounding))
        sampled = sample_patches(images, recipe)
        self._few, self._all = (Stepwise(self._net, batches(part)) for part in (sampled[:patches], sampled))
        output = plan.point_of(plan.layers[-1].name)
        self._stop = self._few.position[output.name]
        self._output = plan.layers[self._stop].inputs[0]
        self._wanted = {walk: self._float_output(walk, output.tensor) for walk in (self._few, self._all)}

    @property
    def convs(self) -> tuple[str, ...]:
        """Names of the convolutions, in execution order."""
        return tuple(self._weights)

    def _keep(self, plan: QuantPlan, found: Calibration, narrow: bool) -> None:
        for layer in plan.layers:
            if layer.op != "conv":
                continue
            assert layer.weight is not None
            bits = plan.weight_bits_of(layer.name)
            steps = torch.from_numpy(found.weights[layer.name]).reshape(-1, 1, 1, 1)
            values = fake_quant(layer.weight, steps, *int_range(bits, True, narrow)).float()
            self._weights.setdefault(layer.name, {})[bits] = values
            point = plan.point_of(layer.inputs[0])
            kept = _Range(found.scales[point.group], *point.range)
            self._ranges.setdefault(layer.name, {})[point.bits] = kept

    def _stand_in(self, name: str, weight_bits: int, input_bits: int) -> Callable[[Tensor], Tensor]:
        """The convolution at these widths; at its widest input the quantizer in front of it does the work."""
        layer = self.plan.layer(name)
        weight = self._weights[name][weight_bits]
        assert layer.bias is not None
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        conv = partial(F.conv2d, weight=weight, bias=layer.bias.float(), padding=padding, groups=layer.groups)
        if input_bits == self.widest[name][1]:
            return conv
        kept = self._ranges[name][input_bits]
        step = torch.tensor(kept.step)
        return lambda x: conv(fake_quant(x, step, kept.lo, kept.hi, self._rounding))

    def _load(self, widths: Mapping[str, tuple[int, int]]) -> None:
        for name in self.convs:
            self._net.stand_ins[name] = self._stand_in(name, *widths[name])

    def error(self, widths: Mapping[str, tuple[int, int]]) -> float:
        """Mean squared error of the output with these widths on all patches, before it is rounded to grey levels."""
        self._load(widths)
        return self._error(self._all, {}, 0)

    def damages(self, widths: Mapping[str, tuple[int, int]], progress: Progress | None = None) -> dict[str, Damage]:
        """How the error grows (or falls) when one convolution gets another width, all others have these.

        Measured on the first patches only.
        """
        self._load(widths)
        walk = self._few
        base = self._error(walk, {}, 0)
        found: dict[str, Damage] = {}
        values: Values = {}
        position = 0
        for index, name in enumerate(self.convs):
            first = walk.position[name]
            values = walk.run(values, position, first)
            position = first
            own = widths[name]
            by_weights = {bits: (bits, own[1]) for bits in self.weight_bits[name]}
            by_inputs = {bits: (own[0], bits) for bits in self.input_bits[name]}
            tables = []
            for table in (by_weights, by_inputs):
                grown = {}
                for bits, pair in table.items():
                    if pair == own:
                        grown[bits] = 0.0
                        continue
                    self._net.stand_ins[name] = self._stand_in(name, *pair)
                    grown[bits] = self._error(walk, values, first) - base
                tables.append(grown)
            self._net.stand_ins[name] = self._stand_in(name, *own)
            found[name] = Damage(*tables)
            if progress:
                progress(index + 1, len(self.convs))
        return found

    def _error(self, walk: Stepwise, values: Values, start: int) -> float:
        found = walk.run(values, start, self._stop)[self._output]
        wanted = self._wanted[walk]
        pairs = zip(found, wanted, strict=True)
        total = sum(float((part.clamp(0, 255) - aim).double().square().sum()) for part, aim in pairs)
        return total / sum(aim.numel() for aim in wanted)

    def _float_output(self, walk: Stepwise, tensor: str) -> list[Tensor]:
        """The float network's tensor in front of the output quantizer, clamped; one per batch."""
        found: list[Tensor] = []

        def tap(name: str, values: Tensor) -> None:
            if name == tensor:
                found.append((values / self.plan.net.grey_level).clamp(0, 255))

        with torch.no_grad():
            for images in walk.images:
                evaluate(self.plan.net, images * self.plan.net.grey_level, tap)
        return found


def falling(damages: Mapping[str, Damage]) -> dict[str, Damage]:
    """The same where a wider width never does more harm than a narrower one, and none does good: noise is removed."""
    return {name: replace(item, **{key: _falling(getattr(item, key)) for key in ("weights", "activations")})
            for name, item in damages.items()}  # fmt: skip


def _falling(table: dict[int, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    worst = 0.0
    for bits in sorted(table, reverse=True):
        worst = max(worst, table[bits])
        found[bits] = worst
    return dict(sorted(found.items()))
