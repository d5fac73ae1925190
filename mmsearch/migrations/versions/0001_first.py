"""The first schema.

Written out rather than taken from ``mmsearch.schema``, which moves on: a migration must do tomorrow what it does today.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _key(name: str = "id") -> sa.Column[int]:
    return sa.Column(name, _ID, primary_key=True, autoincrement=True)


def _collection() -> sa.Column[int]:
    return sa.Column(
        "collection_id", _ID, sa.ForeignKey("collections.id", ondelete="CASCADE"), nullable=False
    )


def upgrade() -> None:
    op.create_table("catalog", sa.Column("uuid", sa.String(32), primary_key=True))
    op.create_table(
        "commits",
        _key("revision"),
        sa.Column("tag", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "collections",
        _key(),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("space", sa.Text, nullable=False),
        sa.Column("dim", sa.Integer, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "roots",
        _key(),
        _collection(),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("exclude", sa.Text, nullable=False),
        sa.UniqueConstraint("collection_id", "path"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "items",
        _key(),
        _collection(),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("modality", sa.String(8), nullable=False),
        sa.Column("is_file", sa.SmallInteger, nullable=False),
        sa.Column("title", sa.Text),
        sa.Column("size", sa.BigInteger),
        sa.Column("mtime_ns", sa.BigInteger),
        sa.Column("content_hash", sa.LargeBinary(16)),
        sa.Column("added", sa.Double, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("collection_id", "key"),
        sqlite_autoincrement=True,
    )
    op.create_index("items_by_hash", "items", ["collection_id", "content_hash"])
    op.create_index("items_by_revision", "items", ["collection_id", "revision"])
    op.create_table(
        "parts",
        _key(),
        sa.Column("item_id", _ID, sa.ForeignKey("items.id", ondelete="CASCADE"), nullable=False),
        sa.Column("modality", sa.String(8), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("start", sa.Double),
        sa.Column("end", sa.Double),
        sa.Column("page", sa.Integer),
        sa.Column("text", sa.Text),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_parts_item_id", "parts", ["item_id"])
    op.create_table(
        "vectors",
        sa.Column(
            "part_id",
            _ID,
            sa.ForeignKey("parts.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("encoding", sa.SmallInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "attribute_names",
        _key(),
        _collection(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.UniqueConstraint("collection_id", "name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "attributes",
        sa.Column("name_id", _ID, sa.ForeignKey("attribute_names.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("item_id", _ID, primary_key=True),
        sa.Column("ordinal", sa.SmallInteger, primary_key=True),
        sa.Column("number", sa.Double),
        sa.Column("text", sa.Text),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tombstones",
        sa.Column("revision", sa.BigInteger, primary_key=True),
        sa.Column("part_id", sa.BigInteger, primary_key=True),
        sa.Column("collection_id", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    if op.get_bind().dialect.name == "sqlite":
        op.execute("CREATE VIEW part_texts AS SELECT id, text FROM parts WHERE text <> ''")
        op.execute(
            "CREATE VIRTUAL TABLE fulltext USING fts5(text, content='part_texts', content_rowid='id', "
            "tokenize='unicode61 remove_diacritics 2')"
        )
