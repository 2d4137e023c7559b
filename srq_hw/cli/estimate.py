"""estimate: does a network fit a board, before anything is built."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from srq_hw.cli.console import console, interruptible, see_own_modules
from srq_hw.cli.options import JsonOption, WeightsOption
from srq_hw.errors import InputError
from srq_hw.pipeline.options import DEFAULT_SIZE, check_fps, parse_size


def estimate(
    model: Annotated[
        str | None,
        typer.Argument(
            help="Network name, pkg.module:factory, a .qonnx/.onnx file, a graph.json or a build folder; none: the "
            "embedded network."
        ),
    ] = None,
    targets: Annotated[
        str | None,
        typer.Option(
            "--targets",
            "-t",
            help="Target names or .yaml files, divided by commas.",
            show_default="one for each device",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            "--size",
            metavar="HxW",
            help="Size of the frames, low resolution.",
            show_default="x".join(map(str, DEFAULT_SIZE)),
        ),
    ] = None,
    fps: Annotated[
        float | None, typer.Option("--fps", help="Frames per second wanted.", show_default="the highest that fits")
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", help="Bits of weights and activations alike; none: what each target prefers."),
    ] = None,
    weights: WeightsOption = None,
    library: Annotated[
        str | None,
        typer.Option(
            "--library",
            metavar="finn|srq",
            help="Units that are counted: finn, FINN's where they are exact RTL, else ours; srq, all ours.",
            show_default="finn for targets with a FINN design, else srq",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Boards side by side: does the network fit, how fast, what is short, which width or board would do.

    An estimate before synthesis, of FINN's units or of srq-hw's own streaming Verilog. Exit status 1 where a named
    board does not carry it.
    """
    from srq_hw.compare.options import parse_list
    from srq_hw.estimate.boards import boards, every_board
    from srq_hw.estimate.boards import estimate as estimate_boards
    from srq_hw.estimate.sources import open_source
    from srq_hw.estimate.table import print_rows
    from srq_hw.progress import bar

    check_fps(fps)
    wanted = None if size is None else parse_size(size, "--size")
    chosen = boards(every_board() if targets is None else parse_list(targets, "--targets"))
    see_own_modules(model)
    source = open_source(model, weights, bits)
    if wanted is not None and source.size not in (None, wanted):
        assert source.size is not None
        raise InputError(
            f"--size {size}: {source.name} is made for {source.size[0]}x{source.size[1]} (HxW); leave the option out"
        )
    frame = source.size or wanted or DEFAULT_SIZE
    with interruptible(), bar("estimate") as progress:
        rows = estimate_boards(source, chosen, frame, fps, bits, progress, library)
    if as_json:
        data = {"model": source.name, "size": list(frame), "boards": [row.as_json() for row in rows]}
        typer.echo(json.dumps(data | {"ok": all(row.fits for row in rows)}))
    else:
        print_rows(rows, source.name, frame, source.free, console())
    if targets is not None and not all(row.fits for row in rows):
        raise typer.Exit(1)
