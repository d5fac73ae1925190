"""Vectors on GPUs, by the GPU builds of FAISS: what fits, how it is laid out, and how it is searched. The only module
that imports ``faiss``: ``mmsearch.vectors`` takes it from here.

A copy on the GPU stands beside a compressed base on the CPU and answers in its place where nothing is filtered out:
FAISS's GPU indexes take no selector and cannot forget vectors. What was removed since is left out afterwards, what
came since is in the CPU's tail. As with the base itself, the caller scores the candidates exactly.

Three kinds. ``flat`` scans all vectors in float16. ``ivfpq`` (Jégou et al., "Product quantization for nearest neighbor
search", 2011) needs a tenth of the memory. ``cagra`` (Ootomo et al., "CAGRA: Highly Parallel Graph Construction and
Approximate Nearest Neighbor Search for GPUs", 2023) walks a graph; graphs find pictures by their like, but lose
recall where texts look for pictures, so it is never chosen by itself.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import math
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from mmsearch.builds import check_build
from mmsearch.config import DEVICE
from mmsearch.errors import ConfigError
from mmsearch.types import Ids, Vector, Vectors

check_build()
try:
    import faiss

    _ = faiss.IndexFlatIP  # where another build was uninstalled over it, there is a module without content
except (
    ImportError,
    RuntimeError,
    AttributeError,
) as broken:  # a RuntimeError: its CUDA libraries are missing
    raise ConfigError(
        f"FAISS cannot be loaded ({broken}). Install it anew: 'mmsearch gpu install' (GPU) or "
        "'mmsearch gpu remove' (CPU)"
    ) from broken

__all__ = ["GpuCopy", "Plan", "Wish", "faiss", "gpu_count", "gpu_kinds", "placed", "plan", "use_gpu", "wish"]

Float16 = NDArray[np.float16]
GpuKind: TypeAlias = Literal["flat", "ivfpq", "cagra"]
Layout: TypeAlias = Literal["replicas", "shards"]

_MOST: dict[GpuKind, int] = {
    "flat": 2048,
    "ivfpq": 2048,
    "cagra": 512,
}  # neighbours that one search may ask for
_WALK = 256  # candidates that CAGRA keeps while it walks, at least: more find more
_SCRATCH = 256 << 20  # bytes that FAISS sets aside on each GPU for what it computes; one query needs little
_USABLE = 0.9  # share of the free memory that is planned with
# The code lengths that FAISS's own IVF-PQ kernels know (IVFPQ::isSupportedPQCodeLength).
_CODES = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)
_PER_LIST = 64  # vectors that each list's centre is learnt from
_LISTS = 2.0  # lists = this * sqrt(vectors)
_PROBED = 0.2  # share of the lists that a search looks into
_MOST_PROBED = 2048  # FAISS's limit on a GPU


@dataclasses.dataclass(frozen=True)
class Plan:
    """How vectors are laid out: whole on each of ``gpus``, or ``gpus`` pieces of them on one each."""

    kind: GpuKind
    layout: Layout
    gpus: int

    def __str__(self) -> str:
        return f"{self.kind} on GPU" if self.gpus == 1 else f"{self.kind}, {self.gpus} GPU {self.layout}"


Need: TypeAlias = Literal["auto", "never", "must"]


@dataclasses.dataclass(frozen=True)
class Wish:
    """What ``device`` asks for; None: the planner chooses."""

    gpu: Need
    kind: GpuKind | None = None
    layout: Layout | None = None


def wish(device: str) -> Wish:
    """Read a ``mmsearch.config.Device``. Raises ``ConfigError`` if it is none."""
    read = DEVICE.fullmatch(device)
    if read is None:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:KIND:LAYOUT, not {device!r}")
    needs: dict[str, Need] = {"auto": "auto", "cpu": "never"}
    kind = next((kind for kind in get_args(GpuKind) if kind == read[1]), None)
    layout = next((layout for layout in get_args(Layout) if layout == read[2]), None)
    return Wish(needs.get(device, "must"), kind, layout)


def gpu_count() -> int:
    """How many GPUs this FAISS sees; 0 for the CPU build. ``CUDA_VISIBLE_DEVICES`` chooses among those that exist."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def gpu_kinds() -> list[GpuKind]:
    """The kinds of index that this FAISS can put on a GPU."""
    classes: dict[GpuKind, str] = {
        "flat": "GpuIndexFlatIP",
        "ivfpq": "GpuIndexIVFPQ",
        "cagra": "GpuIndexCagra",
    }
    return [kind for kind, name in classes.items() if hasattr(faiss, name)]


def use_gpu(device: str) -> bool:
    """Whether vectors are searched on a GPU. Raises ``ConfigError`` if ``device`` insists on it and cannot have it."""
    wanted = wish(device)
    if wanted.gpu == "never":
        return False
    gpus = gpu_count()
    if wanted.gpu == "must" and not gpus:
        if not gpu_kinds():
            raise ConfigError(
                f"--device {device}: FAISS's CPU build is installed. Replace it by the GPU build "
                "('mmsearch gpu install'), or use --device auto"
            )
        raise ConfigError(
            f"--device {device}: FAISS's GPU build is installed but sees no GPU. See that nvidia-smi lists one and "
            "that CUDA_VISIBLE_DEVICES does not hide it, or use --device auto"
        )
    if wanted.kind == "cagra" and "cagra" not in gpu_kinds():
        raise ConfigError(
            f"--device {device}: this GPU build has no CAGRA. Install the one with cuVS ('mmsearch gpu install --cuvs')"
        )
    return gpus > 0


def free_memory() -> list[int]:
    """The free bytes of each GPU, as CUDA numbers them. Raises ``ConfigError`` if CUDA does not tell."""
    libraries = (_cuda(name) for name in (None, "libcudart.so.13", "libcudart.so.12"))
    cuda = next((library for library in libraries if library), None)
    if cuda is None:
        raise ConfigError("the CUDA runtime that FAISS was built with is not found: 'mmsearch gpu install'")
    before = ctypes.c_int()
    cuda.cudaGetDevice(ctypes.byref(before))
    found: list[int] = []
    try:
        for gpu in range(gpu_count()):
            free, total = ctypes.c_size_t(), ctypes.c_size_t()
            code = cuda.cudaSetDevice(gpu) or cuda.cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total))
            if code:
                raise ConfigError(f"GPU {gpu} does not say how much memory it has (CUDA error {code})")
            found.append(free.value)
    finally:
        cuda.cudaSetDevice(before)
    return found


def _cuda(name: str | None) -> ctypes.CDLL | None:
    """The CUDA runtime in this process (None: where FAISS's wheels load it for all), if this is it."""
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return None
    return library if hasattr(library, "cudaMemGetInfo") else None


def code_length(dim: int) -> int:
    """Bytes of an IVF-PQ code: as many as FAISS's kernels know and the dimensions can be split into."""
    return next(length for length in _CODES if dim % length == 0)


def memory_needed(kind: GpuKind, count: int, dim: int) -> int:
    """Bytes of GPU memory for so many vectors, in round figures and without what a search needs."""
    if kind == "flat":
        return (2 * dim + 4) * count  # float16, and the length of each
    if kind == "ivfpq":
        # Lists grow by doubling while they are filled.
        return 2 * (code_length(dim) + 8) * count + 4 * dim * round(_LISTS * math.sqrt(count))
    return (4 * dim + 3 * 4 * 128) * count  # the graph, and twice that while it is made


def plan(count: int, dim: int, free: Sequence[int], wanted: Wish) -> Plan | None:
    """How ``count`` vectors go on GPUs with so many ``free`` bytes each; None if they do not fit as ``wanted``.

    Replicas where all fit on every GPU: with as many GPUs as many queries are answered at once. Else a piece on each.
    Exact where that fits (``flat``), else compressed (``ivfpq``).
    """
    gpus = len(free)
    room = int(_USABLE * min(free)) - _SCRATCH
    pieces = min(gpus, max(1, count // (2 * max(_MOST.values()))))  # each has more than a search asks it for
    for kind in (wanted.kind,) if wanted.kind else ("flat", "ivfpq"):
        for layout in (wanted.layout,) if wanted.layout else get_args(Layout):
            split = pieces if layout == "shards" else 1
            if memory_needed(kind, -(-count // split), dim) <= room:
                return Plan(kind, layout, pieces if layout == "shards" else gpus)
    return None


def placed(ids: Ids, vectors: Float16, device: str) -> GpuCopy | str:
    """A copy of the vectors (n, dim) with ids (n,) on the GPUs; or, for ``auto``, why they stay on the CPU.

    Raises ``ConfigError`` if ``device`` insists on a GPU and they do not fit, ``RuntimeError`` of FAISS never.
    """
    wanted = wish(device)
    try:
        free = free_memory()
        chosen = plan(len(ids), vectors.shape[1], free, wanted)
        if chosen:
            return GpuCopy(ids, vectors, chosen)
        least = min(free) >> 20
        reason = f"they do not fit into the free memory of {len(free)} GPU(s), {least:,} MiB on the fullest"
    except (ConfigError, RuntimeError, MemoryError) as error:  # FAISS's and CUDA's errors are RuntimeErrors
        reason = str(error)
    what = f"{len(ids):,} vectors are not put on GPUs: {reason}"
    if wanted.gpu == "must":
        raise ConfigError(f"--device {device}: {what}. Use --device cuda:ivfpq, more GPUs, or --device auto")
    return f"{what}; they are searched on the CPU"


@dataclasses.dataclass(frozen=True)
class _Card:
    """One index that answers by itself. FAISS's GPU indexes are not safe between threads, not even for searches."""

    index: Any
    busy: threading.Lock


class GpuCopy:
    """Vectors on GPUs that can be searched and never change. Safe to share between threads."""

    def __init__(self, ids: Ids, vectors: Float16, chosen: Plan) -> None:
        """Put vectors (n, dim) with ids (n,) ascending on the GPUs. Raises FAISS's ``RuntimeError`` if that fails."""
        self.ids = ids
        self.plan = chosen
        count, gpus = len(ids), range(chosen.gpus)
        # In one go: FAISS reserves GPU memory for what it is given, and copies all that it has each time more comes.
        full = vectors.astype(np.float32)
        pieces = [full] * len(gpus)
        if chosen.layout == "shards":
            pieces = [full[count * gpu // len(gpus) : count * (gpu + 1) // len(gpus)] for gpu in gpus]
        with ThreadPoolExecutor(len(gpus)) as pool:
            filled = list(pool.map(_filled, itertools.repeat(chosen.kind), pieces, gpus))
        if chosen.layout == "shards" and len(filled) > 1:
            shards = faiss.IndexShards(vectors.shape[1], True, True)  # a thread each; numbers run on
            for index in filled:
                shards.add_shard(index)
            filled = [shards]
        # Not faiss.IndexReplicas: it deals the queries of a batch out, and a batch of one always to the first.
        self._cards = [_Card(index, threading.Lock()) for index in filled]
        self._turn = itertools.count()

    def search(self, query: Vector, k: int, removed: Ids) -> tuple[Ids, NDArray[np.float32]] | None:
        """The ``k`` nearest and their inner products, best first, without ``removed`` (ascending).

        Fewer than ``k`` only if there are no more. None if that is more than a GPU index finds in one go.
        """
        most = min(_MOST[self.plan.kind], len(self.ids))
        # Most of what was removed is not near: ask for a little more, and for much more where that was not enough.
        asked = min(k + min(k, len(removed)), len(self.ids))
        while asked <= most:
            ids, scores = self._nearest(query, asked)
            if len(ids) < asked:
                return None  # an approximate index did not come across as many
            if len(removed):
                place = np.minimum(np.searchsorted(removed, ids), len(removed) - 1)
                kept = removed[place] != ids
                ids, scores = ids[kept], scores[kept]
            if len(ids) >= k or asked == len(self.ids):
                return ids[:k], scores[:k]
            if asked == most:
                return None
            asked = min(4 * asked, most)
        return None

    def _nearest(self, query: Vector, k: int) -> tuple[Ids, NDArray[np.float32]]:
        params = None
        if self.plan.kind == "ivfpq":
            lists = _lists(-(-len(self.ids) // (self.plan.gpus if self.plan.layout == "shards" else 1)))
            params = faiss.SearchParametersIVF(nprobe=min(_MOST_PROBED, math.ceil(_PROBED * lists)))
        elif self.plan.kind == "cagra":
            params = faiss.SearchParametersCagra()
            params.itopk_size = max(_WALK, -(-k // 32) * 32)
        card = self._free_card()
        try:
            scores, places = card.index.search(query[None], k, params=params)
        finally:
            card.busy.release()
        found = places[0] >= 0  # FAISS fills up with -1
        return self.ids[places[0][found]], scores[0][found]

    def _free_card(self) -> _Card:
        """A card that has nothing to do, held; each waits its turn if all are busy."""
        first = next(self._turn) % len(self._cards)
        for card in self._cards[first:] + self._cards[:first]:
            if card.busy.acquire(blocking=False):
                return card
        self._cards[first].busy.acquire()
        return self._cards[first]


def _lists(count: int) -> int:
    return min(count, max(1, round(_LISTS * math.sqrt(count))))


def _filled(kind: GpuKind, vectors: Vectors, gpu: int) -> Any:
    """An index of the vectors (n, dim) on one GPU, which numbers them from 0."""
    resources = faiss.StandardGpuResources()  # the index holds on to what it needs of them
    resources.setTempMemory(_SCRATCH)
    count, dim = vectors.shape
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "cagra":
        config = faiss.GpuIndexCagraConfig()
        config.device = gpu
        index = faiss.GpuIndexCagra(resources, dim, metric, config)
        index.train(vectors)  # learns and adds: the graph is made in one go
        return index
    if kind == "flat":
        config = faiss.GpuIndexFlatConfig()
        config.device = gpu
        config.useFloat16 = True
        index = faiss.GpuIndexFlatIP(resources, dim, config)
    else:
        config = faiss.GpuIndexIVFPQConfig()
        config.device = gpu
        config.useFloat16LookupTables = True  # for codes of more than 48 bytes FAISS knows no others
        lists = _lists(count)
        index = faiss.GpuIndexIVFPQ(resources, dim, lists, code_length(dim), 8, metric, config)
        index.cp.min_points_per_centroid = 1  # with fewer vectors than it likes FAISS prints a warning
        chosen = np.random.default_rng(0).choice(count, min(count, _PER_LIST * lists), replace=False)
        index.train(vectors[np.sort(chosen)])
    index.add(vectors)
    return index
