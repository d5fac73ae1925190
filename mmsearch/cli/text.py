"""Text for people: names that cannot break a terminal, short paths, sizes, one-line snippets."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterable

_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029"  # control characters and line ends: a file name may hold them
    "\u202a-\u202e\u2066-\u2069"  # overrides of the writing direction would turn a line around
    "\ud800-\udfff]"  # bytes of a file name that are not UTF-8
)


def safe(text: str, *, keep_lines: bool = False) -> str:
    """``text`` with everything that is not plain printing escaped the way Python writes it."""

    def escape(found: re.Match[str]) -> str:
        if keep_lines and found[0] in "\n\t":
            return found[0]
        return found[0].encode("unicode_escape", "surrogatepass").decode("ascii")

    return _UNPRINTABLE.sub(escape, text)


def note(message: str) -> None:
    """Tell the user something on stderr, where it does not mix with results."""
    sys.stderr.write(f"mmsearch: {safe(message, keep_lines=True)}\n")
    sys.stderr.flush()


def say(line: str = "") -> None:
    """Print one line of results."""
    sys.stdout.write(f"{safe(line, keep_lines=True)}\n")


def json_line(record: object) -> bytes:
    """One JSON object in one line of UTF-8; bytes of file names that are no UTF-8 are escaped, as JSON allows."""
    import json

    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def write_bytes(chunks: Iterable[bytes]) -> None:
    """Write to stdout as it is, behind what was printed so far."""
    sys.stdout.flush()
    sys.stdout.buffer.writelines(chunks)
    sys.stdout.buffer.flush()


def near(path: str) -> str:
    """``path`` relative to the current folder where it lies below it."""
    folder = os.getcwd()
    if path.startswith(folder.rstrip(os.sep) + os.sep):
        return os.path.relpath(path, folder)
    return path


def snippet(text: str, words: Iterable[str], width: int) -> str:
    """At most ``width`` characters of ``text`` in one line, around the first of ``words`` that it holds."""
    flat = safe(" ".join(text.split()))
    if len(flat) <= width:
        return flat
    lower = flat.lower()
    found = [lower.find(word.lower()) for word in words if len(word) > 3]
    start = max(0, min((at for at in found if at >= 0), default=0) - width // 3)
    start = min(start, len(flat) - width)
    if start > 0:  # begin with a whole word
        start = flat.find(" ", start) + 1
    cut = flat[start : start + width - 2]
    if start + len(cut) < len(flat) and " " in cut:
        cut = cut[: cut.rindex(" ")]
    before = "…" if start > 0 else ""
    after = "…" if start + len(cut) < len(flat) else ""
    return f"{before}{cut}{after}"


def last(text: str, width: int) -> str:
    """The last ``width`` characters of a longer text, with a sign that it goes on before."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def size(count: int) -> str:
    """A number of bytes, readable."""
    amount = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float) -> str:
    """A time span, readable."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def time_span(start: float, end: float) -> str:
    """A stretch of a recording from second to second: ``0:05-0:15``, ``1:02:03-1:02:13``. It is never left empty."""
    first = int(start)
    return f"{_clock(first)}-{_clock(max(math.ceil(end), first + 1))}"


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def many(count: int, what: str) -> str:
    """``3 files``, ``1 file``."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"
