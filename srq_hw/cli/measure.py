"""evaluate, compare, search-bits: what quantization costs, and where bits pay."""

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


def evaluate(
    model: ModelArgument = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of high-resolution images; none: built-in ones.")
    ] = None,
    weights: WeightsOption = None,
    target: TargetOption = "zcu104",
    bits: BitsOption = None,
    edges: EdgesOption = None,
    tail: TailOption = None,
    sums: SumsOption = None,
    calib: RecipeOption = None,
    calib_images: CalibImagesOption = None,
    quantized: QuantizedOption = None,
    float_only: Annotated[bool, typer.Option("--float", help="Only the float network.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="Folder for evaluate.md, evaluate.csv and evaluate.json.",
            show_default="none is written",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """PSNR and SSIM on Y of the float network and of the integer pipeline over a folder of images."""
    from srq_hw.compare.single import evaluate_model
    from srq_hw.compare.table import print_row
    from srq_hw.progress import bar
    from srq_hw.show import print_quality

    see_own_modules(model)
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
        tail=tail,
        sums=sums,
    )
    with interruptible(), bar("evaluate") as progress:
        result = evaluate_model(options, data, float_only, progress, warn, out)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_quality(result, console())
        print_row(result, out, console())


def compare(
    networks: Annotated[
        str,
        typer.Option(
            "--networks",
            help="Names, pkg.module:factory or .qonnx files, divided by commas; all: whatever has weights.",
        ),
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
    tail: Annotated[
        str | None,
        typer.Option(
            "--tail",
            metavar="BITS|none",
            help="Bits of the convolutions from the upsampling on, where --bits is below.",
            show_default="the recipe's",
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

    see_own_modules(networks)
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
        tail=parse_policy(tail, "--tail", EDGES_MOST),
        sums=parse_policy(sums, "--sums", SUMS_MOST),
        calib_images=calib_images,
        calib_low=calib_low,
        jobs=jobs,
        limit=limit,
    )
    with interruptible(), bar("compare") as progress:
        result = run_compare(options, progress, warn)
    if as_json:
        typer.echo(json.dumps(result))
    else:
        print_result(result, out, console())
    if not result["ok"]:
        raise typer.Exit(1)


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
    from srq_hw.pipeline.notes import session_notes
    from srq_hw.pipeline.session import Session
    from srq_hw.progress import stages

    see_own_modules(model)
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
    for text in session_notes(Session(options.build)):
        warn(text)
    with interruptible(), stages("search-bits") as watch:
        data, result = run_search(options, watch)
    if as_json:
        typer.echo(json.dumps(data))
    else:
        print_result(data, result, out, console())
