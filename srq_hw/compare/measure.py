"""One piece of work of a comparison: quantize and prove a program, score it on a set, score the float network.

Each leaves a record (see `store`); the program itself lies beside its record as graph.json.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.compare.cells import Cell, NetworkEntry, float_key
from srq_hw.compare.files import first_problem, read_quantized_file
from srq_hw.compare.floats import run_tiled
from srq_hw.compare.options import Widths
from srq_hw.compare.sets import ImageSet, calibration_views, pairs
from srq_hw.compare.store import read_record, record_path, source_sha256, write_record
from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.colour import network_view, unrounded_luma
from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.evaluate.metrics import psnr_y, ssim_y
from srq_hw.evaluate.resize import downscale, upscale
from srq_hw.exchange.direct import to_intgraph
from srq_hw.graph.ir import IntGraph
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.normalform.normal import NormalNet
from srq_hw.normalform.trace import normalize
from srq_hw.parity import compare
from srq_hw.pipeline.session import centre, image_channels, macs_per_pixel
from srq_hw.proof import frozen_against_reference
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.fallbacks import NO_ZERO_POINTS, zero_points_missing
from srq_hw.quantize.freeze import Frozen, freeze, load_frozen, quant_net
from srq_hw.quantize.guide import added_work
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.simulate import reference
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target

Image = npt.NDArray[np.uint8]

#: no figures: what has no float network
NOTHING = {"psnr": None, "ssim": None}
#: multiply-accumulates and side in pixels of the crop on which a program is proven: seconds of the int64 reference
PARITY_MACS = 4e8
PARITY_SIDES = (12, 40)


@lru_cache(maxsize=2)
def network_of(entry: NetworkEntry) -> tuple[FloatNetwork, NormalNet]:
    """The float network of an entry and its normal form. RunError where the code is not that of the hashes."""
    if entry.source != source_sha256():
        raise RunError("srq-hw's own files changed while the comparison ran; run the same command again")
    net = load_network(entry.spec, entry.weights)
    return net, normalize(net)


# --- quantize -----------------------------------------------------------------------------------------------------


def graph_path(out: Path, key: str) -> Path:
    """The integer program that belongs to a record of programs/."""
    return record_path(out, "programs", key).with_suffix(".graph.json")


def make_program(cell: Cell, out: Path) -> None:
    """Quantize, check legality and accumulators, prove parity, write program and record. SrqError if one fails."""
    if cell.recipe is None or cell.calibration is None:
        _keep_file(cell, out)
        return
    _, normal = network_of(cell.network)
    images = calibration_views(cell.calibration, cell.network.scale, cell.network.channels)
    widths, target = cell.widths, cell.target
    started = time.perf_counter()
    quantized = quantize(normal, target, cell.recipe, images, widths.weights, widths.activations)
    seconds = time.perf_counter() - started
    frozen = freeze(quantized.plan, quantized.calibration, target)
    graph = to_intgraph(frozen)
    _require_legal(graph, target)
    record = {
        "calibration_seconds": round(seconds, 2),
        "threads": torch.get_num_threads(),
        "quantized": quantized_text(quantized.plan, zero_points_missing(cell.recipe, target)),
        "layers": layer_widths(quantized.plan),
        "ranges": kept_ranges(frozen, quantized.calibration),
        "equalized": bool(cell.recipe.equalize or cell.recipe.rotate),
        "graph_sha256": graph.content_sha256,
        "parity": prove(quantized, frozen, graph, target, images[0]),
    }
    _write_program(cell, out, graph, record)


def _write_program(cell: Cell, out: Path, graph: IntGraph, record: dict[str, Any]) -> None:
    path = graph_path(out, cell.program_key)
    path.parent.mkdir(parents=True, exist_ok=True)
    graph.save(path)
    write_record(out, "programs", cell.program_key, record)


def _keep_file(cell: Cell, out: Path) -> None:
    """The same of a QONNX file, whose integers are there: both simulators equal."""
    found = read_quantized_file(cell.network.spec, cell.target, cell.network.sha256)
    record = {
        "calibration_seconds": None,
        "threads": torch.get_num_threads(),
        "quantized": file_text(found.graph, found.layers, found.widths),
        "layers": list(found.layers),
        "ranges": [],
        "equalized": False,
        "graph_sha256": found.graph.content_sha256,
        "parity": prove_file(found.graph),
    }
    _write_program(cell, out, found.graph, record)


def _require_legal(graph: IntGraph, target: Target) -> None:
    problem = first_problem(graph, target)
    if problem is not None:
        raise RunError(f"check: not legal on {target.name}: {problem}")


def prove(quantized: Quantized, frozen: Frozen, graph: IntGraph, target: Target, image: Image) -> dict[str, Any]:
    """Frozen Brevitas model in float64 = reference simulator = fast simulator, on the middle of a calibration image.

    RunError with the first difference where they are not equal.
    """
    crop = _parity_crop(graph, image)
    model = load_frozen(quant_net(quantized.plan, quantized.calibration, target), frozen)
    right = reference.trace(graph, crop)
    model_side = frozen_against_reference(model, frozen, graph, crop, right)
    if not model_side.equal:
        raise RunError(f"parity: the frozen Brevitas model and the reference simulator differ: {model_side.first}")
    fast = compare({graph.output: compile_graph(graph).run(crop)}, right)
    if not fast.equal:
        raise RunError(f"parity: the fast and the reference simulator differ: {fast.first}")
    size = list(crop.shape[:2])
    return {"equal": True, "size": size, "tensors": model_side.tensors, "elements": model_side.elements}


def prove_file(graph: IntGraph) -> dict[str, Any]:
    """Fast simulator = reference simulator, every tensor that both name, on the middle of a built-in image.

    There is no Brevitas model of a file; `srq-hw build` runs the file itself in qonnx. RunError where they differ.
    """
    picture = downscale(demo_calibration_images()[0].rgb, graph.upscale)
    crop = _parity_crop(graph, network_view(picture, image_channels(graph)))
    right, program = reference.trace(graph, crop), compile_graph(graph)
    left = program.trace(crop)
    left = {name: left[name] for name in right if name in left}  # execution order
    found = compare({**left, graph.output: program.run(crop)}, right)
    if not found.equal:
        raise RunError(f"parity: the fast and the reference simulator differ: {found.first}")
    return {"equal": True, "size": list(crop.shape[:2]), "tensors": found.tensors, "elements": found.elements}


def _parity_crop(graph: IntGraph, image: Image) -> Image:
    """The middle of an image, as large as the int64 reference can afford."""
    least, most = PARITY_SIDES
    side = min(most, max(least, math.isqrt(int(PARITY_MACS / max(macs_per_pixel(graph), 1)))), *image.shape[:2])
    return centre(image, side, side)


def layer_widths(plan: QuantPlan) -> list[dict[str, Any]]:
    """Every convolution in order: bits of its weights and of what it reads."""
    return [
        {
            "name": layer.name,
            "weights": plan.weight_bits_of(layer.name),
            "input": plan.point_of(layer.inputs[0]).bits,
        }
        for layer in plan.layers
        if layer.op == "conv"
    ]


def quantized_text(plan: QuantPlan, no_zero_points: str | None = None) -> str:
    """In a few words which layers got which width: "11 of 13 conv W4A4, 2 W8A8; sums 16; image and output 8".

    no_zero_points: why the target has none although the recipe asks for them; said at the end.
    """
    rows = [(plan.bits.weights[name], plan.bits.activations[name]) for name in plan.bits.weights]
    parts = [_convolutions(rows, (plan.weight_bits, plan.act_bits))]
    if any(layer.op == "add" for layer in plan.layers):
        parts.append(f"sums {plan.bits.sums}")
    parts.append("image and output 8")
    guide = plan.net.guide
    if guide is not None:
        work = f"{100 * added_work(plan.net):.1f} % more multiply-adds"
        parts.append(f"{guide.channels} channels guide {len(guide.convs)} conv ({work})")
    return "; ".join([*parts, f"{NO_ZERO_POINTS} ({no_zero_points})"] if no_zero_points else parts)


def file_text(graph: IntGraph, layers: Sequence[dict[str, Any]], widths: Widths) -> str:
    """The same of a QONNX file; sums: the widest of their operands."""
    rows = [(row["weights"], row["input"]) for row in layers]
    parts = [_convolutions(rows, (widths.weights, widths.activations))]
    sums = [graph.tensors[name].bits for node in graph.nodes if node.op == "Add" for name in node.inputs]
    parts += [f"sums {max(sums)}"] if sums else []
    ends = [graph.tensors[name].bits for name in (graph.input, graph.output)]
    return "; ".join([*parts, "image and output 8" if ends == [8, 8] else f"image {ends[0]}, output {ends[1]}"])


def _convolutions(rows: Sequence[tuple[int, int]], asked: tuple[int, int]) -> str:
    """Widths of weights and input of every convolution; first those that were asked for."""
    other = sorted({row for row in rows if row != asked}, reverse=True)
    but = "".join(f", {rows.count(row)} W{row[0]}A{row[1]}" for row in other)
    return f"{rows.count(asked)} of {len(rows)} conv W{asked[0]}A{asked[1]}{but}"


def kept_ranges(frozen: Frozen, calibration: Calibration) -> list[dict[str, Any]]:
    """Per activation quantizer that calibration chose: what it keeps (real values of its integers), what was seen."""
    rows = []
    for name, quant in frozen.quants.items():
        seen = calibration.ranges.get(name)
        if quant.point.fixed or seen is None:
            continue
        lo, hi = quant.point.range
        kept = {"lower": lo * quant.scale, "upper": hi * quant.scale}
        about: dict[str, Any] = {
            "name": name,
            "layer": quant.point.tensor,
            "bits": quant.point.bits,
            "signed": quant.point.signed,
        }
        rows.append({**about, **kept, "data_min": seen.data_min, "data_max": seen.data_max})
    return rows


# --- score --------------------------------------------------------------------------------------------------------


def figures(image: Image, hr: Image, border: int) -> dict[str, float | None]:
    """PSNR on Y in dB (None: equal, so infinite) and SSIM on Y."""
    psnr = psnr_y(image, hr, border)
    return {"psnr": psnr if math.isfinite(psnr) else None, "ssim": ssim_y(image, hr, border)}


def score_program(cell: Cell, images: ImageSet, out: Path) -> None:
    """The integer program on a set: a row per image."""
    graph = IntGraph.load(graph_path(out, cell.program_key))
    program = compile_graph(graph)
    rows = []
    for pair in pairs(images, cell.network.scale):
        result = as_image(program.run(network_view(pair.lr, cell.network.channels))[0])
        rows.append({"name": pair.name, **figures(result, pair.hr, cell.network.scale)})
    write_record(out, "scores", cell.score_key(images), {"graph_sha256": graph.content_sha256, "images": rows})


def read_program(out: Path, cell: Cell) -> dict[str, Any] | None:
    """Record of a program that is there, else None."""
    found = read_record(out, "programs", cell.program_key)
    return found if graph_path(out, cell.program_key).is_file() else None


def read_scores(out: Path, cell: Cell, images: ImageSet) -> list[dict[str, Any]] | None:
    """The rows of `score_program`; None where there are none, or they are those of another program."""
    program, found = read_program(out, cell), read_record(out, "scores", cell.score_key(images))
    if program is None or found is None or found.get("graph_sha256") != program["graph_sha256"]:
        return None
    rows: list[dict[str, Any]] = found["images"]
    return rows


def read_floats(out: Path, entry: NetworkEntry, images: ImageSet) -> list[dict[str, Any]] | None:
    """The rows of `score_float`, or None."""
    found = read_record(out, "float", float_key(entry, images))
    return None if found is None else found["images"]


def as_image(result: npt.NDArray[np.integer]) -> Image:
    """The program's output, which is 8 bits wide, as uint8. RunError where it is not."""
    if result.min() < 0 or result.max() > 255:
        raise RunError(f"the program's output holds {result.min()}..{result.max()}; an image is 0..255")
    return np.ascontiguousarray(result.astype(np.uint8))


def score_float(entry: NetworkEntry, images: ImageSet, out: Path) -> None:
    """Bicubic and the float network on a set: a row per image.

    float: as published, of a network that sees Y from a Y that was never rounded; float_8bit: from the 8-bit Y that the
    integer program gets (the same as float where the network sees RGB). A QONNX file has neither.
    """
    if entry.is_file:
        bicubic = [figures(upscale(pair.lr, entry.scale), pair.hr, entry.scale) for pair in pairs(images, entry.scale)]
        only = [{"bicubic": row, "float_8bit": NOTHING, "float": NOTHING} for row in bicubic]
        named = [{"name": path.stem, **row} for path, row in zip(images.files, only, strict=True)]
        write_record(out, "float", float_key(entry, images), {"images": named})
        return
    try:
        net, normal = network_of(entry)
    except InputError:  # it cannot be quantized, its cells say why; its float figures stand
        net, normal = load_network(entry.spec, entry.weights), None
    rows = []
    for pair in pairs(images, entry.scale):
        found = {"bicubic": upscale(pair.lr, entry.scale)}
        found["float_8bit"] = run_tiled(net, normal, network_view(pair.lr, entry.channels))
        found["float"] = found["float_8bit"]
        if entry.channels == 1:
            found["float"] = run_tiled(net, normal, unrounded_luma(pair.hr, entry.scale))
        scores = {name: figures(image, pair.hr, entry.scale) for name, image in found.items()}
        rows.append({"name": pair.name, **scores})
    write_record(out, "float", float_key(entry, images), {"images": rows})
