"""Kills itself at each step of a write, and says what was left: ``python -m tests.killing WHAT HOW FOLDER``.

A program of its own, because it forks once a step: what it has imported is imported once, and it starts no threads.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term, shadows, vectors
from mmsearch.admission import identity_of
from mmsearch.database import Database
from mmsearch.rows import FileUpdate
from mmsearch.types import AttributeValue
from tests.oracle import directions
from tests.toy import ToyEncoder

DIM = 8
POOL = directions(64, DIM, 4)
State = dict[str, Any]


class Fuse:
    """Ends the process at the ``left``-th step, as ``kill -9`` would."""

    left = 0

    @classmethod
    def step(cls, *_: object) -> int:
        cls.left -= 1
        if cls.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return 0


def arm(how: str, step: int) -> None:
    """From here on the process dies at the given step: a statement, some SQLite instructions, a call to the system."""
    Fuse.left = step
    if how == "calls":
        for name in ("fsync", "replace", "open", "unlink"):
            setattr(os, name, before(getattr(os, name)))
        Path.open = Dripping.open_of(Path.open)  # type: ignore[method-assign]
        return
    plain = Database._connect

    def connect(self: Database) -> sqlite3.Connection:
        connection = plain(self)
        if how == "statements":
            connection.set_trace_callback(Fuse.step)
        else:
            connection.set_progress_handler(Fuse.step, 10)
        return connection

    Database._connect = connect  # type: ignore[method-assign]


def before(call: Callable[..., Any]) -> Callable[..., Any]:
    def stepping(*args: Any, **options: Any) -> Any:
        Fuse.step()
        return call(*args, **options)

    return stepping


class Dripping:
    """A file that reaches the disk piece by piece."""

    def __init__(self, file: Any) -> None:
        self.file = file

    @staticmethod
    def open_of(plain: Callable[..., Any]) -> Callable[..., Any]:
        def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
            if "w" not in mode or "b" not in mode:
                return plain(path, mode, *args, **options)
            Fuse.step()
            return Dripping(plain(path, mode, *args, **options))

        return opened

    def __enter__(self) -> Dripping:
        return self

    def __exit__(self, *_: object) -> None:
        Fuse.step()
        self.file.close()

    def writelines(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            for start in range(0, len(piece), 5000):
                Fuse.step()
                self.file.write(piece[start : start + 5000])
                self.file.flush()

    def flush(self) -> None:
        self.file.flush()

    def fileno(self) -> int:
        return int(self.file.fileno())


# -- what is done ------------------------------------------------------------------------------------------------------


def item(key: str, *places: int, **attributes: AttributeValue) -> NewItem:
    parts = [NewPart(modality=Modality.TEXT, vector=POOL[n], text=f"word{n} {key}") for n in places]
    return NewItem(
        key=key,
        modality=Modality.TEXT,
        parts=parts,
        attributes=attributes,
        is_file=True,
        size=len(key),
        mtime_ns=1,
    )


def opened(home: Path, collection: str = "default", *, create: bool = True) -> Engine:
    return Engine.open(home, collection=collection, model=ToyEncoder(dim=DIM), create=create, exact_limit=4)


def prepare(what: str, home: Path) -> None:
    if what == "making":
        return
    with opened(home) as engine, opened(home, "other") as other:
        other.add([item("o", 60)])
        ids = engine.add(
            [item("a", 0, 1, n=1), item("b", 2, tags=["x", "y"]), *(item(f"c{n}", 9 + n) for n in range(6))]
        )
        engine.remove(ids[-1:])
        engine.save()
        if what == "saving":
            engine.add([item(f"d{n}", 30 + n) for n in range(20)])
        if what == "switching":
            shadow = shadow_of(engine)
            new = [
                item(str(min(part.id for part in i.parts)), *(30 + i.id + n for n in range(len(i.parts))))
                for i in engine.items()
            ]
            engine.catalog.add(
                shadow,
                new,
                [np.stack([part.vector for part in i.parts if part.vector is not None]) for i in new],
            )


def shadow_of(engine: Engine) -> int:
    """The id of the shadow, made if there is none: other vectors in a space of the same name."""
    collection = engine.catalog.collection(engine.collection).id
    if shadows.find(engine.catalog, collection) is None:
        shadows.make(engine.catalog, collection, identity_of(ToyEncoder(dim=DIM), "toy"))
    shadow = shadows.find(engine.catalog, collection)
    assert shadow is not None
    return shadow.info.id


def writes(what: str, home: Path) -> list[Callable[[], object]]:
    """The commits that are made one after the other."""
    if what == "making":
        return [lambda: opened(home).close()]
    engine = opened(home)
    if what == "saving":
        return [engine.save]
    if what == "switching":
        shadow = shadow_of(engine)
        return [
            lambda: shadows.switch(engine.catalog, 1, shadow),
            lambda: shadows.switch(engine.catalog, 1, shadow),
            lambda: shadows.forget(engine.catalog, 1),
        ]

    def swap() -> None:
        known = engine.files()
        engine.update_files([FileUpdate(known["a"].id, "b", 5, 6), FileUpdate(known["b"].id, "a", 7, 8)])

    def remove() -> None:
        engine.remove([engine.files()["c1"].id])

    return [
        lambda: engine.add(
            [item("b", 3, 4, 5, n=2.5, new="kind"), item("e", 6), item("f", 7, 8, tags=["z"])]
        ),
        swap,
        remove,
        lambda: engine.catalog.delete_collection("other"),
    ]


# -- what is left ------------------------------------------------------------------------------------------------------

CHANCE = {"tag", "at", "added", "created", "uuid"}


def state(home: Path) -> State:
    """Every row of every table, without what is random or a time."""
    if not (home / "catalog.db").exists():
        return {}
    connection = sqlite3.connect(home / "catalog.db")
    connection.row_factory = sqlite3.Row
    tables = [
        row[0]
        for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    ]
    found = {
        table: sorted(
            repr([(name, row[name]) for name in sorted(set(row.keys()) - CHANCE)])
            for row in connection.execute(f"SELECT * FROM {table}")
        )
        for table in tables
    }
    connection.close()
    return found


def right(home: Path) -> list[str]:
    """What is wrong with the home after a new start; the same questions to engine and plain numpy."""
    notices: list[str] = []
    with Engine.open(home, model=ToyEncoder(dim=DIM), exact_limit=4, notice=notices.append) as engine:
        wrong = engine.check()
        stored = {part.id: i.id for i in engine.items() for part in i.parts}
        highest = max(stored, default=0)
        for query in POOL[:3]:
            rows = {i.id: max(engine.vectors(i) @ query) for i in engine.items()}
            expected = sorted(rows.values(), reverse=True)
            found = [hit.score for hit in engine.search(Query(terms=(Term(vector=query),), k=99))]
            if not np.allclose(found, expected, atol=1e-5):
                wrong.append(f"found {found}, expected {expected}")
        (last,) = engine.add([item("last", 20, 21)])
        if min(part.id for part in engine.get([last])[0].parts) <= highest:
            wrong.append("a part id came again")
        if engine.search(Query(terms=(Term(vector=POOL[21]),)))[0].item.id != last:
            wrong.append("the next write is not found")
        engine.save()
    if list(home.glob("index/*.tmp")):
        wrong.append("a rest of a save stays for ever")
    return wrong + [line for line in notices if "damaged" in line]


def runs(what: str, how: str, folder: Path) -> Iterator[tuple[int, list[str]]]:
    """For each step: how many of the commits were there afterwards, and what was wrong."""
    base, whole = folder / "base", folder / "whole"
    base.mkdir()
    prepare(what, base)
    shutil.copytree(base, whole)
    states = [state(base)]
    for write in writes(what, whole):
        write()
        states.append(state(whole))
    if what == "making":
        states[0:1] = [{}, {"sqlite_sequence": []}]
    step, stride = 0, 1 if how != "instructions" else 12
    while True:
        step += stride
        home = folder / f"{step}"
        shutil.copytree(base, home)
        child = os.fork()
        if child == 0:
            arm(how, step)
            for write in writes(what, home):
                write()
            os._exit(0)
        if os.waitpid(child, 0)[1] != signal.SIGKILL:
            return
        left = state(home)
        # Looking closely takes a tenth of a second: often, not always.
        wrong = right(home) if what == "saving" or step // stride % 4 == 1 else []
        if what == "saving":
            yield 0, wrong
        elif left in states:
            yield states.index(left), wrong
        elif what == "making" and not left.get("items"):
            yield 0, wrong  # between the catalog and its first collection
        else:
            yield -1, [f"neither before nor after: {left}", *wrong]
        shutil.rmtree(home)


if __name__ == "__main__":
    os.cpu_count = lambda: 1  # FAISS's threads would not survive a fork
    vectors._SAMPLE = 64
    print(json.dumps(list(runs(sys.argv[1], sys.argv[2], Path(sys.argv[3])))))  # noqa: T201
