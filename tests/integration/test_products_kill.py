"""A feed that ends before it is over: ``kill -9`` at any commit, and the next run."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import indexer.products
from indexer.feeds import index_feed
from indexer.report import Report
from mmsearch.engine import Engine
from tests.toy import ToyEncoder

PRODUCTS = 40
BATCH = 8

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__])


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the feed as it was yesterday, and the feed as it is today."""
    folder = tmp_path_factory.mktemp("shop")
    for n in range(PRODUCTS):
        PIL.Image.new("RGB", (8, 8), (n, 2 * n, 0)).save(folder / f"{n}.png")
    yesterday = [f"{n},thing {n},{n}.png,{n}" for n in range(0, PRODUCTS, 2)]
    (folder / "feed.csv").write_text("\n".join(["id,title,image,price", *yesterday]))
    assert run(folder, folder / "home").added == PRODUCTS // 2
    # Of what was there a half has another price, and a quarter another title.
    today = [
        f"{n},{'other' if n % 8 == 0 else 'thing'} {n},{n}.png,{n + (n % 4 == 0)}" for n in range(PRODUCTS)
    ]
    (folder / "feed.csv").write_text("\n".join(["id,title,image,price", *today]))
    return folder


def run(folder: Path, home: Path, toy: ToyEncoder | None = None) -> Report:
    indexer.products.BATCH = BATCH
    with Engine.open(home, model=toy or ToyEncoder()) as engine:
        return index_feed(engine, folder / "feed.csv")


def die_at(folder: Path, home: Path, method: str, call: int, before: bool) -> None:
    """In a process of its own: end it before or after the so many-th call of a method of the engine."""
    calls = 0
    original = getattr(Engine, method)

    def deadly(self: Engine, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(self, *args, **kwargs)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(Engine, method, deadly)
    run(folder, home)


def contents(home: Path) -> dict[str, Any]:
    with Engine.open(home, model=ToyEncoder()) as engine:
        assert engine.check() == []
        return {
            item.key: (
                item.title,
                dict(item.attributes),
                [(part.modality, part.text) for part in item.parts],
                engine.vectors(item).astype(np.float16).tobytes(),
            )
            for item in engine.items()
        }


@pytest.mark.parametrize(
    ("method", "call", "before", "committed"),
    [
        ("add", 1, True, 0),
        ("add", 1, False, 1),
        ("add", 3, False, 3),
        ("update", 2, True, 2),
        ("update", 2, False, 2),
        ("add", 5, False, 5),
        ("save", 1, True, 5),
        ("save", 1, False, 5),
    ],
)
def test_after_a_kill_the_next_run_goes_on(
    started: Path, tmp_path: Path, method: str, call: int, before: bool, committed: int
) -> None:
    whole, home = tmp_path / "whole", tmp_path / "home"
    shutil.copytree(started / "home", whole)
    shutil.copytree(started / "home", home)
    run(started, whole)
    wanted = contents(whole)
    assert len(wanted) == PRODUCTS
    process = CONTEXT.Process(target=die_at, args=(started, home, method, call, before))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left = contents(home)
    new = {str(n) for n in range(1, PRODUCTS, 2)}
    assert len(left.keys() & new) == committed * BATCH // 2, "a batch is there or not at all"
    toy = ToyEncoder()
    with Engine.open(home, model=toy):
        pass
    toy.encoded_images = toy.encoded_texts = 0
    report = run(started, home, toy)
    assert report.added == len(new - left.keys())
    assert toy.encoded_images == report.added
    assert toy.encoded_texts == report.added + report.updated - report.attributes_only
    assert contents(home) == wanted
    assert run(started, home).unchanged == PRODUCTS
