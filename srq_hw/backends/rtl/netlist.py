"""What a stitched design is made of: streams, instances of library modules, and the netlist of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

#: modules that are a convolution: weights in the design, weights written at run time
CONV, CONV_LOAD = "srq_conv", "srq_conv_load"
CONVS = (CONV, CONV_LOAD)
#: bits of a beat in which weights are written
LOAD_BITS = 32

#: bits of the wide input of a multiplier, by DSP block
PORTS = {"DSP48E1": 25, "DSP48E2": 27, "DSP58": 27}


@dataclass(frozen=True)
class Fabric:
    """Blocks of the device: bits of a multiplier's wide input (27: DSP48E2, 25: DSP48E1), whether it has UltraRAM."""

    port: int = 27
    ultra: bool = False


#: UltraScale+ without UltraRAM
FABRIC = Fabric()


@dataclass(frozen=True)
class Stream:
    """One AXI-Stream: frames of height x width pixels, `channels` values each, `lanes` of them in a beat.

    Channel c travels in beat c // lanes of its pixel, lane c % lanes, lane 0 in the lowest bits of tdata.
    """

    name: str
    height: int
    width: int
    channels: int
    lanes: int
    bits: int
    signed: bool

    @property
    def folds(self) -> int:
        """Beats per pixel."""
        return self.channels // self.lanes

    @property
    def beats(self) -> int:
        """Beats per frame."""
        return self.height * self.width * self.folds

    @property
    def tdata_bits(self) -> int:
        """Width of tdata."""
        return self.lanes * self.bits


@dataclass(frozen=True)
class Instance:
    """One instance of a library module.

    ports: prefix of the module's stream ("s", "a", "m0" ...) -> stream. memories: file name -> `$readmemh` text.
    node: the IntGraph node that it computes, "" for what only moves beats. comment: one line for the reader of the top.
    loads: what it is sent before it works (CONV_LOAD), beats of LOAD_BITS.
    """

    module: str
    name: str
    parameters: Mapping[str, int | str]
    ports: Mapping[str, Stream]
    memories: Mapping[str, str] = field(default_factory=dict)
    node: str = ""
    comment: str = ""
    loads: tuple[int, ...] = ()

    @property
    def inputs(self) -> tuple[tuple[str, Stream], ...]:
        """Streams that it reads, with their prefixes."""
        return tuple((prefix, stream) for prefix, stream in self.ports.items() if not prefix.startswith("m"))

    @property
    def outputs(self) -> tuple[tuple[str, Stream], ...]:
        """Streams that it writes, with their prefixes."""
        return tuple((prefix, stream) for prefix, stream in self.ports.items() if prefix.startswith("m"))


@dataclass(frozen=True)
class Netlist:
    """Instances in the order of the stream. input and output are the top's own streams, "s" and "m".

    Where weights are written at run time there is a third one, "w": beats of all CONV_LOAD instances in their order.
    """

    name: str
    size: tuple[int, int]
    input: Stream
    output: Stream
    instances: tuple[Instance, ...]

    @property
    def loaded(self) -> tuple[Instance, ...]:
        """Instances whose weights are written at run time."""
        return tuple(instance for instance in self.instances if instance.module == CONV_LOAD)

    @property
    def weights(self) -> Stream | None:
        """Stream "w": a set of weights as a frame of one row; None where no weights are written."""
        beats = sum(len(instance.loads) for instance in self.loaded)
        return Stream("w", 1, beats, 1, 1, LOAD_BITS, False) if beats else None

    @property
    def loads(self) -> tuple[int, ...]:
        """The beats of "w"."""
        return tuple(beat for instance in self.loaded for beat in instance.loads)

    @property
    def weights_entry(self) -> Instance | None:
        """Where "w" enters: only whole sets pass. The CONV_LOAD instances follow it in a chain."""
        stream = self.weights
        if stream is None:
            return None
        parameters: dict[str, int | str] = {
            "HEIGHT": 1, "WIDTH": stream.width, "CHANNELS": 1, "LANES": 1, "BITS": LOAD_BITS,
        }  # fmt: skip
        ports = {"s": stream, "m": replace(stream, name=chain_name(0))}
        return Instance("srq_input", "weights", parameters, ports, comment="whole sets of weights only")


def chain_name(place: int) -> str:
    """The stream of weights in front of the CONV_LOAD instance at that place."""
    return f"weights__{place}"
