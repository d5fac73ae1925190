"""The vector index: a cache over the catalog's vectors, built with FAISS (on GPUs: ``mmsearch.gpu``).

Small indexes are exact (float16, inner product). A large one keeps a compressed *base*: vectors projected onto their
leading principal directions (uncentred, so that inner products survive; Jolliffe, "Principal Component Analysis",
2002), each dimension in 8 bits, in inverted lists (Jégou et al., "Product quantization for nearest neighbor
search", 2011, section IV). A base proposes candidates; the caller scores them exactly from the catalog. What came
after the base was built is exact, in a short tail of segments.

Nothing is ever added to an index that somebody may be searching: ``updated`` returns the next state.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.gpu import GpuCopy, faiss, placed
from mmsearch.types import Ids, Modality, Vector

Float16 = NDArray[np.float16]
Kind = Literal["exact", "ivf8"]

EXACT_LIMIT = 20_000
"""Up to so many vectors an index is exact and has no file: reading them from the catalog takes 0.1 s."""

_ENERGY = 0.93  # share of the vectors' squared length that the projection keeps at least
_DIMS = (128, 192, 256, 384, 512)  # what it projects onto: 1 byte a dimension
# Text queries lie off the pictures' distribution and need far more lists than a picture's own neighbours do. With these
# and 170 candidates scored exactly, recall@10 of real captions over 100,000 vectors is 0.99 (benchmarks/scale.py).
_LISTS = 2.0  # lists = this * sqrt(vectors)
_PROBED = 0.2  # share of the lists that a search looks into
_SAMPLE = 65_536  # vectors that the projection and the quantiser learn from
_MAGIC = b"mmsearch index 1\n"


@dataclasses.dataclass(frozen=True)
class _Segment:
    """Vectors in one immutable FAISS index. ``projection`` (d, dim) is None where the index is exact."""

    index: Any
    ids: Ids
    projection: NDArray[np.float32] | None = None

    def search(self, query: Vector, k: int, selector: Any, share: float) -> tuple[Ids, NDArray[np.float32]]:
        """The ``k`` nearest that the selector lets pass; it lets about ``share`` of all ids pass."""
        k = min(k, len(self.ids))
        if self.projection is None:
            return _found(self.index, query, k, faiss.SearchParameters(sel=selector))
        query = self.projection @ query
        # A filter thins every list out: look into more of them, or recall collapses. The fewer pass, the wider the
        # nearest of them are spread, but slower than by their number (measured: benchmarks/scale.py).
        lists = self.index.nlist
        nprobe = math.ceil(_PROBED * lists / math.sqrt(max(share, _PROBED**2)))
        ids, scores = _found(self.index, query, k, faiss.SearchParametersIVF(sel=selector, nprobe=nprobe))
        if len(ids) < k and nprobe < lists:
            return _found(self.index, query, k, faiss.SearchParametersIVF(sel=selector, nprobe=lists))
        return ids, scores


def _found(index: Any, query: Vector, k: int, params: Any) -> tuple[Ids, NDArray[np.float32]]:
    scores, ids = index.search(query[None], k, params=params)
    found = ids[0] >= 0  # FAISS fills up with -1
    return ids[0][found], scores[0][found]


class VectorIndex:
    """The vectors of one modality of a collection at one moment. Immutable: share it between threads freely."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self._base: _Segment | None = None
        self._tail: tuple[_Segment, ...] = ()
        self._removed: Ids = np.zeros(0, np.int64)
        self._gpu: GpuCopy | None = None

    @classmethod
    def build(cls, ids: Ids, vectors: Float16, *, exact_limit: int = EXACT_LIMIT) -> VectorIndex:
        """Index vectors (n, dim) with ids (n,) ascending: exact up to ``exact_limit`` of them, else compressed."""
        built = cls(vectors.shape[1])
        if len(ids) <= exact_limit:
            built._tail = (_exact(ids, vectors),)
        else:
            built._base = _compressed(ids, vectors)
        return built

    def on_gpu(self, ids: Ids, vectors: Float16, device: str) -> tuple[VectorIndex, str]:
        """This index with a copy of its base on the GPUs that there are, and nothing or why it stays without.

        ``vectors`` (n, dim) with ``ids`` (n,) ascending are those of the catalog: what is newer than the base is left
        to the tail. An exact index stays on the CPU, which is quick enough. Raises ``ConfigError`` if ``device``
        insists on a GPU and the vectors do not fit.
        """
        count = int(np.searchsorted(ids, self._base.ids[-1], side="right")) if self._base else 0
        if not count:
            return self, ""
        found = placed(ids[:count], vectors[:count], device)
        if isinstance(found, str):
            return self, found
        following = copy.copy(self)
        following._gpu = found
        return following, ""

    def __len__(self) -> int:
        return sum(len(segment.ids) for segment in self._segments()) - len(self._removed)

    def ids(self) -> Ids:
        """All ids that can be found, ascending."""
        stored = [segment.ids for segment in self._segments()]
        return np.setdiff1d(np.concatenate(stored), self._removed) if stored else np.zeros(0, np.int64)

    @property
    def kind(self) -> Kind:
        """``exact``, or ``ivf8``: with a compressed base."""
        return "ivf8" if self._base else "exact"

    @property
    def about(self) -> str:
        """The kind, and how the base is laid out on GPUs if it is."""
        return f"{self.kind} ({self._gpu.plan})" if self._gpu else self.kind

    @property
    def highest(self) -> int:
        """The highest id ever added, 0 if none."""
        return max((int(segment.ids[-1]) for segment in self._segments() if len(segment.ids)), default=0)

    @property
    def removed(self) -> int:
        """How many vectors are still stored but cannot be found any more."""
        return len(self._removed)

    @property
    def tail(self) -> int:
        """How many vectors came or went since the base was built."""
        return sum(len(segment.ids) for segment in self._tail) + len(self._removed)

    def updated(self, ids: Ids, vectors: Float16, removed: Ids) -> VectorIndex:
        """The next state: with more vectors (their ids ascending, all above ``highest``), and without ``removed``."""
        following = VectorIndex(self.dim)
        following._base, following._gpu = self._base, self._gpu
        tail = [*self._tail]
        if len(ids):
            tail.append(_exact(ids, vectors))
        # Like a log-structured merge tree: segments double in size, so each vector is copied log(n) times.
        while len(tail) > 1 and len(tail[-2].ids) <= 2 * len(tail[-1].ids):
            newer, older = tail.pop(), tail.pop()
            merged = np.concatenate([_stored(older, self.dim), _stored(newer, self.dim)])
            tail.append(_exact(np.concatenate([older.ids, newer.ids]), merged))
        following._tail = tuple(tail)
        gone = np.union1d(self._removed, removed)
        known = np.zeros(len(gone), np.bool_)
        for segment in following._segments():
            known |= np.isin(gone, segment.ids)
        following._removed = gone[known]
        return following

    def search(self, query: Vector, k: int, allowed: Ids | None = None) -> tuple[Ids, NDArray[np.float32]]:
        """The ``k`` nearest of the allowed ids (None: of all): ids and inner products, best first.

        Inner products are approximate where ``kind`` is not ``exact``. Fewer than ``k`` come back
        only if there are no more.
        """
        query = np.ascontiguousarray(query, np.float32)
        # One core a query, and queries side by side: with more, each would wait for its slowest thread.
        faiss.omp_set_num_threads(1)
        share = 1.0 if allowed is None else len(allowed) / max(len(self), 1)
        copied = self._gpu.search(query, k, self._removed) if self._gpu and allowed is None else None
        segments = self._tail if copied else self._segments()
        with _selector(allowed, self._removed, self.highest) as selector:
            found = [segment.search(query, k, selector, share) for segment in segments if len(segment.ids)]
        found += [copied] if copied else []
        if not found:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        ids = np.concatenate([pair[0] for pair in found])
        scores = np.concatenate([pair[1] for pair in found])
        order = np.lexsort((ids, -scores))[:k]
        return ids[order], scores[order]

    def _segments(self) -> tuple[_Segment, ...]:
        return (self._base, *self._tail) if self._base else self._tail


def _exact(ids: Ids, vectors: Float16) -> _Segment:
    stored = faiss.IndexScalarQuantizer(
        vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT
    )
    index = faiss.IndexIDMap2(stored)
    # The catalog's float16 vectors are FAISS's codes byte for byte: no conversion, and the scores are the catalog's.
    codes = np.ascontiguousarray(vectors, "<f2").view(np.uint8)
    index.add_sa_codes(codes, ids)
    return _Segment(index, ids)


def _stored(segment: _Segment, dim: int) -> Float16:
    codes = faiss.vector_to_array(faiss.downcast_index(segment.index.index).codes)
    found: Float16 = codes.view("<f2").reshape(-1, dim)
    return found


def _compressed(ids: Ids, vectors: Float16) -> _Segment:
    count = len(vectors)
    chosen = np.random.default_rng(0).choice(count, min(count, _SAMPLE), replace=False)
    sample = vectors[np.sort(chosen)].astype(np.float32)
    projection = principal_directions(sample)
    lists = min(count, round(_LISTS * math.sqrt(count)))
    quantiser = faiss.IndexFlatIP(len(projection))
    codec, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    index = faiss.IndexIVFScalarQuantizer(quantiser, len(projection), lists, codec, metric)
    quantiser.this.disown()
    index.own_fields = True
    index.cp.min_points_per_centroid = 1  # with fewer vectors than it likes FAISS prints a warning
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    index.train(sample @ projection.T)
    for start in range(0, count, _SAMPLE):
        block = vectors[start : start + _SAMPLE].astype(np.float32)
        index.add_with_ids(block @ projection.T, ids[start : start + _SAMPLE])
    return _Segment(index, ids, projection)


def principal_directions(sample: NDArray[np.float32]) -> NDArray[np.float32]:
    """The leading principal directions (d, dim) of vectors (n, dim), as many as keep 93 % of their squared length."""
    energies, directions = np.linalg.eigh(sample.T @ sample)  # ascending
    kept = np.cumsum(energies[::-1]) / energies.sum()
    width = next((d for d in _DIMS if d < len(kept) and kept[d - 1] >= _ENERGY), len(kept))
    return np.ascontiguousarray(directions[:, ::-1][:, :width].T)


@contextlib.contextmanager
def _selector(allowed: Ids | None, removed: Ids, highest: int) -> Iterator[Any]:
    """A FAISS id selector, or None if everything may be found (a selector that lets all pass costs 30 %)."""
    if allowed is None and not len(removed):
        yield None
        return
    mask = np.zeros(highest + 1, np.bool_)
    if allowed is None:
        mask[removed] = True
    else:
        mask[allowed[allowed <= highest]] = True
        mask[removed] = False
    bits = np.packbits(mask, bitorder="little")
    bitmap = faiss.IDSelectorBitmap(bits)
    yield bitmap if allowed is not None else faiss.IDSelectorNot(bitmap)
    del bitmap, bits  # FAISS holds plain pointers: they must outlive the search


# -- the index file -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Stamp:
    """What an index file says of itself: the catalog's UUID, the space, the revision (with its tag) it was built at."""

    uuid: str
    space: str
    revision: int
    tag: int


def save(path: Path, stamp: Stamp, indexes: Mapping[Modality, VectorIndex]) -> None:
    """Write the compressed bases to ``path``, whole or not at all (temporary file, fsync, rename).

    Tails are not written: they are read from the catalog again. Raises ``OSError``.
    """
    blobs: list[bytes] = []
    entries: list[dict[str, Any]] = []
    for modality, index in indexes.items():
        if index._base is not None and index._base.projection is not None:
            blob = faiss.serialize_index(index._base.index).tobytes()
            projection = index._base.projection.astype("<f4").tobytes()
            shape = list(index._base.projection.shape)
            sizes = {"projection": len(projection), "index": len(blob), "shape": shape}
            entries.append({"modality": modality.value, "highest": int(index._base.ids[-1])} | sizes)
            blobs += [projection, blob]
    header = json.dumps(dataclasses.asdict(stamp) | {"indexes": entries}).encode()
    content = b"".join([len(header).to_bytes(8, "little"), header, *blobs])
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")  # only who holds the catalog's writer lock writes it
    try:
        with temporary.open("wb") as file:
            file.writelines([_MAGIC, zlib.crc32(content).to_bytes(4, "little"), content])
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def load(path: Path) -> tuple[Stamp, dict[Modality, VectorIndex]]:
    """Read what ``save`` wrote. Raises ``FileNotFoundError`` if there is no file, ``ValueError`` if it is damaged."""
    data = memoryview(path.read_bytes())
    start = len(_MAGIC) + 4
    if bytes(data[: len(_MAGIC)]) != _MAGIC:
        raise ValueError("not an index file of this version")
    content = data[start:]
    if zlib.crc32(content) != int.from_bytes(data[len(_MAGIC) : start], "little"):
        raise ValueError("its checksum does not match")
    length = int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8 : 8 + length]))
    body = content[8 + length :]
    indexes: dict[Modality, VectorIndex] = {}
    place = 0
    for entry in header["indexes"]:
        middle, end = place + entry["projection"], place + entry["projection"] + entry["index"]
        projection = np.frombuffer(body[place:middle], "<f4").reshape(entry["shape"])
        index = faiss.deserialize_index(np.frombuffer(body[middle:end], np.uint8))
        place = end
        loaded = VectorIndex(projection.shape[1])
        loaded._base = _Segment(index, _ids_of(index), projection)
        indexes[Modality(entry["modality"])] = loaded
    return Stamp(header["uuid"], header["space"], header["revision"], header["tag"]), indexes


def _ids_of(index: Any) -> Ids:
    lists = index.invlists
    sizes = [lists.list_size(number) for number in range(index.nlist)]
    ids = [
        faiss.rev_swig_ptr(lists.get_ids(number), size).copy() for number, size in enumerate(sizes) if size
    ]
    return np.sort(np.concatenate(ids))
