"""What every peer gets of a network: the float ONNX file, calibration patches, test images; all of it hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from scripts.peers.export import export_onnx, head_and_tail, split_bicubic
from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import Pair, make_pair
from srq_hw.evaluate.images import list_images, read_rgb, write_png
from srq_hw.evaluate.metrics import psnr_y
from srq_hw.evaluate.resize import downscale, upscale
from srq_hw.files import beside
from srq_hw.networks.loading import FloatNetwork, run_float
from srq_hw.pipeline.options import DEFAULT_RECIPE
from srq_hw.quantize.calibrate import sample_patches
from srq_hw.quantize.recipe import Patches, Recipe, load_recipe

Tensor = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class TestSet:
    """Test images of one folder at one scale, with the float network's and bicubic's PSNR."""

    name: str
    pairs: tuple[Pair, ...]
    sha256: str

    __test__ = False  # not a test class


@dataclass(frozen=True)
class Material:
    """A network as the peers get it, without its bicubic skip, if it has one: srq-hw adds `skip` in float.

    keep: weights of the head and tail convolutions, which stay at 8 bits.
    """

    net: FloatNetwork
    skip: nn.Module | None
    model: Path
    calibration: Path
    keep: tuple[str, ...]
    sha256: str

    @property
    def grey_level(self) -> float:
        """One grey level in the network's units."""
        return self.net.input_max / 255.0


def to_input(net: FloatNetwork, image: Image) -> Tensor:
    """A uint8 image (H, W, channels) as the network's input, float32 (1, channels, H, W)."""
    x = image.astype(np.float32).transpose(2, 0, 1)[None] * np.float32(net.input_max / 255.0)
    return np.ascontiguousarray(x, np.float32)


def to_image(net: FloatNetwork, output: Tensor) -> Image:
    """The network's output (1, channels, H, W) as a uint8 image: rounded (ties to even), clipped."""
    grey = np.rint(output[0] / np.float32(net.input_max / 255.0))
    return np.ascontiguousarray(np.clip(grey, 0, 255).astype(np.uint8).transpose(1, 2, 0))


def prepare(net: FloatNetwork, images: Sequence[Image], recipe: Recipe, folder: Path) -> Material:
    """Export the network and its calibration patches below `folder`. RunError if the ONNX file computes otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    model, calibration = folder / "float.onnx", folder / "calibration.npz"
    core, skip = split_bicubic(net.module)
    export_onnx(net.name, core, net.channels, model)
    seen = sample_patches(images, recipe)
    patches = [to_input(net, network_view(patch, net.channels)) for patch in seen]
    with torch.inference_mode():
        expected = core(torch.from_numpy(patches[0])).numpy()
        whole = net.module(torch.from_numpy(patches[0])).numpy()
    if not np.array_equal(whole, _joined(skip, patches[0], expected)):
        raise RunError(f"network {net.name}: taking its bicubic skip out changed what it computes")
    _write_patches(folder / "patches", seen)
    arrays = {f"patch{index:04d}": patch for index, patch in enumerate(patches)}
    _save(calibration, {**arrays, "expected": expected})
    digest = hashlib.sha256(model.read_bytes())
    for patch in patches:
        digest.update(repr(patch.shape).encode() + patch.tobytes())
    return Material(net, skip, model, calibration, head_and_tail(onnx.load(model)), digest.hexdigest())


def test_set(folder: Path, scale: int, limit: int | None) -> TestSet:
    """The images of a folder, all or the first `limit`, with their low-resolution versions."""
    digest, pairs = hashlib.sha256(), []
    for path in list_images(folder)[:limit]:
        pairs.append(make_pair(path.stem, read_rgb(path), scale))
        for image in (pairs[-1].hr, pairs[-1].lr):
            digest.update(repr(image.shape).encode() + image.tobytes())
    return TestSet(folder.name, tuple(pairs), digest.hexdigest())


def write_inputs(net: FloatNetwork, images: TestSet, path: Path) -> None:
    """The set's low-resolution images as the network's inputs, one array per image."""
    _save(path, {_key(pair): _input_of(net, pair) for pair in images.pairs})


def score(material: Material, images: TestSet, outputs: Mapping[str, Tensor]) -> dict[str, float]:
    """PSNR on Y of every image of the set. RunError where an output is missing, misshapen or not finite."""
    net, found = material.net, {}
    for pair in images.pairs:
        if _key(pair) not in outputs:
            raise RunError(f"{images.name}/{pair.name}: the peer wrote no image")
        output, wanted = outputs[_key(pair)], (1, net.channels, *pair.hr.shape[:2])
        if output.shape != wanted:
            raise RunError(f"{images.name}/{pair.name}: the peer's output is {output.shape}, {wanted} is wanted")
        if not np.isfinite(output).all():
            raise RunError(f"{images.name}/{pair.name}: the peer's output holds NaN or Inf")
        image = to_image(net, _joined(material.skip, _input_of(net, pair), output))
        found[pair.name] = psnr_y(image, pair.hr, net.scale)
    return found


def score_float(net: FloatNetwork, images: TestSet) -> dict[str, float]:
    """PSNR on Y of the float network itself."""
    return {
        pair.name: psnr_y(run_float(net, network_view(pair.lr, net.channels)), pair.hr, net.scale)
        for pair in images.pairs
    }


def score_bicubic(net: FloatNetwork, images: TestSet) -> dict[str, float]:
    """PSNR on Y of bicubic upscaling."""
    return {pair.name: psnr_y(upscale(pair.lr, net.scale), pair.hr, net.scale) for pair in images.pairs}


def _key(pair: Pair) -> str:
    """Name of an image's array in an npz file; numpy reserves some bare words."""
    return f"image_{pair.name}"


def _input_of(net: FloatNetwork, pair: Pair) -> Tensor:
    return to_input(net, network_view(pair.lr, net.channels))


def _joined(skip: nn.Module | None, source: Tensor, output: Tensor) -> Tensor:
    """The peer's output and the skip that srq-hw kept."""
    if skip is None:
        return output
    with torch.inference_mode():
        found: Tensor = (torch.from_numpy(output) + skip(torch.from_numpy(source))).numpy()
    return found


def calibration_images(folders: Sequence[Path], scale: int, recipe: Recipe) -> list[Image]:
    """Low-resolution versions of images drawn from the folders, as many as there are patches (or fewer).

    Only images that hold a whole patch: some calibrators (onnxruntime's Percentile) want all inputs of one size.
    """
    paths = [path for folder in folders for path in list_images(folder)]
    if not paths:
        raise InputError("--calibration: no images; name a folder of high-resolution images")
    found: dict[int, Image] = {}
    for index in np.random.default_rng(0).permutation(len(paths)):
        image = downscale(read_rgb(paths[index]), scale)
        if min(image.shape[:2]) >= recipe.patches.size:
            found[int(index)] = image
        if len(found) == recipe.patches.count:
            break
    if not found:
        raise InputError(
            f"--calibration: no image of the {len(paths)} is {recipe.patches.size * scale} pixels wide and high; "
            "lower --patch-size or name another folder"
        )
    return [found[index] for index in sorted(found)]


def patch_recipe(count: int, size: int, seed: int) -> Recipe:
    """srq-hw's sampler takes its numbers from a recipe; the clipping methods in it play no part here."""
    return load_recipe(DEFAULT_RECIPE).model_copy(update={"patches": Patches(count=count, size=size, seed=seed)})


def _write_patches(folder: Path, patches: Sequence[Image]) -> None:
    """The patches as PNG, so that srq-hw can be calibrated on the very same pixels (same count and size)."""
    folder.mkdir(exist_ok=True)
    for index, patch in enumerate(patches):
        write_png(folder / f"{index:04d}.png", np.ascontiguousarray(patch))


def _save(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    with beside(path, ".npz") as place:  # savez adds the suffix where it is missing
        np.savez(place, **arrays)  # type: ignore[arg-type]
