"""IntGraph: the integer program that every backend reads. Integers only; floats end in `exchange.lower`.

Layout of every feature map is NHWC, of every weight OIHW. A graph has one input image and one output image and holds
for any image size; `Tensor.upscale` is the spatial size relative to the input.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from srq_hw.errors import InputError
from srq_hw.files import write_text
from srq_hw.fixedpoint import int_range

#: Raised when the meaning of a stored graph changes; a reader refuses what it does not know.
VERSION = 1

Int = npt.NDArray[np.int64]
Attr = int | str | tuple[int, ...]

_EMPTY: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Tensor:
    """A feature map: integers of (bits, signed), real value = (q - zero_point) * scale.

    scale is for people and reports (None: differs per channel); no executor reads it, the content hash leaves it out.
    """

    name: str
    channels: int
    bits: int
    signed: bool
    upscale: int = 1
    zero_point: int = 0
    scale: float | None = None

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest integer that the type holds."""
        return int_range(self.bits, self.signed)

    @property
    def dtype(self) -> str:
        """Type name, as FINN and QONNX write it: INT8, UINT4, ..."""
        return f"{'INT' if self.signed else 'UINT'}{self.bits}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation; attrs are small settings, params int64 arrays. What is legal stands in `graph.ops`."""

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attrs: Mapping[str, Attr] = field(default_factory=lambda: _EMPTY)
    params: Mapping[str, Int] = field(default_factory=lambda: _EMPTY)

    def int_attr(self, key: str) -> int:
        """An attribute that is an integer."""
        value = self.attrs[key]
        assert isinstance(value, int), (self.name, key, value)
        return value

    def ints_attr(self, key: str) -> tuple[int, ...]:
        """An attribute that is a tuple of integers."""
        value = self.attrs[key]
        assert isinstance(value, tuple), (self.name, key, value)
        return value

    def str_attr(self, key: str) -> str:
        """An attribute that is a word."""
        value = self.attrs[key]
        assert isinstance(value, str), (self.name, key, value)
        return value


@dataclass(frozen=True, eq=False)
class IntGraph:
    """Nodes in execution order, the tensors between them, and free-text metadata (not part of the content hash)."""

    name: str
    input: str
    output: str
    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    def producer(self, tensor: str) -> Node | None:
        """The node that writes the tensor; None for the graph input."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> tuple[Node, ...]:
        """Every node that reads the tensor, in order."""
        return tuple(node for node in self.nodes if tensor in node.inputs)

    @property
    def upscale(self) -> int:
        """Spatial factor from input to output image."""
        return self.tensors[self.output].upscale

    def with_nodes(self, nodes: tuple[Node, ...], tensors: Mapping[str, Tensor]) -> IntGraph:
        """The same graph with another body."""
        return replace(self, nodes=nodes, tensors=dict(tensors))

    # --- JSON -----------------------------------------------------------------------------------------------------

    def to_json(self) -> str:
        """Canonical text: the same graph gives the same bytes."""
        return _dump(
            _body(self) | {"content_sha256": self.content_sha256, "metadata": dict(sorted(self.metadata.items()))}
        )

    @property
    def content_sha256(self) -> str:
        """Hash of everything that decides a bit of the output; scales, graph name and metadata are left out."""
        body = _body(self)
        del body["name"]
        for tensor in body["tensors"]:
            del tensor["scale"]
        return hashlib.sha256(_dump(body).encode()).hexdigest()

    @staticmethod
    def from_json(text: str, source: str = "graph.json") -> IntGraph:
        """Read what `to_json` wrote. InputError on another version, damage, or a hash that does not match."""
        try:
            data = json.loads(text)
            version = data["version"]
            if version != VERSION:
                raise InputError(f"{source}: IntGraph version {version!r}; this srq-hw reads version {VERSION}")
            graph = IntGraph(
                name=data["name"],
                input=data["input"],
                output=data["output"],
                nodes=tuple(_node_from(item) for item in data["nodes"]),
                tensors={item["name"]: Tensor(**item) for item in data["tensors"]},
                metadata={str(key): str(value) for key, value in data["metadata"].items()},
            )
            stored, found = data["content_sha256"], graph.content_sha256
        except InputError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(
                f"{source}: not an IntGraph written by srq-hw ({type(error).__name__}: {error})"
            ) from error
        if found != stored:
            raise InputError(
                f"{source}: content hash is {found[:12]}…, the file says {str(stored)[:12]}…; "
                "the file was changed after it was written. Build it again."
            )
        return graph

    def save(self, path: Path) -> None:
        """Write graph.json atomically."""
        write_text(path, self.to_json())

    @staticmethod
    def load(path: Path) -> IntGraph:
        """Read a graph.json; InputError where it is not one."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: cannot be read as an IntGraph: {error}") from error
        return IntGraph.from_json(text, str(path))


def _dump(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _body(graph: IntGraph) -> dict[str, Any]:
    return {
        "version": VERSION,
        "name": graph.name,
        "input": graph.input,
        "output": graph.output,
        "nodes": [_node_to(node) for node in graph.nodes],
        "tensors": [
            {
                key: getattr(tensor, key)
                for key in ("name", "channels", "bits", "signed", "upscale", "zero_point", "scale")
            }
            for _, tensor in sorted(graph.tensors.items())
        ],
    }


def _node_to(node: Node) -> dict[str, Any]:
    return {
        "op": node.op,
        "name": node.name,
        "inputs": list(node.inputs),
        "output": node.output,
        "attrs": {key: list(value) if isinstance(value, tuple) else value for key, value in node.attrs.items()},
        "params": {key: _array_to(value) for key, value in node.params.items()},
    }


def _node_from(item: dict[str, Any]) -> Node:
    return Node(
        op=item["op"],
        name=item["name"],
        inputs=tuple(item["inputs"]),
        output=item["output"],
        attrs={key: tuple(value) if isinstance(value, list) else value for key, value in item["attrs"].items()},
        params={key: _array_from(value) for key, value in item["params"].items()},
    )


_STORAGE = ("int8", "int16", "int32", "int64")


def _array_to(array: Int) -> dict[str, Any]:
    """The smallest signed type that holds the values, little-endian, base64."""
    lo, hi = (int(array.min()), int(array.max())) if array.size else (0, 0)
    dtype = next(name for name in _STORAGE if np.iinfo(name).min <= lo and hi <= np.iinfo(name).max)
    raw = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<")).tobytes()
    return {"dtype": dtype, "shape": list(array.shape), "base64": base64.b64encode(raw).decode()}


def _array_from(item: dict[str, Any]) -> Int:
    if item["dtype"] not in _STORAGE:
        raise ValueError(f"array type {item['dtype']!r}")
    raw = base64.b64decode(item["base64"], validate=True)
    return np.frombuffer(raw, np.dtype(item["dtype"]).newbyteorder("<")).reshape(item["shape"]).astype(np.int64)
