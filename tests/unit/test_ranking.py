"""Ranking against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.errors import QueryError
from mmsearch.ranking import best_parts, centred, compose, reciprocal_rank_fusion
from mmsearch.types import MEDIA, Modality
from tests.oracle import directions

X, Y = np.eye(2, dtype=np.float32)
X8, Y8 = np.eye(2, 8, dtype=np.float32)


def test_one_term_is_itself() -> None:
    np.testing.assert_allclose(compose([X], [3.0]), X)


def test_terms_add_up_by_weight_to_unit_length() -> None:
    found = compose([X, Y], [3.0, 4.0])
    np.testing.assert_allclose(found, [0.6, 0.8], rtol=1e-6)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous


def test_a_negative_weight_steers_away() -> None:
    np.testing.assert_allclose(compose([X, Y], [1.0, -1.0]), [math.sqrt(0.5), -math.sqrt(0.5)], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e30])
def test_only_the_proportion_of_weights_counts(scale: float) -> None:
    np.testing.assert_allclose(compose([X, Y], [3 * scale, 4 * scale]), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("vectors", "weights", "says"),
    [
        ([], [], "empty"),
        ([X, X], [1.0, -1.0], "cancel"),
        ([X, Y, X], [1.0, 0.0, -1.0], "cancel"),
        ([X], [0.0], "not all zero"),
        ([X, Y], [1.0, math.nan], "finite"),
        ([X], [math.inf], "finite"),
    ],
)
def test_what_cannot_be_composed(vectors: list[np.ndarray], weights: list[float], says: str) -> None:
    with pytest.raises(QueryError, match=says):
        compose(vectors, weights)


def test_nearly_cancelling_terms_count_as_cancelling() -> None:
    with pytest.raises(QueryError, match="cancel"):
        compose([X, (X + np.float32(1e-8) * Y)], [1.0, -1.0])


def test_an_item_is_ranked_by_its_best_part() -> None:
    owners = np.array([7, 7, 8, 9, 8])
    scores = np.array([0.1, 0.9, 0.5, 0.5, 0.95], np.float32)
    ids = np.array([1, 2, 3, 4, 5])
    assert best_parts(owners, scores, ids).tolist() == [4, 1, 3]


def test_of_equal_scores_the_lower_part_id_wins() -> None:
    owners = np.array([1, 2, 1, 2])
    ids = np.array([40, 30, 10, 20])
    assert best_parts(owners, np.full(4, 0.5, np.float32), ids).tolist() == [2, 3]


def test_the_best_part_of_nothing_is_nothing() -> None:
    none = np.zeros(0, np.int64)
    assert best_parts(none, np.zeros(0, np.float32), none).tolist() == []


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(-3, 3)), max_size=40),
    st.randoms(use_true_random=False),
)
def test_best_parts_is_a_sort_of_maxima(rows: list[tuple[int, int]], random: object) -> None:
    owners = np.array([owner for owner, _ in rows], np.int64)
    scores = np.array([score for _, score in rows], np.float32)
    ids = np.random.default_rng(len(rows)).permutation(len(rows)) + 1
    expected: dict[int, tuple[float, int]] = {}
    for owner, score, part in zip(owners.tolist(), scores.tolist(), ids.tolist(), strict=True):
        expected[owner] = min(expected.get(owner, (math.inf, 0)), (-score, part))
    order = best_parts(owners, scores, ids)
    assert [(owners[p], ids[p]) for p in order] == [
        (owner, part) for owner, (_, part) in sorted(expected.items(), key=lambda pair: pair[1])
    ]


def test_fusion_sums_reciprocal_ranks() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "d"]])
    assert list(fused) == ["c", "a", "b", "d"]
    assert fused["c"] == pytest.approx(1 / 63 + 1 / 61)
    assert fused["a"] == pytest.approx(1 / 61)
    assert fused["d"] == pytest.approx(1 / 62)


def test_fusion_keeps_the_order_of_equals() -> None:
    assert list(reciprocal_rank_fusion([["a"], ["b"], ["c"]])) == ["a", "b", "c"]
    assert reciprocal_rank_fusion([]) == {}


def test_fusion_with_a_constant_of_its_own() -> None:
    assert reciprocal_rank_fusion([["a"]], constant=0.0) == {"a": 1.0}


def test_composition_equals_a_float64_sum() -> None:
    vectors = directions(5, 64)
    weights = [2.0, -1.0, 0.5, 3.0, -0.25]
    total = sum(w * v.astype(np.float64) for w, v in zip(weights, vectors, strict=True))
    np.testing.assert_allclose(compose(list(vectors), weights), total / np.linalg.norm(total), atol=1e-7)


def test_centred_scores_of_a_modality_are_how_many_spreads_it_is_beyond_its_mean() -> None:
    query, *items = directions(6, 8)
    means = {Modality.TEXT: 0.4 * X8, Modality.IMAGE: 0.2 * Y8, Modality.AUDIO: -0.3 * X8}
    spreads = {asked: dict(zip(MEDIA, (0.3, 0.2, 0.1), strict=True)) for asked in MEDIA}
    scales = centred(query, {Modality.TEXT: 1.0}, means, spreads)
    for item in items:
        beyond = {
            modality: float((item - means[modality]) @ query) / spreads[Modality.TEXT][modality]
            for modality in MEDIA
        }
        at_mean = float(query @ means[Modality.IMAGE])
        for modality, (factor, offset) in scales.items():
            score = factor * float(item @ query) + offset
            assert score == pytest.approx(at_mean + 0.3 * beyond[modality], abs=1e-6)
    assert scales[Modality.IMAGE] == pytest.approx((1.0, 0.0))


def test_a_mixed_query_has_the_spreads_of_its_terms_by_weight() -> None:
    means = {Modality.IMAGE: 0 * X8, Modality.TEXT: 0 * X8}
    spreads = {
        Modality.IMAGE: {Modality.IMAGE: 0.4, Modality.TEXT: 0.1},
        Modality.TEXT: {Modality.IMAGE: 0.2, Modality.TEXT: 0.6},
    }
    mixed = centred(X8, {Modality.IMAGE: 3.0, Modality.TEXT: 1.0}, means, spreads)
    assert mixed[Modality.TEXT] == pytest.approx(((3 * 0.4 + 0.2) / (3 * 0.1 + 0.6), 0.0))
    unknown = centred(X8, {}, means, spreads)
    assert unknown[Modality.TEXT] == pytest.approx((0.6 / 0.7, 0.0))


def test_without_pictures_the_first_modality_keeps_its_scores() -> None:
    means = {Modality.TEXT: 0.1 * X8, Modality.AUDIO: 0.2 * Y8}
    spreads = {asked: {Modality.TEXT: 0.2, Modality.AUDIO: 0.4} for asked in means}
    scales = centred(X8, {Modality.AUDIO: 1.0}, means, spreads)
    assert scales == {Modality.TEXT: pytest.approx((1.0, 0.0)), Modality.AUDIO: pytest.approx((0.5, 0.1))}
