"""Runs that end before they are over: ``kill -9`` and Ctrl-C, and the next run."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Semaphore
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import indexer.pipeline
from indexer import Progress, index
from mmsearch.engine import Engine
from tests.toy import ToyEncoder

FILES = 24
BATCH = 8  # items in a commit

# one server imports everything once; its children start in no time
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@pytest.fixture(scope="module")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("new")
    Engine.open(home, model=ToyEncoder()).close()
    return home


@pytest.fixture
def home(tmp_path: Path, new_home: Path) -> Path:
    """A copy: making a catalog takes longer than indexing these files."""
    return Path(shutil.copytree(new_home, tmp_path / "home"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(FILES):
        PIL.Image.new("RGB", (8, 8), (n, 0, 0)).save(folder / f"{n:02}.png")
    (folder / "zz.txt").write_text("The sea is green.")
    return folder


def run(home: Path, photos: Path, progress: Callable[[Progress], None] | None) -> None:
    indexer.pipeline.COMMIT_ITEMS = BATCH
    indexer.pipeline.COMMIT_SECONDS = float("inf")  # a slow machine would commit earlier
    with Engine.open(home, model=ToyEncoder()) as engine:
        index(engine, [photos], progress=progress)


def die_at(home: Path, photos: Path, method: str, call: int, before: bool) -> None:
    """In a process of its own: end it before or after the so many-th call of a method of the engine, or of progress."""
    calls = 0

    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def deadly(self: Engine, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and before:
            die()
        result = original(self, *args, **kwargs)
        if calls == call:
            die()
        return result

    def progress(step: Progress) -> None:
        if method == "progress" and step.stage == "index" and step.done == call:
            die()

    if method != "progress":
        original = getattr(Engine, method)
        setattr(Engine, method, deadly)
    run(home, photos, progress)


def wait_to_be_told(home: Path, photos: Path, begun: Semaphore) -> None:
    """In a process of its own: index slowly, and say so at each file."""

    def progress(step: Progress) -> None:
        if step.stage == "index":
            begun.release()
            time.sleep(0.02)

    try:
        run(home, photos, progress)
    except KeyboardInterrupt:
        sys.exit(130)


def start(target: Callable[..., None], *args: Any) -> ForkServerProcess:
    process = CONTEXT.Process(target=target, args=args)
    process.start()
    return process


def finish(home: Path, photos: Path) -> int:
    """Run to the end; returns the number of files that were there before."""
    toy = ToyEncoder()
    with Engine.open(home, model=toy) as engine:
        assert engine.check() == []
        there = len(engine.files())
        report = index(engine, [photos])
        assert (report.added, report.unchanged, report.skipped) == (FILES + 1 - there, there, [])
        assert toy.encoded_images + toy.encoded_texts == FILES + 1 - there
        assert engine.check() == []
        assert len(engine.files()) == FILES + 1
        assert engine.search("green")[0].item.key == str(photos / "zz.txt")
    return there


@pytest.mark.parametrize(
    ("method", "call", "before", "there"),
    [
        ("progress", 1, True, 0),
        ("progress", 19, True, 16),
        ("add", 1, True, 0),
        ("add", 3, True, 16),
        ("add", 3, False, 24),
        ("add", 4, False, 25),
        ("save", 1, True, 25),
        ("save", 1, False, 25),
        ("remember_root", 1, False, 0),
    ],
)
def test_after_a_kill_the_next_run_goes_on(
    home: Path, photos: Path, method: str, call: int, before: bool, there: int
) -> None:
    process = start(die_at, home, photos, method, call, before)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert finish(home, photos) == there


@pytest.mark.parametrize("seen", [1, 9, 17])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_at_any_moment_loses_the_batch_in_flight_at_most(
    home: Path, photos: Path, number: signal.Signals, seen: int
) -> None:
    begun = CONTEXT.Semaphore(0)
    process = start(wait_to_be_told, home, photos, begun)
    for _ in range(seen):
        assert begun.acquire(timeout=60)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == (130 if number is signal.SIGINT else -number)
    lost = ToyEncoder().batch_size if number is signal.SIGINT else BATCH + ToyEncoder().batch_size
    assert finish(home, photos) >= seen - lost
