"""Settings of collections and the queries that they keep."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    def collection() -> sa.Column[int]:
        return sa.Column(
            "collection_id",
            _ID,
            sa.ForeignKey("collections.id", ondelete="CASCADE"),
            primary_key=True,
            autoincrement=False,
        )

    op.create_table("settings", collection(), sa.Column("data", sa.Text, nullable=False))
    op.create_table(
        "kept_queries",
        collection(),
        sa.Column("folded", sa.Text, primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last", sa.Double, nullable=False),
        sqlite_with_rowid=False,
    )
