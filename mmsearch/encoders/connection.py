"""Whether the server that models come from can be reached, found out fast."""

from __future__ import annotations

import os
import socket
import threading
import urllib.parse
import urllib.request

from mmsearch.errors import ModelError

__all__ = ["check_connection", "endpoint"]

PATIENCE = 0.6  # seconds; a server that is there takes a connection in a tenth of it


def endpoint() -> str:
    """The Hugging Face Hub, or the mirror that ``HF_ENDPOINT`` names."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def check_connection() -> None:
    """Raises ``ModelError`` if the server, or the proxy on the way to it, takes no connection within 0.6 s.

    huggingface_hub itself tries for half a minute. On a line that slow ``HF_HUB_ETAG_TIMEOUT``, its own variable,
    says how many seconds to wait.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise ModelError("HF_HUB_OFFLINE is set: nothing is fetched")
    where = _first_stop()
    if not where.hostname:
        raise ModelError(f"{endpoint()}: HF_ENDPOINT is no address such as https://huggingface.co")
    port = where.port or {"https": 443, "socks5": 1080, "socks5h": 1080}.get(where.scheme, 80)
    if (reason := _try(where.hostname, port, _patience())) is not None:
        raise ModelError(
            f"{where.hostname} cannot be reached ({reason}). HF_ENDPOINT names a mirror, HTTPS_PROXY a proxy"
        )


def _patience() -> float:
    try:
        return float(os.environ["HF_HUB_ETAG_TIMEOUT"])
    except (KeyError, ValueError):
        return PATIENCE


def _first_stop() -> urllib.parse.SplitResult:
    """The address that is connected to first: of the proxy for this server, if there is one."""
    server = urllib.parse.urlsplit(endpoint())
    proxies = urllib.request.getproxies()
    proxy = proxies.get(server.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(server.hostname or ""):
        return server
    return urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _try(host: str, port: int, seconds: float) -> str | None:
    """Why there is no connection; None if there is one. Looking a name up has no time limit, so a thread does it."""
    found: list[str | None] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except OSError as error:
            found.append(error.strerror or str(error))
        else:
            found.append(None)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    return found[0] if found else f"no answer within {seconds:g} s"
