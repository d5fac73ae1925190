"""Hints from the teacher: how the trunk of the sound tower is trained.

Every block learns for itself to give what the teacher's layer gives (FitNets, Romero et al. 2015): first from the
teacher's features, then from what the blocks before it give, so that it makes up for their errors. Within a block the
1 x 1 products are the least-squares answer to what the depthwise filters give, and the filters follow the gradient of
what is left (variable projection, Golub & Pereyra 1973). No error has to travel through fourteen layers, so a few
hundred batches are enough.
"""

import logging
import time
from collections.abc import Iterator
from math import cos, pi

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, IterableDataset

from mmsearch.training.audio_tower import FrontEnd, Trunk
from mmsearch.training.sounds import Bank, scene
from mmsearch.training.teacher import Teacher

BATCH = 64
EQUATIONS = 1536  # of each block in a step: large feature maps need fewer patches
RIDGE = 1e-4

log = logging.getLogger("mmsearch.training")


Lesson = tuple[Tensor, list[Tensor], Tensor]
"""Patches (BATCH, 1, 96, 64), what each layer of the teacher gives for the first of them, logits (BATCH, 521)."""


class Lessons(IterableDataset[Lesson]):
    """Endless new scenes with what the teacher says about them. Runs in a process beside the training."""

    def __init__(self, bank: Bank, teacher: Teacher, seed: int) -> None:
        self.bank, self.teacher, self.seed = bank, teacher, seed

    def __iter__(self) -> Iterator[Lesson]:
        torch.set_num_threads(1)
        random, front = np.random.default_rng(self.seed), FrontEnd()
        with torch.no_grad():
            while True:
                samples = np.stack([scene(self.bank, random) for _ in range(BATCH)])
                patches = front(torch.from_numpy(samples))[:, None]
                with torch.autocast("cpu", torch.bfloat16):
                    hints, logits = self.teacher(patches)
                needed = [examples(hint) for hint in hints]
                # A layer's features are also what the next one is fed with.
                kept = [hint[: max(pair)].contiguous() for hint, *pair in zip(hints, needed, [*needed[1:], BATCH])]
                yield patches, kept, logits.float()


def examples(hint: Tensor) -> int:
    """How many patches give a layer's regression enough equations."""
    return min(BATCH, max(4, EQUATIONS // (hint.shape[2] * hint.shape[3])))


def stream(bank: Bank, teacher: Teacher, seed: int) -> Iterator[Lesson]:
    return iter(DataLoader(Lessons(bank, teacher, seed), batch_size=None, num_workers=1, prefetch_factor=4))


class Regression:
    """Least squares of targets on features with a fading memory."""

    def __init__(self, features: int, targets: int) -> None:
        self.squares = torch.zeros(features + 1, features + 1)
        self.products = torch.zeros(features + 1, targets)

    def add(self, features: Tensor, targets: Tensor, keep: float) -> None:
        """Features (n, f) and targets (n, t); what came before counts `keep` times what it did."""
        rows = torch.cat([features, torch.ones(len(features), 1)], 1)
        self.squares.mul_(keep).addmm_(rows.T, rows, alpha=1 / len(rows))
        self.products.mul_(keep).addmm_(rows.T, targets, alpha=1 / len(rows))

    def solve(self, layer: torch.nn.Linear) -> None:
        scale = self.squares.diagonal().clamp(min=1e-8).sqrt()
        squares = self.squares / scale / scale[:, None] + RIDGE * torch.eye(len(scale))
        factor = torch.linalg.cholesky(squares)
        found = torch.cholesky_solve(self.products / scale[:, None], factor) / scale[:, None]
        with torch.no_grad():
            layer.weight.copy_(found[:-1].T)
            layer.bias.copy_(found[-1])


def distil(trunk: Trunk, lessons: Iterator[Lesson], alone: int, together: int, rate: float = 3e-2) -> None:
    """Train `trunk` in place: `alone` steps on the teacher's features, then `together` steps on the trunk's own."""
    torch.set_num_threads(1)
    regressions = [Regression(b.pointwise.in_features, b.pointwise.out_features) for b in trunk.blocks]
    last = Regression(trunk.classifier.in_features, trunk.classifier.out_features)
    trunk.requires_grad_(False)
    filters = [p for b in trunk.blocks[1:] for p in b.depthwise.parameters()]
    for parameter in filters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(filters, rate)
    start, shown, steps = time.perf_counter(), [], alone + together
    for step in range(steps):
        joined = step >= alone
        keep = 1 - 1 / (25 if joined else 4 + step / 3)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, (steps - step) / (0.6 * steps))
        patches, hints, logits = next(lessons)
        x, losses = patches, []
        for block, regression, hint in zip(trunk.blocks, regressions, hints, strict=True):
            hint = hint.float()
            some = slice(0, examples(hint))
            hidden, wanted = _flat(block.hidden(x[some])), _flat(hint[some])
            variance = wanted.var(0).clamp(min=1e-4)
            left = (hidden @ block.pointwise.weight.T + block.pointwise.bias - wanted).square().mean(0)
            losses.append((left / variance).mean())
            regression.add(hidden.detach(), wanted, keep)
            with torch.no_grad():
                x = torch.relu(block(x) if joined else hint)
        last.add(x.mean((2, 3)), logits, keep)
        optimiser.zero_grad()
        torch.stack(losses).clamp(max=3).sum().backward()
        optimiser.step()
        if (step < 3 and not joined) or (step % 5 == 4 and step > 10) or step == steps - 1:
            for block, regression in zip(trunk.blocks, regressions, strict=True):
                regression.solve(block.pointwise)
            last.solve(trunk.classifier)
        shown.append([loss.item() for loss in losses])
        if (step + 1) % 10 == 0:
            log.info("%d of %d, %.0f s: %s", step + 1, steps, time.perf_counter() - start, np.round(np.mean(shown, 0), 3))
            shown = []
    trunk.requires_grad_(True)


def polish(trunk: Trunk, lessons: Iterator[Lesson], steps: int, rate: float = 6e-3) -> None:
    """Train all weights of `trunk` together, in place, on the same hints and on the teacher's scores.

    Steps are in proportion to the size of each tensor's weights, which differ by orders of magnitude.
    """
    torch.set_num_threads(1)
    groups = [{"params": [p], "size": float(p.detach().square().mean().sqrt()) + 1e-3} for p in trunk.parameters()]
    optimiser = torch.optim.Adam(groups, rate, betas=(0.9, 0.98))
    start, shown = time.perf_counter(), []
    for step in range(steps):
        for group in optimiser.param_groups:
            fade = 0.5 + 0.5 * cos(pi * step / steps)
            group["lr"] = rate * group["size"] * min(1.0, (step + 1) / 20) * max(0.02, fade)
        patches, hints, logits = next(lessons)
        with torch.autocast("cpu", torch.bfloat16):
            given, found = trunk(patches)
        losses = [hint_loss(g[: len(h)].float(), h.float()) for g, h in zip(given, hints, strict=True)]
        found = found.float()
        wanted = torch.sigmoid(logits)
        losses.append((found - logits).square().mean() / logits.var(0).mean())
        surprise = binary_cross_entropy_with_logits(found, wanted) - binary_cross_entropy_with_logits(logits, wanted)
        losses.append(100 * surprise)
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
        shown.append([loss.item() for loss in losses])
        if (step + 1) % 20 == 0:
            log.info("%d of %d, %.0f s: %s", step + 1, steps, time.perf_counter() - start, np.round(np.mean(shown, 0), 3))
            shown = []


def hint_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """Squared error in units of each channel's variance; what the ReLU removes on both sides weighs a tenth."""
    audible = (given.detach() > 0) | (wanted > 0)
    error = (given - wanted).square() * torch.where(audible, 1.0, 0.1)
    return (error.mean((0, 2, 3)) / wanted.var((0, 2, 3)).clamp(min=1e-3)).mean()


def new_trunk(lessons: Iterator[Lesson], seed: int) -> Trunk:
    torch.manual_seed(seed)
    return Trunk([hint.float() for hint in next(lessons)[1]])


def _flat(features: Tensor) -> Tensor:
    """(n, c, h, w) -> (n * h * w, c)"""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
