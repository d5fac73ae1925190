"""``mmsearch gpu`` where there is no GPU: what it would run, and what it sees. Real swaps: ``tests/extras``."""

from __future__ import annotations

import shlex
import subprocess
import sys

import faiss
import pytest

from mmsearch import gpu
from mmsearch.cli import gpu as command
from tests.e2e.conftest import Cli
from tests.gpus import Machine, install


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["install"], "faiss-gpu>=1.15.1,<2"),
        (["remove"], "faiss-cpu>=1.12"),
    ],
)
def test_dry_run_prints_commands_that_a_shell_reads_as_they_are_meant(
    cli: Cli, arguments: list[str], wanted: str
) -> None:
    ran = cli("gpu", *arguments, "--dry-run")
    assert ran.code == 0
    lines = [shlex.split(line, comments=True) for line in ran.out.splitlines()]
    assert lines[0] == [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", wanted]
    assert lines[1] == [sys.executable, "-m", "pip", "uninstall", "--yes", "faiss-cpu"]
    assert lines[2] == [sys.executable, "-m", "pip", "install", wanted]


def test_status_tells_build_gpus_and_kinds(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    if gpu.gpu_kinds():
        pytest.skip("a GPU build is installed")
    ran = cli("gpu", "status")
    assert ran.out.splitlines()[0] == f"build    faiss-cpu {faiss.__version__}"
    assert "none" in ran.out.splitlines()[1]
    assert "mmsearch gpu install" in ran.out.splitlines()[2]
    (record,) = cli("gpu", "status", "--json").records()
    assert record == {"build": "faiss-cpu", "version": faiss.__version__, "gpus_free_bytes": [], "kinds": []}
    install(Machine(2), monkeypatch)
    (record,) = cli("gpu", "status", "--json").records()
    assert (record["gpus_free_bytes"], record["kinds"]) == ([8 << 30] * 2, ["flat", "ivfpq", "cagra"])
    assert "2 GPUs: 8.6 GB free, 8.6 GB free" in cli("gpu", "status").out


def test_a_search_that_insists_on_a_gpu_names_the_command(cli: Cli) -> None:
    if gpu.gpu_kinds():
        pytest.skip("a GPU build is installed")
    for device in ("cuda", "cuda:ivfpq:shards"):
        ran = cli("search", "red", "--device", device)
        assert (ran.code, ran.out) == (2, "")
        assert "mmsearch gpu install" in ran.err
    ran = cli("search", "red", "--device", "cuda:0")
    assert ran.code == 2
    assert "cuda:0" in ran.err


def test_when_the_swap_fails_the_cpu_build_is_put_back(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(line: list[str]) -> bool:
        ran.append(line[3:])
        return not (line[3] == "install" and line[-1].startswith("faiss-gpu") and "--dry-run" not in line)

    monkeypatch.setattr(command, "_ran", run)
    failed = cli("gpu", "install")
    assert failed.code == 2
    assert "faiss-cpu was put back" in failed.err
    assert ran[-1] == ["install", "faiss-cpu>=1.12"]
    assert ran[-2][:2] == ["uninstall", "--yes"]


def test_what_cannot_be_installed_changes_nothing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []

    def run(line: list[str], check: bool) -> subprocess.CompletedProcess[bytes]:
        ran.append(line)
        return subprocess.CompletedProcess(line, 1)

    monkeypatch.setattr("subprocess.run", run)
    failed = cli("gpu", "install")
    assert failed.code == 2
    assert "nothing was changed" in failed.err
    assert len(ran) == 1
    assert "--dry-run" in ran[0]
