"""Which words of an item are marked, and which stretch of a long text is shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.shapes import CollectionSettings, Highlight, Synonym
from tests.oracle import directions
from tests.shop import Product
from tests.toy import ToyEncoder

POOL = directions(40, 4)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path, model=ToyEncoder()) as opened:
        filler = [
            Product(f"other{n}", [POOL[n]], f"something else of quil {n}", "of the fonk") for n in range(20)
        ]
        opened.add([product.new() for product in filler])
        yield opened


def marked(found: Highlight) -> str:
    text = found.text
    for start, end in reversed(found.spans):
        text = f"{text[:start]}[{text[start:end]}]{text[end:]}"
    return text


def shown(engine: Engine, text: str, title: str, *texts: str, **more: object) -> list[str]:
    parts = [NewPart(modality=Modality.IMAGE, vector=POOL[30])]
    parts += [NewPart(modality=Modality.TEXT, content=one) for one in texts]
    engine.add([NewItem(key="it", modality=Modality.IMAGE, parts=parts, title=title)])
    query = Query(terms=[Term(text=text)], hybrid=True, highlight=True, k=50, **more)  # type: ignore[arg-type]
    (hit,) = [hit for hit in engine.results(query).hits if hit.item.key == "it"]
    return [marked(one) for one in hit.highlights]


@pytest.mark.parametrize(
    ("text", "title", "want"),
    [
        ("shirts", "A white Shirt", "A white [Shirt]"),
        ("of a shirt", "Shirt of silk, a gift of mine", "[Shirt] [of] silk, a gift of mine"),
        ("of", "Shirt of silk", "Shirt [of] silk"),
        ("t-shirt", "T-Shirt in A size T", "[T-Shirt] in A size T"),
        ("tshirt", "White T-Shirts", "White [T-Shirts]"),
        ("t shirt", "Tshirt", "[Tshirt]"),
        ("lether", "Leather wallet", "[Leather] wallet"),
        ("CAFÉ", "Le Cafe", "Le [Cafe]"),
        ("h&m", "Coat by H&M", "Coat by [H&M]"),
        ("<b>", "a <b> & 'b'", "a <[b]> & '[b]'"),
    ],
)
def test_the_words_that_matched_are_marked(engine: Engine, text: str, title: str, want: str) -> None:
    assert shown(engine, text, title) == [want]


def test_beginnings_and_synonyms_are_marked_as_whole_words(engine: Engine) -> None:
    assert shown(engine, "leath", "Leather wallet", prefix=True) == ["[Leather] wallet"]
    engine.change_settings(CollectionSettings(synonyms=[Synonym(words=["sofa", "love seat"])]))
    assert shown(engine, "sofa", "A love seat") == ["A [love] [seat]"]


def test_the_text_that_says_most_of_the_query_is_shown(engine: Engine) -> None:
    often = "wallet wallet wallet wallet, and of the wallet"
    assert shown(engine, "leather wallet", "Thing", often, "one leather wallet") == ["one [leather] [wallet]"]


def test_the_stretch_with_most_of_the_query_is_shown_from_the_beginning_of_its_sentence(
    engine: Engine,
) -> None:
    long = (
        "A wallet to begin with. "
        + "Nothing to see. " * 40
        + "It is a fine leather wallet of one cow. "
        + "More. " * 60
    )
    (snippet,) = shown(engine, "leather wallet", "Thing", long)
    assert "It is a fine [leather] [wallet] of one cow. More." in snippet
    plain = snippet.replace("[", "").replace("]", "")
    assert len(plain) <= 200
    assert plain in long
    begins = long.index(plain)
    assert begins == 0 or long[begins - 2 : begins] == ". "


def test_a_long_text_without_spaces_is_cut_around_its_match(engine: Engine) -> None:
    long = "x" * 5000 + " wallet " + "y" * 5000
    (snippet,) = shown(engine, "wallet", "Thing", long)
    plain = snippet.replace("[", "").replace("]", "")
    assert "[wallet]" in snippet
    assert len(plain) <= 200
    assert plain in long


def test_an_item_that_holds_no_word_of_the_query_has_no_highlights(engine: Engine) -> None:
    assert shown(engine, "wallet", "Shirt", "of silk") == []
