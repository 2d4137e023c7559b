"""Speed of the fast simulator against the float network in PyTorch, onnxruntime QDQ and QONNX: EDSR 8x64 x2.

    .venv/bin/python scripts/bench_simulate.py [--quick] [--threads N] [--size 180]

All contenders run the same integer network (random 8-bit weights) on the same image in one process, one after the other
in every round; a ratio is the median over the rounds of peer / fast. Prints a table and, as last line, JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.basic import qonnx_make_model
from torch import nn

from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.networks.edsr import ResidualBlock, conv3x3
from srq_hw.simulate import fast, reference, tiles

UHD = (1080, 1920)  #: input of the 4K run: 3840 x 2160 comes out
MEMORY_LIMIT = 2 << 30
Image = npt.NDArray[np.uint8]


# --- the same network for the peers -------------------------------------------------------------------------------


class FloatEdsr(nn.Module):
    """Float network of `edsr_graph`'s shape: head, residual blocks, tail, global skip, up, shuffle, last."""

    def __init__(self, features: int, blocks: int, scale: int = 2) -> None:
        super().__init__()
        self.head, self.tail = conv3x3(3, features), conv3x3(features, features)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.up, self.last = conv3x3(features, features * scale**2), conv3x3(features, 3)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        head = self.head(x)
        out: torch.Tensor = self.last(self.shuffle(self.up(self.tail(self.body(head)) + head)))
        return out


def ratio_of(requant: Node) -> npt.NDArray[np.float64]:
    """M / 2**S of a Requant, per channel or one."""
    return np.ldexp(requant.params["multiplier"].astype(np.float64), -requant.params["shift"].astype(np.int32))


def tensor_scales(graph: IntGraph) -> dict[str, float]:
    """Real scales that make the float-scaled peers compute the integer network: both inputs of an Add share theirs."""
    scales = {graph.input: 1.0}
    for node in graph.nodes:
        if node.op == "Requant":
            producer = graph.producer(node.inputs[0])
            assert producer is not None
            if producer.op == "Add":
                scales[node.output] = scales[producer.inputs[0]] / float(ratio_of(node)[0])
                continue
            partners = [i for n in graph.consumers(node.output) if n.op == "Add" for i in n.inputs if i in scales]
            scales[node.output] = scales[partners[0]] if partners else 1.0
        elif node.op == "DepthToSpace":
            scales[node.output] = scales[node.inputs[0]]
    return scales


class OnnxWriter:
    """Collects nodes and constants; `quantize` says how an activation is quantized, `weights` how weights are given."""

    def __init__(self, graph: IntGraph) -> None:
        self.graph, self.scales = graph, tensor_scales(graph)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"n{len(self.nodes)}", **attributes))
        return name

    def weights(self, node: Node, scale: npt.NDArray[np.float64], scale_in: float) -> tuple[str, str]:
        raise NotImplementedError

    def quantize(self, real: str, tensor: str) -> str:
        raise NotImplementedError

    def read(self, value: str, tensor: str) -> str:
        raise NotImplementedError

    def shuffle(self, value: str, node: Node) -> str:
        return self.op("DepthToSpace", [value], blocksize=node.int_attr("block"), mode=node.str_attr("mode"))

    def write(self) -> str:
        """Walk the graph; returns the name of the output value."""
        values = {self.graph.input: self.quantize("image", self.graph.input)}
        for node in self.graph.nodes:
            if node.op == "Requant":
                producer = self.graph.producer(node.inputs[0])
                assert producer is not None
                inputs = [self.read(values[name], name) for name in producer.inputs]
                if producer.op == "Conv":
                    scale_in = self.scales[producer.inputs[0]]
                    scale = ratio_of(node) * self.scales[node.output] / scale_in
                    inputs += self.weights(producer, scale, scale_in)
                    real = self.op("Conv", inputs, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
                else:
                    real = self.op("Add", inputs)
                values[node.output] = self.quantize(real, node.output)
            elif node.op == "DepthToSpace":
                values[node.output] = self.shuffle(values[node.inputs[0]], node)
        return self.op("Identity", [self.read(values[self.graph.output], self.graph.output)], "upscaled")

    def model(self, height: int, width: int, opset: int) -> onnx.ModelProto:
        self.write()
        scale = self.graph.upscale
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, height, width])
        out = helper.make_tensor_value_info("upscaled", TensorProto.FLOAT, [1, 3, height * scale, width * scale])
        body = helper.make_graph(self.nodes, "bench", [image], [out], self.constants)
        return qonnx_make_model(body, opset_imports=[helper.make_opsetid("", opset)])


class QdqWriter(OnnxWriter):
    """QuantizeLinear / DequantizeLinear around every operation, uint8 activations: what onnxruntime fuses best."""

    def _form(self, tensor: str) -> list[str]:
        zero_point = 128 if self.graph.tensors[tensor].signed else 0
        return [self.constant(np.float32(self.scales[tensor])), self.constant(np.uint8(zero_point))]

    def quantize(self, real: str, tensor: str) -> str:
        return self.op("QuantizeLinear", [real, *self._form(tensor)])

    def read(self, value: str, tensor: str) -> str:
        return self.op("DequantizeLinear", [value, *self._form(tensor)])

    def weights(self, node: Node, scale: npt.NDArray[np.float64], scale_in: float) -> tuple[str, str]:
        def dequantized(value: npt.NDArray[Any], scales: npt.NDArray[np.float64]) -> str:
            zero = self.constant(np.zeros(len(scales), value.dtype))
            inputs = [self.constant(value), self.constant(scales.astype(np.float32)), zero]
            return self.op("DequantizeLinear", inputs, axis=0)

        weight, bias = node.params["weight"].astype(np.int8), node.params["bias"].astype(np.int32)
        return dequantized(weight, scale), dequantized(bias, scale * scale_in)


class QonnxWriter(OnnxWriter):
    """Quant nodes on activations and weights, floats in between: the QONNX form."""

    def _quant(self, real: str, scale: npt.NDArray[np.float64], signed: bool) -> str:
        inputs = [
            real,
            self.constant(scale.astype(np.float32)),
            self.constant(np.float32(0)),
            self.constant(np.float32(8)),
        ]
        return self.op(
            "Quant", inputs, domain="qonnx.custom_op.general", signed=int(signed), narrow=0, rounding_mode="ROUND"
        )

    def quantize(self, real: str, tensor: str) -> str:
        return self._quant(real, np.array(self.scales[tensor]), self.graph.tensors[tensor].signed)

    def read(self, value: str, tensor: str) -> str:
        return value

    def weights(self, node: Node, scale: npt.NDArray[np.float64], scale_in: float) -> tuple[str, str]:
        per_channel = scale[:, None, None, None]
        weight = self.constant((node.params["weight"] * per_channel).astype(np.float32))
        bias = self.constant((node.params["bias"] * scale * scale_in).astype(np.float32))
        return self._quant(weight, per_channel, signed=True), bias


# --- contenders ---------------------------------------------------------------------------------------------------


def torch_contender(size: int, layout: torch.memory_format) -> Callable[[], object]:
    torch.manual_seed(0)
    net = FloatEdsr(64, 8).eval()
    net.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.rand(1, 3, size, size).contiguous(memory_format=layout)

    def call() -> object:
        with torch.inference_mode():
            return net(x)

    return call


def ort_contender(graph: IntGraph, image: Image, threads: int) -> Callable[[], npt.NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = QdqWriter(graph).model(image.shape[0], image.shape[1], 17)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": nchw(image)})[0]


def qonnx_contender(graph: IntGraph, image: Image) -> Callable[[], npt.NDArray[np.float32]]:
    model = ModelWrapper(QonnxWriter(graph).model(image.shape[0], image.shape[1], 17))
    model = model.transform(InferShapes())
    return lambda: execute_onnx(model, {"image": nchw(image)})["upscaled"]


def nchw(image: Image) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


def seconds(call: Callable[[], object]) -> float:
    time.sleep(0.02)  # worker threads of the previous contender stop spinning
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def interleaved(contenders: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, npt.NDArray[np.float64]]:
    """Seconds per contender and round, after two rounds that do not count."""
    times = [{name: seconds(call) for name, call in contenders.items()} for _ in range(rounds + 2)]
    return {name: np.array([found[name] for found in times[2:]]) for name in contenders}


# --- 4K -----------------------------------------------------------------------------------------------------------


def peak_bytes() -> int:
    """Largest resident memory of this process, from Linux; ru_maxrss would be the parent's where that was larger."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def uhd_run(threads: int) -> dict[str, float]:
    """One tiled 4K output; peak memory is that of this whole process. Checks a crop against the reference."""
    graph = edsr_graph(64, 8)
    image = np.random.default_rng(4).integers(0, 256, (*UHD, 3), dtype=np.uint8)
    program = fast.compile_graph(graph, threads)
    begin = time.perf_counter()
    out = program.run(image)
    elapsed = time.perf_counter() - begin
    peak = peak_bytes()
    side = tiles.tile_side("auto", *UHD, program.plan)
    cut = tiles.spans(UHD[1], side, 0)[0].last  # a crop across the first cut between two tiles
    margin, scale = tiles.halo(graph), graph.upscale
    first, rows = cut - 6, slice(300 - margin, 312 + margin)
    wanted = reference.run(graph, image[rows, first - margin : first + 12 + margin])
    inside = slice(margin * scale, (margin + 12) * scale)
    found = out[:, 300 * scale : 312 * scale, first * scale : (first + 12) * scale]
    wrong = int((found != wanted[:, inside, inside]).sum())
    return {"seconds": elapsed, "peak_bytes": peak, "tile": side, "mismatches": wrong}


def uhd_in_own_process(threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--uhd-only", "--threads", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


# --- main ---------------------------------------------------------------------------------------------------------


def bench(size: int, threads: int, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(threads)
    graph = edsr_graph(64, 8)
    image = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    begin = time.perf_counter()
    program = fast.compile_graph(graph, threads)
    out = program.run(image)
    first = time.perf_counter() - begin
    ort = ort_contender(graph, image, threads)
    contenders: dict[str, Callable[[], object]] = {
        "fast": lambda: program.run(image),
        "torch_channels_last": torch_contender(size, torch.channels_last),
        "torch_default": torch_contender(size, torch.contiguous_format),
        "onnxruntime_qdq": ort,
    }
    times = interleaved(contenders, 5 if quick else 15)
    # QONNX takes seconds: fewer rounds, and in a quick run a smaller image, scaled by its pixels.
    qonnx_size = size // 3 if quick else size
    small = np.ascontiguousarray(image[:qonnx_size, :qonnx_size])
    qonnx = qonnx_contender(graph, small)
    pair = interleaved({"fast": lambda: program.run(image), "qonnx": qonnx}, 1 if quick else 3)
    pixels = (size / qonnx_size) ** 2
    times["qonnx"] = pair["qonnx"] * pixels
    ratios = {
        f"ratio_vs_{name}": float(np.median(t / times["fast"]))
        for name, t in times.items()
        if name not in ("fast", "qonnx")
    }
    ratios["ratio_vs_qonnx"] = float(np.median(times["qonnx"] / pair["fast"]))
    part = small if quick else image
    wanted = reference.run(graph, part)
    found = out if part is image else program.run(part)
    return {
        **ratios,
        "mismatches": int((found != wanted).sum()),
        "compared_values": int(wanted.size),
        "milliseconds": {name: float(np.median(t)) * 1e3 for name, t in times.items()},
        "first_run_seconds": first,
        "threads": threads,
        "size": size,
        "qonnx_size": qonnx_size,
        "kernels": sorted(set(program.plan.kernels.values())),
        "peer_differences": {"onnxruntime_qdq": differing(out, ort()), "qonnx": differing(found, qonnx())},
    }


def differing(integers: npt.NDArray[Any], real: npt.NDArray[np.float32]) -> float:
    """Share of a peer's output values that are not the integer network's: float rounding near ties, for information."""
    return float((integers != np.rint(real.transpose(0, 2, 3, 1))).mean())


def print_table(result: Mapping[str, Any]) -> None:
    print(f"EDSR 8x64 x2, 8 bit, {result['size']}x{result['size']} input, {result['threads']} threads")
    for name, milliseconds in result["milliseconds"].items():
        ratio = result.get(f"ratio_vs_{name}", 1.0)
        print(f"  {name:22}{milliseconds:10.1f} ms{ratio:9.2f} x fast")
    if result["qonnx_size"] != result["size"]:
        print(f"  (qonnx ran on {result['qonnx_size']}x{result['qonnx_size']}; its time is scaled by the pixels)")
    print(f"  {result['mismatches']} of {result['compared_values']} values differ from the reference simulator")
    if "uhd" in result:
        uhd = result["uhd"]
        print(
            f"  4K output, tiles of {uhd['tile']}: {uhd['seconds']:.1f} s, peak {uhd['peak_bytes'] / 1e6:.0f} MB, "
            f"{uhd['mismatches']} mismatches in a crop"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller QONNX image, no 4K run")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--size", type=int, default=180, help="side of the input image")
    parser.add_argument("--uhd-only", action="store_true", help="only the 4K run, for its own peak memory")
    options = parser.parse_args()
    if options.uhd_only:
        print(json.dumps(uhd_run(options.threads)))
        return 0
    result = bench(options.size, options.threads, options.quick)
    wrong = result["mismatches"]
    if not options.quick:
        result["uhd"] = uhd_in_own_process(options.threads)
        wrong += result["uhd"]["mismatches"] + (result["uhd"]["peak_bytes"] > MEMORY_LIMIT)
    print_table(result)
    print(json.dumps(result))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
