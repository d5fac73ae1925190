"""What brings the scores of several modalities to one scale: their means, and how far unrelated items spread.

`mmsearch.ranking.centred` says what they are for. Both go into a model folder as ``scores.means`` (an archive) and
``scores.spreads`` of its model.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmsearch.types import Modality, Vector, Vectors

PERCENTILE = 99.0
"""Of unrelated items this share scores below the spread. Measured with mini on Flickr8k's development photos, where a
text query looks for a photo and for another caption of it in one list of both: .72 of the photos and .91 of the
captions come within the first ten (each alone: .85 and .96). With the standard deviation instead it is .69 and .92,
with means and no spread .39 and .95, with plain cosines .19 and .96.
"""


def means_of(vectors: Mapping[Modality, Vectors]) -> dict[Modality, Vector]:
    """The mean (dim,) of the vectors (n, dim) of each modality."""
    return {modality: np.asarray(rows.mean(axis=0), np.float32) for modality, rows in vectors.items()}


def spreads_of(
    vectors: Mapping[Modality, Vectors], means: Mapping[Modality, Vector]
) -> dict[Modality, dict[Modality, float]]:
    """Query's modality -> items' modality -> by how much the cosine of 1 of 100 unrelated items exceeds the one with
    their mean.

    Rows of the same number are taken to belong together (a photo and its caption) and are left out; all others are
    unrelated. A few hundred rows of each modality that were not trained on are enough.
    """
    return {
        asked: {
            found: float(np.percentile(_unrelated(queries @ (rows - means[found]).T), PERCENTILE))
            for found, rows in vectors.items()
        }
        for asked, queries in vectors.items()
    }


def write_scales(
    folder: Path, means: Mapping[Modality, Vector], spreads: Mapping[Modality, Mapping[Modality, float]]
) -> None:
    """Store both in a finished model folder; whatever else its model.json says stays."""
    np.savez_compressed(
        folder / "means.npz", allow_pickle=False, **{str(name): mean for name, mean in means.items()}
    )
    path = folder / "model.json"
    fields = json.loads(path.read_text("utf-8"))
    fields.setdefault("scores", {}).update(means="means.npz", spreads=spreads)
    data = (folder / "means.npz").read_bytes()
    fields["files"]["means.npz"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    path.write_text(json.dumps(fields, indent=1) + "\n", "utf-8")


def _unrelated(scores: Vectors) -> Vector:
    """All of a matrix (n, m) but its diagonal."""
    kept = np.ones(scores.shape, bool)
    np.fill_diagonal(kept, False)
    return scores[kept]
