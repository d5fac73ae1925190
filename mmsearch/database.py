"""The database under the catalog: opening, making, migrating, transactions, and the lock of the one writer.

SQLite in WAL mode lets any number of processes read while one writes. Who writes holds ``writer.lock`` (released by
the kernel when its process dies, however it dies), so that a second writer waits or is told who it waits for instead of
failing in the middle of a run.

Reads are plain SQL on the driver; writes go through SQLAlchemy, which is imported by the first of them: importing it
costs as much time as all the rest of a search from a cold process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from errno import EDQUOT, ENOSPC, EROFS
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mmsearch.errors import CatalogBusy, SchemaTooNew, StoreError, StoreUnwritable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

T = TypeVar("T")

SCHEMA = "0004"
"""The alembic revision that this code reads and writes."""

FILE_NAME = "catalog.db"
_PAGE_SIZE = 16384  # a 768-d float16 vector is 1.5 KB: 4 KiB pages would waste a third of the file
_MAPPED = 1 << 30  # bytes read without copying: scoring 256 scattered vectors takes half the time
_BUSY_SECONDS = 30.0


class Database:
    """A catalog's database file in ``home``.

    Raises ``StoreError`` if there is none (and ``create`` is false), if it cannot be read, or is not a catalog;
    ``SchemaTooNew`` if a newer mmsearch wrote it.
    """

    def __init__(self, home: Path, *, create: bool) -> None:
        self.home = home
        self.path = home / FILE_NAME
        self._lock = threading.RLock()
        self._depth = 0
        with translated(self.path):
            exists = self.path.is_file() and self.path.stat().st_size > 0
        if not exists and not create:
            raise StoreError(
                f"no catalog in {home}: run `mmsearch index FOLDER` first, or give another --home"
            )
        if not exists:
            with translated(self.path):
                home.mkdir(parents=True, exist_ok=True)
        self.read_only = not os.access(home, os.W_OK) or (exists and not os.access(self.path, os.W_OK))
        if not exists and self.read_only:
            raise StoreError(
                f"{home}: cannot make a catalog there, the folder is not writable; give another --home"
            )
        self._idle: list[sqlite3.Connection] = []
        self._writer: Engine | None = None
        self._closed = False
        try:
            self._prepare(exists)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connections. The last one to close folds the write-ahead log into the file."""
        self._closed = True
        if self._writer is not None:
            self._writer.dispose()
        while self._idle:
            self._idle.pop().close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees one consistent state of the database."""
        if self._closed:
            raise StoreError(f"{self.path}: the catalog was closed; open it again")
        with translated(self.path):
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._connect()
            try:
                connection.execute("BEGIN")
                yield connection
                connection.rollback()
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
        if self._closed:  # by another thread, meanwhile
            self.close()

    @contextlib.contextmanager
    def transaction(self, what: str = "") -> Iterator[Connection]:
        """A write: committed as a whole at the end, or not at all."""
        from sqlalchemy.exc import DBAPIError

        with self.writing(what=what), translated(self.path):
            try:
                with self._engine.begin() as connection:
                    yield connection
            except DBAPIError as error:
                raise error.orig or error from error

    def shrink(self) -> None:
        """Give the room of deleted rows back to the disk. The file is written anew: that takes a while and room."""
        with (
            self.writing(what="shrinking the catalog"),
            translated(self.path),
            contextlib.closing(self._connect()) as connection,
        ):
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextlib.contextmanager
    def writing(self, wait: float = 10.0, what: str = "") -> Iterator[None]:
        """Hold the right to write for a while; nested use is fine.

        Waits up to ``wait`` seconds for another thread or process, then raises ``CatalogBusy`` saying who holds it.
        """
        if self.read_only:
            raise StoreUnwritable(f"{self.path} is read-only: change its rights, or give another --home")
        if not self._lock.acquire(timeout=max(wait, 0.001)):
            raise CatalogBusy(
                f"{self.path} is being written by another thread of this program; try again later"
            )
        try:
            with contextlib.ExitStack() as stack:
                if self._depth == 0:
                    stack.enter_context(self._process_lock(wait, what))
                self._depth += 1
                stack.callback(self._leave)
                yield
        finally:
            self._lock.release()

    def _leave(self) -> None:
        self._depth -= 1

    @contextlib.contextmanager
    def _process_lock(self, wait: float, what: str) -> Iterator[None]:
        from filelock import FileLock, Timeout

        note = self.home / "writer.json"
        lock = FileLock(self.home / "writer.lock", timeout=wait, thread_local=False)
        with translated(self.home):
            try:
                lock.acquire()
            except Timeout:  # an OSError too, but not one about the disk
                raise CatalogBusy(
                    f"{self.path} is being written by {_holder(note)}; wait for it, or stop it"
                ) from None
        try:
            with translated(note):
                command = what or " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:200]
                note.write_text(json.dumps({"pid": os.getpid(), "what": command, "since": time.time()}))
            yield
        finally:
            note.unlink(missing_ok=True)
            lock.release()

    @property
    def _engine(self) -> Engine:
        """SQLAlchemy's engine: the writer's."""
        if self._writer is None:
            from mmsearch.writes import make_engine

            self._writer = make_engine(self._connect)
        return self._writer

    def _connect(self) -> sqlite3.Connection:
        escaped = str(self.path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        mode = "mode=ro" if self.read_only else "mode=rw"
        log, shared = (self.path.with_name(FILE_NAME + suffix) for suffix in ("-wal", "-shm"))
        if self.read_only and not shared.exists() and (not log.exists() or not log.stat().st_size):
            # Nobody has it open, and a read-only folder cannot have the shared memory file that WAL needs.
            mode += "&immutable=1"
        connection = sqlite3.connect(
            f"file:{escaped}?{mode}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,  # BEGIN is ours
            check_same_thread=False,  # one thread at a time, not always the same
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA mmap_size = {_MAPPED}")
        if not self.read_only:
            connection.execute("PRAGMA synchronous = FULL")  # a committed row is safe, power cuts included
        return connection

    def _prepare(self, exists: bool) -> None:
        version = self._version() if exists else None
        if version == SCHEMA:
            return
        if version is not None:
            self._refuse_newer(version)
        if self.read_only:
            raise StoreError(
                f"{self.path} was written by an older mmsearch (schema {version}) and must be brought to {SCHEMA} "
                "once: open it as a user who may write there"
            )
        with self.writing(what="making the catalog" if version is None else "migrating the catalog"):
            if version is None:
                with translated(self.path):
                    self.path.touch()  # connections open the file that is there and never make another
                with translated(self.path), contextlib.closing(self._connect()) as connection:
                    connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
                    connection.execute("PRAGMA journal_mode = WAL")
            self._migrate()

    def _version(self) -> str | None:
        with self.reading() as connection:
            tables = [
                name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            if not tables:
                return None
            if "alembic_version" not in tables:
                raise StoreError(
                    f"{self.path} is a database, but not a catalog of mmsearch; give another --home"
                )
            row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
            return str(row[0]) if row else None

    def _refuse_newer(self, version: str) -> None:
        from mmsearch import migrations

        if version not in migrations.known_revisions():
            raise SchemaTooNew(
                f"{self.path} was written by a newer mmsearch (schema {version}, this one knows up to "
                f"{SCHEMA}): upgrade with `pip install -U mmsearch`"
            )

    def _migrate(self) -> None:
        from mmsearch import migrations

        version = self._version()  # again, under the lock: another process may have been here first
        if version == SCHEMA:
            return
        with self.transaction() as connection:
            migrations.upgrade(connection, SCHEMA)
            connection.exec_driver_sql(
                "INSERT INTO catalog SELECT ? WHERE NOT EXISTS (SELECT * FROM catalog)", (uuid.uuid4().hex,)
            )


def chunks(values: Iterable[T]) -> Iterator[list[T]]:
    """``values`` in lists short enough for one ``IN (...)`` (SQLite's own limit is 32,766 variables)."""
    remaining = iter(values)
    while some := list(islice(remaining, 5000)):
        yield some


def listed(ids: Iterable[int]) -> str:
    """Integers for an ``IN (...)``: binding hundreds of them costs more than the look-up itself."""
    return ",".join(str(int(one)) for one in ids)


def blocks(connection: sqlite3.Connection, query: str) -> Iterator[list[Any]]:
    """The rows of a query, some thousands at a time."""
    cursor = connection.execute(query)
    while rows := cursor.fetchmany(16_384):
        yield rows


def named_rows(connection: sqlite3.Connection, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
    """All rows of a query, their columns by name."""
    cursor = connection.cursor()
    cursor.row_factory = sqlite3.Row
    return cursor.execute(query, values).fetchall()


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what the disk or SQLite complains about into ``StoreError``, naming ``path`` and what to do."""
    try:
        yield
    except sqlite3.Error as error:
        kind = StoreUnwritable if any(sign in str(error) for sign in _UNWRITABLE) else StoreError
        raise kind(f"{path}: {_advice(str(error))}") from error
    except OSError as error:
        kind = StoreUnwritable if error.errno in (ENOSPC, EDQUOT, EROFS) else StoreError
        raise kind(f"{error.filename or path}: {error.strerror or error}") from error


_UNWRITABLE = ("disk is full", "disk I/O error", "readonly database")


_ADVICE = {
    "disk is full": "the disk is full; what was committed before is safe. Free some space and run it again",
    "disk I/O error": "the disk cannot be written (full, over a limit, or failing); what was committed before is safe",
    "readonly database": "is read-only: change its rights, or give another --home",
    "unable to open": "cannot be opened; check that the folder exists and its rights",
    "not a database": "is not a catalog (damaged or another kind of file); restore a backup, or give another --home",
    "malformed": "is damaged; restore a backup, or move it away and index again",
    "locked": "is locked by another program for too long; try again later",
}


def _advice(message: str) -> str:
    return next((advice for sign, advice in _ADVICE.items() if sign in message), message)


def _holder(note: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads(note.read_text())
        since = time.strftime("%H:%M:%S", time.localtime(holder["since"]))
        return f"process {holder['pid']} ({holder['what']}) since {since}"
    except (OSError, ValueError, KeyError):
        return "another process"
