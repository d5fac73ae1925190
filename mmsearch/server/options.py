"""What a server allows: limits, names it answers to, and what it keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Limits of one server. Sizes in bytes, times in seconds, ``rate`` in requests a minute for each key or address.

    ``hosts`` are the names that a request may be sent to (empty: any), ``origins`` the sites whose pages may call
    (CORS; empty: none but our own), ``fetch_from`` networks that are not public and that pictures of products may be
    fetched from. ``connections`` may be open at once; ``workers`` requests are worked on at once and ``waiting`` more
    wait their turn; beyond, the answer is 503. ``log_queries``: whether logs tell what was searched for.

    ``max_values`` is how many texts, lists and objects one body may hold. ``max_k`` is how many hits one request
    may ask for in all, ``max_pixels`` how large a picture may be, ``max_pictures_pixels`` all pictures of a
    request together. Recordings may last ``max_seconds_of_sound``, those that are to be written down
    ``max_seconds_of_speech``. ``head_timeout``, ``body_timeout`` and ``send_timeout``: how long a client may take
    for the head of a request, for its body, and for the next bytes of the answer; ``fetch_timeout``: how long all
    pictures of a request that are fetched may take together. ``needs_key``: nobody is let in without a key, even
    where there is none (a public address).
    """

    max_body: int = 32 << 20
    max_values: int = 1_000_000
    max_batch: int = 1000
    max_k: int = 2000
    max_queries: int = 32
    max_pixels: int = 60_000_000
    max_pictures_pixels: int = 240_000_000
    max_seconds_of_sound: float = 600.0
    max_seconds_of_speech: float = 60.0
    timeout: float = 20.0
    head_timeout: float = 15.0
    body_timeout: float = 30.0
    send_timeout: float = 30.0
    fetch_timeout: float = 60.0
    connections: int = 800
    workers: int = 4
    waiting: int = 64
    rate: int = 6000
    refresh: float = 0.2
    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    fetch_from: Sequence[str] = ()
    log_queries: bool = False
    keep_queries: bool = False
    needs_key: bool = False
