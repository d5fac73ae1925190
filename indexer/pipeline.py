"""Bring a collection in line with folders of files: scan, decode on threads, encode and commit in batches."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import cast

from indexer.plan import File, make_plan
from indexer.prepare import Prepared, Preparer
from indexer.report import Listener, Progress, Report, Skipped, printable
from indexer.scan import scan
from indexer.speech import TRANSCRIBED, Speech
from mmsearch.engine import Engine
from mmsearch.errors import MediaError, PruneRefused
from mmsearch.rows import FileRecord, FileUpdate
from mmsearch.types import Image, Modality, NewItem, NewPart

__all__ = ["index"]

COMMIT_ITEMS = 256
COMMIT_SECONDS = 2.0
"""So many items or seconds at most go into one commit, and at most so much is lost when a run is killed."""

TEXT_BATCHES = 8
"""So many batches of texts are handed to the encoder at once: it sorts them by length and pads a quarter less."""


def index(
    engine: Engine,
    paths: Sequence[str | Path],
    *,
    exclude: Sequence[str] = (),
    prune: bool = False,
    transcribe: bool | None = None,
    progress: Listener | None = None,
    workers: int | None = None,
) -> Report:
    """Index the files below ``paths`` (folders or files) and forget those that are gone.

    An unchanged file costs a ``stat``. A changed one is encoded again and keeps its id; one that moved within or
    between the given folders keeps id and vectors; content that is known is never encoded again. ``exclude`` are globs
    as in a ``.gitignore`` in each folder. ``prune`` allows more than half of a folder's files to be forgotten.
    ``transcribe`` also writes down what is said in recordings (extra ``voice``), be they indexed already; None goes on
    doing so in folders that hold a transcribed recording.
    ``workers`` is the number of decode threads (default: two, or one a core).

    A file that cannot be indexed becomes a line in the report with its reason, and an item that it had before stays.
    Whatever was committed before an interruption is kept, and the next run goes on from there.

    Raises ``MediaError`` for a path that does not exist, ``PruneRefused``, ``CatalogBusy``, and ``MissingExtra``, and
    what ``Engine.add`` raises about the catalog or the model.
    """
    started = time.perf_counter()
    with engine.writing(what="indexing"):
        run = _Run(engine, progress)
        run.compare(paths, exclude, prune, transcribe)
        try:
            run.take_all(workers or max(2, min(16, os.cpu_count() or 2)))
            run.forget(prune)
        except (KeyboardInterrupt, PruneRefused):
            run.save()
            raise
        run.save()
    run.report.total = time.perf_counter() - started
    return run.report


class _Run:
    """One run. All but the decoding happens on the caller's thread."""

    def __init__(self, engine: Engine, progress: Listener | None) -> None:
        self.report = Report()
        self._engine = engine
        self._encoder = engine.encoder
        self._progress = progress
        self._plan = make_plan((), {}, prune=False)
        self._gone: list[str] = []  # roots that are not there
        self._speech = Speech(engine, {}, False)
        self._prepare = Preparer(self._encoder, ())
        self._queues: dict[Modality, list[tuple[list[NewPart], int]]] = {
            Modality.IMAGE: [],
            Modality.TEXT: [],
        }
        self._pending: list[Prepared] = []  # to be added by the next commit
        self._moves: list[
            tuple[FileRecord, File]
        ] = []  # renamed or touched: to be updated by the next commit
        self._parts: dict[bytes, Prepared] = {}  # what is pending, by content
        self._sources: dict[bytes, int] = {}  # what is committed: content -> item id
        self._last_commit = time.monotonic()

    def compare(
        self, paths: Sequence[str | Path], exclude: Sequence[str], prune: bool, transcribe: bool | None
    ) -> None:
        """Find out what is to be done."""
        with self._timed("scan"):
            roots = dict.fromkeys(os.path.abspath(path) for path in paths)
            scans = [scan(root, exclude, self._encoder.modalities, self._progress) for root in roots]
            known = {found.root: self._engine.files(found.root) for found in scans}
            remembered = self._engine.roots()
            self._gone = [found.root for found in scans if found.missing]
            for root in self._gone:
                if not known[root] and root not in remembered:
                    raise MediaError(root, "no such file or folder")
            self._speech = Speech(self._engine, known, transcribe)
            self._plan = make_plan(scans, known, prune=prune, again=self._speech.behind)
            hashes = {file.content_hash for file in self._plan.known.values()}
            self._prepare = Preparer(self._encoder, hashes, self._speech.write_down)
            self.report.unchanged = self._plan.unchanged
            self.report.skipped = list(dict.fromkeys(line for found in scans for line in found.skipped))
        for root in roots:
            if os.path.isdir(root) and remembered.get(root) != list(exclude):
                self._engine.remember_root(root, exclude)

    def take_all(self, workers: int) -> None:
        """Read, decode, encode and commit what is new or changed."""
        todo = self._plan.todo
        ahead = 2 * workers + self._encoder.batch_size
        window: deque[Future[Prepared | MediaError]] = deque()
        with ThreadPoolExecutor(workers, "decode") as pool:
            try:
                for start in range(0, len(todo), self._encoder.batch_size):
                    files = todo[start : start + self._encoder.batch_size]
                    arrived = []
                    for n in range(start, start + len(files)):
                        while len(window) < ahead and n + len(window) < len(todo):
                            file = todo[n + len(window)]
                            again = file.path in self._speech.behind
                            window.append(pool.submit(self._prepare, file, decode=again))
                        arrived.append(window.popleft().result())
                    self._look_up(arrived)
                    for n, (file, ready) in enumerate(zip(files, arrived, strict=True), start + 1):
                        self._take(file, ready)
                        if self._progress:
                            self._progress(Progress("index", n, len(todo), printable(file.path)))
                    waiting = len(self._pending) + len(self._moves)
                    if waiting >= COMMIT_ITEMS or time.monotonic() - self._last_commit >= COMMIT_SECONDS:
                        self._commit()
                self._commit()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if isinstance(error, KeyboardInterrupt):
                    self._store()
                raise

    def forget(self, prune: bool) -> None:
        """Remove the items of files that are gone and did not turn up elsewhere, and forget roots that are gone."""
        if not prune:
            self._plan.refuse_to_prune({})
        if self._plan.lost:
            with self._timed("commit"):
                self.report.removed = self._engine.remove([record.id for record in self._plan.lost.values()])
        for root in self._gone:
            self._engine.forget_root(root)

    def save(self) -> None:
        """Write the index file."""
        with self._timed("save"):
            self._engine.save()

    def _look_up(self, arrived: Sequence[Prepared | MediaError]) -> None:
        """Find the items that have the content of some of these files, in one query."""
        digests = {ready.content_hash for ready in arrived if isinstance(ready, Prepared)}
        self._sources = self._engine.by_hash(digests)

    def _take(self, file: File, ready: Prepared | MediaError) -> None:
        """Decide what becomes of a file that was read."""
        if isinstance(ready, MediaError):
            self.report.skipped.append(Skipped(printable(file.path), ready.reason))
            return
        self.report.seconds["read"] += ready.read_seconds
        self.report.seconds["decode"] += ready.decode_seconds
        self.report.seconds["encode"] += ready.encode_seconds
        record = self._plan.known.get(file.path)
        same = record is not None and record.content_hash == ready.content_hash
        if record is not None and same and file.path not in self._speech.behind:
            self._moves.append((record, ready.file))
            self.report.unchanged += 1
            return
        moved = self._plan.moved(ready.content_hash, file.path) if record is None else None
        if moved is not None:
            self._moves.append((moved, ready.file))
            self.report.renamed += 1
            return
        copied = self._copy(ready)
        if not copied and ready.parts is None:
            # known when it was read, and not any more: what had this content has changed in between
            self._take(file, self._prepare(file, decode=True))
            return
        self.report.copies += copied
        self.report.notes += [Skipped(printable(file.path), note) for note in ready.notes]
        if record is None:
            self.report.added += 1
        else:
            self.report.updated += 1
        self._pending.append(ready)
        if not copied and ready.parts is not None:
            self.report.transcribed += TRANSCRIBED in ready.attributes
            self._parts[ready.content_hash] = ready
            for n, part in enumerate(ready.parts):
                if part.vector is None:
                    self._queues[part.modality].append((ready.parts, n))
            for modality, queue in self._queues.items():
                while len(queue) >= self._batch(modality):
                    self._encode(modality)

    def _copy(self, ready: Prepared) -> bool:
        """Give it the parts of a file with the same content, if there is one that has what this one is to have."""
        twin = self._parts.get(ready.content_hash)
        source = self._sources.get(ready.content_hash)
        copy = dataclasses.replace(ready)
        heard = ready.modality is Modality.AUDIO  # what is known of a sound is known from decoding it
        if twin is not None:
            copy.parts, copy.title = twin.parts, twin.title
            copy.attributes = dict(twin.attributes) if heard else ready.attributes
        elif source is not None:
            (item,) = self._engine.get([source])
            copy.title = None if item.title == Path(item.key).stem else item.title
            copy.parts = self._engine.copy_parts(source)
            copy.attributes = dict(item.attributes) if heard else ready.attributes
        else:
            return False
        if not self._speech.fits(copy):
            return False
        ready.parts, ready.title, ready.attributes = copy.parts, copy.title, copy.attributes
        return True

    def _batch(self, modality: Modality) -> int:
        return self._encoder.batch_size * (TEXT_BATCHES if modality is Modality.TEXT else 1)

    def _encode(self, modality: Modality) -> None:
        """Encode the next batch of a queue and put the vectors into the parts."""
        with self._timed("encode"):
            queue = self._queues[modality]
            batch = queue[: self._batch(modality)]
            contents = [parts[n].content for parts, n in batch]
            if modality is Modality.IMAGE:
                vectors = self._encoder.encode_images(cast(list[Image], contents))
            else:
                vectors = self._encoder.encode_texts(cast(list[str], contents))
            for (parts, n), content, vector in zip(batch, contents, vectors, strict=True):
                said = content if isinstance(content, str) else None
                parts[n] = dataclasses.replace(parts[n], content=None, vector=vector, text=said)
            del queue[: len(batch)]

    def _commit(self) -> None:
        """Encode what is waiting and store it."""
        for modality, queue in self._queues.items():
            while queue:
                self._encode(modality)
        self._store()
        self._last_commit = time.monotonic()

    def _store(self) -> None:
        """Store what is encoded."""
        with self._timed("commit"):
            items = [_item(ready) for ready in self._pending if _is_encoded(ready)]
            if items:
                self._engine.add(items)
            if self._moves:
                self._engine.update_files(self._updates())
        self._pending.clear()
        self._parts.clear()
        self._moves.clear()

    def _updates(self) -> Iterator[FileUpdate]:
        """A title that was the name of the file follows its new name."""
        items = self._engine.get([record.id for record, _ in self._moves])
        for item, (record, file) in zip(items, self._moves, strict=True):
            title = Path(file.path).stem if item.title == Path(item.key).stem else None
            yield FileUpdate(record.id, file.path, file.size, file.mtime_ns, title)

    @contextlib.contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.report.seconds[stage] += time.perf_counter() - started


def _is_encoded(ready: Prepared) -> bool:
    return ready.parts is not None and all(part.vector is not None for part in ready.parts)


def _item(ready: Prepared) -> NewItem:
    file = ready.file
    return NewItem(
        key=file.path,
        modality=ready.modality,
        parts=ready.parts or (),
        title=ready.title or Path(file.path).stem,
        attributes=ready.attributes,
        is_file=True,
        size=file.size,
        mtime_ns=file.mtime_ns,
        content_hash=ready.content_hash,
    )
