"""Evaluation manifests: a table of media that belong together becomes trials, each a question with known answers.

What a manifest asks is told by its columns, and one table may ask several things:

- two of ``image``, ``audio``, ``text`` (or ``caption``): captioned media. What stands in one row belongs together.
- ``label`` with one of them: classes.
- ``query``, ``positive``, ``negative``: the positive should be nearer to the query than each negative.
- ``query``, ``target`` and ``add`` (or ``modification``) or ``subtract``: composed queries.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmsearch.errors import ConfigError
from mmsearch.media import modality_of
from mmsearch.tables import Problems, Row, read_table
from mmsearch.types import MEDIA, Modality

__all__ = ["Choice", "Classes", "Manifest", "Media", "Retrieval", "read_manifest"]

Rows = NDArray[np.int64]

COLUMNS = {Modality.IMAGE: ("image",), Modality.AUDIO: ("audio",), Modality.TEXT: ("text", "caption")}


@dataclasses.dataclass(frozen=True, slots=True)
class Media:
    """One thing to encode: a text itself, or the path of a file. ``place`` is the row that first names it."""

    modality: Modality
    content: str | Path
    place: str = dataclasses.field(default="", compare=False)

    def __str__(self) -> str:
        return str(self.content)


Terms = tuple[tuple[Media, float], ...]
"""A query: media with their weights, negative ones to steer away from."""


@dataclasses.dataclass(frozen=True)
class Retrieval:
    """Each of the n queries must find its own among the gallery.

    ``relevant``: for each query the gallery rows that answer it, at least one. ``clusters`` (n,): queries that are not
    independent of each other, such as the captions of one picture, share a number. ``excluded`` (n,): the gallery row
    that is the query itself and does not count, or -1.
    """

    name: str
    queries: Sequence[Terms]
    gallery: Sequence[Media]
    relevant: Sequence[Rows]
    clusters: Rows
    excluded: Rows


@dataclasses.dataclass(frozen=True)
class Classes:
    """Each of the n media must be nearest to the query of its class. ``truth`` (n,) are rows of ``classes``."""

    name: str
    media: Sequence[Media]
    classes: Sequence[str]
    queries: Sequence[Terms]
    truth: Rows


@dataclasses.dataclass(frozen=True)
class Choice:
    """Each query must be nearer to the first of its candidates than to any of the others."""

    name: str
    queries: Sequence[Media]
    candidates: Sequence[Sequence[Media]]


Trial = Retrieval | Classes | Choice


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a file asks."""

    path: Path
    trials: Sequence[Trial]


def read_manifest(
    path: Path, *, root: Path | None = None, split: str | None = None, prompts: Sequence[str] = ()
) -> Manifest:
    """Read the manifest at ``path``. Media files are relative to ``root``, or to the folder of the manifest.

    ``split`` takes only the rows whose column ``split`` has this value. ``prompts`` are the texts that ask for a class,
    ``{}`` standing for its label; the mean of several is taken, and the label alone if there is none.

    Raises ``MediaError`` that names the file and every row that is wrong, and ``ConfigError``.
    """
    for prompt in prompts:
        if "{}" not in prompt:
            raise ConfigError(f"the prompt {prompt!r} has no {{}} where the label is to stand")
    rows = read_table(path)
    if split is not None:
        names = sorted({name for row in rows if (name := " ".join(row.all("split")))})
        rows = [row for row in rows if row.all("split") == (split,)]
        if not rows:
            known = f"there are {', '.join(names)}" if names else "no row names a split"
            raise ConfigError(f"{path}: no row has the split {split!r}; {known}")
    reader = _Reader(path, path.parent if root is None else root, rows)
    trials = [
        *reader.captioned(),
        *reader.labelled(prompts or ("{}",)),
        *reader.triples(),
        *reader.composed(),
    ]
    reader.problems.raise_any()
    if not trials:
        found = sorted({name for row in rows for name in row.cells})
        raise ConfigError(
            f"{path}: its columns ({', '.join(found)}) ask nothing. Give two of image, audio, text; or label and "
            "one of them; or query, positive, negative; or query, target and add or subtract"
        )
    return Manifest(path, trials)


class _Reader:
    """The rows of one manifest, read as each kind of trial."""

    def __init__(self, path: Path, root: Path, rows: Sequence[Row]) -> None:
        self.problems = Problems(path)
        self._root = root
        self._rows = rows
        self._missing: dict[Path, bool] = {}

    def captioned(self) -> Iterator[Retrieval]:
        """A retrieval for each direction between the modalities that share rows, and caption to caption."""
        entries: dict[Modality, dict[Media, int]] = {modality: {} for modality in MEDIA}
        texts: list[Media] = []  # one entry a mention: the same words under two pictures are two captions
        shared: dict[tuple[Modality, Modality], dict[int, set[int]]] = {}
        owners: list[int] = []  # of each text: its picture or sound, numbered through
        owner_numbers: dict[Media, int] = {}
        for row in self._rows:
            found = self._media(row)
            given = [modality for modality, media in found.items() if media]
            if len(given) < 2:
                if given and not row.all("label", "query"):
                    self.problems.add(row.place, f"only {given[0]} is given, and nothing that belongs to it")
                continue
            places: dict[Modality, list[int]] = {}
            for modality in (Modality.IMAGE, Modality.AUDIO):
                known = entries[modality]
                places[modality] = [known.setdefault(media, len(known)) for media in found[modality]]
            owner = (found[Modality.IMAGE] or found[Modality.AUDIO])[0]
            places[Modality.TEXT] = list(range(len(texts), len(texts) + len(found[Modality.TEXT])))
            texts += found[Modality.TEXT]
            number = owner_numbers.setdefault(owner, len(owner_numbers))
            owners += [number] * len(found[Modality.TEXT])
            for one, other in itertools.permutations(MEDIA, 2):
                for place in places[one]:
                    shared.setdefault((one, other), {}).setdefault(place, set()).update(places[other])
        galleries = {modality: list(known) for modality, known in entries.items()} | {Modality.TEXT: texts}
        for one, other in _DIRECTIONS:
            answers = {row: found for row, found in sorted(shared.get((one, other), {}).items()) if found}
            if not answers:
                continue
            rows = np.array(list(answers), np.int64)
            yield Retrieval(
                name=f"{one}->{other}",
                queries=[((galleries[one][row], 1.0),) for row in rows],
                gallery=galleries[other],
                relevant=[np.array(sorted(found), np.int64) for found in answers.values()],
                clusters=np.array(owners, np.int64)[rows] if one is Modality.TEXT else rows,
                excluded=np.full(len(rows), -1),
            )
        yield from _caption_to_caption(texts, owners)

    def labelled(self, prompts: Sequence[str]) -> Iterator[Classes | Retrieval]:
        """Zero-shot classification of the media of each modality, and the labels as queries for them."""
        for modality in MEDIA:
            media, labels = [], []
            for row in self._rows:
                label = self._one(row, "label")
                found = self._media(row)[modality] if label else []
                media += found
                labels += [label] * len(found)
            classes = sorted({label for label in labels if label})
            if not media:
                continue
            if len(classes) < 2:
                reason = f"every {modality} has the same, {classes[0]!r}: there is nothing to tell apart"
                self.problems.add("column label", reason)
                continue
            number = {label: n for n, label in enumerate(classes)}
            truth = np.array([number[label] for label in labels if label], np.int64)
            queries = [
                tuple((Media(Modality.TEXT, prompt.replace("{}", label)), 1.0) for prompt in prompts)
                for label in classes
            ]
            yield Classes(f"zero-shot {modality}", media, classes, queries, truth)
            yield Retrieval(
                name=f"label->{modality}",
                queries=queries,
                gallery=media,
                relevant=[np.flatnonzero(truth == n) for n in range(len(classes))],
                clusters=np.arange(len(classes)),
                excluded=np.full(len(classes), -1),
            )

    def triples(self) -> Iterator[Choice]:
        """Query, positive, one or more negatives; a cell that is called like a picture or sound is its file."""
        queries, candidates = [], []
        for row in self._rows:
            query, positive = self._one(row, "query"), self._one(row, "positive")
            negatives = row.all("negative")
            if query is None or not (positive or negatives):
                continue
            if positive is None or not negatives:
                missing = "positive" if positive is None else "negative"
                self.problems.add(row.place, f"{missing} is empty")
                continue
            queries.append(self._guess(row, query))
            candidates.append([self._guess(row, content) for content in (positive, *negatives)])
        if queries:
            yield Choice("triples", queries, candidates)

    def composed(self) -> Iterator[Retrieval]:
        """Query and what is added to it or taken away, with the target among all targets."""
        queries: list[Terms] = []
        targets: list[Media] = []
        for row in self._rows:
            query, target = self._one(row, "query"), self._one(row, "target")
            if query is None or target is None:
                if target is not None:
                    self.problems.add(row.place, "target has no query")
                continue
            signs = [(text, 1.0) for text in row.all("add", "modification")]
            signs += [(text, -1.0) for text in row.all("subtract")]
            queries.append(
                (
                    (self._guess(row, query), 1.0),
                    *((Media(Modality.TEXT, text, row.place), sign) for text, sign in signs),
                )
            )
            targets.append(self._guess(row, target))
        if not queries:
            return
        gallery = list(dict.fromkeys([*targets, *(query[0][0] for query in queries)]))
        number = {media: n for n, media in enumerate(gallery)}
        yield Retrieval(
            name="query->target",
            queries=queries,
            gallery=gallery,
            relevant=[np.array([number[target]]) for target in targets],
            clusters=np.arange(len(queries)),
            excluded=np.array(
                [
                    number[query[0][0]] if query[0][0] != target else -1
                    for query, target in zip(queries, targets, strict=True)
                ]
            ),
        )

    def _one(self, row: Row, column: str) -> str | None:
        try:
            return row.one(column)
        except ValueError as error:
            self.problems.add(row.place, str(error))
            return None

    def _media(self, row: Row) -> dict[Modality, list[Media]]:
        return {
            modality: [
                Media(modality, cell, row.place)
                if modality is Modality.TEXT
                else self._file(row, modality, cell)
                for cell in row.all(*columns)
            ]
            for modality, columns in COLUMNS.items()
        }

    def _guess(self, row: Row, cell: str) -> Media:
        """A cell of a column that holds any modality."""
        modality = modality_of(cell)
        if modality is None or modality is Modality.TEXT:
            return Media(Modality.TEXT, cell, row.place)
        return self._file(row, modality, cell)

    def _file(self, row: Row, modality: Modality, cell: str) -> Media:
        path = self._root / cell
        if path not in self._missing:
            self._missing[path] = not path.is_file()
            if self._missing[path]:
                self.problems.add(row.place, f"{modality} {path}: no such file")
        return Media(modality, path, row.place)


_DIRECTIONS = (
    (Modality.TEXT, Modality.IMAGE),
    (Modality.IMAGE, Modality.TEXT),
    (Modality.TEXT, Modality.AUDIO),
    (Modality.AUDIO, Modality.TEXT),
    (Modality.AUDIO, Modality.IMAGE),
    (Modality.IMAGE, Modality.AUDIO),
)


def _caption_to_caption(texts: Sequence[Media], owners: Sequence[int]) -> Iterator[Retrieval]:
    """The first caption of each picture or sound that has several asks for its others, among all that do not ask."""
    of: dict[int, list[int]] = {}
    for row, owner in enumerate(owners):
        of.setdefault(owner, []).append(row)
    asking = [rows for rows in of.values() if len(rows) > 1]
    if not asking:
        return
    firsts = {rows[0] for rows in asking}
    kept = [row for row in range(len(texts)) if row not in firsts]
    place = {row: n for n, row in enumerate(kept)}
    yield Retrieval(
        name="caption->caption",
        queries=[((texts[rows[0]], 1.0),) for rows in asking],
        gallery=[texts[row] for row in kept],
        relevant=[np.array([place[row] for row in rows[1:]]) for rows in asking],
        clusters=np.arange(len(asking)),
        excluded=np.full(len(asking), -1),
    )
