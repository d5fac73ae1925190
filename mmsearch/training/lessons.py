"""What a head for many languages learns from: texts, and the English texts that they stand for."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmsearch.training.classes import class_texts, read_nouns
from mmsearch.training.dictionaries import FREEDICT, Book, read_cedict, read_ding, read_freedict, through
from mmsearch.training.pairs import Pair, read_fashion, read_flickr
from mmsearch.training.phrases import described, glossed
from mmsearch.training.translations import (
    THINGS,
    caption,
    english_caption,
    noun_kinds,
    picturable_words,
)

WORDS = 20_000  # English words whose translations are learnt
HEARD = {"de": 5_500, "zh": 5_500, "en": 5_500}
FEWER = 2_000
"""Of the words, those that are learnt with the features of the trunk in a language; the rest by n-grams alone."""
CAPTIONS = 2  # of the five of each photo
SEEN = 3_000  # photos whose vectors their captions are drawn to
PRODUCTS = 700
LONG = 80  # characters of a text on a class, beyond which it is left out
DESCRIBED = 2_500  # things with an adjective
SENTENCES = 4_000  # of Ding
SENTENCE = 80  # characters
SHARES = {"captions": 0.18, "classes": 0.25, "products": 0.02, "words": 0.07, "translations": 0.48}
"""Of the lessons that are heard; phrases are not."""
WEIGHTS = {"de": 3, "zh": 3}
"""Of translations, so that the languages with the longest dictionaries are learnt best."""


class Lesson(NamedTuple):
    """A text and the English one it stands for; of what is drawn of its kind (``SHARES``) it takes a part by `weight`.

    Without `heard` it is learnt by its n-grams alone: the trunk is slow, and dictionaries are long.
    """

    text: str
    english: str
    language: str
    kind: str
    weight: float = 1.0
    heard: bool = True


@dataclass(frozen=True)
class Sources:
    """Everything that is read: photos and products with texts, texts on the classes, words with their translations."""

    photos: Sequence[Pair]
    products: Sequence[Pair]
    classes: Sequence[str]
    words: Sequence[str]
    things: frozenset[str]  # of the words, those that name something that can stand in a picture alone
    books: Mapping[str, Book]  # by language


def read_sources(data: Path, wordnet: Path, dictionaries: Path, ding: Path) -> Sources:
    """Raises ConfigError if one is missing."""
    photos, (products, _) = read_flickr(data, "train"), read_fashion(data)
    classes = [text for texts in class_texts(read_nouns(wordnet)) for text in texts]
    books = {"de": read_ding(ding), "zh": read_cedict()}
    books |= {language: read_freedict(dictionaries, name) for name, language in FREEDICT.items()}
    books["de"] = through(books["de"], books["fi"], read_freedict(dictionaries, "deu-fin"))
    captions = [text for pair in photos for text in pair.texts]
    kinds = noun_kinds(wordnet)
    words = picturable_words(books, kinds, captions)[:WORDS]
    things = frozenset(word for word in words if kinds.get(word) in THINGS)
    return Sources(photos, products, classes, words, things, books)


def english_lessons(sources: Sources) -> Iterator[Lesson]:
    """English texts as they are; some of them twice."""
    for kind, texts in (
        ("captions", [text for photo in sources.photos for text in photo.texts[:CAPTIONS]]),
        ("classes", [text for text in sources.classes if len(text) < LONG]),
        ("products", [text for product in sources.products[:PRODUCTS] for text in product.texts]),
    ):
        for text in texts:
            yield Lesson(text, text, "en", kind)
    for turn, word in enumerate(sources.words):
        yield Lesson(word, word, "en", "words", 1, turn < HEARD["en"])
        if word in sources.things:
            text = english_caption(word)
            yield Lesson(text, text, "en", "words", 1, framed(turn, "en"))


def foreign_lessons(sources: Sources) -> Iterator[Lesson]:
    """Words in other languages, things also in the shortest caption of the language ("Ein Hund.")."""
    for language, book in sources.books.items():
        for turn, word in enumerate(sources.words):
            for place, other in enumerate(book.words.get(word, ())):
                weight, first = WEIGHTS.get(language, 1) * (1 + place) ** -0.5, place == 0
                yield Lesson(
                    other, word, language, "translations", weight, first and turn < HEARD.get(language, FEWER)
                )
                if word in sources.things and place < 3:
                    text, heard = caption(language, book, other, turn), first and framed(turn, language)
                    yield Lesson(text, english_caption(word), language, "translations", weight, heard)


def framed(turn: int, language: str) -> bool:
    """Whether the caption of a word is heard, by its place among the words."""
    return turn < HEARD.get(language, FEWER) and turn % 3 == 0


def phrase_lessons(sources: Sources) -> Iterator[Lesson]:
    """Things with adjectives, captions glossed word by word, German sentences; by n-grams alone."""
    things = [word for word in sources.words if word in sources.things]
    captions = [photo.texts[0] for photo in sources.photos]
    sentences = [(a, b) for a, b in sources.books["de"].phrases if len(a) < SENTENCE]
    chosen = random.Random(0).sample(sentences, min(SENTENCES, len(sentences)))
    phrases = [
        *described(sources.books, things, DESCRIBED),
        *(phrase for name in ("de", "zh") for phrase in glossed(sources.books[name], name, captions)),
    ]
    for english, language, text in (*phrases, *((a, "de", b) for a, b in chosen)):
        yield Lesson(text, english, language, "phrases", heard=False)
