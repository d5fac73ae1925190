"""Phrases and captions put together from dictionaries: no text in another language is needed to learn how words meet."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from mmsearch.training.dictionaries import Book, measured
from mmsearch.training.translations import english_caption


class Phrase(NamedTuple):
    """What an English text is in another language."""

    english: str
    language: str
    text: str


ADJECTIVES = {
    "red": ("rot", "红色的"),
    "blue": ("blau", "蓝色的"),
    "green": ("grün", "绿色的"),
    "yellow": ("gelb", "黄色的"),
    "brown": ("braun", "棕色的"),
    "grey": ("grau", "灰色的"),
    "white": ("weiß", "白色的"),
    "black": ("schwarz", "黑色的"),
    "golden": ("golden", "金色的"),
    "big": ("groß", "大"),
    "small": ("klein", "小"),
    "old": ("alt", "旧的"),
    "new": ("neu", "新的"),
    "beautiful": ("schön", "美丽的"),
    "round": ("rund", "圆形的"),
    "long": ("lang", "长"),
    "wet": ("nass", "湿的"),
    "broken": ("kaputt", "破的"),
    "open": ("offen", "打开的"),
    "wooden": ("hölzern", "木制的"),
}
FUNCTION_WORDS = {
    "de": {
        "a": "ein",
        "an": "ein",
        "the": "der",
        "and": "und",
        "in": "in",
        "on": "auf",
        "with": "mit",
        "of": "von",
    },
    "zh": {
        "a": "一个",
        "an": "一个",
        "the": "",
        "and": "和",
        "in": "在",
        "on": "在",
        "with": "带着",
        "of": "的",
        "is": "",
    },
}
MOST = 0.8  # of the words of a caption must be known


def described(
    books: Mapping[str, Book], things: Sequence[str], count: int, seed: int = 0
) -> Iterator[Phrase]:
    """Captions of `count` things with an adjective, in German and in Chinese."""
    chance = random.Random(seed)
    for word in chance.choices(things, k=count):
        adjective, (german, chinese) = chance.choice(list(ADJECTIVES.items()))
        english = english_caption(f"{adjective} {word}")
        for other in books["de"].words.get(word, ())[:1]:
            if frame := books["de"].frames.get(other):
                yield Phrase(english, "de", frame.described.format(german, other).capitalize())
        for other in books["zh"].words.get(word, ())[:1]:
            frame = books["zh"].frames.get(other, measured())
            yield Phrase(english, "zh", frame.described.format(chinese, other))


def glossed(book: Book, language: str, captions: Iterable[str]) -> Iterator[Phrase]:
    """Captions word by word: the words are those of the language, their order and endings are not."""
    joint = "" if language in ("zh", "ja") else " "
    known: dict[str, str | None] = dict(FUNCTION_WORDS.get(language, {}))
    for caption in captions:
        words = re.findall("[a-z]+", caption.lower())
        for word in words:
            if word not in known:
                known[word] = next((book.words[base][0] for base in _bases(word) if base in book.words), None)
        found = [known[word] for word in words if known[word]]
        if len(found) >= MOST * len(words):
            yield Phrase(caption, language, joint.join(found))


def _bases(word: str) -> Iterator[str]:
    """What an English word may be a form of."""
    yield word
    for ending, others in (
        ("ies", ("y",)),
        ("es", ("", "e")),
        ("s", ("",)),
        ("ing", ("", "e")),
        ("ed", ("", "e")),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 2:
            stem = word.removesuffix(ending)
            for other in others:
                yield stem + other
            if stem[-1] == stem[-2]:  # running
                yield stem[:-1]
