"""The commands, put together. Each imports what it needs when it runs."""

from __future__ import annotations

import gc
import os
from typing import Annotated

import typer

from mmsearch.cli import catalog, gpu, keys, models, transfer
from mmsearch.cli.bridge import bridge
from mmsearch.cli.eval import evaluate
from mmsearch.cli.export_model import export_model
from mmsearch.cli.index import index
from mmsearch.cli.migrate import migrate
from mmsearch.cli.options import described as _help
from mmsearch.cli.search import search
from mmsearch.cli.serve import serve
from mmsearch.cli.train import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


for command in (index, search, catalog.status, catalog.show, catalog.remove, catalog.check):
    app.command(command.__name__, help=_help(command))(command)
app.command("eval", help=_help(evaluate))(evaluate)
app.command("train", help=_help(train))(train)
app.command("bridge", help=_help(bridge))(bridge)
app.command("migrate", help=_help(migrate))(migrate)
app.command("export", help=_help(transfer.export_to))(transfer.export_to)
app.command("import", help=_help(transfer.import_from))(transfer.import_from)
app.add_typer(catalog.collections, name="collections")
models.app.command("export", help=_help(export_model))(export_model)
app.add_typer(models.app, name="models")
app.add_typer(gpu.app, name="gpu")
app.command("serve", help=_help(serve))(serve)
app.add_typer(keys.app, name="keys")


def _version(wanted: bool) -> None:
    if wanted:
        from mmsearch import __version__

        typer.echo(f"mmsearch {__version__}")
        raise typer.Exit


@app.callback()
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search your photos, texts and sounds by words, by picture or by sound.

    Index a folder once with `mmsearch index FOLDER`, then ask: `mmsearch search "a dog on grass"`.
    """
    if context.invoked_subcommand in ("search", "serve"):
        # One product of a matrix and a vector is not worth the threads that numpy starts as it is loaded.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if context.invoked_subcommand != "search":
        gc.enable()
