"""The table of models that are worth having: short names, what they are, and under which licence."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

__all__ = ["KNOWN", "KnownModel"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnownModel:
    """A public model. ``source`` is its full name, ``repo`` the repository its files come from (Hugging Face Hub).

    ``parameters`` of both towers together, ``download_bytes`` of the weights. ``research_only``: the licence of the
    weights forbids commercial use; such a model is never a default. ``recall`` is what was published, per cent, with
    its source.
    """

    source: str
    repo: str
    dim: int
    parameters: int
    licence: str
    research_only: bool = False
    download_bytes: int
    about: str
    recall: str = ""


KNOWN: Mapping[str, KnownModel] = {
    "clip-b32": KnownModel(
        source="open-clip:ViT-B-32/laion2b_s34b_b79k",
        repo="laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        dim=512,
        parameters=151_277_313,
        licence="MIT",
        download_bytes=605_143_884,
        about="the fast one",
    ),
}
