"""Words of many scripts, and stems that are worked out once and not for ever."""

from __future__ import annotations

import unicodedata
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch import words as module
from mmsearch.words import Stemmer, spans, tied, words

ALPHABETS = st.text(st.characters(categories=("L", "M", "N", "P", "Zs")), max_size=30)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("लाल जूते महिलाओं के लिए।", 5),
        ("தமிழ் சொல்", 2),
        ("รองเท้า สีแดง", 2),
        ("שָׁלוֹם עוֹלָם", 2),
        ("كِتَابٌ جَدِيد", 2),
        ("မြန်မာ စာ", 2),
        ("ខ្មែរ ភាសា", 2),
        ("cafe\u0301 nai\u0308ve", 2),
    ],
)
def test_signs_that_belong_to_a_letter_do_not_end_a_word(text: str, count: int) -> None:
    assert len(words(text)) == count


def test_accents_and_points_make_no_difference() -> None:
    assert words("café") == words("cafe\u0301") == words("CAFE")
    assert words("שָׁלוֹם") == words("שלום")
    assert words("كِتَابٌ") == words("كتاب")


@given(ALPHABETS)
def test_every_letter_and_digit_is_in_a_word_and_no_blank_is(text: str) -> None:
    inside = {at for start, end, _ in spans(text) for at in range(start, end)}
    for at, letter in enumerate(text):
        if letter.isalnum():
            assert at in inside
        if unicodedata.category(letter) == "Zs":
            assert at not in inside


def test_long_words_with_a_tie_somewhere_are_cut_at_once() -> None:
    assert tied("क" * 2000 + " a-b") == [(2001, 2004, "ab")]  # or this test never ends


def test_stems_are_the_same_however_many_were_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 5)
    stemmer, right = Stemmer(), Stemmer()
    texts = [[f"shirt{n % 9}s", "running", f"shoes{n % 4}", "dresses"] for n in range(40)]
    monkeypatch.setattr(module, "MOST", 10**6)
    expected = [right.stems(text) for text in texts]
    monkeypatch.setattr(module, "MOST", 5)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(stemmer.stems, texts)) == expected
    assert len(stemmer._known) <= 5 + 4
    assert stemmer.stems(["dresses"]) == ["dress"]
