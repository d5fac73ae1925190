"""What the sound tower is judged by: read out of files of other programs, apart from what it learns from."""

import struct
import zlib
from pathlib import Path

import pytest

from mmsearch.training.judges import qt_resources
from mmsearch.training.sounds import JUDGES, PLAYED, SOURCES


def resources(files: dict[str, tuple[bytes, bool]]) -> bytes:
    """A resource file of version 1 as Qt's own compiler lays it out: a folder ``sounds`` with `files`."""
    names, offsets = b"", {}
    for name in ("sounds", *files):
        offsets[name] = len(names)
        names += struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")
    data, entries = b"", []
    for name, (content, packed) in files.items():
        stored = struct.pack(">I", len(content)) + zlib.compress(content) if packed else content
        entries.append(struct.pack(">IHHHI", offsets[name], int(packed), 0, 1, len(data)))
        data += struct.pack(">I", len(stored)) + stored
    tree = struct.pack(">IHII", 0, 2, 1, 1)  # the root, whose only child is row 1
    tree += struct.pack(">IHII", offsets["sounds"], 2, len(files), 2) + b"".join(entries)
    start = 20
    header = struct.pack(">4sIIII", b"qres", 1, start, start + len(tree), start + len(tree) + len(data))
    return header + tree + data + names


def test_files_in_a_qt_resource_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "farm.rcc"
    path.write_bytes(resources({"cow.ogg": (b"moo" * 50, False), "notes.qml": (b"text " * 90, True)}))
    assert dict(qt_resources(path)) == {"/sounds/cow.ogg": b"moo" * 50, "/sounds/notes.qml": b"text " * 90}


def test_another_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "farm.rcc"
    path.write_bytes(b"RIFF" + bytes(40))
    with pytest.raises(ValueError, match=r"farm\.rcc: no Qt resource file"):
        list(qt_resources(path))


def test_no_judge_is_a_source() -> None:
    assert not {source.name for source in (*SOURCES, PLAYED)} & set(JUDGES)
