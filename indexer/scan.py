"""Finding the files below a folder, with one ``scandir`` a folder and one ``stat`` a file."""

from __future__ import annotations

import dataclasses
import os
import re
import stat
from collections.abc import Callable, Collection, Sequence
from typing import TypeAlias

from indexer.report import Listener, Progress, Skipped, printable
from mmsearch.errors import ConfigError
from mmsearch.media import modality_of
from mmsearch.sound import needs_extra
from mmsearch.types import MEDIA, Modality

__all__ = ["LEFT_OUT", "Scan", "scan"]

LEFT_OUT = frozenset(
    (
        "@eaDir",
        "@Recycle",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "__MACOSX",
        "__pycache__",
        "lost+found",
        "node_modules",
    )
)
"""Folders that hold no files of the user's. Names with a dot in front (hidden, ``._*``, ``.git``) are out too."""

Excluder: TypeAlias = Callable[[str], bool]
"""Whether a path relative to the root is excluded; that of a folder ends in a slash."""


@dataclasses.dataclass(slots=True)
class Scan:
    """What lies below ``root``, an absolute path.

    ``files``: path -> (size in bytes, modification time in ns) of what mmsearch reads. ``closed``: folders that were
    not entered on purpose. ``unreadable``: folders and files that could not be looked at. ``missing``: no such root.
    ``left_out``: reason -> files that the model, or this installation, cannot take; a line for each reason.
    """

    root: str
    excludes: Excluder
    files: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    closed: set[str] = dataclasses.field(default_factory=set)
    unreadable: set[str] = dataclasses.field(default_factory=set)
    skipped: list[Skipped] = dataclasses.field(default_factory=list)
    left_out: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    missing: bool = False

    def has_lost(self, path: str) -> bool:
        """Whether ``path``, a file below the root that was found once and not this time, is to be forgotten."""
        relative = os.path.relpath(path, self.root)
        if self.excludes(relative):
            return True
        *folders, name = relative.split(os.sep)
        above = [self.root] + [os.path.join(self.root, *folders[: n + 1]) for n in range(len(folders))]
        if not self.unreadable.isdisjoint([*above, path]):
            return False
        # Left out by rule, so it was asked for by its own name; it stays as long as it is there.
        by_rule = name.startswith(".") or not self.closed.isdisjoint(above)
        return not (by_rule and os.path.isfile(path))


def scan(
    root: str,
    exclude: Sequence[str] = (),
    modalities: Collection[Modality] = MEDIA,
    progress: Listener | None = None,
) -> Scan:
    """All files of ``modalities`` below the folder ``root``, or that file itself.

    ``exclude`` are globs as in a ``.gitignore`` there. Links to files are followed, links to folders are not. A root
    that is missing is one without files. What cannot be read or named becomes a line in ``skipped``.

    Raises ``ConfigError`` for a glob that is none.
    """
    root = os.path.abspath(root)
    found = Scan(root, _excluder(exclude))
    try:
        status = os.stat(root)
    except (FileNotFoundError, NotADirectoryError):
        found.missing = True
        return found
    except (OSError, ValueError) as error:
        found.unreadable.add(root)
        _skip(found, root, f"cannot be looked at ({_reason(error)})")
        return found
    folders = [(root, "")]
    if not stat.S_ISDIR(status.st_mode):
        _take(found, root, status, modality_of(root), modalities)
        folders.clear()
    while folders:
        folder, relative = folders.pop()
        if progress:
            progress(Progress("scan", len(found.files), None, printable(folder)))
        folders += reversed(_folder(found, folder, relative, modalities))
    for reason, paths in found.left_out.items():
        if len(paths) == 1:
            _skip(found, paths[0], reason)
        else:
            _skip(
                found, root, f"{len(paths):,} files such as {printable(os.path.basename(paths[0]))}: {reason}"
            )
    return found


def _folder(
    found: Scan, folder: str, relative: str, modalities: Collection[Modality]
) -> list[tuple[str, str]]:
    """Take the files of one folder; returns its folders."""
    try:
        with os.scandir(folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):  # it went away since
            found.unreadable.add(folder)
            _skip(found, folder, f"the folder cannot be read ({_reason(error)})")
        return []
    inner = []
    for entry in entries:
        name = entry.name
        try:
            if entry.is_dir():
                below = f"{relative}{name}/"
                if name.startswith(".") or name in LEFT_OUT:
                    found.closed.add(entry.path)
                elif found.excludes(below):
                    continue
                elif not _is_utf8(name):
                    _skip(found, entry.path, _BAD_NAME)
                elif entry.is_symlink():
                    found.closed.add(entry.path)
                    _skip(found, entry.path, "is a link to a folder; give it by name to index what is in it")
                else:
                    inner.append((entry.path, below))
            elif (modality := modality_of(name)) and name[0] != "." and not found.excludes(relative + name):
                _take(found, entry.path, entry.stat(), modality, modalities)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                found.unreadable.add(entry.path)
            if modality_of(name) and not name.startswith("."):
                _skip(found, entry.path, f"cannot be looked at ({_reason(error)})")
    return inner


def _take(
    found: Scan,
    path: str,
    status: os.stat_result,
    modality: Modality | None,
    modalities: Collection[Modality],
) -> None:
    if not stat.S_ISREG(status.st_mode):
        _skip(found, path, "is not a regular file")
    elif not _is_utf8(path):
        _skip(found, path, _BAD_NAME)
    elif modality is None:
        _skip(found, path, f"mmsearch does not read {os.path.splitext(path)[1] or 'nameless'} files")
    elif modality not in modalities:
        _leave_out(found, path, f"the collection's model cannot encode {modality}")
    elif needs_extra(path):
        _leave_out(found, path, 'reading them needs an optional part: pip install "mmsearch[av]"')
    else:
        found.files[path] = (status.st_size, status.st_mtime_ns)


_BAD_NAME = "its name is not valid UTF-8; rename it"


def _leave_out(found: Scan, path: str, reason: str) -> None:
    found.unreadable.add(path)  # what was indexed with another model or installation stays
    found.left_out.setdefault(reason, []).append(path)


def _skip(found: Scan, path: str, reason: str) -> None:
    found.skipped.append(Skipped(printable(path), reason))


def _is_utf8(name: str) -> bool:
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _excluder(patterns: Sequence[str]) -> Excluder:
    if not patterns:
        return lambda _: False
    import pathspec

    try:
        spec = pathspec.GitIgnoreSpec.from_lines(patterns)
    except (ValueError, re.error) as error:
        raise ConfigError(f"exclude: {error}") from None
    return spec.match_file
