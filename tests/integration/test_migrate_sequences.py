"""Random sequences of writes, migrations, ways back and searches against brute force, with a reader beside."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from indexer.migrate import finish, migrate, rollback, shadow_of
from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import ConfigError
from mmsearch.rows import FileUpdate
from tests.oracle import Piece, Thing, assert_best, groups
from tests.toy import COLOURS, ToyEncoder

WORDS = [*COLOURS, "red green", "blue white", "pebble", "lantern red"]
KEYS = st.sampled_from([f"/{folder}/{name}" for folder in "ab" for name in "1234"])
LIMIT = 4


class Turned(ToyEncoder):
    """Another model: colours in another order, in a space of its own."""

    def __init__(self, space: str, dim: int, order: tuple[int, int, int]) -> None:
        super().__init__(space, dim)
        self.order = order

    def _embed(self, colours: np.ndarray) -> np.ndarray:
        return super()._embed(np.ascontiguousarray(colours[:, self.order] ** 2))


MODELS: dict[str, ToyEncoder] = {
    "one": ToyEncoder("one", 4),
    "two": Turned("two", 6, (1, 2, 0)),
    "three": Turned("three", 4, (2, 0, 1)),
}


class Migrations(RuleBasedStateMachine):
    """A writer that migrates, and a reader that does nothing but search. ``texts``: what each item says."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.texts: dict[str, list[str]] = {}
        self.ids: dict[str, int] = {}
        self.model = "one"
        self.former: str | None = None

    @initialize()
    def start(self) -> None:
        shutil.copytree(self.template, self.folder, dirs_exist_ok=True)
        self.writer, self.reader = self.open(), self.open()

    def open(self) -> Engine:
        return Engine.open(
            self.folder, model=MODELS[self.model], create=False, exact_limit=LIMIT, notice=lambda line: None
        )

    def teardown(self) -> None:
        if hasattr(self, "writer"):
            assert self.writer.check() == []
            self.writer.close()
            self.reader.close()
        shutil.rmtree(self.folder)

    @rule(
        batch=st.dictionaries(
            KEYS, st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=1, max_size=4
        )
    )
    def add(self, batch: dict[str, list[str]]) -> None:
        new = [
            NewItem(
                key=key,
                modality=Modality.TEXT,
                parts=[NewPart(modality=Modality.TEXT, content=text) for text in texts],
                attributes={"n": len(texts)},
                is_file=True,
                size=1,
                mtime_ns=1,
            )
            for key, texts in batch.items()
        ]
        for key, item_id in zip(batch, self.writer.add(new), strict=True):
            assert self.ids.setdefault(key, item_id) == item_id
        self.texts.update(batch)

    @precondition(lambda self: self.texts)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.texts)))
        assert self.writer.remove([self.ids.pop(key)]) == 1
        del self.texts[key]

    @precondition(lambda self: self.texts)
    @rule(data=st.data(), to=KEYS)
    def rename(self, data: st.DataObject, to: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.texts)))
        if to not in self.texts:
            self.writer.update_files([FileUpdate(self.ids[key], to, 2, 2)])
            self.texts[to], self.ids[to] = self.texts.pop(key), self.ids.pop(key)

    @rule(name=st.sampled_from(sorted(MODELS)), stop=st.integers(0, 4))
    def migrate(self, name: str, stop: int) -> None:
        """To another model; ``stop`` above 0 interrupts it after so many items."""

        def progress(done: int, total: int) -> None:
            if done == stop:
                raise KeyboardInterrupt

        try:
            migrate(self.writer, MODELS[name], progress=progress, workers=1)
        except ConfigError:
            assert name == self.model or self.former not in (None, name)
        except KeyboardInterrupt:
            self.former = name  # it is on its way there: nothing else may be begun
        else:
            assert name != self.model
            assert self.former in (None, name)
            self.former, self.model = self.model, name
            self.reader.use(MODELS[name], name)

    @rule()
    def back(self) -> None:
        shadow = shadow_of(self.writer)
        if shadow is None or not shadow.switched:
            with pytest.raises(ConfigError):
                rollback(self.writer)
            return
        assert self.former is not None
        # As a program does whose models have no folders: it names the model.
        migrate(self.writer, MODELS[self.former], workers=1)
        self.former, self.model = self.model, self.former
        self.reader.use(MODELS[self.model], self.model)

    @rule()
    def finish(self) -> None:
        finish(self.writer)
        self.former = None

    @rule()
    def save(self) -> None:
        self.writer.save()

    @rule(lost=st.booleans())
    def restart(self, lost: bool) -> None:
        self.writer.close()
        self.reader.close()
        if lost:
            for path in self.folder.glob("index/*"):
                path.unlink()
        self.writer, self.reader = self.open(), self.open()

    @rule(words=st.sampled_from(WORDS), where=st.sampled_from([None, "n >= 2"]), fresh=st.booleans())
    def search(self, words: str, where: str | None, fresh: bool) -> None:
        if where is not None and not self.writer.attribute_kinds():
            where = None
        encoder = MODELS[self.model]
        things = {
            key: Thing([Piece(Modality.TEXT, encoder.encode_texts([text])[0], text) for text in texts])
            for key, texts in self.texts.items()
            if where is None or len(texts) >= 2
        }
        expected = groups(things, encoder.encode_texts([words])[0])
        query = Query(terms=(Term(text=words),), k=30, where=where)
        assert_best(self.writer.search(query), expected, 30)
        if fresh:
            self.reader.refresh()
            assert_best(self.reader.search(query), expected, 30)
            return
        scores = {key: score for score, keys in expected for key in keys}
        for hit in self.reader.search(query):  # it may miss what is new; all that it finds is true
            assert abs(hit.score - scores[hit.item.key]) < 1e-5 or where is not None

    @invariant()
    def items_are_what_they_were(self) -> None:
        if hasattr(self, "writer"):
            assert {item.key: item.id for item in self.writer.items()} == self.ids
            assert self.writer.space == MODELS[self.model].space
            said = {item.key: [part.text for part in item.parts] for item in self.writer.items()}
            assert said == self.texts


def test_migrations_agree_with_brute_force(tmp_path: Path) -> None:
    Engine.open(tmp_path, model=MODELS["one"]).close()
    Migrations.template = tmp_path
    TestCase = Migrations.TestCase  # noqa: N806
    TestCase.settings = settings(
        max_examples=30, stateful_step_count=25, suppress_health_check=list(HealthCheck), deadline=None
    )
    TestCase("runTest").runTest()
