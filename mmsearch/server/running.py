"""Running the application until it is told to stop."""

from __future__ import annotations

import contextlib
import signal
import sys
from types import FrameType

import uvicorn
from fastapi import FastAPI

from mmsearch.errors import ConfigError
from mmsearch.memory import set_up_allocator
from mmsearch.server.connections import connection
from mmsearch.server.options import Options

__all__ = ["make_server", "run"]

SWITCH = 0.0005
"""Seconds (Python's own: 0.005) after which a thread that computes lets another have the interpreter: an answer that is
ready must not wait for somebody else's search, or for what is being written.
"""


def make_server(app: FastAPI, host: str, port: int, options: Options) -> uvicorn.Server:
    """The server of an application, ready to run."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=connection(options),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=int(options.timeout) + 5,
    )
    return uvicorn.Server(config)


def run(app: FastAPI, host: str, port: int, options: Options) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then those in work are finished, and nothing new is taken.

    Raises ``ConfigError`` if it cannot listen there.
    """
    # uvicorn sends itself the signal again when all is done, which would end the process as if it had been killed.
    signal.signal(signal.SIGTERM, _leave)
    app.state.own_process = True
    set_up_allocator()
    sys.setswitchinterval(SWITCH)
    server = make_server(app, host, port, options)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.run()
    except SystemExit as end:
        if end.code and not server.started:  # the log has the reason, in a line of JSON
            raise ConfigError(
                f"the server cannot listen on {host}, port {port}: another program may have the port (give another "
                "--port), or the address is none of this machine's (--host)"
            ) from None
        raise


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(0)
