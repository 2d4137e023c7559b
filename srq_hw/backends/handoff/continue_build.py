#!/usr/bin/env python3
"""Continues the FINN build of this bundle on a machine with Vivado and Vitis HLS.

    python continue_build.py                 # stitched IP and out-of-context synthesis
    python continue_build.py --bitfile       # bitstream and driver as well (boards FINN knows)
    python continue_build.py --prepare-only  # check the bundle and set up the work folder, start nothing
    python continue_build.py --verify nodes  # let FINN compare every node's RTL with the golden vectors as well

Needs the versions of FINN+ and srq-hw named in build.json in the environment of this Python, whose `finn` it calls:
srq-hw holds FINN's operations of this design and the Verilog that they are made of.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MANIFEST = "MANIFEST.sha256"
SOURCES, FINN, FINN_DEPS = "@SRQ_SOURCES@", "@SRQ_FINN@", "@SRQ_FINN_DEPS@"
BITFILE_STEPS = ("step_prepare_synthesis", "step_synthesize_bitfile", "step_make_driver", "step_deployment_package")
BITFILE_OUTPUTS = ("bitfile", "pynq_driver", "deployment_package")
#: --verify -> FINN's name
VERIFICATIONS = {
    "python": "folded_hls_cppsim",
    "nodes": "node_by_node_rtlsim",
    "stitched": "stitched_ip_rtlsim",
}


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


def library_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a folder's Verilog files."""
    total = hashlib.sha256()
    for path in sorted(folder.glob("*.v")):
        total.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def version_problems(build: dict[str, Any]) -> list[str]:
    """What of FINN+ and srq-hw is missing here or another than the bundle was made with; [] where all fits."""
    problems = []
    try:
        found = version("finn-plus")
        if found != build["finn_plus"]:
            problems.append(f"FINN+ {found} is installed; this bundle needs {build['finn_plus']}")
    except PackageNotFoundError:
        problems.append(f"FINN+ is not installed for this Python; needed: finn-plus {build['finn_plus']}")
    if find_spec("srq_hw") is None:
        return [*problems, f"srq-hw is not installed for this Python; needed: srq-hw {build['srq_hw']}"]
    import srq_hw

    if srq_hw.__version__ != build["srq_hw"]:
        problems.append(f"srq-hw {srq_hw.__version__} is installed; this bundle needs {build['srq_hw']}")
    elif library_digest(Path(str(srq_hw.__file__)).parent / "backends" / "rtl" / "lib") != build["srq_rtl_sha256"]:
        problems.append(
            f"the Verilog of the installed srq-hw is not that of srq-hw {build['srq_hw']}, install it again"
        )
    return problems


def verification_problems(output: Path, steps: list[str]) -> list[str]:
    """What FINN's verification found, which it notes in files and otherwise goes on; [] where all steps passed."""
    problems = []
    for step in steps:
        found = sorted((output / "verification_output").glob(f"verify_{step}_*"))
        failed = [path.name for path in found if "_FAIL" in path.name]
        if failed:
            problems.append(f"{step}: the output is not golden/output.npy ({failed[0]})")
        elif not any("_SUCCESS" in path.name for path in found):
            problems.append(f"{step}: did not run")
    return problems


def prepare(
    bundle: Path, work: Path, places: dict[str, str], bitfile: bool, verify: list[str] | None = None
) -> tuple[Path, Path]:
    """Fill the work folder with sources, model and FINN's configuration for this machine; returns config and model.

    verify: FINN's verification steps; None: those of the bundle.
    """
    import numpy as np
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
    for side in ("input", "output"):  # FINN wants a batch of float32
        np.save(work / f"{side}.npy", np.load(bundle / "golden" / f"{side}.npy")[None].astype(np.float32))
    # JSON is YAML, which is what FINN reads.
    config = work / "build.yaml"
    config.write_text(json.dumps(_finn_config(bundle, work, bitfile, verify), indent=1) + "\n")
    return config, work / "dataflow.onnx"


def _fill(data: bytes, places: dict[str, str]) -> bytes:
    for placeholder, path in sorted(places.items(), key=lambda item: -len(item[0])):
        data = data.replace(placeholder.encode(), path.encode())
    return data


def _finn_config(bundle: Path, work: Path, bitfile: bool, verify: list[str] | None) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((bundle / "build.json").read_text())["finn_config"]
    config["output_dir"] = str(work / "output")
    config["folding_config_file"] = str(work / "folding.json")
    config["verify_input_npy"] = str(work / "input.npy")
    config["verify_expected_output_npy"] = str(work / "output.npy")
    if verify is not None:
        config["verify_steps"] = verify
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
    """Check, set up, hand over to FINN, look at what it verified; 0 where FINN ended well and nothing differs."""
    bundle = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Continue the FINN build of this bundle.")
    parser.add_argument("--work", type=Path, default=bundle.parent / f"{bundle.name}_build", help="folder to build in")
    parser.add_argument("--finn-deps", help="FINN's dependency folder (default: FINN's own settings)")
    parser.add_argument("--bitfile", action="store_true", help="go on to bitstream and driver")
    parser.add_argument("--prepare-only", action="store_true", help="set up the work folder and stop")
    parser.add_argument(
        "--verify",
        type=_verifications,
        metavar="STEPS",
        help=f"what FINN compares with the golden vectors: {', '.join(VERIFICATIONS)}, several with commas, or none "
        "(default: those of build.json)",
    )
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    if work == bundle or bundle in work.parents or work in bundle.parents:
        sys.exit("continue_build: --work must lie outside the bundle and must not contain it")
    problems = manifest_problems(bundle)
    if problems:
        sys.exit("continue_build: the bundle is damaged:\n  " + "\n  ".join(problems))
    build = json.loads((bundle / "build.json").read_text())
    problems = version_problems(build)
    if problems:
        sys.exit("continue_build: see README.md, section Needs:\n  " + "\n  ".join(problems))
    config, model = prepare(bundle, work, _finn_places(arguments.finn_deps), arguments.bitfile, arguments.verify)
    beside = Path(sys.executable).with_name("finn")
    command = [str(beside) if beside.is_file() else "finn", "build", str(config), str(model)]
    sys.stdout.write(f"work folder {work}\ncommand {' '.join(command)}\n")
    sys.stdout.flush()
    if arguments.prepare_only:
        return 0
    status = subprocess.run(command, check=False, cwd=work).returncode
    steps = build["finn_config"]["verify_steps"] if arguments.verify is None else arguments.verify
    problems = verification_problems(work / "output", steps)
    if problems:
        sys.stderr.write("continue_build: FINN's verification:\n  " + "\n  ".join(problems) + "\n")
    return status or bool(problems)


def _verifications(text: str) -> list[str]:
    names = [] if text == "none" else text.split(",")
    unknown = [name for name in names if name not in VERIFICATIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r}; allowed: none, or of {', '.join(VERIFICATIONS)}")
    return [VERIFICATIONS[name] for name in names]


if __name__ == "__main__":
    sys.exit(main())
