"""A linear map from one space to another, learnt from vectors of the same things in both."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import Vectors

__all__ = ["LEAST", "MOST", "LinearMap", "Quality", "learn"]

LEAST = 200
"""From fewer pairs nothing is learnt."""

MOST = 20_000
"""So many pairs are looked at. More do not make the map better, only slower."""

HELD_OUT = 0.2
NEIGHBOURS = 10
_STRENGTHS = 10.0 ** np.arange(
    -6, 2
)  # of the ridge, in units of the mean squared length of the centred vectors


@dataclasses.dataclass(frozen=True, slots=True)
class Quality:
    """How good a map is on ``held_out`` pairs that it did not learn from (it learnt from ``learnt``): the mean cosine
    of mapped and true vectors, and the share of the 10 nearest neighbours of the true vector, among the learnt ones,
    that are also those of the mapped one.
    """

    learnt: int
    held_out: int
    cosine: float
    overlap: float


@dataclasses.dataclass(frozen=True, slots=True)
class LinearMap:
    """``matrix`` (from, to), and the means of either side: (from,), (to,)."""

    matrix: NDArray[np.float64]
    here: NDArray[np.float64]
    there: NDArray[np.float64]

    def __call__(self, vectors: Vectors) -> Vectors:
        """(n, from) -> (n, to), rows L2-normalised."""
        mapped = (vectors.astype(np.float64) - self.here) @ self.matrix + self.there
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        return np.ascontiguousarray(mapped / np.maximum(lengths, 1e-12), np.float32)


def learn(here: Vectors, there: Vectors) -> tuple[LinearMap, Quality]:
    """A map learnt from vectors of n things, (n, from) and (n, to), and how good it is on those held out.

    Ridge regression on centred vectors (Hoerl and Kennard 1970); its strength is chosen by generalised cross-validation
    (Golub, Heath and Wahba 1979) among the pairs that it learns from.
    """
    order = np.random.default_rng(0).permutation(len(here))
    apart = max(1, round(HELD_OUT * len(here)))
    held, kept = order[:apart], order[apart:]
    fitted = fit(here[kept], there[kept])
    mapped, true = fitted(here[held]), there[held]
    cosine = float((mapped * true).sum(axis=1).mean())
    k = min(NEIGHBOURS, len(kept))
    near = [np.argsort(-(rows @ there[kept].T), axis=1, kind="stable")[:, :k] for rows in (mapped, true)]
    shared = [len(np.intersect1d(ours, theirs)) / k for ours, theirs in zip(*near, strict=True)]
    return fitted, Quality(len(kept), len(held), cosine, float(np.mean(shared)))


def fit(here: Vectors, there: Vectors) -> LinearMap:
    """The ridge regression of ``there`` (n, to) on ``here`` (n, from) by generalised cross-validation."""
    mean_here, mean_there = (rows.mean(axis=0, dtype=np.float64) for rows in (here, there))
    x, y = here - mean_here, there - mean_there
    energies, directions = np.linalg.eigh(x.T @ x)
    energies = np.maximum(energies, 0.0)
    projected = directions.T @ (x.T @ y)
    count, total, unit = len(x), float((y**2).sum()), float(energies.sum()) / len(x)
    alike = (projected**2).sum(axis=1)  # what each direction explains, times its energy
    errors = []
    for strength in _STRENGTHS * unit:
        shrunk = energies + strength
        rest = total - 2 * (alike / shrunk).sum() + (alike * energies / shrunk**2).sum()
        freedom = 1.0 - float((energies / shrunk).sum()) / count
        errors.append(rest / max(freedom, 1e-9) ** 2)
    chosen = _STRENGTHS[int(np.argmin(errors))] * unit
    return LinearMap(directions @ (projected / (energies + chosen)[:, None]), mean_here, mean_there)
