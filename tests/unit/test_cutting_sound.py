"""Cutting recordings: whatever is loud is in a part, and no part is longer than it may be."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.cutting import SILENCE, cut_sound

LEVELS = st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.5, 1.0]), max_size=80)


def cut(levels: list[float], longest: int, hop: int) -> list[tuple[int, int]]:
    return cut_sound(np.array(levels, np.float32), longest, hop)


@given(LEVELS, st.integers(1, 30), st.integers(1, 40))
def test_every_sound_is_in_a_part_and_every_part_begins_and_ends_with_one(
    levels: list[float], longest: int, hop: int
) -> None:
    loud = {n for n, level in enumerate(levels) if level > 0 and level > SILENCE * max(levels)}
    parts = cut(levels, longest, hop)
    assert loud <= {frame for start, end in parts for frame in range(start, end)}
    for start, end in parts:
        assert 0 <= start < end <= len(levels)
        assert end - start <= longest
        assert {start, end - 1} <= loud


@given(LEVELS, st.integers(1, 30), st.integers(1, 40))
def test_parts_follow_each_other_by_a_hop_or_more(levels: list[float], longest: int, hop: int) -> None:
    parts = cut(levels, longest, hop)
    for (start, end), (following, last) in pairwise(parts):
        assert following - start >= min(hop, longest)
        assert last > end


@given(LEVELS, st.integers(1, 30), st.integers(1, 40), st.floats(0.01, 100))
def test_loudness_as_such_changes_nothing(levels: list[float], longest: int, hop: int, volume: float) -> None:
    assert cut(levels, longest, hop) == cut([volume * level for level in levels], longest, hop)


@pytest.mark.parametrize(
    ("levels", "parts"),
    [
        ([], []),
        ([0, 0, 0], []),
        ([1, 1, 1], [(0, 3)]),
        ([0, 1, 0, 1, 0], [(1, 4)]),
        ([1] * 12, [(0, 6), (3, 9), (6, 12)]),
        ([1] * 10, [(0, 6), (3, 9), (6, 10)]),
        ([1] * 9 + [0] * 9 + [1], [(0, 6), (3, 9), (18, 19)]),
        ([1, 1] + [0] * 20 + [1], [(0, 2), (22, 23)]),
        ([1, 0.004], [(0, 1)]),  # 48 dB under the peak
        ([1, 0.007], [(0, 2)]),  # 43 dB
    ],
)
def test_parts_of_six_frames_every_three(levels: list[float], parts: list[tuple[int, int]]) -> None:
    assert cut(levels, 6, 3) == parts
