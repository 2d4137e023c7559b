"""Every operation of the table against plain Python loops; see `OpCase` for what each gets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction

import numpy as np

from srq_hw.fixedpoint import ROUNDINGS
from srq_hw.graph.ir import Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.taps import KERNELS, filter_taps
from tests.graph.cases import Array, Example, OpCase, random_inputs, reach_of, with_attrs, with_input, with_params

Value = Callable[[int, int, int, int], int]


def tensor(rng: np.random.Generator, name: str, channels: int, zero_point: bool = True, **fields) -> Tensor:
    bits, signed = int(rng.integers(2, 9)), bool(rng.integers(2))
    made = Tensor(name, channels, bits, signed, **fields)
    zero = int(rng.integers(made.range[0], made.range[1] + 1)) if zero_point and rng.integers(2) else 0
    return Tensor(name, channels, bits, signed, zero_point=zero, **fields)


class TestConv(OpCase):
    op = "Conv"
    malformed = (
        (with_params(weight=lambda w: np.zeros((*w.shape[:2], 2, 3), np.int64)), "odd kernels"),
        (with_params(weight=lambda w: w[:, :, 0]), "wanted .out, in/groups, odd, odd"),
        (with_params(weight=lambda w: np.concatenate([w, w], axis=1)), "does not fit"),
        (with_params(bias=lambda b: np.concatenate([b, b])), "bias has shape"),
        (with_params(bias=lambda b: b[:, None]), "bias has shape"),
        (with_params(weight=lambda w: np.array(3), bias=lambda b: np.array(1)), "weight has shape"),
        (with_params(weight=lambda w: np.array(3)), "weight has shape"),
        (with_attrs(groups=0), "groups 0"),
        (with_attrs(groups=-1), "groups -1"),
        (with_attrs(groups=5), "groups 5"),
    )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        groups = int(rng.choice([1, 1, 2, 3]))
        per_group, outs = int(rng.integers(1, 4)), int(rng.integers(1, 4)) * groups
        rows, columns = rng.choice([1, 3, 5], 2)
        weight = rng.integers(-8, 8, (outs, per_group, rows, columns))
        params = {"weight": weight, "bias": rng.integers(-500, 500, outs)}
        source = tensor(rng, "x", per_group * groups, upscale=int(rng.integers(1, 3)))
        yield Example(Node("Conv", "c", ("x",), "y", {"groups": groups}, params), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return len(example.node.params["bias"]), example.ins[0].upscale

    def plain(self, example: Example, xs: list[Array]) -> Value:
        weight, bias = example.node.params["weight"].tolist(), example.node.params["bias"].tolist()
        x, zero, groups = xs[0], example.ins[0].zero_point, example.node.attrs["groups"]
        outs, per_group, rows, columns = len(weight), len(weight[0]), len(weight[0][0]), len(weight[0][0][0])

        def value(n: int, y: int, column: int, o: int) -> int:
            first = o // (outs // groups) * per_group
            total = bias[o]
            for i in range(per_group):
                for r in range(rows):
                    for c in range(columns):
                        yy, xx = y + r - rows // 2, column + c - columns // 2
                        if 0 <= yy < len(x[n]) and 0 <= xx < len(x[n][0]):
                            total += (x[n][yy][xx][first + i] - zero) * weight[o][i][r][c]
            return total

        return value

    def test_the_worst_image_reaches_the_bounds(self) -> None:
        """The proof is exact: at a pixel whose window lies inside, each weight meets the end that hurts most."""
        for example, _ in self.all():
            weight, groups = example.node.params["weight"], example.node.attrs["groups"]
            source, reach = example.ins[0], reach_of(example)
            lo, hi = source.range
            outs, per_group, rows, columns = weight.shape
            for o in range(outs):
                for toward_hi, wanted in ((True, reach.hi[o]), (False, reach.lo[o])):
                    x = np.full((1, rows, columns, source.channels), source.zero_point)
                    first = o // (outs // groups) * per_group
                    up = (weight[o] > 0) == toward_hi
                    x[0, :, :, first : first + per_group] = np.where(up, hi, lo).transpose(1, 2, 0)
                    found = example.spec.execute(example.node, example.ins, [x])
                    assert found[0, rows // 2, columns // 2, o] == wanted

    def test_padding_counts_where_the_range_leaves_zero_out(self) -> None:
        """Inputs that never are zero: a border pixel sees zeros, so the interval must reach them."""
        source = Tensor("x", 1, 4, False)
        params = {"weight": np.full((1, 1, 3, 3), -2), "bias": np.array([0])}
        node = Node("Conv", "c", ("x",), "y", {"groups": 1}, params)
        given = OPS["Conv"].bounds(
            node, (source,), [type(reach_of(Example(node, (source,))))(np.array([9]), np.array([15]))]
        )
        found = OPS["Conv"].execute(node, (source,), [np.full((1, 3, 3, 1), 9)])
        assert found.max() == -2 * 9 * 4
        assert int(given.hi[0]) >= found.max()


class TestRequant(OpCase):
    op = "Requant"
    count = 30
    malformed = (
        (with_attrs(rounding="nearest"), "rounding 'nearest'"),
        (with_attrs(lo=9, hi=3), "lo 9 is above hi 3"),
        (with_params(multiplier=lambda m: -m - 1), "only a slope"),
        (with_params(multiplier=lambda m: np.concatenate([m, m, m, m, m])), "multiplier has shape"),
        (with_params(shift=lambda s: s.reshape(1, -1)), "shift has shape"),
        (with_params(shift=lambda s: s * 0 + 63), "shift 63"),
        (with_params(shift=lambda s: s * 0 - 63), "shift -63"),
        (with_input(0, zero_point=1), "an accumulator has none"),
    )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        channels = int(rng.integers(1, 4))
        source = Tensor("x", channels, int(rng.integers(4, 25)), bool(rng.integers(4)))
        target = tensor(rng, "y", channels)
        lo, hi = target.range
        if rng.integers(2):
            lo = target.zero_point
        size = int(rng.choice([1, channels]))
        shift = rng.integers(-2, 26, size)
        params = {"multiplier": rng.integers(0, 1 << 12, int(rng.choice([1, channels]))), "shift": shift}
        if rng.integers(2):
            params["negative_multiplier"] = rng.integers(-(1 << 12), 1 << 12, int(rng.choice([1, channels])))
        attrs = {"rounding": str(rng.choice(sorted(ROUNDINGS))), "lo": lo, "hi": hi, "zero_point": target.zero_point}
        yield Example(Node("Requant", "r", ("x",), "y", attrs, params), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return example.ins[0].channels, example.ins[0].upscale

    def plain(self, example: Example, xs: list[Array]) -> Value:
        attrs, params = example.node.attrs, example.node.params

        def at(key: str, c: int) -> int:
            return int(params[key][c if len(params[key]) > 1 else 0])

        def value(n: int, y: int, x: int, c: int) -> int:
            acc = xs[0][n][y][x][c]
            key = "negative_multiplier" if acc < 0 and "negative_multiplier" in params else "multiplier"
            exact = Fraction(acc * at(key, c)) / Fraction(2) ** at("shift", c)
            rest = exact - math.floor(exact)
            nearest = math.floor(exact) if rest < Fraction(1, 2) else math.floor(exact) + 1
            rounded = {
                "floor": math.floor(exact),
                "trunc": math.trunc(exact),
                "half_up": nearest,
                "half_even": nearest - nearest % 2 if rest == Fraction(1, 2) else nearest,
                "half_away": nearest - 1 if rest == Fraction(1, 2) and exact < 0 else nearest,
            }[attrs["rounding"]]
            return min(max(rounded + attrs["zero_point"], attrs["lo"]), attrs["hi"])

        return value

    def test_a_declared_type_that_cannot_hold_the_clamp_is_refused(self) -> None:
        self.test_a_wrong_declaration_is_refused()


class TestAdd(OpCase):
    op = "Add"
    malformed = (
        (with_attrs(multipliers=(1,)), "two integers"),
        (with_attrs(multipliers=(1, 1, 1)), "two integers"),
        (with_attrs(multipliers=()), "two integers"),
        (with_attrs(multipliers=(1, 0)), "two integers"),
        (with_attrs(multipliers=(1, -3)), "two integers"),
        (with_attrs(multipliers=(1, "2")), "two integers"),
        (with_attrs(multipliers=(1, 2**70)), "two integers"),
    )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        channels = int(rng.integers(1, 4))
        ins = (tensor(rng, "a", channels), tensor(rng, "b", channels))
        if rng.integers(4) == 0:
            ins = (ins[0], ins[0])
        pair = (int(rng.integers(1, 99)), int(rng.integers(1, 99)))
        yield Example(Node("Add", "s", tuple(t.name for t in ins), "y", {"multipliers": pair}), ins)

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return example.ins[0].channels, example.ins[0].upscale

    def plain(self, example: Example, xs: list[Array]) -> Value:
        (a, b), (za, zb) = xs, (t.zero_point for t in example.ins)
        ma, mb = example.node.attrs["multipliers"]
        return lambda n, y, x, c: ma * (a[n][y][x][c] - za) + mb * (b[n][y][x][c] - zb)


class TestOffset(OpCase):
    op = "Offset"
    malformed = ((with_params(offset=lambda o: np.concatenate([o, o])), "offset has shape"),)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        source = tensor(rng, "x", int(rng.integers(1, 4)))
        params = {"offset": rng.integers(-300, 300, source.channels)}
        yield Example(Node("Offset", "o", ("x",), "y", {}, params), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return example.ins[0].channels, example.ins[0].upscale

    def plain(self, example: Example, xs: list[Array]) -> Value:
        offset = example.node.params["offset"].tolist()
        return lambda n, y, x, c: xs[0][n][y][x][c] + offset[c]


class TestConcat(OpCase):
    op = "Concat"
    malformed = ((with_input(1, bits=12), "inputs differ in type"),)

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        first = tensor(rng, "a", int(rng.integers(1, 4)))
        ins = [first]
        for name in "bcd"[: int(rng.integers(1, 4))]:
            ins.append(Tensor(name, int(rng.integers(1, 4)), first.bits, first.signed, 1, first.zero_point))
        yield Example(Node("Concat", "k", tuple(t.name for t in ins), "y"), tuple(ins))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return sum(t.channels for t in example.ins), example.ins[0].upscale

    def test_inputs_of_another_size_or_zero_point(self) -> None:
        for example, _ in self.all():
            for lie, complaint in (({"upscale": 7}, "differ in size"), ({"zero_point": 1000}, "differ in type")):
                broken = with_input(1, **lie)(example)
                assert [complaint in text for text in example.spec.problems(broken.node, broken.ins)] == [True]

    def plain(self, example: Example, xs: list[Array]) -> Value:
        origin = [(i, c) for i, t in enumerate(example.ins) for c in range(t.channels)]
        return lambda n, y, x, c: xs[origin[c][0]][n][y][x][origin[c][1]]


class TestDepthToSpace(OpCase):
    op = "DepthToSpace"
    malformed = (
        (with_attrs(block=1), "block 1"),
        (with_attrs(block=0), "block 0"),
        (with_attrs(block=-2), "block -2"),
        (with_attrs(block=7), "block 7"),
        (with_attrs(mode="RCD"), "neither CRD nor DCR"),
    )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        block = int(rng.integers(2, 4))
        source = tensor(rng, "x", block**2 * int(rng.integers(1, 4)), upscale=int(rng.integers(1, 3)))
        for mode in ("CRD", "DCR"):
            yield Example(Node("DepthToSpace", "d", ("x",), "y", {"block": block, "mode": mode}), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        block = example.node.attrs["block"]
        return example.ins[0].channels // block**2, example.ins[0].upscale * block

    def plain(self, example: Example, xs: list[Array]) -> Value:
        block, mode = example.node.attrs["block"], example.node.attrs["mode"]
        outs = example.ins[0].channels // block**2

        def value(n: int, y: int, x: int, c: int) -> int:
            dy, dx = y % block, x % block
            channel = c * block**2 + dy * block + dx if mode == "CRD" else (dy * block + dx) * outs + c
            return xs[0][n][y // block][x // block][channel]

        return value

    def test_crd_is_the_shuffle_of_torch(self) -> None:
        import torch

        for example, rng in self.all():
            if example.node.attrs["mode"] == "CRD":
                x = random_inputs(example, rng)[0]
                wanted = torch.pixel_shuffle(
                    torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), example.node.attrs["block"]
                )
                found = example.spec.execute(example.node, example.ins, [x])
                np.testing.assert_array_equal(found, wanted.permute(0, 2, 3, 1).numpy())


class TestResizeNearest(OpCase):
    op = "ResizeNearest"
    malformed = ((with_attrs(factor=1), "factor 1"), (with_attrs(factor=0), "factor 0"))

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        source = tensor(rng, "x", int(rng.integers(1, 4)), upscale=int(rng.integers(1, 3)))
        yield Example(Node("ResizeNearest", "n", ("x",), "y", {"factor": int(rng.integers(2, 5))}), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return example.ins[0].channels, example.ins[0].upscale * example.node.attrs["factor"]

    def plain(self, example: Example, xs: list[Array]) -> Value:
        factor = example.node.attrs["factor"]
        return lambda n, y, x, c: xs[0][n][y // factor][x // factor][c]


class TestSlice(OpCase):
    op = "Slice"
    malformed = (
        (with_attrs(start=-1), "channels -1 to"),
        (with_attrs(stop=99), "to 99 of"),
        (with_attrs(start=2, stop=2), "channels 2 to 2"),
    )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        source = tensor(rng, "x", int(rng.integers(2, 7)), upscale=int(rng.integers(1, 3)))
        start = int(rng.integers(0, source.channels))
        stop = int(rng.integers(start + 1, source.channels + 1))
        yield Example(Node("Slice", "s", ("x",), "y", {"start": start, "stop": stop}), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return example.node.attrs["stop"] - example.node.attrs["start"], example.ins[0].upscale

    def plain(self, example: Example, xs: list[Array]) -> Value:
        return lambda n, y, x, c: xs[0][n][y][x][example.node.attrs["start"] + c]


class TestResizeFilter(OpCase):
    op = "ResizeFilter"
    malformed = (
        (with_attrs(factor=1), "factor 1"),
        (with_attrs(denominator=7), "wanted the denominator, 7"),
        (with_params(taps=lambda t: t[:, 1:]), "taps have shape"),
        (with_params(taps=lambda t: t[1:]), "taps have shape"),
        (with_params(taps=lambda t: t + 1), "taps sum to"),
    )

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        source = tensor(rng, "x", int(rng.integers(1, 4)), upscale=int(rng.integers(1, 3)))
        factor = int(rng.integers(2, 5))
        taps, denominator = filter_taps(str(rng.choice(sorted(KERNELS))), factor)
        if rng.integers(2):  # any other taps of one sum, wider than the image too
            denominator = 16
            taps = rng.integers(-20, 21, (factor, int(rng.choice([1, 3, 7]))))
            taps[:, -1] += denominator - taps.sum(1)
        attrs = {"factor": factor, "denominator": denominator}
        yield Example(Node("ResizeFilter", "f", ("x",), "y", attrs, {"taps": taps}), (source,))

    def expected_shape(self, example: Example) -> tuple[int, int]:
        return example.ins[0].channels, example.ins[0].upscale * example.node.attrs["factor"]

    def plain(self, example: Example, xs: list[Array]) -> Value:
        taps, factor = example.node.params["taps"].tolist(), example.node.attrs["factor"]
        zero, radius = example.ins[0].zero_point, len(taps[0]) // 2

        def value(n: int, y: int, x: int, c: int) -> int:
            rows, columns = len(xs[0][n]), len(xs[0][n][0])
            total = 0
            for i, down in enumerate(taps[y % factor]):
                for j, across in enumerate(taps[x % factor]):
                    row = min(max(y // factor + i - radius, 0), rows - 1)
                    column = min(max(x // factor + j - radius, 0), columns - 1)
                    total += down * across * (xs[0][n][row][column][c] - zero)
            return total

        return value


def test_every_operation_of_the_table_has_a_case() -> None:
    assert {case.op for case in OpCase.__subclasses__()} == set(OPS)
    assert all(spec.doc for spec in OPS.values())
