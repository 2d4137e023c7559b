"""QONNX files that srq-hw did not write: lowered, they compute what the file says, or a node is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from srq_hw.errors import InputError
from srq_hw.exchange.lower import image_size, load_qonnx, lower
from srq_hw.exchange.qonnx_export import save_model
from srq_hw.graph.ir import IntGraph
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.simulate import reference
from srq_hw.target import Target
from tests.exchange.foreign import DOMAIN, File, float64
from tests.quantize.nets import COMPARED, image, pow2_target, target

#: adds with unequal scales are lowered whatever a target says; `legality` refuses them where they must be equal
AIM = target(**{"add.equal_scales": False, "requant.multiplier_bits": 20})


def head(file: File, **options) -> str:
    """Image, 3x3 convolution of 4 channels, not yet quantized."""
    return file.conv(file.image(), 3, 4, **options)


def tail(file: File, source: str, channels: int = 4, upscale: int = 1) -> onnx.ModelProto:
    """A last convolution to UINT8 grey levels."""
    last = file.node("Add", [file.conv(source, channels, 3, name="last"), file.const(120.0)])
    return file.model(file.quant(last, 1.0, signed=0, name="out"), upscale)


def through(function: Callable[[File, str], str], quant: bool = True, **options) -> Callable[[], onnx.ModelProto]:
    """image - conv - function - quant - conv - quant."""

    def build() -> onnx.ModelProto:
        file = File()
        made = function(file, head(file, **options))
        return tail(file, file.quant(made, 0.5, name="middle") if quant else made)

    return build


def channels(*values: float) -> np.ndarray:
    return np.array(values).reshape(4, 1, 1)


def batch_norm(file: File, source: str) -> str:
    """Gamma of both signs."""
    params = [file.const(v) for v in ([0.5, -0.75, 1.25, -0.125], [8, -4, 2, 0], [16, 0, -8, 4], [0.25, 1, 4, 1])]
    return file.node("BatchNormalization", [source, *params], epsilon=0.0)


def unequal_sum(file: File, source: str) -> str:
    a = file.quant(source, 0.375, name="a")
    b = file.quant(file.conv(a, 4, 4, scale=1 / 384), 0.5, name="b")
    return file.node("Add", [a, b])


def shuffled(mode: str) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        file = File()
        wide = file.quant(file.conv(file.image(), 3, 16), 0.5)
        moved = file.node("DepthToSpace", [wide], blocksize=2, mode=mode)
        return tail(file, moved, upscale=2)

    return build


def resized(factor: int, **settings: str) -> Callable[[], onnx.ModelProto]:
    def build() -> onnx.ModelProto:
        file = File()
        small = file.quant(head(file), 0.5)
        scales = file.const([1, 1, factor, factor])
        big = file.node("Resize", [small, "", scales], **{"mode": "nearest", **settings})
        return tail(file, big, upscale=factor)

    return build


def concat(file: File, source: str) -> str:
    a = file.quant(source, 0.5)
    b = file.quant(file.conv(a, 4, 4), 0.5)
    return file.node("Concat", [a, b], axis=1)


def constant_nodes() -> onnx.ModelProto:
    file = File()
    tail(file, file.quant(head(file), 0.5, name="middle"))
    return file.model("out", constant_nodes=True)


def half_up(file: File, source: str) -> str:
    return file.quant(file.node("Add", [source, file.const(0.25)]), 0.5, mode="FLOOR")


def two_readers_of_a_sum_of_bias(file: File, source: str) -> str:
    """A bias that only one of two readers sees must not go into the shared convolution."""
    plain = file.quant(source, 0.5)
    biased = file.quant(file.node("Relu", [source]), 0.5)
    return file.node("Add", [plain, biased])


def filtered(factor: int, added: bool = False, **settings) -> Callable[[], onnx.ModelProto]:
    """image - conv - quant - resize [- add to another resize] - quant - conv - quant."""

    def build() -> onnx.ModelProto:
        file = File()
        small = file.quant(head(file), 0.5)
        scales = file.const([1, 1, factor, factor])
        big = file.node("Resize", [small, "", scales], **settings)
        if added:
            big = file.node("Add", [big, file.node("Resize", [small, "", scales], mode="nearest")])
        return tail(file, file.quant(big, 0.5, name="middle"), upscale=factor)

    return build


def up(factor: int, *shape: int, then: Callable[[File, str], str] = lambda f, x: x, **options):
    """image - conv - quant - transposed conv - function - quant - conv - quant."""

    def build() -> onnx.ModelProto:
        file = File()
        made = then(file, file.transposed(file.quant(head(file), 0.5), 4, 4, *shape, **options))
        return tail(file, file.quant(made, 0.5, name="middle"), upscale=factor)

    return build


GOOD: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv bias": through(lambda f, x: x, bias=True),
    "bias as an Add": through(lambda f, x: f.node("Add", [x, f.const(channels(3, -5, 0.5, 40))])),
    "bias as an Add, constant first": through(lambda f, x: f.node("Add", [f.const(channels(3, -5, 0.5, 40)), x])),
    "bias as a Sub": through(lambda f, x: f.node("Sub", [x, f.const(channels(3, -5, 0.5, 40)[None])])),
    "two biases": through(lambda f, x: f.node("Add", [f.node("Sub", [x, f.const(7.0)]), f.const(2.5)]), bias=True),
    "Mul": through(lambda f, x: f.node("Mul", [x, f.const(channels(0.5, 2, 1, 0.25))])),
    "negative Mul": through(lambda f, x: f.node("Mul", [f.const(channels(-0.5, 2, -1, 0.25)), x]), bias=True),
    "Div": through(lambda f, x: f.node("Div", [x, f.const(4.0)])),
    "Mul then Add": through(lambda f, x: f.node("Add", [f.node("Mul", [x, f.const(-0.5)]), f.const(10.0)])),
    "BatchNorm with both signs": through(batch_norm, bias=True),
    "BatchNorm then Relu": through(lambda f, x: f.node("Relu", [batch_norm(f, x)])),
    "Relu": through(lambda f, x: f.node("Relu", [x])),
    "Relu then Mul": through(lambda f, x: f.node("Mul", [f.node("Relu", [x]), f.const(0.5)])),
    "LeakyRelu": through(lambda f, x: f.node("LeakyRelu", [x], alpha=0.25)),
    "PRelu": through(lambda f, x: f.node("PRelu", [x, f.const(channels(0.5, 0, 0.25, 1))])),
    "activation of its own": through(lambda f, x: f.node("Relu", [f.quant(x, 0.5)])),
    "quantized twice": through(lambda f, x: f.quant(x, 0.25)),
    "scaled integers": through(lambda f, x: f.conv(f.node("Mul", [f.quant(x, 0.5), f.const(2.0)]), 4, 4)),
    "weight scale per channel": through(lambda f, x: x, scale=np.array([1, 2, 0.5, 4]).reshape(4, 1, 1, 1) / 256),
    "half_up": through(half_up, quant=False),
    "half_away": through(lambda f, x: f.quant(x, 0.5, mode="HALF_UP"), quant=False),
    "floor": through(lambda f, x: f.quant(x, 0.5, mode="FLOOR"), quant=False),
    "trunc": through(lambda f, x: f.quant(x, 0.5, mode="DOWN"), quant=False),
    "four bits": through(lambda f, x: f.quant(x, 8.0, bits=4.0), quant=False),
    "bits and scale as arrays of one": through(lambda f, x: f.quant(x, [0.5], bits=[8.0], zero=[0.0]), quant=False),
    "narrow": through(lambda f, x: f.quant(x, 0.25, narrow=1), quant=False),
    "sum of equal scales": through(
        lambda f, x: f.node("Add", [f.quant(x, 0.5), f.quant(f.conv(f.quant(x, 0.25), 4, 4), 0.5)])
    ),
    "sum of unequal scales": through(unequal_sum),
    "two readers": through(two_readers_of_a_sum_of_bias),
    "CRD": shuffled("CRD"),
    "DCR": shuffled("DCR"),
    "resize asymmetric": resized(3, coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    "resize half_pixel": resized(2, coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor"),
    "resize default": resized(3),
    "Constant nodes": constant_nodes,
    "grouped": through(lambda f, x: f.conv(f.quant(x, 0.5), 4, 4, group=2)),
    "Identity": through(lambda f, x: f.node("Identity", [x])),
}
GOOD |= {
    "slice": through(
        lambda f, x: (lambda q: f.node("Add", [q, f.node("Concat", [f.slice(q, 2, 99), f.slice(q, -4, 2)], axis=1)]))(
            f.quant(x, 0.5)
        )
    ),
    "split in two": through(
        lambda f, x: f.node("Concat", f.split(f.quant(x, 0.5), [3, 1], 2)[::-1], axis=1), quant=False
    ),
    "split in equal parts": through(
        lambda f, x: f.node("Concat", f.split(f.quant(x, 0.5), None, 2), axis=1), quant=False
    ),
    "Clip": through(lambda f, x: f.node("Clip", [x, f.const(0.0), f.const(7.75)])),
    "Clip on a tie": through(lambda f, x: f.node("Clip", [x, f.const(0.0), f.const(6.25)])),
    "bilinear": filtered(2, mode="linear", coordinate_transformation_mode="half_pixel"),
    "bicubic": filtered(2, mode="cubic", cubic_coeff_a=-0.5, coordinate_transformation_mode="pytorch_half_pixel"),
    "bicubic of torch, added": filtered(2, True, mode="cubic"),
    "transposed convolution": up(2, 18, 2, 8, bias=True),
    "transposed convolution, scale per channel": up(2, 9, 2, 4, 1, per_channel=True, bias=True),
    "transposed convolution then bias, PRelu": up(
        3,
        9,
        3,
        4,
        2,
        then=lambda f, x: f.node(
            "PRelu", [f.node("Add", [x, f.const(channels(3, -5, 0.5, 40))]), f.const(channels(0.5, 0, 0.25, 1))]
        ),
    ),
    "transposed convolution, negated": up(
        2, 4, 2, 1, then=lambda f, x: f.node("Mul", [x, f.const(channels(-1, 1, 0.5, -2))])
    ),
}
GOOD["concat"] = lambda: (lambda f: tail(f, concat(f, head(f)), 8))(File())


def assert_means_the_file(model: onnx.ModelProto, aim: Target = AIM, unit: float = 1.0, seeds=(0, 1)) -> IntGraph:
    """Every Requant against float64 numpy of the file: the same integers, everywhere (scales are dyadic here)."""
    graph = lower(model, aim)
    for seed in seeds:
        pixels = image(seed)
        values, found = float64(model, pixels * unit), reference.trace(graph, pixels)
        quantized = ("Requant", "DepthToSpace")
        requants = [node.output for node in graph.nodes if node.op in quantized and node.output in values]
        assert requants
        for name in requants:
            tensor = graph.tensors[name]
            wanted = np.rint(values[name] / tensor.scale).transpose(0, 2, 3, 1) + tensor.zero_point
            np.testing.assert_array_equal(found[name], wanted, err_msg=name)
            assert np.ptp(wanted) > 0
    return graph


@pytest.mark.parametrize("name", GOOD)
def test_float64_of_the_file(name: str) -> None:
    graph = assert_means_the_file(GOOD[name]())
    assert graph.tensors[graph.output].dtype == "UINT8"


@pytest.mark.parametrize("name", GOOD)
def test_qonnx_executes_the_same(name: str) -> None:
    model = GOOD[name]()
    graph = lower(model, AIM)
    found = qonnx_oracle(model, graph, image(3))
    assert found.mismatches == 0, found
    # the shuffle of a transposed convolution and the quantizer in front of it are one tensor of the file
    assert found.tensors == sum(node.op in COMPARED and not node.name.endswith("_phases") for node in graph.nodes)
    assert found.ties <= found.elements // 100


def test_ratios_that_are_not_dyadic() -> None:
    """Scales of no special kind: the nearest multipliers differ from the file at near ties only, which are counted."""
    file = File(24, 24)
    a = file.quant(head(file, scale=0.00371, bias=True), 0.713, name="a")
    b = file.quant(file.conv(a, 4, 4, scale=0.0041), 1.9, name="b")
    model = tail(file, file.quant(file.node("Add", [a, b]), 2.3, name="middle"))
    for bits in (8, 16):
        graph = lower(model, target(**{"requant.multiplier_bits": bits}))
        found = qonnx_oracle(model, graph, image(3, 24, 24))
        assert found.mismatches == 0, found
        assert found.ties < found.elements * 2.0 ** (2 - bits / 2)


def test_a_bias_for_one_reader_only_is_refused() -> None:
    """One reader sees conv + 5, the other conv: the bias cannot go into the convolution."""
    file = File()
    x = head(file)
    plain, biased = file.quant(x, 0.5), file.quant(file.node("Add", [x, file.const(channels(5, 6, 7, 8))], "late"), 0.5)
    with pytest.raises(InputError, match=r"node late \(Add\)"):
        lower(tail(file, file.node("Concat", [plain, biased], axis=1), 8), AIM)


def test_a_negative_factor_for_one_reader_only_is_refused() -> None:
    file = File()
    x = head(file)
    flipped, plain = file.quant(file.node("Mul", [x, file.const(-1.0)], "late"), 0.5), file.quant(x, 0.5)
    with pytest.raises(InputError, match=r"node late \(Mul\)"):
        lower(tail(file, file.node("Concat", [plain, flipped], axis=1), 8), AIM)


@pytest.mark.parametrize(
    ("scale", "signed", "bits", "unit"),
    [
        (1.0, 0, 8.0, 1.0),
        (2.0, 0, 8.0, 1.0),
        (1.0, 1, 8.0, 1.0),
        (1 / 255, 0, 8.0, 1 / 255),
        (4 / 255, 0, 6.0, 1 / 255),
        (2 / 255, 1, 8.0, 1 / 255),
    ],
)
def test_input_grids(scale: float, signed: int, bits: float, unit: float) -> None:
    """Grey levels, 0..1, coarser and signed input quantizers."""
    file = File()
    x = file.quant("image", scale, bits=bits, signed=signed, name="image_quant")
    wide = file.conv(x, 3, 4, scale=2.0**-8 if unit == 1 else 2.0**-8 * 255)
    last = file.conv(file.quant(wide, 0.5), 4, 3)
    graph = assert_means_the_file(file.model(file.quant(last, 1.0, signed=0, name="out")), unit=unit)
    assert graph.tensors["image"].dtype == "UINT8"
    kept = [node.name for node in graph.nodes if node.name == "image_quant"]
    assert kept == ([] if (signed, bits) == (0, 8.0) and abs(scale / unit - 1) < 1e-6 else ["image_quant"])


@pytest.mark.parametrize("signed", [0, 1])
def test_output_off_the_grey_grid(signed: int) -> None:
    """A file in 0..1 whose output has 8 steps of its own: one more Requant to grey levels, and that one is right."""
    file = File()
    x = file.image(1 / 255)
    scale = np.float32(4 / 255)
    model = file.model(file.quant(file.conv(x, 3, 3, scale=2.0**-8), scale, bits=8.0, signed=signed, name="out"))
    graph = assert_means_the_file(model, unit=1 / 255)
    assert graph.nodes[-1].name == "to_grey_levels"
    out = reference.trace(graph, image(1))
    np.testing.assert_array_equal(out[graph.output], np.clip(out["out"] * 4, 0, 255))


def test_through_the_file(tmp_path) -> None:
    model = GOOD["PRelu"]()
    save_model(model, tmp_path / "m.qonnx")
    again = load_qonnx(tmp_path / "m.qonnx")
    assert lower(again, AIM).content_sha256 == lower(model, AIM).content_sha256
    assert image_size(again) == (6, 7)


# --- what cannot be lowered ---------------------------------------------------------------------------------------


def bad(function: Callable[[File, str], str], **options) -> Callable[[], onnx.ModelProto]:
    return through(function, **options)


def raw(*nodes: tuple) -> Callable[[], onnx.ModelProto]:
    """A file of bare nodes behind the image quantizer."""

    def build() -> onnx.ModelProto:
        file = File()
        x = file.image()
        for op, inputs, attrs in nodes:
            x = file.node(op, [x, *[file.const(value) for value in inputs]], **attrs)
        return file.model(x)

    return build


BAD: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "Sigmoid": (bad(lambda f, x: f.node("Sigmoid", [x], "s")), r"node s \(Sigmoid\): .*no integer form.*Supported are"),
    "MaxPool": (bad(lambda f, x: f.node("MaxPool", [x], "p", kernel_shape=[2, 2])), r"node p \(MaxPool\)"),
    "stride": (bad(lambda f, x: x, strides=[2, 2], name="c"), r"node c \(Conv\): strides \[2, 2\].*Stride 1"),
    "pads": (bad(lambda f, x: x, pads=[0, 0, 0, 0], name="c"), r"node c \(Conv\): pads"),
    "dilations": (bad(lambda f, x: x, dilations=[2, 2], name="c"), r"node c \(Conv\): dilations"),
    "even kernel": (bad(lambda f, x: x, kernel=2, name="c"), r"node c \(Conv\): kernel"),
    "unquantized weights": (
        raw(("Conv", [np.ones((3, 3, 3, 3))], {"pads": [1] * 4, "name": "c"})),
        r"node c \(Conv\): weight .*no Quant",
    ),
    "conv of a raw accumulator": (
        bad(lambda f, x: f.conv(x, 4, 4, name="c")),
        r"node c \(Conv\): .*not quantized.*Quant node",
    ),
    "unquantized sum": (bad(lambda f, x: f.node("Add", [x, f.quant(x, 0.5)], "s")), r"node s \(Add\): .*not quantized"),
    "product": (
        bad(lambda f, x: (lambda q: f.node("Mul", [q, q], "m"))(f.quant(x, 0.5))),
        r"node m \(Mul\): multiplies two feature",
    ),
    "difference": (
        bad(lambda f, x: (lambda q: f.node("Sub", [q, q], "m"))(f.quant(x, 0.5))),
        r"node m \(Sub\): subtracts",
    ),
    "times 0": (
        bad(lambda f, x: f.node("Mul", [x, f.const(channels(1, 0, 1, 1))], "m")),
        r"node m \(Mul\): multiplies by 0",
    ),
    "divided by a map": (
        bad(lambda f, x: f.node("Div", [f.const(1.0), x], "m")),
        r"node m \(Div\): divisor is computed",
    ),
    "image before its quantizer": (
        lambda: (lambda f: tail(f, f.quant(f.node("Mul", ["image", f.const(2.0)], "m"), 1.0), 3))(File()),
        r"node m \(Mul\)",
    ),
    "shifted image before its quantizer": (
        lambda: (lambda f: tail(f, f.quant(f.node("Add", ["image", f.const(2.0)], "m"), 1.0), 3))(File()),
        r"node m \(Add\): changes the image before",
    ),
    "constant along x": (
        bad(lambda f, x: f.node("Add", [x, f.const(np.arange(7.0))], "m")),
        r"node m \(Add\): .*varies over the image",
    ),
    "factor along x, as many as channels": (
        lambda: (lambda f: tail(f, f.quant(f.node("Mul", [head(f), f.const(np.arange(1.0, 5))], "m"), 0.5)))(
            File(width=4)
        ),
        r"node m \(Mul\): .*varies over the image",
    ),
    "slope along x": (
        bad(lambda f, x: f.node("PRelu", [x, f.const(np.ones(4) / 2)], "m")),
        r"node m \(PRelu\): .*varies",
    ),
    "constant behind an activation": (
        bad(lambda f, x: f.node("Add", [f.node("Relu", [x]), f.const(3.0)], "m")),
        r"node m \(Add\): .*behind an activation",
    ),
    "off the grid of integers": (
        bad(lambda f, x: f.node("Add", [f.quant(x, 0.5), f.const(0.3)], "m")),
        r"node m \(Add\): .*no whole number of steps",
    ),
    "no half step": (
        bad(lambda f, x: f.quant(f.node("Add", [x, f.const(0.3)]), 0.5, mode="FLOOR", name="q")),
        r"node q \(Quant\): .*half a step",
    ),
    "slope above 1": (bad(lambda f, x: f.node("LeakyRelu", [x], "m", alpha=2.5)), r"node m \(LeakyRelu\): slopes 2.5"),
    "negative slope": (
        bad(lambda f, x: f.node("LeakyRelu", [x], "m", alpha=-0.5)),
        r"node m \(LeakyRelu\): slopes -0.5",
    ),
    "rounding mode": (
        bad(lambda f, x: f.quant(x, 0.5, mode="CEIL", name="q")),
        r"node q \(Quant\): rounding_mode 'CEIL'.*Use one of",
    ),
    "activation scale per channel": (
        bad(lambda f, x: f.quant(x, channels(1, 2, 3, 4), name="q")),
        r"node q \(Quant\): activation scale",
    ),
    "scale 0": (bad(lambda f, x: f.quant(x, 0.0, name="q")), r"node q \(Quant\): activation scale"),
    "negative scale": (bad(lambda f, x: f.quant(x, -1.0, name="q")), r"node q \(Quant\): activation scale"),
    "NaN scale": (bad(lambda f, x: f.quant(x, np.nan, name="q")), r"node q \(Quant\): activation scale"),
    "weight scale 0": (bad(lambda f, x: x, scale=0.0), r"\(Quant\): a scale that is not positive"),
    "weight scale along the kernel": (
        bad(lambda f, x: x, scale=[1 / 256] * 3, name="c"),
        r"node c \(Conv\): weight scale of shape",
    ),
    "fraction of a bit": (
        bad(lambda f, x: f.quant(x, 0.5, bits=7.5, name="q")),
        r"node q \(Quant\): bit width \[7.5\]",
    ),
    "0 bits": (bad(lambda f, x: f.quant(x, 0.5, bits=0.0, name="q")), r"node q \(Quant\): bit width"),
    "99 bits": (bad(lambda f, x: f.quant(x, 0.5, bits=99.0, name="q")), r"node q \(Quant\): bit width"),
    "zero point": (
        bad(lambda f, x: f.quant(x, 0.5, zero=3.0, name="q")),
        r"node q \(Quant\): zero point 3; target zcu104 has none",
    ),
    "conv without weights": (raw(("Conv", [], {"name": "c"})), r"node c \(Conv\): weight is missing"),
    "scales of other worlds": (
        bad(lambda f, x: f.node("Add", [f.quant(x, 0.5), f.quant(x, 1e-30)], "m")),
        r"node m \(Add\): .*too far apart",
    ),
    "concat of unequal scales": (
        bad(lambda f, x: f.node("Concat", [f.quant(x, 0.5), f.quant(x, 0.25)], "m", axis=1)),
        r"node m \(Concat\): scales differ",
    ),
    "concat along x": (
        bad(lambda f, x: (lambda q: f.node("Concat", [q, q], "m", axis=3))(f.quant(x, 0.5))),
        r"node m \(Concat\): axis 3",
    ),
    "bilinear with other centres": (
        resized(2, mode="linear", coordinate_transformation_mode="align_corners"),
        r"\(Resize\): takes pixels by align_corners",
    ),
    "slice of rows": (
        bad(lambda f, x: f.slice(f.quant(x, 0.5), 0, 3, 2, "m")),
        r"node m \(Slice\): axes \[2.*Channels",
    ),
    "empty slice": (
        bad(lambda f, x: f.slice(f.quant(x, 0.5), 3, 3, 1, "m")),
        r"node m \(Slice\): channels 3 to 3 of 4",
    ),
    "clip below 0": (
        bad(lambda f, x: f.node("Clip", [x, f.const(-1.0), f.const(6.0)], "m")),
        r"node m \(Clip\): clips to -1.0..6.0",
    ),
    "transposed of another size": (
        bad(lambda f, x: f.transposed(f.quant(x, 0.5), 4, 4, 3, 2, 1, name="m")),
        r"node m \(ConvTranspose\): kernel \(3, 3\).*not exactly 2 times the input",
    ),
    "transposed in groups": (
        bad(lambda f, x: f.transposed(f.quant(x, 0.5), 4, 4, 2, 2, 0, name="m", group=2)),
        r"node m \(ConvTranspose\): groups 2",
    ),
    "zero padding of its own": (
        bad(lambda f, x: f.node("Pad", [f.quant(x, 0.5), f.integers([0, 0, 1, 1, 0, 0, 1, 1])], "m")),
        r"node m \(Pad\): mode constant.*Let the convolution pad",
    ),
    "edge padding in front of any convolution": (
        bad(
            lambda f, x: f.conv(
                f.node("Pad", [f.quant(x, 0.5), f.integers([0, 0, 1, 1, 0, 0, 1, 1])], mode="edge"), 4, 4, name="m"
            )
        ),
        r"node m \(Conv\): a convolution behind an edge padding is none of the known upsampling filters",
    ),
    "bicubic of another kind": (
        resized(2, mode="cubic", cubic_coeff_a=-0.6),
        r"\(Resize\): cubic_coeff_a -0.6.*-0.5 \(MATLAB\)",
    ),
    "bicubic that drops pixels": (resized(2, mode="cubic", exclude_outside=1), r"mode cubic with exclude_outside"),
    "fractional resize": (
        bad(lambda f, x: f.node("Resize", [f.quant(x, 0.5), "", f.const([1, 1, 1.5, 1.5])], "m")),
        r"node m \(Resize\)",
    ),
    "resize that picks other pixels": (
        resized(2, coordinate_transformation_mode="half_pixel", nearest_mode="floor"),
        r"\(Resize\): takes pixels by half_pixel and floor",
    ),
    "resize asymmetric with round": (
        resized(3, coordinate_transformation_mode="asymmetric"),
        r"\(Resize\): takes pixels by asymmetric",
    ),
    "unquantized output": (
        lambda: (lambda f: f.model(f.conv(f.image(), 3, 3, name="c")))(File()),
        r"output c is not quantized",
    ),
    "dangling input": (bad(lambda f, x: f.node("Relu", ["ghost"], "m")), r"node m \(Relu\): reads 'ghost'"),
    "no input at all": (bad(lambda f, x: f.node("Relu", [], "m")), r"node m \(Relu\): reads ''"),
    "image quantized twice": (
        lambda: (lambda f: f.model(f.node("Add", [f.image(), f.quant("image", 2.0, name="q")])))(File()),
        r"node q \(Quant\): the image is quantized twice",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_refused_with_node_reason_and_remedy(name: str) -> None:
    build, complaint = BAD[name]
    with pytest.raises(InputError, match=complaint) as caught:
        lower(build(), AIM, "mine.onnx")
    assert str(caught.value).startswith("mine.onnx")
    assert not any(word in str(caught.value) for word in ("Traceback", "KeyError", "IndexError", "ndarray"))


def test_shift_only_target() -> None:
    model = GOOD["conv bias"]()
    assert_means_the_file(model, pow2_target())
    file = File()
    with pytest.raises(InputError, match=r"node middle \(Quant\): scale ratio .*no power of two"):
        lower(tail(file, file.quant(head(file), 0.3, name="middle")), pow2_target())
    file = File()
    with pytest.raises(InputError, match="output out is not in grey levels"):
        lower(
            file.model(file.quant(file.conv(file.image(), 3, 3, scale=0.75), 3.0, signed=0, name="out")), pow2_target()
        )
    with pytest.raises(InputError, match=r"\(LeakyRelu\): target zcu104 has no activation with a slope"):
        lower(GOOD["LeakyRelu"](), pow2_target())


def test_shapes_of_the_file() -> None:
    model = GOOD["Relu"]()
    with pytest.raises(InputError, match="2 inputs"):
        broken = onnx.ModelProto.FromString(model.SerializeToString())
        broken.graph.input.append(onnx.helper.make_tensor_value_info("second", 1, [1, 3, 6, 7]))
        lower(broken, AIM)
    with pytest.raises(InputError, match="2 outputs"):
        broken = onnx.ModelProto.FromString(model.SerializeToString())
        broken.graph.output.append(onnx.helper.make_tensor_value_info("middle", 1, [1, 4, 6, 7]))
        lower(broken, AIM)
    with pytest.raises(InputError, match=r"wanted \(1, channels, height, width\)"):
        broken = onnx.ModelProto.FromString(model.SerializeToString())
        del broken.graph.input[0].type.tensor_type.shape.dim[3]
        lower(broken, AIM)


def test_files_that_are_none(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_qonnx(tmp_path / "absent.onnx")
    (tmp_path / "noise.onnx").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="not a readable ONNX file"):
        load_qonnx(tmp_path / "noise.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="not a readable ONNX file"):
        load_qonnx(tmp_path / "empty.onnx")


def test_intquant_and_domains() -> None:
    model = GOOD["Relu"]()
    for node in model.graph.node:
        if node.op_type == "Quant":
            assert node.domain == DOMAIN
            node.op_type = "IntQuant"
    assert lower(model, AIM).content_sha256 == lower(GOOD["Relu"](), AIM).content_sha256
