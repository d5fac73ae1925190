"""A real server on a free port of the loopback, in a thread, for tests that speak HTTP to it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mmsearch.server.app import create_app
from mmsearch.server.media import Thumbnails
from mmsearch.server.options import Options
from mmsearch.server.running import make_server


@contextlib.contextmanager
def serving(
    home: Path, options: Options | None = None, port: int = 0, *, thumbnails: Thumbnails | None = None
) -> Iterator[str]:
    """The address of a server over ``home`` that is ready to answer; ``port`` 0 takes a free one. ``thumbnails`` stand
    in the place of its own.
    """
    options = options or Options()
    app = create_app(home, options)
    if thumbnails is not None:
        app.state.thumbnails = thumbnails
    server = make_server(app, "127.0.0.1", port, options)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not (server.started and getattr(app.state, "ready", False)):
            assert thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server is not ready"
            time.sleep(0.01)
        found = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{found}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not stop"
