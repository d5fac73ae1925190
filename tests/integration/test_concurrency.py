"""Several processes and several users on one home: one writes, many read, some may not write, some disks are full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsearch.errors import CatalogBusy
from tests import killing

ROOT = Path(__file__).parents[2]
START = """
import os, resource, sys, time
from pathlib import Path
import numpy as np
import numpy.ma  # np.unique imports it when first called
from mmsearch import Engine, Query, Term
from mmsearch.errors import *
from mmsearch import check, columns, filters, migrations, search, writes
from tests.killing import POOL, item, opened, right
filters.parse("id > 0")  # all that is imported late: another user may not read it
home = Path(sys.argv[1])
"""


def child(script: str, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START + script, str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def said(process: subprocess.Popen[str]) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.strip()


@pytest.fixture
def home() -> Iterator[Path]:
    shared = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    os.chmod(shared, 0o755)  # an ordinary user may look inside
    path = Path(shared) / "home"
    path.mkdir()
    killing.prepare("writing", path)
    yield path
    shutil.rmtree(shared)


def test_a_second_writer_waits_or_is_told_who_writes(home: Path) -> None:
    writer = child(
        "engine = opened(home)\n"
        "with engine.writing(what='a long run'):\n"
        "    print('ready', flush=True)\n"
        "    while not (home / 'go').exists(): time.sleep(0.01)\n"
        "    engine.add([item('theirs', 11)])\n",
        home,
    )
    assert writer.stdout
    assert writer.stdout.readline() == "ready\n"
    with killing.opened(home) as engine:
        with (
            pytest.raises(CatalogBusy, match=rf"process {writer.pid} \(a long run\)"),
            engine.writing(wait=0.05),
        ):
            raise AssertionError("there were two writers")
        assert engine.search("red"), "a reader does not wait"
        (home / "go").touch()
        engine.add([killing.item("ours", 12)])  # waits
        assert {"theirs", "ours"} <= set(engine.files())
        assert engine.check() == []
    said(writer)


def test_writers_of_several_processes_take_turns_and_lose_nothing(home: Path) -> None:
    script = (
        "engine = opened(home)\n"
        "for n in range(8): engine.add([item(f'{os.getpid()} {n}', n), item('shared', n)])\n"
        "print(os.getpid())\n"
    )
    writers = [child(script, home) for _ in range(3)]
    pids = [said(writer) for writer in writers]
    with killing.opened(home) as engine:
        assert {f"{pid} {n}" for pid in pids for n in range(8)} <= set(engine.files())
    assert killing.right(home) == []


def test_readers_see_whole_commits_while_another_process_writes(home: Path) -> None:
    """Each commit adds a pair of items: no reader ever finds one without the other."""
    script = (
        "engine = opened(home)\n"
        "seen = 0\n"
        "while not (home / 'stop').exists() or not seen:\n"
        "    engine.refresh()\n"
        "    engine.search(Query(terms=(Term(vector=POOL[0]),), k=50))\n"
        "    by_revision = engine.catalog.page(1, 0, 10**6)\n"
        "    pairs = sorted(i.attributes['pair'] for i in by_revision if 'pair' in i.attributes)\n"
        "    assert pairs[::2] == pairs[1::2], pairs\n"
        "    seen = max(seen, len(pairs))\n"
        "print(seen)\n"
    )
    readers = [child(script, home) for _ in range(2)]
    with killing.opened(home) as engine:
        for n in range(25):
            engine.add([killing.item(f"left{n}", n, pair=n), killing.item(f"right{n}", n + 30, pair=n)])
        engine.save()
        (home / "stop").touch()
    assert all(int(said(reader)) > 0 for reader in readers)


# -- rights ------------------------------------------------------------------------------------------------------------

NOBODY = "if os.getuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
READ = (
    "try: engine = opened(home, create=False)\n"
    "except StoreError as error: print('refused', error); sys.exit()\n"
    "found = {hit.item.key for hit in engine.search(Query(terms=(Term(vector=POOL[0]),), k=50, where='id > 0'))}\n"
    "print(sorted(found))\n"
    "assert engine.check() == []\n"
)
REFUSED = (
    "for write in (lambda: engine.add([item('x', 1)]), lambda: engine.remove([1]), engine.save):\n"
    "    try: write(); print('written')\n"
    "    except StoreError as error: assert 'read-only' in str(error), error; print('refused')\n"
)


def read_only(home: Path) -> None:
    for path in [*home.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    home.chmod(0o555)


def test_a_read_only_home_can_be_searched_but_not_written(home: Path) -> None:
    read_only(home)
    try:
        out = said(child(NOBODY + READ + REFUSED, home)).splitlines()
    finally:
        home.chmod(0o755)
    assert "'a'" in out[0]
    assert "'b'" in out[0]
    assert out[1:] == ["refused"] * 3


def test_a_read_only_user_reads_beside_a_writer(home: Path) -> None:
    """What is only in the write-ahead log yet is seen, not skipped."""
    with killing.opened(home) as engine:
        engine.add([killing.item("fresh", 13)])
        assert (home / "catalog.db-wal").stat().st_size
        for path in home.iterdir():
            path.chmod(0o755 if path.is_dir() else 0o644)
        out = said(child(NOBODY + READ, home))
    assert "'fresh'" in out or out.startswith("refused"), "an answer without the newest commit would be wrong"


def test_a_home_that_may_not_be_entered_or_made_is_a_clear_error(home: Path) -> None:
    home.parent.chmod(0o700)
    script = NOBODY + (
        "for place in (home, home / 'below'):\n"
        "    for create in (True, False):\n"
        "        try: opened(place, create=create); print('opened')\n"
        "        except StoreError as error: print(str(place) in str(error))\n"
    )
    if os.getuid() != 0:
        pytest.skip("needs root to become another user")
    # The child reads the project before it gives up its rights: what it imports later it has imported by then.
    assert set(said(child(script, home)).splitlines()) == {"True"}


# -- a full disk -------------------------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing_that_was_committed(home: Path) -> None:
    size = (home / "catalog.db").stat().st_size
    script = (
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 300_000}, resource.RLIM_INFINITY))\n"
        "engine = opened(home)\n"
        "kept = 0\n"
        "try:\n"
        "    for n in range(10_000):\n"
        "        engine.add([item(f'new{n}', *range(22, 62))])\n"
        "        kept += 1\n"
        "except StoreError as error:\n"
        "    assert 'full' in str(error), error\n"
        "assert f'new{kept - 1}' in engine.files() and f'new{kept}' not in engine.files()\n"
        "assert engine.search('red')\n"
        "print(kept)\n"
    )
    kept = int(said(child(script, home)))
    assert 0 < kept < 10_000
    with killing.opened(home) as engine:
        assert {f"new{n}" for n in range(kept)} | {"a", "b"} <= set(engine.files())
        assert f"new{kept}" not in engine.files()
    assert killing.right(home) == []


def test_an_index_that_does_not_fit_leaves_the_old_one(home: Path) -> None:
    with killing.opened(home) as engine:
        engine.add([killing.item(f"more{n}", *range(22, 52)) for n in range(20)])
    before = (home / "index" / "1.mmx").read_bytes()
    script = (
        "engine = opened(home)\n"
        "with engine.writing():\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before)}, resource.RLIM_INFINITY))\n"
        "    assert engine.search('red'), 'a search does not fail because its index cannot be kept'\n"
        "    try: engine.save(); print('saved')\n"
        "    except StoreError as error: print(error)\n"
        "assert engine.search('red')\n"
    )
    assert "1.mmx" in said(child(script, home))
    assert os.listdir(home / "index") == ["1.mmx"]
    assert killing.right(home) == []
