"""IntGraph -> a complete streaming design in Verilog: top, library, memory files, map."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.emit import design_map, library_files, top_flags, top_text
from srq_hw.backends.rtl.fifos import with_fifos
from srq_hw.backends.rtl.folding import Folding, Goal, fold
from srq_hw.backends.rtl.limits import refuse
from srq_hw.backends.rtl.netlist import FABRIC, Fabric, Netlist, Stream
from srq_hw.backends.rtl.stitch import stitch
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.errors import InputError
from srq_hw.files import write_json, write_text
from srq_hw.graph.ir import Int, IntGraph

TOP = "srq_top"
#: what a host sends before the first frame
WEIGHTS_FILE = "weights.bin"


@dataclass(frozen=True)
class RtlDesign:
    """A design as text.

    input, output: the top's streams "s" and "m". weights: its stream "w", None where none are written at run time;
    loads: int64, the beats of a set. flags: its output bits beside the streams. library: file names of lib/. memories:
    file name -> `$readmemh` text. cycles: per frame, of the slowest unit. latency: cycles from the first beat in to the
    first out, with a source that sends evenly. fifos: instance -> words.
    """

    name: str
    graph_sha256: str
    size: tuple[int, int]
    input: Stream
    output: Stream
    weights: Stream | None
    loads: Int
    flags: tuple[str, ...]
    top: str
    library: tuple[str, ...]
    memories: Mapping[str, str]
    map: Mapping[str, Any]
    cycles: int
    bottleneck: str
    latency: int
    fifos: Mapping[str, int]
    netlist: Netlist
    folding: Folding
    fabric: Fabric

    def write(self, folder: Path) -> None:
        """rtl/<top>.v, rtl/lib/*.v, mem/*.hex, map.json and filelist.f in the folder, which is made.

        Where weights are written at run time, weights.bin: the beats as 32-bit words, little-endian.
        """
        (folder / "rtl" / "lib").mkdir(parents=True, exist_ok=True)
        (folder / "mem").mkdir(exist_ok=True)
        for name in self.library:
            shutil.copyfile(LIBRARY / name, folder / "rtl" / "lib" / name)
        write_text(folder / "rtl" / f"{self.name}.v", self.top)
        for name, text in self.memories.items():
            write_text(folder / "mem" / name, text)
        if self.weights:
            (folder / WEIGHTS_FILE).write_bytes(self.loads.astype("<u4").tobytes())
        write_json(folder / "map.json", dict(self.map))
        files = [f"rtl/lib/{name}" for name in self.library] + [f"rtl/{self.name}.v"]
        write_text(folder / "filelist.f", "\n".join(files) + "\n")


def generate(
    graph: IntGraph,
    size: tuple[int, int],
    cycles: int,
    name: str = TOP,
    fabric: Fabric = FABRIC,
    folding: Folding | None = None,
) -> RtlDesign:
    """The design for frames of size (H, W) with at most `cycles` cycles per frame where the units can be that fast.

    folding: lanes to take instead of choosing them (`Folding.resized` of another design of the same graph).

    InputError for a size that is no image and for what the library cannot do (`limits`).
    """
    if min(size) < 1 or cycles < 1:
        raise InputError(
            f"RTL of {graph.name}: {size[0]}x{size[1]} pixels in {cycles} cycles; wanted 1 or more of each"
        )
    ready = arrange(graph)
    refuse(ready)
    goal = Goal(size, cycles, fabric)
    folding = fold(ready, goal) if folding is None else folding

    def stitched(frame: tuple[int, int]) -> Netlist:
        return stitch(ready, replace(goal, size=frame), folding.resized(size, frame), name)

    netlist, latency = with_fifos(stitched, size, folding.cycles, fabric)
    memories = {file: text for instance in netlist.instances for file, text in instance.memories.items()}
    sha256 = graph.content_sha256
    return RtlDesign(
        name=name,
        graph_sha256=sha256,
        size=size,
        input=netlist.input,
        output=netlist.output,
        weights=netlist.weights,
        loads=np.array(netlist.loads, np.int64),
        flags=top_flags(netlist),
        top=top_text(netlist, graph.name, sha256, folding.cycles),
        library=library_files(netlist),
        memories=memories,
        map=design_map(netlist, sha256),
        cycles=folding.cycles,
        bottleneck=folding.bottleneck,
        latency=latency,
        fifos={
            instance.name: int(instance.parameters["DEPTH"])
            for instance in netlist.instances
            if instance.module == "srq_fifo"
        },
        netlist=netlist,
        folding=folding,
        fabric=fabric,
    )


@contextmanager
def written_sources(design: RtlDesign) -> Iterator[tuple[Path, ...]]:
    """The design's Verilog files, for as long as a tool reads them."""
    with tempfile.TemporaryDirectory(prefix="srq-rtl-") as scratch:
        design.write(Path(scratch))
        yield tuple(sorted(Path(scratch).rglob("*.v")))
