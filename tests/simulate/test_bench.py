"""The benchmark script runs, compares bits, and ends with its figures as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_quick_benchmark(repo_root: Path) -> None:
    command = [sys.executable, str(repo_root / "scripts" / "bench_simulate.py"), "--quick", "--size", "96"]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["mismatches"] == 0
    assert result["compared_values"] == 3 * 64**2
    assert (result["threads"], result["size"]) == (1, 96)
    for peer in ("torch_channels_last", "torch_default", "onnxruntime_qdq", "qonnx"):
        assert result[f"ratio_vs_{peer}"] > 0
    # The peers run the same network: only values beside a tie may differ.
    assert max(result["peer_differences"].values()) < 0.2
