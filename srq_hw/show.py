"""What the commands print, and the small jobs behind `check` and `simulate`."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srq_hw.errors import InputError
from srq_hw.exchange.names import QONNX_SUFFIXES
from srq_hw.graph.check import AccumulatorProof, verify
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.legality import Diagnostic
from srq_hw.target import Target, load_target

MARKS = {"passed": "[green]passed[/]", "failed": "[bold red]FAILED[/]", "not run": "[yellow]not run[/]"}


def read_graph(source: str, target: Target) -> IntGraph:
    """The integer graph of a build folder, a graph.json or a QONNX file."""
    path = Path(source)
    if path.is_dir():
        if not (path / "graph.json").is_file():
            raise InputError(f"{path}: holds no graph.json; give a build folder, a graph.json or a .qonnx file")
        path = path / "graph.json"
    if path.suffix.lower() == ".json":
        graph = IntGraph.load(path)
        verify(graph)
        return graph
    if path.suffix.lower() in QONNX_SUFFIXES:
        from srq_hw.exchange.lower import load_qonnx, lower

        return lower(load_qonnx(path), target, str(path))
    raise InputError(
        f"{source}: neither a build folder nor a graph.json nor a .qonnx/.onnx file; `srq-hw build` makes all three"
    )


def print_report(report: dict[str, Any], out: Path, console: Console) -> None:
    """The verdict of a build: gates, quality, estimate, where to look."""
    network, quantization = report["network"], report["quantization"]
    console.print(
        f"[bold]{escape(network['name'])}[/] x{network['scale']} on [bold]{report['target']}[/], "
        f"W{quantization['weight_bits']}A{quantization['act_bits']}, recipe {escape(quantization['recipe'])}"
    )
    table = Table("gate", "", "", box=None, show_header=False)
    for gate in report["gates"]:
        table.add_row(gate["name"], MARKS[gate["status"]], escape(gate["detail"]))
    console.print(table)
    for row in report["quality"]:
        console.print(_quality_line(row), markup=False)
    estimate = report["estimate"]
    if estimate:
        fits = "[green]fits[/]" if estimate["fits"] else "[bold red]does not fit[/]"
        console.print(
            f"estimate: {estimate['fps']:.1f} frames/s at {estimate['clock_mhz']:g} MHz, "
            f"{estimate['lut']:,} LUT, {estimate['dsp']:,} DSP, {estimate['bram36']:g} BRAM36, "
            f"{estimate['uram']} URAM: {fits} {report['target']}"
        )
    console.print(f"{out / 'report.html'}   {out / 'report.json'}   {out / 'handoff'}", markup=False)


def _quality_line(row: dict[str, Any]) -> str:
    parts = [
        f"{which} {row[f'psnr_{which}']:.2f}"
        for which in ("bicubic", "float", "quantized", "integer")
        if row.get(f"psnr_{which}") is not None
    ]
    return f"PSNR-Y, {row['set']} ({row['images']} images): " + ", ".join(parts) + " dB"


def print_quality(result: dict[str, Any], console: Console) -> None:
    """One row per image and the mean; a PSNR of null is an image equal to the original."""
    keys = [
        key
        for key in ("bicubic", "float", "float_8bit", "quantized", "integer")
        if f"ssim_{key}" in result["images"][0]
    ]
    table = Table("image", *[f"{key} PSNR / SSIM" for key in keys], box=None)
    for row in [*result["images"], {"name": "mean", **result["mean"]}]:
        table.add_row(
            escape(row["name"]), *[f"{_decibels(row[f'psnr_{key}'])} / {row[f'ssim_{key}']:.4f}" for key in keys]
        )
    console.print(f"{result['network']} x{result['scale']} on {result['data']}", markup=False)
    console.print(table)


def _decibels(psnr: float | None) -> str:
    return "equal" if psnr is None else f"{psnr:.3f}"


def print_check(
    graph: IntGraph, target: Target, proofs: list[AccumulatorProof], problems: list[Diagnostic], console: Console
) -> None:
    """Every node with its type and, where it accumulates, its proof; then what the target refuses."""
    by_node = {proof.node: proof for proof in proofs}
    bad = {problem.node for problem in problems}
    table = Table("node", "op", "type", "reach", "bits", "legal", box=None)
    for node in graph.nodes:
        proof = by_node.get(node.name)
        reach = f"{proof.lo} .. {proof.hi}" if proof else ""
        bits = f"{proof.bits} of {proof.limit_bits}" if proof else ""
        legal = "[red]no[/]" if node.name in bad else "[green]yes[/]"
        table.add_row(escape(node.name), node.op, graph.tensors[node.output].dtype, reach, bits, legal)
    console.print(table)
    for problem in problems:
        console.print(str(problem), markup=False)
    verdict = "legal" if not problems else f"rules broken: {len(problems)}"
    console.print(f"{graph.name} on {target.name}: {verdict}, content {graph.content_sha256[:16]}", markup=False)


def simulate_image(model: str, image: Path, out: Path, target: str, slow: bool, tile: int | None) -> dict[str, Any]:
    """Run one image and write the PNG; the row that --json prints."""
    from srq_hw.evaluate.colour import network_view, picture_of
    from srq_hw.evaluate.images import read_rgb, write_png
    from srq_hw.simulate import fast, reference

    if out.suffix.lower() != ".png":
        raise InputError(f"--out {out}: a PNG is written; give a path that ends in .png")
    graph = read_graph(model, load_target(target))
    picture = read_rgb(image)
    pixels = network_view(picture, graph.tensors[graph.input].channels)
    started = time.perf_counter()
    if slow:
        result = reference.run(graph, pixels)[0]
    else:
        result = fast.compile_graph(graph).run(pixels, tile if tile is not None else "auto")[0]
    seconds = time.perf_counter() - started
    integers = np.ascontiguousarray(result.astype(np.uint8))
    write_png(out, picture_of(integers, picture))
    digest = hashlib.sha256(integers.tobytes()).hexdigest()
    return {
        "out": str(out),
        "height": integers.shape[0],
        "width": integers.shape[1],
        "seconds": round(seconds, 3),
        "sha256": digest,
    }
