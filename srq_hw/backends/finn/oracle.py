"""FINN's own execution of the built dataflow graph against the reference simulator, on integers."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.backends.finn.build import DATAFLOW, FinnResult
from srq_hw.backends.finn.prepare import prepare
from srq_hw.backends.finn.run import Progress, run_worker
from srq_hw.errors import InputError, RunError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.simulate.reference import as_batch, trace


@dataclass(frozen=True)
class FinnOracle:
    """elements compared, mismatches among them, tensors compared, and the first node that differs ("" if none)."""

    elements: int
    mismatches: int
    tensors: int
    first_node: str
    seconds: float


def finn_oracle(
    result: FinnResult,
    graph: IntGraph,
    image: npt.NDArray[np.integer],
    nodewise: bool = False,
    progress: Progress | None = None,
) -> FinnOracle:
    """Run the folded graph of a build in FINN on an image of the build's size and compare with the reference.

    image: integers (H, W, C). nodewise: compare every tensor that both sides hold, not only the output, and name the
    first node that differs. InputError where the size is another, RunError where FINN's execution fails.
    """
    if not result.built:
        raise InputError(f"FINN oracle: the build was not run ({result.reason})")
    x = as_batch(graph, image)
    if x.shape[:3] != (1, *result.size):
        raise InputError(f"FINN oracle: image of shape {image.shape}; the design was built for {result.size}")
    prepared = prepare(graph)
    ours = {item.node for item in result.places if item.library == "srq"}
    expected = _as_finn(prepared.graph, trace(prepared.graph, x), ours)
    reference = trace(graph, x)[graph.output]
    if (expected[graph.output] != reference).any():
        raise RunError("FINN: preparing the graph changed its output")
    names = list(expected) if nodewise else [graph.output]
    work = result.folder / "oracle"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    np.save(work / "image.npy", x)
    shutil.copyfile(result.folder / DATAFLOW, work / DATAFLOW)
    job = {"kind": "execute", "model": DATAFLOW, "image": "image.npy", "keep": names}
    done = run_worker(job, work, progress)
    if graph.output not in done["made"]:
        raise RunError(f"FINN: the dataflow graph does not make {graph.output}")
    elements = mismatches = 0
    first = ""
    made = [name for name in names if name in done["made"]]
    for name in made:
        wanted = expected[name]
        found = np.load(work / f"{names.index(name)}.npy", allow_pickle=False).reshape(wanted.shape)
        wrong = int((found != wanted).sum())
        elements, mismatches = elements + wanted.size, mismatches + wrong
        if wrong and not first:
            first = next(node.name for node in graph.nodes if node.output == name)
    shutil.rmtree(work)
    return FinnOracle(elements, mismatches, len(made), first, float(done["seconds"]))


def _as_finn(graph: IntGraph, values: dict[str, Int], ours: Collection[str]) -> dict[str, Int]:
    """What FINN's tensors of the same name must hold, in execution order: its own accumulators lack their bias."""
    expected = {}
    for node in graph.nodes:
        bias = node.params["bias"] if node.op == "Conv" and node.name not in ours else 0
        expected[node.output] = values[node.output] - bias
    return expected
