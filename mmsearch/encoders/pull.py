"""Fetching an open_clip model: a folder with all its files, whole and verified, that needs no network ever after.

Files arrive in a folder beside the model's own, are compared with the
checksums that the server gives, and are moved in at the end, the configuration last: a model whose fetching was cut
off is never taken for one that is there, and the next try goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from mmsearch.encoders.connection import check_connection, endpoint
from mmsearch.encoders.hub import HubFile, explained, fetch, find_file, list_files, problem, read_file, sha256
from mmsearch.encoders.open_clip_config import architecture_config, preprocess_of
from mmsearch.encoders.sources import CONFIG, Source
from mmsearch.errors import MissingExtra, ModelError

__all__ = ["PULLED", "Plan", "Progress", "by_hand", "check_pulled", "plan", "pull", "pulled_files"]

PULLED = "pulled.json"
"""What was fetched from where, with checksums; within the model's folder."""

WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
)
"""What open_clip's weights are called in a repository, best first. ``model.safetensors`` is that of another library."""

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)

TRUNK = "text/config.json"
"""Where the configuration of a text trunk of the library transformers goes."""

Progress = Callable[[str, int, int], None]
"""Called with what is done at the moment, and the bytes done and in all."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What fetching a model would do: these files into its folder, and this configuration beside them."""

    source: Source
    config: Mapping[str, Any]
    files: tuple[HubFile, ...]

    @property
    def size(self) -> int:
        """Bytes in all, of what the server tells."""
        return sum(file.size or 0 for file in self.files)


def plan(source: Source) -> Plan:
    """Ask the server what files a model has. Raises ``ModelError`` (within a second if there is no network),
    ``MissingExtra``.
    """
    _refuse_what_is_local(source)
    if importlib.util.find_spec("huggingface_hub") is None or importlib.util.find_spec("open_clip") is None:
        raise MissingExtra(f"fetching {source.short}", "clip")
    try:
        check_connection()
    except ModelError as error:
        raise ModelError(
            f"{source.short}: {error}. Or put these files there by hand:\n{by_hand(source)}"
        ) from error
    with explained(source.short, source.repo):
        return _plan(source)


def pull(
    source: Source, planned: Plan | None = None, progress: Progress = lambda what, done, total: None
) -> Path:
    """Fetch a model and return its folder. What an earlier try brought is not fetched again.

    Raises ``ModelError`` if the server cannot be reached, has no such model or sends something else than it says
    (what is wrong is deleted), ``MissingExtra``, ``OSError`` if the disk is full.
    """
    planned = planned or plan(source)
    from filelock import FileLock, Timeout

    part = source.folder.with_name(source.folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(part / ".lock", timeout=0), explained(source.short, source.repo):
            _fetch_all(planned, part, progress)
            _move_in(planned, part)
    except Timeout:
        raise ModelError(f"{source.short}: another process is fetching it") from None
    shutil.rmtree(part, ignore_errors=True)
    return source.folder


def by_hand(source: Source) -> str:
    """Lines that say which files go where, as far as that is known without asking a server."""
    repo = source.repo or (f"REPOSITORY-OF-{source.tag}" if source.scheme == "open-clip" else "")
    base = f"{endpoint()}/{repo}/resolve/main"
    lines = [f"{base}/{CONFIG}", f"{base}/{WEIGHTS[0]}   (or {WEIGHTS[2]})"]
    text: Mapping[str, Any] = {}
    if source.architecture is not None:
        with contextlib.suppress(ModelError):
            text = architecture_config(source.short, source.architecture)["text_cfg"]
    if tokenizer := text.get("hf_tokenizer_name"):
        lines += [f"{endpoint()}/{tokenizer}/resolve/main/{name}" for name in TOKENIZER[:2]]
    if trunk := text.get("hf_model_name"):
        lines += [
            f"{endpoint()}/{trunk}/resolve/main/config.json",
            f"{endpoint()}/{trunk}/resolve/main/config.json   into the folder text",
        ]
    if source.scheme == "hf-hub":
        lines += [f"{base}/{name}   (if it is there)" for name in TOKENIZER[:2]]
    return "\n".join(f"  {line}" for line in lines) + f"\ninto {source.folder}"


def pulled_files(folder: Path) -> dict[str, Any]:
    """What ``pulled.json`` says of a folder; empty if it was not fetched by ``pull``."""
    try:
        told = json.loads((folder / PULLED).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def check_pulled(folder: Path) -> list[str]:
    """What is wrong with the files of a folder that ``pull`` filled, by size and sha256."""
    problems = []
    for name, known in pulled_files(folder).get("files", {}).items():
        path = folder / name
        if not path.is_file():
            problems.append(f"{path}: is missing")
        elif path.stat().st_size != known["bytes"] or sha256(path) != known["sha256"]:
            problems.append(f"{path}: is not what was fetched")
    return problems


def _refuse_what_is_local(source: Source) -> None:
    if source.weights is not None or source.scheme == "local-dir":
        raise ModelError(f"{source.short}: is on this machine or nowhere; only open-clip:ARCHITECTURE/TAG and hf-hub: "
                         "names can be fetched")  # fmt: skip


def _plan(source: Source) -> Plan:
    repo, named = source.repo, ""
    if source.scheme == "open-clip":
        config, place = _tagged(source)
        repo, _, named = place.rpartition("/")
    assert repo is not None
    there, revision = list_files(repo)
    if source.scheme == "hf-hub":
        if CONFIG not in there:
            raise ModelError(f"{source.short}: has no {CONFIG}; it is no model of open_clip")
        config = json.loads(read_file(repo, CONFIG, revision))
    preprocess_of(source, config)  # said now and not after an hour
    weights = [str(PurePosixPath(named).with_suffix(".safetensors")), named] if named else WEIGHTS
    chosen = next((name for name in weights if name in there), None)
    if chosen is None:
        raise ModelError(f"{source.short}: the repository {repo} has no {' or '.join(WEIGHTS[::2])}")
    files = [find_file(repo, chosen, revision)]
    text = config["model_cfg"].get("text_cfg", {})
    if tokenizer := text.get("hf_tokenizer_name"):
        files += _tokenizer(str(tokenizer))
    if trunk := text.get("hf_model_name"):
        _, revision = list_files(str(trunk))
        files.append(find_file(str(trunk), "config.json", revision, to=TRUNK))
    return Plan(source=source, config=config, files=tuple(files))


def _tagged(source: Source) -> tuple[dict[str, Any], str]:
    """The configuration of an architecture with the weights of a tag, and where open_clip says that these are."""
    from mmsearch.encoders.open_clip_model import import_open_clip

    open_clip = import_open_clip()
    model = open_clip.get_model_config(source.architecture)
    rules = open_clip.get_pretrained_cfg(source.architecture, source.tag)
    if model is None or not rules:
        import difflib

        names = {f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()}
        tags = sorted(name for name in names if name.startswith(f"{source.architecture}/"))
        near = tags or difflib.get_close_matches(f"{source.architecture}/{source.tag}", names, 5, 0.5)
        raise ModelError(f"{source.short}: open_clip knows no such weights. It has: {', '.join(near)}")
    if not rules.get("hf_hub"):
        raise ModelError(
            f"{source.short}: these weights are in no repository. Fetch {rules.get('url')} and name the file: "
            f"open-clip:{source.architecture}/FILE"
        )
    model["quick_gelu"] = bool(
        rules.get("quick_gelu")
    )  # as it was trained, whatever the architecture is called
    kept = ("mean", "std", "interpolation", "resize_mode", "fill_color")
    return {
        "model_cfg": model,
        "preprocess_cfg": {key: rules[key] for key in kept if key in rules},
    }, str(rules["hf_hub"])


def _tokenizer(repo: str) -> list[HubFile]:
    """The files of a tokenizer. One that does not say its class is told by the configuration of its model."""
    there, revision = list_files(repo)
    names = [name for name in TOKENIZER if name in there]
    if not names:
        raise ModelError(f"{repo}: has no tokenizer")
    config = TOKENIZER[1]
    told = json.loads(read_file(repo, config, revision)) if config in there else {}
    if "tokenizer_class" not in told and "config.json" in there:
        names.append("config.json")
    return [find_file(repo, name, revision) for name in names]


def _fetch_all(planned: Plan, part: Path, progress: Progress) -> None:
    """Bring every file that is not in the folder already into ``part``, whole and verified."""
    files = [file for file in planned.files if not _is_there(planned, file)]
    done = sum(file.size or 0 for file in planned.files if file not in files)
    coming = sum(max(0, (file.size or 0) - _held(_in_part(part, file))) for file in files)
    free = shutil.disk_usage(part).free
    if coming > free:
        raise ModelError(
            f"{planned.source.short}: {coming / 1e9:.1f} GB are to come and {part.parent} has {free / 1e9:.1f} GB "
            "left. Set MMSEARCH_MODELS to a folder on another disk"
        )
    for file in files:
        path = _in_part(part, file)
        if file.etag is None or _held(path) > (file.size or 0):
            path.unlink(missing_ok=True)
        with path.open("ab") as handle:
            fetch(file.url, handle, file.size, _Counter(progress, file.to, done, planned.size))
            handle.flush()
            os.fsync(handle.fileno())
        done += path.stat().st_size
        progress(f"checking {file.to}", done, planned.size)
        if (found := problem(path, file)) is not None:
            path.unlink()
            raise ModelError(f"{file.url}: what came {found}. It was deleted; try again")


def _is_there(planned: Plan, file: HubFile) -> bool:
    path = planned.source.folder / file.to
    return path.is_file() and file.etag is not None and problem(path, file) is None


class _Counter:
    """Adds up what comes of one file."""

    def __init__(self, progress: Progress, name: str, done: int, total: int) -> None:
        self.progress, self.name, self.done, self.total = progress, name, done, total

    def __call__(self, count: int) -> None:
        self.done += count
        self.progress(self.name, self.done, self.total)


def _move_in(planned: Plan, part: Path) -> None:
    folder = planned.source.folder
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for file in planned.files:
        target = folder / file.to
        target.parent.mkdir(exist_ok=True)
        if (arrived := _in_part(part, file)).is_file():
            arrived.replace(target)
        known = file.etag if file.etag and len(file.etag) == 64 else sha256(target)
        files[file.to] = {"url": file.url, "bytes": target.stat().st_size, "sha256": known}
    told = {"name": planned.source.name, "files": files}
    for name, content in ((PULLED, told), (CONFIG, planned.config)):
        (part / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        (part / name).replace(folder / name)


def _in_part(part: Path, file: HubFile) -> Path:
    """Where a file arrives. Its name has its checksum, so that only a try at the same file goes on."""
    return part / f"{file.to.replace('/', '--')}.{(file.etag or 'unknown').replace('/', '-')[:16]}"


def _held(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
