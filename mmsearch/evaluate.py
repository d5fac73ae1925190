"""How good a model is on a manifest: each trial measured, with chance levels, intervals, and what went worst."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import Encoder
from mmsearch.encoding import Encoded, Progress
from mmsearch.errors import ModelError
from mmsearch.manifests import Choice, Classes, Manifest, Media, Retrieval, Rows, Terms, Trial
from mmsearch.measures import (
    RESAMPLES,
    Measure,
    chance_of_macro_f1,
    confidence,
    draws,
    macro_f1,
    ranks_of,
    retrieval_measures,
)
from mmsearch.tables import Problems
from mmsearch.types import Vectors

__all__ = ["Confusion", "Evaluation", "Figure", "Result", "Slow", "Wrong", "compare", "evaluate", "retrieve"]

KEPT = 10
"""So many of the slowest and of the worst queries are kept."""


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """A measure with its 95 % interval; ``chance`` is what guessing gives (nothing for a difference)."""

    value: float
    low: float
    high: float
    chance: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Slow:
    """A query and its milliseconds: decoding and encoding, and the exact search."""

    query: str
    encode_ms: float
    search_ms: float


@dataclasses.dataclass(frozen=True, slots=True)
class Wrong:
    """A query, the rank of its first right answer, that answer, and what came first instead."""

    query: str
    rank: int
    wanted: str
    found: str


@dataclasses.dataclass(frozen=True, slots=True)
class Confusion:
    """A class, the share of its ``count`` media that were recognised, and the class they were most often taken for."""

    label: str
    recall: float
    count: int
    taken_for: str
    times: int


@dataclasses.dataclass(frozen=True)
class Result:
    """One trial of one model. ``clusters`` (queries,) says which queries depend on each other."""

    name: str
    queries: int
    candidates: int
    measures: Mapping[str, Measure]
    clusters: Rows
    slowest: Sequence[Slow]
    worst: Sequence[Wrong]
    confusions: Sequence[Confusion] = ()

    def figures(self, *, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Figure]:
        """Each measure with its bootstrap interval; ``seed`` draws the queries."""
        drawn = draws(dict(self.measures), self.clusters, seed=seed, count=resamples)
        return {
            name: Figure(measure.value, *confidence(drawn[name]), measure.chance)
            for name, measure in self.measures.items()
        }

    def as_dict(self, *, seed: int = 0) -> dict[str, Any]:
        return {
            "name": self.name,
            "queries": self.queries,
            "candidates": self.candidates,
            "figures": {name: dataclasses.asdict(figure) for name, figure in self.figures(seed=seed).items()},
            "slowest": [dataclasses.asdict(slow) for slow in self.slowest],
            "worst": [dataclasses.asdict(wrong) for wrong in self.worst],
            "confusions": [dataclasses.asdict(confusion) for confusion in self.confusions],
        }


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """All results of one model, and notes about trials that it cannot take."""

    results: Sequence[Result]
    notes: Sequence[str]


def compare(one: Result, other: Result, *, seed: int = 0) -> dict[str, Figure]:
    """``other`` minus ``one`` on the same trial: each measure with the interval of the paired bootstrap."""
    drawn = [draws(dict(result.measures), result.clusters, seed=seed) for result in (one, other)]
    return {
        name: Figure(
            other.measures[name].value - measure.value, *confidence(drawn[1][name] - drawn[0][name]), None
        )
        for name, measure in one.measures.items()
    }


def evaluate(
    encoder: Encoder, manifest: Manifest, *, seed: int = 0, progress: Progress = lambda done, total: None
) -> Evaluation:
    """Put every trial of the manifest to the encoder that it has towers for. ``seed`` breaks ties of scores.

    Raises ``MediaError`` that names the manifest and each row whose file cannot be read, and ``ModelError`` if the
    encoder lacks a tower for every trial.
    """
    able, notes = [], []
    for trial in manifest.trials:
        if lacking := {media.modality for media in _media(trial)} - encoder.modalities:
            notes.append(
                f"{trial.name} is left out: the model has no {' and no '.join(sorted(lacking))} tower"
            )
        else:
            able.append(trial)
    if not able:
        raise ModelError(f"{manifest.path}: {notes[0]}. Use a model that has it")
    problems = Problems(manifest.path)
    encoded = Encoded(encoder, (media for trial in able for media in _media(trial)), problems, progress)
    problems.raise_any()
    return Evaluation([_put(trial, encoded, seed) for trial in able], notes)


def _media(trial: Trial) -> Iterator[Media]:
    """Everything that a trial needs encoded."""
    if isinstance(trial, Choice):
        yield from trial.queries
        yield from (media for candidates in trial.candidates for media in candidates)
        return
    yield from (media for terms in trial.queries for media, _ in terms)
    yield from trial.gallery if isinstance(trial, Retrieval) else trial.media


def _put(trial: Trial, encoded: Encoded, seed: int) -> Result:
    if isinstance(trial, Retrieval):
        return _retrieval(trial, encoded, seed)
    return _classes(trial, encoded, seed) if isinstance(trial, Classes) else _choice(trial, encoded, seed)


@dataclasses.dataclass(frozen=True)
class Found:
    """What a search gave: for each query the ascending ranks of its right answers, the row that came first, and the
    seconds (n,) of the search.
    """

    ranks: Sequence[Rows]
    first: Rows
    seconds: NDArray[np.float64]

    @property
    def first_ranks(self) -> Rows:
        return np.array([ranks[0] for ranks in self.ranks], np.int64)


def retrieve(
    queries: Vectors,
    gallery: Vectors,
    relevant: Sequence[Rows],
    *,
    excluded: Rows | None = None,
    seed: int = 0,
) -> Found:
    """Exact search of each query (n, dim) in the gallery (m, dim); equal scores come in a random order, so that a model
    that tells nothing apart is at the chance level. ``excluded`` (n,): a row that does not count, or -1.
    """
    shuffle = np.random.default_rng(seed).permutation(len(gallery))
    place = np.argsort(shuffle)
    shuffled = np.ascontiguousarray(gallery[shuffle])
    ranks, first, seconds = [], [], []
    for n, query in enumerate(queries):
        started = time.perf_counter()
        scores = shuffled @ query
        if excluded is not None and excluded[n] >= 0:
            scores[place[excluded[n]]] = -np.inf
        order = np.argsort(-scores, kind="stable")
        seconds.append(time.perf_counter() - started)
        ranks.append(ranks_of(order, place[relevant[n]]))
        first.append(shuffle[order[0]])
    return Found(ranks, np.array(first, np.int64), np.array(seconds))


def _retrieval(trial: Retrieval, encoded: Encoded, seed: int) -> Result:
    queries = np.stack([encoded.query(terms) for terms in trial.queries])
    found = retrieve(
        queries, encoded.gallery(trial.gallery), trial.relevant, excluded=trial.excluded, seed=seed
    )
    candidates = len(trial.gallery) - int((trial.excluded >= 0).all())
    wanted = [str(trial.gallery[rows[0]]) for rows in trial.relevant]
    return Result(
        trial.name,
        len(queries),
        candidates,
        retrieval_measures(found.ranks, candidates),
        trial.clusters,
        _slowest(trial.queries, encoded, found.seconds),
        _worst(trial.queries, found.first_ranks, wanted, [str(trial.gallery[row]) for row in found.first]),
    )


def _classes(trial: Classes, encoded: Encoded, seed: int) -> Result:
    readings = np.stack([encoded.query(terms) for terms in trial.queries])
    queries: list[Terms] = [((media, 1.0),) for media in trial.media]
    found = retrieve(
        encoded.gallery(trial.media), readings, [np.array([row]) for row in trial.truth], seed=seed
    )
    count = len(trial.classes)
    both = np.stack([trial.truth, found.first], axis=1).astype(np.float64)
    right = (trial.truth == found.first).astype(np.float64)
    return Result(
        trial.name,
        len(trial.media),
        count,
        {
            "accuracy": Measure(right, 1 / count),
            "f1_macro": Measure(both, chance_of_macro_f1(trial.truth, count), macro_f1),
        },
        np.arange(len(trial.media)),
        _slowest(queries, encoded, found.seconds),
        _worst(
            queries,
            found.first_ranks,
            [trial.classes[n] for n in trial.truth],
            [trial.classes[n] for n in found.first],
        ),
        _confusions(trial.classes, trial.truth, found.first),
    )


def _choice(trial: Choice, encoded: Encoded, seed: int) -> Result:
    queries: list[Terms] = [((media, 1.0),) for media in trial.queries]
    ranks, first, seconds = [], [], []
    for n, (terms, candidates) in enumerate(zip(queries, trial.candidates, strict=True)):
        found = retrieve(
            encoded.query(terms)[None], encoded.gallery(candidates), [np.array([0])], seed=seed + n
        )
        ranks.append(int(found.ranks[0][0]))
        first.append(str(candidates[found.first[0]]))
        seconds.append(float(found.seconds[0]))
    chance = float(np.mean([1 / len(candidates) for candidates in trial.candidates]))
    return Result(
        trial.name,
        len(queries),
        max(map(len, trial.candidates)),
        {"accuracy": Measure((np.array(ranks) == 1).astype(np.float64), chance)},
        np.arange(len(queries)),
        _slowest(queries, encoded, np.array(seconds)),
        _worst(queries, np.array(ranks), [str(candidates[0]) for candidates in trial.candidates], first),
    )


def _slowest(queries: Sequence[Terms], encoded: Encoded, search: NDArray[np.float64]) -> list[Slow]:
    encoding = np.array([encoded.seconds(terms) for terms in queries])
    order = np.argsort(-(encoding + search), kind="stable")[:KEPT]
    return [
        Slow(_said(queries[n]), round(1000 * float(encoding[n]), 3), round(1000 * float(search[n]), 3))
        for n in order
    ]


def _worst(queries: Sequence[Terms], ranks: Rows, wanted: Sequence[str], found: Sequence[str]) -> list[Wrong]:
    order = np.argsort(-ranks, kind="stable")[:KEPT]
    return [Wrong(_said(queries[n]), int(ranks[n]), wanted[n], found[n]) for n in order if ranks[n] > 1]


def _confusions(classes: Sequence[str], truth: Rows, guess: Rows) -> list[Confusion]:
    """The classes that are recognised least, those that are always recognised left out."""
    table = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(table, (truth, guess), 1)
    counts, hits = table.sum(1), np.diag(table).copy()
    np.fill_diagonal(table, 0)
    recalls = hits / np.maximum(counts, 1)
    order = [n for n in np.argsort(recalls, kind="stable") if recalls[n] < 1]
    return [
        Confusion(
            classes[n],
            float(recalls[n]),
            int(counts[n]),
            classes[int(table[n].argmax())],
            int(table[n].max()),
        )
        for n in order[:KEPT]
    ]


def _said(terms: Terms) -> str:
    """A query in words, in the way of the command line."""
    return " ".join(
        f"{'-' if weight < 0 else '+' if n else ''}{media}" for n, (media, weight) in enumerate(terms)
    )
