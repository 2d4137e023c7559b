"""The embedded network at few bits: how far its integer output is from the float output.

``python -m tests.quantize.quality`` prints the table of docs/calibration.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch

from srq_hw.evaluate.demo import demo_calibration_images, demo_images
from srq_hw.evaluate.resize import downscale
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.loading import load_network
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.normalform.trace import normalize
from srq_hw.quantize.calibrate import Image, calibrate
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.recipe import Recipe, load_recipe
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import Target, load_target
from tests.quantize.nets import pow2_target


@cache
def embedded(pow2: bool = False, bits: int = 4) -> tuple[QuantPlan, Target]:
    """The default network, all layers at the same width, image and output 8."""
    aim = pow2_target() if pow2 else load_target("zcu104")
    return make_plan(normalize(load_network()), aim, bits, bits), aim


@cache
def calibration_images() -> tuple[Image, ...]:
    return tuple(downscale(item.rgb, 2) for item in demo_calibration_images())


@cache
def pictures() -> tuple[Image, ...]:
    """Parts of two pictures that are not calibrated on."""
    return tuple(downscale(item.rgb, 2)[32:160, 32:160] for item in demo_images())


def small(name: str, **sections: object) -> Recipe:
    """A packaged recipe on 16 patches, with other sections."""
    data = load_recipe(name).model_dump(by_alias=True, exclude_none=True) | {"schema": 1}
    return Recipe.model_validate(data | {"patches": {"count": 16, "size": 48, "seed": 0}} | sections)


def outputs_of(net: NormalNet) -> tuple[np.ndarray, ...]:
    """What a float network makes of the pictures: float32 grey levels (H, W, 3), 0 to 255."""
    found = []
    for picture in pictures():
        x = torch.from_numpy(picture.astype(np.float32)).permute(2, 0, 1)[None] * net.grey_level
        with torch.no_grad():
            output = evaluate(net, x)[0].permute(1, 2, 0).numpy() / net.grey_level
        found.append(np.clip(output, 0, 255))
    return tuple(found)


@cache
def float_outputs() -> tuple[np.ndarray, ...]:
    return outputs_of(embedded()[0].net)


def decibels(
    plan: QuantPlan, calibration: Calibration, aim: Target, wanted: Sequence[np.ndarray] | None = None
) -> float:
    """Mean PSNR of the integer outputs against the float network's, dB. wanted: another network's outputs."""
    program = compile_graph(to_intgraph(freeze(plan, calibration, aim)))
    errors = [
        np.square(program.run(picture)[0].astype(np.float64) - output).mean()
        for picture, output in zip(pictures(), float_outputs() if wanted is None else wanted, strict=True)
    ]
    return float(np.mean([10 * np.log10(255**2 / error) for error in errors]))


def recipe_decibels(recipe: Recipe, pow2: bool = False, bits: int = 4) -> float:
    """Calibrated by the recipe."""
    plan, aim = embedded(pow2, bits)
    return decibels(plan, calibrate(plan, aim, recipe, calibration_images()), aim)


def main() -> None:
    """One row per recipe: dB at 8, 6, 4 bits with a multiplier, then with shifts only."""
    rows = {name: load_recipe(name) for name in ("minmax", "moving-average", "percentile", "mse", "entropy")}
    rows |= {name: load_recipe(name) for name in ("dbdc", "dbdc-released")}
    merged = rows["dbdc"].activations.model_copy(update={"over": "merged"})
    rows["dbdc, over merged"] = rows["dbdc"].model_copy(update={"activations": merged})
    rows["psnr without its search"] = load_recipe("psnr").model_copy(update={"search": None})
    rows["psnr"] = load_recipe("psnr")
    for name, recipe in rows.items():
        row = [recipe_decibels(recipe, pow2, bits) for pow2 in (False, True) for bits in (8, 6, 4)]
        sys.stdout.write(f"| {name} | " + " | ".join(f"{value:.2f}" for value in row) + " |\n")


if __name__ == "__main__":
    main()
