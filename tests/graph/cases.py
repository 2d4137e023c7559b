"""One base class that gives every IntGraph operation the same hard tests; an operation adds examples and a plain model.

A case says how to make nodes (seeded), what the op computes as plain Python loops over Python integers, what shape it
makes, and which malformed nodes must be refused. `OpCase` does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from srq_hw.errors import InputError
from srq_hw.fixedpoint import bits_for
from srq_hw.graph import check
from srq_hw.graph.ir import IntGraph, Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.opspec import Bounds
from srq_hw.simulate import reference

Array = list  # nested lists of Python integers, [n][y][x][c]


@dataclass(frozen=True)
class Example:
    """A node with its input tensors."""

    node: Node
    ins: tuple[Tensor, ...]

    @property
    def spec(self):
        return OPS[self.node.op]


def shape_of(example: Example) -> tuple[int, int]:
    return example.spec.shape(example.node, example.ins)


def full_bounds(example: Example) -> list[Bounds]:
    return [Bounds.of(tensor) for tensor in example.ins]


def reach_of(example: Example) -> Bounds:
    return example.spec.bounds(example.node, example.ins, full_bounds(example))


def random_inputs(example: Example, rng: np.random.Generator, height: int = 4, width: int = 5) -> list[np.ndarray]:
    found = []
    for tensor in example.ins:
        lo, hi = tensor.range
        size = (2, height * tensor.upscale, width * tensor.upscale, tensor.channels)
        values = rng.integers(lo, hi + 1, size)
        found.append(np.where(rng.random(size) < 0.3, rng.choice([lo, hi], size), values))
    return found


def output_tensor(example: Example) -> Tensor:
    """A declared output that is right: the op's own type where it moves integers, else what the bounds need."""
    channels, upscale = shape_of(example)
    node, first = example.node, example.ins[0]
    if node.op in check.SAME_TYPE_OPS:
        return replace(first, name=node.output, channels=channels, upscale=upscale)
    reach = reach_of(example)
    lo, hi, zero = int(reach.lo.min()), int(reach.hi.max()), 0
    if node.op == "Requant":
        lo, hi, zero = node.attrs["lo"], node.attrs["hi"], node.attrs["zero_point"]
    return Tensor(node.output, channels, bits_for(lo, hi, True), True, upscale, zero)


def as_graph(example: Example) -> IntGraph:
    """The node in a graph of its own.

    Only the first input is the graph's input; others are made from it by Offset nodes of 0 (and a slice of a Concat is
    not needed: cases keep all inputs in the first one's shape where they are used this way).
    """
    first = example.ins[0]
    nodes, tensors = [], {first.name: first}
    for tensor in example.ins[1:]:
        if tensor.name in tensors:
            continue
        source = first
        params = {"weight": np.zeros((tensor.channels, first.channels, 1, 1), np.int64)}
        for c in range(tensor.channels):
            params["weight"][c, c % first.channels] = 1
        params["bias"] = np.zeros(tensor.channels, np.int64)
        acc = Tensor(f"{tensor.name}_acc", tensor.channels, 40, True, first.upscale)
        nodes.append(Node("Conv", acc.name, (source.name,), acc.name, {"groups": 1}, params))
        lo, hi = tensor.range
        unit = {"multiplier": np.array([1]), "shift": np.array([0])}
        attrs = {"rounding": "floor", "lo": lo, "hi": hi, "zero_point": tensor.zero_point}
        nodes.append(Node("Requant", tensor.name, (acc.name,), tensor.name, attrs, unit))
        tensors |= {acc.name: acc, tensor.name: replace(tensor, upscale=first.upscale)}
    tensors[example.node.output] = output_tensor(example)
    return IntGraph("case", first.name, example.node.output, (*nodes, example.node), tensors)


class OpCase:
    """Subclass as Test...: `op`, `examples(rng)`, `plain(example, xs)`, `shape(example)` and `malformed`."""

    op: str
    #: what breaks a good example -> part of the complaint
    malformed: tuple[tuple[Callable[[Example], Example], str], ...]
    count = 12

    def examples(self, rng: np.random.Generator) -> Iterator[Example]:
        raise NotImplementedError

    def plain(self, example: Example, xs: list[Array]) -> Callable[[int, int, int, int], int]:
        """Value of output (n, y, x, c), from nested lists of Python integers."""
        raise NotImplementedError

    def expected_shape(self, example: Example) -> tuple[int, int]:
        raise NotImplementedError

    def all(self, seed: int = 0) -> list[tuple[Example, np.random.Generator]]:
        rng = np.random.default_rng([seed, *self.op.encode()])
        found = [(example, rng) for _ in range(self.count) for example in self.examples(rng)]
        assert all(example.node.op == self.op for example, _ in found)
        return found

    def test_execute_equals_plain_loops(self) -> None:
        for example, rng in self.all():
            xs = random_inputs(example, rng)
            found = example.spec.execute(example.node, example.ins, xs)
            assert found.dtype == np.int64
            channels, upscale = self.expected_shape(example)
            base = example.ins[0].upscale
            assert found.shape == (2, xs[0].shape[1] // base * upscale, xs[0].shape[2] // base * upscale, channels)
            value = self.plain(example, [x.tolist() for x in xs])
            wanted = [value(*index) for index in np.ndindex(found.shape)]
            np.testing.assert_array_equal(found.ravel(), wanted, err_msg=str(example))

    def test_inputs_are_not_changed(self) -> None:
        for example, rng in self.all():
            xs = random_inputs(example, rng)
            kept = [x.copy() for x in xs]
            out = example.spec.execute(example.node, example.ins, xs)
            out += 1
            for x, before in zip(xs, kept, strict=True):
                np.testing.assert_array_equal(x, before)

    def test_shape_rule(self) -> None:
        for example, _ in self.all():
            assert shape_of(example) == self.expected_shape(example)

    def test_random_inputs_stay_inside_the_bounds(self) -> None:
        for example, rng in self.all():
            reach = reach_of(example)
            assert reach.lo.shape == reach.hi.shape == (self.expected_shape(example)[0],)
            assert (reach.lo <= reach.hi).all()
            for _ in range(3):
                found = example.spec.execute(example.node, example.ins, random_inputs(example, rng))
                assert (found >= reach.lo).all() and (found <= reach.hi).all(), example

    def test_narrower_inputs_narrow_the_bounds_soundly(self) -> None:
        for example, rng in self.all():
            given = []
            for tensor in example.ins:
                lo, hi = tensor.range
                ends = np.sort(rng.integers(lo, hi + 1, (2, tensor.channels)), axis=0)
                given.append(Bounds(ends[0], ends[1]))
            reach, widest = example.spec.bounds(example.node, example.ins, given), reach_of(example)
            assert (reach.lo >= widest.lo).all() and (reach.hi <= widest.hi).all()
            xs = [np.clip(x, b.lo, b.hi) for x, b in zip(random_inputs(example, rng), given, strict=True)]
            found = example.spec.execute(example.node, example.ins, xs)
            assert (found >= reach.lo).all() and (found <= reach.hi).all(), example

    def test_verify_accepts_and_json_keeps_it(self) -> None:
        for example, rng in self.all():
            graph = as_graph(example)
            check.verify(graph)
            again = IntGraph.from_json(graph.to_json())
            assert again.content_sha256 == graph.content_sha256
            assert again.to_json() == graph.to_json()
            image = random_inputs(Example(example.node, (example.ins[0],)), rng)[0]
            np.testing.assert_array_equal(reference.run(again, image), reference.run(graph, image))

    def test_malformed_nodes_are_refused_by_name(self) -> None:
        (example, _), *_ = self.all()
        check.verify(as_graph(example))
        for damage, complaint in self.malformed:
            broken = damage(example)
            graph = replace_last(as_graph(example), broken)
            with pytest.raises(InputError, match=complaint) as caught:
                check.verify(graph)
            assert f"node {broken.node.name} ({broken.node.op})" in str(caught.value)

    def test_missing_and_unknown_fields_are_refused(self) -> None:
        (example, _), *_ = self.all()
        node, spec = example.node, example.spec
        broken = [
            replace(node, attrs={**node.attrs, "surprise": 1}),
            replace(node, params={**node.params, "surprise": np.array([1])}),
            replace(node, inputs=(*node.inputs, *node.inputs) if spec.inputs else node.inputs[:1]),
            replace(node, inputs=("nowhere", *node.inputs[1:])),
            replace(node, op="Convolve"),
        ]
        broken += [replace(node, attrs={k: v for k, v in node.attrs.items() if k != key}) for key in spec.attrs]
        broken += [replace(node, attrs={**node.attrs, key: 1.5}) for key in spec.attrs]
        needed = [key for key, required in spec.params.items() if required]
        broken += [replace(node, params={k: v for k, v in node.params.items() if k != key}) for key in needed]
        broken += [replace(node, params={**node.params, key: node.params[key] + 0.5}) for key in needed]
        broken += [replace(node, params={**node.params, key: np.zeros((2, 2, 2), np.int64)}) for key in needed]
        for item in broken:
            with pytest.raises(InputError, match=f"node {item.name}"):
                check.verify(replace_last(as_graph(example), Example(item, example.ins)))

    def test_a_wrong_declaration_is_refused(self) -> None:
        (example, _), *_ = self.all()
        graph, good = as_graph(example), output_tensor(example)
        lies: list[dict[str, Any]] = [
            {"channels": good.channels + 1},
            {"upscale": good.upscale * 2},
            {"bits": good.bits - 1},
        ]
        for lie in lies:
            if lie.get("bits") == 0:
                continue
            wrong = replace(graph, tensors={**graph.tensors, good.name: replace(good, **lie)})
            with pytest.raises(InputError, match="is declared"):
                check.verify(wrong)


def replace_last(graph: IntGraph, example: Example) -> IntGraph:
    """The example's node in place of the last one, its inputs with the example's types."""
    tensors = {**graph.tensors, **{tensor.name: tensor for tensor in example.ins}}
    return replace(graph, nodes=(*graph.nodes[:-1], example.node), tensors=tensors)


def with_attrs(**attrs: Any) -> Callable[[Example], Example]:
    return lambda e: replace(e, node=replace(e.node, attrs={**e.node.attrs, **attrs}))


def with_params(**params: Callable[[np.ndarray], np.ndarray]) -> Callable[[Example], Example]:
    return lambda e: replace(
        e, node=replace(e.node, params={**e.node.params, **{k: f(e.node.params[k]) for k, f in params.items()}})
    )


def with_input(index: int, **fields: Any) -> Callable[[Example], Example]:
    def change(example: Example) -> Example:
        ins = list(example.ins)
        ins[index] = replace(ins[index], **fields)
        return replace(example, ins=tuple(ins))

    return change
