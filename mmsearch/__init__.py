"""mmsearch: cross-modal semantic search. One engine for words and pictures, offline on two CPU cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "Encoder",
    "Engine",
    "Hit",
    "Item",
    "MmsearchError",
    "Modality",
    "NewItem",
    "NewPart",
    "Part",
    "Query",
    "Space",
    "Term",
    "__version__",
    "load_encoder",
]

if TYPE_CHECKING:
    from mmsearch.encoders import Encoder, load_encoder
    from mmsearch.engine import Engine
    from mmsearch.errors import MmsearchError
    from mmsearch.types import Hit, Item, Modality, NewItem, NewPart, Part, Query, Space, Term

_HOMES = {
    "Encoder": "encoders",
    "load_encoder": "encoders",
    "Engine": "engine",
    "MmsearchError": "errors",
} | dict.fromkeys(
    ["Hit", "Item", "Modality", "NewItem", "NewPart", "Part", "Query", "Space", "Term"], "types"
)


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: ``mmsearch --help`` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mmsearch' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"mmsearch.{_HOMES[name]}"), name)
