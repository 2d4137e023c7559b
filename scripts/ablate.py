"""What one change to the recipe `mse` does: the figures of "What limits" in docs/quality.md that no learning follows.

    .venv/bin/python scripts/ablate.py --data ../shared/data [--networks edsr8_64_x2]

Target int-generic; loss in dB on Y of the integer simulator's output on Set5; ranges from General100.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from srq_hw.compare.cells import weights_file
from srq_hw.errors import SrqError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import iter_pairs, list_images, make_pair
from srq_hw.evaluate.images import read_rgb
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.qat.score import float_score, integer_score
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import Recipe, load_recipe, with_policy
from srq_hw.target import load_target

REPO = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """One quantization. changes: "key" or "key.key" of the recipe -> its value."""

    network: str
    weight_bits: int
    act_bits: int
    sums: int = 16
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What is changed, in one line."""
        words = [f"W{self.weight_bits}A{self.act_bits}", f"sums {self.sums}"]
        return ", ".join([*words, *(f"{key} {value}" for key, value in self.changes.items())])


def _equalized(strength: float) -> dict[str, Any]:
    return {"equalize": {"statistic": "rms", "strength": strength}}


CASES = (
    *(Case("edsr8_64_x2", *widths) for widths in ((8, 8), (8, 8, 8), (4, 8), (8, 4), (4, 4))),
    *(Case("edsr8_64_x2", bits, bits, 16, _equalized(part)) for bits in (8, 4) for part in (0.5, 1.0)),
    *(Case(name, 8, 8, sums) for name in ("idn_y_x2", "idn_y_x4") for sums in (16, 8)),
    *(Case(name, 4, 4) for name in ("idn_y_x2", "idn_y_x4")),
    *(Case(name, 4, 4, 16, {"activations.zero_points": True}) for name in ("idn_y_x2", "idn_y_x4")),
    *(Case(name, 4, 4, 16, {"guide": {}}) for name in ("edsr8_64_x2", "rnet9_64_x4", "carn_x2", "srresnet8_bn_x4")),
)


def changed(recipe: Recipe, case: Case) -> Recipe:
    """The recipe with a case's changes and widths; first and last convolutions keep 8 bits below 8."""
    fields = recipe.model_dump(by_alias=True)
    for key, value in case.changes.items():
        *path, last = key.split(".")
        place = fields
        for part in path:
            place = place[part]
        place[last] = value
    edges = 8 if min(case.weight_bits, case.act_bits) < 8 else None
    return with_policy(Recipe.model_validate(fields), edges, None, case.sums)


def run(networks: list[str], data: Path) -> None:
    """Print one row per case of these networks."""
    target, recipe = load_target("int-generic"), load_recipe("mse")
    for name in networks:
        net = load_network(name, weights_file(name, data / "weights"))
        normal, pairs = normalize(net), list(iter_pairs(data / "Set5", net.scale))
        originals = [make_pair(path.stem, read_rgb(path), net.scale) for path in list_images(data / "General100")]
        images = [network_view(pair.lr, net.channels) for pair in originals]
        real = float_score(net, pairs).psnr
        for case in (case for case in CASES if case.network == name):
            quantized = quantize(normal, target, changed(recipe, case), images, case.weight_bits, case.act_bits)
            loss = real - integer_score(quantized, target, pairs).psnr
            print(f"{name}: {case.title}: {loss:.3f}", flush=True)


def main(arguments: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--networks", default=",".join(dict.fromkeys(case.network for case in CASES)))
    options = parser.parse_args(arguments)
    try:
        run(options.networks.split(","), options.data)
    except SrqError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
