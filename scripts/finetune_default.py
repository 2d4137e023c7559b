"""Last stage of the default network's training: a short quantization-aware run, so that 8 bits cost little.

    .venv/bin/python scripts/finetune_default.py --threads 2

Starts from the weights of `train_default.py`'s checkpoint, runs the Brevitas network of srq-hw itself (zcu104, 8 bit, the
default recipe) with straight-through gradients, recalibrates as it goes, and leaves the average of the float weights as
a checkpoint beside the first one; `train_default.py export` then takes that.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from srq_hw.build.options import DEFAULT_RECIPE
from srq_hw.evaluate.datasets import Pair, iter_pairs
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.edsr import Edsr
from srq_hw.networks.loading import FloatNetwork
from srq_hw.quantize.calibrate import Calibration, calibrate
from srq_hw.quantize.freeze import freeze, quant_net
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.recipe import load_recipe
from srq_hw.quantize.trace import normalize
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import load_target

sys.path.insert(0, str(Path(__file__).resolve().parent))
from train_default import NAME, ROOT, SCALE, VALIDATION_SET, Recipe, draw_batch, read_training_pairs

TARGET = load_target("zcu104")
RECIPE = load_recipe(DEFAULT_RECIPE)


def plan_of(net: Edsr) -> QuantPlan:
    """The quantization plan of the float network as it stands."""
    return make_plan(normalize(FloatNetwork(NAME, net, SCALE, 1.0, "training", None)), TARGET)


def integer_psnr(plan: QuantPlan, calibration: Calibration, pairs: list[Pair]) -> float:
    """Mean Y-PSNR of the integer pipeline."""
    program = compile_graph(to_intgraph(freeze(plan, calibration, TARGET)))
    return float(np.mean([psnr_y(program.run(pair.lr)[0].astype(np.uint8), pair.hr, SCALE) for pair in pairs]))


def finetune(net: Edsr, data: Path, iterations: int, rate: float, period: int) -> Edsr:
    """Quantization-aware training of the float weights; returns their moving average. ``period``: between calibrations."""
    recipe = Recipe(iterations=iterations)
    training = read_training_pairs(data, recipe.patch)
    test = list(iter_pairs(data / VALIDATION_SET, SCALE))
    images = [pair.lr for pair in training[::6]]
    average = Edsr(features=24, blocks=4, scale=SCALE)
    average.load_state_dict(net.state_dict())
    adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    clock = time.monotonic()
    for iteration in range(iterations):
        if iteration % period == 0:
            plan = plan_of(net)
            quantized = quant_net(plan, calibrate(plan, TARGET, RECIPE, images), TARGET)
            folds = {
                name: fold_of(net, plan, name) for name in (layer.name for layer in plan.layers if layer.op == "conv")
            }
        for group in adam.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * iteration / iterations))
        low, high = draw_batch(training, recipe, iteration + 10_000_000)  # other patches than the float training saw
        with torch.no_grad():
            for name, (module, weight_factor, bias_factor) in folds.items():
                quantized.conv(name).weight.copy_(module.weight * weight_factor)
                quantized.conv(name).bias.copy_(module.bias * bias_factor)
        loss = nn.functional.l1_loss(quantized(low * 255.0) / 255.0, high)
        quantized.zero_grad()
        loss.backward()
        for name, (module, weight_factor, bias_factor) in folds.items():
            module.weight.grad = quantized.conv(name).weight.grad * weight_factor
            module.bias.grad = quantized.conv(name).bias.grad * bias_factor
        adam.step()
        with torch.no_grad():
            for kept, value in zip(average.parameters(), net.parameters(), strict=True):
                kept.lerp_(value, 1 - min(0.998, (1 + iteration) / (10 + iteration)))
        if (iteration + 1) % 500 == 0 or iteration + 1 == iterations:
            plan = plan_of(average)
            score = integer_psnr(plan, calibrate(plan, TARGET, RECIPE, images), test)
            print(
                iteration + 1, f"{loss.item():.5f} integer {score:.3f} dB {time.monotonic() - clock:.0f} s", flush=True
            )
    return average


def fold_of(net: Edsr, plan: QuantPlan, name: str) -> tuple[nn.Conv2d, float, float]:
    """The float convolution behind a layer of the plan, and by what its weights and bias were multiplied there."""
    module = next(item for key, item in net.named_modules() if key.replace(".", "_") == name)
    assert isinstance(module, nn.Conv2d) and module.bias is not None
    layer = plan.layer(name)
    assert layer.weight is not None and layer.bias is not None
    factors = [
        float(a.abs().sum() / b.detach().double().abs().sum())
        for a, b in ((layer.weight, module.weight), (layer.bias, module.bias))
    ]
    return module, factors[0], factors[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="as for train_default.py")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "train", help="checkpoint of train_default.py")
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=2e-4, help="first learning rate; falls to 0 along a cosine")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    state = torch.load(args.folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    net = Edsr(features=24, blocks=4, scale=SCALE)
    net.load_state_dict(state["ema"])
    tuned = finetune(net, args.data, args.iterations, args.rate, 250)
    torch.save({"iteration": state["iteration"], "ema": tuned.state_dict()}, args.folder / "finetuned.pt")


if __name__ == "__main__":
    main()
