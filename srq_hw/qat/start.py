"""Training that goes on from a network quantized already: what `qat` or `build` left in a folder."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from srq_hw.errors import InputError
from srq_hw.files import write_bytes
from srq_hw.normalform.normal import NormalNet
from srq_hw.pipeline.engine import sha256_json
from srq_hw.pipeline.stored import makes_other_bits, other_widths
from srq_hw.qat.options import QatOptions
from srq_hw.quantize.plan import QuantPlan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.store import FILES, load_quantized
from srq_hw.target import Target

#: folder of the network as training found it, below --out
START = "start"


@dataclass(frozen=True)
class Stored:
    """The files of a quantized network, byte for byte, by name. sha256: of their contents."""

    folder: Path
    files: dict[str, bytes]
    sha256: str

    def copy(self, folder: Path) -> None:
        """Write them into another folder."""
        for name, content in self.files.items():
            write_bytes(folder / name, content)


def read_stored(options: QatOptions, net: NormalNet, target: Target) -> Stored | None:
    """What --start names, None without it.

    InputError where it lies where this run writes, is missing, damaged or of another network (as for `build
    --quantized`), or has other widths than the options ask for.
    """
    folder = options.start
    if folder is None:
        return None
    _require_elsewhere(folder, options.out)
    quantized = load_quantized(folder, net, target)
    _require_widths(options, folder, quantized.plan, target)
    files = {name: (folder / name).read_bytes() for name in FILES}
    return Stored(folder, files, sha256_json({name: sha256(content).hexdigest() for name, content in files.items()}))


def _require_elsewhere(folder: Path, out: Path) -> None:
    """The result would take the start's place, and the same command would no longer start where it did."""
    here, copy = folder.resolve(), (out / START).resolve()
    if here == out.resolve() or here.is_relative_to(copy):
        raise InputError(f"--start {folder}: is where --out {out} writes; choose another --out")


def _require_widths(options: QatOptions, folder: Path, plan: QuantPlan, target: Target) -> None:
    """InputError naming every width that is asked for and is not the stored network's; both values."""
    different = other_widths(options, plan, target)
    if options.fqsr and makes_other_bits(plan, target, LayerPolicy()):
        different.append(f"--fqsr not there ({_policy_text(plan.policy)}), but here")
    if different:
        raise InputError(
            f"--start {folder}: has other widths ({'; '.join(different)}); leave these options out, or quantize anew "
            "with --init"
        )


def _policy_text(policy: LayerPolicy) -> str:
    found = [f"{key} {bits}" for key in ("edges", "tail", "sums") if (bits := getattr(policy, key)) is not None]
    return ", ".join([*found, *(["widths of single layers"] if policy.weights or policy.activations else [])])
