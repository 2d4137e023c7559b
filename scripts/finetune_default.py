"""Last stage of the default network's training: a short quantization-aware run, so that 8 bits cost little.

    .venv/bin/python scripts/finetune_default.py --threads 2

Starts from the weights of `train_default.py`'s checkpoint, runs the Brevitas network of srq-hw itself (zcu104, 8 bit,
the default recipe) with straight-through gradients, recalibrates as it goes, and writes the average of the float
weights into the package. Run `train_default.py export` before it (for the log) and `train_default.py report` after it.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srq_hw.evaluate.datasets import Pair, iter_pairs
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.exchange.direct import to_intgraph
from srq_hw.networks.edsr import Edsr
from srq_hw.networks.loading import FloatNetwork
from srq_hw.normalform.trace import normalize
from srq_hw.pipeline.options import DEFAULT_RECIPE
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.calibrate import calibrate
from srq_hw.quantize.calibration import Calibration
from srq_hw.quantize.freeze import freeze, quant_net
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.recipe import load_recipe
from srq_hw.simulate.fast import compile_graph
from srq_hw.target import load_target

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from scripts.train_default import (
    NAME,
    ROOT,
    SCALE,
    VALIDATION_SET,
    Recipe,
    draw_batch,
    read_training_pairs,
    update_average,
    write_weights,
)

TARGET = load_target("zcu104")
RECIPE = load_recipe(DEFAULT_RECIPE)


def plan_of(net: Edsr) -> QuantPlan:
    """The quantization plan of the float network as it stands."""
    return make_plan(normalize(FloatNetwork(NAME, net, SCALE, 1.0, "training", None)), TARGET)


def integer_psnr(plan: QuantPlan, calibration: Calibration, pairs: list[Pair]) -> float:
    """Mean Y-PSNR of the integer pipeline."""
    program = compile_graph(to_intgraph(freeze(plan, calibration, TARGET)))
    return float(np.mean([psnr_y(program.run(pair.lr)[0].astype(np.uint8), pair.hr, SCALE) for pair in pairs]))


@dataclass(frozen=True)
class Twin:
    """A float convolution and its quantized twin, whose weights and bias are the float ones times a constant each."""

    module: nn.Conv2d
    twin: nn.Conv2d
    factors: tuple[float, float]

    def push(self) -> None:
        """Float values into the quantized network."""
        with torch.no_grad():
            for mine, its, factor in self._parameters():
                its.copy_(mine * factor)

    def pull(self) -> None:
        """Gradients back from it."""
        for mine, its, factor in self._parameters():
            assert its.grad is not None
            mine.grad = its.grad * factor

    def _parameters(self) -> list[tuple[Tensor, Tensor, float]]:
        assert self.module.bias is not None and self.twin.bias is not None
        pairs = ((self.module.weight, self.twin.weight), (self.module.bias, self.twin.bias))
        return [(mine, its, factor) for (mine, its), factor in zip(pairs, self.factors, strict=True)]


def quantize(net: Edsr, images: list[NDArray[np.uint8]]) -> tuple[QuantNet, list[Twin]]:
    """The quantized network, calibrated anew, and its ties to the float one."""
    plan = plan_of(net)
    quantized = quant_net(plan, calibrate(plan, TARGET, RECIPE, images), TARGET)
    modules = {key.replace(".", "_"): item for key, item in net.named_modules() if isinstance(item, nn.Conv2d)}
    twins = []
    for layer in plan.layers:
        if layer.op == "conv":
            module = modules[layer.name]
            assert layer.weight is not None and layer.bias is not None and module.bias is not None
            factors = (ratio(layer.weight, module.weight), ratio(layer.bias, module.bias))
            twins.append(Twin(module, quantized.conv(layer.name), factors))
    return quantized, twins


def ratio(folded: Tensor, parameter: Tensor) -> float:
    """By what folding multiplied a parameter."""
    return float(folded.abs().sum() / parameter.detach().double().abs().sum())


def finetune(net: Edsr, data: Path, iterations: int, rate: float, period: int) -> Edsr:
    """Quantization-aware training of the float weights; returns their moving average. period: between calibrations."""
    recipe = Recipe(iterations=iterations)
    training = read_training_pairs(data, recipe.patch)
    test = list(iter_pairs(data / VALIDATION_SET, SCALE))
    images = [pair.lr for pair in training[::6]]
    average = Edsr(features=24, blocks=4, scale=SCALE)
    average.load_state_dict(net.state_dict())
    adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    for iteration in range(iterations):
        if iteration % period == 0:
            quantized, twins = quantize(net, images)
        for group in adam.param_groups:
            group["lr"] = rate * 0.5 * (1 + np.cos(np.pi * iteration / iterations))
        low, high = draw_batch(training, recipe, iteration + 10_000_000)  # other patches than the float training saw
        for twin in twins:
            twin.push()
        loss = nn.functional.l1_loss(quantized(low * 255.0) / 255.0, high)
        quantized.zero_grad()
        loss.backward()
        for twin in twins:
            twin.pull()
        adam.step()
        update_average(average, net, min(0.998, (1 + iteration) / (10 + iteration)))
        if (iteration + 1) % 500 == 0 or iteration + 1 == iterations:
            plan = plan_of(average)
            score = integer_psnr(plan, calibrate(plan, TARGET, RECIPE, images), test)
            print(iteration + 1, f"loss {loss.item():.5f}, integer {score:.3f} dB", flush=True)
    return average


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="as for train_default.py")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "train", help="checkpoint of train_default.py")
    parser.add_argument("--iterations", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=3e-4, help="first learning rate; falls to 0 along a cosine")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    state = torch.load(args.folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    net = Edsr(features=24, blocks=4, scale=SCALE)
    net.load_state_dict(state["ema"])
    tuned = finetune(net, args.data, args.iterations, args.rate, 250)
    torch.save({"iteration": state["iteration"], "ema": tuned.state_dict()}, args.folder / "finetuned.pt")
    write_weights(tuned.state_dict())


if __name__ == "__main__":
    main()
