"""Verilog and memory files of a stitched design: what FINN generated, its library, what has to be patched in a copy.

FINN's library stays where it is installed. What Verilator does not read is patched in a copy that lives as long as the
compilation; nothing of FINN's is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from srq_hw.backends.finn.ops.wrapper import wrapper_text
from srq_hw.backends.finn.relocate import SOURCES, finn_package
from srq_hw.backends.finn.stitched_units import Unit, stand_in
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.errors import InputError, RunError
from srq_hw.tools import require_tool

#: FINN's library, below its package
RTLLIB = "finn-rtllib"
#: operation -> what its generated wrapper needs of it, packages first
LIBRARIES: dict[str, tuple[str, ...]] = {
    "FMPadding": ("fmpadding/hdl/fmpadding_axi.sv", "fmpadding/hdl/fmpadding.sv", "fmpadding/hdl/axi2we.sv"),
    "ConvolutionInputGenerator": ("swg/swg_pkg.sv", "swg/swg_common.sv"),
    "Thresholding": (
        "axi/hdl/axilite.sv",
        "thresholding/hdl/thresholding.sv",
        "thresholding/hdl/thresholding_axi.sv",
    ),
    "MVAU": (
        "mvu/mvu_pkg.sv",
        "mvu/mvu_vvu_axi.sv",
        "mvu/replay_buffer.sv",
        "mvu/mvu.sv",
        "mvu/mvu_vvu_8sx9_dsp58.sv",
        "mvu/add_multi.sv",
        "axi/hdl/axilite.sv",
        "memstream/hdl/memstream.sv",
        "memstream/hdl/memstream_axi.sv",
    ),
}
#: weights of a matrix unit in its folder of generated sources
WEIGHTS = "memblock.dat"
MEMORIES = (".dat", ".hex")
VERILOG = (".v", ".sv")


@dataclass(frozen=True)
class Sources:
    """units: as handed in, with their origin settled. files: name -> text of Verilog written for the compilation.

    library: FINN's Verilog that is compiled where it lies. memories: file name -> text.
    """

    units: tuple[Unit, ...]
    files: Mapping[str, str]
    library: tuple[Path, ...]
    memories: Mapping[str, str] = field(default_factory=dict)


# --- patches ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """A change of one file of FINN's library. needed: whether a unit meets what Verilator refuses in it."""

    file: str
    what: str
    needed: Callable[[Unit], bool]
    apply: Callable[[str], str | None]  # None where the text is not the one that the patch was written for


def _leaf_function(text: str) -> str | None:
    """Move the constant function of the adder tree from its generate block to the module, as Verilator wants it."""
    block = re.compile(
        r"\n[ \t]*typedef [^\n]*leaf_load_t[^\n]*;\n[ \t]*function leaf_load_t .*?endfunction[^\n]*", re.S
    )
    place = re.compile(r"\n[ \t]*uwire \[SUM_WIDTH-1:0\][ \t]+sum0;")
    found, at = block.findall(text), place.findall(text)
    if len(found) != 1 or len(at) != 1:
        return None
    return block.sub("", text).replace(at[0], found[0] + at[0])


#: Verilator 5.048 reads the rest as it is
PATCHES = (
    Patch(
        "mvu/add_multi.sv",
        "the constant function of the adder tree moved out of its generate block, where Verilator refuses it",
        lambda unit: unit.kind == "MVAU" and unit.inputs[0].lanes > 1,
        _leaf_function,
    ),
)


def collect(units: Sequence[Unit], sources: Path, own_matrix: bool) -> Sources:
    """All that the units need. sources: the build's folder of generated sources, one folder per node.

    own_matrix: our convolution in the place of FINN's matrix units. It also stands in where FINN's library is not the
    one that the patches were written for. InputError where the build has no sources, RunError where they are not whole
    or FINN is not installed.
    """
    if not sources.is_dir():
        raise InputError(f"{sources}: no generated sources; build with code generation (codegen=True) to simulate them")
    theirs = [unit for unit in units if unit.kind in LIBRARIES and not (own_matrix and unit.kind == "MVAU")]
    if theirs:
        require_tool("finn")
    root = Path(finn_package()) / RTLLIB
    patched, refused = _patched(theirs, root)
    settled = tuple(_settled(unit, sources, own_matrix, patched, refused) for unit in units)
    files: dict[str, str] = {}
    memories: dict[str, str] = {}
    library: dict[Path, None] = {}
    for unit in settled:
        if unit.stands:
            _add(files, {f"{unit.name}.v": wrapper_text(unit.name, unit.stands, ".")})
            _add(memories, unit.stands.memories)
            continue
        made, contents = _generated(unit, sources / unit.name)
        _add(files, made)
        _add(memories, contents)
        for name in LIBRARIES.get(unit.kind, ()):
            if name in patched:
                files[Path(name).name] = patched[name]
            else:
                library[root / name] = None
    return Sources(settled, files, tuple(library), memories)


def _patched(units: Sequence[Unit], root: Path) -> tuple[dict[str, str], dict[str, Patch]]:
    """Text of the library's files that need a patch, and the patches that do not fit, both by file."""
    made: dict[str, str] = {}
    refused: dict[str, Patch] = {}
    for patch in PATCHES:
        if any(patch.needed(unit) for unit in units):
            text = patch.apply((root / patch.file).read_text())
            if text is None:
                refused[patch.file] = patch
            else:
                made[patch.file] = text
    return made, refused


def _settled(
    unit: Unit, sources: Path, own_matrix: bool, patched: Mapping[str, str], refused: Mapping[str, Patch]
) -> Unit:
    """The unit with its origin."""
    needs = [patch for patch in PATCHES if patch.file in LIBRARIES.get(unit.kind, ())]
    missing = next((patch for patch in needs if patch.file in refused and patch.needed(unit)), None)
    if unit.kind == "MVAU" and (own_matrix or missing):
        asked = "our matrix unit was asked for"
        why = f"{missing.file} is not the file that the patch is for; without it: {missing.what}" if missing else asked
        return stand_in(unit, _read(sources / unit.name / WEIGHTS), why)
    if missing:
        raise RunError(f"FINN node {unit.name}: {missing.file} of this FINN needs a patch that does not fit")
    texts = [f"{patch.file}: {patch.what}" for patch in needs if patch.file in patched]
    return replace(unit, origin="patched", reason="; ".join(texts)) if texts else unit


def _generated(unit: Unit, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Verilog and memories of a node, with bare names of the memory files, each of which no other node has."""
    if not folder.is_dir():
        raise RunError(f"FINN node {unit.name}: no generated sources in {folder}")
    files, memories = {}, {}
    for path in sorted(folder.iterdir()):
        if path.suffix in VERILOG:
            text = path.read_text().replace(f"{SOURCES}/{unit.name}/{WEIGHTS}", _bare(unit, WEIGHTS))
            files[path.name] = text.replace(f"{SOURCES}/{unit.name}/", "")
            if "@SRQ_" in files[path.name]:
                raise RunError(f"{path}: names a file that is not the node's own")
        elif path.suffix in MEMORIES:
            memories[_bare(unit, path.name)] = path.read_text()
    if (
        unit.kind == "MVAU" and _bare(unit, WEIGHTS) not in memories
    ):  # a simulator reads zeros from a file that is not there
        raise RunError(f"{folder / WEIGHTS}: missing among the generated sources")
    return files, memories


def _bare(unit: Unit, name: str) -> str:
    return name if name.startswith(unit.name) else f"{unit.name}_{name}"


def _read(path: Path) -> str:
    if not path.is_file():
        raise RunError(f"{path}: missing among the generated sources")
    return path.read_text()


def _add(held: dict[str, str], more: Mapping[str, str]) -> None:
    twice = held.keys() & more.keys()
    if twice:
        raise RunError(f"two nodes of the FINN graph have a file {min(twice)}")
    held |= more


_INSTANTIATES = re.compile(r"^\s+(srq_\w+)\s*(?:#\(|\w+\s*\()", re.MULTILINE)


def our_modules(texts: Iterable[str]) -> tuple[Path, ...]:
    """Files of our library whose modules stand in Verilog texts, and what those need, sorted."""
    found: set[Path] = set()
    waiting = list(texts)
    while waiting:
        names = {name for name in _INSTANTIATES.findall(waiting.pop()) if not name.startswith("srq_error_")}
        new = {LIBRARY / f"{name}.v" for name in names} - found
        found |= new
        waiting += [path.read_text() for path in new]
    return tuple(sorted(found))
