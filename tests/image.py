"""Build an image without an engine: the steps of a Dockerfile, executed in a clean Debian root as root of this machine.

``FROM debian:SUITE-slim`` is a root that mmdebstrap makes from Debian's archive with the same packages as that image
(variant minbase). Steps run in namespaces of their own, by chroot. What pip and apt of this machine are told about
package indexes, proxies and certificates is told to those inside, too, through mounts that are gone afterwards.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dockerfile
import pathspec

log = logging.getLogger(__name__)

DEBIAN = re.compile(r"debian:(\w+)-slim")
SLIM = [
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
]  # as in that image
ARCHIVE = "http://deb.debian.org/debian/dists/stable/Release"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str:
    """What this machine lacks to build images; nothing if it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux, to make a root of its own and change into it"
    tools = [
        tool
        for tool in ("mmdebstrap", "unshare", "nsenter", "ip", "chroot", "mount")
        if not shutil.which(tool)
    ]
    if tools:
        return f"needs {', '.join(tools)}"
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "true"], check=False, capture_output=True
    )
    if probe.returncode:
        return "needs the right to make namespaces"
    try:
        with urllib.request.urlopen(ARCHIVE, timeout=20):
            return ""
    except OSError as error:
        return f"needs Debian's archive ({ARCHIVE}: {error})"


@dataclasses.dataclass
class Image:
    """A root with what a container of it starts from."""

    root: Path
    env: dict[str, str] = dataclasses.field(default_factory=lambda: {"PATH": PATH})
    user: str = "root"
    workdir: str = "/"
    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    health: Sequence[str] = ()

    def run(
        self,
        *command: str,
        mounts: Mapping[str, Path] | None = None,
        building: bool = False,
        network: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the root as the image's user. ``mounts`` are folders of ours, read-only, by path inside."""
        words = self._words(command, mounts or {}, building, network)
        return subprocess.run(words, check=False, capture_output=True, text=True)

    def _words(
        self, command: Sequence[str], mounts: Mapping[str, Path], building: bool, network: bool
    ) -> list[str]:
        env = {"HOME": self._home(), **self.env}
        outer = ["mount --make-rprivate /", f"mount -t proc proc {self._inside('/proc')}"]
        if not network:
            outer.append("ip link set lo up")
        outer.append(f"mount --rbind /dev {self._inside('/dev')}")
        bound = dict(mounts)
        if building:
            told, files = _settings()
            env |= told
            bound |= files
        for inside, path in bound.items():
            target = self.root / inside.lstrip("/")
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            elif not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.touch()
            outer.append(f"mount --bind -o ro {shlex.quote(str(path))} {self._inside(inside)}")
        inner = f"cd {shlex.quote(self.workdir)} && exec {shlex.join(command)}"
        words = ["env", "-i", *(f"{name}={value}" for name, value in env.items()), "sh", "-c", inner]
        outer.append(
            f"exec chroot --userspec={self._ids()} {shlex.quote(str(self.root))} {shlex.join(words)}"
        )
        namespaces = ["--mount", "--pid", "--fork", *([] if network else ["--net"])]
        return ["unshare", *namespaces, "sh", "-ec", "\n".join(outer)]

    @contextlib.contextmanager
    def started(self, *arguments: str, mounts: Mapping[str, Path] | None = None) -> Iterator[Container]:
        """What ``docker run --network none -d IMAGE arguments`` does; it is killed in the end if it still runs."""
        command = [*self.entrypoint, *(arguments or self.command)]
        words = self._words(command, mounts or {}, building=False, network=False)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            found = ""
            while not found and process.poll() is None:
                found = children.read_text().strip()
                time.sleep(0.01)
            container = Container(self, process, int(found or 0))
            try:
                yield container
            finally:
                if process.poll() is None:
                    os.kill(container.pid, signal.SIGKILL)

    def start(
        self, *arguments: str, mounts: Mapping[str, Path] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """What ``docker run --network none IMAGE arguments`` does."""
        return self.run(*self.entrypoint, *(arguments or self.command), mounts=mounts, network=False)

    def _inside(self, path: str) -> str:
        return shlex.quote(str(self.root / path.lstrip("/")))

    def _users(self) -> dict[str, list[str]]:
        lines = (self.root / "etc/passwd").read_text().splitlines()
        return {fields[0]: fields for fields in (line.split(":") for line in lines)}

    def _ids(self) -> str:
        if self.user[0].isdecimal():
            return self.user if ":" in self.user else f"{self.user}:{self.user}"
        return ":".join(self._users()[self.user][2:4])

    def _home(self) -> str:
        number = self._ids().split(":")[0]
        return next((fields[5] for fields in self._users().values() if fields[2] == number), "/")


@dataclasses.dataclass
class Container:
    """A command that runs in an image; ``pid`` is that of its first process as this machine counts."""

    image: Image
    process: subprocess.Popen[str]
    pid: int

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What ``docker exec`` does."""
        ids = self.image._ids().split(":")
        env = [f"{name}={value}" for name, value in self.image.env.items()]
        words = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--net", f"--root={self.image.root}"]
        words += [f"--setuid={ids[0]}", f"--setgid={ids[1]}", f"--wd={self.image.root}", "env", "-i", *env]
        return subprocess.run([*words, *command], check=False, capture_output=True, text=True)

    def near(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of this machine in the container's network."""
        words = ["nsenter", f"--target={self.pid}", "--net", *command]
        return subprocess.run(words, check=False, capture_output=True, text=True)

    def stop(self, seconds: float = 30) -> tuple[int, str]:
        """What ``docker stop`` does: SIGTERM to the first process. Returns its exit code, and all that it printed."""
        os.kill(self.pid, signal.SIGTERM)
        printed, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, printed


def build(path: Path, context: Path, work: Path, args: Mapping[str, str] | None = None) -> Image:
    """Execute the Dockerfile at ``path`` on what ``.dockerignore`` lets pass of ``context``, in folders below ``work``.

    Raises ``AssertionError`` with the output of the step that failed, ``NotImplementedError`` for a step not known.
    """
    sent = _sent(context, work / "context")
    stages: dict[str, Image] = {}
    image = Image(work)
    for number, step in enumerate(dockerfile.parse_file(str(path))):
        started = time.monotonic()
        if step.cmd.upper() == "FROM":
            root = work / f"stage{number}"
            image = _from(step.value[0], stages, root)
            stages[step.value[2] if len(step.value) > 2 else str(number)] = image
        else:
            _step(image, step, sent, stages, args or {})
        log.info("%.0f s %s", time.monotonic() - started, step.original)
    return image


def _from(name: str, stages: Mapping[str, Image], root: Path) -> Image:
    if name in stages:
        subprocess.run(["cp", "-a", "--reflink=auto", str(stages[name].root), str(root)], check=True)
        return dataclasses.replace(stages[name], root=root, env=dict(stages[name].env))
    found = DEBIAN.fullmatch(name)
    if not found:
        raise NotImplementedError(f"no stand-in for the base image {name}")
    options = [f"--dpkgopt={option}" for option in SLIM] + ['--aptopt=Acquire::Languages "none"']
    made = ["mmdebstrap", "--variant=minbase", "--quiet", *options, found[1], str(root)]
    ran = subprocess.run(made, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return Image(root)


def _step(image: Image, step: Any, sent: Path, stages: Mapping[str, Image], args: Mapping[str, str]) -> None:
    name, value = step.cmd.upper(), list(step.value)
    if name == "RUN":
        words = value if step.json else ["/bin/sh", "-c", value[0]]
        ran = image.run(*words, building=True)
        assert ran.returncode == 0, f"{step.original}\n{ran.stdout[-4000:]}\n{ran.stderr[-4000:]}"
    elif name == "ENV":
        image.env |= {
            key: shlex.split(text)[0] if text else ""
            for key, text in zip(value[::2], value[1::2], strict=True)
        }
    elif name == "ARG":
        key, _, default = value[0].partition("=")
        image.env[key] = args.get(key, default)
    elif name == "COPY":
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in step.flags)
        source = stages[flags["from"]].root if "from" in flags else sent
        _copy(image, [source / word.lstrip("/") for word in value[:-1]], value[-1])
    elif name == "USER":
        image.user = value[0]
    elif name == "WORKDIR":
        image.workdir = value[0]
        (image.root / value[0].lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif name == "ENTRYPOINT" and step.json:
        image.entrypoint = value
    elif name == "CMD" and step.json:
        image.command = value
    elif name == "HEALTHCHECK" and value[0] == "CMD":
        image.health = value[1:]
    elif name not in {"VOLUME", "EXPOSE"}:
        raise NotImplementedError(step.original)


def _copy(image: Image, sources: Sequence[Path], target: str) -> None:
    """As the reference has it: a folder's content, not the folder; ``/`` at the end or several sources: into it."""
    place = image.root / (Path(image.workdir) / target).as_posix().lstrip("/")
    for source in sources:
        if source.is_dir():
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
        elif target.endswith("/") or len(sources) > 1:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / source.name)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)


def _sent(context: Path, target: Path) -> Path:
    """What an engine is sent: the files of ``context`` that ``.dockerignore`` lets pass."""
    lines = (context / ".dockerignore").read_text().splitlines()
    ignored = pathspec.PathSpec.from_lines("gitignore", lines)
    for folder, inside, files in os.walk(context):
        inside[:] = [name for name in inside if name not in {".git", ".venv"}]
        for name in files:
            path = Path(folder, name)
            if not ignored.match_file(path.relative_to(context)):
                place = target / path.relative_to(context)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, place)
    return target


# -- this machine's way to the package indexes ---------------------------------------------------------------------

OURS = "/run/ours"


def _settings() -> tuple[dict[str, str], dict[str, Path]]:
    """Environment that tells pip and others inside what they are told here, and the files it names, by path inside."""
    names = re.compile(r"(?i)\w+_PROXY|SSL_CERT_\w+|REQUESTS_CA_BUNDLE")
    told = {name: value for name, value in os.environ.items() if names.fullmatch(name)}
    pip = [sys.executable, "-m", "pip", "config", "list"]
    for line in subprocess.run(pip, check=True, capture_output=True, text=True).stdout.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in {"global", ":env:"}:
            told[f"PIP_{name.upper().replace('-', '_')}"] = ast.literal_eval(value)
    found: dict[str, Path] = {}
    for name, value in told.items():
        words = value.split()
        for place, word in enumerate(words):
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # A package index refers to files beside it.
                mounted = path.parent if word.startswith("file://") and path.parent != Path("/") else path
                found[f"{OURS}{mounted}"] = mounted.resolve()
                words[place] = word.replace(str(path), f"{OURS}{path}")
        told[name] = " ".join(words)
    for name in ("/etc/resolv.conf", "/etc/hosts"):
        if Path(name).exists():
            found[name] = Path(name).resolve()
    return told, found
