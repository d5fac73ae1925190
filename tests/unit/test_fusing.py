"""Fused vectors against numpy: shares of the media, means, half precision, and what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsearch import Engine, Modality, NewItem, NewPart, Query, Term
from mmsearch.errors import ItemError
from mmsearch.fusing import fuse, fused_scales
from mmsearch.types import Vector
from tests.oracle import TOLERANCE, directions, unit
from tests.toy import ToyEncoder

IMAGE, TEXT, AUDIO, FUSED = Modality
DIM = 8
MEANS: dict[Modality, Vector] = {IMAGE: 0.3 * directions(1, DIM, 7)[0], TEXT: 0.4 * directions(1, DIM, 8)[0]}


def part(modality: Modality, passage: bool = False) -> NewPart:
    return NewPart(modality=modality, start=0.0 if passage else None)


def expected(parts: list[NewPart], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Plain numpy: what is seen, what is said (title and passages alike), what is heard; each of length 1."""
    rows = vectors.astype(np.float16).astype(np.float64)

    def mean(modality: Modality, passage: bool) -> NDArray[np.float64] | None:
        mine = [
            row - MEANS.get(modality, np.zeros(DIM))
            for one, row in zip(parts, rows, strict=True)
            if one.modality is modality and (one.start is not None) == passage
        ]
        return None if not mine else np.mean(mine, axis=0) / np.linalg.norm(np.mean(mine, axis=0))

    whole = []
    for modality in (IMAGE, TEXT, AUDIO):
        groups = [found for passage in (False, True) if (found := mean(modality, passage)) is not None]
        if groups:
            whole.append(sum(groups) / np.linalg.norm(sum(groups)))
    return np.asarray(sum(whole) / np.linalg.norm(sum(whole)))


@given(
    st.lists(
        st.sampled_from([part(IMAGE), part(TEXT), part(TEXT, passage=True), part(AUDIO), part(FUSED)]),
        min_size=1,
        max_size=8,
    ).filter(lambda parts: any(one.modality is not FUSED for one in parts)),
    st.integers(0, 1000),
)
def test_each_modality_has_an_equal_share(parts: list[NewPart], seed: int) -> None:
    vectors = directions(len(parts), DIM, seed)
    media = [n for n, one in enumerate(parts) if one.modality is not FUSED]
    found = fuse(parts, vectors, MEANS)
    assert found is not None
    # A passage has its own group; pictures and sounds have no passages.
    wanted = expected([parts[n] for n in media], vectors[media])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_what_cancels_out_has_no_fused_vector() -> None:
    x = directions(1, DIM)[0].astype(np.float16).astype(np.float32)
    assert fuse([part(AUDIO), part(AUDIO)], np.stack([x, -x]), {}) is None


def test_scales_of_fused_vectors_are_those_of_their_widest_media() -> None:
    spreads = {IMAGE: {IMAGE: 0.4, TEXT: 0.3}, TEXT: {IMAGE: 0.2, TEXT: 0.5}}
    means, rows = fused_scales(MEANS, spreads)
    assert rows == {
        IMAGE: {IMAGE: 0.4, TEXT: 0.3, FUSED: pytest.approx(0.36)},
        TEXT: {IMAGE: 0.2, TEXT: 0.5, FUSED: pytest.approx(0.45)},
    }
    assert not means[FUSED].any()
    assert spreads[IMAGE] == {IMAGE: 0.4, TEXT: 0.3}, "those of the encoder stay"


# -- in a collection ---------------------------------------------------------------------------------------------------


class Centred(ToyEncoder):
    """The toy encoder with means and spreads."""

    def __init__(self) -> None:
        super().__init__(dim=DIM)
        self.means = dict(MEANS)
        self.spreads = {IMAGE: {IMAGE: 0.4, TEXT: 0.3}, TEXT: {IMAGE: 0.2, TEXT: 0.5}}


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return Engine.open(tmp_path, model=Centred())


def product(key: str, vectors: NDArray[np.float32], *modalities: Modality) -> NewItem:
    parts = [NewPart(modality=m, vector=row) for m, row in zip(modalities, vectors, strict=True)]
    return NewItem(key=key, modality=FUSED, parts=[NewPart(modality=FUSED), *parts])


def test_a_search_over_products_ranks_by_the_fused_vectors(engine: Engine) -> None:
    rows = {f"p{n}": directions(3, DIM, n) for n in range(40)}
    engine.add([product(key, vectors, IMAGE, IMAGE, TEXT) for key, vectors in rows.items()])
    parts = [part(IMAGE), part(IMAGE), part(TEXT)]
    query = directions(1, DIM, 99)[0]
    scores = {
        key: float(expected(parts, vectors).astype(np.float16).astype(np.float64) @ query)
        for key, vectors in rows.items()
    }
    hits = engine.search(Query(terms=[Term(vector=query)], k=40))
    assert [hit.item.key for hit in hits] == sorted(scores, key=lambda key: -scores[key])
    assert all(
        abs(hit.score - scores[hit.item.key]) < 1e-3 for hit in hits
    )  # half precision of a recomputed vector
    assert {hit.part.modality for hit in hits} == {FUSED}
    for hit in hits[:5]:
        (item,) = engine.get([hit.item.id])
        assert abs(hit.score - float(engine.vectors(item)[0].astype(np.float64) @ query)) <= TOLERANCE


def test_a_picture_may_be_that_of_the_very_product(engine: Engine) -> None:
    rows = {f"p{n}": directions(2, DIM, n) for n in range(30)}
    engine.add([product(key, vectors, IMAGE, TEXT) for key, vectors in rows.items()])
    encoder = engine.encoder
    import PIL.Image

    picture = PIL.Image.new("RGB", (8, 8), (200, 40, 90))
    query = encoder.encode_images([picture])[0].astype(np.float64)
    factor, offset = 0.4 / 0.36, float(query @ MEANS[IMAGE])
    wanted = {}
    for key, vectors in rows.items():
        fused = expected([part(IMAGE), part(TEXT)], vectors).astype(np.float16).astype(np.float64)
        seen = vectors[0].astype(np.float16).astype(np.float64)
        wanted[key] = max(float(seen @ query), factor * float(fused @ query) + offset)
    hits = engine.search(Query(terms=[Term(image=picture)], k=30))
    assert [hit.score for hit in hits] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-3)
    assert {hit.part.modality for hit in hits} == {FUSED, IMAGE}


def test_files_and_products_share_one_list(engine: Engine) -> None:
    photo = NewItem(
        key="/photo", modality=IMAGE, parts=[NewPart(modality=IMAGE, vector=directions(1, DIM, 5)[0])]
    )
    engine.add([product(f"p{n}", directions(2, DIM, n), IMAGE, TEXT) for n in range(5)])
    assert len(engine.search(Query(terms=[Term(text="red")], k=9))) == 5
    (added,) = engine.add([photo])
    assert len(engine.search(Query(terms=[Term(text="red")], k=9))) == 6
    engine.remove([added])
    assert len(engine.search(Query(terms=[Term(text="red")], k=9))) == 5


def test_more_like_a_product_means_its_fused_vector(engine: Engine) -> None:
    ids = engine.add([product(f"p{n}", directions(2, DIM, n), IMAGE, TEXT) for n in range(20)])
    fused = [engine.vectors(item)[0].astype(np.float64) for item in engine.get(ids)]
    hits = engine.search(Query(terms=[Term(item=ids[3])], k=19))
    scores = sorted(
        (float(fused[3] / np.linalg.norm(fused[3]) @ row) for n, row in enumerate(fused) if n != 3),
        reverse=True,
    )
    assert [hit.score for hit in hits] == pytest.approx(scores, abs=1e-5)


def test_an_item_of_nothing_but_a_fused_part_is_refused(engine: Engine) -> None:
    with pytest.raises(ItemError, match="made of others"):
        engine.add([NewItem(key="p", modality=FUSED, parts=[NewPart(modality=FUSED)])])
    ready = unit(directions(1, DIM)[0])
    engine.add(
        [NewItem(key="p", modality=FUSED, parts=[NewPart(modality=FUSED, vector=ready)])]
    )  # from an export


def test_a_product_with_words_is_found_by_them(engine: Engine) -> None:
    vectors = directions(4, DIM, 3)
    items = [
        NewItem(
            key=f"p{n}",
            modality=FUSED,
            parts=[NewPart(modality=FUSED), NewPart(modality=TEXT, vector=vectors[n], text=words)],
        )
        for n, words in enumerate(["red lantern", "blue pebble", "green kite", "white drum"])
    ]
    engine.add(items)
    hits = engine.search(Query(terms=[Term(text="pebble")], hybrid=True))
    assert hits[0].item.key == "p1" or "p1" in {hit.item.key for hit in hits[:2]}
    assert next(hit for hit in hits if hit.item.key == "p1").part.text == "blue pebble"
