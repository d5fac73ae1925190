"""A head that puts a text of any language where another tower puts its English: the lessons and the training.

After Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
with the student's trunk frozen, and beside it a table of n-grams after Bojanowski et al. 2017, "Enriching Word Vectors
with Subword Information": what 384 features of a small trunk do not tell apart are rare words, and dictionaries are
long.
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

from mmsearch.training.features import Floats
from mmsearch.training.losses import multi_positive_infonce

TRUNK_FEATURES = 384
DIM = 768
TAKEN_OUT = 8  # directions
ROWS, SIDE = 64_000, 112  # of the table of n-grams
RIDGE, ROUNDS = 0.1, 12  # of its regression
TINY = 1e-30
WEIGHT, ALL = (
    2.5,
    20,
)  # of what the table says beside a unit vector of the head, in texts of up to so many n-grams

log = logging.getLogger("mmsearch.training")


class MultilingualHead(nn.Module):
    """Unit features of the trunk (n, 384) -> vectors of `mini`'s space (n, 768), unit rows.

    features: (n, 384), what is seen in training; languages: (l, 384), by how much the mean of each differs from
    that of English. The directions in which languages differ most are taken out: they say which language a text is in,
    not what it says. (It brings 0, 2, 4 and 1 per cent more of the stamps' captions in German, French, Chinese and
    Russian to their English ones at rank 1, before any training.)
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, languages: Tensor, hidden: int = 768, dropout: float = 0.1) -> None:
        super().__init__()
        _, _, directions = torch.linalg.svd(languages, full_matrices=False)
        common = torch.eye(TRUNK_FEATURES) - directions[:TAKEN_OUT].T @ directions[:TAKEN_OUT]
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("scale", common / (features.std(0) + 1e-4))
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
        x = (features - self.mean) @ self.scale
        return normalize(self.linear(x) + self.mlp(x), dim=1)


class NgramTable(nn.Module):
    """Rows of n-grams (n, m) int64, 0 for none -> what they say of a text's vector (n, 768).

    A table in int8 with one scale a column, so that a sum of rows is exact whatever a batch is padded to, and the
    directions of the space that its columns stand for. A text is the sum over the root of its number of n-grams. In a
    long text the trunk knows more than its words do one by one: the more n-grams, the less weight they have.
    """

    codes: Tensor
    directions: Tensor

    def __init__(self, table: Tensor, directions: Tensor) -> None:
        """table: (rows + 1, d), the first of zeros; directions: (d, 768)."""
        super().__init__()
        scales = table.abs().amax(0) / 127
        self.register_buffer("codes", (table / scales).round().to(torch.int8))
        self.register_buffer("directions", scales[:, None] * directions)

    def forward(self, grams: Tensor) -> Tensor:
        number = (grams > 0).float().sum(1, keepdim=True).clamp(min=1)
        weight = WEIGHT * (ALL / number).clamp(max=1)
        return self.codes[grams].float().sum(1) * number.rsqrt() * weight @ self.directions


class HeadWithNgrams(nn.Module):
    """Features (n, 384) and rows of n-grams (n, m) -> unit vectors (n, 768): a head and a table, added up."""

    def __init__(self, head: MultilingualHead, table: NgramTable) -> None:
        super().__init__()
        self.head, self.table = head, table

    def forward(self, features: Tensor, grams: Tensor) -> Tensor:
        return normalize(self.head(features) + self.table(grams), dim=1)


def fit_ngrams(
    grams: Sequence[Sequence[int]], english: Tensor, targets: Tensor, weights: Floats, rows: int = ROWS
) -> NgramTable:
    """The table from which the n-grams of n texts, (n,) rows of `targets` (m, 768), give `targets` best.

    grams: for each text its rows, 1 to `rows`; weights: (n,). Ridge regression of the principal components.
    """
    centred = targets - targets.mean(0)
    _, directions = torch.linalg.eigh(centred.T @ centred)
    directions = directions.flip(1)[:, :SIDE]
    table = regress(grams, (centred @ directions)[english].numpy(), weights, rows)
    return NgramTable(torch.from_numpy(table), directions.T)


def regress(grams: Sequence[Sequence[int]], targets: Floats, weights: Floats, rows: int) -> Floats:
    """(rows + 1, d): the ridge regression of `targets` (n, d) on the n-grams of n texts, each of its weight (n,).

    By conjugate gradients (Hestenes and Stiefel 1952), preconditioned with the diagonal.
    """
    counts = np.array([len(ids) for ids in grams])
    columns = np.fromiter(chain.from_iterable(grams), np.int32, counts.sum())
    starts = np.concatenate([[0], counts.cumsum()])
    values = np.repeat(np.maximum(counts, 1) ** -0.5, counts).astype(np.float32)
    given = csr_array((values, columns, starts), (len(grams), rows + 1))
    given.sum_duplicates()
    weighted = given.multiply((weights / weights.mean())[:, None]).T.tocsr()
    diagonal = weighted.multiply(given.T).sum(1)[:, None] + RIDGE
    found = np.zeros((rows + 1, targets.shape[1]), np.float32)
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
    return found.astype(np.float32)


@dataclass(frozen=True)
class Lessons:
    """What the head learns from, row by row the same text.

    features: (n, 384) of a text in some language; english: (n,) rows of `targets`; targets: (m, 768), `mini`'s vectors
    of the English texts; weights: (n,) how often a row is drawn. languages: (l, 384), the mean features of words in
    each language less those of the same words in English. photo_texts: (p, k) rows of `features`, the captions of one
    picture; pictures: (p, 768).
    """

    features: Tensor
    english: Tensor
    targets: Tensor
    weights: Tensor
    languages: Tensor
    photo_texts: Tensor
    pictures: Tensor


def train(
    head: MultilingualHead,
    lessons: Lessons,
    *,
    steps: int = 1600,
    batch: int = 512,
    photos: int = 192,
    rate: float = 2e-3,
    decay: float = 0.02,
    contrast: float = 0.2,
    seeing: float = 0.1,
    seed: int = 0,
) -> MultilingualHead:
    """Cosine to the English vector, plus `contrast` times InfoNCE with the English vectors of a batch and `seeing`
    times with pictures.
    """
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(head.parameters(), rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    text_scale, picture_scale = torch.tensor(20.0), torch.tensor(25.0)
    each = torch.eye(photos, dtype=torch.bool)
    head.train()
    for step in range(steps):
        rows = torch.multinomial(lessons.weights, batch, replacement=True)
        owners = lessons.english[rows]
        targets, vectors = lessons.targets[owners], head(lessons.features[rows])
        same = owners[:, None] == owners[None, :]
        loss = (1 - (vectors * targets).sum(1)).mean()
        loss = loss + contrast * multi_positive_infonce(targets, vectors, same, text_scale)
        shown = torch.randperm(len(lessons.pictures))[:photos]
        captions = lessons.photo_texts[shown, torch.randint(lessons.photo_texts.shape[1], (photos,))]
        seen = head(lessons.features[captions])
        loss = loss + seeing * multi_positive_infonce(lessons.pictures[shown], seen, each, picture_scale)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            log.info("step %d of %d, loss %.3f", step + 1, steps, loss.item())
    head.eval()
    return head
