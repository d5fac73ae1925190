"""Sounds on the command line: indexed, asked with, shown."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.colour_model import save_colour_model
from tests.e2e.conftest import Cli, Ran, in_process
from tests.sounds import save_sound
from tests.toy import tone


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red sound, and one that is blue after half a minute of green."""
    folder = tmp_path_factory.mktemp("sounds")
    save_sound(folder / "red.wav", tone("red"))
    long = np.concatenate([tone("green", seconds=35), tone(seconds=30), tone("blue", seconds=1.5)])
    save_sound(folder / "long.flac", long)
    return folder


@pytest.fixture
def heard(cli: Cli, sounds: Path) -> Cli:
    """The colours of ``home``, and the sounds."""
    assert cli("index", sounds).code == 0
    return cli


def names(ran: Ran) -> list[str]:
    assert ran.code == 0, ran.err
    return [Path(record["path"]).name for record in ran.records()]


def test_indexing_and_status_count_sounds(heard: Cli, sounds: Path) -> None:
    status = heard("status").out
    assert "audio" in next(line for line in status.splitlines() if line.startswith("parts"))
    assert heard("status", "--json").records()[0]["parts"]["audio"] == 1 + 34 + 1
    assert heard("index", sounds, "--json").records()[0]["unchanged"] == 2
    assert heard("check").out == "everything agrees\n"


def test_words_find_sounds(heard: Cli) -> None:
    assert names(heard("search", "blue", "--modality", "audio", "--json"))[0] == "long.flac"
    assert names(heard("search", "red", "--modality", "audio", "--json"))[0] == "red.wav"


def test_a_sound_finds_pictures_texts_and_sounds(heard: Cli, sounds: Path) -> None:
    red = sounds / "red.wav"
    assert names(heard("search", "--audio", red, "--modality", "image", "--json"))[0] == "red.png"
    assert names(heard("search", "--audio", red, "--modality", "text", "--json")) == ["notes.md"]
    assert names(heard("search", "--audio", red, "--modality", "audio", "--json"))[0] == "red.wav"
    blended = heard(
        "search", "--audio", red, "--add", "2:blue", "--subtract", "red", "--modality", "image", "--json"
    )
    assert names(blended)[0] == "blue.png"
    like = heard("search", "--audio", red, "--modality", "audio", "--json").records()[0]["id"]
    assert "red.wav" not in names(heard("search", "--like", like, "--json"))


def test_a_sound_comes_from_standard_input(heard: Cli, sounds: Path) -> None:
    given = (sounds / "red.wav").read_bytes()
    ran = heard("search", "--audio", "-", "--modality", "image", "--json", stdin=given)
    assert names(ran)[0] == "red.png"
    assert heard("search", "--audio", "-", "--audio", "-", stdin=given).code == 2
    empty = heard("search", "--audio", "-")
    assert (empty.code, empty.out) == (3, "")
    assert "empty" in empty.err


def test_hits_tell_when_in_the_recording(heard: Cli) -> None:
    ran = heard("search", "blue", "--modality", "audio", "--json")
    (part,) = [record["part"] for record in ran.records() if record["path"].endswith("long.flac")]
    assert (part["modality"], part["start"], part["end"]) == ("audio", pytest.approx(65), pytest.approx(66.5))
    (line,) = [
        line
        for line in heard("search", "blue", "--modality", "audio").out.splitlines()
        if "long.flac" in line
    ]
    assert line.endswith("1:05-1:07")
    shown = heard("show", ran.records()[0]["id"]).out
    assert "audio, 0:00-0:02" in shown
    assert "audio, 1:05-1:07" in shown
    assert "duration     66.5" in shown


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--audio", "gone.wav"], 3, "gone.wav: no such file"),
        (["--audio", "notes.wav"], 3, "is not a sound that can be read"),
        (["--audio", "."], 3, "is a folder"),
        (["--subtract", "red"], 2, "--audio"),
        (["red", "--modality", "sound"], 2, "audio"),
    ],
)
def test_what_is_no_sound_is_said_in_one_line(
    heard: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.wav").write_text("no sound at all")
    ran = heard("search", *arguments)
    assert ran.code == code
    assert says in ran.err
    assert "Traceback" not in ran.err


def test_a_model_without_the_tower_indexes_the_rest_and_says_what_it_left_out(
    sounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMSEARCH_HOME", str(tmp_path / "home"))
    deaf = save_colour_model(tmp_path / "deaf", audio=False)
    folder = tmp_path / "folder"
    shutil.copytree(sounds, folder)
    (folder / "red.txt").write_text("red")
    ran = in_process("index", folder, "--model", deaf)
    assert ran.code == 0
    assert "2 files such as long.flac: the collection's model cannot encode audio" in ran.out
    asked = in_process("search", "--audio", folder / "red.wav")
    assert asked.code == 5
    assert "no audio tower" in asked.err


def test_without_the_extra_voice_says_so(heard: Cli, sounds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)  # as if it were not installed
    for arguments in (["search", "--voice", sounds / "red.wav"], ["index", sounds, "--transcribe"]):
        ran = heard(*arguments)
        assert (ran.code, ran.out) == (5, "")
        assert 'pip install "mmsearch[voice]"' in ran.err
