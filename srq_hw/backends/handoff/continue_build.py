#!/usr/bin/env python3
"""Continues the FINN build of this bundle on a machine with Vivado and Vitis HLS.

    python continue_build.py                 # stitched IP and out-of-context synthesis
    python continue_build.py --bitfile       # bitstream and driver as well (boards FINN knows)
    python continue_build.py --prepare-only  # check the bundle and set up the work folder, start nothing

Needs the FINN+ version named in build.json (its command `finn` must run) and the onnx package that comes with it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.sha256"
SOURCES, FINN, FINN_DEPS = "@SRQ_SOURCES@", "@SRQ_FINN@", "@SRQ_FINN_DEPS@"
BITFILE_STEPS = ("step_prepare_synthesis", "step_synthesize_bitfile", "step_make_driver", "step_deployment_package")
BITFILE_OUTPUTS = ("bitfile", "pynq_driver", "deployment_package")


def manifest_problems(folder: Path) -> list[str]:
    """Changed, missing and unlisted files of a bundle; [] where it is whole."""
    listing = folder / MANIFEST
    if not listing.is_file():
        return [f"{MANIFEST} is missing"]
    problems, listed = [], set()
    for line in listing.read_text().splitlines():
        digest, _, name = line.partition("  ")
        listed.add(name)
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            problems.append(f"{name} was changed")
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return problems + [f"{name} is not listed" for name in sorted(present - listed - {MANIFEST})]


def prepare(bundle: Path, work: Path, places: dict[str, str], bitfile: bool) -> tuple[Path, Path]:
    """Fill the work folder with sources, model and FINN's configuration for this machine; returns config and model."""
    import onnx

    places = {SOURCES: str(work / "sources"), **places}
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    for path in sorted((bundle / "sources").rglob("*")):
        if path.is_file():
            target = work / "sources" / path.relative_to(bundle / "sources")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_fill(path.read_bytes(), places))
    model = onnx.load(bundle / "dataflow.onnx")
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.STRING:
                attribute.s = _fill(attribute.s, places)
    onnx.save(model, work / "dataflow.onnx")
    shutil.copyfile(bundle / "folding.json", work / "folding.json")
    # JSON is YAML, which is what FINN reads.
    config = work / "build.yaml"
    config.write_text(json.dumps(_finn_config(bundle, work, bitfile), indent=1) + "\n")
    return config, work / "dataflow.onnx"


def _fill(data: bytes, places: dict[str, str]) -> bytes:
    for placeholder, path in sorted(places.items(), key=lambda item: -len(item[0])):
        data = data.replace(placeholder.encode(), path.encode())
    return data


def _finn_config(bundle: Path, work: Path, bitfile: bool) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((bundle / "build.json").read_text())["finn_config"]
    config["output_dir"] = str(work / "output")
    config["folding_config_file"] = str(work / "folding.json")
    if bitfile:
        if "board" not in config:
            sys.exit("continue_build: --bitfile needs a board that FINN knows; this bundle is for a bare part")
        config["steps"] += BITFILE_STEPS
        config["generate_outputs"] += BITFILE_OUTPUTS
        config["shell_flow_type"] = (
            "vitis_alveo" if config["board"].startswith("U") and config["board"][1:2].isdigit() else "vivado_zynq"
        )
    return config


def _finn_places(given: str | None) -> dict[str, str]:
    """Where FINN and its HLS libraries are installed here."""
    spec = find_spec("finn")
    if spec is None or not spec.origin:
        sys.exit("continue_build: FINN+ is not installed for this Python; see README.md, section Needs")
    deps = given or os.environ.get("FINN_DEPS")
    if not deps:
        from finn.interface.settings import FINNSettings

        deps = str(FINNSettings.init(flow_config=Path("build.yaml"), auto_set_environment_vars=False).finn_deps)
    return {FINN: str(Path(spec.origin).parent), FINN_DEPS: str(Path(deps).resolve())}


def main() -> int:
    """Check, set up, and hand over to FINN; the exit status is FINN's."""
    bundle = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Continue the FINN build of this bundle.")
    parser.add_argument("--work", type=Path, default=bundle.parent / f"{bundle.name}_build", help="folder to build in")
    parser.add_argument("--finn-deps", help="FINN's dependency folder (default: FINN's own settings)")
    parser.add_argument("--bitfile", action="store_true", help="go on to bitstream and driver")
    parser.add_argument("--prepare-only", action="store_true", help="set up the work folder and stop")
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if work == bundle or bundle in work.parents or work in bundle.parents:
        sys.exit("continue_build: --work must lie outside the bundle and must not contain it")
    problems = manifest_problems(bundle)
    if problems:
        sys.exit("continue_build: the bundle is damaged:\n  " + "\n  ".join(problems))
    config, model = prepare(bundle, work, _finn_places(arguments.finn_deps), arguments.bitfile)
    command = ["finn", "build", str(config), str(model)]
    sys.stdout.write(f"work folder {work}\ncommand {' '.join(command)}\n")
    sys.stdout.flush()
    return 0 if arguments.prepare_only else subprocess.run(command, check=False, cwd=work).returncode


if __name__ == "__main__":
    sys.exit(main())
