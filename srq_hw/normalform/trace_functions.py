"""What each torch function and tensor method becomes: the table `FUNCTIONS`."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx

from srq_hw.normalform.trace_modules import hardtanh, leaky, resize, same
from srq_hw.normalform.translate import FunctionTable, Parts, Translator


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _add(t: Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if node.kwargs.get("alpha", 1) != 1:
        raise t.error(node, "add with alpha")
    if t.is_map(a) and t.is_map(b):
        return t.emit(node, "add", [a, b])
    image, constant = (a, b) if t.is_map(a) else (b, a)
    return t.affine(node, image, 1.0, constant)


def _sub(t: Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if node.kwargs.get("alpha", 1) != 1:
        raise t.error(node, "sub with alpha")
    if t.is_map(a) and t.is_map(b):
        raise t.error(node, "subtraction of two feature maps (add one whose convolution is negated)")
    if t.is_map(a):
        return t.affine(node, a, 1.0, -t.constant(b, node).reshape(-1, 1, 1))
    return t.affine(node, b, -1.0, a)


def _mul(t: Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if t.is_map(a) and t.is_map(b):
        raise t.error(node, "a product of two feature maps")
    image, constant = (a, b) if t.is_map(a) else (b, a)
    return t.affine(node, image, constant, 0.0)


def _div(t: Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if not t.is_map(a) or t.is_map(b):
        raise t.error(node, "division by a feature map")
    if node.kwargs.get("rounding_mode") is not None:
        raise t.error(node, f"division with rounding_mode {node.kwargs['rounding_mode']!r}")
    return t.affine(node, a, 1.0 / t.constant(b, node).reshape(-1, 1, 1), 0.0)


def _cat(t: Translator, node: fx.Node) -> str:
    parts = list(node.args[0])  # type: ignore[arg-type]
    if _argument(node, 1, "dim", 0) not in (1, -3):
        raise t.error(node, f"concatenation along dimension {_argument(node, 1, 'dim', 0)} (channels, 1, is possible)")
    if not all(t.is_map(part) for part in parts):
        raise t.error(node, "concatenation with a constant")
    return t.emit(node, "concat", parts)


def _clamp(t: Translator, node: fx.Node) -> str:
    lo, hi = _argument(node, 1, "min"), _argument(node, 2, "max")
    if lo == 0 and hi is None:
        return t.emit(node, "relu", [node.args[0]])
    limits = (float("-inf") if lo is None else float(lo), float("inf") if hi is None else float(hi))
    return t.emit(node, "clamp", [node.args[0]], limits=limits)


def _relu(t: Translator, node: fx.Node) -> str:
    return t.emit(node, "relu", [node.args[0]])


def _interpolate(t: Translator, node: fx.Node) -> str:
    mode, factor = _argument(node, 3, "mode", "nearest"), _argument(node, 2, "scale_factor")
    if _argument(node, 6, "antialias", False):
        raise t.error(node, "resize with antialias")
    return resize(t, node, mode, factor, _argument(node, 1, "size"), _argument(node, 4, "align_corners"))


def _getitem(t: Translator, node: fx.Node) -> str:
    """x[:, a:b]: channels; everything else must be left whole."""
    index = node.args[1]
    items: list[Any] = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in items:
        at = items.index(Ellipsis)
        items[at : at + 1] = [slice(None)] * (5 - len(items))
    whole = slice(None)
    wanted = items[1] if len(items) > 1 else whole
    others = [item for position, item in enumerate(items) if position != 1]
    plain = isinstance(wanted, slice) and all(item is None or isinstance(item, int) for item in _ends(wanted))
    if len(items) > 4 or any(item != whole for item in others) or not plain or wanted.step not in (None, 1):
        raise t.error(node, f"indexing by {index} (channels, x[:, a:b], are possible)")
    first, last, _ = wanted.indices(t.channels_of(node.args[0]))
    return t.slice(node, node.args[0], first, last)


def _ends(item: slice) -> tuple[Any, Any, Any]:
    return item.start, item.stop, item.step


def _narrow(t: Translator, node: fx.Node) -> str:
    dim, first, length = (_argument(node, i, name) for i, name in ((1, "dim"), (2, "start"), (3, "length")))
    if dim not in (1, -3):
        raise t.error(node, f"narrow along dimension {dim} (channels, 1, is possible)")
    return t.slice(node, node.args[0], int(first), int(first) + int(length))


def _split(t: Translator, node: fx.Node) -> Parts:
    channels, dim = t.channels_of(node.args[0]), _argument(node, 2, "dim", 0)
    sizes = _argument(node, 1, "split_size_or_sections", None) or _argument(node, 1, "split_size")
    if isinstance(sizes, int):
        sizes = [min(sizes, channels - at) for at in range(0, channels, sizes)]
    return _pieces(t, node, dim, list(sizes), channels)


def _chunk(t: Translator, node: fx.Node) -> Parts:
    channels, dim = t.channels_of(node.args[0]), _argument(node, 2, "dim", 0)
    size = -(-channels // int(_argument(node, 1, "chunks")))
    return _pieces(t, node, dim, [min(size, channels - at) for at in range(0, channels, size)], channels)


def _pieces(t: Translator, node: fx.Node, dim: Any, sizes: list[int], channels: int) -> Parts:
    if dim not in (1, -3) or sum(sizes) != channels:
        raise t.error(node, f"a split into {sizes} along dimension {dim} ({channels} channels, dimension 1)")
    names, first = [], 0
    for index, size in enumerate(sizes):
        names.append(t.slice(node, node.args[0], first, first + size, f"{node.name}_{index}"))
        first += size
    return Parts(names)


def _pixel_shuffle(t: Translator, node: fx.Node) -> str:
    return t.emit(node, "shuffle", [node.args[0]], factor=int(_argument(node, 1, "upscale_factor")))


def _prelu(t: Translator, node: fx.Node) -> str:
    slope = t.values[_argument(node, 1, "weight")]
    return t.emit(node, "prelu", [node.args[0]], slope=slope.reshape(-1).double())


#: torch functions by object, tensor methods by name
FUNCTIONS: FunctionTable = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _sub),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _mul),
    **dict.fromkeys((operator.truediv, torch.div, "div", "div_"), _div),
    **dict.fromkeys((torch.cat, torch.concat), _cat),
    operator.getitem: _getitem,
    **dict.fromkeys((torch.narrow, "narrow"), _narrow),
    **dict.fromkeys((torch.split, "split"), _split),
    **dict.fromkeys((torch.chunk, "chunk"), _chunk),
    F.relu6: lambda t, node: hardtanh(t, node, 0.0, 6.0),
    F.hardtanh: lambda t, node: hardtanh(
        t, node, _argument(node, 1, "min_val", -1.0), _argument(node, 2, "max_val", 1.0)
    ),
    **dict.fromkeys((torch.clamp, "clamp", "clamp_"), _clamp),
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_"), _relu),
    F.leaky_relu: lambda t, node: leaky(t, node, float(_argument(node, 1, "negative_slope", 0.01))),
    F.prelu: _prelu,
    F.pixel_shuffle: _pixel_shuffle,
    F.interpolate: _interpolate,
    "contiguous": same,
}
