"""`srq-hw evaluate`: PSNR and SSIM over a folder of high-resolution images, float and integer side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import unrounded_luma
from srq_hw.evaluate.datasets import Pair, make_pair
from srq_hw.evaluate.demo import demo_images
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.metrics import SSIM_WINDOW, least_side
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.graph.ir import IntGraph
from srq_hw.networks.loading import run_levels
from srq_hw.pipeline.options import BuildOptions, check_file_options
from srq_hw.pipeline.pictures import average, measure, render
from srq_hw.pipeline.session import Session
from srq_hw.quantize.freeze import freeze, quant_net
from srq_hw.simulate.fast import compile_graph

Progress = Callable[[int, int], None]
EIGHT_BIT = "float_8bit"


def evaluate_model(options: BuildOptions, data: Path | None, float_only: bool, progress: Progress) -> dict[str, Any]:
    """Rows per image and their mean. The integer figures are those of the IntGraph's fast simulator.

    Of a network that sees Y, published figures are those of an input that was never rounded: `float` is that, and
    `float_8bit` is the float network on the 8-bit image that the integer pipeline gets.
    InputError for an option that a QONNX file would leave without effect, and for images that cannot be scored.
    """
    session = Session(options)
    graph, quantized = None, None
    if options.is_file:
        check_file_options(options, None)
        if float_only:
            raise InputError(f"--float: {options.model} is quantized already and has no float network; leave it out")
        graph = lower(session.foreign, session.target, str(options.model))
    elif not float_only:
        found = session.quantize()
        graph = to_intgraph(freeze(found.plan, found.calibration, session.target))
        quantized = quant_net(found.plan, found.calibration, session.target)
    scale = graph.upscale if graph else session.network.scale
    network = None if options.is_file else session.network
    program = compile_graph(graph) if graph else None
    more = (EIGHT_BIT,) if network is not None and network.channels == 1 else ()
    rows = []
    total, pairs = _pairs(data, scale)
    for pair in pairs:
        versions = render(pair.lr, scale, network, quantized, program)
        if network is not None and network.channels == 1:
            versions[EIGHT_BIT] = versions["float"]
            versions["float"] = run_levels(network, unrounded_luma(pair.hr, scale))
        rows.append({"name": pair.name, **measure(versions, pair.hr, scale)})
        progress(len(rows), total)
    name = str(data) if data else "built-in"
    mean = {key: value for key, value in average(name, rows, more).items() if key not in ("set", "images")}
    return {
        "network": _name(session, graph),
        "scale": scale,
        "data": name,
        "target": session.target.name,
        "images": rows,
        "mean": mean,
    }


def _name(session: Session, graph: IntGraph | None) -> str:
    return graph.name if graph is not None else session.network.name


def _pairs(data: Path | None, scale: int) -> tuple[int, Iterator[Pair]]:
    if data is None:
        images = demo_images()
        return len(images), (make_pair(item.name, item.rgb, scale) for item in images)
    paths = list_images(data)
    return len(paths), (_pair(path, scale) for path in paths)


def _pair(path: Path, scale: int) -> Pair:
    """A user's image with its low-resolution version; InputError where too little is left for SSIM's window."""
    image = read_rgb(path)
    wanted = least_side(scale)
    if min(image.shape[:2]) < wanted:
        raise InputError(
            f"{path}: {image.shape[1]}x{image.shape[0]} pixels; at least {wanted}x{wanted} are needed to score "
            f"x{scale} ({scale} pixels are cut off each side, and SSIM looks at {SSIM_WINDOW}x{SSIM_WINDOW}); "
            "use a larger image"
        )
    return make_pair(path.stem, image, scale)
