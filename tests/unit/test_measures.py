"""Measures against scikit-learn and scipy, and chance levels against shuffled lists."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, ndcg_score, top_k_accuracy_score

from mmsearch.measures import (
    Measure,
    chance_of_macro_f1,
    confidence,
    draws,
    macro_f1,
    ranks_of,
    resamples,
    retrieval_measures,
)


def scored(
    seed: int, queries: int, candidates: int, several: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[NDArray[np.int64]]]:
    """Distinct scores, which candidates are right, and the ranks of the right ones."""
    generator = np.random.default_rng(seed)
    scores = generator.permutation(queries * candidates).reshape(queries, candidates).astype(float)
    right = np.zeros((queries, candidates), bool)
    for row in right:
        count = int(generator.integers(1, candidates)) if several else 1
        row[generator.choice(candidates, count, replace=False)] = True
    ranks = [ranks_of(np.argsort(-row), np.flatnonzero(own)) for row, own in zip(scores, right, strict=True)]
    return scores, right, ranks


@given(
    seed=st.integers(0, 999),
    queries=st.integers(2, 20),
    candidates=st.integers(3, 40),
    several=st.booleans(),
)
def test_map_and_ndcg_are_those_of_scikit_learn(
    seed: int, queries: int, candidates: int, several: bool
) -> None:
    scores, right, ranks = scored(seed, queries, candidates, several)
    measures = retrieval_measures(ranks, candidates)
    expected = [average_precision_score(own, row) for own, row in zip(right, scores, strict=True)]
    np.testing.assert_allclose(measures["map"].samples, expected)
    np.testing.assert_allclose(measures["ndcg@10"].value, ndcg_score(right, scores, k=10))


@given(seed=st.integers(0, 999), candidates=st.integers(11, 40))
def test_recall_of_one_right_answer_is_the_top_k_accuracy_of_scikit_learn(seed: int, candidates: int) -> None:
    scores, right, ranks = scored(seed, 12, candidates, several=False)
    measures = retrieval_measures(ranks, candidates)
    for k in (1, 5, 10):
        expected = top_k_accuracy_score(right.argmax(1), scores, k=k, labels=np.arange(candidates))
        assert measures[f"recall@{k}"].value == pytest.approx(expected)


def test_precision_and_median_rank_of_a_list_counted_by_hand() -> None:
    measures = retrieval_measures([np.array([1, 4, 10, 11]), np.array([7]), np.array([30])], 50)
    assert measures["precision@10"].samples.tolist() == [0.3, 0.1, 0.0]
    assert measures["median_rank"].value == 7
    assert measures["recall@5"].value == pytest.approx(1 / 3)


def test_a_list_too_short_to_miss_has_no_recall() -> None:
    assert set(retrieval_measures([np.array([2])], 5)) == {"recall@1", "median_rank", "map", "ndcg@10"}


@pytest.mark.parametrize(("candidates", "count"), [(30, 1), (30, 4), (8, 7), (200, 12)])
def test_chance_is_what_shuffled_lists_give(candidates: int, count: int) -> None:
    generator = np.random.default_rng(1)
    ranks = [np.sort(generator.choice(candidates, count, replace=False)) + 1 for _ in range(20_000)]
    for name, measure in retrieval_measures(ranks, candidates).items():
        if name == "median_rank":
            assert abs(measure.value - measure.chance) <= max(1, 0.03 * candidates)
        else:
            assert measure.value == pytest.approx(measure.chance, abs=0.01), name


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60).map(np.array))
def test_macro_f1_is_that_of_scikit_learn(pairs: NDArray[np.int64]) -> None:
    expected = f1_score(pairs[:, 0], pairs[:, 1], average="macro")
    assert macro_f1(pairs.astype(float)) == pytest.approx(expected)


def test_chance_of_macro_f1_is_what_guessing_gives() -> None:
    generator = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], [9000, 3000, 600])
    guessed = np.stack([truth, generator.integers(0, 3, len(truth))], axis=1).astype(float)
    assert chance_of_macro_f1(truth, 3) == pytest.approx(macro_f1(guessed), abs=0.01)


def test_intervals_are_those_of_scipys_bootstrap() -> None:
    samples = np.random.default_rng(3).random(300) ** 3
    measures = {"mean": Measure(samples, 0), "median": Measure(samples, 0, lambda x: float(np.median(x)))}
    drawn = draws(measures, np.arange(300), seed=5, count=4000)
    for name, statistic in (("mean", np.mean), ("median", np.median)):
        theirs = scipy.stats.bootstrap(
            (samples,), statistic, n_resamples=4000, method="percentile", rng=np.random.default_rng(9)
        ).confidence_interval
        width = theirs.high - theirs.low
        np.testing.assert_allclose(confidence(drawn[name]), (theirs.low, theirs.high), atol=0.1 * width)


def test_captions_of_one_picture_are_drawn_together_and_widen_the_interval() -> None:
    clusters = np.repeat(np.arange(40), 5)
    for rows in resamples(clusters, 0, 20):
        times = np.bincount(rows, minlength=200).reshape(40, 5)
        assert (times == times[:, :1]).all()
    same = {"recall": Measure(np.repeat(np.random.default_rng(0).random(40).round(), 5), 0)}
    alone = confidence(draws(same, np.arange(200))["recall"])
    together = confidence(draws(same, clusters)["recall"])
    assert together[1] - together[0] > 1.8 * (alone[1] - alone[0])


def test_two_models_are_compared_on_the_same_draws() -> None:
    samples = np.random.default_rng(2).random(100)
    one = draws({"a": Measure(samples, 0)}, np.arange(100), seed=4)["a"]
    other = draws({"a": Measure(samples + 0.25, 0)}, np.arange(100), seed=4)["a"]
    np.testing.assert_allclose(other - one, 0.25)
