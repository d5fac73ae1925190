"""Means and spreads of modalities, against pairs counted one by one."""

from __future__ import annotations

import numpy as np

from mmsearch.training.centring import means_of, spreads_of
from mmsearch.types import Modality
from tests.oracle import directions


def test_one_of_a_hundred_unrelated_pairs_is_beyond_the_spread() -> None:
    vectors = {Modality.IMAGE: directions(50, 8, seed=1), Modality.TEXT: directions(40, 8, seed=2) + 0.5}
    means = means_of(vectors)
    spreads = spreads_of(vectors, means)
    for asked, queries in vectors.items():
        np.testing.assert_allclose(means[asked], queries.mean(axis=0), rtol=1e-6)
        for found, rows in vectors.items():
            beyond = [
                float(query @ row - query @ means[found]) > spreads[asked][found]
                for n, query in enumerate(queries)
                for m, row in enumerate(rows)
                if n != m
            ]
            assert 0.008 < np.mean(beyond) <= 0.0105
