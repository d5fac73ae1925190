"""Matrices brought up to date against matrices read anew; estimates against exact products."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmsearch import Engine, Modality, Query, Term, matrix
from mmsearch.columns import Columns
from mmsearch.matrix import read_matrix
from tests.oracle import directions
from tests.shop import Product
from tests.toy import ToyEncoder

DIM = 160


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine.open(tmp_path, model=ToyEncoder(dim=DIM)) as opened:
        yield opened


def products(count: int, seed: int, start: int = 0) -> list[Product]:
    """Vectors of which the first few directions hold most, as real ones do."""
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(count, DIM)) * np.exp(-np.arange(DIM) / 20)
    units = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return [Product(f"k{start + n}", [unit]) for n, unit in enumerate(units)]


@pytest.mark.parametrize("exact", [5, 10**6])
@pytest.mark.parametrize("whole", [8, 10**6])
def test_a_matrix_brought_up_to_date_gives_the_exact_scores(
    engine: Engine, exact: int, whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "EXACT", exact)
    monkeypatch.setattr(matrix, "WHOLE", max(whole, exact) if exact > 5 else whole)
    query = directions(1, DIM, 5)[0]
    shop: dict[str, Product] = {}
    columns = Columns(engine.catalog, 1)
    found = read_matrix(engine.catalog, columns.parts[Modality.IMAGE].ids, DIM)
    states = []
    for step in range(6):
        some = products(3, step, 2 * step)  # some anew, some in the place of others
        shop |= {product.key: product for product in some}
        engine.add([product.new() for product in some])
        columns = columns.advance()
        parts = columns.parts[Modality.IMAGE]
        found = found.extended(engine.catalog, parts.ids)
        places = np.flatnonzero(parts.live)
        scores = found.exact_scores(engine.catalog, parts.ids, places, query)
        owners = columns.item_ids[parts.rows[places]].tolist()
        right = {engine.find(key).id: p.cosine(query) for key, p in shop.items()}  # type: ignore[union-attr]
        assert dict(zip(owners, scores.tolist(), strict=True)) == pytest.approx(right, abs=2e-6)
        if found.exact:
            assert found.scores(query)[places] == pytest.approx(scores)
        states.append((found, found.scanned.copy()))
    assert found.exact == (exact > 5)
    for state, scanned in states:
        assert np.array_equal(state.scanned, scanned), "a state never changes"


def test_the_best_of_a_large_collection_are_scored_exactly(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix, "EXACT", 100)
    shop = products(1500, 1)
    engine.add([product.new() for product in shop])
    rough = read_matrix(engine.catalog, Columns(engine.catalog, 1).parts[Modality.IMAGE].ids, DIM)
    assert not rough.exact
    for seed in range(5):
        query = products(1, 100 + seed)[0].vectors[0]
        estimates = rough.scores(query)
        right = np.array([product.cosine(query) for product in shop])
        assert np.abs(estimates - right).max() < 0.1
        hits = engine.results(Query(terms=[Term(vector=query)], k=100)).hits
        order = np.argsort(-right)[:100]
        assert [hit.item.key for hit in hits] == [f"k{n}" for n in order]
        assert [hit.score for hit in hits] == pytest.approx(right[order].tolist(), abs=2e-6)
