"""``kill -9`` between every two steps, power cuts in the log: what was committed is there, nothing is half there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import killing

MEMORY = Path("/dev/shm")  # a kill loses nothing that was written: no need to wait for a disk

ROOT = Path(__file__).parents[2]


def killed(what: str, how: str, folder: Path) -> list[int]:
    """After a kill at each step: how many of the commits were there. Fails if anything was wrong."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.killing", what, how, str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    left = json.loads(run.stdout)
    assert {step: wrong for step, (_, wrong) in enumerate(left, start=1) if wrong} == {}
    return [commits for commits, _ in left]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


@pytest.mark.parametrize("how", ["statements", "instructions"])
def test_a_commit_is_there_or_not_at_all(folder: Path, how: str) -> None:
    commits = killed("writing", how, folder)
    assert commits == sorted(commits), "what is committed stays"
    assert {0, 1, 2, 3} <= set(commits)
    assert len(commits) > 20


def test_a_catalog_is_made_or_made_by_the_next(folder: Path) -> None:
    assert len(killed("making", "statements", folder)) > 20


@pytest.mark.parametrize("how", ["statements", "instructions"])
def test_a_switch_to_another_model_is_there_or_not_at_all(folder: Path, how: str) -> None:
    commits = killed("switching", how, folder)
    assert commits == sorted(commits)
    assert {0, 1, 2} <= set(commits)
    assert len(commits) > 20


def test_an_index_file_is_the_old_or_the_new_one(folder: Path) -> None:
    assert len(killed("saving", "calls", folder)) > 5


def test_a_log_that_a_power_cut_tore_holds_whole_commits(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    killing.prepare("writing", base)
    states = [killing.state(base)]
    live = tmp_path / "live"
    shutil.copytree(base, live)
    for write in killing.writes(
        "writing", live
    ):  # the engine stays open: the log is not folded into the file
        write()
        states.append(killing.state(live))
    log = (live / "catalog.db-wal").read_bytes()
    seen = []
    for length in [*range(0, len(log), len(log) // 12), len(log)]:
        home = tmp_path / f"{length}"
        home.mkdir()
        shutil.copy(live / "catalog.db", home)
        (home / "catalog.db-wal").write_bytes(log[:length])
        seen.append(states.index(killing.state(home)))
        assert killing.right(home) == []
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0, len(states) - 1)


def test_the_lock_of_a_killed_writer_is_free(tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "from tests.killing import opened, Path\n"
        "engine = opened(Path(sys.argv[1]))\n"
        "with engine.writing(what='dying'):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT)
    assert run.returncode == -9
    assert os.path.exists(tmp_path / "writer.json")
    with killing.opened(tmp_path) as engine, engine.writing(wait=0):
        engine.add([killing.item("a", 1)])
    assert not os.path.exists(tmp_path / "writer.json")
