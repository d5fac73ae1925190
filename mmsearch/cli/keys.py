"""``mmsearch keys``: who may use the HTTP server."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from mmsearch.cli.options import AsJson, Home
from mmsearch.config import load_settings

app = typer.Typer(help="Make, list and revoke the keys of the HTTP server.", no_args_is_help=True)

ScopeName = Literal["search", "write", "admin"]


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is.")],
    scope: Annotated[
        ScopeName,
        typer.Option(
            "--scope",
            metavar="search|write|admin",
            help="What it may do: search; also change items; also make and delete collections and set rules.",
        ),
    ] = "search",
    collection: Annotated[
        list[str] | None,
        typer.Option(
            "--collection", metavar="NAME", help="Only in this collection. Repeatable. Not given: in all."
        ),
    ] = None,
    rate: Annotated[
        int | None,
        typer.Option(
            "--rate", metavar="N", min=1, help="Requests a minute. Not given: what the server allows."
        ),
    ] = None,
    days: Annotated[
        int | None,
        typer.Option("--days", metavar="N", min=1, help="Valid for so many days. Not given: for ever."),
    ] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Make a key and print it. It is shown once: only its hash is kept."""
    from datetime import UTC, datetime, timedelta

    from mmsearch.cli.text import json_line, note, say, write_bytes
    from mmsearch.server.keys import Keys

    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    key, secret = Keys(load_settings(home=home).home).create(
        name, scope, collections=collection or (), rate=rate, expires=expires
    )
    if json:
        write_bytes([json_line({"id": key.id, "name": key.name, "scope": key.scope, "key": secret})])
        return
    say(secret)
    note("keep it safe: it cannot be shown again. Send it as `Authorization: Bearer KEY`")


@app.command("list")
def list_keys(json: AsJson = False, home: Home = None) -> None:
    """List the keys, without their secrets."""
    from mmsearch.cli.text import json_line, note, say, write_bytes
    from mmsearch.server.keys import Keys

    keys = Keys(load_settings(home=home).home).all()
    for key in keys:
        where = ", ".join(key.collections) or "all collections"
        if json:
            told = {
                "id": key.id,
                "name": key.name,
                "scope": key.scope,
                "collections": list(key.collections),
                "rate": key.rate,
                "created": key.created,
                "expires": key.expires,
                "expired": key.expired,
            }
            write_bytes([json_line(told)])
        else:
            until = (
                f", expired {key.expires}" if key.expired else f", until {key.expires}" if key.expires else ""
            )
            say(f"{key.id}  {key.scope:<7} {where:<24} {key.name} (made {key.created}{until})")
    if not keys and not json:
        note("there are no keys: the server listens to this machine alone and asks for none")


@app.command("revoke")
def revoke_key(
    number: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `keys list` shows it.")],
    home: Home = None,
) -> None:
    """Revoke a key: a running server refuses it from its next request on."""
    from mmsearch.cli.text import say
    from mmsearch.server.keys import Keys

    key = Keys(load_settings(home=home).home).revoke(number)
    say(f"revoked {key.id} ({key.name})")
