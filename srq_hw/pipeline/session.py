"""The objects a build works on, made when first asked for and made the same way in a fresh and in a resumed build."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

from srq_hw.backends.finn.build import FinnResult, load_result
from srq_hw.backends.rtl.fit import Fitted, fit
from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import Pair, make_pair
from srq_hw.evaluate.demo import DemoImage, demo_calibration_images, demo_images
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.resize import downscale
from srq_hw.exchange.lower import image_size, load_qonnx, lower
from srq_hw.graph.ir import IntGraph
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.normalform.normal import NormalNet
from srq_hw.normalform.trace import normalize
from srq_hw.pipeline.engine import sha256_file, sha256_json
from srq_hw.pipeline.options import DEFAULT_RECIPE, DEFAULT_SIZE, BuildOptions
from srq_hw.quantize.brevitas_layers import QuantNet
from srq_hw.quantize.freeze import Frozen, freeze, quant_net
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Recipe, load_recipe, with_policy
from srq_hw.quantize.store import FILES, load_quantized, stored_plan
from srq_hw.target import Target, load_target

Image = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]

#: multiply-accumulates that the parity image may cost: the int64 reference runs it in well under a minute
PARITY_MACS = 6e9
#: stands in finn/ instead of a design where FINN+ is not installed, with the reason
FINN_NOT_RUN = "not_run.txt"


class Session:
    """Options and everything derived from them. ``folder`` is the build folder."""

    def __init__(self, options: BuildOptions) -> None:
        self.options = options
        self.folder = options.out

    # --- what the user gave ---------------------------------------------------------------------------------------

    @cached_property
    def target(self) -> Target:
        return load_target(self.options.target)

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe by name, with the policy that the options ask for."""
        recipe = load_recipe(self.options.recipe or DEFAULT_RECIPE)
        return with_policy(recipe, self.options.edges, self.options.tail, self.options.sums)

    @cached_property
    def foreign(self) -> onnx.ModelProto:
        """The user's QONNX file."""
        assert self.options.model is not None
        return load_qonnx(Path(self.options.model))

    @cached_property
    def network(self) -> FloatNetwork:
        return load_network(self.options.model, self.options.weights)

    @cached_property
    def normal(self) -> NormalNet:
        return normalize(self.network)

    @cached_property
    def plan(self) -> QuantPlan:
        """Where the quantizers stand; the weights are those of the float network."""
        if self.options.quantized is not None:
            return stored_plan(self.options.quantized, self.normal, self.target)
        bits = (self.options.weight_bits, self.options.act_bits)
        return make_plan(self.normal, self.target, *bits, self.recipe.policy.layers(self.target))

    @cached_property
    def calibration_images(self) -> list[Image]:
        """Low-resolution images: the user's as they are, the built-in ones shrunk by the network's factor.

        uint8 (H, W, channels) as the network sees them: RGB or Y.
        """
        return [network_view(picture, self.network.channels) for picture in self.calibration_pictures]

    @cached_property
    def calibration_pictures(self) -> list[Image]:
        """The same before the network's view: uint8 RGB (h, w, 3)."""
        if self.options.calib_images is not None:
            return [read_rgb(path) for path in list_images(self.options.calib_images, "--calib-images")]
        return [downscale(item.rgb, self.network.scale) for item in demo_calibration_images()]

    @cached_property
    def size(self) -> tuple[int, int]:
        """Image size (height, width) of the exported files and of the FINN design."""
        own = image_size(self.foreign) if self.options.is_file else None
        return own or self.options.input_size or DEFAULT_SIZE

    # --- results of earlier steps ---------------------------------------------------------------------------------

    @cached_property
    def quantized(self) -> Quantized:
        """The plan with its final weights, and the calibration, as the calibrate step left them."""
        return load_quantized(self.folder, self.normal, self.target)

    @cached_property
    def frozen(self) -> Frozen:
        return freeze(self.quantized.plan, self.quantized.calibration, self.target)

    def quantize(self, progress: Progress | None = None) -> Quantized:
        """Calibrate by the recipe, or take what --quantized names."""
        if self.options.quantized is not None:
            return load_quantized(self.options.quantized, self.normal, self.target)
        bits = (self.options.weight_bits, self.options.act_bits)
        return quantize(self.normal, self.target, self.recipe, self.calibration_images, *bits, progress)

    def quant_net(self) -> QuantNet:
        """The Brevitas model before freezing."""
        return quant_net(self.quantized.plan, self.quantized.calibration, self.target)

    @cached_property
    def graph(self) -> IntGraph:
        return IntGraph.load(self.folder / "graph.json")

    @cached_property
    def fitted(self) -> Fitted | None:
        """The Verilog design for the wanted rate; None where the target has none."""
        resources = self.target.resources
        if resources is None or not resources.has_flow("verilog"):
            return None
        return fit(self.graph, self.size, resources, self.options.fps, loads=not self.options.fixed_weights)

    @cached_property
    def finn(self) -> FinnResult:
        """What the finn step left."""
        folder = self.folder / "finn"
        reason = folder / FINN_NOT_RUN
        return FinnResult("not run", reason.read_text().strip()) if reason.is_file() else load_result(folder)

    @cached_property
    def model(self) -> onnx.ModelProto:
        return load_qonnx(self.folder / "model.qonnx")

    # --- images ---------------------------------------------------------------------------------------------------

    @cached_property
    def test_images(self) -> list[DemoImage]:
        """The built-in test images."""
        return demo_images()

    @cached_property
    def pairs(self) -> list[Pair]:
        """The built-in test images with their low-resolution versions."""
        return [make_pair(item.name, item.rgb, self.graph.upscale) for item in self.test_images]

    @cached_property
    def parity_image(self) -> Image:
        """The first test image, whole; shrunk by a whole factor where the reference could not afford it otherwise.

        uint8 (H, W, channels) as the network sees it, like `tile`.
        """
        image = self.pairs[0].lr
        macs = image.shape[0] * image.shape[1] * macs_per_pixel(self.graph)
        factor = math.ceil(math.sqrt(macs / PARITY_MACS))
        shrunk = image if factor <= 1 else make_pair(self.pairs[0].name, image, factor).lr
        return network_view(shrunk, image_channels(self.graph))

    @cached_property
    def tile(self) -> Image:
        """A piece of the first test image of the design's size; mirrored outwards where the image is smaller."""
        image = network_view(self.pairs[0].lr, image_channels(self.graph))
        height, width = self.size
        while image.shape[0] < height or image.shape[1] < width:
            below, right = max(0, height - image.shape[0]), max(0, width - image.shape[1])
            step = (min(below, image.shape[0] - 1), min(right, image.shape[1] - 1))
            image = np.pad(image, ((0, step[0]), (0, step[1]), (0, 0)), mode="reflect")
        return centre(image, height, width)

    # --- identities for the step hashes ---------------------------------------------------------------------------

    @cached_property
    def network_sha256(self) -> str:
        """Of the normal form: structure and every weight."""
        return normal_sha256(self.normal)

    @cached_property
    def calibration_images_sha256(self) -> str:
        return sha256_json([image_sha256(image) for image in self.calibration_images])

    @cached_property
    def pairs_sha256(self) -> str:
        return sha256_json([image_sha256(item.rgb) for item in self.test_images])

    @cached_property
    def foreign_sha256(self) -> str:
        if not Path(self.options.model or "").is_file():
            raise InputError(f"{self.options.model}: no such file; give a .qonnx or .onnx file with Quant nodes")
        return sha256_file(Path(self.options.model or ""))

    @cached_property
    def calibration_material(self) -> dict[str, object]:
        """What the scales and weights depend on besides network, target and widths."""
        if self.options.quantized is not None:
            return {name: sha256_file(self.options.quantized / name) for name in FILES}
        return {"recipe": self.recipe.model_dump(), "images": self.calibration_images_sha256}

    @cached_property
    def source_sha256(self) -> str:
        """Of what the build starts from: the QONNX file, or the float network."""
        return self.foreign_sha256 if self.options.is_file else self.network_sha256


def centre(image: Image, height: int, width: int) -> Image:
    """The middle height x width pixels."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def image_sha256(image: Image) -> str:
    """Digest of an image's shape and pixels."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()


def normal_sha256(net: NormalNet) -> str:
    """Digest of a network's structure and weights."""
    digest = hashlib.sha256(f"{net.name} {net.channels} {net.input_max}".encode())
    for layer in net.layers:
        digest.update(f"{layer.op} {layer.name} {layer.inputs} {layer.groups} {layer.factor} {layer.offset}".encode())
        digest.update(f"{layer.limits} {layer.span} {layer.kernel}".encode())
        for tensor in (layer.weight, layer.bias, layer.slope):
            if tensor is not None:
                digest.update(repr(tuple(tensor.shape)).encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


def image_channels(graph: IntGraph) -> int:
    """Channels of the input image: 3 (RGB) or 1 (Y)."""
    return graph.tensors[graph.input].channels


def lower_image_network(model: onnx.ModelProto, target: Target, source: str) -> IntGraph:
    """A foreign file as an IntGraph. InputError where it cannot be lowered or is no network of pictures: RGB or Y, so 3
    or 1 channels in and as many out, with something that is quantized."""
    graph = lower(model, target, source)
    if all(node.op != "Conv" for node in graph.nodes):
        raise InputError(f"{source}: no convolution; a build needs a network with at least one")
    into, out = graph.tensors[graph.input].channels, graph.tensors[graph.output].channels
    if into not in (1, 3) or out != into:
        raise InputError(
            f"{source}: {into} channels in tensor {graph.input}, {out} in {graph.output}; a build needs RGB in and out "
            "(3 and 3) or Y in and out (1 and 1)"
        )
    return graph


def macs_per_pixel(graph: IntGraph) -> int:
    """Multiply-accumulates per input pixel."""
    return sum(
        int(node.params["weight"].size) * graph.tensors[node.output].upscale ** 2
        for node in graph.nodes
        if node.op == "Conv"
    )
