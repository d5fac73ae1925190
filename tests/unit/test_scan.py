"""Scanning folders: which files are found, which are left out, which are reported."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexer.report import Progress
from indexer.scan import Scan, scan
from mmsearch.errors import ConfigError
from mmsearch.types import Modality

NOBODY = 65534


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * len(name))


def found(scanned: Scan) -> list[str]:
    return sorted(os.path.relpath(path, scanned.root) for path in scanned.files)


def reasons(scanned: Scan) -> dict[str, str]:
    return {os.path.relpath(line.path, scanned.root): line.reason for line in scanned.skipped}


@pytest.fixture
def ordinary_folder() -> Iterator[Path]:
    """A folder that an ordinary user may enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for inner in folder.iterdir():
        inner.chmod(0o755)
    shutil.rmtree(folder)


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything; run as somebody who may not."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(mine)


def test_pictures_and_texts_are_found_with_size_and_time(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b/c.PNG", "b/d/e.md", "f.pdf", "g.exe", "h", "i.jpg.bak")
    scanned = scan(str(tmp_path))
    assert found(scanned) == ["a.jpg", "b/c.PNG", "b/d/e.md", "f.pdf"]
    status = (tmp_path / "a.jpg").stat()
    assert (
        scanned.files[str(tmp_path / "a.jpg")]
        == (5, status.st_mtime_ns)
        == (status.st_size, status.st_mtime_ns)
    )
    assert scanned.skipped == []


def test_files_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "c.jpg", "a.jpg", "b/2.jpg", "b/1.jpg", "a/1.jpg")
    names = [os.path.relpath(path, tmp_path) for path in scan(str(tmp_path)).files]
    assert names == ["a.jpg", "c.jpg", "a/1.jpg", "b/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.jpg",
        "._a.jpg",
        ".git/a.jpg",
        "b/.thumbnails/c/a.jpg",
        "@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg",
        "b/node_modules/x/logo.png",
        "__MACOSX/a.jpg",
        "$RECYCLE.BIN/a.jpg",
        "System Volume Information/a.jpg",
        "lost+found/a.jpg",
        "Thumbs.db",
        ".jpg",
    ],
)
def test_what_is_not_the_users_is_left_out_without_a_word(tmp_path: Path, name: str) -> None:
    touch(tmp_path, name, "kept.jpg")
    scanned = scan(str(tmp_path))
    assert found(scanned) == ["kept.jpg"]
    assert scanned.skipped == []


def test_a_hidden_folder_given_by_name_is_scanned(tmp_path: Path) -> None:
    touch(tmp_path, ".photos/a.jpg", ".photos/.b.jpg")
    assert found(scan(str(tmp_path / ".photos"))) == ["a.jpg"]


def test_a_file_given_by_name_is_found_even_if_it_is_hidden_or_excluded(tmp_path: Path) -> None:
    touch(tmp_path, ".a.jpg")
    path = str(tmp_path / ".a.jpg")
    assert list(scan(path, ["*.jpg"]).files) == [path]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["*.png"], ["a/b.jpg", "raw.jpg", "raw/d.jpg", "raw/e/f.jpg"]),
        (["raw/"], ["a/b.jpg", "a/c.png", "raw.jpg"]),
        (["/a"], ["raw.jpg", "raw/d.jpg", "raw/e/f.jpg"]),
        (["raw*"], ["a/b.jpg", "a/c.png"]),
        (["raw/*", "!raw/e/"], ["a/b.jpg", "a/c.png", "raw.jpg", "raw/e/f.jpg"]),
        (["**/f.jpg", "", "# a remark"], ["a/b.jpg", "a/c.png", "raw.jpg", "raw/d.jpg"]),
        (["RAW/"], ["a/b.jpg", "a/c.png", "raw.jpg", "raw/d.jpg", "raw/e/f.jpg"]),
    ],
)
def test_exclude_globs_read_as_in_a_gitignore(
    tmp_path: Path, patterns: list[str], expected: list[str]
) -> None:
    touch(tmp_path, "a/b.jpg", "a/c.png", "raw.jpg", "raw/d.jpg", "raw/e/f.jpg")
    assert found(scan(str(tmp_path), patterns)) == expected


@pytest.mark.parametrize("pattern", ["!", "a\\", "[z-a]"])
def test_a_glob_that_is_none_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match="exclude"):
        scan(str(tmp_path), [pattern])


def test_an_excluded_folder_is_not_entered(tmp_path: Path) -> None:
    touch(tmp_path, "kept/a.jpg", "raw/b.jpg", "raw/deep/c.jpg")
    folders: list[str] = []
    scan(str(tmp_path), ["raw"], progress=lambda progress: folders.append(progress.path))
    assert folders == [str(tmp_path), str(tmp_path / "kept")]


def test_progress_tells_the_folder_and_the_files_so_far(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b/c.jpg")
    heard: list[Progress] = []
    scan(str(tmp_path), progress=heard.append)
    assert heard == [Progress("scan", 0, None, str(tmp_path)), Progress("scan", 1, None, str(tmp_path / "b"))]


def test_only_the_modalities_asked_for_are_found_and_the_others_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.txt")
    scanned = scan(str(tmp_path), modalities=[Modality.IMAGE])
    assert found(scanned) == ["a.jpg"]
    assert "cannot encode text" in reasons(scanned)["b.txt"]


def test_files_of_a_modality_that_the_model_lacks_are_one_line(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.wav", "c/d.mp3", "c/e.flac")
    scanned = scan(str(tmp_path), modalities=[Modality.IMAGE, Modality.TEXT])
    assert found(scanned) == ["a.jpg"]
    (line,) = scanned.skipped
    assert line.path == str(tmp_path)
    assert line.reason == "3 files such as b.wav: the collection's model cannot encode audio"


def test_what_the_model_cannot_take_is_not_lost(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.jpg")
    scanned = scan(str(tmp_path), modalities=[Modality.IMAGE])
    assert not scanned.has_lost(str(tmp_path / "a.wav"))
    assert scanned.has_lost(str(tmp_path / "gone.wav"))


def test_sound_tracks_without_their_extra_are_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.m4a", "b.MP4", "c.mp3")
    assert len(found(scan(str(tmp_path)))) == 3
    monkeypatch.setitem(sys.modules, "av", None)  # as if it were not installed
    scanned = scan(str(tmp_path))
    assert found(scanned) == ["c.mp3"]
    (line,) = scanned.skipped
    assert line.reason.startswith("2 files such as ")
    assert 'pip install "mmsearch[av]"' in line.reason


def test_links_to_files_are_followed_and_links_to_folders_are_reported(tmp_path: Path) -> None:
    touch(tmp_path, "outside/a.jpg", "root/b.jpg")
    (tmp_path / "root/link.jpg").symlink_to("../outside/a.jpg")
    (tmp_path / "root/loop").symlink_to(".")
    (tmp_path / "root/loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "root/nothing.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "root/nothing.exe").symlink_to("nowhere.exe")
    scanned = scan(str(tmp_path / "root"))
    assert found(scanned) == ["b.jpg", "link.jpg"]
    assert scanned.files[str(tmp_path / "root/link.jpg")][0] == len("outside/a.jpg")
    assert reasons(scanned).keys() == {"loop", "loop.jpg", "nothing.jpg"}
    assert "link to a folder" in reasons(scanned)["loop"]
    assert scanned.has_lost(str(tmp_path / "root/nothing.jpg"))
    assert not scanned.has_lost(str(tmp_path / "root/loop.jpg"))


def test_a_root_that_is_a_link_is_followed_under_its_own_name(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert list(scan(str(tmp_path / "link")).files) == [str(tmp_path / "link/a.jpg")]


@pytest.mark.parametrize("given", ["{}/x/../photos", "{}/photos/", "{}//photos/."])
def test_paths_are_absolute_and_tidy(tmp_path: Path, given: str) -> None:
    touch(tmp_path, "photos/a.jpg", "x/b.jpg")
    assert list(scan(given.format(tmp_path)).files) == [str(tmp_path / "photos/a.jpg")]


def test_a_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.jpg")
    monkeypatch.chdir(tmp_path)
    assert list(scan(".").files) == [str(tmp_path / "a.jpg")]


def test_odd_names_are_found_as_they_are(tmp_path: Path) -> None:
    names = [
        "new\nline.jpg",
        "né.jpg",
        "ne\u0301.jpg",
        "x" * 251 + ".jpg",
        " .jpg",
        "猫🐈.jpg",
        "-rf.jpg",
        "a\tb.jpg",
    ]
    touch(tmp_path, *names)
    assert found(scan(str(tmp_path))) == sorted(names)


def test_names_that_are_no_utf8_are_reported_printably(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    os.mkdir(folder + b"/caf\xe9")
    for name in (b"/caf\xe9/a.jpg", b"/b\xff.jpg", b"/c\xff.exe"):
        with open(folder + name, "wb"):
            pass
    scanned = scan(str(tmp_path))
    assert scanned.files == {}
    assert reasons(scanned).keys() == {"caf\\xe9", "b\\xff.jpg"}
    assert all("UTF-8" in reason for reason in reasons(scanned).values())


def test_special_files_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # the address of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        scanned = scan(str(tmp_path))
    assert scanned.files == {}
    assert reasons(scanned) == {"pipe.jpg": "is not a regular file", "socket.jpg": "is not a regular file"}


def test_a_file_of_another_kind_given_by_name_is_reported(tmp_path: Path) -> None:
    touch(tmp_path, "a.exe", "b")
    assert ".exe" in scan(str(tmp_path / "a.exe")).skipped[0].reason
    assert len(scan(str(tmp_path / "b")).skipped) == 1


def test_a_missing_root_is_one_without_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    for root in ("nowhere", "a.jpg/below"):
        scanned = scan(str(tmp_path / root))
        assert (scanned.files, scanned.skipped, scanned.missing) == ({}, [], True)


def test_a_root_with_a_nul_byte_is_reported(tmp_path: Path) -> None:
    assert len(scan(str(tmp_path / "a\0b")).skipped) == 1


def test_a_tree_deeper_than_a_path_may_be_ends_in_a_report(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("d" * 250, dir_fd=here)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("deep.jpg", os.O_CREAT, dir_fd=here))
    os.close(here)
    scanned = scan(str(tmp_path))
    assert found(scanned) == ["a.jpg"]
    assert len(scanned.skipped) == 1
    shutil.rmtree(tmp_path)


def test_what_may_not_be_read_is_reported_and_counts_as_not_lost(ordinary_folder: Path) -> None:
    touch(ordinary_folder, "open/a.jpg", "no/entry/b.jpg", "no_stat/c.jpg")
    (ordinary_folder / "no").chmod(0)
    (ordinary_folder / "no_stat").chmod(0o444)
    with ordinary_user():
        scanned = scan(str(ordinary_folder))
        assert scan(str(ordinary_folder / "no/entry")).unreadable == {str(ordinary_folder / "no/entry")}
    assert found(scanned) == ["open/a.jpg"]
    assert reasons(scanned).keys() == {"no", "no_stat/c.jpg"}
    assert not scanned.has_lost(str(ordinary_folder / "no/entry/b.jpg"))
    assert not scanned.has_lost(str(ordinary_folder / "no_stat/c.jpg"))
    assert scanned.has_lost(str(ordinary_folder / "open/gone.jpg"))


def test_what_was_asked_for_by_name_is_lost_only_when_it_is_gone(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.jpg", ".folder/a.jpg", "other/b.jpg", "raw/c.jpg")
    (tmp_path / "link").symlink_to("other")
    scanned = scan(str(tmp_path), ["raw/"])
    for kept in (".hidden.jpg", ".folder/a.jpg", "link/b.jpg"):
        assert not scanned.has_lost(str(tmp_path / kept)), kept
    for lost in (
        ".gone.jpg",
        ".folder/gone.jpg",
        "link/gone.jpg",
        "gone.jpg",
        "raw/c.jpg",
        "other/gone/d.jpg",
    ):
        assert scanned.has_lost(str(tmp_path / lost)), lost
