"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from srq_hw.pipeline.options import DEFAULT_RECIPE

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
TailOption = Annotated[
    int | None,
    typer.Option("--tail", help="Bits of the convolutions from the upsampling on; none: as the recipe says."),
]
SumsOption = Annotated[
    int | None, typer.Option("--sums", help="Bits of what sums and skips carry; none: as the recipe says.")
]
QuantizedOption = Annotated[
    Path | None,
    typer.Option("--quantized", help="Folder of a network that is quantized already (srq-hw qat); nothing calibrates."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
