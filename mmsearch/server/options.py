"""What a server allows: limits, names it answers to, and what it keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Limits of one server. Sizes in bytes, times in seconds, ``rate`` in requests a minute for each key or address.

    ``hosts`` are the names that a request may be sent to (empty: any), ``origins`` the sites whose pages may call
    (CORS; empty: none but our own), ``fetch_from`` networks that are not public and that pictures of products may be
    fetched from. ``workers`` requests are worked on at once and ``waiting`` more wait their turn;
    beyond, the answer is 503. ``log_queries``: whether logs tell what was searched for.
    """

    max_body: int = 32 << 20
    max_batch: int = 1000
    max_k: int = 2000
    max_queries: int = 32
    max_pixels: int = 60_000_000
    max_seconds_of_sound: float = 600.0
    timeout: float = 20.0
    body_timeout: float = 30.0
    workers: int = 4
    waiting: int = 64
    rate: int = 6000
    refresh: float = 0.2
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    fetch_from: Sequence[str] = ()
    log_queries: bool = False
    keep_queries: bool = False
