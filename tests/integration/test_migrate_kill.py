"""Migrations that end before they are over: ``kill -9`` and Ctrl-C anywhere, and the next run."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import indexer.migrate
from indexer import index
from indexer.migrate import migrate, shadow_of
from mmsearch import Engine, Query, Term, shadows
from mmsearch.catalog import Catalog
from tests.toy import ToyEncoder

FILES = 24
BATCH = 8  # items in a commit

# one server imports everything once; its children start in no time
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


def new_encoder() -> ToyEncoder:
    return ToyEncoder("next", 7)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    (folder / "photos").mkdir()
    for n in range(FILES):
        PIL.Image.new("RGB", (8, 8), (10 * n, 0, 255 - 9 * n)).save(folder / "photos" / f"{n:02}.png")
    with Engine.open(folder / "home", model=ToyEncoder()) as engine:
        index(engine, [folder / "photos"])
    return folder


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "home", tmp_path / "home"))


def run(home: Path, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    indexer.migrate.COMMIT_ITEMS = BATCH
    indexer.migrate.COMMIT_SECONDS = float("inf")  # a slow machine would commit earlier
    with Engine.open(home, create=False) as engine:
        migrate(engine, new_encoder(), progress=progress)


def die_at(home: Path, where: str, call: int, before: bool, number: int) -> None:
    """In a process of its own: end it before or after the so many-th call of something, or at so much progress."""
    calls = 0

    def die() -> None:
        os.kill(os.getpid(), number)

    def deadly(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and before:
            die()
        result = plain(*args, **options)
        if calls == call:
            die()
        return result

    def progress(done: int, total: int) -> None:
        if where == "progress" and done == call:
            die()

    owners: dict[str, Any] = {
        "make": shadows,
        "missing": shadows,
        "switch": shadows,
        "add": Catalog,
        "save": Engine,
    }
    if where in owners:
        plain = getattr(owners[where], where)
        setattr(owners[where], where, deadly)
    try:
        run(home, progress)
    except KeyboardInterrupt:
        sys.exit(130)


def start(*args: Any) -> ForkServerProcess:
    process = CONTEXT.Process(target=die_at, args=args)
    process.start()
    return process


def answers(engine: Engine) -> list[tuple[str, float]]:
    query = Query(terms=(Term(text="red"),), k=99)
    return [(hit.item.key, hit.score) for hit in engine.search(query)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize(
    ("where", "call", "before", "done"),
    [
        ("make", 1, True, None),
        ("make", 1, False, 0),
        ("missing", 1, False, 0),
        ("progress", 1, True, 0),
        ("progress", 13, True, 8),
        ("add", 1, True, 0),
        ("add", 2, False, 16),
        ("add", 3, True, 16),
        ("progress", 24, True, 24),
        ("switch", 1, True, 24),
        ("switch", 1, False, "switched"),
        ("save", 1, True, "switched"),
    ],
)
def test_after_a_kill_the_next_run_goes_on(
    home: Path,
    made: Path,
    where: str,
    call: int,
    before: bool,
    done: int | str | None,
    number: signal.Signals,
) -> None:
    with Engine.open(home, model=ToyEncoder()) as engine:
        old = answers(engine)
    whole = Path(shutil.copytree(made / "home", home.parent / "whole"))
    with Engine.open(whole, create=False) as engine:
        migrate(engine, new_encoder())
        new = answers(engine)

    process = start(home, where, call, before, number)
    process.join()
    assert process.exitcode == (130 if number is signal.SIGINT else -signal.SIGKILL)

    if done == "switched":
        with Engine.open(home, model=new_encoder()) as engine:
            assert answers(engine) == new
            assert engine.check() == []
        return
    with Engine.open(home, model=ToyEncoder()) as engine:
        assert answers(engine) == old, "it is searched with its old model"
        assert engine.check() == []
        found = shadow_of(engine)
        there = found.done if found else None
        assert there == done
        encoder = new_encoder()
        report = migrate(engine, encoder)
        assert report.encoded == FILES - (there or 0), "what was committed is not encoded again"
        assert answers(engine) == new
        assert engine.check() == []
