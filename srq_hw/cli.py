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
EdgesOption = Annotated[
    int | None, typer.Option("--edges", help="Bits of the first and last convolutions; none: as the recipe says.")
]
SumsOption = Annotated[
    int | None, typer.Option("--sums", help="Bits of what sums and skips carry; none: as the recipe says.")
]
QuantizedOption = Annotated[
    Path | None,
    typer.Option("--quantized", help="Folder of a network that is quantized already (srq-hw qat); nothing calibrates."),
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
    edges: EdgesOption = None,
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
        quantized=quantized,
        edges=edges,
        sums=sums,
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
        typer.echo(json.dumps(load_target(name).model_dump(by_alias=True, exclude_none=True), indent=1))
        return
    found = [load_target(item) for item in list_targets()]
    if as_json:
        typer.echo(json.dumps([item.model_dump(by_alias=True, exclude_none=True) for item in found]))
        return
    table = Table("name", "title", "part", "clock MHz", "LUT", "DSP", "BRAM36", "URAM", box=None)
    for item in found:
        r = item.resources
        if r is None:
            table.add_row(item.name, item.title, *["–"] * 6)
            continue
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


networks_app = typer.Typer(help="List the networks that srq-hw knows by name, or fetch the weights of one.")
app.add_typer(networks_app, name="networks")


@networks_app.callback(invoke_without_command=True)
def networks(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the networks that srq-hw knows by name, or fetch the weights of one."""
    from srq_hw.networks.listing import network_rows

    if context.invoked_subcommand is not None:
        return
    rows = network_rows()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "title", "scale", "image", "weights", "origin", box=None)
    for row in rows:
        image = "RGB" if row["channels"] == 3 else "Y"
        cells = (row["name"], row["title"], f"x{row['scale']}", image, row["weights"], row["origin"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    _out().print(table)


@networks_app.command("fetch")
def networks_fetch(
    name: Annotated[str, typer.Argument(help="Network name.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to put the file in.", show_default="cache folder")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="Address, instead of the published one.")] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="First digits of the file's SHA-256, instead of the published ones.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download published weights, verify their digest, and keep them where NAME finds them without --weights."""
    from srq_hw.networks.fetch import fetch
    from srq_hw.progress import bar

    with _interruptible(), bar(f"fetch {name}") as progress:
        found = fetch(name, out, url, sha256, progress)
    if as_json:
        typer.echo(json.dumps({**vars(found), "path": str(found.path)}))
        return
    how = f"begins with {found.verified} as published" if found.verified else "no published digest to compare with"
    typer.echo(f"{found.path}: sha256 {found.sha256} ({how})")


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
    edges: EdgesOption = None,
    sums: SumsOption = None,
    calib: RecipeOption = None,
    calib_images: CalibImagesOption = None,
    quantized: QuantizedOption = None,
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
        quantized=quantized,
        edges=edges,
        sums=sums,
    )
    with _interruptible(), bar("evaluate") as progress:
        result = evaluate_model(options, data, float_only, progress)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_quality(result, _out())


@app.command()
def qat(
    network: Annotated[
        str | None, typer.Argument(help="Network name or pkg.module:factory; none: the embedded network.")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Folder of high-resolution training images; may be repeated.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the result; the same command again goes on there.")
    ] = Path("build/qat"),
    weights: WeightsOption = None,
    target: TargetOption = "int-generic",
    bits: BitsOption = None,
    weight_bits: Annotated[
        int | None, typer.Option("--weight-bits", help="Bits of the weights, instead of --bits.")
    ] = None,
    act_bits: Annotated[
        int | None, typer.Option("--act-bits", help="Bits of the activations, instead of --bits.")
    ] = None,
    init: Annotated[
        str, typer.Option("--init", help="Recipe of the post-training quantization to start from.")
    ] = "srq",
    edges: EdgesOption = None,
    sums: SumsOption = None,
    fqsr: Annotated[
        bool, typer.Option("--fqsr", help="Every layer and skip at --bits, first and last included.")
    ] = False,
    quantizer: Annotated[
        str, typer.Option("--quantizer", help="How activation steps are learned: lsq, pact, pams, linq.")
    ] = "lsq",
    val: Annotated[
        Path | None,
        typer.Option(
            "--val", help="Folder of high-resolution images to score every epoch on.", show_default="some of --data"
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs at most.")] = 20,
    iterations: Annotated[int, typer.Option("--iterations", help="Steps per epoch.")] = 200,
    batch: Annotated[int, typer.Option("--batch", help="Crops per step, over all processes.")] = 8,
    patch: Annotated[int, typer.Option("--patch", help="Side of a crop, low-resolution pixels.")] = 32,
    rate: Annotated[float, typer.Option("--rate", help="First learning rate, in weight steps; falls to 0.")] = 0.05,
    distill: Annotated[
        float, typer.Option("--distill", help="0 to 1: weight of L1 to the float network; the rest is to the original.")
    ] = 0.9,
    average: Annotated[
        float, typer.Option("--average", help="Decay of a moving average of the weights per step; 0: none.")
    ] = 0.99,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after so many epochs without a better score.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the crops.")] = 0,
    device: Annotated[str, typer.Option("--device", help="cpu, cuda, or auto.")] = "auto",
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on with a run in --out, or begin anew.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a quantized network on (quantization-aware training); `torchrun` starts it on several GPUs or machines."""
    from srq_hw.progress import bar
    from srq_hw.qat.options import QatOptions
    from srq_hw.qat.run import run_qat
    from srq_hw.qat.show import print_qat

    _see_own_modules(network)
    options = QatOptions(
        network=network,
        out=out,
        data=tuple(data or ()),
        weights=weights,
        target=target,
        weight_bits=weight_bits if weight_bits is not None else bits,
        act_bits=act_bits if act_bits is not None else bits,
        recipe=init,
        edges=edges,
        sums=sums,
        fqsr=fqsr,
        quantizer=quantizer,
        val=val,
        epochs=epochs,
        iterations=iterations,
        batch=batch,
        patch=patch,
        rate=rate,
        distill=distill,
        average=average,
        patience=patience,
        seed=seed,
        device=device,
        resume=resume,
    )
    with _interruptible(), bar("qat") as progress:
        found = run_qat(options, progress)
    if found is None:
        return  # another process of torchrun tells
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_qat(found, out, _out())


@app.command()
def compare(
    networks: Annotated[
        str,
        typer.Option("--networks", help="Names or pkg.module:factory, divided by commas; all: whatever has weights."),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of the image folders.")] = Path(),
    weights_dir: Annotated[
        Path | None, typer.Option("--weights-dir", help="Folder of checkpoints, found by the networks' names.")
    ] = None,
    methods: Annotated[
        str, typer.Option("--methods", help="Calibration recipes, names or .yaml files, divided by commas.")
    ] = "minmax,percentile,mse,dbdc,pac,srq",
    bits: Annotated[str, typer.Option("--bits", help="Widths divided by commas: 8, or w4a8.")] = "8,6,4",
    sets: Annotated[
        str, typer.Option("--sets", help="Folders of high-resolution images: names below --data, or paths.")
    ] = "Set5,Set14,BSD100",
    target: TargetOption = "int-generic",
    edges: Annotated[
        str | None,
        typer.Option(
            "--edges",
            metavar="BITS|none",
            help="Bits of first and last convolutions where --bits is below.",
            show_default="the recipe's, else 8",
        ),
    ] = None,
    sums: Annotated[
        str | None,
        typer.Option("--sums", metavar="BITS|none", help="Bits of sums and skips.", show_default="the recipe's"),
    ] = None,
    calib_images: Annotated[
        Path | None,
        typer.Option("--calib-images", help="Folder of calibration images.", show_default="General100 below --data"),
    ] = None,
    calib_low: Annotated[
        bool, typer.Option("--calib-low", help="The calibration images are low resolution already.")
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of results; the same command again resumes there.")
    ] = Path("build/compare"),
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", help="Worker processes.", show_default="one per core")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Only the first images of every set.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Networks x methods x bits on test sets: one table of PSNR, SSIM and loss, clipping figures, crops."""
    from srq_hw.compare.options import EDGES_MOST, SUMS_MOST, CompareOptions, parse_list, parse_policy, parse_widths
    from srq_hw.compare.run import run_compare
    from srq_hw.compare.table import print_result
    from srq_hw.progress import bar

    _see_own_modules(networks)
    options = CompareOptions(
        networks=parse_list(networks, "--networks"),
        methods=parse_list(methods, "--methods"),
        widths=parse_widths(bits),
        sets=parse_list(sets, "--sets"),
        data=data,
        out=out,
        weights_dir=weights_dir,
        target=target,
        edges=parse_policy(edges, "--edges", EDGES_MOST),
        sums=parse_policy(sums, "--sums", SUMS_MOST),
        calib_images=calib_images,
        calib_low=calib_low,
        jobs=jobs,
        limit=limit,
    )
    with _interruptible(), bar("compare") as progress:
        result = run_compare(options, progress, _warn)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_result(result, out, _out())
    if not result["ok"]:
        raise typer.Exit(1)


@app.command("search-bits")
def search_bits(
    budget: Annotated[
        str,
        typer.Option(
            "--budget", help="bits=4.5, bitops=0.3, dsp=500, bram=40, or bits=W4A4: what a uniform network costs."
        ),
    ],
    model: ModelArgument = None,
    target: TargetOption = "zcu104",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the results.")] = Path("build/search-bits"),
    weights: WeightsOption = None,
    calib: RecipeOption = None,
    calib_images: CalibImagesOption = None,
    test_images: Annotated[
        Path | None,
        typer.Option(
            "--test-images", help="Folder of low-resolution images to score on.", show_default="built-in images"
        ),
    ] = None,
    widths: Annotated[
        str, typer.Option("--widths", metavar="MIN-MAX", help="Narrowest and widest width that is tried.")
    ] = "2-8",
    rounds: Annotated[
        int, typer.Option("--rounds", min=0, max=20, help="Most rounds of refinement at the wanted budget.")
    ] = 3,
    patches: Annotated[
        int, typer.Option("--patches", min=1, help="Calibration patches on which sensitivities are measured.")
    ] = 8,
    front: Annotated[bool, typer.Option("--front/--no-front", help="Also work out other budgets: the front.")] = True,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size",
            metavar="HxW",
            help="For budgets dsp and bram: low-resolution image size.",
            show_default="x".join(map(str, DEFAULT_SIZE)),
        ),
    ] = None,
    fps: Annotated[
        float | None,
        typer.Option("--fps", min=0.001, help="For budgets dsp and bram: frames per second.", show_default="60"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Which layer gets how many bits under a budget: a search, its Pareto front, and a recipe for `build`."""
    from srq_hw.mixed.output import print_result
    from srq_hw.mixed.run import BitsOptions, run_search
    from srq_hw.progress import stages

    _see_own_modules(model)
    options = BitsOptions(
        build=BuildOptions(
            target=target,
            out=out,
            model=model,
            weights=weights,
            recipe=calib,
            calib_images=calib_images,
            input_size=None if input_size is None else parse_size(input_size),
            fps=fps,
        ),
        budget=budget,
        widths=widths,
        rounds=rounds,
        patches=patches,
        test_images=test_images,
        front=front,
    )
    with _interruptible(), stages("search-bits") as watch:
        data, result = run_search(options, watch)
    if as_json:
        typer.echo(json.dumps(data))
    else:
        print_result(data, result, out, _out())


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


def _warn(message: str) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print("[bold yellow]srq-hw: note:[/]", end=" ")
    console.print(message, markup=False)


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
