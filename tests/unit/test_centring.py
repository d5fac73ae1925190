"""Means and spreads of modalities, against pairs counted one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsearch.encoders import load_encoder
from mmsearch.encoders.onnx import verify
from mmsearch.training.centring import means_of, spreads_of, write_scales
from mmsearch.training.mixed import scorers, shares
from mmsearch.types import Modality
from tests.colour_model import save_colour_model
from tests.oracle import directions, unit


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


def test_scales_written_to_a_model_folder_are_those_of_its_encoder(tmp_path: Path) -> None:
    folder = save_colour_model(tmp_path / "model")
    vectors = {modality: directions(30, 4, seed=n) for n, modality in enumerate(Modality)}
    means = means_of(vectors)
    spreads = spreads_of(vectors, means)
    write_scales(folder, means, spreads)
    encoder = load_encoder(folder)
    assert encoder.spreads == spreads
    assert encoder.levels
    for modality, mean in means.items():
        np.testing.assert_array_equal(encoder.means[modality], mean)
    assert verify(folder) == []
    (folder / "means.npz").write_bytes(b"other")
    assert any("sha256" in problem for problem in verify(folder))


def test_shares_of_a_mixed_list_are_counted_before_and_after() -> None:
    """Texts lie near to every text: by plain cosines no photo is listed, centred most right ones are."""
    things = directions(40, 16)
    apart = np.eye(2, 16, dtype=np.float32)
    items = {
        modality: np.stack([unit(0.5 * thing + cone) for thing in things])
        for modality, cone in zip((Modality.IMAGE, Modality.TEXT), apart, strict=True)
    }
    captions = items[Modality.TEXT]
    means = means_of(items)
    ways = scorers(items, {}, means, spreads_of(items, means))
    itself = [np.array([row]) for row in range(40)]
    queries = {"caption": (Modality.TEXT, captions, {Modality.IMAGE: itself, Modality.TEXT: itself})}
    sizes = dict.fromkeys(items, 40)
    plain, fair = (shares(queries, sizes, ways[name])["caption"] for name in ("plain", "centred"))
    assert plain["share"] == {"image": 0.0, "text": 100.0}
    assert plain["found"] == {"image": 0.0, "text": 100.0}
    assert fair["alone"] == plain["alone"]
    assert fair["found"]["text"] == 100
    assert fair["found"]["image"] > 70
    assert fair["share"]["image"] > 20
