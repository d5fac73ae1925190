"""The training loop: pairs of cached features in, trained heads out."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmsearch.training.heads import Head
from mmsearch.training.losses import multi_positive_infonce, shared_picture_infonce

TEXT_SCALE = 20.0  # inverse temperature among texts


@dataclass(frozen=True)
class Examples:
    """Pictures as features and the texts they own.

    views: (v, n, d), the same n pictures in v renderings; texts: (m, t), unit rows, each text once;
    owned: (n, k) int64 rows of `texts`, filled up with -1. domains: (n,) int64; a batch holds one domain only, so that
    a photo must stand out among photos and a product among products. shares: for each domain that part of its
    pictures that an epoch sees, others in the next.
    """

    views: Tensor
    texts: Tensor
    owned: Tensor
    domains: Tensor
    shares: Sequence[float] = (1.0,)


def train(
    head: Head,
    examples: Examples,
    *,
    epochs: int,
    batch: int = 512,
    among_texts: float = 0.25,
    rate: float = 1e-3,
    decay: float = 0.05,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Head:
    """Train `head` with AdamW and a warm-up followed by a cosine; `progress` hears each epoch's mean loss.

    `among_texts` weighs the loss among the texts of one picture.
    """
    torch.manual_seed(seed)
    views = len(examples.views)
    with torch.no_grad():
        priors = torch.stack([head.conse(view) for view in examples.views])
    optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=decay)
    steps = epochs * len(batches(examples.domains, batch, examples.shares))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, steps))
    head.train()
    for epoch in range(epochs):
        losses = []
        for rows in batches(examples.domains, batch, examples.shares):
            view = torch.randint(views, (len(rows),))
            texts, belongs = owned_texts(examples, rows)
            words = head.text(texts)
            loss = multi_positive_infonce(
                head.image(examples.views[view, rows], priors[view, rows]),
                words,
                belongs,
                head.log_scale.exp().clamp(max=100.0),
            )
            loss = loss + among_texts * shared_picture_infonce(words, belongs, TEXT_SCALE)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
        progress(epoch, sum(losses) / len(losses))
    head.eval()
    return head


def batches(domains: Tensor, batch: int, shares: Sequence[float]) -> list[Tensor]:
    """Rows in random order, in batches of one domain each; what is left over, and what is beyond the `shares` of the
    domains, one for each in ascending order, waits for the next epoch.
    """
    parts = []
    for domain, share in zip(domains.unique(), shares, strict=True):
        rows = (domains == domain).nonzero()[:, 0]
        size = min(batch, len(rows))
        rows = rows[torch.randperm(len(rows))]
        starts = range(0, len(rows) - size + 1, size)
        parts += [rows[start : start + size] for start in starts[: round(share * len(starts))]]
    return [parts[i] for i in torch.randperm(len(parts))]


def owned_texts(examples: Examples, rows: Tensor) -> tuple[Tensor, Tensor]:
    """The texts (m, t) that the pictures `rows` (b,) own, each once, and who owns which (m, b) bool."""
    ids, belongs = owned_rows(examples.owned[rows])
    return examples.texts[ids], belongs


def owned_rows(owned: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ids (m,) of `owned` (b, k), filled up with -1, and who owns which (m, b) bool."""
    ids, places = torch.unique(owned, return_inverse=True)
    belongs = torch.zeros(len(ids), len(owned), dtype=torch.bool, device=owned.device)
    belongs[places, torch.arange(len(owned), device=owned.device)[:, None].expand_as(places)] = True
    kept = ids >= 0
    return ids[kept], belongs[kept]


def rate_at(step: int, steps: int, warm: float = 0.1) -> float:
    """The share of the full rate at a step: a warm-up, then half a cosine."""
    done = step / steps
    return (
        max(done, 1 / steps) / warm
        if done < warm
        else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
    )
