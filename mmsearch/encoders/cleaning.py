"""What open_clip does to a text before it cuts it into tokens."""

from __future__ import annotations

import string
from typing import Literal

__all__ = ["Cleaning", "clean"]

Cleaning = Literal["whitespace", "lower", "canonicalize"]

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def clean(text: str, how: Cleaning) -> str:
    """The text repaired (garbled characters, curly quotes, HTML entities), with single spaces; ``lower`` also in small
    letters, ``canonicalize`` in small letters without punctuation. To the character what open_clip 3.3 makes of it.
    """
    if not (text.isascii() and text.isprintable() and "&" not in text):  # else there is nothing to repair
        import html

        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if how == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()
