"""A float network as ONNX: what the peers quantize."""

from __future__ import annotations

import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import fx, nn

from srq_hw.errors import RunError
from srq_hw.files import write_bytes
from srq_hw.networks.bicubic import BicubicUpsample

_EXPORT_SIDE = (24, 32)
_MEAN_SHIFT = (3, 3, 1, 1)


def export_onnx(name: str, module: nn.Module, channels: int, path: Path) -> None:
    """Write a float module as ONNX with free height and width, without anything that names this machine."""
    sides = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    with warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):
        warnings.simplefilter("ignore")  # torch's exporter warns of its own deprecations
        program = torch.onnx.export(
            module,
            (torch.zeros(1, channels, *_EXPORT_SIDE),),
            dynamo=True,
            input_names=["image"],
            output_names=["sr"],
            dynamic_shapes=(sides,),
            opset_version=18,
            verbose=False,
        )
    if program is None:
        raise RunError(f"network {name}: torch's ONNX exporter gave nothing")
    proto = program.model_proto
    for item in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    onnx.checker.check_model(proto)
    write_bytes(path, proto.SerializeToString(deterministic=True))


def split_bicubic(module: nn.Module) -> tuple[nn.Module, nn.Module | None]:
    """A network that ends in `y + bicubic(image)` as its learned part and the bicubic layer; any other as it is.

    Peers would quantize the interpolation's kernel like learned weights, which no user of theirs would do.
    """
    if not any(isinstance(part, BicubicUpsample) for part in module.modules()):
        return module, None
    tracer = _Tracer()
    graph = tracer.trace(module)
    for node in graph.nodes:
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if not isinstance(layer, BicubicUpsample) or node.args[0].op != "placeholder":
            continue
        users = list(node.users)
        if len(users) == 1 and users[0].target is operator.add and [u.op for u in users[0].users] == ["output"]:
            total = users[0]
            rest = next(item for item in total.args if item is not node)
            total.replace_all_uses_with(rest)
            graph.erase_node(total)
            graph.erase_node(node)
            core = fx.GraphModule(module, graph)
            core.eval()
            return core, layer
    return module, None


def head_and_tail(model: onnx.ModelProto) -> tuple[str, ...]:
    """Weights of the convolutions that no other one precedes, or none follows; a 1x1 mean shift does not count."""
    graph = model.graph
    shapes = {item.name: tuple(item.dims) for item in graph.initializer}
    forward = [(tuple(node.input), tuple(node.output), node) for node in graph.node]
    backward = [(results, sources, node) for sources, results, node in reversed(forward)]
    found: list[str] = []
    for steps, start in ((forward, graph.input[0].name), (backward, graph.output[0].name)):
        reached = {start}
        for near, far, node in steps:
            if not reached.intersection(near):
                continue
            if node.op_type in ("Conv", "ConvTranspose"):
                found.append(node.input[1])
                if shapes[node.input[1]] != _MEAN_SHIFT:
                    continue
            reached.update(name for name in far if name not in shapes)
    return tuple(dict.fromkeys(found))


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silence one logger: torch's exporter reports on every export that torchvision is not installed."""
    logger = logging.getLogger(name)
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return isinstance(module, BicubicUpsample) or super().is_leaf_module(module, qualified_name)
