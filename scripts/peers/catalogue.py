"""The quantizers that are measured: which worker runs them, in which environment, and in which settings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from srq_hw.errors import InputError
from srq_hw.yamlfile import did_you_mean

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Setting:
    """How many bits. label: the row's name; below 8 bits, head and tail keep 8. pow2: scales are powers of two."""

    label: str
    bits: int
    pow2: bool = False


W8A8 = Setting("W8A8", 8)
W6A6 = Setting("W6A6 ht8", 6)
W4A4 = Setting("W4A4 ht8", 4)
POW2 = Setting("W8A8 pow2", 8, pow2=True)


@dataclass(frozen=True)
class Peer:
    """One tool.

    environment: name of its virtual environment and requirements file. worker: its script. variants: its ways.
    settings: what it can do. limits: a sentence on what it cannot. networks: those it exists for, empty for all.
    helpers: modules beside its worker that it imports. artefact: a file below the weights folder that it runs.
    stand_in: peer to run where its environment fails.
    """

    name: str
    title: str
    worker: Path
    environment: str
    variants: tuple[str, ...]
    settings: tuple[Setting, ...]
    limits: str
    networks: tuple[str, ...] = ()
    helpers: tuple[str, ...] = ()
    artefact: str | None = None
    stand_in: str | None = None

    @property
    def requirements(self) -> Path:
        """The pinned packages of its environment."""
        return FOLDER / "requirements" / f"{self.environment}.txt"


_PEERS = (
    Peer(
        "onnxruntime",
        "onnxruntime static quantization, QDQ, per channel",
        FOLDER / "run_onnxruntime.py",
        "onnxruntime",
        ("MinMax", "Percentile", "Entropy"),
        (W8A8,),
        "quantizes activations to 8 or 16 bits only",
        helpers=("onnx_files.py",),
    ),
    Peer(
        "nncf",
        "NNCF post-training quantization on OpenVINO",
        FOLDER / "run_nncf.py",
        "nncf",
        ("default", "minmax"),
        (W8A8,),
        "quantizes activations to 8 bits only",
    ),
    Peer(
        "brevitas",
        "Brevitas post-training quantization, layer by layer, per channel",
        FOLDER / "run_brevitas.py",
        "brevitas",
        ("percentile 99.999", "MSE"),
        (W8A8, W6A6, W4A4),
        "quantizes convolution inputs and weights; additions and the output stay float",
        helpers=("onnx_to_torch.py",),
    ),
    Peer(
        "quark",
        "AMD Quark XINT8, power-of-two scales per tensor",
        FOLDER / "run_quark.py",
        "quark",
        ("XINT8, equalisation off", "XINT8, equalisation on"),
        (POW2,),
        "XINT8 is 8 bits only",
        helpers=("onnx_files.py",),
        stand_in="pow2-emulation",
    ),
    Peer(
        "pow2-emulation",
        "EMULATION of a Vitis-AI style quantizer (power of two, least squares), not AMD's code",
        FOLDER / "run_pow2.py",
        "onnxruntime",
        ("EMULATION",),
        (POW2,),
        "8 bits only",
        helpers=("onnx_files.py",),
    ),
    Peer(
        "publisher",
        "the publisher's own quantization-aware uint8 TFLite, run by LiteRT",
        FOLDER / "run_litert.py",
        "litert",
        ("QAT uint8",),
        (W8A8,),
        "a finished file of one network",
        networks=("edsr_mlperf_f32b5_x2",),
        artefact="edsr_mlperf_f32b5_x2_official_qat_uint8.tflite",
    ),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}
#: measured unless --peers says otherwise; an emulation stands in for a tool, never beside it
DEFAULT_PEERS = tuple(name for name in PEERS if name != "pow2-emulation")
BITS = tuple(sorted({s.bits for peer in _PEERS for s in peer.settings}, reverse=True))


def choose(names: Iterable[str]) -> list[Peer]:
    """The peers of these names. InputError for an unknown one."""
    names = list(names)
    for name in names:
        if name not in PEERS:
            raise InputError(f"--peers {name}: unknown{did_you_mean(name, PEERS)}; allowed are {', '.join(PEERS)}")
    return [PEERS[name] for name in names]
