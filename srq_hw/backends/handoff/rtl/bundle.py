"""Writes the hand-off bundle of a generated Verilog design. The same build gives the same bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from srq_hw import __version__
from srq_hw.backends.handoff.manifest import write_manifest
from srq_hw.backends.handoff.rtl.board import BOARD_FILES, family_of
from srq_hw.backends.handoff.rtl.layout import (
    DMA_LENGTH_BITS,
    checksum,
    describe,
    dma_problem,
    frames_hex,
    layout_of,
)
from srq_hw.backends.handoff.vectors import Stream
from srq_hw.backends.rtl.generate import WEIGHTS_FILE, RtlDesign
from srq_hw.errors import InputError
from srq_hw.graph.ir import Int, IntGraph
from srq_hw.simulate.reference import as_batch, run
from srq_hw.target import Resources, Target

HERE = Path(__file__).resolve().parent
INTERFACE = "interface.json"
BLOCK_DESIGN = "block_design.tcl"
#: stream of interface.json -> port of the wrapper
PORTS = {"input": "s_axis", "output": "m_axis", "weights": "w_axis"}
HOST = ("__init__.py", "sr_driver.py", "dma_model.py", "selftest.py")
#: template -> file of the bundle; {wrapper} is the name of the wrapper module
TEMPLATES = {
    "wrapper.v.jinja": "rtl/{wrapper}.v",
    "testbench.v.jinja": "sim/testbench.v",
    "ooc.xdc.jinja": "constraints/ooc.xdc",
    "common.tcl.jinja": "scripts/common.tcl",
    "synth_ooc.tcl.jinja": "scripts/synth_ooc.tcl",
    "package_ip.tcl.jinja": "scripts/package_ip.tcl",
    f"{BLOCK_DESIGN}.jinja": f"scripts/{BLOCK_DESIGN}",
    "README.md.jinja": "README.md",
}


def write_rtl_handoff(design: RtlDesign, graph: IntGraph, target: Target, images: Int, folder: Path) -> Path:
    """Write the bundle of a design to folder (replaced if it exists) and return its path.

    images: int64 (N, H, W, C) of the design's size; the golden vectors are what the reference simulator makes of them.
    InputError where graph, images or target do not fit the design.
    """
    if graph.content_sha256 != design.graph_sha256:
        raise InputError(f"hand-off bundle: {design.name} was generated from another graph than {graph.name}")
    if target.resources is None:
        raise InputError(f"hand-off bundle: target {target.name}: resources is missing; wanted: part and clock_mhz")
    batch = as_batch(graph, images)
    if batch.shape[1:3] != tuple(design.size):
        raise InputError(f"hand-off bundle: images of shape {images.shape}; the design is made for {design.size}")
    wanted = run(graph, batch)
    streams = {"input": layout_of(design.input), "output": layout_of(design.output)}
    frames = {"input": batch, "output": wanted}
    if design.weights:
        streams["weights"] = layout_of(design.weights)
        frames["weights"] = design.loads.reshape(1, 1, -1, 1)
    facts = _facts(design, graph, target, target.resources, streams) | {"golden_frames": len(batch)}

    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    design.write(beside)
    wrapper = facts["wrapper"]
    sources = [*(f"rtl/lib/{name}" for name in sorted(design.library)), f"rtl/{design.name}.v", f"rtl/{wrapper}.v"]
    _write(beside / "filelist.f", "".join(f"{name}\n" for name in sources))
    checks = {side: _golden(beside / "golden", side, frames[side], streams[side]) for side in frames}
    _write(beside / INTERFACE, json.dumps(facts, indent=1, sort_keys=True) + "\n")
    for name, text in _rendered(facts, design, target, checks).items():
        _write(beside / name, text)
    for name in HOST:
        _write(beside / "host" / name, (HERE / "host" / name).read_text())
    _write(beside / "verify.sh", (HERE / "verify.sh").read_text())
    (beside / "verify.sh").chmod(0o755)
    write_manifest(beside)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(beside, folder)
    return folder


def _facts(
    design: RtlDesign, graph: IntGraph, target: Target, resources: Resources, streams: dict[str, Stream]
) -> dict[str, Any]:
    """The content of interface.json; the templates read the same."""
    weights = streams.get("weights")
    return {
        "schema": 1,
        "srq_hw": __version__,
        "network": graph.name,
        "graph_sha256": design.graph_sha256,
        "target": target.name,
        "target_sha256": target.sha256,
        "part": resources.part,
        "board": resources.finn_board,
        "clock_mhz": resources.clock_mhz,
        "top": design.name,
        "wrapper": f"{design.name}_wrapper",
        "image_size": list(design.size),
        "streams": {side: describe(layout, PORTS[side]) for side, layout in streams.items()},
        **({"weights": _weights_facts(weights)} if weights else {}),
        "cycles_per_frame": design.cycles,
        "latency_cycles": design.latency,
        "fifos": dict(sorted(design.fifos.items())),
        # in the middle of the first frame's work, whatever stalls there are; it begins when the weights are there
        "verify_reset_at": 16 + len(design.loads) + design.latency + design.cycles // 2,
        "block_design": _no_block_design(resources.part, streams) or f"scripts/{BLOCK_DESIGN}",
    }


def _weights_facts(layout: Stream) -> dict[str, Any]:
    """What a host has to know of weights that are written at run time."""
    return {
        "file": WEIGHTS_FILE,
        "words": layout.beats_per_frame,
        "word_bits": layout.element_bits,
        "byte_order": "little",
        "when": "before the first frame, again after every reset, another set only while no frame is inside the design",
        "without": "frames wait on s_axis until the set is there",
        "tlast": "on the last word; a set cut short is filled with zeros, of one too long the rest is dropped, "
        "both set weights_error until reset",
    }


def _no_block_design(part: str, streams: dict[str, Stream]) -> str:
    """Why there is no block design; "" where there is one."""
    family = family_of(part)
    if family.ps is None:
        return f"none: {part} ({family.title}) has no Zynq processing system"
    units = {"weights": "a set of weights"}
    found = [dma_problem(layout, units.get(side, "a frame")) for side, layout in streams.items()]
    problems = [problem for problem in found if problem]
    return f"none: {'; '.join(problems)}" if problems else ""


def _rendered(facts: dict[str, Any], design: RtlDesign, target: Target, checks: dict[str, int]) -> dict[str, str]:
    """File name -> text of everything that comes from a template."""
    family = family_of(facts["part"])
    ps = family.ps
    clock = f"{facts['clock_mhz']:.6f}".rstrip("0").rstrip(".")
    settings = [(key, value.format(clock=clock)) for key, value in ps.settings] if ps else []
    more = {
        "s": facts["streams"]["input"],
        "m": facts["streams"]["output"],
        "w": facts["streams"].get("weights"),  # None: no weights are written at run time
        "s_check": f"{checks['input']:08x}",
        "m_check": f"{checks['output']:08x}",
        "w_check": f"{checks.get('weights', 0):08x}",
        "frames": facts["golden_frames"],
        # an idle stretch is at most what a frame needs, three times that under the stalls of verify.sh; while weights
        # are sent no stretch is idle, they are always taken
        "timeout": 10_000 + 8 * (design.cycles + design.latency),
        "period": f"{1000 / facts['clock_mhz']:.3f}",
        "clk_src": "BUFGCTRL_X0Y0",
        "memories": len(design.memories),
        "family": family,
        "ip_family": family.ip_name,
        "ps": ps and {**ps.__dict__, "settings": settings},
        "board_files": BOARD_FILES.get(facts["board"] or "", ""),
        "dma_length_bits": DMA_LENGTH_BITS,
        "title": target.title,
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["tcl"] = _tcl
    without = [] if facts["block_design"].startswith("scripts/") else [f"{BLOCK_DESIGN}.jinja"]
    return {
        name.format(wrapper=facts["wrapper"]): environment.get_template(template).render(facts | more)
        for template, name in TEMPLATES.items()
        if template not in without
    }


def _tcl(text: str) -> str:
    """A text as it stands between double quotes in Tcl."""
    return re.sub(r'([\\"$\[\]])', r"\\\1", " ".join(text.split()))


def _golden(folder: Path, side: str, frames: Int, layout: Stream) -> int:
    """Write the frames as stream beats and as array; the test bench's checksum of the beats."""
    text = frames_hex(frames, layout)
    _write(folder / f"{side}.hex", text)
    if side == "weights":  # as words they are weights.bin
        return checksum(text)
    width = next(bits for bits in (8, 16, 32, 64) if layout.element_bits <= bits)
    np.save(folder / f"{side}.npy", frames.astype(f"{'' if layout.signed else 'u'}int{width}"))
    return checksum(text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
