"""What a training run found, on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_qat(found: dict[str, Any], out: Path, console: Console) -> None:
    """Float, start and best epoch, with their loss against float."""
    console.print(
        f"{found['network']} on {found['target']}, {found['weight_bits']}-bit weights, {found['act_bits']}-bit "
        f"activations; scored on {found['scored_on']} ({found['images']} images)",
        markup=False,
    )
    table = Table("", "PSNR", "SSIM", "loss, dB", box=None)
    origin = found["init"] or found["start_from"]["folder"]
    names = {"float": "float", "start": f"start ({origin})", "best": f"epoch {found['best']['epoch']}"}
    for key, title in names.items():
        row = found[key]
        table.add_row(
            Text(title), f"{row['psnr']:.3f}", f"{row['ssim']:.4f}", f"{found['float']['psnr'] - row['psnr']:.3f}"
        )
    console.print(table)
    parity = found["parity"]
    console.print(f"parity: {parity['mismatches']} of {parity['elements']} integers differ", markup=False)
    if found["left_out"]:
        console.print(f"{found['left_out']} training images are images of the scored set; left out", markup=False)
    console.print(f"written to {out}", markup=False)
