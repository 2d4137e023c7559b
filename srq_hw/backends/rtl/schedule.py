"""When every beat of a design arrives, by analysis; from that its latency and, in `fifos`, the depth of its FIFOs.

Model. Each unit turns beats of its inputs into beats of its output: output beat k needs input beats up to need[k],
leaves at least `interval` cycles after beat k - 1 and `latency` cycles after the last beat that it needs,

    out[k] = max(in[need[k]] + latency, out[k - 1] + interval),

with unlimited memory between units. The source sends frames evenly, one per P cycles (P: cycles of the slowest unit).
At a join (Add, Concat) the beat of one arm waits for that of the other; what waits is what a FIFO must hold. A design
is a marked graph: with buffers that permit this schedule it is at least this fast however early the source sends, and
it cannot deadlock, because a deadlock would stop the schedule, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log2

import numpy as np

from srq_hw.backends.rtl.netlist import CONVS, Instance, Netlist, Stream
from srq_hw.graph.ir import Int

#: frames looked at, unless a beat waits longer than one: the second one meets what the first has left behind
FRAMES = 2
#: cycles that a convolution's parts take from the last input beat to the result, besides the adder trees
CONV_LATENCY = 14


@dataclass(frozen=True)
class Rule:
    """How a unit's output beats depend on the beats of each input (prefix -> index of the last beat needed)."""

    needs: Mapping[str, Int]
    latency: int
    interval: int = 1


def _number(instance: Instance, key: str, default: int = 0) -> int:
    value = instance.parameters.get(key, default)
    assert isinstance(value, int), (instance.name, key, value)
    return value


def _in_order(instance: Instance) -> Rule:
    """Beat k of every input makes beat k of the output."""
    out = instance.ports["m"] if "m" in instance.ports else instance.ports["m0"]
    beats = np.arange(out.beats)
    return Rule({prefix: beats for prefix, _ in instance.inputs}, _LATENCY[instance.module])


def _threshold(instance: Instance) -> Rule:
    return Rule({"s": np.arange(instance.ports["m"].beats)}, 2 * _number(instance, "BITS") + 1)


def _conv(instance: Instance) -> Rule:
    source, out = instance.ports["s"], instance.ports["m"]
    rows, columns = _number(instance, "KH"), _number(instance, "KW")
    y = np.minimum(np.arange(out.height) + rows // 2, source.height - 1)
    x = np.minimum(np.arange(out.width) + columns // 2, source.width - 1)
    last = (y[:, None] * source.width + x[None, :] + 1) * source.folds - 1
    depthwise, groups = _number(instance, "DEPTHWISE"), _number(instance, "GROUPS", 1)
    inside = 1 if depthwise else source.folds // groups
    latency = CONV_LATENCY + ceil(log2(max(source.lanes, 2)))
    interval = rows * columns * inside
    return Rule({"s": np.repeat(last.reshape(-1), out.folds)}, latency + interval, interval)


def _width(instance: Instance) -> Rule:
    source, out = instance.ports["s"], instance.ports["m"]
    values = (np.arange(out.beats) + 1) * out.lanes
    # Words of a common multiple are gathered whole.
    word = int(np.lcm(source.lanes, out.lanes))
    return Rule({"s": (-(-values // word) * word) // source.lanes - 1}, 2)


def _concat(instance: Instance) -> Rule:
    a, b = instance.ports["a"], instance.ports["b"]
    pixel, place = np.divmod(np.arange(instance.ports["m"].beats), a.folds + b.folds)
    return Rule(
        {
            "a": np.where(place < a.folds, pixel * a.folds + place, (pixel + 1) * a.folds - 1),
            "b": np.where(place < a.folds, pixel * b.folds - 1, pixel * b.folds + place - a.folds),
        },
        1,
    )


def _slice(instance: Instance) -> Rule:
    source, out = instance.ports["s"], instance.ports["m"]
    pixel, place = np.divmod(np.arange(out.beats), out.folds)
    return Rule({"s": pixel * source.folds + _number(instance, "FIRST") // source.lanes + place}, 1)


def _by_rows(instance: Instance) -> Rule:
    """A row of the input must be complete before the first of the rows that it makes begins."""
    source, out = instance.ports["s"], instance.ports["m"]
    factor = out.height // source.height
    row = np.arange(out.height) // factor
    last = (row + 1) * source.width * source.folds - 1
    return Rule({"s": np.repeat(last, out.width * out.folds)}, 4)


_LATENCY = {
    "srq_input": 1,
    "srq_output": 1,
    "srq_duplicate": 1,
    "srq_fifo": 2,
    "srq_requant": 9,
    "srq_offset": 2,
    "srq_add": 3,
}
RULES: dict[str, Callable[[Instance], Rule]] = {
    **dict.fromkeys(_LATENCY, _in_order),
    "srq_threshold": _threshold,
    **dict.fromkeys(CONVS, _conv),
    "srq_width": _width,
    "srq_concat": _concat,
    "srq_slice": _slice,
    "srq_shuffle": _by_rows,
    "srq_repeat": _by_rows,
}


@dataclass(frozen=True)
class Schedule:
    """Cycle in which every beat arrives, per stream, int64 (frames * beats,), and in which its reader takes it."""

    arrives: Mapping[str, Int]
    leaves: Mapping[str, Int]
    period: int

    @property
    def latency(self) -> int:
        """Cycles from the first beat in to the first beat out."""
        return int(self.arrives["m"][0])

    def waiting(self, stream: str, end: str = "") -> int:
        """The most beats at any moment between a stream and the reader of `end`, the same beats later on the way."""
        return _most(self.arrives[stream], self.leaves[end or stream])

    def behind(self, way: Sequence[Instance]) -> int:
        """The most beats that wait behind units in a row although the first takes every beat as late as it may.

        Where a burst is wanted that they are too slow for they must be early, and a FIFO in front does not do.
        """
        if not way:
            return 0
        times = self.leaves[way[0].inputs[0][1].name]
        frames = len(times) // way[0].inputs[0][1].beats
        for instance in way:
            times = _passed(RULES[instance.module](instance), instance, [times], frames)
        return _most(times, self.leaves[way[-1].outputs[0][1].name])

    @property
    def patience(self) -> int:
        """The most cycles that any beat waits for its reader."""
        return max(int((self.leaves[name] - arrives).max()) for name, arrives in self.arrives.items())


def steady(netlist: Netlist, period: int) -> Schedule:
    """The schedule of so many frames that the last one meets all that may still wait of those before.

    Small frames in a deep design: a skip holds beats of several of them.
    """
    found = schedule(netlist, period)
    frames = 1 + ceil(found.patience / period)
    return found if frames <= FRAMES else schedule(netlist, period, frames)


def schedule(netlist: Netlist, period: int, frames: int = FRAMES) -> Schedule:
    """Arrival and departure of every beat for frames that are sent evenly, one per `period` cycles."""
    source = netlist.input
    beats = np.arange(frames * source.beats)
    arrives: dict[str, Int] = {source.name: beats * period // source.beats}
    rules: dict[str, Rule] = {}
    for instance in netlist.instances:
        rule = rules[instance.name] = RULES[instance.module](instance)
        out = _passed(rule, instance, [arrives[stream.name] for _, stream in instance.inputs], frames)
        for _, stream in instance.outputs:
            arrives[stream.name] = out
    return Schedule(arrives, _departures(netlist, rules, arrives, frames), period)


def _passed(rule: Rule, instance: Instance, times: Sequence[Int], frames: int) -> Int:
    """When a unit's output beats leave it, from the times at which those of each input arrive."""
    ready = np.max(
        [
            _at(arrives, rule.needs[prefix], stream, frames)
            for (prefix, stream), arrives in zip(instance.inputs, times, strict=True)
        ],
        axis=0,
    )
    steps = np.arange(len(ready)) * rule.interval
    return np.maximum.accumulate(ready + rule.latency - steps) + steps


def _most(arrives: Int, leaves: Int) -> int:
    """The most beats that have arrived and not left at any moment."""
    gone = np.searchsorted(leaves, arrives, side="right")
    return int((np.arange(1, len(arrives) + 1) - gone).max())


def _at(arrives: Int, need: Int, stream: Stream, frames: int) -> Int:
    """Arrival of the needed beats, frame after frame; an index of -1 needs nothing of its frame."""
    return np.concatenate([arrives[np.maximum(need + frame * stream.beats, 0)] for frame in range(frames)])


def _departures(netlist: Netlist, rules: Mapping[str, Rule], arrives: Mapping[str, Int], frames: int) -> dict[str, Int]:
    """The latest cycle in which each beat may be taken so that nothing behind it is late, from the output backwards."""
    leaves: dict[str, Int] = {netlist.output.name: arrives[netlist.output.name]}
    for instance in reversed(netlist.instances):
        rule = rules[instance.name]
        wanted = leaves[instance.outputs[0][1].name]
        if len(instance.outputs) > 1:  # a fork hands on at once
            wanted = arrives[instance.outputs[0][1].name]
        wanted = _spaced(wanted, rule.interval)
        for prefix, stream in instance.inputs:
            need = rule.needs[prefix]
            user = np.searchsorted(need, np.arange(stream.beats), side="left")
            first = np.concatenate([user + frame * len(need) for frame in range(frames)])
            # Beats that nobody needs (a slice drops them) leave with the next one that somebody does.
            by = np.append(wanted, wanted[-1])[np.minimum(first, len(wanted))] - rule.latency
            leaves[stream.name] = np.maximum(_spaced(by, 1), arrives[stream.name])
    return leaves


def _spaced(times: Int, interval: int) -> Int:
    """The latest times, none later than given, that lie the interval apart."""
    steps = np.arange(len(times)) * interval
    return np.minimum.accumulate((times - steps)[::-1])[::-1] + steps
