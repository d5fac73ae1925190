"""An engine whose large indexes lie on GPUs too (played by the CPU): started from the catalog, from the index file,
after changes, when another process writes.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsearch import Engine, Modality, Query, Term
from mmsearch.errors import ConfigError
from tests.gpus import Machine, machine
from tests.integration.test_snapshots import ENCODER, LIMIT, POOL, Things, add, assert_right, index_of, things

__all__ = ["machine"]

ASKED = Query(terms=(Term(vector=POOL[0]),), k=5)


def opened(home: Path, device: str = "cuda", notices: list[str] | None = None) -> Engine:
    notice = (notices if notices is not None else []).append
    return Engine.open(home, model=ENCODER, exact_limit=LIMIT, device=device, notice=notice)


def remove(engine: Engine, things: Things, *keys: str) -> None:
    found = [engine.find(key) for key in keys]
    engine.remove([item.id for item in found if item])
    for key in keys:
        del things[key]


def assert_on_gpu(engine: Engine, machine: Machine) -> None:
    machine.searched.clear()
    engine.search(ASKED)
    assert machine.searched, "the CPU answered"


@pytest.mark.parametrize("device", ["cuda", "auto", "cuda:cagra", "cuda:flat:shards"])
def test_a_large_collection_lies_on_gpus_through_all_its_changes(
    tmp_path: Path, machine: Machine, device: str
) -> None:
    expected = things(0, 60)
    with opened(tmp_path, device) as engine:
        add(engine, expected)
        engine.search(ASKED)
        engine.search(ASKED)  # with auto a GPU is worth it from here on
        kind = {"auto": "flat", "cuda": "flat"}.get(device, device.split(":")[1] if ":" in device else "")
        assert engine.status().index_kind["image"].startswith(f"ivf8 ({kind}")
        assert_right(engine, expected)
        assert_on_gpu(engine, machine)
        remove(engine, expected, "k3", "k7", "k50")
        add(engine, things(60, 70))
        expected |= things(60, 70)
        assert_right(engine, expected)
        assert_on_gpu(engine, machine)
        with opened(tmp_path, "cpu") as other:
            remove(other, expected, "k1", "k65")
            add(other, things(70, 72))
        expected |= things(70, 72)
        engine.refresh()
        assert_right(engine, expected)
        assert_on_gpu(engine, machine)
        engine.save()
        assert_right(engine, expected)


def test_a_start_takes_the_base_from_the_index_file_and_its_vectors_from_the_catalog(
    tmp_path: Path, machine: Machine
) -> None:
    expected = things(0, 60)
    with opened(tmp_path, "cpu") as engine:
        add(engine, expected)
        engine.save()
        remove(engine, expected, "k3", "k4")
        add(engine, things(60, 64))
    expected |= things(60, 64)
    written = index_of(tmp_path).stat().st_mtime_ns
    with opened(tmp_path) as engine:
        assert_right(engine, expected)
        assert_on_gpu(engine, machine)
        assert sorted(machine.made) == [("flat", 0, 58), ("flat", 1, 58)]
    assert index_of(tmp_path).stat().st_mtime_ns == written, "the compressed base was built again"


def test_a_collection_that_grows_a_lot_is_put_on_the_gpus_anew(tmp_path: Path, machine: Machine) -> None:
    expected = things(0, 40)
    with opened(tmp_path) as engine:
        add(engine, expected)
        assert_right(engine, expected)
        add(engine, things(40, 150))
        assert_right(engine, expected | things(40, 150))
        assert max(count for _, _, count in machine.made) == 150


def test_a_small_collection_is_searched_on_the_cpu(tmp_path: Path, machine: Machine) -> None:
    with opened(tmp_path) as engine:
        add(engine, things(0, LIMIT))
        assert_right(engine, things(0, LIMIT))
        assert (machine.made, engine.status().index_kind) == ([], {"image": "exact"})


def test_left_to_itself_a_program_that_asks_once_fills_no_gpu(tmp_path: Path, machine: Machine) -> None:
    with opened(tmp_path, "auto") as engine:
        add(engine, things(0, 60))
        first = engine.search(ASKED)
        assert machine.made == []
        assert engine.search(ASKED) == first
        assert sorted(machine.made) == [("flat", 0, 60), ("flat", 1, 60)]
        machine.searched.clear()
        assert engine.search(ASKED) == first
        assert machine.searched
        assert len(machine.made) == 2


def test_auto_says_what_does_not_fit_and_answers_all_the_same(tmp_path: Path, machine: Machine) -> None:
    machine.free = [100 << 20] * 2
    notices: list[str] = []
    with opened(tmp_path, "auto", notices) as engine:
        add(engine, things(0, 60))
        assert_right(engine, things(0, 60))
        assert engine.status().index_kind == {"image": "ivf8"}
    assert len([line for line in notices if "do not fit" in line and "image" in line]) >= 1
    with opened(tmp_path) as engine, pytest.raises(ConfigError, match="do not fit"):
        engine.search(Query(terms=(Term(vector=POOL[0]),), modality=Modality.IMAGE))
