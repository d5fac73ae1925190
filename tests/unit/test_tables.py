"""Tables: the same rows from every format, and errors that name file and row."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import ConfigError, MediaError
from mmsearch.tables import SHOWN, Problems, read_table

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
tables = st.lists(st.fixed_dictionaries({"image": words, "text": words}), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def expected(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    stripped = [{name: cell.strip() for name, cell in row.items() if cell.strip()} for row in rows]
    return [row for row in stripped if row]


@given(rows=tables, suffix=st.sampled_from([".csv", ".tsv"]))
def test_what_the_csv_module_writes_is_read_again(
    folder: Path, rows: list[dict[str, str]], suffix: str
) -> None:
    path = folder / f"table{suffix}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image", "text"], delimiter="," if suffix == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
    if expected(rows):
        assert [dict(row.cells) for row in read_table(path)] == expected(rows)
    else:
        with pytest.raises(MediaError, match="no rows"):
            read_table(path)


@given(rows=tables)
def test_json_lines_and_parquet_give_the_rows_of_the_csv(folder: Path, rows: list[dict[str, str]]) -> None:
    import pyarrow
    from pyarrow import parquet

    lines, columns = folder / "table.jsonl", folder / "table.parquet"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    parquet.write_table(pyarrow.Table.from_pylist(rows), columns)
    for path in (lines, columns):
        assert [dict(row.cells) for row in read_table(path) if row.cells] == expected(rows)


@given(data=st.binary(max_size=200), suffix=st.sampled_from([".csv", ".jsonl", ".parquet"]))
def test_any_bytes_give_rows_or_a_media_error(folder: Path, data: bytes, suffix: str) -> None:
    path = folder / f"table{suffix}"
    path.write_bytes(data)
    try:
        found = [row.place for row in read_table(path)]
    except MediaError as error:
        found = [str(error)]
    assert found
    assert all(place.startswith(("line", "row", str(path))) for place in found)


def test_rows_know_their_lines_also_behind_a_cell_of_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('\ufeffImage , TEXT\na.jpg,"one\ntwo"\n\nb.jpg,three\n', encoding="utf-8")
    first, second = read_table(path)
    assert (first.place, dict(first.cells)) == ("line 2", {"image": "a.jpg", "text": "one\ntwo"})
    assert (second.place, dict(second.cells)) == ("line 5", {"image": "b.jpg", "text": "three"})


def test_lists_numbers_and_missing_values_of_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"text": ["a", " ", "b"], "weight": 2, "label": NaN, "audio": null}\n')
    (row,) = read_table(path)
    assert dict(row.cells) == {"text": ("a", "b"), "weight": "2"}
    assert row.all("caption", "text") == ("a", "b")
    assert row.one("weight") == "2"
    assert row.one("label") is None
    with pytest.raises(ValueError, match="2 values"):
        row.one("text")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "image,text\na,b\nc,d,e\n", "line 3: has 3 cells, the heading has 2"),
        ("a.csv", "text,text\na,b\n", "line 1: the column 'text' is there twice"),
        ("a.csv", 'image,text\na,b\n"c"d,e\n', "line 3: "),
        ("a.csv", "image,text\n", "has no rows"),
        ("a.csv", "", "has no rows"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "line 2: is no JSON"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', "line 2: is no JSON object"),
        ("a.jsonl", '{"text": {"a": 1}}\n', "line 1: text is neither"),
        ("a.parquet", "image,text", "no readable Parquet"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(MediaError, match=message) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_folder, "is a folder"),
        (lambda path: path, "no such file"),
        (lambda path: (path.write_bytes(b"text\ncaf\xe9\n"), path)[1], "not UTF-8"),
    ],
)
def test_what_is_no_text_file_is_said(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read_table(make(tmp_path / "a.csv"))


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"call it \.csv"):
        read_table(tmp_path / "table.xlsx")


def test_problems_are_told_at_once_up_to_a_limit(tmp_path: Path) -> None:
    problems = Problems(tmp_path / "a.csv")
    problems.raise_any()
    problems.add("line 2", "is odd")
    with pytest.raises(MediaError, match=r"a\.csv: line 2: is odd$"):
        problems.raise_any()
    for line in range(3, SHOWN + 4):
        problems.add(f"line {line}", "is odd")
    with pytest.raises(
        MediaError, match=r"(?s)22 problems\n  line 2: is odd\n.*line 21: is odd\n  and 2 more$"
    ):
        problems.raise_any()
