"""Random histories of a folder, indexed now and then, against a model that knows what the catalog must hold."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import PIL.Image
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import index
from mmsearch.engine import Engine
from tests.toy import ToyEncoder

Operation: TypeAlias = tuple[str, ...]
State: TypeAlias = dict[str, int]
"""Path relative to the folder of both roots -> number of the content."""

ROOTS = ("a", "b")
PATHS = [f"{root}/{name}" for root in ROOTS for name in ("1.png", "2.png", "3.png", "deep/1.png", "4.txt")]
CONTENTS = range(4)

paths = st.sampled_from(PATHS)
operations = st.one_of(
    st.tuples(st.just("write"), paths, st.sampled_from(CONTENTS).map(str)),
    st.tuples(st.just("move"), paths, paths),
    st.tuples(st.just("copy"), paths, paths),
    st.tuples(st.just("swap"), paths, paths),
    st.tuples(st.just("delete"), paths),
    st.tuples(st.just("touch"), paths),
    st.tuples(st.just("index"), st.sampled_from(["a", "b", "ab", "ab"])),
    st.tuples(st.just("index"), st.just("ab")),
)


def kind(path: str) -> str:
    return Path(path).suffix


class Folder:
    """Files on disk, each with a time of its own: two writes within one tick of the clock would look like one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: State = {}
        self._clock = itertools.count(1_700_000_000)
        for root in ROOTS:
            (folder / root).mkdir()

    def do(self, operation: Operation) -> None:
        name, path, *rest = operation
        other = rest[0] if rest else ""
        match name:
            case "write":
                self._write(path, int(other))
            case "copy" if path in self.state and kind(path) == kind(other):
                self._write(other, self.state[path])
            case "delete" if path in self.state:
                (self.folder / path).unlink()
                del self.state[path]
            case "touch" if path in self.state:
                self._tick(path)
            case "move" if path in self.state and path != other and kind(path) == kind(other):
                (self.folder / other).parent.mkdir(exist_ok=True)
                (self.folder / path).rename(self.folder / other)
                self.state[other] = self.state.pop(path)
            case "swap" if {path, other} <= self.state.keys() and kind(path) == kind(other):
                first, second = self.state[path], self.state[other]
                self._write(path, second)
                self._write(other, first)

    def _write(self, path: str, content: int) -> None:
        file = self.folder / path
        file.parent.mkdir(exist_ok=True)
        if kind(path) == ".png":
            PIL.Image.new("RGB", (8, 8), (60 * content, 10, 200)).save(file)
        else:
            file.write_text(f"the {('red', 'green', 'blue', 'white')[content]} one")
        self.state[path] = content
        self._tick(path)

    def _tick(self, path: str) -> None:
        seconds = next(self._clock)
        os.utime(self.folder / path, (seconds, seconds))


def expected_vector(path: str, content: int) -> list[float]:
    toy = ToyEncoder()
    if kind(path) == ".png":
        vectors = toy.encode_images([PIL.Image.new("RGB", (8, 8), (60 * content, 10, 200))])
    else:
        vectors = toy.encode_texts([("red", "green", "blue", "white")[content]])
    return [float(value) for value in vectors[0]]


@pytest.fixture(scope="module")
def open_engine(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ToyEncoder], Engine]:
    """Each history gets a collection of its own; making a catalog takes longer than most histories."""
    home = tmp_path_factory.mktemp("home")
    numbers = itertools.count()
    return lambda toy: Engine.open(home, collection=f"history {next(numbers)}", model=toy)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(operations, min_size=1, max_size=25))
def test_the_catalog_holds_what_is_on_disk(
    open_engine: Callable[[ToyEncoder], Engine], history: list[Operation]
) -> None:
    toy = ToyEncoder()
    with tempfile.TemporaryDirectory() as name, open_engine(toy) as engine:
        folder = Folder(Path(name))
        stored: dict[str, tuple[int, int]] = {}  # path -> (id, content), as of the last run over its root
        for operation in [*history, ("index", "ab")]:
            if operation[0] != "index":
                folder.do(operation)
                continue
            roots = [root for root in ROOTS if root in operation[1]]
            scope = {path: content for path, content in folder.state.items() if path[0] in roots}
            before = {path: entry for path, entry in stored.items() if path[0] in roots}
            encoded = toy.encoded_images + toy.encoded_texts
            report = index(engine, [Path(name) / root for root in roots], prune=True)
            encoded = toy.encoded_images + toy.encoded_texts - encoded

            after = {os.path.relpath(path, name): record.id for path, record in engine.files().items()}
            outside = {path: entry for path, entry in stored.items() if path[0] not in roots}
            assert after.keys() == scope.keys() | outside.keys()
            assert all(after[path] == entry[0] for path, entry in outside.items())

            # who stays keeps its id; of what is lost, as many as turn up elsewhere keep theirs
            fresh = Counter((kind(path), content) for path, content in scope.items() if path not in before)
            lost = Counter((kind(path), entry[1]) for path, entry in before.items() if path not in scope)
            assert all(after[path] == before[path][0] for path in scope if path in before)
            assert report.renamed == (fresh & lost).total()
            lost_ids = {entry[0] for path, entry in before.items() if path not in scope}
            assert len(lost_ids & {after[path] for path in scope}) == report.renamed
            assert report.removed == lost.total() - report.renamed
            assert report.added == fresh.total() - report.renamed
            changed = [path for path in scope if path in before and before[path][1] != scope[path]]
            assert report.updated == len(changed)
            assert report.unchanged == len(scope) - report.renamed - report.added - report.updated
            assert report.skipped == []

            # no content is encoded twice, and nothing that is there already (unless it was written over meanwhile)
            known = {(kind(path), entry[1]) for path, entry in stored.items()}
            kept = {(kind(path), stored[path][1]) for path in stored if path not in changed}
            wanted = {(kind(path), content) for path, content in scope.items()}
            assert len(wanted - known) <= encoded <= len(wanted - kept)
            assert report.copies == report.added + report.updated - encoded

            stored = outside | {path: (after[path], content) for path, content in scope.items()}
        for path, (item_id, content) in stored.items():
            (item,) = engine.get([item_id])
            assert item.title == Path(path).stem
            assert engine.vectors(item)[0].tolist() == pytest.approx(expected_vector(path, content), abs=1e-3)
        assert engine.check() == []
