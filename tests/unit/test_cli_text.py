"""The small print of the command line: weights, safe names, short paths, snippets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from mmsearch.cli.hits import shorten
from mmsearch.cli.query import build_query, weighted
from mmsearch.cli.text import duration, last, near, safe, size, snippet, time_span
from mmsearch.errors import QueryError
from mmsearch.types import Modality, Term


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("night", (1.0, "night")),
        ("2:night", (2.0, "night")),
        (" 0.5: a night ", (0.5, "a night")),
        (".5:night", (0.5, "night")),
        ("+3:night", (3.0, "night")),
        ("1:10:30 at night", (1.0, "10:30 at night")),
        ("ratio 2:1", (1.0, "ratio 2:1")),
        ("2e3:night", (1.0, "2e3:night")),
        ("nan:night", (1.0, "nan:night")),
    ],
)
def test_a_number_and_a_colon_before_a_text_are_its_weight(text: str, expected: tuple[float, str]) -> None:
    assert weighted(text) == expected


@pytest.mark.parametrize("text", ["0:night", "-1:night", "2:", "2:  ", "", "  "])
def test_a_weight_of_nothing_or_a_weight_without_text_is_refused(text: str) -> None:
    with pytest.raises(QueryError):
        weighted(text)


def test_arguments_become_terms_in_their_order() -> None:
    query = build_query(
        ["a", "dog"],
        ["x.jpg", "https://example.org/y.jpg"],
        ["z.wav", "https://example.org/z.mp3"],
        [7],
        ["2:beach"],
        ["people"],
        k=3,
        modality="image",
        where="width > 1",
        path="*.jpg",
        hybrid=True,
        min_score=0.5,
    )
    assert query.terms == [
        Term(text="a dog"),
        Term(image=Path("x.jpg")),
        Term(image="https://example.org/y.jpg"),
        Term(audio=Path("z.wav")),
        Term(audio="https://example.org/z.mp3"),
        Term(item=7),
        Term(text="beach", weight=2.0),
        Term(text="people", weight=-1.0),
    ]
    assert (query.k, query.modality, query.where, query.path) == (3, Modality.IMAGE, "width > 1", "*.jpg")
    assert (query.hybrid, query.min_score) == (True, 0.5)


@pytest.mark.parametrize(("words", "subtracted"), [([], []), ([" "], []), ([], ["people"])])
def test_a_query_needs_something_to_look_for(words: list[str], subtracted: list[str]) -> None:
    with pytest.raises(QueryError, match="give words"):
        build_query(words, subtracted=subtracted)


@given(st.text())
def test_a_safe_name_is_one_printable_line_that_utf8_can_carry(name: str) -> None:
    shown = safe(name)
    assert shown.splitlines() in ([], [shown])
    assert "\x1b" not in shown
    shown.encode("utf-8")


def test_safe_escapes_what_would_break_the_terminal_and_keeps_the_rest() -> None:
    assert safe("a\nb\x1b[31m\u202egpj.exe") == r"a\nb\x1b[31m\u202egpj.exe"
    assert safe("undecodable \udcff") == r"undecodable \udcff"
    assert safe("Ümläut 猫 👩‍👧.jpg") == "Ümläut 猫 👩‍👧.jpg"


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=80), st.integers(16, 60))
def test_a_short_path_is_no_wider_than_asked(path: str, width: int) -> None:
    assert cell_len(shorten(path, width)) <= width


def test_a_short_path_keeps_its_file_name() -> None:
    short = shorten("photos/2024/some very long folder/and one more/beach.jpg", 30)
    assert short.startswith("photos/")
    assert short.endswith("…/beach.jpg")


def test_paths_below_the_current_folder_are_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert near(str(tmp_path / "a" / "b.jpg")) == "a/b.jpg"
    assert near(f"{tmp_path}-other/b.jpg") == f"{tmp_path}-other/b.jpg"


def test_a_snippet_shows_the_word_that_was_asked_for() -> None:
    text = "one two three four five six seven eight nine ten lighthouse eleven twelve thirteen fourteen " * 2
    shown = snippet(text, ["a", "Lighthouse"], 40)
    assert "lighthouse" in shown
    assert shown.startswith("…")
    assert shown.endswith("…")
    assert len(shown) <= 40


@given(st.text(), st.lists(st.text(), max_size=3), st.integers(10, 80))
def test_a_snippet_is_one_line_of_its_width(text: str, words: list[str], width: int) -> None:
    shown = snippet(text, words, width)
    assert len(shown) <= width
    assert "\n" not in shown


def test_amounts_are_readable() -> None:
    assert [size(0), size(999), size(1500), size(2_500_000), size(3 * 10**12)] == [
        "0 B",
        "999 B",
        "1.5 KB",
        "2.5 MB",
        "3.0 TB",
    ]
    assert [duration(1.25), duration(75), duration(3700)] == ["1.2 s", "1 min 15 s", "1 h 1 min"]
    assert last("/a/long/path.jpg", 9) == "…path.jpg"


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        (0, 10, "0:00-0:10"),
        (5, 15, "0:05-0:15"),
        (4.98, 5.02, "0:04-0:06"),
        (59.9, 60, "0:59-1:00"),
        (3, 3, "0:03-0:04"),
        (3723.4, 3733.4, "1:02:03-1:02:14"),
    ],
)
def test_a_time_span_holds_the_whole_stretch(start: float, end: float, said: str) -> None:
    assert time_span(start, end) == said
