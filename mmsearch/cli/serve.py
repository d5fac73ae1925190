"""``mmsearch serve``."""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Annotated, Literal

import typer

from mmsearch.cli.options import Home, OnDevice, Threads
from mmsearch.config import load_settings

LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "::1")
Level = Literal["debug", "info", "warning", "error"]


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8080,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="Also answer requests sent to this name, such as that of a proxy before the server. Repeatable.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-origin",
            metavar="URL",
            help="Let pages of this site call the server (CORS), such as https://shop.example. Repeatable.",
        ),
    ] = None,
    max_body: Annotated[
        int, typer.Option("--max-body", metavar="MB", min=1, help="Largest body of a request, in megabytes.")
    ] = 32,
    rate: Annotated[
        int, typer.Option("--rate", metavar="N", min=1, help="Requests a minute for each key or address.")
    ] = 6000,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", min=1, help="Requests that are worked on at once.")
    ] = 4,
    keep_queries: Annotated[
        bool, typer.Option("--keep-queries", help="Keep what was searched for, for completions.")
    ] = False,
    log_queries: Annotated[
        bool, typer.Option("--log-queries", help="Tell in the log what was searched for.")
    ] = False,
    log_level: Annotated[
        Level, typer.Option("--log-level", metavar="debug|info|warning|error", help="What the log tells.")
    ] = "info",
    threads: Threads = None,
    device: OnDevice = None,
    home: Home = None,
) -> None:
    """Serve the collections over HTTP, with a page to search them. Needs the extra `server`.

    Without keys the server is for this machine alone; a public address needs one: `mmsearch keys create`.
    """
    from mmsearch.errors import ConfigError, MissingExtra

    settings = load_settings(home=home, threads=threads, device=device)
    try:
        from mmsearch.server.app import create_app
        from mmsearch.server.keys import Keys
        from mmsearch.server.logs import configure
        from mmsearch.server.options import Options
        from mmsearch.server.running import run
    except ImportError as error:
        raise MissingExtra("the server", "server") from error
    for name in allow_host or ():
        if not re.fullmatch(r"[^\s/:\[\]]+|\[[0-9A-Fa-f:.]+\]", name):
            raise ConfigError(
                f"--allow-host {name}: write the name alone, such as shop.example, no scheme or port"
            )
    for site in allow_origin or ():
        if not re.fullmatch(r"https?://(?:[^\s/:*\[\]]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?", site):
            raise ConfigError(
                f"--allow-origin {site}: write sites as browsers do, each one, such as https://shop.example, "
                "without a path"
            )
    local = _is_loopback(host)
    if not local and not Keys(settings.home).all():
        raise ConfigError(
            f"--host {host}: everybody who reaches this address could search and change everything, and there is no "
            f"key in {settings.home}. Make one, then start again: mmsearch keys create NAME --scope search (in a "
            "container: docker compose run --rm mmsearch keys create NAME --scope search)"
        )
    named = [name.lower() for name in allow_host or ()]
    # With a public address any name will do, unless some are named; then this machine still asks whether it is well.
    names = [*LOOPBACK, host.lower(), *named] if local or named else []
    options = Options(
        max_body=max_body << 20,
        rate=rate,
        workers=workers,
        hosts=tuple(names),
        origins=tuple(site.lower() for site in allow_origin or ()),
        fetch_from=settings.fetch_from,
        log_queries=log_queries,
        keep_queries=keep_queries,
        needs_key=not local,
    )
    from mmsearch.encoders import load_encoder

    load = functools.partial(
        load_encoder,
        threads=settings.threads,
        device=settings.device,
        precision=settings.precision,
        compile=settings.compile,
    )
    configure(log_level)
    app = create_app(settings.home, options, load=load, device=settings.device)
    run(app, host, port, options)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
