"""A head that puts a text of any language where another tower puts its English: the lessons and the training.

After Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
with the student's trunk frozen.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.encoders.ngrams import padded
from mmsearch.training.features import Floats
from mmsearch.training.losses import multi_positive_infonce

TRUNK_FEATURES = 384
DIM = 768
TAKEN_OUT = 8  # directions
ROWS, SIDE = 100_000, 64  # of the table of n-grams
RIDGE, ROUNDS = 1.0, 20  # how the table starts
TINY = 1e-30
LACKING = 0.1  # of the texts learn without the trunk, and as many without n-grams

log = logging.getLogger("mmsearch.training")


class NgramTable(nn.Module):
    """Rows of n-grams (n, m) int64, 0 for none -> what they add up to, over the root of their number: (n, d)."""

    def __init__(self, rows: int = ROWS, dim: int = SIDE) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(rows + 1, dim, mode="sum", padding_idx=0)
        nn.init.normal_(self.bag.weight, std=0.1 / dim**0.5)
        with torch.no_grad():
            self.bag.weight[0] = 0

    def forward(self, grams: Tensor) -> Tensor:
        return self.bag(grams) * root_of_number(grams)

    def regress(self, grams: Sequence[Sequence[int]], targets: Floats, weights: Floats) -> None:
        """Start with the ridge regression of `targets` (n, d) on the n-grams of n texts, each of its weight (n,).

        By conjugate gradients (Hestenes and Stiefel 1952), preconditioned with the diagonal.
        """
        counts = np.array([len(ids) for ids in grams])
        columns = np.fromiter(chain.from_iterable(grams), np.int32, counts.sum())
        starts = np.concatenate([[0], counts.cumsum()])
        shape = (len(grams), self.bag.num_embeddings)
        given = csr_array(
            (np.repeat(np.maximum(counts, 1) ** -0.5, counts), columns, starts), shape, np.float32
        )
        given.sum_duplicates()
        weighted = given.multiply((weights / weights.mean())[:, None]).T.tocsr()
        diagonal = weighted.multiply(given.T).sum(1)[:, None] + RIDGE
        found = np.zeros((shape[1], targets.shape[1]), np.float32)
        left = weighted @ targets
        step = ahead = left / diagonal
        size = (left * ahead).sum(0)
        for _ in range(ROUNDS):
            image = weighted @ (given @ step) + RIDGE * step
            length = size / ((step * image).sum(0) + TINY)
            found += length * step
            left -= length * image
            ahead = left / diagonal
            size, before = (left * ahead).sum(0), size
            step = ahead + size / (before + TINY) * step
        with torch.no_grad():
            self.bag.weight.copy_(torch.from_numpy(found))


class Int8NgramTable(nn.Module):
    """An `NgramTable` in int8, one scale a column: sums of integers are exact, whatever other texts pad a batch to."""

    codes: Tensor
    scales: Tensor

    def __init__(self, table: NgramTable) -> None:
        super().__init__()
        weights = table.bag.weight.detach()
        scales = weights.abs().amax(0) / 127
        self.register_buffer("codes", (weights / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, grams: Tensor) -> Tensor:
        return self.codes[grams].float().sum(1) * self.scales * root_of_number(grams)


def root_of_number(grams: Tensor) -> Tensor:
    return (grams > 0).float().sum(1, keepdim=True).clamp(min=1).rsqrt()


class MultilingualHead(nn.Module):
    """Unit features of the trunk (n, 384) and rows of n-grams (n, m) -> vectors of `mini`'s space (n, 768), unit rows.

    features: (n, 384), what is seen in training; languages: (l, 384), by how much the mean of each differs from
    that of English. The directions in which languages differ most are taken out: they say which language a text is in,
    not what it says. (It brings 0, 2, 4 and 1 per cent more of the stamps' captions in German, French, Chinese and
    Russian to their English ones at rank 1, before any training.) Features of zeros are not known.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, languages: Tensor, hidden: int = 768, dropout: float = 0.1) -> None:
        super().__init__()
        _, _, directions = torch.linalg.svd(languages, full_matrices=False)
        common = torch.eye(TRUNK_FEATURES) - directions[:TAKEN_OUT].T @ directions[:TAKEN_OUT]
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("scale", common / (features.std(0) + 1e-4))
        self.table: NgramTable | Int8NgramTable = NgramTable()
        self.linear = nn.Linear(TRUNK_FEATURES + SIDE, DIM)
        self.mlp = nn.Sequential(
            nn.Linear(TRUNK_FEATURES + SIDE, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, DIM)
        )
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        last = self.mlp[3]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def start(self, lessons: "Lessons") -> None:
        """Let the n-grams alone give what they can: the principal components of the English vectors, by regression."""
        mean = lessons.targets.mean(0)
        _, sizes, components = torch.linalg.svd(
            lessons.targets[:: len(lessons.targets) // 8000 + 1] - mean, False
        )
        spread = sizes[:SIDE] / len(sizes) ** 0.5
        wanted = (lessons.targets - mean) @ components[:SIDE].T / spread
        assert isinstance(self.table, NgramTable)
        self.table.regress(lessons.grams, wanted[lessons.english].numpy(), lessons.weights.numpy())
        with torch.no_grad():
            self.linear.bias.copy_(mean)
            self.linear.weight[:, TRUNK_FEATURES:] = components[:SIDE].T * spread

    def forward(self, features: Tensor, grams: Tensor) -> Tensor:
        x = (features - self.mean) @ self.scale * (features.abs().sum(1, keepdim=True) > 0)
        side = self.table(grams)
        if self.training:
            lacking = torch.rand(len(x), 1)
            x, side = x * (lacking > LACKING), side * (lacking < 1 - LACKING)
        x = torch.cat([x, side], 1)
        return normalize(self.linear(x) + self.mlp(x), dim=1)


@dataclass(frozen=True)
class Lessons:
    """What the head learns from, row by row the same text.

    features: (n, 384) of a text in some language, zeros where they are not known; grams: the rows of its n-grams;
    english: (n,) rows of `targets`; targets: (m, 768), `mini`'s vectors of the English texts; weights: (n,) how often a
    row is drawn. languages: (l, 384), the mean features of words in each language less those of the same words in
    English. photo_texts: (p, k) rows of `features`, the captions of one picture; pictures: (p, 768).
    """

    features: Tensor
    grams: Sequence[Sequence[int]]
    english: Tensor
    targets: Tensor
    weights: Tensor
    languages: Tensor
    photo_texts: Tensor
    pictures: Tensor

    def texts(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What the head takes of these rows."""
        return self.features[rows], torch.from_numpy(padded([self.grams[row] for row in rows.tolist()]))


def train(
    head: MultilingualHead,
    lessons: Lessons,
    *,
    steps: int = 1600,
    batch: int = 512,
    photos: int = 192,
    rate: float = 2e-3,
    table_rate: float = 1e-2,
    decay: float = 0.02,
    contrast: float = 0.2,
    seeing: float = 0.1,
    seed: int = 0,
) -> MultilingualHead:
    """Cosine to the English vector, plus `contrast` times InfoNCE with the English vectors of a batch and `seeing`
    times with pictures. The table learns faster, as most of its rows are rare; it does not decay.
    """
    torch.manual_seed(seed)
    table = set(head.table.parameters())
    groups = [
        {"params": [p for p in head.parameters() if p not in table], "weight_decay": decay},
        {"params": list(table), "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, rate)
    rates = [rate, table_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=steps, pct_start=0.1)
    text_scale, picture_scale = torch.tensor(20.0), torch.tensor(25.0)
    each = torch.eye(photos, dtype=torch.bool)
    head.train()
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16):
            rows = torch.multinomial(lessons.weights, batch, replacement=True)
            owners = lessons.english[rows]
            targets, vectors = lessons.targets[owners], head(*lessons.texts(rows))
            same = owners[:, None] == owners[None, :]
            loss = (1 - (vectors * targets).sum(1)).mean()
            loss = loss + contrast * multi_positive_infonce(targets, vectors, same, text_scale)
            shown = torch.randperm(len(lessons.pictures))[:photos]
            captions = lessons.photo_texts[shown, torch.randint(lessons.photo_texts.shape[1], (photos,))]
            seen = head(*lessons.texts(captions))
            loss = loss + seeing * multi_positive_infonce(lessons.pictures[shown], seen, each, picture_scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            log.info("step %d of %d, loss %.3f", step + 1, steps, loss.item())
    head.eval()
    return head
