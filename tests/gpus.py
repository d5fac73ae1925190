"""Stand-ins for FAISS's GPU classes, only at the calls to FAISS itself: CPU indexes with the limits of GPU ones.

They are as strict as the real ones: no selector, no removing, no more than 2048 neighbours, no search by two threads
at once, no number of a GPU that does not exist, only fields that the real configurations have.
"""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from mmsearch import gpu

FIELDS = {
    "GpuIndexFlatConfig": {"device", "useFloat16"},
    "GpuIndexIVFPQConfig": {"device", "useFloat16LookupTables"},
    "GpuIndexCagraConfig": {"device"},
}
"""What we set of the configurations; ``tests/extras/test_gpu_builds.py`` sees that the real ones have it."""


class Machine:
    """So many GPUs, with what was put on them: ``made`` holds (class, GPU, vectors), ``searched`` the GPUs."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus
        self.free = [8 << 30] * gpus
        self.made: list[tuple[str, int, int]] = []
        self.searched: list[int] = []
        self.fails: str | None = None  # what putting vectors on a GPU raises


def install(machine: Machine, patch: pytest.MonkeyPatch, *, cuvs: bool = True) -> None:
    """Make FAISS look like a GPU build on such a machine."""

    class Resources:
        def setTempMemory(self, size: int) -> None:  # noqa: N802
            assert size >= 0

    def config_named(name: str) -> type:
        def refuse(self: Any, field: str, value: object) -> None:
            assert field in FIELDS[name], f"{name} has no {field}"
            object.__setattr__(self, field, value)

        return type(name, (), {"device": 0, "__setattr__": refuse})

    class Limits:
        """Mixed into an index of the CPU."""

        gpu: int
        name: str
        nprobes = False

        def put_on(self, resources: Any, config: Any) -> None:
            assert isinstance(resources, Resources)
            if not 0 <= config.device < machine.gpus:
                raise RuntimeError(f"Invalid GPU device {config.device}")
            object.__setattr__(self, "gpu", config.device)
            object.__setattr__(self, "busy", threading.Lock())

        def add(self, vectors: NDArray[np.float32]) -> None:
            if machine.fails:
                raise RuntimeError(machine.fails)
            assert vectors.dtype == np.float32
            super().add(vectors)  # type: ignore[misc]
            machine.made.append((self.name, self.gpu, len(vectors)))

        def remove_ids(self, *_: Any) -> None:
            raise RuntimeError("remove_ids not implemented for this type of index")

        def search(self, query: Any, k: int, *, params: Any = None) -> Any:
            if k > 2048:
                raise RuntimeError("GPU index only supports min/max-K selection up to 2048")
            assert params is None or params.sel is None, "a GPU index takes no selector"
            held = self.busy.acquire(blocking=False)  # type: ignore[attr-defined]
            assert held, "two threads search one GPU index at once"
            try:
                machine.searched.append(self.gpu)
                return super().search(query, k, params=params if self.nprobes else None)  # type: ignore[misc]
            finally:
                self.busy.release()  # type: ignore[attr-defined]

    class Flat(Limits, faiss.IndexFlatIP):  # type: ignore[misc]
        name = "flat"

        def __init__(self, resources: Any, dim: int, config: Any) -> None:
            faiss.IndexFlatIP.__init__(self, dim)
            assert config.useFloat16
            self.put_on(resources, config)

        def add(self, vectors: NDArray[np.float32]) -> None:
            super().add(vectors.astype(np.float16).astype(np.float32))

    class Ivfpq(Limits, faiss.IndexIVFPQ):  # type: ignore[misc]
        name = "ivfpq"
        nprobes = True

        def __init__(
            self, resources: Any, dim: int, lists: int, parts: int, bits: int, metric: int, config: Any
        ) -> None:
            assert bits == 8
            assert parts in gpu._CODES
            assert config.useFloat16LookupTables
            quantiser = faiss.IndexFlatIP(dim)
            faiss.IndexIVFPQ.__init__(self, quantiser, dim, lists, parts, bits, metric)
            self.pq.cp.min_points_per_centroid = 1  # as on a GPU, without a warning
            self.put_on(resources, config)

    class Cagra(Limits, faiss.IndexFlatIP):  # type: ignore[misc]
        name = "cagra"

        def __init__(self, resources: Any, dim: int, metric: int, config: Any) -> None:
            assert metric == faiss.METRIC_INNER_PRODUCT
            faiss.IndexFlatIP.__init__(self, dim)
            self.put_on(resources, config)

        def train(self, vectors: NDArray[np.float32]) -> None:
            Limits.add(self, vectors)

        def search(self, query: Any, k: int, *, params: Any = None) -> Any:
            assert k <= params.itopk_size <= 512
            return super().search(query, k, params=params)

    class Walk(faiss.SearchParameters):  # type: ignore[misc]
        itopk_size = 64

    patch.setattr(gpu, "free_memory", lambda: machine.free)
    patch.setattr(faiss, "get_num_gpus", lambda: machine.gpus)
    stand_ins = {"StandardGpuResources": Resources, "GpuIndexFlatIP": Flat, "GpuIndexIVFPQ": Ivfpq}
    stand_ins |= {name: config_named(name) for name in ("GpuIndexFlatConfig", "GpuIndexIVFPQConfig")}
    if cuvs:
        stand_ins |= {"GpuIndexCagra": Cagra, "SearchParametersCagra": Walk}
        stand_ins["GpuIndexCagraConfig"] = config_named("GpuIndexCagraConfig")
    else:
        patch.delattr(faiss, "GpuIndexCagra", raising=False)
    for name, stand_in in stand_ins.items():
        patch.setattr(faiss, name, stand_in, raising=False)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Two GPUs, played by the CPU."""
    found = Machine(2)
    install(found, monkeypatch)
    return found
