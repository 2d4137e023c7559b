"""The walk over a torch.fx graph: one layer of `normalform.normal` after the other, constants computed on the way."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn

from srq_hw.errors import InputError
from srq_hw.networks.loading import FloatNetwork
from srq_hw.normalform.normal import Layer, NormalNet, channel_counts


class Parts(tuple[str, ...]):
    """Layer names of the pieces that split or chunk made."""


class Translator:
    """Walks the fx graph once; `values` holds a layer name (feature map) or a constant for every fx node."""

    def __init__(
        self, net: FloatNetwork, traced: fx.GraphModule, modules: ModuleTable, functions: FunctionTable
    ) -> None:
        self.net, self.traced = net, traced
        self.module_table, self.function_table = modules, functions
        self.modules = dict(traced.named_modules())
        self.layers: list[Layer] = []
        self.values: dict[fx.Node, Any] = {}

    def run(self) -> NormalNet:
        output: str | None = None
        for node in self.traced.graph.nodes:
            if node.op == "output":
                output = self._output_name(node)
            elif node.op == "placeholder":
                self._placeholder(node)
            else:
                self.values[node] = self._translate(node)
        layers = tuple(_reachable(self.layers, output or ""))
        return NormalNet(self.net.name, layers, self.net.input_max, self.net.channels)

    def _placeholder(self, node: fx.Node) -> None:
        if self.layers:
            raise self.error(node, "a second input; one image goes in")
        self.layers.append(Layer("image", "image", ()))
        self.values[node] = "image"

    def _output_name(self, node: fx.Node) -> str:
        result = node.args[0]
        if not isinstance(result, fx.Node) or not self.is_map(result):
            raise self.error(node, "the output must be one image tensor")
        name: str = self.values[result]
        return name

    def _translate(self, node: fx.Node) -> Any:
        maps = [arg for arg in node.all_input_nodes if self.is_map(arg)]
        pieces = self.values.get(node.args[0]) if node.args and isinstance(node.args[0], fx.Node) else None
        if isinstance(pieces, Parts):
            return self._piece(node, pieces)
        if not maps:
            return self._constant(node)
        first = next((key for key in ("input", "tensors") if not node.args and key in node.kwargs), None)
        if first:  # f(input=x) becomes f(x): the tables below read it by position
            node.args = (node.kwargs[first],)
            node.kwargs = {key: value for key, value in node.kwargs.items() if key != first}
        self._refuse_hidden_change(node, maps[0])
        if node.op == "call_module":
            module = self.modules[str(node.target)]
            for kind, build in self.module_table.items():
                if isinstance(module, kind):
                    return build(self, node, module)
            raise self.error(
                node, f"module {type(module).__name__}", sorted(kind.__name__ for kind in self.module_table)
            )
        key = node.target if node.op == "call_function" else str(node.target)
        function = self.function_table.get(key)
        if function is None:
            known = sorted({name for name in self.function_table if isinstance(name, str)})
            raise self.error(node, f"function {getattr(key, '__name__', key)}", known)
        return function(self, node)

    def _piece(self, node: fx.Node, pieces: Parts) -> str:
        """One of the tensors that split or chunk returned."""
        index = node.args[1] if node.target is operator.getitem else None
        if not isinstance(index, int) or not -len(pieces) <= index < len(pieces):
            raise self.error(node, "pieces of a split that are not taken one by one (a, b = torch.split(...))")
        return pieces[index]

    def _refuse_hidden_change(self, node: fx.Node, changed: fx.Node) -> None:
        """An in-place operation whose input is read again later: the later reader would see the changed values."""
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        name = str(node.target) if node.op == "call_method" else getattr(node.target, "__name__", "")
        in_place = (
            (name.endswith("_") and not name.endswith("__"))
            or node.target in (operator.iadd, operator.isub, operator.imul)
            or node.kwargs.get("inplace", False)
            or getattr(module, "inplace", False)
        )
        if not in_place:
            return
        order = {item: index for index, item in enumerate(self.traced.graph.nodes)}
        same = [item for item in self.values if self.values[item] == self.values[changed] and self.is_map(item)]
        later = [user for item in same for user in item.users if order[user] > order[node]]
        if later:
            raise self.error(
                node, f"an in-place operation on {changed.name}, which {later[0].name} still reads afterwards,"
            )

    # --- helpers the tables use -----------------------------------------------------------------------------------

    def is_map(self, value: Any) -> bool:
        return isinstance(value, fx.Node) and isinstance(self.values.get(value), str)

    def _constant(self, node: fx.Node) -> Any:
        """Everything that depends on no image is computed now."""
        if node.op == "get_attr":
            value: Any = self.traced
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value.detach().double() if isinstance(value, Tensor) else value
        args = fx.node.map_arg(node.args, lambda arg: self.values[arg])
        kwargs = fx.node.map_arg(node.kwargs, lambda arg: self.values[arg])
        if node.op == "call_function":
            return node.target(*args, **kwargs)  # type: ignore[operator]
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        raise self.error(node, f"{node.op} {node.target} without an image input")

    def constant(self, value: Any, node: fx.Node) -> Tensor:
        """A scalar or a per-channel constant as float64 (1,) or (C,)."""
        if isinstance(value, fx.Node):
            value = self.values[value]
        tensor = torch.as_tensor(value, dtype=torch.float64)
        squeezed = tensor.reshape(-1)
        if tensor.numel() != 1 and not (tensor.dim() >= 3 and tensor.shape[-1] == tensor.shape[-2] == 1):
            raise self.error(node, f"a constant of shape {tuple(tensor.shape)}; one number or (C, 1, 1) is possible")
        return squeezed

    def emit(self, node: fx.Node, op: str, inputs: list[Any], **fields: Any) -> str:
        names = tuple(self.values[item] for item in inputs)
        self.layers.append(Layer(op, node.name, names, **fields))
        return node.name

    def channels_of(self, value: Any) -> int:
        """Channels of a feature map."""
        return channel_counts(self.layers, self.net.channels)[self.values[value]]

    def slice(self, node: fx.Node, source: Any, first: int, last: int, name: str | None = None) -> str:
        """Channels first .. last - 1; all of them are the tensor itself."""
        channels = self.channels_of(source)
        if not 0 <= first < last <= channels:
            raise self.error(node, f"channels {first} to {last} of {channels}")
        if (first, last) == (0, channels):
            whole: str = self.values[source]
            return whole
        self.layers.append(Layer("slice", name or node.name, (self.values[source],), span=(first, last)))
        return name or node.name

    def affine(self, node: fx.Node, source: Any, scale: Any, shift: Any) -> str:
        return self.emit(node, "affine", [source], scale=self.constant(scale, node), shift=self.constant(shift, node))

    def error(self, node: fx.Node, what: str, known: list[str] | None = None) -> InputError:
        hint = f"; supported are {', '.join(known)}" if known else ""
        return InputError(f"network {self.net.name}, layer {node.name}: {what} cannot run on integer hardware{hint}")


def _reachable(layers: list[Layer], output: str) -> list[Layer]:
    needed, kept = {output}, []
    for layer in reversed(layers):
        if layer.name in needed:
            kept.append(layer)
            needed.update(layer.inputs)
    return kept[::-1]


#: torch module -> what it becomes: the name of the layer that carries its output
ModuleTable = Mapping[type[nn.Module], Callable[[Translator, fx.Node, Any], str]]
#: torch function by object, tensor method by name -> the same, or Parts
FunctionTable = Mapping[Any, Callable[[Translator, fx.Node], Any]]
