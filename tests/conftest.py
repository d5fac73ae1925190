"""What every test starts from: settings and folders of its own, never those of whoever runs the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("mmsearch", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("mmsearch")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Started in the background of a script, as a CI may do. What ignores Ctrl-C has children that ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _nobodys_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MMSEARCH_"):
            monkeypatch.delenv(name)
    folder: Path = tmp_path_factory.mktemp("user")
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
