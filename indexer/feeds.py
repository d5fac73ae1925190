"""Feeds: tables of products (CSV, JSON lines, Parquet) that a collection is brought in line with."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from indexer.addresses import Network
from indexer.product import Product, differences
from indexer.product_rows import Layout, Rows
from indexer.products import update_each, upsert
from indexer.report import Listener, Report, Skipped, printable
from mmsearch import products as stored
from mmsearch.engine import Engine
from mmsearch.errors import ConfigError, PruneRefused
from mmsearch.tables import Problems, read_table

__all__ = ["forget_feed", "index_feed", "read_layout", "remembered_feeds"]


def index_feed(
    engine: Engine,
    path: str | Path,
    layout: Layout | None = None,
    *,
    partial: bool | None = None,
    delete_missing: bool | None = None,
    prune: bool = False,
    allowed: Sequence[Network] = (),
    progress: Listener | None = None,
    workers: int | None = None,
) -> Report:
    """Bring a collection in line with a table of products (.csv, .tsv, .jsonl, .parquet).

    ``layout`` says which column is what; None: as before for a table that was indexed before, else by the usual names.
    With ``partial`` the table only changes attributes (price, stock) of products that are there: what it does not name
    stays as it is, and nothing is encoded. With ``delete_missing`` products that came from this table and are not in it
    any more are removed, and ``prune`` allows more than half of them to go. None: as before, else neither. Otherwise as
    ``indexer.products.upsert``.

    A row that cannot be read or indexed is in ``report.skipped`` with its line and the reason, and the others go in.
    The table is remembered with its layout (``remembered_feeds``).

    Raises ``MediaError`` (the table cannot be read), ``ConfigError`` (no column with ids), ``PruneRefused`` (the rest
    was indexed), ``MissingExtra``, and what ``Engine.add`` raises about the catalog or the model.
    """
    started = time.perf_counter()
    report = Report()
    path = Path(os.path.abspath(path))
    collection = engine.catalog.collection(engine.collection).id
    before = stored.feeds_of(engine.catalog, collection).get(str(path))
    if before is not None:
        layout = Layout.from_dict(before.options["layout"], str(path)) if layout is None else layout
        delete_missing = before.options.get("delete_missing") if delete_missing is None else delete_missing
        partial = before.options.get("partial") if partial is None else partial
    if partial and delete_missing:
        raise ConfigError(
            f"{path}: a table that only changes attributes does not say which products there are"
        )
    layout = layout or Layout()
    problems = Problems(path)
    table = read_table(path, fold=False, problems=problems)
    unread = len(problems)
    folder = Path(layout.root) if layout.root is not None else Path()
    rows = Rows(table, layout, engine.attribute_kinds(), path.parent / folder, problems)
    products, gone = rows.read()
    report.seconds["read"] = time.perf_counter() - started
    report.skipped = [_line(path, place, reason) for place, reason in problems]
    report.notes = [Skipped(printable(str(path)), note) for note in rows.notes]
    options = {"layout": layout.as_dict(), "partial": bool(partial), "delete_missing": bool(delete_missing)}
    feed = stored.remember(engine.catalog, collection, str(path), options)
    named = [_placed(product, path) for product in products]
    if partial:
        _change(engine, collection, named, report)
    else:
        upsert(engine, named, allowed=allowed, feed=feed, report=report, progress=progress, workers=workers)
    try:
        report.removed += _remove(engine, collection, gone)
        if delete_missing:
            report.removed += _forget(engine, collection, feed, rows.keys, unread + rows.nameless, prune)
    finally:
        saving = time.perf_counter()
        engine.save()
        report.seconds["save"] += time.perf_counter() - saving
    report.total = time.perf_counter() - started
    return report


def remembered_feeds(engine: Engine) -> list[str]:
    """Paths of the tables that the collection was made from, oldest first."""
    return list(stored.feeds_of(engine.catalog, engine.catalog.collection(engine.collection).id))


def forget_feed(engine: Engine, path: str) -> None:
    """Leave a table out of the next run without arguments. Its products stay."""
    stored.forget(engine.catalog, engine.catalog.collection(engine.collection).id, path)


def read_layout(path: Path) -> Layout:
    """The layout in a mapping file (TOML or JSON). Raises ``ConfigError`` that names the file and the key."""
    import json
    import tomllib

    try:
        text = path.read_text("utf-8-sig")
        given = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # both kinds of syntax errors, and what is no UTF-8
        raise ConfigError(
            f"{path}: cannot be read: {error}. A mapping is TOML, or JSON in a file .json"
        ) from None
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: a mapping is a table with columns, types, ignore and root")
    return Layout.from_dict(given, str(path))


def _change(engine: Engine, collection: int, products: Sequence[Product], report: Report) -> None:
    """Change those attributes of products that are others now."""
    for start in range(0, len(products), 1000):
        some = {product.key: product for product in products[start : start + 1000]}
        known = stored.by_key(engine.catalog, collection, list(some))
        changes = {
            key: differences(known[key], product.attributes) if key in known else {}
            for key, product in some.items()
        }
        wanted = {key: new for key, new in changes.items() if new or key not in known}
        refused: dict[str, str] = {}
        changed = update_each(engine, wanted, refused)
        report.updated += changed
        report.attributes_only += changed
        report.unchanged += len(some) - len(wanted)
        report.skipped += [Skipped(printable(some[key].place), reason) for key, reason in refused.items()]


def _placed(product: Product, path: Path) -> Product:
    return dataclasses.replace(product, place=f"{path}: {product.place} ({product.key})")


def _line(path: Path, place: str, reason: str) -> Skipped:
    return Skipped(printable(f"{path}: {place}"), printable(reason))


def _remove(engine: Engine, collection: int, gone: Mapping[str, str]) -> int:
    """Remove what the table says is deleted."""
    known = stored.by_key(engine.catalog, collection, list(gone))
    return engine.remove([item.id for item in known.values()]) if known else 0


def _forget(
    engine: Engine,
    collection: int,
    feed: stored.Feed,
    keys: Collection[str],
    unread: int,
    prune: bool,
) -> int:
    """Remove the items of a feed that its table has no longer."""
    mine = stored.keys_of(engine.catalog, collection, feed)
    missing = [item_id for key, item_id in mine.items() if key not in keys]
    if missing and unread > 0 and not prune:
        raise PruneRefused(
            f"{feed.path}: {len(missing)} products are missing from it, but {unread} of its rows cannot be read and "
            "may be theirs; nothing was removed. Mend the rows, or run it again with --prune"
        )
    if len(missing) * 2 > len(mine) and not prune:
        raise PruneRefused(
            f"{feed.path}: {len(missing)} of the {len(mine)} products that came from it are missing; nothing was "
            "removed. If it is whole, run it again with --prune"
        )
    return engine.remove(missing) if missing else 0
