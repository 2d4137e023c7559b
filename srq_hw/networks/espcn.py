"""ESPCN (Shi et al. 2016): three convolutions and a pixel shuffle. Y only."""

from __future__ import annotations

from torch import Tensor, nn

from srq_hw.networks.layers import conv

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh}


class Espcn(nn.Module):
    """5x5 to 64, 3x3 to 32, 3x3 to the sub-pixels; Y 0..1 in and out.

    act: "relu" (what hardware work uses) or "tanh" (the paper). ValueError for another.
    """

    def __init__(self, scale: int, act: str = "relu") -> None:
        super().__init__()
        if act not in ACTIVATIONS:
            raise ValueError(f"act {act!r}; allowed are {', '.join(ACTIVATIONS)}")
        self.conv1 = conv(1, 64, 5)
        self.act1 = ACTIVATIONS[act]()
        self.conv2 = conv(64, 32)
        self.act2 = ACTIVATIONS[act]()
        self.conv3 = conv(32, scale * scale)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to (N, 1, scale*H, scale*W)."""
        out: Tensor = self.shuffle(self.conv3(self.act2(self.conv2(self.act1(self.conv1(x))))))
        return out
