"""Target: everything srq-hw needs to know of an accelerator, as frozen, validated data.

`load_target("zcu104")` reads a packaged file, `load_target("my/board.yaml")` a user's own. The two halves are the
integer rules (what the arithmetic may do, read by quantize, lower and check) and the resources (what the device
offers, read by the FINN back end and the report). docs/targets.md is generated from the descriptions below.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, model_validator

from srq_hw.errors import InputError
from srq_hw.resources import data_folder, data_names, data_path
from srq_hw.target_ops import Ops
from srq_hw.yamlfile import Part, load_model, refuse

Rounding = Literal["half_even", "half_up", "half_away", "floor", "trunc"]
Flow = Literal["finn", "verilog"]
DspKind = Literal["DSP48E1", "DSP48E2", "DSP58"]

# Board names FINN knows and the part it builds for; FINN takes the part from the board, so both must agree.
FINN_PARTS: dict[str, str] = {
    "AUP-ZU3_8GB": "xczu3eg-sfvc784-2-e",
    "KV260_SOM": "xck26-sfvc784-2LV-c",
    "Pynq-Z1": "xc7z020clg400-1",
    "Pynq-Z2": "xc7z020clg400-1",
    "RFSoC2x2": "xczu28dr-ffvg1517-2-e",
    "RFSoC4x2": "xczu48dr-ffvg1517-2-e",
    "U200": "xcu200-fsgd2104-2-e",
    "U250": "xcu250-figd2104-2L-e",
    "U280": "xcu280-fsvh2892-2L-e",
    "U50": "xcu50-fsvh2104-2L-e",
    "U55C": "xcu55c-fsvh2892-2L-e",
    "Ultra96": "xczu3eg-sbva484-1-e",
    "Ultra96-V2": "xczu3eg-sbva484-1-i",
    "V80": "xcv80-lsva4737-2MHP-e-s",
    "VCK190": "xcvc1902-vsva2197-2MP-e-S",
    "VEK280": "xcve2802-vsvh1760-2MP-e-S",
    "ZCU102": "xczu9eg-ffvb1156-2-e",
    "ZCU104": "xczu7ev-ffvc1156-2-e",
    "ZCU111": "xczu28dr-ffvg1517-2-e",
}
FinnBoard = Literal[
    "AUP-ZU3_8GB", "KV260_SOM", "Pynq-Z1", "Pynq-Z2", "RFSoC2x2", "RFSoC4x2", "U200", "U250", "U280", "U50", "U55C",
    "Ultra96", "Ultra96-V2", "V80", "VCK190", "VEK280", "ZCU102", "ZCU104", "ZCU111",
]  # fmt: skip
assert set(get_args(FinnBoard)) == set(FINN_PARTS)


class Bits(Part):
    """Widths a quantizer may use; `default` is what a build takes when the user names none."""

    min: Annotated[int, Field(ge=2, le=16, description="Narrowest width, bits.")]
    max: Annotated[int, Field(ge=2, le=16, description="Widest width, bits.")]
    default: Annotated[int, Field(ge=2, le=16, description="Width when the user names none, bits; min..max.")]

    @model_validator(mode="after")
    def _ordered(self) -> Bits:
        if self.min > self.max:
            refuse([f"min {self.min} is above max {self.max}; allowed: min <= default <= max"])
        if not self.min <= self.default <= self.max:
            refuse([f"default {self.default} is outside min..max; allowed: {self.min} to {self.max}"])
        return self


class Weights(Part):
    """Integer weights of a convolution: symmetric, zero point 0."""

    bits: Annotated[Bits, Field(description="Widths of a weight.")]
    signed: Annotated[Literal[True], Field(description="Weights are signed two's complement; nothing else is built.")]
    narrow_range: Annotated[bool, Field(description="true: -(2^(b-1)-1)..2^(b-1)-1; false: -2^(b-1)..2^(b-1)-1.")]
    granularity: Annotated[
        Literal["channel", "tensor"],
        Field(description="One scale per output channel, or one per weight tensor."),
    ]


class Activations(Part):
    """Integer activations: one scale per tensor; unsigned behind a ReLU, signed elsewhere."""

    bits: Annotated[Bits, Field(description="Widths of an activation.")]
    zero_points: Annotated[bool, Field(description="true: a tensor may have a zero point other than 0.")]


class Image(Part):
    """The integer image at the input; its step is one grey level."""

    bits_max: Annotated[
        int, Field(ge=8, le=16, description="Widest input stream, bits; a recentred 8-bit image needs 9 (a sign).")
    ]


class Accumulator(Part):
    """The register that sums a convolution's products and bias."""

    bits: Annotated[int, Field(ge=8, le=48, description="Signed width, bits; `check` proves that no sum exceeds it.")]


class Bias(Part):
    """The constant added to an accumulator, in units of s_x * s_w."""

    bits: Annotated[int, Field(ge=2, le=48, description="Signed width, bits; at most the accumulator's.")]


class Requant(Part):
    """How an accumulator becomes an activation: y = round(acc * M / 2^S), saturated."""

    kind: Annotated[
        Literal["dyadic", "pow2"], Field(description="dyadic: integer multiplier M and right shift S; pow2: M = 1.")
    ]
    multiplier_bits: Annotated[
        int | None,
        Field(
            default=None,
            ge=2,
            le=20,
            description="Unsigned width of M, bits, for dyadic only; at most 20: QONNX keeps scales in float32 "
            "(24 significant bits) and M must be recovered from them exactly.",
        ),
    ]
    shift_max: Annotated[int, Field(ge=0, le=62, description="Largest right shift S.")]
    rounding: Annotated[Rounding, Field(description="What happens to the fraction; the half_* rules differ at ties.")]

    @model_validator(mode="after")
    def _multiplier(self) -> Requant:
        bits = self.multiplier_bits
        if self.kind == "pow2" and bits is not None:
            refuse([f"multiplier_bits {bits} with kind pow2; allowed: no multiplier_bits (pow2 only shifts)"])
        if self.kind == "dyadic":
            if bits is None:
                refuse(["multiplier_bits is missing; allowed: a whole number from 2 to 20 (kind dyadic multiplies)"])
            elif self.shift_max < bits:
                refuse([f"shift_max {self.shift_max} is below multiplier_bits; allowed: {bits} to 62"])
        return self


class Join(Part):
    """How tensors meet."""

    equal_scales: Annotated[bool, Field(description="true: all inputs and the output must share one scale.")]


class Integer(Part):
    """Integer rules: what the arithmetic of the accelerator does."""

    weights: Annotated[Weights, Field(description="Weights.")]
    activations: Annotated[Activations, Field(description="Activations.")]
    image: Annotated[Image, Field(description="Input image.")]
    accumulator: Annotated[Accumulator, Field(description="Accumulator.")]
    bias: Annotated[Bias, Field(description="Bias.")]
    requant: Annotated[Requant, Field(description="Accumulator to activation.")]
    add: Annotated[Join, Field(description="Scales at an Add.")]
    concat: Annotated[Join, Field(description="Scales at a Concat.")]
    ops: Annotated[Ops, Field(description="Operators and their limits; an absent one is illegal.")]

    @property
    def sums_bits_max(self) -> int:
        """Widest operand or result of a sum."""
        own = self.ops.Add.bits_max if self.ops.Add else None
        return own or self.activations.bits.max

    @model_validator(mode="after")
    def _widths_agree(self) -> Integer:
        acc, product = self.accumulator.bits, self.weights.bits.max + self.activations.bits.max
        problems = []
        if self.bias.bits > acc:
            problems.append(f"bias.bits {self.bias.bits} exceeds accumulator.bits; allowed: at most {acc}")
        if acc < product:
            problems.append(
                f"accumulator.bits {acc} cannot hold one weight times one activation; allowed: {product}..48"
            )
        # |acc * M| <= 2^53 keeps the float64 model exact, so that it can be compared bit for bit.
        exact = 54 - (self.requant.multiplier_bits or 0)
        if acc > exact:
            problems.append(f"accumulator.bits {acc} times the multiplier exceeds 2^53; allowed: at most {exact}")
        slope_bits = self.ops.Requant.slope_bits
        if slope_bits is not None and self.requant.kind != "pow2":
            problems.append(
                f"ops.Requant.slope_bits {slope_bits} with requant.kind {self.requant.kind}; allowed: no slope_bits "
                "(the slope is a second multiplier of multiplier_bits)"
            )
        refuse(problems)
        return self


class Dsp(Part):
    """Multiplier blocks."""

    kind: Annotated[DspKind, Field(description="Block type; decides how many products one block packs.")]
    count: Annotated[int, Field(ge=0, le=100_000, description="Blocks on the device.")]


class Resources(Part):
    """What the device offers, counted over the whole device; `utilization_max` says how much a design may take."""

    part: Annotated[
        str, Field(pattern=r"^xc[a-z0-9]+[A-Za-z0-9-]*$", description="Full part number, as Vivado takes it.")
    ]
    finn_board: Annotated[
        FinnBoard | None,
        Field(default=None, description="FINN's name of the board; leave it out for a board FINN does not know."),
    ]
    flows: Annotated[
        list[Flow] | None,
        Field(
            default=None,
            min_length=1,
            description="Designs that a build makes: `finn` (a FINN dataflow graph), `verilog` (srq-hw's own streaming "
            "units); leave it out for both.",
        ),
    ]
    clock_mhz: Annotated[float, Field(ge=1, le=1000, description="Clock of the accelerator, MHz.")]
    lut: Annotated[int, Field(ge=1, le=100_000_000, description="Look-up tables on the device.")]
    ff: Annotated[int, Field(ge=1, le=100_000_000, description="Flip-flops on the device.")]
    dsp: Annotated[Dsp, Field(description="Multiplier blocks.")]
    bram36: Annotated[int, Field(ge=0, le=100_000, description="36 Kbit block RAMs (one holds two 18 Kbit halves).")]
    uram: Annotated[int, Field(ge=0, le=100_000, description="288 Kbit UltraRAM blocks.")]
    memory_bandwidth_gbytes: Annotated[
        float, Field(gt=0, le=10_000, description="Peak bandwidth of the external memory, GB/s (10^9 bytes).")
    ]
    utilization_max: Annotated[
        float, Field(gt=0, le=1, description="Share of each resource a design may take and still count as fitting.")
    ]

    def has_flow(self, flow: Flow) -> bool:
        """True where a build makes this kind of design."""
        return self.flows is None or flow in self.flows

    @model_validator(mode="after")
    def _board_has_this_part(self) -> Resources:
        expected = FINN_PARTS.get(self.finn_board or "", self.part)
        if expected != self.part:
            refuse([f"part {self.part!r} with finn_board {self.finn_board}; allowed: {expected!r}, or no finn_board"])
        return self


class Target(Part):
    """One accelerator: its name, its integer rules, its resources."""

    schema_version: Annotated[Literal[1], Field(alias="schema", description="Version of this file's layout.")]
    name: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=64, description="Short name, used in file names.")
    ]
    title: Annotated[str, Field(min_length=1, max_length=200, description="One line for people.")]
    integer: Annotated[Integer, Field(description="Integer rules.")]
    resources: Annotated[
        Resources | None,
        Field(default=None, description="Device and board; leave it out for an accelerator that is no FPGA design."),
    ]

    @property
    def sha256(self) -> str:
        """Hash of the content (not of comments, order or spelling in the file), hex; keys of the build cache use it."""
        data = self.model_dump(mode="json", by_alias=True, exclude_none=True)  # a new optional key changes no old hash
        text = json.dumps(data, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def load_target(name_or_path: str | Path) -> Target:
    """Return the target of a packaged name (``zcu104``) or of a user's YAML file.

    InputError lists every mistake in the file (line, key, value, what is allowed), or the known names.
    """
    path = data_path("targets", name_or_path)
    target = load_model(Target, path)
    if target.name != path.stem and path.parent == data_folder("targets"):
        raise InputError(f"{path}: name: {target.name!r} differs from the file name; allowed: {path.stem!r}")
    return target


def list_targets() -> list[str]:
    """Return the names of the packaged targets, sorted."""
    return data_names("targets")


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a target file, for editors; cross-field rules are checked by `load_target` only."""
    schema: dict[str, Any] = _without_null(Target.model_json_schema(by_alias=True))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "srq-hw target, schema 1"}


def _without_null(part: Any) -> Any:
    """Drop the null branch of optional fields: a key is left out, never written empty."""
    if isinstance(part, list):
        return [_without_null(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {key: _without_null(value) for key, value in part.items() if not (key == "default" and value is None)}
    branches = kept.get("anyOf")
    if isinstance(branches, list) and {"type": "null"} in branches and len(branches) == 2:
        del kept["anyOf"]
        kept = {**next(branch for branch in branches if branch != {"type": "null"}), **kept}
    return kept
