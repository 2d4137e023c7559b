"""Train the embedded default network srq_edsr4_24_x2 from scratch and export its weights.

    python scripts/train_default.py train            # resumes from build/train/ where a checkpoint lies
    python scripts/train_default.py export           # averaged weights into the package, log into docs/
    python scripts/train_default.py report           # curve and table of docs/default-network.md
    python scripts/train_default.py train --quick    # smoke test: a few iterations, written to build/train-quick/

Batches depend on the seed and the iteration number only, so an interrupted run continues as if it had not stopped.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.torch import save as serialize
from torch import Tensor, nn

from srq_hw.evaluate.datasets import Pair, iter_pairs, make_pair
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.metrics import psnr_y, ssim_y
from srq_hw.evaluate.resize import upscale
from srq_hw.files import beside, write_bytes, write_text
from srq_hw.networks.edsr import Edsr
from srq_hw.networks.loading import load_network, run_float

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "srq_hw" / "networks" / "weights"
DOCS = ROOT / "docs" / "default-network"
NAME = "srq_edsr4_24_x2"
SCALE = 2
TRAIN_SETS = ("T91", "General100")
VALIDATION_SET = "Set5"
REPORT_SETS = ("Set5", "Set14", "BSD100")
TABLE_BEGIN, TABLE_END = "<!-- quality: begin -->", "<!-- quality: end -->"
LOG_FIELDS = ("iteration", "learning_rate", "loss", "set5_psnr_y", "seconds")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a run, but the data."""

    iterations: int
    batch: int = 16
    patch: int = 48  # low-resolution pixels
    peak_rate: float = 2e-3
    final_rate: float = 1e-6
    warmup: int = 500
    ema_decay: float = 0.999
    bf16_share: float = 0.7  # of the iterations, at the start; the rest runs in float32
    check_every: int = 2000
    seed: int = 1


def learning_rate(recipe: Recipe, iteration: int) -> float:
    """Linear warm-up, then half a cosine down to the final rate."""
    if iteration < recipe.warmup:
        return recipe.peak_rate * (iteration + 1) / recipe.warmup
    done = (iteration - recipe.warmup) / max(1, recipe.iterations - recipe.warmup)
    return recipe.final_rate + 0.5 * (recipe.peak_rate - recipe.final_rate) * (1 + math.cos(math.pi * done))


def read_training_pairs(data: Path, patch: int) -> list[Pair]:
    """All images of the training sets that hold at least one patch."""
    paths = [path for name in TRAIN_SETS for path in list_images(data / name)]
    pairs = [make_pair(path.stem, read_rgb(path), SCALE) for path in paths]
    return [pair for pair in pairs if min(pair.lr.shape[:2]) >= patch]


def draw_batch(pairs: list[Pair], recipe: Recipe, iteration: int) -> tuple[Tensor, Tensor]:
    """Random crops, every crop position equally likely, each in one of 8 orientations; float NCHW in 0..1."""
    rng = np.random.default_rng([recipe.seed, iteration])
    size = recipe.patch
    room = np.array([(p.lr.shape[0] - size + 1) * (p.lr.shape[1] - size + 1) for p in pairs], dtype=np.float64)
    lows: list[NDArray[np.uint8]] = []
    highs: list[NDArray[np.uint8]] = []
    for index in rng.choice(len(pairs), size=recipe.batch, p=room / room.sum()):
        pair = pairs[index]
        top = int(rng.integers(pair.lr.shape[0] - size + 1))
        left = int(rng.integers(pair.lr.shape[1] - size + 1))
        low = pair.lr[top : top + size, left : left + size]
        high = pair.hr[SCALE * top : SCALE * (top + size), SCALE * left : SCALE * (left + size)]
        turns, mirrored = divmod(int(rng.integers(8)), 2)
        for crop, batch in ((low, lows), (high, highs)):
            turned = np.rot90(crop, turns)
            batch.append(turned[:, ::-1] if mirrored else turned)
    return _to_tensor(np.stack(lows)), _to_tensor(np.stack(highs))


def _to_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 NHWC to float32 NCHW in 0..1, kept channels_last in memory."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float().div(255.0)


def validate(net: nn.Module, pairs: list[Pair], device: torch.device) -> float:
    """Mean Y-PSNR in dB over the pairs."""
    values = []
    with torch.inference_mode():
        for pair in pairs:
            out = net(_to_tensor(pair.lr[None]).to(device)).mul(255.0).round().clamp(0, 255).byte()
            values.append(psnr_y(out[0].permute(1, 2, 0).cpu().numpy(), pair.hr, border=SCALE))
    return float(np.mean(values))


def train(recipe: Recipe, data: Path, folder: Path, device: torch.device) -> None:
    """Run to the end of the recipe, with a checkpoint, a validation and a log line every `check_every` iterations."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    net = Edsr(features=24, blocks=4, scale=SCALE).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = Edsr(features=24, blocks=4, scale=SCALE).to(device)
    ema.load_state_dict(net.state_dict())
    adam = torch.optim.Adam(net.parameters(), betas=(0.9, 0.99))
    start = resume(folder, net, ema, adam)
    pairs = read_training_pairs(data, recipe.patch)
    test = list(iter_pairs(data / VALIDATION_SET, SCALE))
    print(
        f"{sum(p.numel() for p in net.parameters())} parameters, {len(pairs)} images, from iteration {start}",
        flush=True,
    )

    losses: list[Tensor] = []
    clock = time.monotonic()
    for iteration in range(start, recipe.iterations):
        low, high = draw_batch(pairs, recipe, iteration)
        for group in adam.param_groups:
            group["lr"] = learning_rate(recipe, iteration)
        half = iteration < recipe.bf16_share * recipe.iterations
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            out = net(low.to(device))
        loss = nn.functional.l1_loss(out.float(), high.to(device))
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        adam.step()
        update_average(ema, net, min(recipe.ema_decay, (1 + iteration) / (10 + iteration)))
        losses.append(loss.detach())
        done = iteration + 1
        if done % recipe.check_every == 0 or done == recipe.iterations:
            psnr = validate(ema, test, device)
            mean_loss = float(torch.stack(losses).mean())
            row = (done, f"{learning_rate(recipe, iteration):.3e}", f"{mean_loss:.6f}", f"{psnr:.3f}")
            save(folder, done, net, ema, adam)
            append_log(folder, (*row, f"{time.monotonic() - clock:.0f}"))
            print(*row, flush=True)
            losses, clock = [], time.monotonic()


@torch.no_grad()
def update_average(ema: nn.Module, net: nn.Module, decay: float) -> None:
    """Exponential moving average of the weights; the decay grows from small so that early averages are useful."""
    for average, value in zip(ema.parameters(), net.parameters(), strict=True):
        average.lerp_(value, 1 - decay)


def save(folder: Path, iteration: int, net: nn.Module, ema: nn.Module, adam: torch.optim.Optimizer) -> None:
    """Write the checkpoint beside, then rename."""
    state = {"iteration": iteration, "net": net.state_dict(), "ema": ema.state_dict(), "adam": adam.state_dict()}
    with beside(folder / "checkpoint.pt") as place, place.open("wb") as stream:
        torch.save(state, stream)


def resume(folder: Path, net: nn.Module, ema: nn.Module, adam: torch.optim.Optimizer) -> int:
    """Load the checkpoint if there is one, cut the log to it, and return the iteration to go on with."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        (folder / "log.csv").unlink(missing_ok=True)
        return 0
    state = torch.load(path, weights_only=True)
    net.load_state_dict(state["net"])
    ema.load_state_dict(state["ema"])
    adam.load_state_dict(state["adam"])
    rows = [row for row in read_log(folder / "log.csv") if int(row[0]) <= state["iteration"]]
    write_csv(folder / "log.csv", rows)
    return int(state["iteration"])


def read_log(path: Path) -> list[list[str]]:
    """Rows of a training log without its header."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def append_log(folder: Path, row: tuple[object, ...]) -> None:
    """Add one row to the training log."""
    write_csv(folder / "log.csv", [*read_log(folder / "log.csv"), [str(value) for value in row]])


def write_csv(path: Path, rows: list[list[str]]) -> None:
    """Write header and rows beside, then rename."""
    with beside(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([LOG_FIELDS, *rows])


def export(folder: Path) -> None:
    """EMA weights as safetensors into the package, the log into the documentation."""
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    write_weights(state["ema"])
    DOCS.mkdir(parents=True, exist_ok=True)
    write_csv(DOCS / "train.csv", read_log(folder / "log.csv"))
    print(f"exported iteration {state['iteration']}")


def write_weights(state: dict[str, Tensor]) -> None:
    """Float weights as safetensors into the package."""
    weights = {key: value.detach().contiguous() for key, value in state.items()}
    target = WEIGHTS / f"{NAME}.safetensors"
    write_bytes(target, serialize(weights, metadata={"network": NAME}))
    print(target)


def draw_curve(folder: Path) -> None:
    """Draw loss and validation PSNR of train.csv as curve.svg beside it; same log, same bytes."""
    rows = read_log(folder / "train.csv")
    iterations = [int(row[0]) for row in rows]
    with matplotlib.rc_context({"svg.hashsalt": NAME, "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(iterations[1:], [float(row[2]) for row in rows[1:]])
        left.set(xlabel="iteration", ylabel="training loss (L1, 0..1)")
        right.plot(iterations, [float(row[3]) for row in rows])
        right.set(xlabel="iteration", ylabel="Set5 Y-PSNR, dB")
        for axes in (left, right):
            axes.grid(alpha=0.3)
        with beside(folder / "curve.svg") as place:
            figure.savefig(place, format="svg", metadata={"Date": None})


def quality_table(data: Path) -> str:
    """Y-PSNR and SSIM of bicubic and of the exported network on the test sets, as a table in Markdown."""
    net = load_network(NAME, WEIGHTS / f"{NAME}.safetensors")
    lines = [
        "| set | images | bicubic PSNR | bicubic SSIM | network PSNR | network SSIM |",
        "|---|---|---|---|---|---|",
    ]
    for name in REPORT_SETS:
        rows = []
        for pair in iter_pairs(data / name, SCALE):
            outputs = (upscale(pair.lr, SCALE), run_float(net, pair.lr))
            rows.append([metric(out, pair.hr, SCALE) for out in outputs for metric in (psnr_y, ssim_y)])
        mean = np.mean(rows, axis=0)
        lines.append(f"| {name} | {len(rows)} | {mean[0]:.3f} | {mean[1]:.4f} | {mean[2]:.3f} | {mean[3]:.4f} |")
    return "\n".join(lines)


def write_table(page: Path, table: str) -> None:
    """Print the table and put it between the two marks of the page."""
    print(table)
    before, begin, rest = page.read_text(encoding="utf-8").partition(TABLE_BEGIN)
    _, end, after = rest.partition(TABLE_END)
    if not begin or not end:
        sys.exit(f"{page}: the marks {TABLE_BEGIN} and {TABLE_END} are missing; put them where the table belongs")
    write_text(page, f"{before}{begin}\n\n{table}\n\n{end}{after}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("train", "export", "report"))
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with T91, General100, Set5"
    )
    parser.add_argument("--folder", type=Path, help="checkpoints and log (default build/train)")
    parser.add_argument("--iterations", type=int, default=40_000)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--quick", action="store_true", help="smoke test of 20 iterations")
    args = parser.parse_args()
    folder = args.folder or ROOT / "build" / ("train-quick" if args.quick else "train")
    if args.action == "export":
        export(folder)
        return
    if args.action == "report":
        draw_curve(DOCS)
        write_table(DOCS.with_suffix(".md"), quality_table(args.data))
        return
    torch.set_num_threads(args.threads)
    use_cuda = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
    recipe = Recipe(iterations=args.iterations)
    if args.quick:
        recipe = Recipe(iterations=20, batch=4, warmup=5, check_every=10)
    train(recipe, args.data, folder, torch.device("cuda" if use_cuda else "cpu"))


if __name__ == "__main__":
    main()
