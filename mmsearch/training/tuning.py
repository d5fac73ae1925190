"""Tuning both trunks of `mini` on photos with captions, together with the heads: the step before they become int8.

The last stages of the image trunk and all layers of the text trunk learn, from what the untuned front of the image
trunk gave once for each rendering of a photo. Two more losses keep what captions do not ask for: the image trunk's
class scores stay near those of its ImageNet weights, since ConSE reads them (Li and Hoiem 2016, "Learning without
Forgetting"), and the text trunk's vectors near MiniLM's own, on captions and on definitions. The result is the running
mean of the weights (Polyak and Juditsky 1992).
"""

import copy
import logging
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.functional import kl_div, log_softmax, softmax

from mmsearch.training.classes import TEMPERATURE
from mmsearch.training.features import load_picture
from mmsearch.training.heads import Head
from mmsearch.training.loop import rate_at
from mmsearch.training.losses import multi_positive_infonce
from mmsearch.training.trunks import TEXT_FEATURES, ImageTrunk, TextTrunk, tokenize

RENDERINGS = 6  # random crops of each photo, besides the plain one
FRONT = 16  # pictures at a time through the front of the image trunk
BATCH = 224  # photos, each with one of its captions
OTHERS = 48  # texts beside them that belong to no photo
DECAY = 0.05
MEAN = 0.97  # how much of the running mean a step leaves

log = logging.getLogger("mmsearch.training")


@dataclass(frozen=True)
class Renderings:
    """What the front of the image trunk gives: maps (v, n, c, h, w) and means (v, n, 64), float16."""

    maps: NDArray[np.float16]
    means: NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Rates of AdamW, 0 for a part that is left alone, and how much it counts that classes and words stay."""

    image: float = 6e-4
    text: float = 1.5e-4
    head: float = 6e-4
    classes: float = 0.5
    words: float = 2.0


class Words:
    """Texts as tokens, cut at the `longest`, so that any of them make a batch."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], longest: int | None = None) -> None:
        ids, mask = tokenize(tokenizer, texts)
        self.ids, self.mask = ids[:, :longest], mask[:, :longest]
        self.lengths = self.mask.sum(1)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Ids and mask of some of them, (n, the longest's length)."""
        length = int(self.lengths[rows].max())
        return self.ids[rows, :length], self.mask[rows, :length]

    def encode(self, trunk: TextTrunk) -> Tensor:
        """Vectors of all of them, (n, 384)."""
        vectors = torch.empty(len(self.ids), TEXT_FEATURES)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            for rows in self.lengths.argsort().split(128):
                vectors[rows] = trunk(*self.batch(rows)).float()
        return vectors


def render(pictures: Sequence[Path], size: int, folder: Path) -> Renderings:
    """Each picture plain and in `RENDERINGS` random crops, 220 kB a picture, kept in `folder` and mapped from there."""
    if not (folder / "means.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(2, get_context("spawn")) as pool:
            tasks = [pool.submit(_front, pictures, size, v) for v in range(RENDERINGS + 1)]
            found = [task.result() for task in tasks]
        np.save(folder / "maps.npy", np.stack([maps for maps, _ in found]))
        np.save(folder / "means.npy", np.stack([means for _, means in found]))
    return Renderings(np.load(folder / "maps.npy", mmap_mode="r"), np.load(folder / "means.npy"))


def _front(
    pictures: Sequence[Path], size: int, rendering: int
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    torch.set_num_threads(1)
    trunk, maps, means = ImageTrunk(size), [], []
    for start in range(0, len(pictures), FRONT):
        rows = range(start, min(start + FRONT, len(pictures)))
        crops = [random.Random(f"tuning {rendering} {row}") if rendering else None for row in rows]
        pixels = np.stack(
            [load_picture(pictures[i], size, crop) for i, crop in zip(rows, crops, strict=True)]
        )
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = trunk.front(torch.from_numpy(pixels))
        maps.append(found[0].half().numpy())
        means.append(found[1].half().numpy())
    return np.concatenate(maps), np.concatenate(means)


def tune(
    image: ImageTrunk,
    text: TextTrunk,
    head: Head,
    photos: Renderings,
    captions: Words,
    owned: Tensor,
    others: Words,
    *,
    epochs: int,
    weights: Weights | None = None,
    batch: int = BATCH,
    seed: int = 0,
    progress: Callable[[int, ImageTrunk, TextTrunk, Head], None] = lambda *averages: None,
) -> tuple[ImageTrunk, TextTrunk]:
    """Tuned copies of the trunks; `head` is where their common head begins.

    owned: (n, k) rows of `captions` of each photo; others: texts on which the text trunk must stay as it is. `progress`
    hears after each epoch its number and the running means of trunks and head.
    """
    weights = weights or Weights()
    torch.manual_seed(seed)
    lessons = _Lessons(copy.deepcopy(image), captions.encode(text), others.encode(text))
    parts: tuple[ImageTrunk, TextTrunk, Head] = copy.deepcopy((image, text, head))
    for trunk in parts[:2]:
        trunk.requires_grad_(False)
    for trunk in (parts[0], lessons.image):  # twice as fast on a processor, in bfloat16 most of all
        trunk.to(memory_format=torch.channels_last)
    groups: list[dict[str, Any]] = [
        {"params": tuned, "full": rate}
        for tuned, rate in (
            (parts[0].tuned(), weights.image),
            (list(parts[1].layers.parameters()), weights.text),
            (list(parts[2].parameters()), weights.head),
        )
        if rate
    ]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(groups, lr=1.0, weight_decay=DECAY)
    averages = copy.deepcopy(parts)
    batch = min(batch, len(owned))
    steps, step, started = epochs * (len(owned) // batch), 0, time.perf_counter()
    parts[2].train()
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(owned))[: len(owned) // batch * batch].split(batch):
            for group in optimiser.param_groups:
                group["lr"] = group["full"] * rate_at(step, steps)
            step += 1
            loss = lessons.loss(parts, photos, captions, owned, others, rows.sort().values, weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            _follow(averages, parts, min(MEAN, step / (step + 10)))
        seconds = time.perf_counter() - started
        log.info("tuning, epoch %d of %d, %.0f s: loss %.3f", epoch + 1, epochs, seconds, np.mean(losses))
        progress(epoch, *averages)
    for part in averages:
        part.requires_grad_(False).eval()
    return averages[0], averages[1]


@dataclass(frozen=True)
class _Lessons:
    """What must stay: the image trunk as it was, what the text trunk gave for captions and for other texts."""

    image: ImageTrunk
    captions: Tensor
    others: Tensor

    def loss(
        self,
        parts: tuple[ImageTrunk, TextTrunk, Head],
        photos: Renderings,
        captions: Words,
        owned: Tensor,
        others: Words,
        rows: Tensor,
        weights: Weights,
    ) -> Tensor:
        """InfoNCE between the photos `rows`, all in one rendering, and a caption of each; and the two that keep."""
        image, text, head = parts
        view = int(torch.randint(len(photos.maps), ()))
        maps = torch.from_numpy(photos.maps[view][rows.numpy()])
        maps = maps.to(torch.bfloat16, memory_format=torch.channels_last)
        means = torch.from_numpy(photos.means[view][rows.numpy()]).float()
        chosen = owned[rows, torch.randint(owned.shape[1], (len(rows),))]
        asked = torch.randint(len(others.ids), (OTHERS,))
        with torch.autocast("cpu", torch.bfloat16):
            features = image.back(maps, means)
            words, glosses = text(*captions.batch(chosen)), text(*others.batch(asked))
            with torch.no_grad():
                before = self.image.back(maps, means)
        features, words, glosses = features.float(), words.float(), glosses.float()
        with torch.no_grad():
            prior = head.conse(features)
        contrast = multi_positive_infonce(
            head.image(features, prior),
            head.text(words),
            torch.eye(len(rows), dtype=torch.bool),
            head.log_scale.exp().clamp(max=100.0),
        )
        classes = kl_div(
            log_softmax(head.class_scores(features) / TEMPERATURE, 1),
            softmax(head.class_scores(before.float()) / TEMPERATURE, 1),
            reduction="batchmean",
        )
        drift = (1 - (words * self.captions[chosen]).sum(1)).mean()
        drift = drift + (1 - (glosses * self.others[asked]).sum(1)).mean()
        return contrast + weights.classes * classes + weights.words * drift


def _follow(averages: Sequence[nn.Module], parts: Sequence[nn.Module], keep: float) -> None:
    """Move the running means towards what is trained."""
    with torch.no_grad():
        for average, part in zip(averages, parts, strict=True):
            for mean, now in zip(average.parameters(), part.parameters(), strict=True):
                if now.requires_grad:
                    mean.lerp_(now, 1 - keep)
