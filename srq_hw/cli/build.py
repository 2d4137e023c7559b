"""build, check, simulate: from a network to files for hardware."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from srq_hw.cli.console import console, interruptible, see_own_modules, warn
from srq_hw.cli.options import (
    BitsOption,
    CalibImagesOption,
    EdgesOption,
    JsonOption,
    ModelArgument,
    QuantizedOption,
    RecipeOption,
    SumsOption,
    TailOption,
    TargetOption,
    WeightsOption,
)
from srq_hw.pipeline.options import DEFAULT_SIZE, BuildOptions, parse_size


def build(
    model: ModelArgument = None,
    target: TargetOption = "zcu104",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Build folder; the same command again resumes there.")
    ] = Path("build/srq"),
    weights: WeightsOption = None,
    bits: BitsOption = None,
    weight_bits: Annotated[
        int | None, typer.Option("--weight-bits", help="Bits of the weights, instead of --bits.")
    ] = None,
    act_bits: Annotated[
        int | None, typer.Option("--act-bits", help="Bits of the activations, instead of --bits.")
    ] = None,
    edges: EdgesOption = None,
    tail: TailOption = None,
    sums: SumsOption = None,
    calib: RecipeOption = None,
    calib_images: CalibImagesOption = None,
    quantized: QuantizedOption = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            metavar="HxW",
            help="Size of the images the hardware is built for, low resolution.",
            show_default="x".join(map(str, DEFAULT_SIZE)),
        ),
    ] = None,
    fps: Annotated[float | None, typer.Option("--fps", help="Frames per second wanted; none: what fits well.")] = None,
    fixed_weights: Annotated[
        bool,
        typer.Option(
            "--fixed-weights",
            help="Verilog with all weights in the bitstream: none in UltraRAM, which a host would have to write.",
        ),
    ] = False,
    rtl_sim: Annotated[
        bool | None,
        typer.Option(
            "--rtl-sim/--no-rtl-sim",
            help="Simulate the generated Verilog against the reference; default: where Verilator is found.",
        ),
    ] = None,
    synth: Annotated[
        bool, typer.Option("--synth", help="Synthesise the Verilog with Yosys (minutes): figures for the report.")
    ] = False,
    library: Annotated[
        str,
        typer.Option(
            "--library",
            metavar="finn|srq",
            help="Units of the FINN design: finn, its own where they are exact RTL, else ours; srq, all ours.",
        ),
    ] = "finn",
    finn_sim: Annotated[
        bool,
        typer.Option(
            "--finn-sim",
            help="Simulate the sources that FINN generates against the reference (minutes for large designs).",
        ),
    ] = False,
    stop_after: Annotated[
        str | None,
        typer.Option(
            "--stop-after",
            metavar="STEP",
            help="Stop after this step: calibrate, export, lower, check, ... (log.txt names all).",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Quantize a network, prove its integer form bit for bit, and build it for a target."""
    from srq_hw.pipeline.run import run_build, summary
    from srq_hw.progress import BuildProgress
    from srq_hw.show import print_report

    see_own_modules(model)
    options = BuildOptions(
        target=target,
        out=out,
        model=model,
        weights=weights,
        weight_bits=weight_bits if weight_bits is not None else bits,
        act_bits=act_bits if act_bits is not None else bits,
        recipe=calib,
        calib_images=calib_images,
        input_size=None if input_size is None else parse_size(input_size),
        fps=fps,
        stop_after=stop_after,
        quantized=quantized,
        edges=edges,
        tail=tail,
        sums=sums,
        fixed_weights=fixed_weights,
        rtl_sim=rtl_sim,
        synth=synth,
        library=library,
        finn_sim=finn_sim,
    )
    with interruptible(), BuildProgress() as watcher:
        report = run_build(options, watcher, warn)
    if report is None:
        if as_json:
            typer.echo(json.dumps({"stopped_after": stop_after, "out": str(out)}))
        return
    if as_json:
        typer.echo(summary(report))
    else:
        print_report(report, out, console())
    if not report["ok"]:
        raise typer.Exit(1)


def check(
    model: Annotated[str, typer.Argument(help="A .qonnx/.onnx file, a graph.json, or a build folder.")],
    target: TargetOption = "zcu104",
    as_json: JsonOption = False,
) -> None:
    """Is the integer graph legal on the target, and does every accumulator fit? Node by node."""
    from srq_hw.graph.check import prove_accumulators
    from srq_hw.graph.legality import legality
    from srq_hw.show import print_check, read_graph
    from srq_hw.target import load_target

    goal = load_target(target)
    graph = read_graph(model, goal)
    proofs, problems = prove_accumulators(graph, goal), legality(graph, goal)
    if as_json:
        rows = [{**vars(proof), "holds": proof.holds} for proof in proofs]
        typer.echo(json.dumps({"legal": not problems, "diagnostics": [str(p) for p in problems], "accumulators": rows}))
    else:
        print_check(graph, goal, proofs, problems, console())
    if problems:
        raise typer.Exit(1)


def simulate(
    model: Annotated[str, typer.Argument(help="A .qonnx/.onnx file, a graph.json, or a build folder.")],
    image: Annotated[Path, typer.Argument(help="Low-resolution image.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")],
    target: TargetOption = "zcu104",
    reference: Annotated[bool, typer.Option("--reference", help="Use the slow int64 reference simulator.")] = False,
    tile: Annotated[
        int | None, typer.Option("--tile", min=1, help="Tile side in pixels; none: chosen by memory.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run an image through the integer simulator, bit for bit what the hardware computes."""
    from srq_hw.progress import bar
    from srq_hw.show import simulate_image

    with interruptible(), bar("simulate"):
        row = simulate_image(model, image, out, target, reference, tile)
    typer.echo(
        json.dumps(row)
        if as_json
        else f"{out}: {row['width']}x{row['height']}, {row['seconds']:.2f} s, sha256 {row['sha256'][:16]}"
    )
