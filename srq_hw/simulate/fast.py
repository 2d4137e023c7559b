"""The fast simulator: the bits of `reference`, from kernels that are proven exact for the graph at hand.

    program = compile_graph(graph)
    upscaled = program.run(image)

Compile once, run on images of any size. See docs/simulate.md for the proof obligations.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.errors import InputError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.graph.resampling import undo_depth_to_space
from srq_hw.simulate.crew import Work, work_through
from srq_hw.simulate.plan import Job, Plan, make_plan
from srq_hw.simulate.reference import as_batch
from srq_hw.simulate.storage import Array, smallest_dtype
from srq_hw.simulate.tiles import Tile, halo, tile_side, tiles

#: Values of a convolution's output that one strip makes: with their input about what a core's cache holds.
STRIP_VALUES = 160_000
#: Shorter strips cost more in calls than they save in memory traffic.
STRIP_ROWS = 10


class FastProgram:
    """A compiled graph. Holds the buffers of its last image size; runs may overlap, each then has its own."""

    def __init__(self, plan: Plan, threads: int) -> None:
        self.plan = plan
        self.threads = threads
        self._kept: tuple[tuple[int, int], dict[int, Array]] | None = None

    @property
    def output_dtype(self) -> type[np.integer]:
        """Smallest of uint8, int8, int16, int32, int64 that holds the output tensor's type (UINT8: uint8)."""
        output = self.plan.graph.output
        lo, hi = self.plan.graph.tensors[output].range
        store = self.plan.stores[output]
        return smallest_dtype(min(lo, store.lo - store.offset), max(hi, store.hi - store.offset))

    def run(self, image: npt.NDArray[np.integer], tile: Tile = "auto") -> Array:
        """Output image (N, H*upscale, W*upscale, C) of ``output_dtype`` for an image (H,W,C) or a batch (N,H,W,C).

        tile: side in input pixels of the squares that are worked on one after the other, each with its halo; None: the
        whole image at once; "auto": the largest that keep the feature maps within
        256 MiB. The bits are the same.
        InputError where the image does not fit the graph or tile is not positive.
        """
        graph = self.plan.graph
        batch = as_batch(graph, image)
        count, height, width, _ = batch.shape
        side = tile_side(tile, height, width, self.plan)
        scale, channels = graph.upscale, graph.tensors[graph.output].channels
        result = np.empty((count, height * scale, width * scale, channels), self.output_dtype)
        for rows, columns in tiles(height, width, side, halo(graph)):
            for index in range(count):
                out = self._image(batch[index, rows.outer, columns.outer])
                result[index, rows.image(scale), columns.image(scale)] = out[rows.inside(scale), columns.inside(scale)]
        return result

    def trace(self, image: npt.NDArray[np.integer]) -> dict[str, Int]:
        """Every tensor that some step writes, by name, int64 NHWC, from the same steps as `run`, untiled.

        Accumulators that pass from a Conv or Add straight into its Requant never exist and are left out.
        """
        batch = as_batch(self.plan.graph, image)
        parts = []
        for one in batch:
            height, width, _ = one.shape
            buffers = {name: self.plan.stores[name].allocate(height, width) for name in self.plan.slots}
            self._execute(buffers, one)
            found = {name: self.plan.stores[name].load(array, 0, array.shape[0]) for name, array in buffers.items()}
            for name, node in self.plan.shuffled.items():
                found[name] = undo_depth_to_space(found[node.output], node)
            parts.append(found)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    # --- one image or tile ----------------------------------------------------------------------------------------

    def _image(self, image: Int) -> Int | Array:
        graph, stores = self.plan.graph, self.plan.stores
        size = (image.shape[0], image.shape[1])
        kept, self._kept = self._kept, None
        if kept and kept[0] != size:
            kept = None  # before the new buffers are made: never both at once
        slots = kept[1] if kept else self._slots(size)
        buffers = {name: slots[slot] for name, slot in self.plan.slots.items()}
        self._execute(buffers, image)
        self._kept = (size, slots)
        store = stores[graph.output]
        inside = store.inside(buffers[graph.output])
        return inside if store.offset == 0 else np.subtract(inside, store.offset, dtype=np.int64)

    def _slots(self, size: tuple[int, int]) -> dict[int, Array]:
        any_of = {slot: self.plan.stores[name] for name, slot in self.plan.slots.items()}
        return {slot: store.allocate(*size) for slot, store in any_of.items()}

    def _execute(self, buffers: dict[str, Array], image: Int) -> None:
        self.plan.stores[self.plan.graph.input].save(buffers[self.plan.graph.input], 0, image[None])
        height, width = image.shape[:2]
        work_through([self._work(job, buffers, height, width) for job in self.plan.jobs], self.threads)

    def _work(self, job: Job, buffers: dict[str, Array], height: int, width: int) -> Work:
        rows = height * job.upscale
        per_strip = max(STRIP_ROWS, STRIP_VALUES // (job.row_values * width * job.upscale))
        count = -(-rows // per_strip)
        count = min(rows, -(-count // self.threads) * self.threads)

        def strip(index: int) -> None:
            first, last = rows * index // count, rows * (index + 1) // count
            for step in job.steps:
                factor = step.sources[0].upscale // job.upscale
                step.run(buffers, first * factor, last * factor)

        return Work(strip, count)


def compile_graph(graph: IntGraph, threads: int | None = None, kernel: str | None = None) -> FastProgram:
    """Choose kernels, steps and buffers. threads: as torch has by default; kernel: see `convolve.kernel_order`."""
    count = torch.get_num_threads() if threads is None else threads
    if count < 1:
        raise InputError(f"threads {threads}; wanted at least 1")
    return FastProgram(make_plan(graph, kernel), count)


def run(graph: IntGraph, image: npt.NDArray[np.integer]) -> Array:
    """Compile and run once."""
    return compile_graph(graph).run(image)
