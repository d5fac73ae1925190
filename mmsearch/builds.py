"""Which build of FAISS is installed, and how to replace it. All of them own the module ``faiss``.

Two builds in one environment overwrite each other's files, and taking one away breaks the other: the module then
fails in ways that name neither. So it is looked at before FAISS is imported: a listing of one folder, 0.3 ms.

mmsearch requires ``faiss-cpu``. Where a GPU build takes its place, a stand-in of that name and of the version that is
really there, without a file, keeps the requirement met: else each upgrade would bring the CPU build back.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from mmsearch.errors import ConfigError

__all__ = ["BUILDS", "Build", "check_build", "installed", "installed_builds", "installer", "stand_in"]

Build: TypeAlias = Literal["faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs"]

BUILDS: dict[Build, str] = {
    "faiss-cpu": "faiss-cpu>=1.12",
    "faiss-gpu": "faiss-gpu>=1.15.1,<2",
    "faiss-gpu-cuvs": "faiss-gpu-cuvs>=1.15.1,<2",
}
"""The builds, and what to ask the package index for."""

_STAND_IN = "+gpu"  # the local part of a stand-in's version
_OLDEST_PIP = (24, 1)  # older ones do not find 26.6.0 where faiss-gpu-cuvs asks for 26.06.*


def installed() -> dict[str, str]:
    """The builds that are installed beside the module ``faiss``, stand-ins among them, with their versions.

    Other people's builds count too: whatever has files of that module.
    """
    spec = importlib.util.find_spec("faiss")
    if spec and spec.submodule_search_locations:
        site = next(iter(spec.submodule_search_locations)) + "/.."
    else:  # gone; what is left of its builds may still be here
        import sysconfig

        site = sysconfig.get_path("platlib")
    found: dict[str, str] = {}
    for folder in sorted(os.listdir(site)):
        if folder.startswith("faiss_") and folder.endswith(".dist-info"):
            name, _, version = folder.removesuffix(".dist-info").partition("-")
            name = name.replace("_", "-")
            if name in BUILDS or _owns(Path(site, folder)):
                found[name] = version
    return found


def _owns(distribution: Path) -> bool:
    try:
        return "\nfaiss/__init__.py," in "\n" + (distribution / "RECORD").read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def installed_builds() -> dict[str, str]:
    """The builds of FAISS whose files are there, with their versions. There should be one."""
    return {build: version for build, version in installed().items() if not version.endswith(_STAND_IN)}


def check_build() -> None:
    """Raise ``ConfigError`` if two builds of FAISS are installed at once."""
    builds = installed_builds()
    if len(builds) > 1:
        raise ConfigError(
            f"{' and '.join(sorted(builds))} are installed at once, and each overwrites files of the other. "
            "Keep one: 'mmsearch gpu install' (GPU; --cuvs with CAGRA) or 'mmsearch gpu remove' (CPU)"
        )


def installer(build: Build) -> list[str]:
    """The command that installs into this environment: its own pip, or uv where there is none (as uv makes them).

    Raises ``ConfigError`` if there is neither, or if pip is too old for ``build``.
    """
    import re
    import shutil

    if importlib.util.find_spec("pip"):
        if build == "faiss-gpu-cuvs":
            from importlib.metadata import version

            if tuple(int(number) for number in re.findall(r"\d+", version("pip"))[:2]) < _OLDEST_PIP:
                raise ConfigError(
                    f"pip {version('pip')} cannot resolve what {build} requires: "
                    f"'{sys.executable} -m pip install --upgrade pip' first"
                )
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "pip"]
    raise ConfigError(
        f"neither pip nor uv can install into this environment ({sys.prefix}): install one of them"
    )


def swap(tool: Sequence[str], build: Build) -> dict[str, list[str]]:
    """The commands that put ``build`` in the place of what is there: ``check`` first, then ``clear``, ``install``.

    ``clear`` is empty if nothing is there.
    """
    here = [] if tool[-1:] == ["pip"] and tool[0] == sys.executable else ["--python", sys.executable]
    agree = ["--yes"] if not here else []
    return {
        "check": [*tool, "install", *here, "--dry-run", "--quiet", BUILDS[build]],
        "clear": [*tool, "uninstall", *here, *agree, *there] if (there := sorted(installed())) else [],
        "install": [*tool, "install", *here, BUILDS[build]],
    }


def stand_in(folder: Path, build: Build, version: str) -> Path:
    """Write a wheel named ``faiss-cpu`` with no files, which requires ``build``, into ``folder``.

    Its format is that of https://packaging.python.org/specifications/binary-distribution-format.
    """
    import base64
    import hashlib
    import zipfile

    name = f"faiss_cpu-{version}{_STAND_IN}"
    information = {
        "METADATA": "Metadata-Version: 2.1\nName: faiss-cpu\n"
        f"Version: {version}{_STAND_IN}\nRequires-Dist: {build}=={version}\n"
        f"Summary: Stands in for faiss-cpu where {build} is installed (mmsearch gpu install)\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: mmsearch\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in information.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            record.append(f"{name}.dist-info/{file},sha256={digest},{len(content.encode())}\n")
            wheel.writestr(f"{name}.dist-info/{file}", content)
        wheel.writestr(f"{name}.dist-info/RECORD", "".join([*record, f"{name}.dist-info/RECORD,,\n"]))
    return path
