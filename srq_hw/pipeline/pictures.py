"""The quality step: float, fake-quantized and integer images of the built-in test pictures, with PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from srq_hw.evaluate.colour import network_view, picture_of
from srq_hw.evaluate.datasets import Pair
from srq_hw.evaluate.images import write_png
from srq_hw.evaluate.metrics import psnr_y, ssim_y
from srq_hw.evaluate.resize import upscale
from srq_hw.files import write_json
from srq_hw.networks.loading import FloatNetwork, run_float
from srq_hw.pipeline.engine import RESULTS, Step
from srq_hw.pipeline.session import Session, image_channels
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.store import FILES as QUANTIZED
from srq_hw.simulate.fast import FastProgram, compile_graph

Image = npt.NDArray[np.uint8]
QUALITY_RESULT = f"{RESULTS}/quality.json"
#: the difference picture shows |float - integer| times this
DIFFERENCE_GAIN = 32


def quality_step(session: Session, progress: Callable[[int, int], None]) -> Step:
    """Runs every built-in test picture whole; writes images/ and results/quality.json."""

    def run(scratch: Path) -> None:
        program = compile_graph(session.graph)
        quantized = None if session.options.is_file else session.quant_net()
        network = None if session.options.is_file else session.network
        rows = []
        for index, pair in enumerate(session.pairs):
            versions = render(pair.lr, session.graph.upscale, network, quantized, program)
            rows.append(_row(scratch / "images", pair, versions, session.graph.upscale))
            progress(index + 1, len(session.pairs))
        write_json(scratch / QUALITY_RESULT, {"images": rows, "sets": [average("built-in", rows)]})

    def material() -> Any:
        return {"network": session.source_sha256, "target": session.target.sha256, "images": session.pairs_sha256}

    needs = ("graph.json",) if session.options.is_file else ("graph.json", *QUANTIZED)
    return Step("quality", material, needs, ("images", QUALITY_RESULT), run)


def render(
    lr: Image, scale: int, network: FloatNetwork | None, quantized: QuantNet | None, program: FastProgram | None
) -> dict[str, Image]:
    """A low-resolution RGB picture (h, w, 3) enlarged by bicubic and by whatever else there is.

    Bicubic is uint8 (H, W, 3), the others uint8 (H, W, channels of the network).
    """
    found = {"bicubic": upscale(lr, scale)}
    if network is not None:
        found["float"] = run_float(network, network_view(lr, network.channels))
    if quantized is not None:
        found["quantized"] = run_quantized(quantized, network_view(lr, quantized.plan.net.channels))
    if program is not None:
        found["integer"] = to_uint8(program.run(network_view(lr, image_channels(program.plan.graph)))[0])
    return found


def run_quantized(net: QuantNet, image: Image) -> Image:
    """The unfrozen Brevitas model in float32: fake quantization as training sees it. uint8 (H, W, channels)."""
    with torch.inference_mode():
        out = net(torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None])
    return to_uint8(np.rint(out[0].permute(1, 2, 0).numpy()))


def to_uint8(values: npt.NDArray[Any]) -> Image:
    """Grey levels as uint8, cut at 0 and 255."""
    return np.ascontiguousarray(np.clip(values, 0, 255).astype(np.uint8))


def measure(versions: dict[str, Image], hr: Image, border: int) -> dict[str, float | None]:
    """psnr_* and ssim_* on Y of every version against the original; psnr None where the two are equal (infinite)."""
    found: dict[str, float | None] = {}
    for name, image in versions.items():
        psnr = psnr_y(image, hr, border)
        found[f"psnr_{name}"] = round(psnr, 4) if isfinite(psnr) else None
        found[f"ssim_{name}"] = round(ssim_y(image, hr, border), 5)
    return found


def average(name: str, rows: list[dict[str, Any]], more: tuple[str, ...] = ()) -> dict[str, Any]:
    """One line of the quality table, null where a version does not exist; `more` are versions besides the four."""
    versions = ("bicubic", "float", "quantized", "integer", *more)
    keys = [f"{kind}_{which}" for kind in ("psnr", "ssim") for which in versions]
    means = {key: _mean([row[key] for row in rows if row.get(key) is not None]) for key in keys}
    return {"set": name, "images": len(rows), **means}


def _mean(values: list[float]) -> float | None:
    return round(float(np.mean(values)), 4) if values else None


def _row(folder: Path, pair: Pair, versions: dict[str, Image], border: int) -> dict[str, Any]:
    """Write the pictures of one test image and return its report row."""
    folder.mkdir(exist_ok=True)
    shown = {"input": pair.lr, "hr": pair.hr, **versions}
    if "float" in versions:
        difference = np.abs(versions["float"].astype(int) - versions["integer"].astype(int)) * DIFFERENCE_GAIN
        shown["difference"] = np.broadcast_to(to_uint8(difference), pair.hr.shape)
    files = {}
    for kind, image in shown.items():
        write_png(folder / f"{pair.name}_{kind}.png", picture_of(image, pair.lr))
        files[kind] = f"images/{pair.name}_{kind}.png"
    return {"name": pair.name, "size": list(pair.hr.shape[:2]), "files": files, **measure(versions, pair.hr, border)}
