"""Vectors on GPUs against inner products by numpy: each kind and layout, what comes and goes, what fits where.

Each case runs on GPUs that the CPU plays (``tests/gpus.py``), and on real ones where there are some.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import ThreadPoolExecutor

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mmsearch import gpu
from mmsearch.errors import ConfigError
from mmsearch.gpu import GpuCopy, Plan, plan, use_gpu, wish
from mmsearch.types import Ids
from mmsearch.vectors import VectorIndex
from tests.gpus import Machine, install, machine
from tests.oracle import directions

__all__ = ["machine"]

DIM = 32
COUNT = 9000  # two pieces of which each has more than a search asks it for
NONE = np.zeros(0, np.int64)
NOTHING = NONE, np.zeros((0, DIM), np.float16)
STORED = directions(COUNT, DIM, 1).astype(np.float16)
IDS = np.arange(7, 7 + 3 * COUNT, 3, dtype=np.int64)
QUERY = directions(1, DIM, 2)[0]

EXACT = [Plan("flat", "replicas", 1), Plan("flat", "replicas", 2), Plan("flat", "shards", 2)]
WALKS = [Plan("cagra", "replicas", 2), Plan("cagra", "shards", 2)]
CODED = [Plan("ivfpq", "replicas", 1), Plan("ivfpq", "shards", 2)]


def best(
    ids: Ids, stored: NDArray[np.float16], query: NDArray[np.float32], k: int
) -> tuple[Ids, NDArray[np.float64]]:
    scores = stored.astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((ids, -scores))[:k]
    return ids[order], scores[order]


def assert_best(
    found: tuple[Ids, NDArray[np.float32]] | None,
    ids: Ids,
    stored: NDArray[np.float16],
    k: int,
    slack: float = 2e-6,
) -> None:
    """The scores are those of the ``k`` best, and those of the ids that carry them."""
    assert found is not None
    assert len(set(found[0].tolist())) == len(found[0])
    np.testing.assert_allclose(found[1], best(ids, stored, QUERY, k)[1], atol=slack)
    own = stored[np.searchsorted(ids, found[0])].astype(np.float64) @ QUERY
    assert np.isin(found[0], ids).all()
    np.testing.assert_allclose(found[1], own, atol=slack)


@pytest.fixture(params=["played by the CPU", "real"])
def gpus(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the copies are put on."""
    if request.param == "real" and not gpu.gpu_count():
        pytest.skip(f"FAISS {faiss.__version__} sees no GPU (kinds it could put there: {gpu.gpu_kinds()})")
    if request.param != "real":
        install(Machine(2), monkeypatch)
    return str(request.param)


def copied(chosen: Plan, ids: Ids = IDS, stored: NDArray[np.float16] = STORED) -> GpuCopy:
    if chosen.gpus > gpu.gpu_count() or chosen.kind not in gpu.gpu_kinds():
        pytest.skip(f"{chosen} needs another machine or build")
    return GpuCopy(ids, stored, chosen)


def slack(gpus: str) -> float:
    """Real GPUs compute in float16."""
    return 2e-3 if gpus == "real" else 2e-6


# -- one copy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen", [*EXACT, *WALKS], ids=str)
@pytest.mark.parametrize("k", [1, 10, 250, 512])
def test_a_copy_finds_the_k_best_with_their_scores(gpus: str, chosen: Plan, k: int) -> None:
    assert_best(copied(chosen).search(QUERY, k, NONE), IDS, STORED, k, slack(gpus))


@pytest.mark.parametrize("chosen", CODED, ids=str)
def test_codes_propose_most_of_the_best(gpus: str, chosen: Plan) -> None:
    rng = np.random.default_rng(3)
    centres = directions(40, 8, 3)[rng.integers(0, 40, COUNT)]
    near = centres + 0.15 * rng.normal(size=(COUNT, 8))  # in groups, as real embeddings are
    stored = (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float16)
    copy, hits = copied(chosen, IDS, stored), 0
    for n in range(20):
        query = stored[n * 400].astype(np.float32)
        found = copy.search(query, 170, NONE)
        assert found is not None
        assert (np.diff(found[1]) <= 0).all()
        hits += len(np.intersect1d(found[0], best(IDS, stored, query, 10)[0]))
    assert hits >= 190, "of 200"


@pytest.mark.parametrize("chosen", [*EXACT, *WALKS], ids=str)
@given(share=st.sampled_from([0.0, 0.001, 0.5, 0.97]), seed=st.integers(0, 3), k=st.sampled_from([1, 9, 100]))
@settings(max_examples=12)
def test_what_was_removed_is_left_out_and_the_rest_is_complete(
    chosen: Plan, share: float, seed: int, k: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        install(Machine(2), patch)
        copy = copied(chosen)
        kept = np.random.default_rng(seed).random(COUNT) >= share
        kept[np.argsort(-(STORED.astype(np.float32) @ QUERY))[: int(20 * share)]] = False  # the nearest, too
        # Ids that the copy never had may be among the removed: those of the tail.
        removed = np.union1d(IDS[~kept], [1, 2, 3, IDS[-1] + 5])
        found = copy.search(QUERY, k, removed)
        if found is None:
            assert share == 0.97, "given up, although the best are within reach"
            return
        assert_best(found, IDS[kept], STORED[kept], k)


def test_more_than_a_gpu_finds_in_one_go_is_left_to_the_cpu(gpus: str) -> None:
    flat, walk = copied(EXACT[0]), copied(WALKS[0]) if "cagra" in gpu.gpu_kinds() else None
    assert flat.search(QUERY, 2049, NONE) is None
    assert flat.search(QUERY, 2048, NONE) is not None
    if walk:
        assert walk.search(QUERY, 513, NONE) is None


def test_all_of_a_small_copy_can_be_had(gpus: str) -> None:
    copy = copied(EXACT[0], IDS[:100], STORED[:100])
    for removed, left in ((NONE, 100), (IDS[:30], 70), (IDS[:100], 0)):
        found = copy.search(QUERY, 10**9, removed)
        assert found is not None
        assert len(found[0]) == left
        assert not np.isin(found[0], removed).any()


@pytest.mark.parametrize("chosen", EXACT, ids=str)
def test_equal_vectors_are_all_found(gpus: str, chosen: Plan) -> None:
    stored = np.concatenate([np.repeat(STORED[:1], 50, axis=0), -STORED[1:COUNT]])
    stored[50:] -= STORED[0] * np.float16(2)  # far away
    copy = copied(chosen, IDS[: len(stored)], stored[: len(IDS)])
    found = copy.search(STORED[0].astype(np.float32), 50, NONE)
    assert found is not None
    assert sorted(found[0].tolist()) == IDS[:50].tolist()
    assert np.ptp(found[1]) < 1e-6


def test_shards_are_pieces_of_even_size_and_replicas_are_whole(machine: Machine) -> None:
    GpuCopy(IDS, STORED, Plan("flat", "shards", 2))
    assert sorted(machine.made) == [("flat", 0, COUNT // 2), ("flat", 1, COUNT - COUNT // 2)]
    machine.made.clear()
    GpuCopy(IDS, STORED, Plan("cagra", "replicas", 2))
    assert sorted(machine.made) == [("cagra", 0, COUNT), ("cagra", 1, COUNT)]


@pytest.mark.parametrize("chosen", [EXACT[1], EXACT[2], WALKS[0]], ids=str)
def test_many_threads_get_the_right_answers_and_use_all_gpus(machine: Machine, chosen: Plan) -> None:
    """The stand-ins refuse two searches at once, as FAISS's GPU indexes would break from them."""
    copy = copied(chosen)
    queries = directions(64, DIM, 5)
    alone = [copy.search(query, 10, NONE) for query in queries]
    machine.searched.clear()
    start = threading.Barrier(8)

    def search(n: int) -> tuple[Ids, NDArray[np.float32]] | None:
        if n < 8:
            start.wait()
        return copy.search(queries[n], 10, NONE)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(search, range(64)))
    for mine, theirs in zip(together, alone, strict=True):
        assert mine is not None
        assert theirs is not None
        np.testing.assert_array_equal(mine[0], theirs[0])
    assert set(machine.searched) == set(range(chosen.gpus)) or chosen.layout == "shards"


# -- beside the CPU's index ----------------------------------------------------------------------------------------


@functools.cache
def _base_of_80() -> VectorIndex:
    return VectorIndex.build(np.arange(1, 81, dtype=np.int64), STORED[:80], exact_limit=0)


@given(
    steps=st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(0, 120), max_size=30)), max_size=5),
    allowed=st.none() | st.lists(st.integers(0, 120), max_size=40),
    k=st.integers(1, 40),
)
@settings(max_examples=40)
def test_a_base_on_gpus_with_a_tail_and_removals_is_one_index(
    steps: list[tuple[int, list[int]]], allowed: list[int] | None, k: int
) -> None:
    ids, stored = np.arange(1, 81, dtype=np.int64), STORED[:80]
    base = _base_of_80()
    with pytest.MonkeyPatch.context() as patch:
        install(Machine(1), patch)
        index, reason = base.on_gpu(ids, stored, "cuda")
        assert (reason, index.about) == ("", "ivf8 (flat on GPU)")
        gone: set[int] = set()
        for size, leave in steps:
            first = index.highest + 1
            fresh = np.arange(first, first + size, dtype=np.int64)
            index = index.updated(
                fresh, STORED[len(ids) : len(ids) + size], np.unique(np.array(leave, np.int64))
            )
            ids, stored = np.concatenate([ids, fresh]), STORED[: len(ids) + size]
            gone |= set(leave) & set(ids.tolist())
        keep = ~np.isin(ids, list(gone))
        assert index.ids().tolist() == ids[keep].tolist()
        if allowed is not None:
            keep &= np.isin(ids, allowed)
        picked = None if allowed is None else np.unique(np.array(allowed, np.int64))
        found, scores = index.search(QUERY, k, picked)
        if allowed is None:
            assert_best((found, scores), ids[keep], stored[keep], k)
        else:  # the compressed base of the CPU answers
            assert len(found) == min(k, int(keep.sum()))
            assert set(found.tolist()) <= set(ids[keep].tolist())


def test_filters_are_the_cpus_and_the_rest_is_the_gpus(machine: Machine) -> None:
    index, _ = VectorIndex.build(IDS, STORED, exact_limit=0).on_gpu(IDS, STORED, "cuda")
    index.search(QUERY, 10, IDS[::2])
    assert machine.searched == []
    index.search(QUERY, 10)
    assert len(machine.searched) == 1


def test_vectors_that_vanished_since_the_base_was_written_are_not_missed(machine: Machine) -> None:
    """A base comes from its file with ids that the catalog no longer has; their vectors cannot be read."""
    base = VectorIndex.build(IDS, STORED, exact_limit=0)
    fresh = np.array([IDS[-1] + 1, IDS[-1] + 2])
    base = base.updated(fresh, STORED[:2], IDS[:500])
    left, vectors = np.concatenate([IDS[500:], fresh]), np.concatenate([STORED[500:], STORED[:2]])
    index, _ = base.on_gpu(left, vectors, "cuda:flat:shards")
    assert sorted(machine.made) == [("flat", 0, 4250), ("flat", 1, 4250)]
    assert_best(index.search(QUERY, 50), left, vectors, 50)


def test_a_small_index_stays_on_the_cpu(machine: Machine) -> None:
    index, reason = VectorIndex.build(IDS, STORED).on_gpu(IDS, STORED, "cuda")
    assert (index.about, reason, machine.made) == ("exact", "", [])


# -- what is wanted and what fits ----------------------------------------------------------------------------------

GIB = 1 << 30


@pytest.mark.parametrize(
    ("device", "count", "free", "expected"),
    [
        ("auto", 1_000_000, [8 * GIB], Plan("flat", "replicas", 1)),
        ("auto", 1_000_000, [8 * GIB, 9 * GIB], Plan("flat", "replicas", 2)),
        ("auto", 6_000_000, [8 * GIB] * 4, Plan("flat", "shards", 4)),  # 9.2 GB of float16
        ("auto", 6_000_000, [8 * GIB], Plan("ivfpq", "replicas", 1)),
        ("auto", 60_000_000, [8 * GIB] * 4, Plan("ivfpq", "shards", 4)),
        ("auto", 600_000_000, [8 * GIB] * 4, None),
        ("cuda:shards", 1_000_000, [8 * GIB] * 4, Plan("flat", "shards", 4)),
        ("cuda:ivfpq", 1_000_000, [8 * GIB] * 2, Plan("ivfpq", "replicas", 2)),
        ("cuda:cagra", 1_000_000, [8 * GIB] * 2, Plan("cagra", "replicas", 2)),
        ("cuda:cagra", 2_000_000, [8 * GIB] * 2, Plan("cagra", "shards", 2)),
        ("cuda:cagra", 20_000_000, [8 * GIB] * 2, None),
        ("cuda:flat", 20_000_000, [8 * GIB] * 2, None),
        ("cuda:flat:shards", 5_000, [8 * GIB] * 4, Plan("flat", "shards", 1)),  # too few to be split
        ("auto", 25_000, [100 << 20], None),
    ],
)
def test_the_plan_is_the_quickest_that_fits(
    device: str, count: int, free: list[int], expected: Plan | None
) -> None:
    assert plan(count, 768, free, wish(device)) == expected


@pytest.mark.parametrize("dim", [24, 31, 128, 256, 384, 512, 640, 768, 1024, 1152])
def test_codes_are_of_a_length_that_the_kernels_know_and_that_divides(dim: int) -> None:
    length = gpu.code_length(dim)
    assert dim % length == 0
    assert length in {1, 2, 3, 4, 8, 12, 16, 20, 24, 28, 32, 40, 48, 56, 64, 96}


@pytest.mark.parametrize("device", ["gpu", "cuda:0", "auto:flat", ""])
def test_a_device_that_is_none_is_an_error(device: str) -> None:
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda"):
        use_gpu(device)


def test_cuda_without_a_gpu_build_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("StandardGpuResources", "GpuIndexFlatIP", "GpuIndexIVFPQ", "GpuIndexCagra"):
        monkeypatch.delattr(faiss, name, raising=False)
    for device in ("cuda", "cuda:cagra:shards"):
        with pytest.raises(ConfigError, match=rf"--device {device}: .*CPU build.*mmsearch gpu install"):
            use_gpu(device)
    assert not use_gpu("auto")
    assert not use_gpu("cpu")


def test_cuda_without_a_gpu_says_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    install(Machine(0), monkeypatch)
    with pytest.raises(ConfigError, match=r"sees no GPU.*nvidia-smi.*CUDA_VISIBLE_DEVICES"):
        use_gpu("cuda")
    assert not use_gpu("auto")


def test_cagra_without_cuvs_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    install(Machine(1), monkeypatch, cuvs=False)
    with pytest.raises(ConfigError, match=r"no CAGRA.*mmsearch gpu install --cuvs"):
        use_gpu("cuda:cagra")
    assert use_gpu("cuda:ivfpq")


def test_what_does_not_fit_stays_on_the_cpu_with_a_word_or_is_an_error(machine: Machine) -> None:
    base = VectorIndex.build(IDS, STORED, exact_limit=0)
    machine.free = [200 << 20, GIB]
    index, reason = base.on_gpu(IDS, STORED, "auto")
    assert index is base
    assert "9,000 vectors are not put on GPUs: they do not fit" in reason
    assert "200 MiB" in reason
    with pytest.raises(ConfigError, match=r"--device cuda: 9,000 vectors .* do not fit"):
        base.on_gpu(IDS, STORED, "cuda")


def test_a_gpu_that_does_not_answer_is_told_of_or_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The question goes to the CUDA runtime itself, which knows of no ninth GPU or is not there."""
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 9)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    base = VectorIndex.build(IDS, STORED, exact_limit=0)
    assert "CUDA" in base.on_gpu(IDS, STORED, "auto")[1]
    with pytest.raises(ConfigError, match="CUDA"):
        base.on_gpu(IDS, STORED, "cuda")


def test_what_faiss_cannot_put_there_stays_on_the_cpu_with_a_word_or_is_an_error(machine: Machine) -> None:
    base = VectorIndex.build(IDS, STORED, exact_limit=0)
    machine.fails = "CUDA error 2 out of memory"
    index, reason = base.on_gpu(IDS, STORED, "auto")
    assert index is base
    assert "out of memory" in reason
    with pytest.raises(ConfigError, match="out of memory"):
        base.on_gpu(IDS, STORED, "cuda")
