"""Real pixels for the proofs: pieces of a picture that comes with scikit-image, as a network sees them."""

from __future__ import annotations

import numpy as np

from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.demo import demo_images
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.pipeline.session import centre


def photograph(graph: IntGraph, side: int) -> Int:
    """The middle of the first built-in test image, int64 (side, side, C)."""
    image = network_view(demo_images()[0].rgb, graph.tensors[graph.input].channels)
    return centre(image, side, side).astype(np.int64)


def frames(graph: IntGraph, side: int, count: int) -> Int:
    """The same piece, each time rolled a little further: int64 (count, side, side, C)."""
    image = photograph(graph, side)
    return np.stack([np.roll(image, (frame, 3 * frame), (0, 1)) for frame in range(count)])
