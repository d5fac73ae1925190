"""The vector index against inner products by numpy: every kind, every selection, what comes and goes, its file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsearch.types import Ids, Modality
from mmsearch.vectors import Float16, Stamp, VectorIndex, load, save
from tests.oracle import directions

DIM = 24
NONE = np.zeros(0, np.int64)
NOTHING = NONE, np.zeros((0, DIM), np.float16)
STAMP = Stamp("a" * 32, "toy", 7, 123456789)
Found = tuple[Ids, NDArray[np.float32]]


def half(count: int, seed: int = 0) -> Float16:
    return directions(count, DIM, seed).astype(np.float16)


def numbered(count: int, first: int = 1) -> Ids:
    return np.arange(first, first + count, dtype=np.int64)


def best(ids: Ids, stored: Float16, query: NDArray[np.float32], k: int) -> tuple[Ids, NDArray[np.float64]]:
    scores = stored.astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def assert_exact(found: Found, expected: tuple[Ids, NDArray[np.float64]]) -> None:
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_allclose(found[1], expected[1], atol=2e-6)


@pytest.fixture(params=["exact", "ivf8"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def built(kind: str, ids: Ids, stored: Float16) -> VectorIndex:
    index = VectorIndex.build(ids, stored, exact_limit=len(ids) if kind == "exact" else 0)
    assert index.kind == kind
    return index


# -- exact ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 5, 99, 100, 101, 10**12])
def test_an_exact_index_finds_the_k_best_with_the_catalogs_scores(k: int) -> None:
    ids, stored = numbered(100, 5), half(100)
    query = directions(1, DIM, 9)[0]
    assert_exact(built("exact", ids, stored).search(query, k), best(ids, stored, query, k))


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    removals=st.lists(st.integers(0, 100), max_size=12),
    allowed=st.none() | st.lists(st.integers(1, 140), max_size=40),
    k=st.integers(1, 30),
)
@settings(max_examples=60)
def test_a_tail_of_segments_is_one_exact_index(
    sizes: list[int], removals: list[int], allowed: list[int] | None, k: int
) -> None:
    index = VectorIndex(DIM)
    ids, stored, gone = NONE, np.zeros((0, DIM), np.float16), set[int]()
    for step, size in enumerate(sizes):
        first = int(ids[-1]) + 2 if len(ids) else 1  # ids have gaps
        fresh, more = numbered(size, first), half(size, step) if size else NOTHING[1]
        leave = removals[step::8]
        before = index.ids().tolist()
        following = index.updated(fresh, more, np.array(leave, np.int64))
        assert index.ids().tolist() == before, "an index that somebody may be searching never changes"
        index = following
        ids, stored = np.concatenate([ids, fresh]), np.concatenate([stored, more])
        gone |= {one for one in leave if one in ids}
        keep = ~np.isin(ids, list(gone))
        assert index.ids().tolist() == ids[keep].tolist()
        assert len(index) == keep.sum()
        assert index.highest == (ids[-1] if len(ids) else 0)
    if allowed is not None:
        keep &= np.isin(ids, allowed)
    query = directions(1, DIM, 99)[0]
    picked = None if allowed is None else np.unique(np.array(allowed, np.int64))
    assert_exact(index.search(query, k, picked), best(ids[keep], stored[keep], query, k))


def test_segments_stay_few() -> None:
    index = VectorIndex(DIM)
    stored = half(300)
    for n in range(300):
        index = index.updated(numbered(1, n + 1), stored[n : n + 1], NONE)
    assert len(index._tail) <= 9  # log2
    query = directions(1, DIM, 9)[0]
    assert_exact(index.search(query, 10), best(numbered(300), stored, query, 10))


# -- every kind ----------------------------------------------------------------------------------------------------


def clusters(count: int, seed: int = 3) -> Float16:
    """Vectors that lie in groups, as real embeddings do."""
    rng = np.random.default_rng(seed)
    centres = directions(20, DIM, seed)[rng.integers(0, 20, count)]
    near = centres + 0.15 * rng.normal(size=(count, DIM))
    found: Float16 = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float16)
    return found


def test_selected_ids_and_no_others(kind: str) -> None:
    ids, stored = numbered(600, 3), clusters(600)
    index = built(kind, ids, stored)
    query = stored[17].astype(np.float32)
    for allowed in (ids[::2], ids[:1], ids[-1:], ids, np.array([3, 400, 602]), ids[ids % 100 == 3]):
        found, scores = index.search(query, len(ids), allowed)
        assert sorted(found.tolist()) == sorted(allowed.tolist())
        assert (np.diff(scores) <= 0).all()
        expected = dict(zip(*best(ids, stored, query, len(ids)), strict=True))
        slack = 2e-6 if kind == "exact" else 0.02  # 8 bits a dimension
        assert max(abs(expected[i] - s) for i, s in zip(found.tolist(), scores.tolist(), strict=True)) < slack


def test_nothing_allowed_finds_nothing(kind: str) -> None:
    index = built(kind, numbered(50), half(50))
    found, scores = index.search(half(1)[0].astype(np.float32), 5, NONE)
    assert (found.shape, scores.shape) == ((0,), (0,))


def test_allowed_ids_that_the_index_does_not_know_are_ignored(kind: str) -> None:
    ids = numbered(50) * 2
    index = built(kind, ids, half(50))
    query = half(1)[0].astype(np.float32)
    for allowed in ([1, 3, 5], [101, 10**6, 2**62], [2, 3, 10**9]):
        found, _ = index.search(query, 50, np.array(allowed, np.int64))
        assert set(found.tolist()) == set(allowed) & set(ids.tolist())


def test_a_removed_id_is_not_found_even_when_allowed(kind: str) -> None:
    ids, stored = numbered(50), half(50)
    index = built(kind, ids, stored).updated(*NOTHING, np.array([1, 7, 50, 4000]))
    query = stored[6].astype(np.float32)
    for allowed in (None, ids, np.array([7]), np.array([7, 8])):
        found, _ = index.search(query, 50, allowed)
        assert not {1, 7, 50} & set(found.tolist())
    assert len(index) == 47
    assert index.highest == 50, "a removed id still counts: what comes after it is newer"


def test_when_all_are_removed_nothing_is_found(kind: str) -> None:
    index = built(kind, numbered(20), half(20)).updated(*NOTHING, numbered(20))
    assert len(index) == 0
    assert index.ids().tolist() == []
    assert index.search(half(1)[0].astype(np.float32), 5)[0].tolist() == []


def test_more_than_there_is(kind: str) -> None:
    ids, stored = numbered(700), half(700)
    index = built(kind, ids, stored).updated(*NOTHING, np.array([3]))
    found, _ = index.search(half(1, 5)[0].astype(np.float32), 10**9)
    assert sorted(found.tolist()) == [i for i in ids.tolist() if i != 3]


@pytest.mark.parametrize("k", [10, 300, 500])
def test_fewer_than_k_come_back_only_if_there_are_no_more(kind: str, k: int) -> None:
    ids = numbered(1000)
    index = built(kind, ids, half(1000))
    query = directions(1, DIM, 77)[0]
    assert len(index.search(query, k)[0]) == k
    assert len(index.search(query, k, ids[::2])[0]) == k
    assert len(index.search(query, k, ids[:20])[0]) == min(k, 20)


def test_what_comes_later_is_found_exactly(kind: str) -> None:
    ids, stored = numbered(300), clusters(300)
    fresh, more = numbered(40, 500), half(40, 8)
    index = built(kind, ids, stored).updated(fresh, more, NONE)
    assert index.kind == kind
    for n in (0, 39):
        found, scores = index.search(more[n].astype(np.float32), 1)
        assert found.tolist() == [500 + n]
        assert scores[0] == pytest.approx(float((more[n].astype(np.float64) ** 2).sum()), abs=2e-6)


def test_the_tail_counts_what_came_and_went() -> None:
    index = built("ivf8", numbered(100), half(100))
    assert index.tail == 0
    index = index.updated(numbered(10, 200), half(10), np.array([1, 2, 205]))
    assert index.tail == 13


def test_one_vector_and_equal_vectors(kind: str) -> None:
    one = half(1)
    assert built(kind, numbered(1, 42), one).search(one[0].astype(np.float32), 3)[0].tolist() == [42]
    many = built(kind, numbered(90), np.repeat(one, 90, axis=0))
    found, scores = many.search(one[0].astype(np.float32), 90)
    assert sorted(found.tolist()) == numbered(90).tolist()
    assert np.ptp(scores) < 1e-6


def test_an_empty_index_finds_nothing() -> None:
    for index in (VectorIndex(DIM), VectorIndex.build(*NOTHING)):
        assert len(index) == 0
        assert index.highest == 0
        assert index.ids().tolist() == []
        assert index.search(half(1)[0].astype(np.float32), 3)[0].tolist() == []
        assert index.search(half(1)[0].astype(np.float32), 3, numbered(3))[0].tolist() == []


def test_a_compressed_index_proposes_the_best() -> None:
    """The engine scores 256 candidates exactly: the ten best must be among them."""
    ids, stored = numbered(6000), clusters(6000)
    index = built("ivf8", ids, stored)
    queries = directions(30, DIM, 5) + 2 * clusters(30, seed=3).astype(np.float32)
    for share in (1.0, 0.3, 0.02):
        allowed = (
            None if share == 1.0 else np.sort(np.random.default_rng(1).choice(ids, int(share * 6000), False))
        )
        keep = slice(None) if allowed is None else allowed - 1
        hits = 0
        for query in queries:
            query /= np.linalg.norm(query)
            proposed, _ = index.search(query, 256, allowed)
            hits += len(np.intersect1d(proposed, best(ids[keep], stored[keep], query, 10)[0]))
        assert hits / 300 >= 0.95


def test_a_compressed_index_is_the_same_each_time() -> None:
    ids, stored = numbered(500), clusters(500)
    query = stored[3].astype(np.float32)
    first, again = (built("ivf8", ids, stored).search(query, 20) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])


def test_wide_vectors_are_projected_and_still_ranked() -> None:
    stored = directions(800, 256, 2).astype(np.float16)
    index = VectorIndex.build(numbered(800), stored, exact_limit=0)
    for n in (0, 400, 799):
        assert index.search(stored[n].astype(np.float32), 1)[0].tolist() == [n + 1]


# -- the file ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored_indexes() -> dict[Modality, VectorIndex]:
    return {
        Modality.IMAGE: VectorIndex.build(numbered(300), clusters(300), exact_limit=0),
        Modality.TEXT: VectorIndex.build(numbered(200, 301), half(200), exact_limit=0),
        Modality.AUDIO: VectorIndex.build(numbered(20, 601), half(20)),
    }


def test_the_compressed_bases_come_back_as_they_were(
    tmp_path: Path, stored_indexes: dict[Modality, VectorIndex]
) -> None:
    path = tmp_path / "index" / "1.mmx"
    save(path, STAMP, stored_indexes)
    assert os.listdir(path.parent) == ["1.mmx"]
    stamp, indexes = load(path)
    assert stamp == STAMP
    assert indexes.keys() == {Modality.IMAGE, Modality.TEXT}, "the small one is read from the catalog"
    query = clusters(300)[5].astype(np.float32)
    for modality, index in indexes.items():
        assert index.kind == "ivf8"
        assert (len(index), index.highest) == (
            len(stored_indexes[modality]),
            stored_indexes[modality].highest,
        )
        np.testing.assert_array_equal(index.ids(), stored_indexes[modality].ids())
        for mine, theirs in zip(
            index.search(query, 20), stored_indexes[modality].search(query, 20), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "1.mmx")


@dataclasses.dataclass(frozen=True)
class Whole:
    """The bytes of a sound file; hypothesis would print them."""

    content: bytes = dataclasses.field(repr=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, stored_indexes: dict[Modality, VectorIndex]) -> Whole:
    path = tmp_path_factory.mktemp("index") / "1.mmx"
    save(path, STAMP, stored_indexes)
    return Whole(path.read_bytes())


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "1.mmx"


@given(share=st.floats(0, 0.999), in_header=st.booleans(), cut=st.booleans(), bit=st.integers(0, 7))
@settings(max_examples=60)
def test_a_damaged_file_is_an_error(
    whole: Whole, damaged: Path, share: float, in_header: bool, cut: bool, bit: int
) -> None:
    # Half of the damage goes to the header, which is small and says how the rest is read.
    content = whole.content
    place = int(share * (600 if in_header else len(content)))
    flipped = bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]
    damaged.write_bytes(content[:place] + (b"" if cut else flipped))
    with pytest.raises(ValueError, match=r".+"):
        load(damaged)


@pytest.mark.parametrize("content", [b"", b"mmsearch index 1\n", b"SQLite format 3\0" * 100, b"\0" * 5000])
def test_something_else_is_no_index_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "1.mmx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        load(path)


def test_a_failed_save_leaves_the_old_file_and_no_rest(
    tmp_path: Path, stored_indexes: dict[Modality, VectorIndex], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1.mmx"
    save(path, STAMP, stored_indexes)
    before = path.read_bytes()

    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(f"os.{step}", fails)
            with pytest.raises(OSError, match="No space left"):
                save(path, dataclasses.replace(STAMP, revision=8), stored_indexes)
        assert os.listdir(tmp_path) == ["1.mmx"]
        assert path.read_bytes() == before
