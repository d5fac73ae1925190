"""What the parts of products were made of, and the tables that products came from."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.add_column("parts", sa.Column("source", sa.Text))
    op.add_column("parts", sa.Column("stamp", sa.Text))
    op.add_column("items", sa.Column("feed_id", sa.BigInteger))
    op.create_table(
        "feeds",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("collection_id", _ID, sa.ForeignKey("collections.id", ondelete="CASCADE"), nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.UniqueConstraint("collection_id", "path"),
        sqlite_autoincrement=True,
    )
