"""Phrases and captions put together from dictionaries, for want of texts in other languages."""

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
    "a": ("ein", "一个"),
    "an": ("ein", "一个"),
    "the": ("der", ""),
    "and": ("und", "和"),
    "are": ("sind", ""),
    "as": ("als", ""),
    "at": ("bei", "在"),
    "by": ("bei", "旁边"),
    "for": ("für", "为"),
    "from": ("von", "从"),
    "has": ("hat", "有"),
    "her": ("ihr", "她的"),
    "his": ("sein", "他的"),
    "in": ("in", "在"),
    "is": ("ist", ""),
    "it": ("es", "它"),
    "of": ("von", "的"),
    "on": ("auf", "在"),
    "that": ("das", "那"),
    "their": ("ihre", "他们的"),
    "through": ("durch", "穿过"),
    "to": ("zu", "到"),
    "while": ("während", "时"),
    "with": ("mit", "和"),
}
KNOWN = {
    language: {word: both[place] for word, both in (ADJECTIVES | FUNCTION_WORDS).items()}
    for place, language in enumerate(("de", "zh"))
}
UNKNOWN = 0.2  # of the words of a caption at most


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
                yield Phrase(english, "de", _sentence(frame.described.format(german, other)))
        for other in books["zh"].words.get(word, ())[:1]:
            frame = books["zh"].frames.get(other, measured())
            yield Phrase(english, "zh", frame.described.format(chinese, other))


def glossed(book: Book, language: str, captions: Iterable[str]) -> Iterator[Phrase]:
    """Captions word by word: the words are those of the language, their order and endings are not."""
    joint = "" if language in ("zh", "ja") else " "
    known: dict[str, str | None] = dict(KNOWN.get(language, {}))
    for caption in captions:
        words = re.findall("[a-z]+", caption.lower())
        for word in words:
            if word not in known:
                known[word] = next((book.words[base][0] for base in _bases(word) if base in book.words), None)
        texts = [known[word] for word in words]
        found = [text for text in texts if text]
        if texts.count(None) <= UNKNOWN * len(words):
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


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]
