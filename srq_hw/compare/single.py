"""`srq-hw evaluate`: PSNR and SSIM over a folder of high-resolution images, float and integer side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from srq_hw.compare.files import first_problem, read_layers
from srq_hw.compare.measure import NOTHING, figures, file_text, layer_widths, prove, prove_file, quantized_text
from srq_hw.compare.table import DIGITS, FILE_METHOD, cell_means, float_means, full_rows, mean, to_csv, to_markdown
from srq_hw.errors import InputError
from srq_hw.evaluate.colour import unrounded_luma
from srq_hw.evaluate.datasets import Pair, make_pair
from srq_hw.evaluate.demo import demo_images
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.metrics import SSIM_WINDOW, least_side
from srq_hw.exchange.direct import to_intgraph
from srq_hw.files import write_json, write_text
from srq_hw.graph.ir import IntGraph
from srq_hw.networks.loading import FloatNetwork, run_levels
from srq_hw.pipeline.notes import session_notes, session_warnings
from srq_hw.pipeline.options import BuildOptions, check_file_options, prepare_folder
from srq_hw.pipeline.pictures import render
from srq_hw.pipeline.session import Session, image_channels, lower_image_network
from srq_hw.pipeline.stored import check_quantized_options
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.fallbacks import zero_points_missing
from srq_hw.quantize.freeze import freeze, quant_net
from srq_hw.simulate.fast import compile_graph

Progress = Callable[[int, int], None]
Warn = Callable[[str], None]
EIGHT_BIT = "float_8bit"
BUILT_IN = "built-in"
#: what a mean is given of, null where there is none
VERSIONS = ("bicubic", "float", "quantized", "integer")


@dataclass(frozen=True, eq=False)
class _Program:
    """What is scored besides the float network. about: the row's head (method, widths, seconds, layers, parity)."""

    graph: IntGraph
    quantized: QuantNet | None
    about: dict[str, Any]


def evaluate_model(
    options: BuildOptions,
    data: Path | None,
    float_only: bool,
    progress: Progress,
    warn: Warn = lambda text: None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Rows per image and their mean; the row of the table that `compare` makes, and what stands beside it.

    The integer figures are those of the IntGraph's fast simulator, equal on a crop to the reference simulator and to
    the frozen model. Of a network that sees Y, published figures are those of an input that was never rounded: `float`
    is that, and `float_8bit` is the float network on the 8-bit image that the integer pipeline gets, which the drop is
    against. out: folder for evaluate.json, .csv and .md; warn: told of what may spoil the figures.
    InputError for an option that a QONNX file would leave without effect, and for images that cannot be scored;
    RunError where two integers differ.
    """
    session = Session(options)
    if options.is_file:
        check_file_options(options, None)
        if float_only:
            raise InputError(f"--float: {options.model} is quantized already and has no float network; leave it out")
    if data is not None:
        list_images(data, "--data")
    network = None if options.is_file else session.network
    graph = None
    if options.is_file:
        graph = lower_image_network(session.foreign, session.target, str(options.model))
    scale = graph.upscale if graph else session.network.scale
    warnings, notes = ([], []) if float_only else _beforehand(session, data, scale)
    if out is not None:
        prepare_folder(out, state="")
    for text in (*warnings, *notes):
        warn(text)
    if float_only:
        program = None
    else:
        program = _quantized(session) if graph is None else _file(session, graph)
        notes += _legal_notes(program.graph, session, warn)
    rows, scores = _score(data, scale, network, program, progress)
    name = str(data) if data else BUILT_IN
    result = _result(session, network, program, name, rows, scores, scale)
    result |= {"warnings": warnings, "notes": notes}
    table = _table(session, result, data, scores)
    result["rows"] = full_rows(table)
    if out is not None:
        write_json(out / "evaluate.json", result)
        write_text(out / "evaluate.csv", to_csv(table))
        write_text(out / "evaluate.md", to_markdown(table, "evaluate"))
    return result


# --- before -------------------------------------------------------------------------------------------------------


def _beforehand(session: Session, data: Path | None, scale: int) -> tuple[list[str], list[str]]:
    """Warnings and notes about images and recipe; what the user gave is read once before anything long begins."""
    if session.options.is_file:
        return [], []
    if session.options.quantized is None:
        _ = session.recipe
    else:
        check_quantized_options(session.options, session.plan, session.target)
    _ = session.plan
    if data is None:
        tests: Iterator[tuple[str, Any]] = ((item.name, item.rgb) for item in session.test_images)
    else:
        tests = ((path.stem, read_rgb(path)) for path in list_images(data, "--data"))
    return session_warnings(session, tests, scale), session_notes(session)


def _legal_notes(graph: IntGraph, session: Session, warn: Warn) -> list[str]:
    """The figures of a program that the target cannot run stand, and say so."""
    problem = first_problem(graph, session.target)
    if problem is None:
        return []
    made = graph.metadata.get("target") if session.options.is_file else None
    hint = f"; it was exported for target {made}" if made not in (None, session.target.name) else ""
    text = f"the integer program is not legal on target {session.target.name}: {problem}{hint}"
    warn(text)
    return [text]


# --- programs -----------------------------------------------------------------------------------------------------


def _quantized(session: Session) -> _Program:
    """Quantized by the recipe, or as --quantized has it, and proven on the middle of an image."""
    options, target = session.options, session.target
    _ = session.normal, session.calibration_pictures  # what is read is not what is timed
    started = time.perf_counter()
    found = session.quantize()
    seconds = round(time.perf_counter() - started, 2)
    frozen = freeze(found.plan, found.calibration, target)
    graph = to_intgraph(frozen)
    stored = options.quantized
    recipe = session.recipe if stored is None else None
    about = {
        "method": session.recipe.name if stored is None else stored.resolve().name,
        "weight_bits": found.plan.weight_bits,
        "act_bits": found.plan.act_bits,
        "quantized": quantized_text(found.plan, zero_points_missing(recipe, target)),
        "calibration_seconds": seconds if recipe else None,
        "layers": layer_widths(found.plan),
        "parity": prove(found, frozen, graph, target, session.calibration_images[0]),
    }
    return _Program(graph, quant_net(found.plan, found.calibration, target), about)


def _file(session: Session, graph: IntGraph) -> _Program:
    layers, widths = read_layers(graph, session.foreign)
    about = {
        "method": FILE_METHOD,
        "weight_bits": widths.weights,
        "act_bits": widths.activations,
        "quantized": file_text(graph, layers, widths),
        "calibration_seconds": None,
        "layers": list(layers),
        "parity": prove_file(graph),
    }
    return _Program(graph, None, about)


# --- images -------------------------------------------------------------------------------------------------------


def _score(
    data: Path | None, scale: int, network: FloatNetwork | None, program: _Program | None, progress: Progress
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Per image the rounded row for people, and {version: {psnr, ssim}} as it is."""
    compiled = compile_graph(program.graph) if program else None
    quantized = program.quantized if program else None
    rows, scores = [], []
    total, pairs = _pairs(data, scale)
    for pair in pairs:
        versions = render(pair.lr, scale, network, quantized, compiled)
        if network is not None and network.channels == 1:
            versions[EIGHT_BIT] = versions["float"]
            versions["float"] = run_levels(network, unrounded_luma(pair.hr, scale))
        found = {version: figures(image, pair.hr, scale) for version, image in versions.items()}
        rows.append({"name": pair.name, **_rounded(found)})
        scores.append({"name": pair.name, **found})
        progress(len(rows), total)
    return rows, scores


def _rounded(found: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    """psnr_* and ssim_* of every version."""
    row = {}
    for version, pair in found.items():
        for kind, digits in DIGITS.items():
            value = pair[kind]
            row[f"{kind}_{version}"] = None if value is None else round(value, digits)
    return row


def _pairs(data: Path | None, scale: int) -> tuple[int, Iterator[Pair]]:
    if data is None:
        images = demo_images()
        return len(images), (make_pair(item.name, item.rgb, scale) for item in images)
    paths = list_images(data, "--data")
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


# --- result -------------------------------------------------------------------------------------------------------


def _floats(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As `compare` records them: bicubic, float, float_8bit of every image."""
    rows = [{"float": NOTHING} | row for row in scores]
    return [{EIGHT_BIT: row["float"]} | row for row in rows]


def _result(
    session: Session,
    network: FloatNetwork | None,
    program: _Program | None,
    name: str,
    rows: list[dict[str, Any]],
    scores: list[dict[str, Any]],
    scale: int,
) -> dict[str, Any]:
    more = (EIGHT_BIT,) if network is not None and network.channels == 1 else ()
    means: dict[str, Any] = {
        f"{kind}_{version}": mean([row.get(version, NOTHING) for row in scores], kind, digits)
        for kind, digits in DIGITS.items()
        for version in (*VERSIONS, *more)
    }
    if program is not None:
        drop = cell_means([row["integer"] for row in scores], _floats(scores))
        means |= {key: drop[key] for key in ("drop_psnr", "drop_ssim")}
    if network is not None:
        head = {"network": network.name, "channels": network.channels}
    else:
        assert program is not None
        head = {"network": program.graph.name, "channels": image_channels(program.graph)}
    nothing = dict.fromkeys(("weight_bits", "act_bits", "quantized", "calibration_seconds", "layers", "parity"))
    return (
        head
        | {
            "scale": scale,
            "data": name,
            "target": session.target.name,
            "images": rows,
            "mean": means,
        }
        | (program.about if program is not None else {"method": "float"} | nothing)
    )


def _table(session: Session, result: dict[str, Any], data: Path | None, scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The result in the shape that the tables of `compare` are made of: one network, one set, one cell or none."""
    name = (data.name or data.resolve().name) if data else BUILT_IN
    floats = _floats(scores)
    network = {key: result[key] for key in ("scale", "channels")}
    network |= {"name": result["network"], "sets": {name: float_means(floats)}, "figures": {}, "error": None}
    cells = []
    if result["layers"] is not None:
        kept = ("method", "weight_bits", "act_bits", "quantized", "calibration_seconds", "parity", "network")
        means = cell_means([row["integer"] for row in scores], floats)
        cells.append({key: result[key] for key in kept} | {"error": None, "sets": {name: means}})
    folder = session.options.calib_images
    calibration = None
    if result["calibration_seconds"] is not None:
        images = len(session.calibration_pictures)
        calibration = {"folder": folder.name if folder else BUILT_IN, "images": images, "low": True}
    return {
        "target": {"name": result["target"]},
        "calibration": calibration,
        "sets": [{"name": name, "images": len(scores)}],
        "networks": [network],
        "cells": cells,
        "warnings": result["warnings"],
        "notes": result["notes"],
    }
