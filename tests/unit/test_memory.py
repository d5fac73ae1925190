"""Memory is given back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this is not glibc"
)

HOLES = """
import numpy as np
from mmsearch.memory import set_up_allocator, trim

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

set_up_allocator()
blocks = [np.ones(20_000, np.uint8) for _ in range(10_000)]
blocks = blocks[::10]  # what is free is 180 MB, in holes
before = resident()
trim()
print(before - resident())
assert all(block.all() for block in blocks)
"""


def test_free_pages_between_blocks_are_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLES],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100_000_000
