"""A network that trains in a second: 4-bit, min-max, its training and test images the float network's own outputs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from srq_hw.evaluate.datasets import Pair
from srq_hw.networks.loading import FloatNetwork, run_float
from srq_hw.normalform.trace import normalize
from srq_hw.qat.data import Training, training_of
from srq_hw.qat.score import Score, integer_score
from srq_hw.qat.student import StepRates, Student
from srq_hw.qat.train import Schedule
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.target import Target
from tests.quantize.nets import NETS, network, recipe, target

SCHEDULE = Schedule(3, 12, 4, 12, StepRates(0.005, 0.01, 0.02, 0.01), 0.5, 0.0, 0, None)


def aim() -> Target:
    return target("int-generic")


@cache
def teacher(name: str = "residual") -> FloatNetwork:
    return network(NETS[name](), scale=2)


def smooth(seed: int, side: int = 24) -> np.ndarray:
    """uint8 (side, side, 3): waves, as an image has them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (rng.uniform(0.5, 3) * x + rng.uniform(0.5, 3) * y + rng.random())) for _ in range(3)]
    return np.uint8(127 + 100 * np.stack(waves, -1))


@cache
def pairs() -> tuple[Pair, ...]:
    """Low-resolution images and what the float network makes of them."""
    return tuple(Pair(str(seed), run_float(teacher(), smooth(seed)), smooth(seed)) for seed in range(5))


@cache
def start(name: str = "residual", bits: int = 4) -> Quantized:
    return quantize(normalize(teacher(name)), aim(), recipe(), [smooth(seed) for seed in range(4)], bits, bits)


def student(rule: str = "lsq", name: str = "residual") -> Student:
    return Student(start(name), aim(), rule)


def training() -> Training:
    return training_of(pairs()[:4], 2, 3, SCHEDULE.patch)


def validate(quantized: Quantized) -> Score:
    """Against the float network's output on an image that is not trained on."""
    return integer_score(quantized, aim(), pairs()[4:])


def with_average(decay: float) -> Schedule:
    return replace(SCHEDULE, average=decay)


def tensors_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
