"""The recipe of `mini-multilingual`: ``python -m mmsearch.training.mini_multilingual --data FOLDER --out FOLDER``.

A head on multilingual-e5-small that puts a text in any of its languages where `mini` puts the same text in English
(Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation", with
the student's trunk frozen). Seeded from end to end. Writes a complete model folder but for the card, and prints its
evaluation as JSON.
"""

import argparse
import json
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoders.packaged import PackagedTextTower, TextTrunk, load_trunk
from mmsearch.media import load_image
from mmsearch.training.classes import class_texts, read_nouns
from mmsearch.training.evaluate_mini import nothing_below
from mmsearch.training.export import export_graph, store_half
from mmsearch.training.features import Floats, cached
from mmsearch.training.languages import ENGLISH, STAMP_LANGUAGES, Captioned, read_emoji, read_stamps, recall
from mmsearch.training.losses import multi_positive_infonce
from mmsearch.training.mini import WORDNET
from mmsearch.training.pairs import read_fashion, read_flickr
from mmsearch.training.translations import LANGUAGES, read_cedict, read_freedict

TRUNK_FEATURES = 384
DIM = 768
WORDS = 5000  # English words whose translations are learnt
AGREEING = 0.75  # share of a language's translations kept: those that the trunk itself finds nearest

log = logging.getLogger("mmsearch.training")


class MultilingualHead(nn.Module):
    """Unit features of the trunk (n, 384) -> vectors of `mini`'s space (n, 768), unit rows."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, hidden: int = 512, dropout: float = 0.2) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("deviation", features.std(0) + 1e-4)
        self.linear = nn.Linear(TRUNK_FEATURES, DIM)
        self.mlp = nn.Sequential(
            nn.Linear(TRUNK_FEATURES, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, DIM)
        )
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        last = self.mlp[3]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, features: Tensor) -> Tensor:
        x = (features - self.mean) / self.deviation
        return normalize(self.linear(x) + self.mlp(x), dim=1)


@dataclass(frozen=True)
class Lessons:
    """What the head learns from, row by row the same text.

    features: (n, 384) of a text in some language; english: (n,) rows of `targets`; targets: (m, 768), `mini`'s vectors
    of the English texts; weights: (n,) how often a row is drawn. differences: (d, 384), what translating a word does
    to its features. photo_texts: (p, k) rows of `features`, the captions of one picture; pictures: (p, 768).
    """

    features: Tensor
    english: Tensor
    targets: Tensor
    weights: Tensor
    differences: Tensor
    photo_texts: Tensor
    pictures: Tensor


def train(
    head: MultilingualHead,
    lessons: Lessons,
    *,
    steps: int = 2500,
    batch: int = 768,
    photos: int = 256,
    rate: float = 1e-3,
    decay: float = 0.05,
    scale: float = 20.0,
    picture_scale: float = 25.0,
    contrast: float = 0.2,
    seeing: float = 0.2,
    accent: float = 0.5,
    seed: int = 0,
) -> MultilingualHead:
    """Cosine to the English vector, plus `contrast` times InfoNCE among texts and `seeing` times with pictures.

    Half of the texts get an `accent`: a random multiple, up to that, of what translating some word did to its features.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    head.train()

    def accented(features: Tensor) -> Tensor:
        strength = accent * torch.rand(len(features), 1, generator=generator)
        strength *= (torch.rand(len(features), 1, generator=generator) < 0.5).float()
        return (
            features
            + strength
            * lessons.differences[
                torch.randint(len(lessons.differences), (len(features),), generator=generator)
            ]
        )

    for step in range(steps):
        rows = torch.multinomial(lessons.weights, batch, replacement=True, generator=generator)
        owners = lessons.english[rows]
        targets = lessons.targets[owners]
        vectors = head(accented(lessons.features[rows]))
        loss = (1 - (vectors * targets).sum(1)).mean()
        same = owners[:, None] == owners[None, :]
        loss = loss + contrast * multi_positive_infonce(targets, vectors, same, torch.tensor(scale))
        if seeing and len(lessons.pictures):
            shown = torch.randperm(len(lessons.pictures), generator=generator)[:photos]
            column = torch.randint(lessons.photo_texts.shape[1], (len(shown),), generator=generator)
            texts = head(accented(lessons.features[lessons.photo_texts[shown, column]]))
            loss = loss + seeing * multi_positive_infonce(
                lessons.pictures[shown],
                texts,
                torch.eye(len(shown), dtype=torch.bool),
                torch.tensor(picture_scale),
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 500 == 499:
            log.info("step %d loss %.3f", step + 1, loss.item())
    head.eval()
    return head


class Build:
    """One run of the recipe: features of the trunk, targets of the base; kept between runs when `cache` is given."""

    def __init__(self, base: Path, tower: PackagedTextTower, cache: Path | None) -> None:
        self.base = OnnxEncoder(base)
        self.tower, self.trunk = tower, load_trunk(tower, 1)
        self.cache = cache
        self.version = hashlib.sha256((base / "canonical.npz").read_bytes()).hexdigest()

    def features(self, texts: Sequence[str]) -> Floats:
        key = ("e5", self.tower.sha256, self.tower.prefix, list(texts))
        return cached(self.cache, key, lambda: self.trunk(texts))

    def targets(self, texts: Sequence[str]) -> Floats:
        return cached(self.cache, ("texts", self.version, list(texts)), lambda: self.base.encode_texts(texts))

    def pictures(self, paths: Sequence[Path]) -> Floats:
        key = ("pictures", self.version, [path.name for path in paths])
        return cached(self.cache, key, lambda: encode_pictures(self.base, paths))

    def translated(self, pairs: Sequence[tuple[str, str]]) -> tuple[Floats, list[int]]:
        """Features of the translations of (English, translation) pairs, and the rows of those that the trunk agrees with.

        Both sides are centred first: what all words of a language share says nothing about one of them.
        """
        words = sorted({word for word, _ in pairs})
        row = {word: i for i, word in enumerate(words)}
        english, foreign = self.features(words), self.features([other for _, other in pairs])
        ours = english[[row[word] for word, _ in pairs]] - english.mean(0)
        theirs = foreign - foreign.mean(0)
        agreement = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        kept = np.flatnonzero(agreement >= np.quantile(agreement, 1 - AGREEING))
        return foreign, [int(i) for i in kept]

    def lessons(self, sources: Sources) -> Lessons:
        """English sentences and words as they are, and words in other languages that stand for the English one."""
        captions = [caption for pair in sources.photos for caption in pair.texts[:CAPTIONS]]
        sentences = sorted({*captions, *(text for pair in sources.products for text in pair.texts), *sources.classes})
        english = sentences + sources.words
        row = {text: i for i, text in enumerate(english)}
        features, owners = [self.features(sentences), self.features(sources.words)], list(range(len(english)))
        differences = []
        words = features[1]
        for language, pairs in sources.translations.items():
            foreign, kept = self.translated(pairs)
            log.info("%s: %d translations of %d kept", language, len(kept), len(pairs))
            features.append(foreign[kept])
            owners += [row[pairs[i][0]] for i in kept]
            differences.append(foreign[kept] - words[[row[pairs[i][0]] - len(sentences) for i in kept]])
        foreign_rows = len(owners) - len(english)
        share = SENTENCES / len(sentences), (1 - SENTENCES) / (len(words) + foreign_rows)
        weights = np.repeat(share, (len(sentences), len(words) + foreign_rows))
        photo_texts = [[row[caption] for caption in pair.texts[:CAPTIONS]] for pair in sources.photos]
        return Lessons(
            features=torch.from_numpy(np.concatenate(features)),
            english=torch.tensor(owners),
            targets=torch.from_numpy(self.targets(english)),
            weights=torch.from_numpy(weights),
            differences=torch.from_numpy(np.concatenate(differences)),
            photo_texts=torch.tensor(photo_texts),
            pictures=torch.from_numpy(self.pictures([pair.picture for pair in sources.photos])),
        )


def encode_pictures(encoder: OnnxEncoder, paths: Sequence[Path]) -> Floats:
    """Vectors (n, 768) of pictures, opened as the engine opens them."""
    size, side = encoder.batch_size, encoder.image_size
    batches = [paths[start : start + size] for start in range(0, len(paths), size)]
    return np.concatenate(
        [encoder.encode_images([load_image(path, min_side=side) for path in batch]) for batch in batches]
    )
