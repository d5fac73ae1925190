"""Which words are learnt in other languages, and the texts that are made of them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mmsearch.errors import ConfigError
from mmsearch.training.dictionaries import Book, frequencies

FRAMES = {
    "de": ("{}.",),
    "zh": ("一个{}。", "{}。"),
    "fr": ("Un {}.", "Une {}."),
    "hi": ("एक {}।",),
    "id": ("Sebuah {}.",),
    "it": ("Un {}.", "Una {}."),
    "nl": ("Een {}.",),
    "pt": ("Um {}.", "Uma {}."),
    "es": ("Un {}.", "Una {}."),
    "sv": ("En {}.", "Ett {}."),
    "tr": ("Bir {}.",),
}
"""The shortest captions of a thing in each language, ``{}.`` in the others. Where genders are not known a wrong article
is heard often enough."""

THINGS = {"05", "06", "08", "13", "17", "20"}
"""WordNet's files of animals, artefacts, the body, food, natural objects and plants (lexnames(5WN))."""
OTHERS = {"11", "18", "19", "27"}  # happenings, people, phenomena, substances
RARE, USUAL, COMMON = 2.2, 2.5, 3.5  # Zipf values of English words


def english_caption(word: str) -> str:
    return f"{'An' if word[0] in 'aeiou' else 'A'} {word}."


def caption(language: str, book: Book, word: str, turn: int) -> str:
    """A translation in the shortest caption of its language; those whose frames are several take turns."""
    frames = FRAMES.get(language, ("{}.",))
    if word in book.frames:
        frames = (book.frames[word].plain, *frames[1:])
    return frames[turn % len(frames)].format(word)


def noun_kinds(folder: Path) -> dict[str, str]:
    """Noun, lower case -> the number of the WordNet file that its most frequent sense is in.

    Raises ConfigError when the folder has no WordNet 3.0.
    """
    try:
        data = (folder / "data.noun").read_text("latin-1").splitlines()
        index = (folder / "index.noun").read_text("latin-1").splitlines()
    except FileNotFoundError as error:
        raise ConfigError(
            f"{error.filename} is missing; install Debian's wordnet-base or unpack it"
        ) from None
    files = dict(line.split(" ", 2)[:2] for line in data if not line.startswith("  "))
    kinds = {}
    for line in index:
        if not line.startswith("  "):
            word, _, senses, *fields = line.split()
            kinds[word.replace("_", " ")] = files[fields[-int(senses)]]
    return kinds


def picturable_words(
    books: Mapping[str, Book], kinds: Mapping[str, str], captions: Iterable[str]
) -> list[str]:
    """The English words that are worth hearing in other languages: names of things that German, Chinese or three
    other dictionaries translate, other visible nouns, words of the captions, and the commonest others.
    """
    often = Counter(word for book in books.values() for word in book.words)
    seen = Counter(word for text in captions for word in re.findall("[a-z]{3,}", text.lower()))
    english = frequencies("en")
    found = []
    for word, count in often.items():
        kind, zipf = kinds.get(word), min(english.get(part, 0.0) for part in word.split())
        wanted = any(word in books[language].words for language in ("de", "zh") if language in books)
        if 2 < len(word) <= 30 and (
            (kind in THINGS and (count >= 3 or (wanted and zipf >= RARE)))
            or (kind in OTHERS and count >= 4 and zipf >= USUAL)
            or (seen[word] >= 2 and count >= 3)
            or (count >= 8 and zipf >= COMMON)
        ):
            found.append(word)
    return sorted(found, key=lambda word: (-often[word], word))
