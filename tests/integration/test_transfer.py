"""Export and import: what comes back is what was there, and a damaged file changes nothing."""

from __future__ import annotations

import base64
import builtins
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from indexer import parquet, transfer
from indexer.transfer import Format, export_collection, format_of, import_collection, read_header
from mmsearch.engine import Engine
from mmsearch.errors import ConfigError, ItemError, MediaError, MissingExtra, SchemaTooNew, SpaceMismatch
from mmsearch.types import Modality, NewItem, NewPart, Space
from tests.toy import ToyEncoder

FORMATS: list[Format] = ["jsonl", "parquet"]


def engine(home: Path, space: str = "toy") -> Engine:
    return Engine.open(home, model=ToyEncoder(space))


def vector(*numbers: float) -> Any:
    return np.array(numbers, np.float32)


UNIT = vector(0.1, 0.2, 0.4, -np.sqrt(0.79))


def some_items() -> list[NewItem]:
    return [
        NewItem(
            key="/photos/a\nb ü 犬.jpg",
            modality=Modality.IMAGE,
            title="A dog",
            is_file=True,
            size=1 << 40,
            mtime_ns=1_700_000_000_123_456_789,
            content_hash=bytes(range(16)),
            attributes={
                "width": 640,
                "f_number": 2.8,
                "flash": False,
                "taken": datetime(2024, 5, 6, 7, 8, 9, 123456),
                "camera": "X",
                "tags": ["x"],
                "many": ["b", "a", "b"],
            },
            parts=[NewPart(modality=Modality.IMAGE, vector=UNIT)],
        ),
        NewItem(
            key="note",
            modality=Modality.TEXT,
            parts=[
                NewPart(modality=Modality.TEXT, content="a red dog", start=0, end=9.5, page=1),
                NewPart(modality=Modality.TEXT, content="a blue\u2028dog"),
            ],
        ),
        NewItem(
            key="bare",
            modality=Modality.AUDIO,
            parts=[NewPart(modality=Modality.AUDIO, vector=vector(1, 0, 0, 0))],
        ),
    ]


def content(of: Engine) -> list[tuple[Any, ...]]:
    """Everything about every item but what belongs to its catalog: ids and the time it was added."""
    return [
        (
            (item.key, item.modality, item.title, item.is_file, item.size, item.mtime_ns, item.content_hash),
            {name: (type(value), value) for name, value in item.attributes.items()},
            [
                (part.modality, part.ordinal, part.start, part.end, part.page, part.text)
                for part in item.parts
            ],
            of.vectors(item).tobytes(),
        )
        for item in sorted(of.items(), key=lambda item: item.key)
    ]


@pytest.fixture
def filled(tmp_path: Path) -> Engine:
    made = engine(tmp_path / "filled")
    made.add(some_items())
    return made


@pytest.mark.parametrize("format", FORMATS)
def test_what_comes_back_is_what_was_there(filled: Engine, tmp_path: Path, format: Format) -> None:
    file = tmp_path / f"file.{format}"
    assert export_collection(filled, file) == 3
    with filled, engine(tmp_path / "other") as other:
        assert import_collection(other, file) == 3
        assert content(other) == content(filled)
        assert other.attribute_kinds() == filled.attribute_kinds()
        assert [hit.item.key for hit in other.search("red", k=1)] == ["note"]
        assert other.check() == []


values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**53), 2**53),
)
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


def direction(seed: int) -> Any:
    numbers = np.random.default_rng(seed).normal(size=4).astype(np.float32)
    return numbers / np.linalg.norm(numbers)


@settings(
    max_examples=8,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            texts,
            st.dictionaries(names.map(lambda name: f"n{name}"), values, max_size=3),
            st.dictionaries(
                names.map(lambda name: f"t{name}"), texts | st.lists(texts, min_size=1), max_size=3
            ),
            st.dictionaries(
                names.map(lambda name: f"d{name}"), st.datetimes(datetime(1900, 1, 1)), max_size=2
            ),
            st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=3),
        ),
        max_size=5,
        unique_by=lambda drawn: drawn[0],
    )
)
def test_any_collection_survives_both_formats(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("drawn")
    with engine(folder / "filled") as made:
        made.add(
            NewItem(
                key=key,
                modality=Modality.TEXT,
                attributes={**numbers, **words, **times},
                parts=[NewPart(modality=Modality.TEXT, text=key, vector=direction(seed)) for seed in seeds],
            )
            for key, numbers, words, times, seeds in drawn
        )
        for format in FORMATS:
            export_collection(made, folder / f"file.{format}")
            with engine(folder / format) as other:
                assert import_collection(other, folder / f"file.{format}") == len(drawn)
                assert content(other) == content(made)


@pytest.mark.parametrize("format", FORMATS)
def test_many_items_go_through_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Format
) -> None:
    monkeypatch.setattr(transfer, "BATCH", 7)
    monkeypatch.setattr(parquet, "BATCH", 7)
    written: list[int] = []
    read: list[int] = []
    with engine(tmp_path / "a") as made, engine(tmp_path / "b") as other:
        made.add(
            NewItem(
                key=f"{n:03}",
                modality=Modality.TEXT,
                parts=[NewPart(modality=Modality.TEXT, vector=vector(n, 1, 0, 0))],
            )
            for n in range(30)
        )
        file = tmp_path / f"file.{format}"
        assert export_collection(made, file, progress=written.append) == 30
        assert import_collection(other, file, progress=read.append) == 30
        assert content(other) == content(made)
    assert written[-1] == 30
    assert read == [7, 14, 21, 28, 30]


def test_an_aware_time_comes_back_as_the_same_moment(tmp_path: Path) -> None:
    from datetime import timezone

    moment = datetime(2024, 5, 6, 7, 8, tzinfo=timezone(timedelta(hours=2)))
    with engine(tmp_path / "a") as made, engine(tmp_path / "b") as other:
        part = NewPart(modality=Modality.TEXT, content="red")
        made.add([NewItem(key="x", modality=Modality.TEXT, parts=[part], attributes={"at": moment})])
        export_collection(made, tmp_path / "x.jsonl")
        import_collection(other, tmp_path / "x.jsonl")
        assert next(other.items()).attributes["at"] == moment.astimezone(UTC).replace(tzinfo=None)


@pytest.mark.parametrize("format", FORMATS)
def test_importing_twice_replaces_and_keeps_the_ids(filled: Engine, tmp_path: Path, format: Format) -> None:
    file = tmp_path / f"file.{format}"
    export_collection(filled, file)
    with filled:
        before = {item.key: item.id for item in filled.items()}
        held = content(filled)
        assert import_collection(filled, file) == 3
        assert {item.key: item.id for item in filled.items()} == before
        assert content(filled) == held


@pytest.mark.parametrize("format", FORMATS)
def test_the_header_tells_what_the_file_is(filled: Engine, tmp_path: Path, format: Format) -> None:
    with filled:
        export_collection(filled, tmp_path / "file", format=format)
    header = read_header(tmp_path / "file", format)
    assert (header.collection, header.model, header.space) == ("default", "toy", Space("toy", 4))
    assert header.attributes["taken"] == "datetime"


def test_jsonl_is_what_it_says_it_is(filled: Engine, tmp_path: Path) -> None:
    with filled:
        export_collection(filled, tmp_path / "file.jsonl")
    first, *items, last = [json.loads(line) for line in (tmp_path / "file.jsonl").read_bytes().splitlines()]
    assert first["format"] == 2
    assert last == {"items": 3}
    raw = np.frombuffer(base64.b64decode(items[0]["parts"][0]["vector"]), "<f2")
    np.testing.assert_array_equal(raw, UNIT.astype(np.float16))
    assert items[0]["attributes"]["taken"] == "2024-05-06T07:08:09.123456"


def test_parquet_holds_vectors_that_other_programs_can_read(filled: Engine, tmp_path: Path) -> None:
    with filled:
        export_collection(filled, tmp_path / "file.parquet")
    table = pq.read_table(tmp_path / "file.parquet")
    assert table.schema.field("parts").type.value_type.field("vector").type == pa.list_(pa.float16(), 4)
    vectors = table["parts"][0].as_py()[0]["vector"]
    np.testing.assert_array_equal(np.array(vectors, np.float16), UNIT.astype(np.float16))


Damage = Callable[[list[dict[str, Any]]], None]


def change(path: str, value: object) -> Damage:
    """Set a field of the second item; ``path`` leads to it, with dots."""

    def damage(lines: list[dict[str, Any]]) -> None:
        record: Any = lines[2]
        *way, last = path.split(".")
        for step in way:
            record = record[int(step)] if step.isdecimal() else record[step]
        record[last] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (change("key", 7), ["line 3", "7"]),
        (change("modality", "smell"), ["line 3", "smell"]),
        (change("is_file", None), ["line 3"]),
        (change("size", "big"), ["line 3", "big"]),
        (change("content_hash", "xyz"), ["line 3"]),
        (change("attributes", {"colour": "red"}), ["line 3", "colour"]),
        (change("attributes", {"width": "wide"}), ["line 3", "width", "number"]),
        (change("attributes", {"width": float("nan")}), ["line 3", "width"]),
        (change("attributes", {"taken": "yesterday"}), ["line 3", "yesterday"]),
        (change("parts", {}), ["line 3"]),
        (change("parts.0.vector", "AAAA"), ["line 3", "3 bytes, not 8"]),
        (change("parts.0.vector", "not base64!"), ["line 3"]),
        (change("parts.0.vector", base64.b64encode(b"\x00\x7c" * 4).decode()), ["line 3", "not finite"]),
        (lambda lines: lines[2].pop("title"), ["line 3", "'title' is missing"]),
        (lambda lines: lines.pop(), ["cut short", "line 4"]),
        (lambda lines: lines.pop(1), ["line 4", "counts 3 items, there are 2"]),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_imported(
    filled: Engine, tmp_path: Path, damage: Damage, words: list[str]
) -> None:
    file = tmp_path / "file.jsonl"
    with filled:
        export_collection(filled, file)
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    damage(lines)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with engine(tmp_path / "other") as other:
        with pytest.raises(MediaError) as caught:
            import_collection(other, file)
        assert list(other.items()) == []
    for word in [str(file), "Nothing was imported", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_anywhere_is_refused(filled: Engine, tmp_path: Path, format: Format) -> None:
    file = tmp_path / f"file.{format}"
    with filled:
        export_collection(filled, file)
    data = file.read_bytes()
    with engine(tmp_path / "other") as other:
        for length in range(0, len(data) - 1, max(1, len(data) // 40)):
            file.write_bytes(data[:length])
            with pytest.raises(MediaError):
                import_collection(other, file)
        assert list(other.items()) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("data", [b"", b"{}\n", b"[1]\n", b"null", b"\x00\xff" * 50, b'{"key": "x"}\n'])
def test_a_file_that_is_no_export_is_refused(tmp_path: Path, format: Format, data: bytes) -> None:
    file = tmp_path / f"file.{format}"
    file.write_bytes(data)
    with pytest.raises(MediaError, match="Is this a file of `mmsearch export`"):
        read_header(file)


def test_a_parquet_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["x"]}), tmp_path / "file.parquet")
    with pytest.raises(MediaError, match="no export of mmsearch"):
        read_header(tmp_path / "file.parquet")


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        read_header(tmp_path / "file.jsonl")
    with pytest.raises(MediaError, match="is a folder"):
        read_header(tmp_path, "jsonl")


@pytest.mark.parametrize("format", FORMATS)
def test_another_space_is_refused(filled: Engine, tmp_path: Path, format: Format) -> None:
    file = tmp_path / f"file.{format}"
    with filled:
        export_collection(filled, file)
    with (
        engine(tmp_path / "other", space="other") as other,
        pytest.raises(SpaceMismatch, match=r"'toy'.*'other'"),
    ):
        import_collection(other, file)


def test_an_attribute_of_another_kind_is_refused_before_anything_is_written(
    filled: Engine, tmp_path: Path
) -> None:
    with filled:
        export_collection(filled, tmp_path / "file.jsonl")
    with engine(tmp_path / "other") as other:
        part = NewPart(modality=Modality.TEXT, content="red")
        other.add([NewItem(key="x", modality=Modality.TEXT, parts=[part], attributes={"width": "wide"})])
        with pytest.raises(ItemError, match="'width' is a number there and a text"):
            import_collection(other, tmp_path / "file.jsonl")
        assert [item.key for item in other.items()] == ["x"]


def test_a_file_of_a_newer_format_is_refused(filled: Engine, tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    with filled:
        export_collection(filled, file)
    file.write_bytes(file.read_bytes().replace(b'"format":2', b'"format":3'))
    with pytest.raises(SchemaTooNew, match="install a newer one"):
        read_header(file)


def test_a_file_that_exists_is_kept_unless_overwriting_is_asked_for(filled: Engine, tmp_path: Path) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text("precious")
    with filled:
        with pytest.raises(ConfigError, match="--force"):
            export_collection(filled, file)
        assert file.read_text() == "precious"
        export_collection(filled, file, overwrite=True)
    assert read_header(file).collection == "default"


def test_an_export_that_fails_leaves_nothing_behind(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with filled, pytest.raises(OSError, match="No space left"):
        export_collection(filled, tmp_path / "file.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["filled"]


def test_items_removed_while_they_are_exported_are_left_out_whole(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of an item that another process removes in between must not be taken from its neighbour."""
    honest = filled.catalog.candidates

    def candidates(part_ids: Any) -> Any:
        filled.remove([filled.find("note").id])  # type: ignore[union-attr]
        return honest(part_ids)

    monkeypatch.setattr(filled.catalog, "candidates", candidates)
    with filled, engine(tmp_path / "other") as other:
        assert export_collection(filled, tmp_path / "file.jsonl") == 2
        monkeypatch.undo()
        import_collection(other, tmp_path / "file.jsonl")
        assert content(other) == content(filled)


def test_the_suffix_tells_the_format() -> None:
    assert [format_of(Path(name)) for name in ("a.jsonl", "a.NDJSON", "a.parquet")] == [
        "jsonl",
        "jsonl",
        "parquet",
    ]
    assert format_of(Path("a.txt"), "parquet") == "parquet"
    with pytest.raises(ConfigError, match=r"a\.txt"):
        format_of(Path("a.txt"))


def test_parquet_without_pyarrow_names_the_extra(
    filled: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return honest(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with filled, pytest.raises(MissingExtra, match=r"mmsearch\[parquet\]"):
        export_collection(filled, tmp_path / "file.parquet")
    assert not (tmp_path / "file.parquet").exists()
