"""Linear maps between spaces, against scikit-learn and against maps that are known."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.linear_model

from indexer.mapping import HELD_OUT, LEAST, LinearMap, fit, learn
from mmsearch.types import Vectors
from tests.oracle import directions


def linked(
    count: int, here: int, there: int, noise: float = 0.0, seed: int = 0
) -> tuple[Vectors, Vectors, LinearMap]:
    """Unit vectors, what an affine map makes of them (at length 1, with noise), and that map."""
    drawn = np.random.default_rng(seed)
    vectors = directions(count, here, seed)
    turn = drawn.normal(size=(here, there)) / np.sqrt(here)
    true = LinearMap(turn, np.zeros(here), 0.05 * drawn.normal(size=there))
    mapped = true(vectors) + noise / np.sqrt(there) * drawn.normal(size=(count, there))
    return vectors, (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).astype(np.float32), true


@pytest.mark.parametrize(("count", "here", "there"), [(400, 12, 20), (300, 40, 8), (250, 260, 16)])
def test_the_fit_is_the_ridge_regression_of_scikit_learn(count: int, here: int, there: int) -> None:
    x, y, _ = linked(count, here, there, noise=0.4)
    ours = fit(x, y)
    x64, y64 = x.astype(np.float64), y.astype(np.float64)
    unit = ((x64 - x64.mean(axis=0)) ** 2).sum() / count
    # RidgeCV without cv chooses by leave-one-out, of which generalised cross-validation is the rotation-invariant form:
    # the strengths may differ, the regression at a given one may not.
    errors = []
    for strength in 10.0 ** np.arange(-6, 2) * unit:
        theirs = sklearn.linear_model.Ridge(strength, solver="cholesky").fit(x64, y64)
        centred = x64 - x64.mean(axis=0)
        hat = centred @ np.linalg.solve(centred.T @ centred + strength * np.eye(here), centred.T)
        rest = ((theirs.predict(x64) - y64) ** 2).sum()
        errors.append((rest / max(1 - np.trace(hat) / count, 1e-9) ** 2, theirs))
    best = min(errors, key=lambda pair: pair[0])[1]
    np.testing.assert_allclose(ours.matrix, best.coef_.T, atol=1e-6)
    expected = best.predict(x64[:50])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(ours(x[:50]), expected, atol=1e-5)


def test_a_clean_linear_map_is_found_and_called_good() -> None:
    x, y, true = linked(600, 16, 24)
    found, quality = learn(x, y)
    fresh = directions(50, 16, seed=9)
    assert (found(fresh) * true(fresh)).sum(axis=1).min() > 0.98
    assert quality.cosine > 0.99
    assert quality.overlap > 0.85
    assert (quality.learnt, quality.held_out) == (480, 120)
    np.testing.assert_allclose(np.linalg.norm(found(fresh), axis=1), 1, atol=1e-6)


def test_spaces_that_have_nothing_to_do_with_each_other_are_called_bad() -> None:
    _, quality = learn(directions(500, 16, seed=1), directions(500, 24, seed=2))
    assert abs(quality.cosine) < 0.2
    assert quality.overlap < 0.1


def test_the_quality_is_measured_on_pairs_that_were_held_out() -> None:
    """With as many directions as pairs a map can learn noise by heart: only other pairs tell."""
    x, y = directions(LEAST, 300, seed=3), directions(LEAST, 300, seed=4)
    _, quality = learn(x, y)
    assert quality.held_out == round(HELD_OUT * LEAST)
    assert quality.cosine < 0.2


def test_overlap_is_the_share_of_common_neighbours() -> None:
    x, y, _ = linked(300, 8, 8, noise=0.8)
    found, quality = learn(x, y)
    order = np.random.default_rng(0).permutation(300)
    held, kept = order[:60], order[60:]
    shares, cosines = [], []
    for one in held:
        mapped = found(x[one][None])[0]
        cosines.append(float(mapped @ y[one]))
        near = {
            name: {int(n) for n in np.argsort([-float(v @ y[n]) for n in kept])[:10]}
            for name, v in (("mapped", mapped), ("true", y[one]))
        }
        shares.append(len(near["mapped"] & near["true"]) / 10)
    assert quality.overlap == pytest.approx(float(np.mean(shares)), abs=0.01)
    assert quality.cosine == pytest.approx(float(np.mean(cosines)), abs=1e-5)
    assert 0.2 < quality.overlap < 0.95
