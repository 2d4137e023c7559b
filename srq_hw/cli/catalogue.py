"""targets, networks, doctor: what there is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from srq_hw.cli.console import console, interruptible
from srq_hw.cli.options import (
    JsonOption,
)


def targets(
    name: Annotated[str | None, typer.Argument(help="Target to show in full.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a target file.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the targets, show one, or print the schema of a target file."""
    from srq_hw.target import json_schema, list_targets, load_target

    if schema:
        typer.echo(json.dumps(json_schema(), indent=1))
        return
    if name is not None:
        typer.echo(json.dumps(load_target(name).model_dump(by_alias=True, exclude_none=True), indent=1))
        return
    found = [load_target(item) for item in list_targets()]
    if as_json:
        typer.echo(json.dumps([item.model_dump(by_alias=True, exclude_none=True) for item in found]))
        return
    table = Table("name", "title", "part", "clock MHz", "LUT", "DSP", "BRAM36", "URAM", box=None)
    for item in found:
        r = item.resources
        if r is None:
            table.add_row(item.name, item.title, *["–"] * 6)
            continue
        table.add_row(
            item.name,
            item.title,
            r.part,
            f"{r.clock_mhz:g}",
            f"{r.lut:,}",
            f"{r.dsp.count:,}",
            str(r.bram36),
            str(r.uram),
        )
    console().print(table)


def networks(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the networks that srq-hw knows by name, or fetch the weights of one."""
    from srq_hw.networks.listing import network_rows

    if context.invoked_subcommand is not None:
        return
    rows = network_rows()
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("name", "title", "scale", "image", "weights", "origin", box=None)
    for row in rows:
        image = "RGB" if row["channels"] == 3 else "Y"
        cells = (row["name"], row["title"], f"x{row['scale']}", image, row["weights"], row["origin"])
        table.add_row(*(escape(str(cell)) for cell in cells))
    console().print(table)


def networks_fetch(
    name: Annotated[str, typer.Argument(help="Network name.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder to put the file in.", show_default="cache folder")
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="Address, instead of the published one.")] = None,
    sha256: Annotated[
        str | None, typer.Option("--sha256", help="First digits of the file's SHA-256, instead of the published ones.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Download published weights, verify their digest, and keep them where NAME finds them without --weights."""
    from srq_hw.networks.fetch import fetch
    from srq_hw.progress import bar

    with interruptible(), bar(f"fetch {name}") as progress:
        found = fetch(name, out, url, sha256, progress)
    if as_json:
        typer.echo(json.dumps({**vars(found), "path": str(found.path)}))
        return
    how = f"begins with {found.verified} as published" if found.verified else "no published digest to compare with"
    typer.echo(f"{found.path}: sha256 {found.sha256} ({how})")


def doctor(as_json: JsonOption = False) -> None:
    """Every tool srq-hw can use: version found, what is lost without it, how to get it."""
    from srq_hw.doctor import report

    rows = report()
    if as_json:
        typer.echo(
            json.dumps(
                [{**vars(row), "path": str(row.path) if row.path else None, "usable": row.usable} for row in rows]
            )
        )
        return
    table = Table("tool", "found", "needed", "without it", "how to get it", box=None)
    for row in rows:
        state = f"[green]{row.version}[/]" if row.usable else f"[yellow]{escape(row.problem)}[/]"
        remedy = ("", "") if row.usable else (escape(row.lost), escape(row.get))
        table.add_row(row.name, state, row.needed or "any", *remedy)
    console().print(table)
