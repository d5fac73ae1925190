"""A head that puts a text of any language where another tower puts its English: the lessons and the training.

After Reimers and Gurevych 2020, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation",
with the student's trunk frozen.
"""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.training.losses import multi_positive_infonce

TRUNK_FEATURES = 384
DIM = 768

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
