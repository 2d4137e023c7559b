"""What each torch module becomes: the table `MODULES`."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn

from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.normalform.normal import Layer
from srq_hw.normalform.subpixel import subpixel_problem, subpixel_weight
from srq_hw.normalform.translate import ModuleTable, Translator


def _conv(t: Translator, node: fx.Node, module: nn.Conv2d) -> str:
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
        raise t.error(node, "a convolution with " + ", ".join(wrong))
    weight = module.weight.detach().double()
    bias = torch.zeros(weight.shape[0], dtype=torch.float64) if module.bias is None else module.bias.detach().double()
    colours = t.net.channels
    if kernel == (1, 1) and module.groups == 1 and weight.shape[0] == weight.shape[1] == colours:
        diagonal = torch.diagonal(weight[:, :, 0, 0])
        is_diagonal = bool((torch.diag(diagonal) == weight[:, :, 0, 0]).all())
        # with one channel every such convolution is diagonal: only directly behind the image is it a mean shift
        if is_diagonal and (colours > 1 or t.values[node.args[0]] == "image"):  # type: ignore[index]
            return t.emit(node, "affine", [node.args[0]], scale=diagonal.clone(), shift=bias)
    return t.emit(node, "conv", [node.args[0]], weight=weight, bias=bias, groups=module.groups)


def _transposed(t: Translator, node: fx.Node, module: nn.ConvTranspose2d) -> str:
    """One convolution and a pixel shuffle (`subpixel`), exact at every pixel."""
    if len(node.args) > 1 or node.kwargs.get("output_size") is not None:
        raise t.error(node, "a transposed convolution with output_size (set output_padding in its constructor)")
    kernel, stride = tuple(module.kernel_size), module.stride[0]
    padding, more = tuple(int(pad) for pad in module.padding), tuple(module.output_padding)
    problem = subpixel_problem(kernel, tuple(module.stride), padding, more, tuple(module.dilation), module.groups)
    if problem:
        raise t.error(node, f"a transposed convolution with {problem}")
    given = module.weight.detach().double().numpy()
    weight = torch.from_numpy(subpixel_weight(given, stride, (padding[0], padding[1])))
    bias = torch.zeros(module.out_channels, dtype=torch.float64)
    if module.bias is not None:
        bias = module.bias.detach().double()
    if stride == 1:
        return t.emit(node, "conv", [node.args[0]], weight=weight, bias=bias)
    name = f"{node.name}_subpixel"
    source = (t.values[node.args[0]],)  # type: ignore[index]
    t.layers.append(Layer("conv", name, source, weight=weight, bias=bias.repeat_interleave(stride**2)))
    t.layers.append(Layer("shuffle", node.name, (name,), factor=stride))
    return node.name


def _batch_norm(t: Translator, node: fx.Node, module: nn.BatchNorm2d) -> str:
    if module.running_mean is None or module.running_var is None:
        raise t.error(node, "BatchNorm without running statistics")
    mean, var = module.running_mean.detach().double(), module.running_var.detach().double()
    gamma = torch.ones_like(mean) if module.weight is None else module.weight.detach().double()
    beta = torch.zeros_like(mean) if module.bias is None else module.bias.detach().double()
    scale = gamma / torch.sqrt(var + module.eps)
    return t.emit(node, "affine", [node.args[0]], scale=scale, shift=beta - mean * scale)


def leaky(t: Translator, node: fx.Node, slope: float) -> str:
    return t.emit(node, "prelu", [node.args[0]], slope=torch.tensor([slope], dtype=torch.float64))


#: mode of torch's interpolate -> kernel of `graph.taps`; None: pixels repeated
RESIZE_MODES = {"nearest": None, "nearest-exact": None, "bilinear": "bilinear", "bicubic": "bicubic_torch"}


def resize(t: Translator, node: fx.Node, mode: str, factor: Any, size: Any, corners: Any = None) -> str:
    pair = factor if isinstance(factor, tuple) else (factor, factor)
    whole = pair[0] is not None and pair[0] == pair[1] and int(pair[0]) == pair[0]
    if mode not in RESIZE_MODES or size is not None or not whole or corners:
        raise t.error(
            node,
            f"resize mode {mode!r}, size {size}, factor {factor}, align_corners {corners} "
            f"({', '.join(RESIZE_MODES)} by a whole scale_factor, without align_corners, are possible)",
        )
    return _upsample(t, node, RESIZE_MODES[mode], int(pair[0]))


def _upsample(t: Translator, node: fx.Node, kernel: str | None, factor: int) -> str:
    if factor == 1:
        return same(t, node)
    if kernel is None:
        return t.emit(node, "resize", [node.args[0]], factor=factor)
    return t.emit(node, "filter", [node.args[0]], factor=factor, kernel=kernel)


def hardtanh(t: Translator, node: fx.Node, low: float, high: float) -> str:
    return t.emit(node, "clamp", [node.args[0]], limits=(float(low), float(high)))


def same(t: Translator, node: fx.Node, *_: Any) -> str:
    name: str = t.values[node.args[0]]  # type: ignore[index]
    return name


MODULES: ModuleTable = {
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _transposed,
    nn.BatchNorm2d: _batch_norm,
    nn.ReLU: lambda t, node, module: t.emit(node, "relu", [node.args[0]]),
    nn.Hardtanh: lambda t, node, module: hardtanh(t, node, module.min_val, module.max_val),  # nn.ReLU6 is one
    nn.PReLU: lambda t, node, module: t.emit(node, "prelu", [node.args[0]], slope=module.weight.detach().double()),
    nn.LeakyReLU: lambda t, node, module: leaky(t, node, module.negative_slope),
    nn.PixelShuffle: lambda t, node, module: t.emit(node, "shuffle", [node.args[0]], factor=module.upscale_factor),
    nn.Upsample: lambda t, node, module: resize(
        t, node, module.mode, module.scale_factor, module.size, module.align_corners
    ),
    BicubicUpsample: lambda t, node, module: _upsample(t, node, "bicubic", module.factor),
    nn.Identity: same,
    nn.Dropout: same,
}
