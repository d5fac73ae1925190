"""Measures of retrieval and classification with their chance levels, and the bootstrap, on plain arrays.

Everything about a retrieval follows from the ranks of its right answers. Measures are shares from 0 to 1, but for the
median rank.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

__all__ = ["Measure", "confidence", "draws", "macro_f1", "ranks_of", "retrieval_measures"]

Floats = NDArray[np.float64]
Ranks = NDArray[np.int64]

KS = (1, 5, 10)
RESAMPLES = 1000
CONFIDENCE = 0.95


def _mean(samples: Floats) -> float:
    return float(samples.mean())


def _median(samples: Floats) -> float:
    return float(np.median(samples))


@dataclasses.dataclass(frozen=True)
class Measure:
    """One figure: ``reduce`` of ``samples`` (n, ...), one for each query. ``chance`` is what guessing gives."""

    samples: Floats
    chance: float
    reduce: Callable[[Floats], float] = _mean

    @property
    def value(self) -> float:
        return self.reduce(self.samples)


def ranks_of(order: Ranks, relevant: Ranks) -> Ranks:
    """Ranks (r,), from 1 and ascending, of the rows ``relevant`` in ``order`` (m,), rows with the best first."""
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(1, len(order) + 1)
    return np.sort(places[relevant])


def retrieval_measures(ranks: Sequence[Ranks], candidates: int) -> dict[str, Measure]:
    """All measures of a retrieval from the ranks of the right answers of each query among ``candidates`` rows.

    ``recall@k`` is the share of queries with a right answer among the k best, ``median_rank`` that of the first right
    answer; ``map`` the mean average precision over the whole list, ``ndcg@10`` with relevance 0 or 1 (Järvelin and
    Kekäläinen 2002). ``precision@10``, the share of right answers among the 10 best, is there if a query has several.
    """
    firsts = np.array([found[0] for found in ranks], np.float64)
    counts, of_query = np.unique([len(found) for found in ranks], return_inverse=True)

    def over_queries(chance: Callable[[int], float]) -> float:
        """The mean chance level; queries with as many right answers share theirs."""
        return float(np.array([chance(int(count)) for count in counts])[of_query].mean())

    def found_by(rank: int) -> float:
        return over_queries(partial(_chance_of_recall, candidates, rank))

    measures = {
        f"recall@{k}": Measure((firsts <= k).astype(np.float64), found_by(k)) for k in KS if k < candidates
    }
    measures["median_rank"] = Measure(firsts, _bisect(found_by, candidates), _median)
    measures["map"] = Measure(
        np.array([_average_precision(found) for found in ranks]),
        over_queries(partial(_chance_of_average_precision, candidates)),
    )
    measures["ndcg@10"] = Measure(
        np.array(
            [_gain(found[found <= 10]) / _gain(np.arange(1, min(len(found), 10) + 1)) for found in ranks]
        ),
        over_queries(partial(_chance_of_ndcg, candidates)),
    )
    if counts[-1] > 1:
        measures["precision@10"] = Measure(
            np.array([(found <= 10).sum() / 10 for found in ranks]),
            over_queries(lambda count: count / candidates * min(10, candidates) / 10),
        )
    return measures


def _average_precision(ranks: Ranks) -> float:
    return float((np.arange(1, len(ranks) + 1) / ranks).mean())


def _gain(ranks: Ranks) -> float:
    return float((1 / np.log2(ranks + 1)).sum())


def _chance_of_recall(candidates: int, k: int, count: int) -> float:
    """That one of ``count`` right answers is among the ``k`` first of a shuffled list (hypergeometric)."""
    first = np.arange(min(k, candidates))
    return float(1 - np.clip((candidates - count - first) / (candidates - first), 0, 1).prod())


def _chance_of_average_precision(candidates: int, count: int) -> float:
    """Bestgen 2015, "Exact expected average precision of the random baseline for system evaluation"."""
    if candidates == 1:
        return 1.0
    harmonic = float((1 / np.arange(1, candidates + 1)).sum())
    return ((count - 1) / (candidates - 1) * (candidates - harmonic) + harmonic) / candidates


def _chance_of_ndcg(candidates: int, count: int) -> float:
    gain = _gain(np.arange(1, min(10, candidates) + 1)) * count / candidates
    return gain / _gain(np.arange(1, min(10, count) + 1))


def _bisect(found_by: Callable[[int], float], candidates: int) -> float:
    """The rank by which half of the queries are answered by chance."""
    low, high = 1, candidates
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found_by(middle) >= 0.5 else (middle + 1, high)
    return float(low)


def macro_f1(samples: Floats) -> float:
    """The mean over classes of F1, from (n, 2) class numbers: true and guessed. Only classes that occur count."""
    truth, guess = samples.astype(np.int64).T
    classes = int(samples.max()) + 1
    hits = np.bincount(truth[truth == guess], minlength=classes)
    occurrences = np.bincount(truth, minlength=classes) + np.bincount(guess, minlength=classes)
    there = occurrences > 0
    return float((2 * hits[there] / occurrences[there]).mean())


def chance_of_macro_f1(truth: Ranks, classes: int) -> float:
    """Macro F1 of guessing every class as often: 2 p q / (p + q), p the share of a class, q = 1 / classes."""
    shares = np.bincount(truth, minlength=classes) / len(truth)
    return float((2 * shares / classes / (shares + 1 / classes)).mean())


def resamples(clusters: Ranks, seed: int, count: int) -> Iterator[Ranks]:
    """``count`` times rows (about n) drawn with replacement, whole clusters at a time.

    The captions of one picture succeed and fail together: drawn one by one they would make intervals too narrow.
    """
    groups, group = np.unique(clusters, return_inverse=True)
    generator = np.random.default_rng(seed)
    rows = np.arange(len(clusters))
    for _ in range(count):
        times = np.bincount(generator.integers(0, len(groups), len(groups)), minlength=len(groups))
        yield np.repeat(rows, times[group])


def draws(
    measures: dict[str, Measure], clusters: Ranks, *, seed: int = 0, count: int = RESAMPLES
) -> dict[str, Floats]:
    """The bootstrap distribution (count,) of each measure.

    Equal ``clusters`` and ``seed`` draw the same queries: the difference of two models' draws is the paired bootstrap.
    """
    found = [
        [measure.reduce(measure.samples[rows]) for measure in measures.values()]
        for rows in resamples(clusters, seed, count)
    ]
    return dict(zip(measures, np.array(found, np.float64).T, strict=True))


def confidence(distribution: Floats) -> tuple[float, float]:
    """The percentile interval that holds ``CONFIDENCE`` of the distribution (Efron 1979)."""
    low, high = np.quantile(distribution, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
