"""The rows of a text's n-grams: which there are, and that they do not depend on case, width or company."""

import zlib

import numpy as np
import pytest

from mmsearch.encoders.ngrams import hashed, ngram_rows

ROWS = 1000


def rows(*grams: str) -> list[int]:
    return sorted(zlib.crc32(gram.encode()) % ROWS + 1 for gram in grams)


@pytest.mark.parametrize(
    ("text", "grams"),
    [
        ("Ei.", ["<ei>", "<ei", "ei>"]),
        ("Igel", ["<igel>", "<ig", "ige", "gel", "el>", "<ige", "igel", "gel>", "<igel", "igel>"]),
        ("狗", ["狗"]),
        ("小狗。", ["小", "狗", "小狗"]),
        ("3只猫", ["<3>", "只", "猫", "只猫"]),
        ("कु", ["<कु>", "<कु", "कु>"]),
        ("。 . \n", []),
        ("ёж 고슴도치 เม่น ×", []),
        ("", []),
    ],
)
def test_words_count_by_their_parts_and_unspaced_scripts_by_their_characters(
    text: str, grams: list[str]
) -> None:
    assert sorted(hashed(text, ROWS)) == rows(*grams)


def test_case_width_and_punctuation_make_no_difference() -> None:
    expected = hashed("ein igel", ROWS)
    for text in ("EIN IGEL", "Ein Igel!", "«ein»  igel…", "ｅｉｎ ｉｇｅｌ"):
        assert hashed(text, ROWS) == expected


def test_texts_are_padded_with_row_0_which_no_gram_has() -> None:
    found = ngram_rows(["Ein Igel.", "", "狗", "\ud800"], 3)
    assert found.dtype == np.int64
    assert found.shape == (4, len(hashed("Ein Igel.", 3)))
    assert (found[0] > 0).all()
    assert found[2].tolist() == [*hashed("狗", 3), *[0] * (found.shape[1] - 1)]
    assert not found[[1, 3]].any()
    assert set(ngram_rows(["ein langer Satz mit vielen Wörtern"], 3).ravel()) == {1, 2, 3}


def test_without_a_word_there_is_one_column() -> None:
    assert ngram_rows(["", "!"], ROWS).tolist() == [[0], [0]]
    assert ngram_rows([], ROWS).shape == (0, 1)
