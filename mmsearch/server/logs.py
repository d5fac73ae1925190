"""Logs as JSON lines."""

from __future__ import annotations

import json
import logging
import sys
import time

__all__ = ["Lines", "configure"]


class Lines(logging.Formatter):
    """One JSON object a line, in ASCII: whatever a client sent, it begins no other line and speaks to no terminal."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, object] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "told", {}),
        }
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


def configure(level: str = "info") -> None:
    """Send the logs of the server to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.captureWarnings(True)
    logging.getLogger().handlers = [handler]  # what other libraries have to say is a line of JSON as well
    for name in ("mmsearch", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
