"""What the user asks of `srq-hw qat`, checked before any work starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from srq_hw.errors import InputError
from srq_hw.qat.rules import RULES
from srq_hw.qat.student import StepRates
from srq_hw.qat.train import Schedule
from srq_hw.quantize.recipe import Policy, Recipe, load_recipe, with_policy
from srq_hw.yamlfile import did_you_mean

#: FQSR's setting (Wang et al., "Fully Quantized Image Super-Resolution Networks", METHODS 2.9): every layer, the first
#: and last and the skips included, at the widths of --bits
FQSR = Policy()
#: where training starts unless --init or --start says otherwise
DEFAULT_INIT = "srq"
#: --rate is that of the weights, in parts of the largest weight that a grid holds; logarithms of weight steps, bounds
#: and channel factors learn so many times as fast
STEP_RATE, BOUND_RATE, CHANNEL_RATE = 1.0, 2.0, 1.0


@dataclass(frozen=True)
class QatOptions:
    """One training run; see `srq-hw qat --help`. None: what the user left out."""

    network: str | None
    out: Path
    data: tuple[Path, ...]
    weights: Path | None = None
    target: str = "int-generic"
    weight_bits: int | None = None
    act_bits: int | None = None
    recipe: str | None = None
    start: Path | None = None
    edges: int | None = None
    tail: int | None = None
    sums: int | None = None
    fqsr: bool = False
    quantizer: str = "lsq"
    val: Path | None = None
    epochs: int = 20
    iterations: int = 200
    batch: int = 8
    patch: int = 32
    rate: float = 0.005
    distill: float = 0.9
    average: float = 0.99
    patience: int | None = None
    seed: int = 0
    device: str = "auto"
    resume: bool = True

    def schedule(self) -> Schedule:
        """The training loop's part."""
        rates = StepRates(*(self.rate * part for part in (1.0, STEP_RATE, BOUND_RATE, CHANNEL_RATE)))
        return Schedule(
            self.epochs,
            self.iterations,
            self.batch,
            self.patch,
            rates,
            self.distill,
            self.average,
            self.seed,
            self.patience,
        )


def check_options(options: QatOptions) -> None:
    """InputError for a value out of range."""
    _known("--quantizer", options.quantizer, RULES)
    _known("--device", options.device, ("auto", "cpu", "cuda"))
    for name, value, low, high in (
        ("--epochs", options.epochs, 1, 100_000),
        ("--iterations", options.iterations, 1, 1_000_000),
        ("--batch", options.batch, 1, 4096),
        ("--patch", options.patch, 8, 512),
        ("--distill", options.distill, 0, 1),
        ("--average", options.average, 0, 0.99999),
        ("--seed", options.seed, 0, 2**32 - 1),
        ("--patience", 1 if options.patience is None else options.patience, 1, 100_000),
    ):
        if not low <= value <= high:
            raise InputError(f"{name} {value}: allowed is {low} to {high}")
    if not 0 < options.rate <= 1:
        raise InputError(
            f"--rate {options.rate:g}: allowed is above 0 and up to 1 (parts of the largest weight per step)"
        )
    if not options.data:
        raise InputError("--data: give a folder of high-resolution training images")
    if options.fqsr and (options.edges, options.tail, options.sums) != (None, None, None):
        raise InputError("--fqsr: every layer and skip has --bits, so --edges, --tail and --sums do not go with it")
    if options.start is not None and options.recipe is not None:
        raise InputError(
            f"--start {options.start}: is quantized already, so --init {options.recipe} does not go with it; leave one "
            "of them out"
        )


def recipe_of(options: QatOptions) -> Recipe | None:
    """The recipe of --init with the layer policy asked for; None with --start. InputError as for `load_recipe`."""
    if options.start is not None:
        return None
    recipe = load_recipe(options.recipe or DEFAULT_INIT)
    if options.fqsr:
        return recipe.model_copy(update={"policy": FQSR})
    return with_policy(recipe, options.edges, options.tail, options.sums)


def _known(option: str, value: str, allowed: object) -> None:
    names = list(allowed)  # type: ignore[call-overload]
    if value not in names:
        raise InputError(f"{option} {value!r}{did_you_mean(value, names)}: allowed are {', '.join(names)}")
