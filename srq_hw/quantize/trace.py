"""torch.fx: from any traceable torch module to the layer list of `quantize.normal`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from srq_hw.errors import InputError
from srq_hw.networks.loading import FloatNetwork
from srq_hw.quantize.normal import Layer, NormalNet, evaluate, fold


def normalize(net: FloatNetwork) -> NormalNet:
    """Trace, translate and fold. InputError names the module or function that integer hardware cannot run."""
    try:
        traced = fx.symbolic_trace(net.module)
    except Exception as error:  # torch.fx raises many types; all of them mean the same to the user
        raise InputError(
            f"network {net.name}: torch.fx cannot trace it ({type(error).__name__}: {error}). "
            "Write the forward without data-dependent branches."
        ) from error
    translator = _Translator(net, traced)
    probe, wanted = _require_same(net, traced)
    layers = translator.run()
    _require_no_more(layers, probe, wanted)
    return fold(layers)


def _require_same(net: FloatNetwork, traced: fx.GraphModule) -> tuple[Tensor, Any]:
    """The probe image and what the module makes of it.

    Module and trace must agree on it: `y += x` on a tensor with another name, say, is traced as a plain sum.
    """
    probe = torch.rand(1, IMAGE_CHANNELS, PROBE_SIDE, PROBE_SIDE, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            probe = probe.to(next(net.module.parameters(), probe).dtype) * net.input_max
            wanted, found = net.module(probe.clone()), traced(probe.clone())
    except Exception as error:  # whatever the user's own forward raises
        raise InputError(
            f"network {net.name}: its forward fails on an image of {PROBE_SIDE} x {PROBE_SIDE} pixels "
            f"({type(error).__name__}: {error})"
        ) from error
    if not isinstance(wanted, Tensor) or not isinstance(found, Tensor):
        return probe, None  # the translator says what is wrong with the output
    if wanted.shape != found.shape or not torch.allclose(wanted, found, rtol=1e-4, atol=1e-4 * net.input_max):
        raise InputError(
            f"network {net.name}: what torch.fx traces computes something else than the module; an in-place operation "
            "(+=, -=, *=) on a tensor that is used again does that. Write y = y + x."
        )
    return probe, wanted


def _require_no_more(net: NormalNet, probe: Tensor, wanted: Any) -> None:
    """Translated layers and module on the same image: a forward hook, say, is in no layer's weights."""
    with torch.inference_mode():
        found = evaluate(net, probe, dtype=torch.float64)
    if not isinstance(wanted, Tensor) or not bool(torch.isfinite(wanted).all()):
        return  # calibration names the layer that is not finite
    reach = max(net.input_max, float(wanted.abs().max()))
    if wanted.shape != found.shape or float((wanted - found).abs().max()) > PROBE_TOLERANCE * reach:
        raise InputError(
            f"network {net.name}: its layers compute something else than the module; a forward hook, or a layer class "
            "with a forward of its own, does that. Write the operation out in the module's forward."
        )


class _Translator:
    """Walks the fx graph once; `values` holds a layer name (feature map) or a constant for every fx node."""

    def __init__(self, net: FloatNetwork, traced: fx.GraphModule) -> None:
        self.net, self.traced = net, traced
        self.modules = dict(traced.named_modules())
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, Any] = {}

    def run(self) -> NormalNet:
        output: str | None = None
        for node in self.traced.graph.nodes:
            if node.op == "output":
                output = self._output_name(node)
            elif node.op == "placeholder":
                self._placeholder(node)
            else:
                self.values[node] = self._translate(node)
        return NormalNet(self.net.name, tuple(_reachable(self.layers, output or "")), self.net.input_max)

    def _placeholder(self, node: fx.Node) -> None:
        if self.layers:
            raise self._error(node, "a second input; one image goes in")
        self.layers.append(Layer("image", "image", ()))
        self.values[node] = "image"

    def _output_name(self, node: fx.Node) -> str:
        result = node.args[0]
        if not isinstance(result, fx.Node) or not self._is_map(result):
            raise self._error(node, "the output must be one image tensor")
        name: str = self.values[result]
        return name

    def _translate(self, node: fx.Node) -> Any:
        maps = [arg for arg in node.all_input_nodes if self._is_map(arg)]
        if not maps:
            return self._constant(node)
        first = next((key for key in ("input", "tensors") if not node.args and key in node.kwargs), None)
        if first:  # f(input=x) becomes f(x): the tables below read it by position
            node.args = (node.kwargs[first],)
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != first}
        self._refuse_hidden_change(node, maps[0])
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            for kind, build in MODULES.items():
                if isinstance(module, kind):
                    return build(self, node, module)
            raise self._error(node, f"module {type(module).__name__}", sorted(kind.__name__ for kind in MODULES))
        key = node.target if node.op == "call_function" else str(node.target)
        function = FUNCTIONS.get(key)
        if function is None:
            known = sorted({name for name in FUNCTIONS if isinstance(name, str)})
            raise self._error(node, f"function {getattr(key, '__name__', key)}", known)
        return function(self, node)

    def _refuse_hidden_change(self, node: fx.Node, changed: fx.Node) -> None:
        """An in-place operation whose input is read again later: the later reader would see the changed values."""
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        in_place = (
            (name.endswith("_") and not name.endswith("__"))
            or node.target in (operator.iadd, operator.isub, operator.imul)
            or node.kwargs.get("inplace", False)
            or getattr(module, "inplace", False)
        )
        if not in_place:
            return
        order = {item: index for index, item in enumerate(self.traced.graph.nodes)}
        same = [item for item in self.values if self.values[item] == self.values[changed] and self._is_map(item)]
        later = [user for item in same for user in item.users if order[user] > order[node]]
        if later:
            raise self._error(
                node, f"an in-place operation on {changed.name}, which {later[0].name} still reads afterwards,"
            )

    # --- helpers the tables use -----------------------------------------------------------------------------------

    def _is_map(self, value: Any) -> bool:
        return isinstance(value, fx.Node) and isinstance(self.values.get(value), str)

    def _constant(self, node: fx.Node) -> Any:
        """Everything that depends on no image is computed now."""
        if node.op == "get_attr":
            value: Any = self.traced
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value.detach().double() if isinstance(value, Tensor) else value
        args = fx.node.map_arg(node.args, lambda arg: self.values[arg])
        kwargs = fx.node.map_arg(node.kwargs, lambda arg: self.values[arg])
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        raise self._error(node, f"{node.op} {node.target} without an image input")

    def constant(self, value: Any, node: fx.Node) -> Tensor:
        """A scalar or a per-channel constant as float64 (1,) or (C,)."""
        if isinstance(value, fx.Node):
            value = self.values[value]
        tensor = torch.as_tensor(value, dtype=torch.float64)
        squeezed = tensor.reshape(-1)
        if tensor.numel() != 1 and not (tensor.dim() >= 3 and tensor.shape[-1] == tensor.shape[-2] == 1):
            raise self._error(node, f"a constant of shape {tuple(tensor.shape)}; one number or (C, 1, 1) is possible")
        return squeezed

    def emit(self, node: fx.Node, op: str, inputs: list[Any], **fields: Any) -> str:
        names = tuple(self.values[item] for item in inputs)
        self.layers.append(Layer(op, node.name, names, **fields))
        return node.name

    def affine(self, node: fx.Node, source: Any, scale: Any, shift: Any) -> str:
        return self.emit(node, "affine", [source], scale=self.constant(scale, node), shift=self.constant(shift, node))

    def _error(self, node: fx.Node, what: str, known: list[str] | None = None) -> InputError:
        hint = f"; supported are {', '.join(known)}" if known else ""
        return InputError(f"network {self.net.name}, layer {node.name}: {what} cannot run on integer hardware{hint}")


def _reachable(layers: list[Layer], output: str) -> list[Layer]:
    needed, kept = {output}, []
    for layer in reversed(layers):
        if layer.name in needed:
            kept.append(layer)
            needed.update(layer.inputs)
    return kept[::-1]


#: a diagonal 1x1 convolution of this width is a mean shift of the image
IMAGE_CHANNELS = 3
#: side of the image on which module and trace are compared, pixels
PROBE_SIDE = 16
#: float32 of the module against float64 of its layers, relative to the largest value
PROBE_TOLERANCE = 1e-3

# --- modules ------------------------------------------------------------------------------------------------------


def _conv(t: _Translator, node: fx.Node, module: nn.Conv2d) -> str:
    kernel = tuple(int(size) for size in module.kernel_size)
    padding = module.padding
    same = padding == "same" or tuple(padding) == tuple(size // 2 for size in kernel)
    wrong = [
        text
        for broken, text in (
            (any(size % 2 == 0 for size in kernel), f"an even kernel {kernel}"),
            (tuple(module.stride) != (1, 1), f"stride {tuple(module.stride)}"),
            (tuple(module.dilation) != (1, 1), f"dilation {tuple(module.dilation)}"),
            (not same, f"padding {padding} (same padding is {tuple(size // 2 for size in kernel)})"),
            (module.padding_mode != "zeros", f"padding mode {module.padding_mode}"),
        )
        if broken
    ]
    if wrong:
        raise t._error(node, "a convolution with " + ", ".join(wrong))
    weight = module.weight.detach().double()
    bias = torch.zeros(weight.shape[0], dtype=torch.float64) if module.bias is None else module.bias.detach().double()
    if kernel == (1, 1) and module.groups == 1 and weight.shape[0] == weight.shape[1] == IMAGE_CHANNELS:
        diagonal = torch.diagonal(weight[:, :, 0, 0])
        if bool((torch.diag(diagonal) == weight[:, :, 0, 0]).all()):  # a mean shift written as a 1x1 convolution
            return t.emit(node, "affine", [node.args[0]], scale=diagonal.clone(), shift=bias)
    return t.emit(node, "conv", [node.args[0]], weight=weight, bias=bias, groups=module.groups)


def _batch_norm(t: _Translator, node: fx.Node, module: nn.BatchNorm2d) -> str:
    if module.running_mean is None or module.running_var is None:
        raise t._error(node, "BatchNorm without running statistics")
    mean, var = module.running_mean.detach().double(), module.running_var.detach().double()
    gamma = torch.ones_like(mean) if module.weight is None else module.weight.detach().double()
    beta = torch.zeros_like(mean) if module.bias is None else module.bias.detach().double()
    scale = gamma / torch.sqrt(var + module.eps)
    return t.emit(node, "affine", [node.args[0]], scale=scale, shift=beta - mean * scale)


def _leaky(t: _Translator, node: fx.Node, slope: float) -> str:
    return t.emit(node, "prelu", [node.args[0]], slope=torch.tensor([slope], dtype=torch.float64))


def _resize(t: _Translator, node: fx.Node, mode: str, factor: Any, size: Any) -> str:
    pair = factor if isinstance(factor, tuple) else (factor, factor)
    if mode != "nearest" or size is not None or pair[0] != pair[1] or pair[0] is None or int(pair[0]) != pair[0]:
        raise t._error(
            node, f"resize mode {mode!r}, size {size}, factor {factor} (nearest by a whole factor is possible)"
        )
    return t.emit(node, "resize", [node.args[0]], factor=int(pair[0]))


def _same(t: _Translator, node: fx.Node, *_: Any) -> str:
    name: str = t.values[node.args[0]]  # type: ignore[index]
    return name


MODULES: dict[type[nn.Module], Callable[[_Translator, fx.Node, Any], str]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda t, node, module: t.emit(node, "relu", [node.args[0]]),
    nn.PReLU: lambda t, node, module: t.emit(node, "prelu", [node.args[0]], slope=module.weight.detach().double()),
    nn.LeakyReLU: lambda t, node, module: _leaky(t, node, module.negative_slope),
    nn.PixelShuffle: lambda t, node, module: t.emit(node, "shuffle", [node.args[0]], factor=module.upscale_factor),
    nn.Upsample: lambda t, node, module: _resize(t, node, module.mode, module.scale_factor, module.size),
    nn.Identity: _same,
    nn.Dropout: _same,
}


# --- functions and methods ----------------------------------------------------------------------------------------


def _argument(node: fx.Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _add(t: _Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if node.kwargs.get("alpha", 1) != 1:
        raise t._error(node, "add with alpha")
    if t._is_map(a) and t._is_map(b):
        return t.emit(node, "add", [a, b])
    image, constant = (a, b) if t._is_map(a) else (b, a)
    return t.affine(node, image, 1.0, constant)


def _sub(t: _Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if node.kwargs.get("alpha", 1) != 1:
        raise t._error(node, "sub with alpha")
    if t._is_map(a) and t._is_map(b):
        raise t._error(node, "subtraction of two feature maps (add one whose convolution is negated)")
    if t._is_map(a):
        return t.affine(node, a, 1.0, -t.constant(b, node).reshape(-1, 1, 1))
    return t.affine(node, b, -1.0, a)


def _mul(t: _Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if t._is_map(a) and t._is_map(b):
        raise t._error(node, "a product of two feature maps")
    image, constant = (a, b) if t._is_map(a) else (b, a)
    return t.affine(node, image, constant, 0.0)


def _div(t: _Translator, node: fx.Node) -> str:
    a, b = node.args[0], _argument(node, 1, "other")
    if not t._is_map(a) or t._is_map(b):
        raise t._error(node, "division by a feature map")
    if node.kwargs.get("rounding_mode") is not None:
        raise t._error(node, f"division with rounding_mode {node.kwargs['rounding_mode']!r}")
    return t.affine(node, a, 1.0 / t.constant(b, node).reshape(-1, 1, 1), 0.0)


def _cat(t: _Translator, node: fx.Node) -> str:
    parts = list(node.args[0])  # type: ignore[arg-type]
    if _argument(node, 1, "dim", 0) not in (1, -3):
        raise t._error(node, f"concatenation along dimension {_argument(node, 1, 'dim', 0)} (channels, 1, is possible)")
    if not all(t._is_map(part) for part in parts):
        raise t._error(node, "concatenation with a constant")
    return t.emit(node, "concat", parts)


def _clamp(t: _Translator, node: fx.Node) -> str:
    lo, hi = _argument(node, 1, "min"), _argument(node, 2, "max")
    if lo == 0 and hi is None:
        return t.emit(node, "relu", [node.args[0]])
    limits = (float("-inf") if lo is None else float(lo), float("inf") if hi is None else float(hi))
    return t.emit(node, "clamp", [node.args[0]], limits=limits)


def _relu(t: _Translator, node: fx.Node) -> str:
    return t.emit(node, "relu", [node.args[0]])


def _interpolate(t: _Translator, node: fx.Node) -> str:
    mode, factor = _argument(node, 3, "mode", "nearest"), _argument(node, 2, "scale_factor")
    return _resize(t, node, mode, factor, _argument(node, 1, "size"))


def _pixel_shuffle(t: _Translator, node: fx.Node) -> str:
    return t.emit(node, "shuffle", [node.args[0]], factor=int(_argument(node, 1, "upscale_factor")))


def _prelu(t: _Translator, node: fx.Node) -> str:
    slope = t.values[_argument(node, 1, "weight")]
    return t.emit(node, "prelu", [node.args[0]], slope=slope.reshape(-1).double())


#: torch functions by object, tensor methods by name
FUNCTIONS: dict[Any, Callable[[_Translator, fx.Node], str]] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add, "add", "add_"), _add),
    **dict.fromkeys((operator.sub, operator.isub, torch.sub, "sub", "sub_"), _sub),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul, "mul", "mul_"), _mul),
    **dict.fromkeys((operator.truediv, torch.div, "div", "div_"), _div),
    **dict.fromkeys((torch.cat, torch.concat), _cat),
    **dict.fromkeys((torch.clamp, "clamp", "clamp_"), _clamp),
    **dict.fromkeys((F.relu, torch.relu, "relu", "relu_"), _relu),
    F.leaky_relu: lambda t, node: _leaky(t, node, float(_argument(node, 1, "negative_slope", 0.01))),
    F.prelu: _prelu,
    F.pixel_shuffle: _pixel_shuffle,
    F.interpolate: _interpolate,
    "contiguous": _same,
}
