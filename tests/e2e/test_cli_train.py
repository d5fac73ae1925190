"""``mmsearch train`` where there is no torch, and what is wrong before torch is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import in_process


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    ran = in_process("train", tmp_path / "pairs.csv", "--out", tmp_path / "new")
    assert ran.code == 5
    assert 'pip install "mmsearch[train]"' in ran.err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--out", "new"], "train on what?"),
        (["pairs.csv", "--collection", "shop", "--out", "new"], "train on what?"),
        (["pairs.csv"], "where to?"),
    ],
)
def test_what_to_train_on_and_where_to_write_is_asked_for(given: list[str], message: str) -> None:
    ran = in_process("train", *given)
    assert ran.code == 2
    assert message in ran.err
