"""Random sequences of writes, searches, saves and restarts against brute force, two engines on one home."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mmsearch import Engine, Modality, Query, Term
from mmsearch.rows import FileUpdate
from mmsearch.types import AttributeValue
from tests.oracle import Piece, Thing, assert_best, groups
from tests.toy import COLOURS, ToyEncoder

ENCODER = ToyEncoder()
WORDS = [*COLOURS, "red green", "blue white", "pebble", "lantern red"]
VECTORS = dict(zip(WORDS, ENCODER.encode_texts(WORDS), strict=True))
KEYS = st.sampled_from([f"/{folder}/{name}" for folder in "ab" for name in "123456"])
LIMIT = 5


def thing(modality: Modality, words: list[str], attributes: dict[str, AttributeValue], alike: bool) -> Thing:
    pieces = [Piece(modality, VECTORS[word], word if modality is Modality.TEXT else None) for word in words]
    content = repr((modality, words)).encode()[:16].ljust(16) if alike and len(words) == 1 else None
    return Thing(pieces, attributes, content, is_file=True)


THINGS = st.builds(
    thing,
    st.sampled_from([Modality.IMAGE, Modality.TEXT]),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=4),
    st.fixed_dictionaries(
        {},
        optional={
            "n": st.integers(0, 3),
            "tags": st.lists(st.sampled_from("xyz"), min_size=1, max_size=2, unique=True),
        },
    ),
    st.booleans(),
)


class TwoEngines(RuleBasedStateMachine):
    """A writer, and a reader that sees what it has refreshed."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.notices: list[str] = []
        self.model: dict[str, Thing] = {}
        self.ids: dict[str, int] = {}
        self.seen: set[int] = set()
        self.part_ids: set[int] = set()
        self.fresh = True  # whether the reader has seen all

    @initialize()
    def start(self) -> None:
        shutil.copytree(self.template, self.folder, dirs_exist_ok=True)
        self.writer, self.reader = self.open(), self.open()

    def open(self) -> Engine:
        return Engine.open(
            self.folder, model=ENCODER, create=False, exact_limit=LIMIT, notice=self.notices.append
        )

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            assert self.writer.check() == []
            self.reader.refresh()
            assert self.reader.check() == []
            assert {item.key: item.id for item in self.writer.items()} == self.ids
            assert not [line for line in self.notices if "missing" not in line]
            self.writer.close()
            self.reader.close()
        shutil.rmtree(self.folder)

    @rule(batch=st.dictionaries(KEYS, THINGS, min_size=1, max_size=4))
    def add(self, batch: dict[str, Thing]) -> None:
        ids = self.writer.add([thing.new(key) for key, thing in batch.items()])
        for (key, thing), item_id in zip(batch.items(), ids, strict=True):
            assert self.ids.get(key, item_id) == item_id, "a key keeps its id"
            assert key in self.ids or item_id not in self.seen, "an id never comes again"
            self.ids[key], self.model[key] = item_id, thing
        self.seen.update(ids)
        parts = {part.id for item in self.writer.get(ids) for part in item.parts}
        assert not parts & self.part_ids, "a part id names one vector for ever"
        self.part_ids |= parts
        self.fresh = False

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        keys = data.draw(st.lists(st.sampled_from(sorted(self.model)), min_size=1, max_size=3, unique=True))
        assert self.writer.remove([self.ids[key] for key in keys] + [10**9]) == len(keys)
        for key in keys:
            del self.model[key], self.ids[key]
        self.fresh = False

    @precondition(lambda self: self.model)
    @rule(data=st.data(), to=KEYS)
    def rename(self, data: st.DataObject, to: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.model)))
        pairs = [(key, to)] + ([(to, key)] if to in self.model and to != key else [])  # or they swap
        self.writer.update_files([FileUpdate(self.ids[old], new, 2, 2) for old, new in pairs])
        things, ids = [self.model[old] for old, _ in pairs], [self.ids[old] for old, _ in pairs]
        del self.model[key], self.ids[key]
        for (_, new), thing, item_id in zip(pairs, things, ids, strict=True):
            self.model[new], self.ids[new] = thing, item_id
        self.fresh = False

    @rule()
    def save(self) -> None:
        self.writer.save()

    @rule(reader=st.booleans(), lost=st.booleans())
    def restart(self, reader: bool, lost: bool) -> None:
        if lost:
            for path in self.folder.glob("index/*"):
                path.unlink()
        if reader:
            self.reader.close()
            self.reader = self.open()
            self.fresh = False
        else:
            self.writer.close()
            self.writer = self.open()

    @rule()
    def refresh(self) -> None:
        self.reader.refresh()
        assert not self.reader.refresh()
        self.fresh = True

    @rule(
        words=st.sampled_from(WORDS),
        k=st.sampled_from([1, 3, 30]),
        modality=st.sampled_from([None, Modality.IMAGE, Modality.TEXT]),
        where=st.sampled_from([None, "n >= 1", "tags = 'x' or n = 0", "not (n is null)"]),
        path=st.sampled_from([None, "/a", "*1"]),
    )
    def search(
        self, words: str, k: int, modality: Modality | None, where: str | None, path: str | None
    ) -> None:
        if where is not None and not {"n", "tags"} <= self.writer.attribute_kinds().keys():
            where = None

        def allowed(key: str, thing: Thing) -> bool:
            n, tags = thing.attributes.get("n"), thing.attributes.get("tags", ())
            assert n is None or isinstance(n, int)
            assert not isinstance(tags, int | float)
            passes = {
                None: True,
                "n >= 1": n is not None and n >= 1,
                "tags = 'x' or n = 0": "x" in str(tags) or n == 0,
                "not (n is null)": n is not None,
            }[where]
            return passes and {None: True, "/a": key.startswith("/a/"), "*1": key.endswith("1")}[path]

        query = Query(terms=(Term(text=words),), k=k, modality=modality, where=where, path=path)
        expected = groups(self.model, VECTORS[words], modality=modality, allowed=allowed)
        assert_best(self.writer.search(query), expected, k)
        if self.fresh:
            assert_best(self.reader.search(query), expected, k)
            return
        # A reader that has not refreshed may miss what is new; all that it finds is true.
        scores = {key: score for score, keys in expected for key in keys}
        for hit in self.reader.search(query):
            assert abs(hit.score - scores[hit.item.key]) < 1e-5 or where is not None or path is not None

    @rule()
    def every_vector_is_its_own(self) -> None:
        for item in self.writer.items():
            stored = np.array([piece.vector for piece in self.model[item.key].pieces]).astype(np.float16)
            np.testing.assert_array_equal(self.writer.vectors(item), stored.astype(np.float32))

    @invariant()
    def the_files_are_those_of_the_model(self) -> None:
        if hasattr(self, "writer"):
            assert {key: record.id for key, record in self.writer.files().items()} == self.ids


def make_template() -> Path:
    folder = Path(tempfile.mkdtemp())
    Engine.open(folder, model=ENCODER).close()
    return folder


def test_engines_agree_with_brute_force() -> None:
    TwoEngines.template = make_template()
    TestCase = TwoEngines.TestCase  # noqa: N806
    TestCase.settings = settings(
        max_examples=25, stateful_step_count=25, suppress_health_check=list(HealthCheck), deadline=None
    )
    TestCase("runTest").runTest()
    shutil.rmtree(TwoEngines.template)
