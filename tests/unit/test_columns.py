"""Columns that were brought up to date equal columns read anew; globs over keys."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import Engine, Modality, NewItem, NewPart
from mmsearch.columns import Columns, _glob
from mmsearch.rows import FileUpdate
from mmsearch.types import AttributeValue
from tests.oracle import directions
from tests.toy import ToyEncoder

POOL = directions(8, 4)
NAMES = ["id", "key", "path", "title", "modality", "size", "modified", "added", "n", "tags", "word"]
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "n": st.integers(-2, 2),
        "tags": st.lists(st.sampled_from("xyz"), max_size=3),
        "word": st.sampled_from(["a", "b", ""]),
    },
)
CHANGE = st.tuples(st.sampled_from("aaarm"), st.integers(0, 5), ATTRIBUTES, st.integers(1, 3), st.booleans())


def said(columns: Columns, live: set[int]) -> dict[str, object]:
    """Every value of every live item, and its parts: what a filter can see."""
    found: dict[str, object] = {}
    for name in NAMES:
        column = columns.column(name)
        if column is None:
            continue
        words = column.vocabulary
        values = [words[int(value)] if words else float(value) for value in column.values]
        owners = columns.item_ids[column.rows].tolist()
        pairs = [(owner, value) for owner, value in zip(owners, values, strict=True) if owner in live]
        found[name] = sorted(pairs, key=repr)
    everything = np.ones(len(columns.item_ids), np.bool_)
    for modality in Modality:
        found[f"parts {modality}"] = columns.part_ids(modality, everything).tolist()
    return {name: value for name, value in found.items() if value}


@given(
    st.lists(st.lists(CHANGE, min_size=1, max_size=3), min_size=1, max_size=6),
    st.sets(st.sampled_from(NAMES)),
    st.booleans(),
)
@settings(max_examples=30)
def test_columns_brought_up_to_date_equal_columns_read_anew(
    steps: list[list[tuple[str, int, dict[str, object], int, bool]]], loaded: set[str], kept: bool
) -> None:
    home = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    with (
        pytest.MonkeyPatch.context() as patched,
        Engine.open(home, model=ToyEncoder()) as engine,
        Engine.open(home, collection="o", model=ToyEncoder()) as other,
    ):
        if not kept:  # what is gone
            patched.setattr("mmsearch.columns._DEAD", 0)
        columns = Columns(engine.catalog, 1)
        for step in steps:
            for name in loaded:
                columns.column(name)
            for verb, n, attributes, parts, image in step:
                known = {item.key: item.id for item in engine.items()}
                modality = Modality.IMAGE if image else Modality.TEXT
                if verb == "a":
                    some = [NewPart(modality=modality, vector=POOL[m]) for m in range(parts)]
                    new = NewItem(
                        key=f"/{n}",
                        modality=modality,
                        parts=some,
                        attributes=attributes,  # type: ignore[arg-type]
                        is_file=image,
                        size=n,
                        mtime_ns=n * 10**9,
                        title="t" if image else None,
                    )
                    engine.add([new])
                    other.add([new])
                elif verb == "r":
                    engine.remove([known[f"/{n}"]] if f"/{n}" in known else [])
                elif f"/{n}" in known:
                    engine.update_files(
                        [FileUpdate(known[f"/{n}"], f"/{n}", parts, parts * 10**9, "renamed")]
                    )
            columns = columns.advance()
        live = {item.id for item in engine.items()}
        assert columns.revision == engine.catalog.revision()[0]
        assert said(columns, live) == said(Columns(engine.catalog, 1), live)
    shutil.rmtree(home)


@pytest.mark.parametrize(
    ("pattern", "matches", "differs"),
    [
        ("/a", ["/a", "/a/b.jpg", "/a/b/c"], ["/ab", "/b/a", "a"]),
        ("/a/", ["/a/b.jpg"], ["/ab"]),
        ("b.jpg", ["b.jpg", "/a/b.jpg"], ["/a/xb.jpg", "/a/b.jpg.txt"]),
        ("*.jpg", ["b.jpg", "/a/b.jpg", "/a/\n.jpg"], ["/a/b.png"]),
        ("2024/*.jpg", ["/p/2024/1.jpg", "2024/1.jpg", "/p/2024/x/1.jpg"], ["/p/12024/1.jpg"]),
        ("sku-*", ["sku-1", "/x/sku-1"], ["xsku-1"]),
        ("[ab]?.x", ["a1.x", "/c/b2.x"], ["/c1.x", "/a.x"]),
        ("/p.d/[!a]*", ["/p.d/b"], ["/pxd/b", "/p.d/a"]),
    ],
)
def test_a_glob_over_keys(pattern: str, matches: list[str], differs: list[str]) -> None:
    assert [key for key in matches if not _glob(pattern).match(key)] == []
    assert [key for key in differs if _glob(pattern).match(key)] == []


def test_an_attribute_hides_the_built_in_field_of_its_name(tmp_path: Path) -> None:
    def shoe(key: str, /, **attributes: AttributeValue) -> NewItem:
        part = NewPart(modality=Modality.TEXT, content=f"red {key}")
        return NewItem(key=key, modality=Modality.TEXT, parts=[part], size=7, attributes=attributes)

    with Engine.open(tmp_path, model=ToyEncoder()) as engine:
        engine.add([shoe("a")])
        assert engine.select("size = 7") == [1]
        engine.add([shoe("b", size="XL", key="z")])
        assert engine.select("size = 'XL'") == [2]
        assert engine.select(path="b") == [2]  # globs are over keys, whatever attributes are called
