"""Run a command as a child and say what it cost; say what machine this is."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Cost:
    """What one child cost: wall clock and processor seconds (its threads and children added up), and its peak
    resident set in MB (10^6 bytes).
    """

    wall_s: float
    cpu_s: float
    rss_mb: float
    output: str


LAUNCHER = """
import json, os, sys, time
report, *command = sys.argv[1:]
started = time.perf_counter()
child = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(child, 0)
wall = time.perf_counter() - started
with open(report, "w") as file:
    json.dump([wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss, os.waitstatus_to_exitcode(status)], file)
"""
"""A small process between us and the child: Linux counts what a parent has in memory as its child's peak, too."""


def run(
    command: Sequence[str | Path], *, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Cost:
    """Run ``command`` to its end. Raises ``CalledProcessError``, after writing what it said, if it fails."""
    words = [str(word) for word in command]
    # Compiled modules are kept, as they are where nobody asked otherwise: a start would compile our sources again.
    environ = {**os.environ, **(env or {})}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.NamedTemporaryFile() as file:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", LAUNCHER, file.name, *words],
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        wall, cpu, peak, code = json.load(file) if not done.returncode else (0, 0, 0, done.returncode)
    if code:
        sys.stderr.write(done.stdout + done.stderr)
        raise subprocess.CalledProcessError(code, words, done.stdout)
    return Cost(wall, cpu, peak * (1 if sys.platform == "darwin" else 1024) / 1e6, done.stdout)


def processor_seconds() -> float:
    """Processor seconds that the whole machine has spent so far, to see afterwards how busy others kept it."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, _steal = map(int, fields)
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, Any]:
    """Which machine and which versions a result belongs to."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = {}
    for package in ("numpy", "faiss", "onnxruntime", "PIL", "sqlalchemy"):
        versions[package] = str(__import__(package).__version__)
    return {
        "processor": names[0].split(":", 1)[1].strip() if names else platform.processor(),
        "cores": os.cpu_count(),
        "vnni": any("vnni" in line for line in Path("/proc/cpuinfo").read_text().splitlines()),
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
        **versions,
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Median and 95th percentile in ms."""
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"p50_ms": round(float(p50), 2), "p95_ms": round(float(p95), 2)}


def report(benchmark: str, result: Mapping[str, Any], work: Path) -> None:
    """Print a result as one JSON line and keep it as ``work/results/BENCHMARK.json``."""
    line = json.dumps({"benchmark": benchmark, **result})
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    folder = work / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{benchmark}.json").write_text(line + "\n")
