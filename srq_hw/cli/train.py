"""qat: quantization-aware training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from srq_hw.cli.console import console, interruptible, see_own_modules, warn
from srq_hw.cli.options import (
    BitsOption,
    EdgesOption,
    JsonOption,
    SumsOption,
    TailOption,
    TargetOption,
    WeightsOption,
)


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
        str | None,
        typer.Option("--init", help="Recipe of the post-training quantization to start from.", show_default="srq"),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--start",
            help="Start from a network that is quantized already, widths included: the folder of an earlier qat, of "
            "its start, or of a build.",
            show_default="what --init makes",
        ),
    ] = None,
    edges: EdgesOption = None,
    tail: TailOption = None,
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
    rate: Annotated[
        float, typer.Option("--rate", help="First learning rate, parts of the largest weight; falls to 0.")
    ] = 0.005,
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

    see_own_modules(network)
    options = QatOptions(
        network=network,
        out=out,
        data=tuple(data or ()),
        weights=weights,
        target=target,
        weight_bits=weight_bits if weight_bits is not None else bits,
        act_bits=act_bits if act_bits is not None else bits,
        recipe=init,
        start=start,
        edges=edges,
        tail=tail,
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
    with interruptible(), bar("qat") as progress:
        found = run_qat(options, progress, warn)
    if found is None:
        return  # another process of torchrun tells
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_qat(found, out, console())
