"""``mmsearch gpu``: put a GPU build of FAISS in the place of the CPU's, or go back, and see what there is."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmsearch.cli.options import AsJson

if TYPE_CHECKING:
    from mmsearch.builds import Build

app = typer.Typer(help="Search on GPUs: install or remove FAISS's GPU build.", no_args_is_help=True)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print the commands.")]


@app.command("install")
def install(
    cuvs: Annotated[
        bool, typer.Option("--cuvs", help="The build with NVIDIA cuVS, which has CAGRA (CUDA 13, 1.8 GB).")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Replace FAISS's CPU build by its GPU build.

    Works with pip and uv. It downloads 0.9 GB (CUDA 12) and needs an NVIDIA driver, no CUDA toolkit. Upgrades of
    mmsearch leave it in place.
    """
    _swap("faiss-gpu-cuvs" if cuvs else "faiss-gpu", dry_run)


@app.command("remove")
def remove(dry_run: DryRun = False) -> None:
    """Replace FAISS's GPU build by its CPU build. CUDA's libraries stay, because other packages may use them."""
    _swap("faiss-cpu", dry_run)


@app.command("status")
def status(json: AsJson = False) -> None:
    """Show which build of FAISS is installed, which GPUs it sees, and which kinds of index it can put there."""
    from mmsearch.builds import installed_builds
    from mmsearch.cli.text import json_line, many, say, size, write_bytes
    from mmsearch.gpu import faiss, free_memory, gpu_count, gpu_kinds

    free = free_memory() if gpu_count() else []
    build = ", ".join(installed_builds()) or "unknown (not from a wheel)"
    if json:
        fields = {"build": build, "version": faiss.__version__, "gpus_free_bytes": free, "kinds": gpu_kinds()}
        write_bytes([json_line(fields)])
        return
    say(f"build    {build} {faiss.__version__}")
    each = ", ".join(f"{size(memory)} free" for memory in free)
    say(f"GPUs     {many(len(free), 'GPU')}: {each}" if free else "GPUs     none")
    say(f"kinds    {', '.join(gpu_kinds()) or 'none: this is the CPU build (mmsearch gpu install)'}")


def _swap(build: Build, dry_run: bool) -> None:
    from mmsearch.builds import installer, swap
    from mmsearch.cli.text import say
    from mmsearch.errors import ConfigError

    tool = installer(build)
    steps = swap(tool, build)
    if dry_run:
        for command in filter(None, steps.values()):
            say(shlex.join(command))
        if build != "faiss-cpu":
            say("# and a stand-in for faiss-cpu without files, so that mmsearch's requirement stays met")
        return
    if not _ran(steps["check"]):
        raise ConfigError(f"{build} cannot be installed here (see above); nothing was changed")
    if _ran(steps["clear"]) and _ran(steps["install"]) and _finished(build, steps["install"]):
        say(f"{build} is installed: mmsearch gpu status")
        return
    # Half of it is worse than either: mmsearch would not search at all.
    _ran(swap(tool, "faiss-cpu")["clear"])
    _ran(swap(tool, "faiss-cpu")["install"])
    raise ConfigError(f"{build} could not be installed (see above); faiss-cpu was put back")


def _finished(build: Build, install: list[str]) -> bool:
    """Put the stand-in beside a GPU build, and see that what is there now can be loaded."""
    # In a process of its own: this one may have found the old build.
    ask = "import importlib.metadata as m, sys, faiss; sys.stdout.write(m.version(sys.argv[1]))"
    asked = subprocess.run([sys.executable, "-c", ask, build], stdout=subprocess.PIPE, text=True, check=False)
    if asked.returncode or build == "faiss-cpu":
        return not asked.returncode
    from mmsearch.builds import stand_in

    with tempfile.TemporaryDirectory() as folder:
        return _ran([*install[:-1], "--no-deps", str(stand_in(Path(folder), build, asked.stdout))])


def _ran(command: list[str]) -> bool:
    if not command:
        return True
    from mmsearch.cli.text import note

    note(shlex.join(command))
    return subprocess.run(command, check=False).returncode == 0
