"""Who may encode for a collection, and collections that are on their way to another model."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _collection(name: str, **kind: Any) -> sa.Column[int]:
    return sa.Column(
        name, _ID, sa.ForeignKey("collections.id", ondelete="CASCADE"), autoincrement=False, **kind
    )


def upgrade() -> None:
    op.add_column("collections", sa.Column("epoch", sa.BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "canonicals",
        _collection("collection_id", primary_key=True),
        sa.Column("modality", sa.String(8), primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "admitted",
        _collection("collection_id", primary_key=True),
        sa.Column("fingerprint", sa.String(64), primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "shadows",
        _collection("shadow_id", primary_key=True),
        _collection("collection_id", nullable=False, unique=True),
        sa.Column("switched", sa.SmallInteger, nullable=False),
    )
