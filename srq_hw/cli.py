"""The command line: parses, calls, prints.

Exit status 0: done, and every gate that ran held; 1: a gate or a run failed; 2: wrong usage or input.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from srq_hw import __version__
from srq_hw.errors import RunError, SrqError
from srq_hw.pipeline.options import DEFAULT_RECIPE, DEFAULT_SIZE, BuildOptions, parse_size

#: what typer exits with on Ctrl-C outside of a long job, without a word
INTERRUPTED = 130
#: columns of a table that goes into a file or a pipe
PIPED_WIDTH = 200

app = typer.Typer(
    name="srq-hw",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Float super-resolution networks to integer pipelines for FPGAs, proven equal bit for bit.",
)

ModelArgument = Annotated[
    str | None,
    typer.Argument(help="Network name, pkg.module:factory, or a .qonnx/.onnx file; none: the embedded network."),
]
TargetOption = Annotated[str, typer.Option("--target", "-t", help="Target name or a .yaml file of your own.")]
WeightsOption = Annotated[
    Path | None, typer.Option("--weights", help="Checkpoint of the network (.pth, .pt, .safetensors).")
]
BitsOption = Annotated[
    int | None, typer.Option("--bits", help="Bits of weights and activations alike; none: what the target prefers.")
]
RecipeOption = Annotated[
    str | None,
    typer.Option("--calib", help="Calibration recipe: a name or a .yaml file.", show_default=DEFAULT_RECIPE),
]
CalibImagesOption = Annotated[
    Path | None,
    typer.Option("--calib-images", help="Folder of low-resolution images.", show_default="built-in images"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]


def _see_own_modules(model: str | None) -> None:
    """Let pkg.module:factory name a module of the current folder, as `python -m` does."""
    if model is not None and ":" in model and "" not in sys.path:
        sys.path.insert(0, "")  # the empty entry is the current folder, wherever that is


def _out() -> Console:
    """Console on standard output; into a file or pipe, lines are long rather than broken."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"srq-hw {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
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
    calib: RecipeOption = None,
    calib_images: CalibImagesOption = None,
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

    _see_own_modules(model)
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
    )
    with _interruptible(), BuildProgress() as watcher:
        report = run_build(options, watcher)
    if report is None:
        if as_json:
            typer.echo(json.dumps({"stopped_after": stop_after, "out": str(out)}))
        return
    if as_json:
        typer.echo(summary(report))
    else:
        print_report(report, out, _out())
    if not report["ok"]:
        raise typer.Exit(1)


@app.command()
def targets(
    name: Annotated[str | None, typer.Argument(help="Target to show in full.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a target file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the targets, show one, or print the schema of a target file."""
    from srq_hw.target import json_schema, list_targets, load_target

    if schema:
        typer.echo(json.dumps(json_schema(), indent=1))
        return
    if name is not None:
        typer.echo(json.dumps(load_target(name).model_dump(by_alias=True), indent=1))
        return
    found = [load_target(item) for item in list_targets()]
    if as_json:
        typer.echo(json.dumps([item.model_dump(by_alias=True) for item in found]))
        return
    table = Table("name", "title", "part", "clock MHz", "LUT", "DSP", "BRAM36", "URAM", box=None)
    for item in found:
        r = item.resources
        table.add_row(
            item.name,
            item.title,
            r.part,
            f"{r.clock_mhz:g}",
            f"{r.lut:,}",
            f"{r.dsp.count:,}",
            str(r.bram36),
            str(r.uram),
        )
    _out().print(table)


@app.command()
def networks(as_json: JsonOption = False) -> None:
    """List the networks that srq-hw knows by name."""
    from srq_hw.networks.registry import NETWORKS

    rows = [
        {"name": n.name, "title": n.title, "scale": n.scale, "embedded": n.embedded, "origin": n.origin}
        for n in NETWORKS.values()
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "title", "scale", "weights", box=None)
    for row in rows:
        table.add_row(
            str(row["name"]),
            str(row["title"]),
            f"x{row['scale']}",
            "embedded" if row["embedded"] else str(row["origin"]),
        )
    _out().print(table)


@app.command()
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
        print_check(graph, goal, proofs, problems, _out())
    if problems:
        raise typer.Exit(1)


@app.command()
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

    with _interruptible(), bar("simulate"):
        row = simulate_image(model, image, out, target, reference, tile)
    typer.echo(
        json.dumps(row)
        if as_json
        else f"{out}: {row['width']}x{row['height']}, {row['seconds']:.2f} s, sha256 {row['sha256'][:16]}"
    )


@app.command()
def evaluate(
    model: ModelArgument = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of high-resolution images; none: built-in ones.")
    ] = None,
    weights: WeightsOption = None,
    target: TargetOption = "zcu104",
    bits: BitsOption = None,
    calib: RecipeOption = None,
    calib_images: CalibImagesOption = None,
    float_only: Annotated[bool, typer.Option("--float", help="Only the float network.")] = False,
    as_json: JsonOption = False,
) -> None:
    """PSNR and SSIM on Y of the float network and of the integer pipeline over a folder of images."""
    from srq_hw.pipeline.scoring import evaluate_model
    from srq_hw.progress import bar
    from srq_hw.show import print_quality

    _see_own_modules(model)
    options = BuildOptions(
        target=target,
        out=Path(),
        model=model,
        weights=weights,
        weight_bits=bits,
        act_bits=bits,
        recipe=calib,
        calib_images=calib_images,
    )
    with _interruptible(), bar("evaluate") as progress:
        result = evaluate_model(options, data, float_only, progress)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_quality(result, _out())


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Every tool srq-hw can use: version found, what is lost without it, how to get it."""
    from srq_hw.doctor import report

    rows = report()
    if as_json:
        typer.echo(
            json.dumps(
                [{**vars(row), "path": str(row.path) if row.path else None, "usable": row.usable} for row in rows]
            )
        )
        return
    table = Table("tool", "found", "needed", "without it", "how to get it", box=None)
    for row in rows:
        state = f"[green]{row.version}[/]" if row.usable else f"[yellow]{escape(row.problem)}[/]"
        remedy = ("", "") if row.usable else (escape(row.lost), escape(row.get))
        table.add_row(row.name, state, row.needed or "any", *remedy)
    _out().print(table)


def _fail(message: str, status: int) -> int:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold red]srq-hw:[/]", end=" ")
    console.print(message, markup=False)
    return status


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `srq-hw` program; ends the process with the exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open as long as the process)
    try:
        app(arguments, prog_name="srq-hw")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            return _fail("interrupted", 1)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except SrqError as error:
        return _fail(str(error), error.exit_code)
    except MemoryError:
        return _fail("not enough memory; use a smaller image or --input-size", 1)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C ends a long command with a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command resumes where it stopped") from None
