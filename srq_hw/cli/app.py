"""The program: its commands in one table, and how every failure becomes an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from srq_hw import __version__
from srq_hw.cli import build, catalogue, estimate, measure, train
from srq_hw.cli.console import fail
from srq_hw.errors import SrqError

#: what typer exits with on Ctrl-C outside of a long job, without a word
INTERRUPTED = 130

#: commands in the order of --help
COMMANDS: dict[str, Callable[..., Any]] = {
    "build": build.build,
    "check": build.check,
    "simulate": build.simulate,
    "estimate": estimate.estimate,
    "evaluate": measure.evaluate,
    "compare": measure.compare,
    "search-bits": measure.search_bits,
    "qat": train.qat,
    "targets": catalogue.targets,
    "doctor": catalogue.doctor,
}


def make_app() -> typer.Typer:
    """The command line with all commands."""
    app = typer.Typer(
        name="srq-hw",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="Float super-resolution networks to integer pipelines for FPGAs, proven equal bit for bit.",
    )
    app.callback()(_root)
    for name, command in COMMANDS.items():
        app.command(name)(command)
    networks = typer.Typer(help="List the networks that srq-hw knows by name, or fetch the weights of one.")
    networks.callback(invoke_without_command=True)(catalogue.networks)
    networks.command("fetch")(catalogue.networks_fetch)
    app.add_typer(networks, name="networks")
    return app


def _version(value: bool) -> None:
    if value:
        typer.echo(f"srq-hw {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the `srq-hw` program; ends the process with the exit status."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit status."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (open as long as the process)
    try:
        make_app()(arguments, prog_name="srq-hw")
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            return fail("interrupted", 1)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except SrqError as error:
        return fail(str(error), error.exit_code)
    except MemoryError:
        return fail("not enough memory; use a smaller image or --input-size", 1)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return fail(f"{error.filename or 'standard output'}: {error.strerror or error}", 1)
    return 0
