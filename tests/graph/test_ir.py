"""The stored form: what the content hash sees, and that a damaged file is an InputError and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from srq_hw.errors import InputError
from srq_hw.graph.ir import VERSION, IntGraph, Tensor
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate import reference
from tests.support.graph_strategies import graphs, random_image


@pytest.fixture(scope="module")
def graph() -> IntGraph:
    return edsr_graph(2, 1, mean_shift=True)


@settings(max_examples=60)
@given(graphs())
def test_json_round_trip(graph: IntGraph) -> None:
    text = graph.to_json()
    again = IntGraph.from_json(text)
    assert again.to_json() == text
    assert again.content_sha256 == graph.content_sha256
    image = random_image(graph, 3, 4, 0)
    np.testing.assert_array_equal(reference.run(again, image), reference.run(graph, image))


def test_save_and_load(graph: IntGraph, tmp_path: Path) -> None:
    path = tmp_path / "graph.json"
    graph.save(path)
    assert [item.name for item in tmp_path.iterdir()] == ["graph.json"]
    assert IntGraph.load(path).content_sha256 == graph.content_sha256
    with pytest.raises(InputError, match=r"absent\.json"):
        IntGraph.load(tmp_path / "absent.json")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"graph\.json"):
        IntGraph.load(path)


def test_hash_ignores_names_for_people_and_scales(graph: IntGraph) -> None:
    scaled = {name: replace(tensor, scale=0.123) for name, tensor in graph.tensors.items()}
    other = replace(graph, name="other", tensors=scaled, metadata={"who": "me"})
    assert other.content_sha256 == graph.content_sha256
    assert other.to_json() != graph.to_json()


def test_hash_sees_every_bit_of_every_parameter(graph: IntGraph) -> None:
    """One bit of each parameter array (every element of the small ones), anywhere: another hash, never one twice."""
    seen = {graph.content_sha256}
    count = 1
    for index, node in enumerate(graph.nodes):
        for key, values in node.params.items():
            for place in range(0, values.size, max(1, values.size // 9)):
                for bit in (0, 3, 40):
                    changed = values.copy()
                    changed.ravel()[place] ^= 1 << bit
                    damaged = replace(node, params={**node.params, key: changed})
                    seen.add(
                        replace(graph, nodes=(*graph.nodes[:index], damaged, *graph.nodes[index + 1 :])).content_sha256
                    )
                    count += 1
    assert len(seen) == count


def test_hash_sees_attributes_types_and_order(graph: IntGraph) -> None:
    seen = {graph.content_sha256}
    requant = next(i for i, node in enumerate(graph.nodes) if node.op == "Requant")
    node = graph.nodes[requant]
    variants = [
        replace(node, attrs={**node.attrs, "rounding": "half_up"}),
        replace(node, attrs={**node.attrs, "hi": 126}),
        replace(node, name="another"),
        replace(node, op="Conv"),
        replace(node, inputs=("image",)),
        replace(node, params={"multiplier": node.params["multiplier"], "shift": node.params["multiplier"]}),
        replace(node, params={**node.params, "shift": node.params["shift"][None]}),
    ]
    for variant in variants:
        seen.add(replace(graph, nodes=(*graph.nodes[:requant], variant, *graph.nodes[requant + 1 :])).content_sha256)
    tensor = graph.tensors[node.output]
    for lie in ({"bits": 7}, {"signed": False}, {"channels": 9}, {"upscale": 4}, {"zero_point": 1}):
        seen.add(replace(graph, tensors={**graph.tensors, tensor.name: replace(tensor, **lie)}).content_sha256)
    seen.add(replace(graph, nodes=graph.nodes[::-1]).content_sha256)
    seen.add(replace(graph, output="image").content_sha256)
    assert len(seen) == 1 + len(variants) + 5 + 2


def test_hash_does_not_depend_on_dict_order_or_memory_layout(graph: IntGraph) -> None:
    def rebuilt(values: np.ndarray) -> np.ndarray:
        return np.asfortranarray(values)

    nodes = tuple(
        replace(
            node,
            attrs=dict(reversed(list(node.attrs.items()))),
            params={key: rebuilt(node.params[key]) for key in reversed(list(node.params))},
        )
        for node in graph.nodes
    )
    tensors = dict(reversed(list(graph.tensors.items())))
    assert replace(graph, nodes=nodes, tensors=tensors).content_sha256 == graph.content_sha256


def test_foreign_version(graph: IntGraph) -> None:
    data = json.loads(graph.to_json())
    data["version"] = VERSION + 1
    with pytest.raises(InputError, match=rf"mine\.json: IntGraph version {VERSION + 1}; this srq-hw reads"):
        IntGraph.from_json(json.dumps(data), "mine.json")


def first_param(data: dict[str, Any]) -> dict[str, Any]:
    return next(iter(next(n for n in data["nodes"] if n["params"])["params"].values()))


DAMAGE: dict[str, Callable[[dict[str, Any]], object]] = {
    "weight": lambda d: first_param(d).update(base64=first_param(d)["base64"][:-8] + "AAAAAAA="),
    "truncated base64": lambda d: first_param(d).update(base64=first_param(d)["base64"][:-4]),
    "no base64": lambda d: first_param(d).update(base64="?"),
    "number for base64": lambda d: first_param(d).update(base64=5),
    "float array": lambda d: first_param(d).update(dtype="float32"),
    "object array": lambda d: first_param(d).update(dtype="O"),
    "shape": lambda d: first_param(d).update(shape=[7, 7]),
    "huge shape": lambda d: first_param(d).update(shape=[10**30]),
    "no shape": lambda d: first_param(d).pop("shape"),
    "rounding": lambda d: next(n for n in d["nodes"] if n["op"] == "Requant")["attrs"].update(rounding="half_up"),
    "no nodes": lambda d: d.pop("nodes"),
    "node without op": lambda d: d["nodes"][0].pop("op"),
    "node is a word": lambda d: d["nodes"].append("Conv"),
    "inputs is a word": lambda d: d["nodes"][0].update(inputs="image"),
    "inputs is a number": lambda d: d["nodes"][0].update(inputs=5),
    "attrs is a list": lambda d: d["nodes"][0].update(attrs=[1]),
    "tensor key": lambda d: d["tensors"][0].update(colour="red"),
    "tensor without bits": lambda d: d["tensors"][0].pop("bits"),
    "tensor named by a number": lambda d: d["tensors"][0].update(name=5),
    "tensor named by a list": lambda d: d["tensors"][0].update(name=["a"]),
    "metadata is a list": lambda d: d.update(metadata=["a"]),
    "no hash": lambda d: d.pop("content_sha256"),
    "hash": lambda d: d.update(content_sha256="0" * 64),
    "hash is a list": lambda d: d.update(content_sha256=[]),
    "output": lambda d: d.update(output="head"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_file(graph: IntGraph, name: str) -> None:
    data = json.loads(graph.to_json())
    DAMAGE[name](data)
    with pytest.raises(InputError, match=r"^mine\.json: "):
        IntGraph.from_json(json.dumps(data), "mine.json")


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "5", '"graph"', "{}", "[" * 100_000, '{"version": 1}'])
def test_not_a_graph(text: str) -> None:
    with pytest.raises(InputError, match=r"^mine\.json: "):
        IntGraph.from_json(text, "mine.json")


@settings(max_examples=80)
@given(st.data())
def test_a_changed_character_never_passes_unseen(data: st.DataObject) -> None:
    """Any one character replaced: refused, or the very same program (a scale, a name, the metadata)."""
    graph = edsr_graph(1, 1)
    text = graph.to_json()
    where = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:where] + data.draw(st.sampled_from('0198aAzZ"{}[],:-. ')) + text[where + 1 :]
    try:
        again = IntGraph.from_json(damaged)
    except InputError:
        return
    assert again.content_sha256 == graph.content_sha256


def test_big_integers_survive(graph: IntGraph) -> None:
    node = graph.nodes[1]
    for value in (0, 127, 128, -128, -129, 32767, 32768, -(2**31), 2**31, 2**62, -(2**63), 2**63 - 1):
        changed = replace(node, params={**node.params, "bias": np.array([value])})
        text = replace(graph, nodes=(graph.nodes[0], changed, *graph.nodes[2:])).to_json()
        found = IntGraph.from_json(text).nodes[1].params["bias"]
        assert found.dtype == np.int64 and found.tolist() == [value]


def test_tensor_names_its_type() -> None:
    assert Tensor("x", 3, 4, False).dtype == "UINT4"
    assert Tensor("x", 3, 9, True).dtype == "INT9"
    assert Tensor("x", 3, 9, True).range == (-256, 255)


def test_graph_look_ups(graph: IntGraph) -> None:
    assert graph.producer(graph.input) is None
    for node in graph.nodes:
        assert graph.producer(node.output) is node
        assert all(node in graph.consumers(name) for name in node.inputs)
    assert graph.consumers(graph.output) == ()
    assert graph.upscale == 2
