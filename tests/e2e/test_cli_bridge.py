"""``mmsearch bridge`` where its extras are missing, and what is asked for first."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import in_process


def test_without_torch_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
    ran = in_process("bridge", "--model", "mini", "--out", tmp_path / "new")
    assert ran.code == 5
    assert 'pip install "mmsearch[train]"' in ran.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [(["--out", "new"], "what is to hear?"), (["--model", "mini"], "where to?")],
)
def test_what_is_to_hear_and_where_to_write_is_asked_for(given: list[str], message: str) -> None:
    ran = in_process("bridge", *given)
    assert ran.code == 2
    assert message in ran.err


def test_clap_without_its_extra_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else known(name)
    )
    ran = in_process("bridge", "--model", "mini", "--audio", "clap:some/model", "--out", tmp_path / "new")
    assert ran.code == 5
    assert 'pip install "mmsearch[clap]"' in ran.err
