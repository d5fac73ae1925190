"""Suggestions against plain loops over all titles and items."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch import Engine, Modality, NewItem, NewPart
from mmsearch.shapes import Suggestion
from mmsearch.words import stems
from tests.oracle import directions
from tests.toy import ToyEncoder
from tests.unit.test_fulltext import copied

WORDS = ["zorb", "zorbs", "zor", "quil", "quilt", "fonk", "of", "plim", "plums"]
COLOURS = ["quil blue", "Zorb", "plim"]
TITLES = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda stretches: ", ".join(" ".join(stretch) for stretch in stretches).capitalize()
)
VECTOR = directions(1, 4)[0]

Stretches = list[list[str]]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("home")
    Engine.open(folder, model=ToyEncoder()).close()
    return folder


def stem(word: str) -> str:
    return stems([word])[0]


def cut(title: str) -> Stretches:
    """The stems of a title by stretch."""
    return [[stem(word) for word in stretch.split()] for stretch in title.lower().split(", ")]


def item(n: int, title: str, colour: str | None) -> NewItem:
    attributes: dict[str, object] = {} if colour is None else {"colour": colour}
    part = NewPart(modality=Modality.FUSED, vector=VECTOR)
    return NewItem(key=f"k{n}", modality=Modality.TEXT, title=title, parts=[part], attributes=attributes)  # type: ignore[arg-type]


def expected_phrases(titles: list[str], before: list[str], letters: str) -> dict[tuple[str, ...], int]:
    """Phrases (sorted stems) and how many titles say them."""
    said = {title: cut(title) for title in titles}
    flat = {title: [word for stretch in stretches for word in stretch] for title, stretches in said.items()}
    uses = Counter(word for words in flat.values() for word in words)
    ends = Counter(stretch[-1] for stretches in said.values() for stretch in stretches)
    forms = {word for title in titles for word in re.findall(r"\w+", title.lower())}
    typed = {stem(word) for word in before}
    among = [title for title in titles if typed <= set(flat[title])]
    begun = {stem(form) for form in forms if form.startswith(letters)}
    whole = stem(letters) if letters in forms else None

    def glue(word: str) -> bool:
        return len(word) <= 3 and ends[word] / uses[word] < 0.02

    def place(title: str, word: str) -> tuple[list[str], int]:
        return next((stretch, stretch.index(word)) for stretch in said[title] if word in stretch)

    counts = {word: sum(word in flat[title] for title in among) for word in begun - typed}
    order = sorted((word for word in counts if counts[word] >= 2), key=lambda word: (-counts[word], word))
    if whole in order:
        order.remove(whole)
        order.insert(0, whole)
    found: dict[tuple[str, ...], int] = {}
    for n, word in enumerate(order):
        here = [place(title, word) for title in among if word in flat[title]]
        own = [title for title in among if word in flat[title]]
        run = [word]
        known = [(list(run), list(here), own)]
        while len(run) < 5:
            nexts = Counter(s[at + len(run)] for s, at in here if at + len(run) < len(s))
            if not nexts:
                break
            most = max(nexts.values())
            follower = next(w for w in FIRST if nexts[w] == most)
            if most < max(2, 0.8 * len(here)) or follower in typed:
                break
            keep = [
                i for i, (s, at) in enumerate(here) if at + len(run) < len(s) and s[at + len(run)] == follower
            ]
            here, own = [here[i] for i in keep], [own[i] for i in keep]
            run.append(follower)
            if not glue(follower):
                known.append((list(run), list(here), own))
        run, here, own = known[-1]
        found.setdefault(tuple(sorted(run)), len(here))
        if n >= 3:
            continue
        but = typed | set(run)
        follows = Counter(s[at + len(run)] for s, at in here if at + len(run) < len(s))
        heads = Counter(s[-1] for s, at in here if len(s) - 1 > at + len(run))
        left = Counter(
            s[at - 1]
            for (s, at), title in zip(here, own, strict=True)
            if at > 0 and form_at(title, s, at).startswith(letters)
        )
        for many in (follows, heads):
            for other, count in many.items():
                if count >= 2 and other not in but and ends[other] / uses[other] >= 0.1:
                    found.setdefault(tuple(sorted([*run, other])), count)
        if word == whole and not typed:
            for other, count in left.items():
                if count >= 2 and other not in but and not glue(other):
                    found.setdefault(tuple(sorted([other, *run])), count)
    return found


FIRST: list[str] = []
"""The stems, in the order in which the collection met them."""


def form_at(title: str, stretch: list[str], at: int) -> str:
    """How the title writes the word at a place of this stretch."""
    place = next(n for n, one in enumerate(cut(title)) if one is stretch or one == stretch)
    return title.lower().split(", ")[place].split()[at]


@given(
    st.lists(st.tuples(TITLES, st.sampled_from([None, *COLOURS])), min_size=1, max_size=14),
    st.sets(st.integers(0, 13), max_size=3),
    st.lists(st.sampled_from(WORDS), max_size=2),
    st.sampled_from(["z", "zo", "zorb", "zorbs", "q", "quil", "quilt", "fon", "pl", "plum", "of"]),
)
@settings(max_examples=100)
def test_suggestions_are_what_all_titles_and_items_say(
    template: Path, items: list[tuple[str, str | None]], gone: set[int], before: list[str], letters: str
) -> None:
    home = copied(template)
    with Engine.open(home, model=ToyEncoder()) as engine:
        engine.add([item(n, *one) for n, one in enumerate(items)])
        engine.suggest("zorb")  # what is read once is brought up to date
        engine.remove([known.id for n in gone if (known := engine.find(f"k{n}")) is not None])
        found = engine.suggest(" ".join([*before, letters]), k=500)
    shutil.rmtree(home)
    there = [one for n, one in enumerate(items) if n not in gone]
    titles = list(dict.fromkeys(title for title, _ in there))
    FIRST[:] = dict.fromkeys(word for title, _ in items for stretch in cut(title) for word in stretch)

    if not set(map(stem, before)) <= {word for title in titles for stretch in cut(title) for word in stretch}:
        return  # of misspelt words others are tested below
    typed = {(stem(letters),)}  # goes on to nothing
    want = {key: n for key, n in expected_phrases(titles, before, letters).items() if key not in typed}
    told = {said_after(one, before): one.count for one in found if one.source == "phrase"}
    assert {key: n for key, n in told.items() if key not in typed} == want
    counts = [one.count for one in found if one.source == "phrase"]
    assert counts == sorted(counts, reverse=True)

    begun = {
        word for title, _ in items for word in re.findall(r"\w+", title.lower()) if word.startswith(letters)
    }
    flat = {title: {word for stretch in cut(title) for word in stretch} for title in titles}
    holding = [title for title in titles if set(map(stem, before)) <= flat[title]]
    passing = [title for title in holding if flat[title] & set(map(stem, begun))]
    if passing:
        shown = {plain(one.text) for one in found if one.source == "phrase"}
        listed = [one.text for one in found if one.source == "title"]
        assert set(map(plain, listed)) == set(map(plain, passing)) - shown
        if before:
            rank = [(cut(title)[0][0] != stem(before[0]), len(title)) for title in listed]
        else:
            rank = [(plain(title).split()[0] not in begun, len(title)) for title in listed]
        assert rank == sorted(rank)
        keys = {one.key: one.text for one in found if one.source == "title"}
        assert all(items[int((key or "")[1:])][0] == title for key, title in keys.items())

    values = {one.value: one.count for one in found if one.source == "value"}
    narrowing = len(letters) > 1 and len({colour for _, colour in items if colour}) > 1
    said = [colour for title, colour in there if colour and title in holding]
    likely = [colour for colour in said if any(word.startswith(letters) for word in colour.lower().split())]
    assert values == (Counter(likely) if narrowing else {})


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def said_after(one: Suggestion, before: list[str]) -> tuple[str, ...]:
    """The stems of a phrase behind what was typed before."""
    return tuple(sorted(map(stem, re.findall(r"\w+", one.text.lower())[len(before) :])))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    titles = [
        *[f"United Colors of Benetton Men {colour} {kind}" for colour in ("Red", "Blue") for kind in KINDS],
        *[f"Crème Brûlée Women {colour} {kind}" for colour in ("Red", "Navy Blue") for kind in KINDS],
        "Running Shoes, black",
        "Trail Running Shoes (grey)",
    ]
    with Engine.open(tmp_path_factory.mktemp("shop"), model=ToyEncoder()) as engine:
        added = [
            item(n, title, ("Footwear", "Apparel", "Home & Living")[n % 3]) for n, title in enumerate(titles)
        ]
        engine.add(added)
        yield engine


KINDS = ("T-Shirts", "Shirts", "Sneakers")


def phrases(engine: Engine, text: str) -> list[str]:
    return [one.text for one in engine.suggest(text, k=30) if one.source == "phrase"]


def test_what_belongs_together_is_completed_whole(shop: Engine) -> None:
    assert phrases(shop, "uni")[0] == "united colors of benetton"
    assert not [text for text in phrases(shop, "uni") if text.endswith((" of", "men"))]
    assert "navy blue" in phrases(shop, "na")


def test_things_are_called_what_titles_end_with(shop: Engine) -> None:
    assert "united colors of benetton sneakers" in phrases(shop, "united")
    assert "blue sneakers" in phrases(shop, "blue")
    assert phrases(shop, "ru")[:2] == ["running shoes"]


def test_a_phrase_is_written_as_titles_write_it(shop: Engine) -> None:
    assert phrases(shop, "creme")[0] == "crème brûlée women"
    assert "red t-shirts" in phrases(shop, "red t-sh")
    assert "black" not in " ".join(phrases(shop, "shoes")), "behind a comma something else begins"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("snek", "sneakers"),  # a letter left out, and not ready yet
        ("snaekers", "sneakers"),
        ("shrit", "shirts"),
        ("beneton", "benetton"),
        ("bleu snea", "blue sneakers"),  # each word
        ("rwd sneakes", None),  # three letters may be anything
    ],
)
def test_what_is_misspelt_is_put_right(shop: Engine, typed: str, meant: str | None) -> None:
    assert phrases(shop, typed)[:1] == ([meant] if meant else [])


def test_values_narrow_what_is_said_before_them(shop: Engine) -> None:
    def values(text: str) -> list[tuple[str, str, str | None, int]]:
        found = [one for one in shop.suggest(text, k=12) if one.source == "value"]
        assert {one.attribute for one in found} <= {"colour"}
        return [(one.text, one.words, one.value, one.count) for one in found]

    assert values("foot") == [("Footwear", "", "Footwear", 5)]
    assert values("benetton foot") == [("benetton Footwear", "benetton", "Footwear", 2)]
    assert values("home liv") == [("Home & Living", "", "Home & Living", 4)]
    assert values("red home liv") == [("red Home & Living", "red", "Home & Living", 2)]
    assert values("li") == [("Home & Living", "", "Home & Living", 4)]
    assert values("f") == values("zzz foot") == []


def test_no_source_takes_all_places(shop: Engine) -> None:
    sources = [one.source for one in shop.suggest("sn", k=8)]
    assert sources == sorted(sources, key=["query", "phrase", "value", "title"].index)
    assert sources.count("title") >= 2
    assert len(sources) <= 8
    assert len(shop.suggest("s", k=3)) == 3
