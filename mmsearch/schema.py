"""The tables of the catalog and how a database comes to have them.

Sizes matter here: a catalog holds one vector a part, so the vectors have a table of their own (listing ids stays
fast) and everything else is kept narrow. Ids use ``AUTOINCREMENT`` because a part id names one immutable vector
for ever: a reused id would let a stale index entry pass for a new part.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
_ID = BigInteger().with_variant(Integer, "sqlite")


def _key() -> Column[int]:
    return Column("id", _ID, primary_key=True, autoincrement=True)


catalog = Table("catalog", metadata, Column("uuid", String(32), primary_key=True))
"""One row: the identity that index files refer to."""

commits = Table(
    "commits",
    metadata,
    Column("revision", _ID, primary_key=True, autoincrement=True),
    Column("tag", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    sqlite_autoincrement=True,
)
"""One row a write. ``tag`` is random: after a restored backup a revision number comes again, its tag does not."""

collections = Table(
    "collections",
    metadata,
    _key(),
    Column("name", Text, nullable=False, unique=True),
    Column("model", Text, nullable=False),
    Column("space", Text, nullable=False),
    Column("dim", Integer, nullable=False),
    Column("created", Double, nullable=False),
    Column("epoch", BigInteger, nullable=False, server_default="0"),
    sqlite_autoincrement=True,
)
"""``epoch`` is the revision at which the vectors were last exchanged for those of another model; 0: never. What was
derived from the catalog before it is worth nothing.
"""

canonicals = Table(
    "canonicals",
    metadata,
    Column(
        "collection_id",
        _ID,
        ForeignKey("collections.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("modality", String(8), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)
"""What the canonical inputs are in the space of a collection: (n, dim) float16. See ``mmsearch.encoders.canonical``."""

admitted = Table(
    "admitted",
    metadata,
    Column(
        "collection_id",
        _ID,
        ForeignKey("collections.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("fingerprint", String(64), primary_key=True),
    sqlite_with_rowid=False,
)
"""Encoders that were compared with a collection's canonical vectors, and may encode for it."""

shadows = Table(
    "shadows",
    metadata,
    Column(
        "shadow_id",
        _ID,
        ForeignKey("collections.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column(
        "collection_id", _ID, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False, unique=True
    ),
    Column("switched", SmallInteger, nullable=False),
)
"""Hidden collections that hold another model's vectors for the items of one: the coming ones, or, once ``switched``,
the former ones. See ``mmsearch.shadows``.
"""

roots = Table(
    "roots",
    metadata,
    _key(),
    Column("collection_id", _ID, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("exclude", Text, nullable=False),
    UniqueConstraint("collection_id", "path"),
    sqlite_autoincrement=True,
)
"""Folders that were indexed, with the globs left out (a JSON list)."""

feeds = Table(
    "feeds",
    metadata,
    _key(),
    Column("collection_id", _ID, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("path", Text, nullable=False),
    Column("options", Text, nullable=False),
    UniqueConstraint("collection_id", "path"),
    sqlite_autoincrement=True,
)
"""Tables of products that were indexed, with how they are read (JSON). ``items.feed_id`` is the one an item is from."""

items = Table(
    "items",
    metadata,
    _key(),
    Column("collection_id", _ID, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("modality", String(8), nullable=False),
    Column("is_file", SmallInteger, nullable=False),
    Column("title", Text),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("content_hash", LargeBinary(16)),
    Column("added", Double, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("feed_id", BigInteger),
    UniqueConstraint("collection_id", "key"),
    Index("items_by_hash", "collection_id", "content_hash"),
    Index("items_by_revision", "collection_id", "revision"),
    sqlite_autoincrement=True,
)

parts = Table(
    "parts",
    metadata,
    _key(),
    Column("item_id", _ID, ForeignKey("items.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("modality", String(8), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("start", Double),
    Column("end", Double),
    Column("page", Integer),
    Column("text", Text),
    Column("revision", BigInteger, nullable=False),
    Column("source", Text),
    Column("stamp", Text),
    sqlite_autoincrement=True,
)
"""``source`` is the path or URL of the picture that a part of a product was made of, ``stamp`` what it was then
(``indexer.pictures``).
"""

vectors = Table(
    "vectors",
    metadata,
    Column("part_id", _ID, ForeignKey("parts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("encoding", SmallInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
)

attribute_names = Table(
    "attribute_names",
    metadata,
    _key(),
    Column("collection_id", _ID, ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", String(8), nullable=False),
    UniqueConstraint("collection_id", "name"),
    sqlite_autoincrement=True,
)

attributes = Table(
    "attributes",
    metadata,
    Column("name_id", _ID, ForeignKey("attribute_names.id", ondelete="CASCADE"), primary_key=True),
    Column("item_id", _ID, primary_key=True),
    Column("ordinal", SmallInteger, primary_key=True),
    Column("number", Double),
    Column("text", Text),
    sqlite_with_rowid=False,
)
"""Clustered by name: reading one whole column, which is what filters do, is a range scan. A list has
several ordinals.

``item_id`` is no foreign key: without an index of its own (20 bytes a value) each removed item would scan the table.
``Catalog`` deletes the attributes of an item with its parts.
"""

tombstones = Table(
    "tombstones",
    metadata,
    Column("revision", BigInteger, primary_key=True),
    Column("part_id", BigInteger, primary_key=True),
    Column("collection_id", Integer, nullable=False),
    sqlite_with_rowid=False,
)

settings = Table(
    "settings",
    metadata,
    Column(
        "collection_id",
        _ID,
        ForeignKey("collections.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("data", Text, nullable=False),
)
"""What a collection keeps for its searches, as JSON. See ``mmsearch.collection_settings``."""

kept_queries = Table(
    "kept_queries",
    metadata,
    Column(
        "collection_id",
        _ID,
        ForeignKey("collections.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("folded", Text, primary_key=True),
    Column("text", Text, nullable=False),
    Column("count", Integer, nullable=False),
    Column("last", Double, nullable=False),
    sqlite_with_rowid=False,
)
"""What was asked, by its folded words: the form it came in last, how often, when (UTC seconds since 1970)."""

# The full-text table `fulltext` (FTS5, external content over the view `part_texts`) is made by the migration, since
# SQLAlchemy has no word for a virtual table. `mmsearch.writes` keeps it beside `parts`.
