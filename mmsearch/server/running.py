"""Running the application until it is told to stop."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from mmsearch.server.options import Options

__all__ = ["run"]


def run(app: FastAPI, host: str, port: int, options: Options) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then those in work are finished, and nothing new is taken."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=20,
        timeout_graceful_shutdown=int(options.timeout) + 5,
    )
