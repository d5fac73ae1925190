"""One vector of an item as a whole, made of those of its pictures, its texts and its sounds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmsearch.types import MEDIA, Modality, NewPart, Part, Vector, Vectors

__all__ = ["fuse", "fused_scales"]

SPREAD = 0.9
"""Spread of fused vectors, as a share of the largest spread among the media they are made of: see ``fused_scales``."""


def fuse(
    parts: Sequence[NewPart | Part], vectors: Vectors, means: Mapping[Modality, Vector]
) -> Vector | None:
    """The fused vector (dim,) of parts with their vectors (n, dim); None if they cancel out. Fused parts do not count.

    Each modality has an equal share, and so have a text's title (a part without ``start``) and its passages. From each
    vector goes the mean of its modality, since the cone that all texts lie in says nothing of this one. What counts are
    the vectors as the catalog keeps them, in half precision: made again from there, the result is the same.

    Measured on 7,353 products with photo and title (`mini`; nDCG@10 / mAP; 600 held-out products as queries by title,
    by gender, colour and kind, and by photo): pictures alone .769/.406, .833/.558, .667/.255; texts alone .760/.402,
    .890/.781, .682/.347; the better of both .763/.404, .894/.788, .672/.262; fused .795/.473, .923/.855, .709/.335.
    Shares of 0.3 to 0.7 of the texts change these by less than 0.02.
    """
    stored = vectors.astype(np.float16).astype(np.float64)
    groups: dict[tuple[Modality, bool], list[NDArray[np.float64]]] = {}
    for part, vector in zip(parts, stored, strict=True):
        if part.modality in MEDIA:
            passage = part.modality is Modality.TEXT and part.start is not None
            mean = means.get(part.modality)
            groups.setdefault((part.modality, passage), []).append(vector if mean is None else vector - mean)
    pieces: dict[Hashable, list[NDArray[np.float64]]] = {}
    for (modality, _), rows in groups.items():
        pieces.setdefault(modality, []).append(_unit(np.mean(rows, axis=0)))
    whole = sum((_unit(np.mean(rows, axis=0)) for rows in pieces.values()), np.zeros(vectors.shape[1]))
    if np.linalg.norm(whole) < 1e-6:
        return None
    return np.ascontiguousarray(_unit(whole), np.float32)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 1e-6 else np.zeros_like(vector)


def fused_scales(
    means: Mapping[Modality, Vector], spreads: Mapping[Modality, Mapping[Modality, float]]
) -> tuple[dict[Modality, Vector], dict[Modality, dict[Modality, float]]]:
    """Means and spreads of an encoder, with those of fused vectors.

    Their mean is nothing: they are centred. Their spread is 0.9 of the largest one of their media: less, and they
    always win over a picture that is the very one asked for; more, and never over a picture that is merely similar.
    Measured as above: of photos cropped and turned 88 % find their product first (fused alone 79, pictures alone 94),
    at .701/.315 for what is similar (.709/.335 and .667/.255).
    """
    dim = len(next(iter(means.values())))
    rows = {asked: dict(row) | {Modality.FUSED: SPREAD * max(row.values())} for asked, row in spreads.items()}
    return dict(means) | {Modality.FUSED: np.zeros(dim, np.float32)}, rows
