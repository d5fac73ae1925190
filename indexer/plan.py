"""What a run has to do: the files on disk against the files in the catalog."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from indexer.scan import Scan
from mmsearch.errors import PruneRefused
from mmsearch.rows import FileRecord

__all__ = ["File", "Plan", "make_plan"]


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    """A file to read. ``size`` in bytes, ``mtime_ns`` in nanoseconds since 1970."""

    path: str
    size: int
    mtime_ns: int


@dataclasses.dataclass(slots=True)
class Plan:
    """``todo``: files that are new or changed. ``known``: what the catalog has of the roots, also root by root.

    ``lost``: known files that are gone, ``by_hash`` their paths by content: they may turn up elsewhere.
    """

    todo: list[File]
    unchanged: int
    known: dict[str, FileRecord]
    lost: dict[str, FileRecord]
    roots: Mapping[str, Collection[str]]
    by_hash: dict[bytes, list[str]]

    def moved(self, content_hash: bytes, path: str) -> FileRecord | None:
        """The lost file that is now at ``path``, if there is one with this content; it is lost no longer."""
        candidates = self.by_hash.get(content_hash)
        if not candidates:
            return None
        name = os.path.basename(path)
        best = max(
            candidates, key=lambda lost: (os.path.basename(lost) == name, os.path.commonpath((lost, path)))
        )
        candidates.remove(best)
        return self.lost.pop(best)

    def refuse_to_prune(self, found_elsewhere: Mapping[int, int]) -> None:
        """Raise ``PruneRefused`` if more than half of a root's files are lost.

        ``found_elsewhere``: size in bytes -> number of new files of that size, which may be lost ones that moved.
        """
        for root, keys in self.roots.items():
            spare = Counter(found_elsewhere)
            missing = 0
            for key in keys:
                if key in self.lost:
                    size = self.lost[key].size
                    missing += spare[size] <= 0
                    spare[size] -= 1
            if missing * 2 > len(keys):
                raise PruneRefused(
                    f"{root}: {missing} of the {len(keys)} files known there are gone; nothing was removed. "
                    "If the disk is not connected, connect it; to forget the files, run it again with --prune"
                )


def make_plan(
    scans: Sequence[Scan],
    known: Mapping[str, Mapping[str, FileRecord]],
    *,
    prune: bool,
    again: Collection[str] = (),
) -> Plan:
    """Compare what was found with ``known``: root -> path -> record. Files in ``again`` are read even if unchanged.

    Raises ``PruneRefused`` (unless ``prune``) if more than half of a root's files are gone and no new file could be
    one of them.
    """
    records: dict[str, FileRecord] = {}
    found: dict[str, tuple[int, int]] = {}
    for scan in scans:
        records.update(known[scan.root])
        found.update(scan.files)
    todo, unchanged = [], 0
    for path, (size, mtime_ns) in found.items():
        record = records.get(path)
        if record is not None and (record.size, record.mtime_ns) == (size, mtime_ns) and path not in again:
            unchanged += 1
        else:
            todo.append(File(path, size, mtime_ns))
    lost = {
        path: record
        for scan in scans
        for path, record in known[scan.root].items()
        if path not in found and scan.has_lost(path)
    }
    by_hash: dict[bytes, list[str]] = {}
    for path, record in lost.items():
        if record.content_hash is not None:
            by_hash.setdefault(record.content_hash, []).append(path)
    plan = Plan(todo, unchanged, records, lost, known, by_hash)
    if not prune:
        plan.refuse_to_prune(Counter(file.size for file in todo if file.path not in records))
    return plan
