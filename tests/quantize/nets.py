"""Tiny float networks and targets for the arithmetic tests: every layer kind in a handful of channels."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from srq_hw.networks.loading import FloatNetwork
from srq_hw.quantize.recipe import Recipe
from srq_hw.target import Target, load_target

HEIGHT, WIDTH = 6, 7
#: operations whose output a QONNX file has too, as integers on a grid
COMPARED = ("Requant", "DepthToSpace", "Concat", "ResizeNearest", "Slice")


def network(
    module: nn.Module, input_max: float = 255.0, scale: int = 1, seed: int = 0, channels: int = 3
) -> FloatNetwork:
    """The module with random weights (not zero, not symmetric, BatchNorm statistics too), in eval mode.

    A convolution or PReLU with a true attribute ``keep`` keeps its own.
    """
    torch.manual_seed(seed)
    module.unit = input_max / 255.0  # type: ignore[assignment]
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d) and not getattr(part, "keep", False):
                fan = part.weight[0].numel()
                part.weight.copy_(torch.randn_like(part.weight) / fan**0.5)
                if part.bias is not None:
                    part.bias.copy_(torch.randn_like(part.bias) * 0.1 * input_max)
            elif isinstance(part, nn.BatchNorm2d) and part.running_mean is not None and part.running_var is not None:
                part.running_mean.copy_(torch.randn_like(part.running_mean) * 0.1 * input_max)
                part.running_var.copy_(torch.rand_like(part.running_var) * 2 + 0.3)
                if part.affine:
                    part.weight.copy_(torch.randn_like(part.weight))
                    part.bias.copy_(torch.randn_like(part.bias) * 0.1 * input_max)
            elif isinstance(part, nn.PReLU) and not getattr(part, "keep", False):
                part.weight.copy_(torch.rand_like(part.weight) * 0.6)
    return FloatNetwork("tiny", module.eval(), scale, input_max, "test", None, channels)


def image(seed: int = 0, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> np.ndarray:
    """uint8 (H, W, C): noise with black and white patches."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (height, width, channels))
    return np.where(rng.random((height, width, 1)) < 0.3, rng.choice([0, 255], (height, width, 1)), values).astype(
        np.uint8
    )


def target(base: str = "zcu104", **changes: object) -> Target:
    """A packaged target with changes: dotted keys of its `integer`, as ``target(**{"requant.rounding": "floor"})``."""
    data = load_target(base).model_dump(by_alias=True, exclude_none=True)
    data = copy.deepcopy(data)
    for key, value in changes.items():
        place = data["integer"]
        *path, last = key.split(".")
        for part in path:
            place = place[part]
        place[last] = value
    return Target.model_validate(data)


def plain_target() -> Target:
    """Dense convolutions, sums, concatenations and shuffles only."""
    ops = target(**{"ops.Conv.groups": False}).integer.ops.model_dump(exclude_none=True)
    kept = {op: limits for op, limits in ops.items() if op not in ("Slice", "ResizeNearest", "ResizeFilter")}
    return target(ops=kept)


def pow2_target(rounding: str = "half_even") -> Target:
    return target(**{"requant.kind": "pow2", "requant.multiplier_bits": None, "requant.rounding": rounding})


def recipe(method: str = "minmax", **options: object) -> Recipe:
    weights = {"method": "mse" if method == "mse" else "minmax"}
    patches = {"count": 2, "size": 8, "seed": 0}
    activations = {"method": method, "bins": 256, **options}
    return Recipe.model_validate(
        {"schema": 1, "name": "t", "title": "t", "patches": patches, "activations": activations, "weights": weights}
    )


def conv(a: int, b: int, kernel: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(a, b, kernel, padding=kernel // 2, **options)  # type: ignore[arg-type]


def prelu(*slopes: float) -> nn.PReLU:
    """A PReLU with these slopes, which `network` keeps."""
    made = nn.PReLU(len(slopes))
    made.keep = True  # type: ignore[assignment]
    with torch.no_grad():
        made.weight.copy_(torch.tensor(slopes))
    return made


class Forward(nn.Module):
    """A module from parts and a function: ``Forward(lambda m, x: m.a(x), a=conv(3, 3))``."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.unit = 1.0
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """Whatever the function does."""
        return self.function(self, x)


def residual() -> nn.Module:
    """Head, a block, a tail, a global skip, a shuffle."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.head(x)
        y = h + m.c2(torch.relu(m.c1(h)))
        return nn.functional.pixel_shuffle(m.up(m.tail(y) + h), 2) + 120.0 * m.unit

    return Forward(forward, head=conv(3, 4), c1=conv(4, 4), c2=conv(4, 4), tail=conv(4, 4, 1), up=conv(4, 12))


def everything() -> nn.Module:
    """PReLU per channel and shared, dense concat, own activation on a sum, nearest resize, mean shift, shuffles."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.p1(m.head(x - 114.0))
        y = torch.relu(m.c1(h))
        z = m.c2(torch.cat([h, y], 1))
        s = nn.functional.leaky_relu(z + h, 0.2)
        u = nn.functional.interpolate(s + z, scale_factor=2, mode="nearest")
        w = m.p2(nn.functional.pixel_shuffle(m.c3(u), 2))
        return m.last(w) + 100.0

    return Forward(
        forward,
        head=conv(3, 4),
        p1=nn.PReLU(4),
        c1=conv(4, 3),
        c2=conv(7, 4),
        c3=conv(4, 8, 1),
        p2=nn.PReLU(),
        last=conv(2, 3),
    )


def sums() -> nn.Module:
    """Sums of sums, an output made by a sum, and activations that read what others read too."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        a, b = torch.relu(m.a(x)), torch.relu(m.b(x))
        c = a + b
        d = torch.relu(m.c(c) + c)
        e = m.d(d)
        return (m.e(torch.relu(e) + m.f(e)) + 60.0) + (m.g(d) + 70.0)

    parts = {name: conv(4, 4) for name in "cdf"}
    return Forward(forward, a=conv(3, 4), b=conv(3, 4, 1), e=conv(4, 3), g=conv(4, 3), **parts)


NETS: dict[str, Callable[[], nn.Module]] = {"residual": residual, "everything": everything, "sums": sums}
