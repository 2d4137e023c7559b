"""LUTs, flip-flops, DSPs and memories of every unit by formula, before any synthesis.

DSPs and block RAMs follow the rules of `demand`. LUTs and flip-flops are sums over the parts of a unit (`cost_terms`),
each with a coefficient that was fitted to Yosys (`synth`) over a grid of shapes; `scripts/fit_costs.py` does that and
writes docs/costs.md, which says how far the formulas are off. An estimate: no placement, no timing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from srq_hw.backends.rtl import demand
from srq_hw.backends.rtl.cost_parts import FRAME
from srq_hw.backends.rtl.cost_terms import terms
from srq_hw.backends.rtl.netlist import Instance, Netlist

#: {"lut" | "ff": {module: {term: coefficient}}}
COEFFICIENTS = Path(__file__).with_name("costs.json")

Coefficients = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Cost:
    """What a unit takes.

    lut: LUT sites: logic, shift registers and memories in LUTs. ff: flip-flops. dsp: DSP slices. bram18: block RAMs of
    18 Kbit. uram: UltraRAMs.
    """

    lut: int = 0
    ff: int = 0
    dsp: int = 0
    bram18: int = 0
    uram: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.lut + other.lut,
            self.ff + other.ff,
            self.dsp + other.dsp,
            self.bram18 + other.bram18,
            self.uram + other.uram,
        )


def cost(instance: Instance, alone: bool = False) -> Cost:
    """Of one instance of a library module. Without its memory files, constants in LUTs are taken as all different.

    alone: with the counter of beats behind its tlast, which a design has in its two ends only.
    """
    lut, ff = logic(instance, coefficients(), alone)
    bram18, uram = demand.blocks(instance)
    return Cost(
        lut=round(lut),
        ff=round(ff),
        dsp=demand.dsps(instance),
        bram18=bram18,
        uram=uram,
    )


def design_cost(netlist: Netlist) -> Cost:
    """Sum over the instances, and where weights enter."""
    entry = netlist.weights_entry
    return sum((cost(instance) for instance in netlist.instances), cost(entry) if entry else Cost())


def logic(instance: Instance, fitted: Coefficients, alone: bool) -> tuple[float, float]:
    """LUTs and flip-flops of an instance with given coefficients; see `cost`."""
    found = terms(instance)
    own = (fitted["lut"][instance.module], fitted["ff"][instance.module])
    lut, ff = (
        sum(amount * factors.get(name, 0.0) for name, amount in half.items() if alone or name != FRAME)
        for half, factors in zip((found.lut, found.ff), own, strict=True)
    )
    return lut, ff


@cache
def coefficients() -> Coefficients:
    """Those of the package."""
    read: Coefficients = json.loads(COEFFICIENTS.read_text())
    return read
