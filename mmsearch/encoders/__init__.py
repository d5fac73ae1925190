"""Encoders turn media into vectors of one space. This module holds the protocol and the table of known models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mmsearch.config import Device, Precision
from mmsearch.errors import ModelError
from mmsearch.types import AudioWindow, Image, Modality, Space, Vector, Vectors, Waveform

if TYPE_CHECKING:
    from mmsearch.encoders.sources import Source

__all__ = ["BUILT_IN_MODELS", "Encoder", "full_name", "load_encoder", "model_files", "model_folder"]

BUILT_IN_MODELS = Path(__file__).parent.parent / "models"


class Encoder(Protocol):
    """Turns media into L2-normalised vectors of ``space``. Methods may be called from several threads at once."""

    @property
    def space(self) -> Space: ...

    @property
    def fingerprint(self) -> str:
        """What names these very weights and this preprocessing; cheap, no tower is loaded for it. Encoders with the
        same fingerprint are not compared again.
        """

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it can encode; the method of another modality raises ``ModelError``."""

    @property
    def image_size(self) -> int:
        """Shorter side in pixels that a decoded picture needs at least (a hint for scaled decoding)."""

    @property
    def audio_window(self) -> AudioWindow:
        """The rate of the samples it takes, and how a longer recording is cut."""

    @property
    def batch_size(self) -> int:
        """Number of pictures or texts per call that is fastest."""

    @property
    def levels(self) -> Mapping[Modality, float]:
        """Cosine to a text query below which items of a modality are probably unrelated to it; may be empty."""

    @property
    def means(self) -> Mapping[Modality, Vector]:
        """Mean vector (dim,) of the items of a modality, of a length below 1: what a mixed list is centred by. May be
        empty.
        """

    @property
    def spreads(self) -> Mapping[Modality, Mapping[Modality, float]]:
        """Query's modality -> items' modality -> by how much the cosine of 1 of 100 unrelated items exceeds that with
        their mean. May be empty; else it has every pair of the modalities that have a mean.
        """

    def knows(self, word: str) -> bool | None:
        """Whether the text tower's vocabulary has a word (folded, see ``mmsearch.words``) as a whole, so that it is no
        misspelt one. None: it cannot tell.
        """

    def prepare_image(self, image: Image) -> Image:
        """Resize to the tower's input size by its own rule; idempotent. Called on the decode threads."""

    def encode_images(self, images: Sequence[Image]) -> Vectors: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors: ...

    def encode_audio(self, clips: Sequence[Waveform]) -> Vectors: ...


def load_encoder(
    model: str | Path,
    *,
    threads: int | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    compile: bool = False,
) -> Encoder:
    """Load the encoder called ``model``: a built-in name such as ``mini``, the path of a model folder, or a name of
    an open_clip model (``mmsearch.encoders.sources``). Of the latter an export to ONNX is taken if there is one and
    no GPU is asked for.

    ``threads`` is the number of CPU threads of one call; None means all cores. ``device``, ``precision`` and
    ``compile`` are for models that torch runs (``mmsearch.encoders.open_clip``).

    Raises ``ModelError`` if there is no such model, it is not on this machine, or its folder is damaged.
    """
    from mmsearch.encoders.onnx import OnnxEncoder

    if (folder := _folder_of(model)) is not None:
        return OnnxEncoder(folder, threads=threads)
    from mmsearch.encoders.sources import find_source

    if (source := find_source(model)) is None:
        raise _unknown(model)
    if not device.startswith("cuda") and (exported := source.exported) is not None:
        return OnnxEncoder(exported, threads=threads)
    from mmsearch.encoders.open_clip import OpenClipEncoder

    device = device.partition(":")[0]  # the rest says how vectors lie there
    return OpenClipEncoder(source, threads=threads, device=device, precision=precision, compile=compile)


def model_folder(model: str | Path) -> Path:
    """The folder of a model given by built-in name, by path, or by the name of one that was exported.

    Raises ``ModelError`` if there is none.
    """
    if (folder := _folder_of(model)) is not None:
        return folder
    from mmsearch.encoders.sources import find_source

    if (source := find_source(model)) is None:
        raise _unknown(model)
    if (exported := source.exported) is not None:
        return exported
    if not source.present:
        raise source.missing()
    raise ModelError(f"{model}: is no model folder yet. Make one of it: mmsearch models export {model}")


def model_files(model: str | Path) -> Source | None:
    """The source of an open_clip model, whether its files are here or not; None for a model folder.

    Raises ``ModelError`` if ``model`` is neither.
    """
    if _folder_of(model) is not None:
        return None
    from mmsearch.encoders.sources import find_source

    if (source := find_source(model)) is None:
        raise _unknown(model)
    return source


def full_name(model: str | Path) -> str:
    """What a collection remembers of a model's name: a built-in name, the absolute folder, or an open_clip source."""
    folder = _folder_of(model)
    if folder is not None:
        return str(model) if folder.parent == BUILT_IN_MODELS else str(folder.absolute())
    from mmsearch.encoders.sources import find_source

    source = find_source(model)
    return source.name if source else str(model)


def _folder_of(model: str | Path) -> Path | None:
    # os.path, because to pathlib a name that is too long for the disk, or of a home that is not there, is an error.
    for folder in (str(BUILT_IN_MODELS / str(model)), os.path.expanduser(model)):
        if os.path.isfile(os.path.join(folder, "model.json")):
            return Path(folder)
    return None


def _unknown(model: str | Path) -> ModelError:
    import difflib

    from mmsearch.encoders.known import KNOWN

    built_in = sorted(path.parent.name for path in BUILT_IN_MODELS.glob("*/model.json"))
    near = difflib.get_close_matches(str(model), [*built_in, *KNOWN], 3)
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return ModelError(
        f"{model}: no such model.{meant} Give the folder of a model.json, one of {', '.join(built_in)}, or a name of "
        "`mmsearch models list`"
    )
