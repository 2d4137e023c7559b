"""From an IntGraph to a plan: which nodes run as one step, with which kernel, in which order, in which buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from srq_hw.graph.check import bounds, verify
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.opspec import Bounds
from srq_hw.graph.resampling import depth_to_space_order
from srq_hw.simulate.convolve import Convolution, choose
from srq_hw.simulate.kernels import EXACT, requant_is_exact, requant_of
from srq_hw.simulate.steps import AddRequant, ByDefinition, ConvOnly, ConvRequant, Filter, Step
from srq_hw.simulate.storage import Store, choose_stores


@dataclass(frozen=True, eq=False)
class Job:
    """Steps that run one after the other on the same strip of rows; rows are counted at ``upscale``.

    Strips of one job are independent of each other. row_values: values per row and column that its first step makes.
    """

    steps: tuple[Step, ...]
    upscale: int
    row_values: int


@dataclass(frozen=True, eq=False)
class Plan:
    """A compiled graph. slots: tensor -> buffer; tensors that never live at the same time may share one."""

    graph: IntGraph
    stores: Mapping[str, Store]
    jobs: tuple[Job, ...]
    slots: Mapping[str, int]
    #: tensors that exist only behind a DepthToSpace, as the node that moved them
    shuffled: Mapping[str, Node] = field(default_factory=dict)

    @property
    def bytes_per_pixel(self) -> int:
        """Memory of all buffers per pixel of the input image, borders left out."""
        size: dict[int, int] = {}
        for name, slot in self.slots.items():
            store = self.stores[name]
            size[slot] = store.channels * store.upscale**2 * np.dtype(store.dtype).itemsize
        return sum(size.values())

    @property
    def kernels(self) -> dict[str, str]:
        """Conv node -> name of its kernel."""
        steps = [step for job in self.jobs for step in job.steps if isinstance(step, ConvRequant | ConvOnly)]
        return {step.nodes[0]: step.convolution.kernel for step in steps}


def make_plan(graph: IntGraph, kernel: str | None = None) -> Plan:
    """Plan a well-formed graph (InputError otherwise). kernel: as in `convolve.kernel_order`."""
    verify(graph)
    reach = bounds(graph)
    stores = choose_stores(graph, reach)
    steps: list[Step] = []
    shuffled: dict[str, Node] = {}
    done: set[str] = set()
    for node in graph.nodes:
        if node.name in done:
            continue
        chain = _chain(graph, node)
        step = _fuse(graph, chain, stores, reach, kernel) or _single(graph, node, stores, kernel)
        if len(step.nodes) == 3:
            shuffled[chain[1].output] = chain[2]
        done.update(step.nodes)
        steps.append(step)
    jobs = _group(steps)
    return Plan(graph, stores, jobs, _slots(graph, jobs, stores), shuffled)


def _chain(graph: IntGraph, node: Node) -> list[Node]:
    """The node, the Requant that alone reads it, and the DepthToSpace that alone reads that."""
    chain = [node]
    if node.op in ("Conv", "Add"):
        for op in ("Requant", "DepthToSpace"):
            readers = graph.consumers(chain[-1].output)
            if chain[-1].output == graph.output or len(readers) != 1 or readers[0].op != op:
                break
            chain.append(readers[0])
    return chain


def _fuse(
    graph: IntGraph, chain: list[Node], stores: Mapping[str, Store], reach: Mapping[str, Bounds], kernel: str | None
) -> Step | None:
    """The chain, or as much of it as float64 computes exactly and bytes hold, as one step; None where there is none."""
    if len(chain) < 2:
        return None
    node, requant = chain[0], chain[1]
    acc = reach[node.output]
    if not stores[requant.output].small or not requant_is_exact(requant, int(acc.lo.min()), int(acc.hi.max())):
        return None
    if node.op == "Add":
        return _fuse_add(graph, node, requant, stores)
    channels = graph.tensors[node.output].channels
    order, block, nodes = np.arange(channels), 1, chain[:2]
    if len(chain) == 3:
        wanted = depth_to_space_order(channels, chain[2].int_attr("block"), chain[2].str_attr("mode"))
        if node.int_attr("groups") == 1 or (wanted == order).all():
            order, block, nodes = wanted, chain[2].int_attr("block"), chain
    source, target = stores[node.inputs[0]], stores[nodes[-1].output]
    if (target.dtype, target.offset) != (stores[requant.output].dtype, stores[requant.output].offset):
        return None
    convolution = choose(node, source, order, kernel)
    if convolution.kernel == "int64" or int(np.abs(convolution.bias).max()) >= EXACT:
        return None
    return ConvRequant(
        source,
        target,
        convolution,
        convolution.bias.astype(np.float64),
        requant_of(requant, channels, order),
        block,
        tuple(n.name for n in nodes),
    )


def _fuse_add(graph: IntGraph, node: Node, requant: Node, stores: Mapping[str, Store]) -> Step | None:
    a, b = (stores[name] for name in node.inputs)
    ma, mb = node.ints_attr("multipliers")
    constant = -(a.zero * ma + b.zero * mb)
    if not (a.small and b.small) or 255 * (ma + mb) + abs(constant) >= EXACT:
        return None
    channels = graph.tensors[node.output].channels
    form = requant_of(requant, channels, np.arange(channels))
    target = stores[requant.output]
    return AddRequant(a, b, target, (float(ma), float(mb)), float(constant), form, (node.name, requant.name))


def _single(graph: IntGraph, node: Node, stores: Mapping[str, Store], kernel: str | None) -> Step:
    ins = tuple(graph.tensors[name] for name in node.inputs)
    sources, target = tuple(stores[name] for name in node.inputs), stores[node.output]
    if node.op == "ResizeFilter":
        return Filter(node, sources[0], target, (node.name,))
    if node.op != "Conv":
        return ByDefinition(node, ins, sources, target, (node.name,))
    convolution: Convolution = choose(node, sources[0], np.arange(target.channels), kernel)
    return ConvOnly(sources[0], target, convolution, (node.name,))


def _group(steps: list[Step]) -> tuple[Job, ...]:
    """A new job at every convolution and filter, and where a step works at a size that is no multiple of its job's."""
    groups: list[list[Step]] = []
    for step in steps:
        looks_around = isinstance(step, Filter) or (
            isinstance(step, ConvRequant | ConvOnly) and step.convolution.pad[0] > 0
        )
        if not groups or looks_around or step.sources[0].upscale % groups[-1][0].sources[0].upscale:
            groups.append([])
        groups[-1].append(step)
    return tuple(Job(tuple(group), group[0].sources[0].upscale, _row_values(group)) for group in groups)


def _row_values(group: list[Step]) -> int:
    base = group[0].sources[0].upscale
    return max(step.target.channels * (step.target.upscale // base) ** 2 for step in group)


def _slots(graph: IntGraph, jobs: tuple[Job, ...], stores: Mapping[str, Store]) -> dict[str, int]:
    """First fit over the jobs; only maps of one shape, type and border value share a buffer, so the border stays."""
    last_use = {store.name: index for index, job in enumerate(jobs) for step in job.steps for store in step.sources}
    last_use[graph.output] = len(jobs)
    slots: dict[str, int] = {}
    forms: list[tuple[object, ...]] = []
    busy_until: list[int] = []

    def place(name: str, job: int) -> None:
        store = stores[name]
        form = (store.channels, store.upscale, store.dtype, store.zero, store.top, store.left)
        free = (i for i, f in enumerate(forms) if f == form and busy_until[i] < job)
        slot = next(free, len(forms))
        if slot == len(forms):
            forms.append(form)
            busy_until.append(0)
        slots[name] = slot
        busy_until[slot] = last_use.get(name, job)

    place(graph.input, 0)
    for index, job in enumerate(jobs):
        for step in job.steps:
            place(step.target.name, index)
    return slots
