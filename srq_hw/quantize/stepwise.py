"""Run a quantized network layer by layer over many patches, so that a search repeats only what it changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srq_hw.quantize.brevitas_layers import QuantNet

Image = npt.NDArray[np.uint8]
#: layer name -> its output for every batch
Values = dict[str, list[Tensor]]


def batches(patches: Sequence[Image]) -> list[Tensor]:
    """Patches of one shape stacked: float32 (N, C, H, W) grey levels each, shapes in order of first appearance."""
    shapes: dict[tuple[int, ...], list[Image]] = {}
    for patch in patches:
        shapes.setdefault(patch.shape, []).append(patch)
    return [
        torch.from_numpy(np.stack(group).astype(np.float32)).permute(0, 3, 1, 2).contiguous()
        for group in shapes.values()
    ]


class Stepwise:
    """A QuantNet and its input batches; positions count `plan.layers`."""

    def __init__(self, net: QuantNet, images: list[Tensor]) -> None:
        self.net = net
        self.images = images
        self.layers = net.plan.layers
        self.position = {layer.name: index for index, layer in enumerate(self.layers)}
        self._last_read = {name: index for index, layer in enumerate(self.layers) for name in layer.inputs}

    def run(self, values: Values, start: int, stop: int) -> Values:
        """Layers start..stop-1 on what the layers in front left; `values` itself stays as it is.

        The result holds what layers from `stop` on read, and the last layer's output.
        """
        values = dict(values)
        with torch.no_grad():
            for index in range(start, stop):
                layer = self.layers[index]
                sources = [values[name] for name in layer.inputs]
                values[layer.name] = [
                    self.net._compute(layer, [source[i] for source in sources], image)
                    for i, image in enumerate(self.images)
                ]
                for name in layer.inputs:
                    if self._last_read[name] == index:
                        values.pop(name, None)
        return values
