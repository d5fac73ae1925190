"""Orders that are sorted no further than needed, against sorting everything; diversity against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.ranked import Ranked, marginal_relevance
from mmsearch.ranking import boosted, convex, standard, trust
from tests.oracle import directions

VALUES = st.sampled_from([0.0, 1.0, 2.0, float("inf")])
TABLES = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(VALUES, min_size=n, max_size=n), min_size=1, max_size=3),
        st.lists(st.booleans(), min_size=n, max_size=n),
        st.none() | st.lists(st.integers(0, 6), min_size=n, max_size=n),
        st.lists(st.integers(0, n - 1), max_size=3, unique=True),
    )
)


def naive(
    keys: list[list[float]], chosen: list[bool], groups: list[int] | None, head: list[int]
) -> list[int]:
    rows = sorted((row for row, there in enumerate(chosen) if there), key=lambda row: [k[row] for k in keys])
    order: list[int] = []
    for row in [*head, *rows]:
        same = [other for other in order if groups and groups[other] == groups[row]]
        if row not in order and not same:
            order.append(row)
    return order


@given(TABLES, st.integers(0, 70))
def test_the_first_rows_are_those_of_the_whole_order(
    table: tuple[list[list[float]], list[bool], list[int] | None, list[int]], m: int
) -> None:
    keys, chosen, groups, head = table
    head = [row for row in head if chosen[row]]
    if groups:
        head = list({groups[row]: row for row in head}.values())
    ranked = Ranked(
        [np.array(key) for key in keys],
        np.array(chosen),
        None if groups is None else np.array(groups),
        head,
    )
    order = naive(keys, chosen, groups, head)
    found = ranked.first(m).tolist()
    assert found == order[: len(found)]
    assert len(found) >= min(m, len(order))
    assert ranked.total == len(order)
    for row in order:
        alike = [
            r for r in range(len(chosen)) if chosen[r] and (r == row or (groups and groups[r] == groups[row]))
        ]
        assert ranked.size(row) == len(alike)
        rest = sorted((r for r in alike if r != row), key=lambda r: [key[r] for key in keys])
        assert ranked.members(row, 9).tolist() == ([row, *rest][:9] if groups else [row])
    for place, row in enumerate(order[len(head) :], start=len(head) + 1):
        assert ranked.place_after([key[row] for key in keys], row) == place


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.integers(0, 5),
)
def test_marginal_relevance_chooses_by_its_definition(
    relevance: list[float], diversity: float, seed: int
) -> None:
    vectors = directions(len(relevance), 4, seed)
    order, values = marginal_relevance(np.array(relevance), 3 * vectors, diversity)
    low, high = min(relevance), max(relevance)
    scaled = [(r - low) / (high - low) if high > low else 1.0 for r in relevance]
    units = vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)

    def value(candidate: int, before: list[int]) -> float:
        nearest = max((float(units[candidate] @ units[other]) for other in before), default=0.0)
        return (1 - diversity) * scaled[candidate] - diversity * nearest

    assert sorted(order) == list(range(len(relevance)))
    for place, (row, said) in enumerate(zip(order, values, strict=True)):
        left = [other for other in range(len(relevance)) if other not in order[:place]]
        best = max(value(other, order[:place]) for other in left)
        assert abs(value(row, order[:place]) - best) < 1e-6
        assert abs(said - best) < 1e-6


def test_a_lift_never_lowers_a_score() -> None:
    scores = np.array([-2.0, -0.5, 0.0, 0.5])
    assert boosted(scores, np.full(4, 2.0)).tolist() == [-1.0, -0.25, 0.0, 1.0]
    assert boosted(scores, np.full(4, 0.5)).tolist() == [-4.0, -1.0, 0.0, 0.25]


def test_fused_scores_are_the_weighted_sum_of_both() -> None:
    vector, text = np.array([0.1, 0.3, 0.2, 0.9]), np.array([0.0, 0.25, 0.5, 1.2])
    chosen, silent = np.array([True, True, True, False]), np.array([True, False, False, False])
    near = standard(vector, chosen)
    assert np.allclose(near, np.array([-1, 1, 0, 7]) / np.sqrt(2 / 3))
    assert not standard(np.ones(4), chosen).any(), "all alike"
    assert not standard(vector, ~chosen & chosen).any(), "none chosen"
    fused = convex(near, text, 0.25, silent)
    assert np.allclose(fused, [near[0] / 3, *(0.75 * near[1:] / 3 + 0.25 * text[1:])])


def test_a_word_is_trusted_as_far_as_its_items_stand_out() -> None:
    assert trust(np.full(1000, 2.0)) == 1.0
    assert trust(np.full(1000, 0.5)) == pytest.approx(502 / 1002)
    assert trust(np.full(1000, -1.0)) == 0.1
    assert trust(np.array([0.0])) == pytest.approx(2 / 3), "one item says little"
    assert trust(np.zeros(0)) == 1.0, "none says nothing"
