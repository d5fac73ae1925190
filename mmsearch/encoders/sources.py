"""Names of open_clip models, and where on this machine their files are.

::

    clip-b32                                 a short name of the table of known models
    open-clip:ViT-B-32/laion2b_s34b_b79k     an architecture of open_clip and the tag of its weights
    open-clip:ViT-B-32/weights.safetensors   an architecture and a file of weights
    hf-hub:org/name                          a repository of the Hugging Face Hub
    local-dir:/path                          a folder with open_clip_config.json and weights

What comes from the network is put into a folder of its own below the folder of models and read from there, so that
nothing but ``mmsearch models pull`` ever asks a server for anything.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Literal

from mmsearch.config import models_folder
from mmsearch.encoders.known import KNOWN
from mmsearch.errors import ModelError

__all__ = ["CONFIG", "WEIGHTS", "Source", "find_source", "sha256"]

CONFIG = "open_clip_config.json"
EXPORT = "onnx"
"""The folder within a model's own that its export is written to."""

WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".npz")
"""What files of weights are called."""

Scheme = Literal["open-clip", "hf-hub", "local-dir"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model comes from. ``name`` is the full one, ``short`` what messages call it.

    ``folder`` has (or will have) its files, ``architecture`` and ``tag`` are those of an ``open-clip:`` name; with
    ``weights``, a file of the user's own, there is no tag.
    """

    scheme: Scheme
    name: str
    short: str
    folder: Path
    repo: str | None = None
    architecture: str | None = None
    tag: str | None = None
    weights: Path | None = None

    @property
    def export(self) -> Path:
        """The model folder that ``mmsearch models export`` writes where no other is given."""
        return self.folder / (f"{self.weights.stem}-{EXPORT}" if self.weights else EXPORT)

    @property
    def exported(self) -> Path | None:
        """The export that is there, if there is one.

        Raises ``ModelError`` if it was made from other weights than those that are there now.
        """
        if not (self.export / "model.json").is_file():
            return None
        try:
            told = json.loads((self.export / "model.json").read_text("utf-8"))
            weights = self.folder / told["exported"]["weights"]
            stat = weights.stat()
            size, changed, digest = (told["exported"][name] for name in ("bytes", "mtime_ns", "sha256"))
        except (OSError, ValueError, KeyError, TypeError):
            return self.export  # without its weights, or not ours: its own hashes tell what it is
        # A copy of a folder has new times, and weights that were trained on have the old size.
        if (stat.st_size, stat.st_mtime_ns) != (size, changed) and sha256(weights) != digest:
            raise ModelError(
                f"{self.short}: {weights.name} has changed since {self.export} was made of it. Write that again with "
                f"`mmsearch models export {self.short}`, or remove it"
            )
        return self.export

    @property
    def present(self) -> bool:
        """Whether its files are on this machine."""
        if self.weights is not None:
            return self.weights.is_file()
        return (self.folder / CONFIG).is_file() and any(
            path.suffix in WEIGHTS for path in self.folder.iterdir()
        )

    def missing(self) -> ModelError:
        """The error to raise where its files are not on this machine: what to run, or where to put which files."""
        if self.weights is not None:
            return ModelError(f"{self.weights}: no such file of weights")
        if self.scheme == "local-dir":
            return ModelError(
                f"{self.folder}: not a folder of a model. It needs {CONFIG} (with model_cfg and preprocess_cfg) and "
                f"weights ({', '.join(WEIGHTS[:3])})"
            )
        return ModelError(
            f"{self.short}: its files are not on this machine. Fetch them with `mmsearch models pull {self.short}`, or "
            f"put them into {self.folder} by hand (`mmsearch models pull {self.short} --dry-run` lists them)"
        )


def find_source(model: str | Path) -> Source | None:
    """What ``model`` names; None if it is no name of an open_clip model.

    Raises ``ModelError`` for a name that begins like one and is none.
    """
    given = str(model)
    name = KNOWN[given].source if given in KNOWN else given
    scheme, colon, rest = name.partition(":")
    if not colon or scheme not in ("open-clip", "hf-hub", "local-dir"):
        folder = Path(os.path.expanduser(given))
        if not os.path.isfile(folder / CONFIG):
            return None
        scheme, rest = "local-dir", str(folder)
    if scheme == "local-dir":
        folder = Path(rest).expanduser().absolute()
        return Source(
            scheme="local-dir", name=f"local-dir:{folder}", short=f"local-dir:{rest}", folder=folder
        )
    first, slash, second = rest.partition("/")
    if not first or not slash or not second:
        raise ModelError(
            f"{given}: what model? Write open-clip:ARCHITECTURE/TAG, hf-hub:ORGANISATION/NAME or local-dir:/path"
        )
    folder = models_folder() / name.replace(":", "--").replace("/", "--")
    if scheme == "hf-hub":
        return Source(scheme="hf-hub", name=name, short=given, folder=folder, repo=rest)
    if Path(second).suffix in WEIGHTS:
        weights = Path(second).expanduser().absolute()
        name = f"open-clip:{first}/{weights}"
        return Source(
            scheme="open-clip",
            name=name,
            short=given,
            folder=weights.parent,
            architecture=first,
            weights=weights,
        )
    second = second.lower().replace("-", "_")  # as open_clip reads tags
    name = f"open-clip:{first}/{second}"
    folder = models_folder() / name.replace(":", "--").replace("/", "--")
    repo = next((known.repo for known in KNOWN.values() if known.source == name), None)
    return Source(
        scheme="open-clip",
        name=name,
        short=given,
        folder=folder,
        repo=repo,
        architecture=first,
        tag=second,
    )


def sha256(path: Path) -> str:
    """The hash of a file's content in hexadecimal. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
