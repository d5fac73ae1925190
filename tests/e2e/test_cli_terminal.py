"""The command line on a terminal that this test plays: table, pictures, progress."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from pathlib import Path

import PIL.Image
import pytest

from tests.e2e.conftest import Cli, command_line, process_env

SIXEL = {b"\x1b[c": b"\x1b[?62;4c"}
"""A terminal that says it draws sixels, as iTerm2 and many others do."""

KITTY = {b"\x1b[c": b"\x1b[?62c", b"\x1b_G": b"\x1b_Gi=%d;OK\x1b\\"}
"""One that speaks kitty's graphics protocol."""

PLAIN = {b"\x1b[c": b"\x1b[?62c"}
"""One that does neither."""


def on_terminal(
    *arguments: object,
    answers: dict[bytes, bytes] = PLAIN,
    stdin: bool = True,
    size: tuple[int, int, int, int] = (40, 80, 800, 800),
    code: int = 0,
) -> str:
    """Run a command on a terminal (rows, columns, and both in pixels) that answers questions; what it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size))
    env = process_env() | {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    running = subprocess.Popen(
        command_line(*arguments),
        env=env,
        stdin=theirs if stdin else subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    answered = 0
    until = time.monotonic() + 120
    while time.monotonic() < until:
        readable, _, _ = select.select([ours], [], [], 1)
        try:
            chunk = os.read(ours, 65536) if readable else b""
        except OSError:  # Linux's way to say that the other end is closed
            break
        written += chunk
        for question, answer in answers.items():
            at = written.find(question, answered)
            if at >= 0:
                answered = at + len(question)
                number = re.search(rb"i=(\d+)", written[at:])
                os.write(ours, answer.replace(b"%d", number[1]) if b"%d" in answer and number else answer)
    running.wait(timeout=60)
    os.close(ours)
    assert running.returncode == code, written
    return written.decode("utf-8", "replace")


def lines(written: str) -> list[str]:
    """What a person sees: without colours and links."""
    bare = re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\x1b\]8;[^\x1b]*\x1b\\", "", written)
    return [line.rstrip() for line in bare.splitlines()]


def test_the_table_is_80_columns_wide_and_safe(
    home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos)
    written = on_terminal("search", "red")
    seen = lines(written)
    assert seen[0] == "#  score  id  item"
    assert all(len(line) <= 80 for line in seen)
    assert any(line.endswith("red.png") for line in seen)
    assert any(r"sub/a\nb \x1b[31m.png" in line for line in seen)
    assert any(line.strip().startswith("The red car stood there.") for line in seen)
    assert "\x1b]8;" in written, "paths are links"
    assert "\x1b[31m" not in written, "a file name cannot colour the terminal"


def test_long_paths_are_shortened_in_the_middle(cli: Cli, model: Path, tmp_path: Path) -> None:
    deep = tmp_path / "a folder with a long name" / "and another one below it"
    deep.mkdir(parents=True)
    PIL.Image.new("RGB", (8, 8), "red").save(deep / "picture.png")
    assert cli("index", deep.parent, "--collection", "long", "--model", model).code == 0
    seen = lines(on_terminal("search", "red", "--collection", "long"))
    assert len(seen[1]) <= 80
    assert seen[1].endswith("…/picture.png")


@pytest.mark.parametrize(
    ("answers", "sign"),
    [(SIXEL, "\x1bP"), (KITTY, "\x1b_G"), (PLAIN, "▀")],
    ids=["sixel", "kitty", "half blocks"],
)
def test_pictures_are_drawn_the_way_the_terminal_can(
    home: Path, answers: dict[bytes, bytes], sign: str
) -> None:
    drawn = on_terminal("search", "red", "--preview", "-k", "1", answers=answers)
    without = on_terminal("search", "red", "-k", "1", answers=answers)
    assert sign in drawn
    assert sign not in without
    if sign != "▀":
        assert "▀" not in drawn
    assert any("red.png" in line for line in lines(drawn))


def test_half_blocks_are_drawn_when_the_terminal_cannot_be_asked(home: Path) -> None:
    assert "▀" in on_terminal("search", "red", "--preview", "-k", "1", stdin=False)


def test_a_terminal_that_tells_no_size_is_refused_for_pictures_only(home: Path) -> None:
    nothing = (0, 0, 0, 0)
    assert "does not tell its size" in on_terminal("search", "red", "--preview", size=nothing, code=2)
    assert "red.png" in on_terminal("search", "red", size=nothing)


def test_a_picture_that_is_gone_is_said_in_its_place(cli: Cli, model: Path, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    PIL.Image.new("RGB", (8, 8), "red").save(tmp_path / "few" / "gone.png")
    assert cli("index", tmp_path / "few", "--collection", "few", "--model", model).code == 0
    (tmp_path / "few" / "gone.png").unlink()
    assert "no such file" in on_terminal("search", "red", "--preview", "--collection", "few")


def test_indexing_draws_a_bar_and_leaves_only_the_summary(home: Path, model: Path, photos: Path) -> None:
    written = on_terminal("index", photos, "--collection", "new", "--model", model)
    assert re.search(r"indexing", written)
    assert re.search(r"\d+/9 [\d,]+/s", written)
    assert "7 added, 2 skipped (1 copy)" in lines(written)[-1]
