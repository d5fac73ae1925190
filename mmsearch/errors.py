"""Every error that mmsearch raises on purpose, in one tree.

::

    MmsearchError                     1   500
    ├── ConfigError                   2   400   a setting, flag or environment variable is wrong
    ├── QueryError                    2   422   a query, filter or term cannot be understood
    ├── ItemError                     3   422   an item to add is wrong: an attribute's kind, a vector's shape
    ├── MediaError(path, reason)      3   415   a file is missing, unreadable, not a picture, a bomb, ...
    ├── StoreError                    4   500   the catalog cannot be read or written (disk, rights, damage)
    │   ├── CollectionNotFound        4   404
    │   ├── ItemNotFound              4   404
    │   ├── CatalogBusy               4   503   another process is writing
    │   ├── SpaceMismatch             4   409   vectors of two spaces would meet
    │   ├── SchemaTooNew              4   500   the catalog was written by a newer mmsearch
    │   ├── PruneRefused              4   409   too much has vanished; nothing was removed
    │   └── MigrationRefused          4   409   some items cannot be encoded by the new model; nothing was switched
    └── ModelError                    5   500   a model folder is missing, damaged or lacks a modality
        └── MissingExtra              5   501   an optional dependency is not installed

The numbers are ``exit_code`` (command line) and ``http_status`` (server). A message says what went wrong,
which file or field, and what to do. Only ``mmsearch.cli`` and ``mmsearch.server`` translate them.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "CatalogBusy",
    "CollectionNotFound",
    "ConfigError",
    "ItemError",
    "ItemNotFound",
    "MediaError",
    "MigrationRefused",
    "MissingExtra",
    "MmsearchError",
    "ModelError",
    "PruneRefused",
    "QueryError",
    "SchemaTooNew",
    "SpaceMismatch",
    "StoreError",
]


class MmsearchError(Exception):
    """Base of all errors that mmsearch raises on purpose."""

    exit_code = 1
    http_status = 500


class ConfigError(MmsearchError):
    """A setting, flag or environment variable is wrong."""

    exit_code = 2
    http_status = 400


class QueryError(MmsearchError):
    """A query, filter or term cannot be understood."""

    exit_code = 2
    http_status = 422


class ItemError(MmsearchError):
    """An item to add is wrong: an attribute of another kind, a vector of the wrong shape."""

    exit_code = 3
    http_status = 422


class MediaError(MmsearchError):
    """A file or URL cannot be turned into pixels, text or sound."""

    exit_code = 3
    http_status = 415

    def __init__(self, path: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class StoreError(MmsearchError):
    """The catalog cannot be read or written."""

    exit_code = 4
    http_status = 500


class StoreUnwritable(StoreError):
    """Nothing can be written: the disk is full, failing or read-only. What was committed before is safe."""

    http_status = 507


class CollectionNotFound(StoreError):
    """No collection has this name."""

    http_status = 404


class ItemNotFound(StoreError):
    """No item has this id."""

    http_status = 404


class CatalogBusy(StoreError):
    """Another process holds the right to write."""

    http_status = 503


class SpaceMismatch(StoreError):
    """Vectors of two different spaces would meet."""

    http_status = 409


class SchemaTooNew(StoreError):
    """The catalog was written by a newer mmsearch."""


class PruneRefused(StoreError):
    """Too many files have vanished at once; nothing was removed."""

    http_status = 409


class MigrationRefused(StoreError):
    """Some items cannot be encoded by the new model; nothing was switched. ``items``: key -> reason."""

    http_status = 409

    def __init__(self, message: str, items: Mapping[str, str]) -> None:
        super().__init__(message)
        self.items = items


class ModelError(MmsearchError):
    """A model folder is missing, damaged or cannot encode the wanted modality."""

    exit_code = 5


class MissingExtra(ModelError):
    """An optional dependency is not installed."""

    http_status = 501

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f'{what} needs an optional part: pip install "mmsearch[{extra}]"')
        self.extra = extra
