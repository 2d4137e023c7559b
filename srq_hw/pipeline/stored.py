"""Options beside a network that is quantized already: what they ask for must be what is there."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from srq_hw.errors import InputError
from srq_hw.pipeline.options import BuildOptions
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.policy import LayerPolicy, choose_bits
from srq_hw.target import Target


class WidthOptions(Protocol):
    """Widths that a user may ask for; None: left out."""

    @property
    def weight_bits(self) -> int | None: ...
    @property
    def act_bits(self) -> int | None: ...
    @property
    def edges(self) -> int | None: ...
    @property
    def tail(self) -> int | None: ...
    @property
    def sums(self) -> int | None: ...


def check_quantized_options(options: BuildOptions, plan: QuantPlan, target: Target) -> None:
    """InputError for a recipe beside --quantized, which nothing would calibrate by, and for widths that it has not.

    plan: that of the folder of --quantized.
    """
    folder = options.quantized
    assert folder is not None
    if options.recipe is not None:
        raise InputError(f"--calib {options.recipe}: --quantized {folder} is calibrated already; leave one of them out")
    different = other_widths(options, plan, target)
    if different:
        raise InputError(
            f"--quantized {folder}: has other widths ({'; '.join(different)}); leave these options out, or "
            "--quantized, to quantize anew"
        )


def other_widths(options: WidthOptions, plan: QuantPlan, target: Target) -> list[str]:
    """Every width that is asked for and is not the plan's; both values.

    --edges, --tail and --sums are compared by what they make of the layers: 8 is no contradiction where all have 8.
    """
    different = []
    for name, asked, stored in (
        ("--weight-bits (or --bits)", options.weight_bits, plan.weight_bits),
        ("--act-bits (or --bits)", options.act_bits, plan.act_bits),
    ):
        if asked is not None and asked != stored:
            different.append(f"{name} {stored} there, {asked} here")
    for key in ("edges", "tail", "sums"):
        asked, stored = getattr(options, key), getattr(plan.policy, key)
        if asked is not None and makes_other_bits(plan, target, replace(plan.policy, **{key: asked})):
            different.append(f"--{key} {'none' if stored is None else stored} there, {asked} here")
    return different


def makes_other_bits(plan: QuantPlan, target: Target, policy: LayerPolicy) -> bool:
    """Whether another policy would give any layer of the plan another width."""
    return choose_bits(plan.net, target, plan.weight_bits, plan.act_bits, policy) != plan.bits
