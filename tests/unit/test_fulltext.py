"""Full text in memory: BM25 against its formula, corrections against all edit distances, synonyms, beginnings."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsearch import Engine, fulltext
from mmsearch.columns import Columns
from mmsearch.fulltext import B_TEXT, B_TITLE, K1, TITLE_WEIGHT, FullText
from mmsearch.shapes import Synonym
from mmsearch.wording import Wording, corrected, edits_allowed, synonym_table, understood
from mmsearch.words import spans, stems, words
from tests.oracle import directions
from tests.shop import Product, bm25f, edit_distance
from tests.toy import ToyEncoder

POOL = directions(20, 4)
WORDS = ["zorb", "quil", "fonk", "plim", "zor"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
STEPS = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.none() | st.tuples(TEXTS, TEXTS)), min_size=1, max_size=3),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home: making one takes longer than all else."""
    folder: Path = tmp_path_factory.mktemp("home")
    Engine.open(folder, model=ToyEncoder()).close()
    return folder


def copied(template: Path) -> Path:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    shutil.copytree(template, folder, dirs_exist_ok=True)
    return folder


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path, model=ToyEncoder()) as opened:
        yield opened


def read(engine: Engine) -> tuple[FullText, Columns]:
    columns = Columns(engine.catalog, 1)
    return fulltext.read(engine.catalog, 1, columns), columns


def total(wording: Wording, full_text: FullText, n: int) -> NDArray[np.float64]:
    scores = np.zeros(n)
    for found in wording.found(full_text, n):
        scores[found.rows] += found.scores
    return scores


def scores(full_text: FullText, columns: Columns, text: str) -> dict[int, float]:
    found = total(understood(text, full_text, typos=False), full_text, len(columns.item_ids))
    return {int(columns.item_ids[row]): float(found[row]) for row in np.flatnonzero(found)}


def said(engine: Engine, *titles: str) -> tuple[FullText, Columns]:
    engine.add([Product(f"k{n}", [POOL[n % 20]], title).new() for n, title in enumerate(titles)])
    return read(engine)


@given(STEPS, st.booleans())
@settings(max_examples=15)
def test_words_brought_up_to_date_score_as_the_formula_says(
    template: Path, steps: list[list[tuple[int, tuple[str, str] | None]]], sorted_anew: bool
) -> None:
    home = copied(template)
    with Engine.open(home, model=ToyEncoder()) as engine, pytest.MonkeyPatch.context() as patch:
        patch.setattr(fulltext, "_TAIL", 1 if sorted_anew else 10**9)
        full_text, columns = read(engine)
        shop: dict[str, Product] = {}
        for step in steps:
            for n, texts in step:
                key = f"k{n}"
                if texts is not None:
                    shop[key] = Product(key, [POOL[n]], *texts)
                    engine.add([shop[key].new()])
                elif key in shop:
                    engine.remove([engine.find(key).id])  # type: ignore[union-attr]
                    del shop[key]
            columns = columns.advance()
            full_text = full_text.advance(engine.catalog, 1, columns)
        fresh, fresh_columns = read(engine)
        parameters = {"title_weight": TITLE_WEIGHT, "b_title": B_TITLE, "b_text": B_TEXT, "k1": K1}
        talking = list(shop.values())
        right = bm25f(talking, dict.fromkeys(["zorb", "fonk"], 1.0), **parameters)
        id_of = {product.key: engine.find(product.key).id for product in talking}  # type: ignore[union-attr]
        want = {
            id_of[key]: right["zorb"].get(key, 0.0) + right["fonk"].get(key, 0.0)
            for key in {**right["zorb"], **right["fonk"]}
        }
        said = [p for p in talking if (p.title + p.text).strip()]
        for state, its_columns in ((full_text, columns), (fresh, fresh_columns)):
            assert state.documents == len(said)
            assert scores(state, its_columns, "zorb fonk") == pytest.approx(want)
            for word in WORDS:
                code = state.stems.codes.get(stems([word])[0])
                holding = [p for p in talking if word in words(p.title) + words(p.text)]
                assert (0 if code is None else state.frequency(code)) == len(holding)
    shutil.rmtree(home)


def shared_ending(one: str, other: str) -> int:
    return next((n for n in range(len(one)) if not other.endswith(one[-n - 1 :])), len(one))


@given(
    st.text("abcde", min_size=1, max_size=9), st.lists(st.text("abcde", min_size=1, max_size=9), max_size=12)
)
@settings(max_examples=20)
def test_corrections_are_the_nearest_words_by_edit_distance(
    template: Path, word: str, known: list[str]
) -> None:
    home = copied(template)
    with Engine.open(home, model=ToyEncoder()) as engine:
        full_text, _ = said(engine, *known, "zzz")
        often = {one: sum(stems([one]) == stems([other]) for other in known) for one in known}
        allowed = edits_allowed(word)
        near = [
            (edit_distance(word, one), one[0] != word[0], -often[one], -shared_ending(word, one), one)
            for one in set(known)
        ]
        best = sorted(entry for entry in near if 0 < entry[0] <= allowed)
        right, seen = [], set()
        for away, *_, one in best:
            if away == best[0][0] and stems([one])[0] not in seen:
                seen.add(stems([one])[0])
                right.append((one, away))
        assert corrected(word, full_text) == right[:3]
    shutil.rmtree(home)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("shos", "shoes"),  # left out
        ("shooes", "shoes"),  # too many
        ("shoss", "shoes"),  # another
        ("hsoes", "shoes"),  # swapped
        ("adidsa", "adidas"),
        ("sho", None),  # too short to be sure
        ("nikon5", None),  # a model is what it is
        ("xylophone", None),
    ],
)
def test_a_misspelt_word_is_taken_for_the_nearest(engine: Engine, word: str, meant: str | None) -> None:
    full_text, _ = said(engine, "Adidas shoes", "nikon7", "nikons")
    found = [stems([other])[0] for other, _ in corrected(word, full_text)]
    assert found == ([stems([meant])[0]] if meant else [])


def test_synonyms_of_several_words_count_where_all_of_them_are(engine: Engine) -> None:
    full_text, columns = said(engine, "tee", "t shirt", "shirt", "dress")
    two_way = synonym_table([Synonym(words=["tee", "T-Shirts"])])
    one_way = synonym_table([Synonym(of="garment", words=["dress", "shirt"])])

    def found(text: str, table: dict[tuple[str, ...], list[tuple[str, ...]]]) -> set[int]:
        wording = understood(text, full_text, typos=False, synonyms=table)
        result = total(wording, full_text, 4)
        for one in wording.found(full_text, 4):
            assert set(one.rows[one.every]) <= set(np.flatnonzero(result))
        return {int(columns.item_ids[row]) for row in np.flatnonzero(result)}

    assert found("tee", two_way) == {1, 2}
    assert found("t-shirt", two_way) == {1, 2, 3}  # the shirt has one of its words
    assert found("garment", one_way) == {2, 3, 4}
    assert found("dress", one_way) == {4}
    assert found("garment", {}) == set()
    (best,) = understood("tee", full_text, synonyms=two_way).found(full_text, 4)
    (alone,) = understood("tee", full_text).found(full_text, 4)
    plain = understood("t shirt", full_text).found(full_text, 4)
    share = sum(dict(zip(one.rows, one.scores, strict=True))[1] for one in plain) / sum(
        one.ideal for one in plain
    )
    assert best.rows.tolist() == [0, 1]
    assert best.scores[0] == alone.scores[0]
    assert best.scores[1] / best.ideal == pytest.approx(share), "a synonym counts as much as the word itself"


def test_the_last_word_may_be_a_beginning(engine: Engine) -> None:
    full_text, columns = said(engine, "leather wallet", "wall clock", "leather belt")

    def found(text: str, prefix: bool) -> set[int]:
        return {i for i, s in prefixed(full_text, columns, text, prefix).items() if s}

    assert found("wal", True) == {1, 2}
    assert found("wal", False) == set()
    assert found("wal ", True) == set(), "a space ends the word"
    assert found("wall", True) == {1, 2}
    exact = prefixed(full_text, columns, "wall", True)
    assert exact[2] > exact[1], "the whole word counts more than a longer one"


def prefixed(full_text: FullText, columns: Columns, text: str, prefix: bool) -> dict[int, float]:
    result = total(understood(text, full_text, typos=False, prefix=prefix), full_text, len(columns.item_ids))
    return {int(columns.item_ids[row]): float(score) for row, score in enumerate(result)}


def test_words_are_cut_folded_and_stemmed() -> None:
    assert words("Men's Café-Crème, T-shirt 2XL!") == ["men", "cafe", "creme", "t", "shirt", "2xl"]
    assert words("CAFE\u0301 straße o’clock") == ["cafe", "strasse", "oclock"]
    assert spans("Un café!") == [(0, 2, "un"), (3, 7, "cafe")]
    pairs = [
        ("shirts", "shirt"),
        ("dresses", "dress"),
        ("watches", "watch"),
        ("running", "runs"),
        ("女鞋", "女鞋"),
    ]
    for one, other in pairs:
        assert stems([one]) == stems([other])
    assert stems(["glass"]) != stems(["glove"])


def test_words_of_another_collection_do_not_count(tmp_path: Path) -> None:
    with (
        Engine.open(tmp_path, model=ToyEncoder()) as engine,
        Engine.open(tmp_path, collection="other", model=ToyEncoder()) as other,
    ):
        other.add([Product("x", [POOL[0]], "zorb zorb").new()])
        full_text, _ = said(engine, "quil")
        assert "zorb" not in full_text.surfaces
        assert full_text.documents == 1
