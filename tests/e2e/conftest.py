"""The command line on a small collection of colours, in this process (quick) or in one of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import PIL.Image
import pytest

import mmsearch.cli
from tests.colour_model import save_colour_model
from tests.toy import COLOURS

ROOT = Path(__file__).parents[2]
NOTES = "The red car stood there.\n\nLater on a green one came."


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    stdout: bytes
    err: str

    @property
    def out(self) -> str:
        return self.stdout.decode()

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]


Cli: TypeAlias = Callable[..., Ran]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that knows colours and their names."""
    return save_colour_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of one colour each, a copy, a name with a line end, a text, and two files that are no pictures."""
    folder = tmp_path_factory.mktemp("photos")
    for colour in ("red", "green", "blue", "white"):
        PIL.Image.new("RGB", (32, 24), COLOURS[colour]).save(folder / f"{colour}.png")
    (folder / "sub").mkdir()
    shutil.copy(folder / "green.png", folder / "sub" / "copy.png")
    PIL.Image.new("RGB", (64, 48), (200, 30, 30)).save(folder / "sub" / "a\nb \x1b[31m.png")
    (folder / "notes.md").write_text(NOTES)
    (folder / "broken.jpg").write_bytes(b"this is no picture")
    (folder / "empty.png").touch()
    return folder


@pytest.fixture(scope="session")
def indexed(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where ``photos`` are indexed. Not to be written to: see ``home``."""
    home = tmp_path_factory.mktemp("indexed") / "home"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMSEARCH_HOME", str(home))
        ran = in_process("index", photos, "--model", model)
    assert ran.code == 0, ran.err
    return home


@pytest.fixture
def home(indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of ``indexed`` that every command of the test works on."""
    copy = tmp_path / "home"
    shutil.copytree(indexed, copy)
    monkeypatch.setenv("MMSEARCH_HOME", str(copy))
    return copy


@pytest.fixture
def cli(home: Path) -> Cli:
    """Run a command in this process on ``home``."""
    return in_process


def in_process(*arguments: object, stdin: bytes = b"") -> Ran:
    """Run a command in this process. An unexpected exception passes through."""
    out, err = io.BytesIO(), io.BytesIO()
    with contextlib.ExitStack() as stack:
        old = sys.stdin
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
        stack.callback(setattr, sys, "stdin", old)
        stdout = io.TextIOWrapper(out, encoding="utf-8", newline="")
        stderr = io.TextIOWrapper(err, encoding="utf-8", newline="")
        stack.enter_context(contextlib.redirect_stdout(stdout))
        stack.enter_context(contextlib.redirect_stderr(stderr))
        code = mmsearch.cli.run([str(argument) for argument in arguments])
        stdout.flush()
        stderr.flush()
        return Ran(code, out.getvalue(), err.getvalue().decode())


def command_line(*arguments: object) -> list[str]:
    """The command as a process of its own would be started with it."""
    return [sys.executable, "-m", "mmsearch", *map(str, arguments)]


def process(*arguments: object, **options: Any) -> Ran:
    """Run a command in a process of its own."""
    ran = subprocess.run(
        command_line(*arguments), capture_output=True, check=False, env=process_env(), **options
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr.decode())


def process_env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}


@contextlib.contextmanager
def ordinary_user(*needed: Path) -> Iterator[None]:
    """Be a user whom file modes bind (root is not), who can reach the ``needed`` folders inside pytest's own.

    What a command imports must have been imported before: this user may not be able to read the Python installation.
    """
    with contextlib.ExitStack() as stack:
        if os.getuid() == 0:
            for folder in {parent for path in needed for parent in (path, *path.parents)}:
                mode = folder.stat().st_mode
                if mode & 0o055 != 0o055 and folder.owner() == "root":
                    folder.chmod(mode | 0o055)
                    stack.callback(folder.chmod, mode)
            stack.callback(os.setresuid, 0, 0, 0)
            os.setresuid(65534, 65534, 0)
        yield
