"""What a collection holds and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from mmsearch.catalog import Catalog
from mmsearch.products import feeds_of
from mmsearch.rows import CollectionInfo
from mmsearch.snapshots import Snapshots

__all__ = ["Status", "status_of"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What a collection holds and what it costs. Sizes in bytes; ``parts`` and ``index_kind`` are by modality."""

    home: Path
    collection: str
    model: str
    space: str
    dim: int
    items: int
    parts: dict[str, int]
    attributes: dict[str, str]
    revision: int
    roots: dict[str, list[str]]
    feeds: list[str]
    catalog_bytes: int
    index_bytes: int
    index_kind: dict[str, str]


def status_of(catalog: Catalog, info: CollectionInfo, snapshots: Snapshots) -> Status:
    """The status of one collection."""
    counts = {found.id: found.items for found in catalog.collections()}
    files = [catalog.path, catalog.path.with_name(catalog.path.name + "-wal")]
    index = snapshots.path
    return Status(
        home=catalog.home,
        collection=info.name,
        model=info.model,
        space=info.space,
        dim=info.dim,
        items=counts.get(info.id, 0),
        parts={str(name): n for name, n in catalog.part_counts(info.id).items()},
        attributes=catalog.attribute_kinds(info.id),
        revision=catalog.revision()[0],
        roots=catalog.roots(info.id),
        feeds=list(feeds_of(catalog, info.id)),
        catalog_bytes=sum(path.stat().st_size for path in files if path.exists()),
        index_bytes=index.stat().st_size if index.exists() else 0,
        index_kind={str(name): index.about for name, index in snapshots.current().indexes.items()},
    )
