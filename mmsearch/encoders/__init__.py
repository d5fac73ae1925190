"""Encoders turn media into vectors of one space. This module holds the protocol and the table of known models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mmsearch.errors import ModelError
from mmsearch.types import Image, Modality, Space, Vectors

__all__ = ["BUILT_IN_MODELS", "Encoder", "load_encoder"]

BUILT_IN_MODELS = Path(__file__).parent.parent / "models"


class Encoder(Protocol):
    """Turns media into L2-normalised vectors of ``space``. Methods may be called from several threads at once."""

    @property
    def space(self) -> Space: ...

    @property
    def modalities(self) -> frozenset[Modality]:
        """What it can encode; the method of another modality raises ``ModelError``."""

    @property
    def image_size(self) -> int:
        """Shorter side in pixels that a decoded picture needs at least (a hint for scaled decoding)."""

    @property
    def batch_size(self) -> int:
        """Number of pictures or texts per call that is fastest."""

    @property
    def levels(self) -> Mapping[Modality, float]:
        """Cosine to a text query below which items of a modality are probably unrelated to it; may be empty."""

    def prepare_image(self, image: Image) -> Image:
        """Resize to the tower's input size by its own rule; idempotent. Called on the decode threads."""

    def encode_images(self, images: Sequence[Image]) -> Vectors: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors: ...


def load_encoder(model: str | Path, *, threads: int | None = None) -> Encoder:
    """Load the encoder called ``model``: a built-in name such as ``mini``, or the path of a model folder.

    ``threads`` is the number of CPU threads of one call; None means all cores.

    Raises ``ModelError`` if there is no such model or its folder is damaged.
    """
    from mmsearch.encoders.onnx import OnnxEncoder

    return OnnxEncoder(model_folder(model), threads=threads)


def model_folder(model: str | Path) -> Path:
    """The folder of a model given by built-in name or by path. Raises ``ModelError`` if there is none."""
    built_in = BUILT_IN_MODELS / str(model)
    folder = built_in if (built_in / "model.json").is_file() else Path(model).expanduser()
    if not (folder / "model.json").is_file():
        known = ", ".join(sorted(path.parent.name for path in BUILT_IN_MODELS.glob("*/model.json")))
        raise ModelError(f"{model}: no such model. Give the folder of a model.json, or one of: {known}")
    return folder
