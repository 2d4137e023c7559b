"""The search for widths under a budget: sensitivities, knapsack, rounds at the found point, and the integer truth.

1. every convolution is narrowed alone while the others have their widest widths (`quantize.sensitivity`);
2. damages taken as additive, a knapsack finds the best widths for a ladder of budgets: the front;
3. at the wanted budget the damages are measured again around the point found, as long as the error falls; where a
   uniform network within the budget is nearer to the float one, the rounds start from that;
4. the integer program of every point is run on images that calibration did not see and compared with the float output.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.errors import InputError
from srq_hw.exchange.direct import to_intgraph
from srq_hw.mixed.costs import CostModel, Frame, Shape, conv_shapes, cost_model
from srq_hw.mixed.solve import Budget, Choices, solve
from srq_hw.normalform.normal import NormalNet, evaluate, upscales
from srq_hw.quantize.calibrate import sample_patches
from srq_hw.quantize.equalize import equalize
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.plan import make_plan
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import Policy, Recipe
from srq_hw.quantize.sensitivity import Damage, Probe, Widths, falling, plain
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]
#: (what is being done, done, total)
Watch = Callable[[str, int, int], None]

#: what budgets of hardware are worked out for where nothing is said
DEFAULT_FRAME = Frame(64, 64, 60.0)
#: the error must fall by this fraction, else a round found nothing but noise
LEAST_GAIN = 1e-3
#: budgets between two uniform widths that the front is worked out for
BETWEEN = 2


@dataclass(frozen=True)
class SearchOptions:
    """widths: narrowest and widest that are tried; patches: of the recipe's, on which damages are measured; rounds: at
    most so many at the wanted budget; frame: for hardware budgets; front: other budgets too."""

    budget: Budget
    widths: tuple[int, int] = (2, 8)
    patches: int = 8
    rounds: int = 3
    frame: Frame = DEFAULT_FRAME
    front: bool = True


@dataclass(frozen=True)
class Point:
    """One choice of widths. cost: axis -> user's unit; figure: their mean; predicted, measured: PSNR against the float
    output in dB, from additive damages on the calibration patches, and of the integer program on held-out images."""

    name: str
    widths: Widths
    cost: dict[str, float]
    figure: float
    predicted: float | None
    measured: float


@dataclass(frozen=True)
class Result:
    """chosen: what the recipe gets; uniform: the widest uniform network of at most the same cost, None where all cost
    more; both with the whole recipe. front, uniforms: calibrated only, so that they compare with one another.

    repaired: why the chosen widths are not the knapsack's, or None. rounds: error on the calibration patches after
    each round, grey levels squared.
    """

    model: CostModel
    shapes: dict[str, Shape]
    damages: dict[str, Damage]
    limits: dict[str, float]
    chosen: Point
    uniform: Point | None
    front: tuple[Point, ...]
    uniforms: tuple[Point, ...]
    rounds: tuple[float, ...]
    repaired: str | None
    recipe: Recipe


def search_bits(
    net: NormalNet,
    target: Target,
    recipe: Recipe,
    images: Sequence[Image],
    tests: Sequence[Image],
    options: SearchOptions,
    watch: Watch | None = None,
) -> Result:
    """Search. images: low resolution, for calibration; tests: uint8 (h, w, C), low resolution, to be scored on.

    Layers that the recipe's policy names keep their widths. InputError where the budget is below what the narrowest
    widths cost.
    """
    return _Search(net, target, recipe, images, tests, options, watch or (lambda what, done, total: None)).run()


class _Search:
    def __init__(
        self,
        net: NormalNet,
        target: Target,
        recipe: Recipe,
        images: Sequence[Image],
        tests: Sequence[Image],
        options: SearchOptions,
        watch: Watch,
    ) -> None:
        self.net, self.target, self.recipe, self.images, self.options = net, target, recipe, images, options
        self.watch = watch
        even = equalize(net, sample_patches(images, recipe), recipe.equalize) if recipe.equalize else net
        self.sums = recipe.policy.layers(target).sums or target.integer.activations.bits.default
        self.base = recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"sums": self.sums})})
        watch("calibrate at every width", 0, 1)
        self.probe = Probe(even, target, recipe, images, options.widths, self.sums, options.patches)
        self.tests = [(image, _float_output(net, image)) for image in tests]
        self.shapes = conv_shapes(self.probe.plan.net)
        free = {name for name, widths in self.probe.input_bits.items() if len(widths) > 1}
        self.model = cost_model(options.budget.kind, self.shapes, free, _upscale(net), target, options.frame)
        self.choices = self._choices()

    def _choices(self) -> Choices:
        """What the probe has, but one width where the recipe's policy names it."""
        policy = self.recipe.policy
        found = {}
        for name in self.probe.convs:
            tables = []
            pairs = ((policy.weights, self.probe.weight_bits), (policy.activations, self.probe.input_bits))
            for what, (pins, table) in zip(("weights", "activations"), pairs, strict=True):
                pin = pins.get(name)
                if pin is not None and len(table[name]) > 1 and pin not in table[name]:
                    raise InputError(
                        f"recipe {self.recipe.name}: policy.{what}: {name}: {pin} bits are not among the widths that "
                        f"are searched ({table[name][0]} to {table[name][-1]}); choose --widths so that they are"
                    )
                tables.append((pin,) if pin in table[name] else table[name])
            found[name] = (tables[0], tables[1])
        return found

    def run(self) -> Result:
        first = falling(self.probe.damages(self.probe.widest, self._bar("sensitivities")))
        limits = self._limits()
        widths = solve(self.model, self.shapes, self.choices, first, limits)
        base = self.probe.error(self.probe.widest)
        widths, rounds, repaired = self._rounds(widths, limits)
        uniforms, front = self._ladder(first, base, limits) if self.options.front else ((), ())
        chosen = self._point("chosen", widths, _predict(base, first, widths), self.recipe)
        uniform, fell_back = self._rival(chosen, limits)
        if fell_back is not None:
            chosen, repaired = fell_back, "in integers the uniform network was nearer to the float one"
        final = _with_widths(self.base, self.choices, chosen.widths)
        return Result(
            self.model, self.shapes, first, limits, chosen, uniform, front, uniforms, tuple(rounds), repaired, final
        )

    def _rounds(self, widths: Widths, limits: dict[str, float]) -> tuple[Widths, list[float], str | None]:
        """Damages around the point found, and the knapsack again, as long as the error on the patches falls."""
        errors, repaired = [self.probe.error(widths)], None
        rivals = [(self.probe.error(item), item) for item in self._uniform_pairs() if self._within(item, limits)]
        if rivals:
            error, nearest = min(rivals, key=lambda rival: rival[0])
            if error < errors[-1] * (1 - LEAST_GAIN):
                widths, repaired = nearest, "additive damages misled: the rounds started from a uniform network"
                errors.append(error)
        for index in range(self.options.rounds):
            around = self.probe.damages(widths, self._bar(f"round {index + 1}"))
            trial = solve(self.model, self.shapes, self.choices, around, limits)
            error = self.probe.error(trial)
            if error >= errors[-1] * (1 - LEAST_GAIN):
                break
            widths = trial
            errors.append(error)
        return widths, errors, repaired

    def _uniform_pairs(self) -> list[Widths]:
        """Every uniform WxAy, as the recipe's policy has it (edges, pins)."""
        low, high = self.options.widths
        found = []
        for pair in itertools.product(range(low, high + 1), repeat=2):
            uniform = self._uniform(*pair)
            if uniform is not None:
                found.append(uniform)
        return found

    def _uniform(self, weight_bits: int, input_bits: int) -> Widths | None:
        """Widths of every convolution with --weight-bits, --act-bits and the recipe's policy; None where illegal."""
        rules = self.target.integer
        if not rules.weights.bits.min <= weight_bits <= rules.weights.bits.max:
            return None
        if not rules.activations.bits.min <= input_bits <= rules.activations.bits.max:
            return None
        plan = make_plan(
            self.probe.plan.net, self.target, weight_bits, input_bits, self.base.policy.layers(self.target)
        )
        found = {
            name: (plan.bits.weights[name], plan.point_of(plan.layer(name).inputs[0]).bits) for name in self.probe.convs
        }
        known = all(
            pair[0] in self.probe.weight_bits[name] and pair[1] in self.probe.input_bits[name]
            for name, pair in found.items()
        )
        return found if known else None

    def _limits(self) -> dict[str, float]:
        """Axis -> the budget's number."""
        limit = self.options.budget.limit
        if isinstance(limit, float):
            return {axis.label: limit for axis in self.model.axes}
        uniform = self._uniform(*limit)
        if uniform is None:
            raise InputError(
                f"--budget {self.options.budget.text}: no such uniform network among the widths that are searched "
                f"({self.options.widths[0]} to {self.options.widths[1]} of what target {self.target.name} has)"
            )
        return self.model.spent(self.shapes, uniform)

    def _within(self, widths: Widths, limits: Mapping[str, float]) -> bool:
        spent = self.model.spent(self.shapes, widths)
        return all(spent[label] <= limit * (1 + 1e-9) for label, limit in limits.items())

    def _ladder(
        self, damages: dict[str, Damage], base: float, limits: dict[str, float]
    ) -> tuple[tuple[Point, ...], tuple[Point, ...]]:
        """(uniform points, knapsack's points), measured with calibration only."""
        low, high = self.options.widths
        steps = [(bits, item) for bits in range(low, high + 1) if (item := self._uniform(bits, bits)) is not None]
        wanted = [limits]
        spent = [self.model.spent(self.shapes, item) for _, item in steps]
        for left, right in itertools.pairwise(spent):
            for part in range(BETWEEN):
                wanted.append({label: left[label] + (right[label] - left[label]) * part / BETWEEN for label in left})
        wanted += spent[-1:]
        cheapest = {name: (table[0][0], table[1][0]) for name, table in self.choices.items()}
        floor = self.model.spent(self.shapes, cheapest)
        wanted = [item for item in wanted if all(item[label] >= floor[label] for label in item)]
        total, done = len(steps) + len(wanted), itertools.count(1)
        quick = plain(self.recipe)
        uniforms = []
        for bits, item in steps:
            uniforms.append(self._point(f"W{bits}A{bits}", item, _predict(base, damages, item), quick))
            self.watch("front", next(done), total)
        front: list[Point] = []
        for limit in sorted(wanted, key=lambda spent: sum(spent.values())):
            widths = solve(self.model, self.shapes, self.choices, damages, limit)
            if all(widths != point.widths for point in front):
                front.append(self._point("mixed", widths, _predict(base, damages, widths), quick))
            self.watch("front", next(done), total)
        return tuple(uniforms), tuple(front)

    def _rival(self, chosen: Point, limits: dict[str, float]) -> tuple[Point | None, Point | None]:
        """The widest uniform network within the budget, with the whole recipe; again where it beats the chosen one."""
        low, high = self.options.widths
        for bits in range(high, low - 1, -1):
            widths = self._uniform(bits, bits)
            if widths is not None and self._within(widths, limits):
                point = self._point(f"W{bits}A{bits}", widths, None, self.recipe)
                return point, point if point.measured > chosen.measured else None
        return None, None

    def _point(self, name: str, widths: Widths, predicted: float | None, recipe: Recipe) -> Point:
        exact = _with_widths(self.base.model_copy(update=_sections(recipe)), self.choices, widths)
        found = quantize(self.net, self.target, exact, self.images, None, None)
        program = compile_graph(to_intgraph(freeze(found.plan, found.calibration, self.target)))
        errors = [np.square(program.run(image)[0].astype(np.float64) - aim).mean() for image, aim in self.tests]
        cost = self.model.spent(self.shapes, widths)
        figure = self.model.figure(self.shapes, widths)
        return Point(name, widths, cost, figure, predicted, float(np.mean([decibels(float(item)) for item in errors])))

    def _bar(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.watch(what, done, total)


def _sections(recipe: Recipe) -> dict[str, object]:
    """What `plain` changes."""
    return {name: getattr(recipe, name) for name in ("search", "reconstruct", "bias_correction", "weights")}


def _with_widths(recipe: Recipe, choices: Choices, widths: Widths) -> Recipe:
    """The recipe with a width for every weight tensor, and for every input that can have more than one."""
    policy = recipe.policy
    pinned = {**policy.activations}
    inputs = {name: pair[1] for name, pair in widths.items() if len(choices[name][1]) > 1}
    update = {"weights": {name: pair[0] for name, pair in widths.items()}, "activations": {**pinned, **inputs}}
    chosen = Policy.model_validate({**policy.model_dump(), **update, "edges": None, "tail": None})
    return recipe.model_copy(update={"policy": chosen})


def _predict(base: float, damages: Mapping[str, Damage], widths: Widths) -> float:
    """PSNR if damages simply add up."""
    total = sum(damages[name].weights[w] + damages[name].activations[a] for name, (w, a) in widths.items())
    return decibels(base + total)


def decibels(error: float) -> float:
    """PSNR of a mean squared error in grey levels squared."""
    return 10 * math.log10(255**2 / error) if error > 0 else math.inf


def _upscale(net: NormalNet) -> int:
    return upscales(net)[net.output]


def _float_output(net: NormalNet, image: Image) -> npt.NDArray[np.float64]:
    """Grey levels 0..255, not rounded, (H, W, C)."""
    found = torch.from_numpy(image.astype(np.float64)).permute(2, 0, 1)[None] * net.grey_level
    with torch.no_grad():
        output = evaluate(net, found)[0].permute(1, 2, 0).numpy() / net.grey_level
    return np.clip(output, 0, 255)
