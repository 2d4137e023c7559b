"""Folders of small pictures and recipes, and options of a comparison that takes a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srq_hw.compare.options import CompareOptions, Widths
from srq_hw.evaluate.images import write_png

RGB, LUMA = "tests.compare.nets:rgb", "tests.compare.nets:luma"

RECIPE = """schema: 1
name: {name}
title: {title}
patches: {{count: 2, size: 16, seed: 1}}
activations: {activations}
weights: {{method: minmax}}
"""


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """A seeded picture with edges and soft slopes, uint8 (height, width, 3)."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * a + y * b) for a, b in random.uniform(-0.7, 0.7, (3, 2))]
    image = 128 + 60 * np.stack(waves, -1) + random.normal(0, 6, (height, width, 3))
    image[random.integers(8, height - 8) :, :, random.integers(3)] += 40
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def write_recipe(path: Path, activations: str, title: str = "A test") -> str:
    """A recipe file; its path as text."""
    path.write_text(RECIPE.format(name=path.stem, title=title, activations=activations))
    return str(path)


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A (two pictures), B (one), General100 (three)."""
    folder = tmp_path_factory.mktemp("images")
    for name, seeds in (("A", (1, 2)), ("B", (3,)), ("General100", (11, 12, 13))):
        (folder / name).mkdir()
        for seed in seeds:
            write_png(folder / name / f"p{seed}.png", picture(seed, 40 + seed, 52))
    return folder


@pytest.fixture
def options(images: Path, tmp_path: Path) -> CompareOptions:
    """One network, two recipe files, one set, one width, in this process."""
    return CompareOptions(
        networks=(RGB,),
        methods=(
            write_recipe(tmp_path / "all.yaml", "{method: minmax, bins: 256}"),
            write_recipe(tmp_path / "cut.yaml", "{method: percentile, percent: 90.0, bins: 256}"),
        ),
        widths=(Widths(4, 4),),
        sets=("A",),
        data=images,
        out=tmp_path / "out",
        jobs=1,
    )
