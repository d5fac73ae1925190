"""Hints from the teacher: how the trunk of the sound tower is trained.

Block after block learns to give what the teacher's layer gives (FitNets, Romero et al. 2015), from what the finished
blocks before it give, so that it makes up for their errors. Within a block the 1 x 1 products are the least-squares
answer to what the depthwise filters give, and the filters follow the gradient of what is left (variable projection,
Golub & Pereyra 1973). No error has to travel through fourteen layers, so a few hundred steps are enough. In the end the
later blocks are trained together, on the same hints, on the teacher's scores and on what these say in words; that takes
many more scenes, of which only what the finished blocks make is kept.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import cos, pi
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, normalize
from torch.utils.data import DataLoader, IterableDataset

from mmsearch.training.audio_tower import CLASSES, FRAMES, Block, FrontEnd, Stem, Trunk, pooled
from mmsearch.training.sounds import Bank, scene
from mmsearch.training.teacher import Teacher

BATCH = 64
SCENE, SECOND = 36_240, 129  # samples of a scene, and the frame at which its second patch begins
EQUATIONS = 1536  # of each block in a step: large feature maps need fewer patches
RIDGE = 3e-4
SETTLED = 7  # blocks that are left alone at the end
RATE = 1.5e-3

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
                patches = draw(self.bank, front, random)
                with torch.autocast("cpu", torch.bfloat16):
                    hints, logits = self.teacher(patches)
                needed = [examples(hint) for hint in hints]
                # A layer's features are also what the next one is fed with.
                kept = [
                    hint[: max(pair)].contiguous()
                    for hint, *pair in zip(hints, needed, [*needed[1:], BATCH], strict=True)
                ]
                yield patches, kept, logits.float()


def draw(bank: Bank, front: FrontEnd, random: np.random.Generator) -> Tensor:
    """The first and the last patch of new scenes of 2.3 seconds, (BATCH, 1, 96, 64)."""
    samples = np.stack([scene(bank, random, SCENE) for _ in range(BATCH // 2)])
    frames = front(torch.from_numpy(samples))
    return torch.cat([frames[:, :FRAMES], frames[:, SECOND : SECOND + FRAMES]])[:, None]


def examples(hint: Tensor) -> int:
    """How many patches give a layer's regression enough equations."""
    count: int = min(BATCH, max(4, EQUATIONS // (hint.shape[2] * hint.shape[3])))
    return count


def stream(bank: Bank, teacher: Teacher, seed: int) -> Iterator[Lesson]:
    return iter(DataLoader(Lessons(bank, teacher, seed), batch_size=None, num_workers=1, prefetch_factor=2))


def take(lessons: Iterator[Lesson], count: int) -> list[Lesson]:
    """The next `count` lessons, copied out of shared memory."""
    return [
        (patches.clone(), [hint.clone() for hint in hints], logits.clone())
        for patches, hints, logits in islice(lessons, count)
    ]


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
        """Ridge in proportion to the features: those that are hardly ever there get no huge weights."""
        sizes = self.squares.diagonal()
        squares = self.squares + torch.diag(RIDGE * (sizes + sizes.mean()))
        found = torch.cholesky_solve(self.products, torch.linalg.cholesky(squares))
        with torch.no_grad():
            layer.weight.copy_(found[:-1].T)
            layer.bias.copy_(found[-1])


def distil(trunk: Trunk, stock: Sequence[Lesson], steps: int, rate: float = 0.03) -> None:
    """Train `trunk` in place, block after block, each on what the finished ones before it make of the `stock`."""
    torch.set_num_threads(1)
    trunk.requires_grad_(False)
    inputs = [patches for patches, _, _ in stock]
    for number, block in enumerate(trunk.blocks):
        hints = [lesson[1][number] for lesson in stock]
        left = fit(block, inputs, hints, steps if number else 0, rate)
        for row, x in enumerate(inputs):  # in place: the stock of the layer before is not needed any more
            inputs[row] = torch.relu(block(x.float())).to(torch.bfloat16)
        log.info("block %d: %.3f of the variance left", number, left)
    last = Regression(trunk.classifier.in_features, trunk.classifier.out_features)
    for x, (_, _, logits) in zip(inputs, stock, strict=True):
        last.add(x.float().mean((2, 3)), logits, 1.0)
    last.solve(trunk.classifier)
    trunk.requires_grad_(True)


def fit(
    block: Block | Stem, inputs: Sequence[Tensor], hints: Sequence[Tensor], steps: int, rate: float
) -> float:
    """Train one block; the share of the hints' variance that it leaves, measured on the way, is returned."""
    count = examples(hints[0])
    filters = list(block.depthwise.parameters()) if isinstance(block, Block) else []
    for parameter in filters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.Adam(filters, rate, betas=(0.9, 0.98)) if filters else None
    regression, lefts = Regression(block.pointwise.in_features, block.pointwise.out_features), [1.0]
    for step in range(steps):
        row = step % len(inputs)
        hidden, wanted = _flat(block.hidden(inputs[row][:count].float())), _flat(hints[row][:count].float())
        regression.add(hidden.detach(), wanted, 1 - 1 / (4 + step / 4))
        if step < 5 or step % 5 == 0:
            regression.solve(block.pointwise)
        if optimiser is not None and step >= 5:
            error = (hidden @ block.pointwise.weight.T + block.pointwise.bias - wanted).square().mean(0)
            left = (error / wanted.var(0).clamp(min=1e-3 * float(wanted.var()))).mean()
            lefts.append(left.item())
            for group in optimiser.param_groups:
                group["lr"] = rate * (0.02 + 0.98 * cos(pi / 2 * step / steps))
            optimiser.zero_grad()
            left.backward()
            optimiser.step()
    for parameter in filters:
        parameter.requires_grad_(False)
    regression = Regression(block.pointwise.in_features, block.pointwise.out_features)
    for x, hint in zip(inputs, hints, strict=True):
        regression.add(_flat(block.hidden(x[:count].float())), _flat(hint[:count].float()), 1.0)
    regression.solve(block.pointwise)
    return float(np.mean(lefts[-20:]))


def polish(
    trunk: Trunk,
    teacher: Teacher,
    said: Callable[[Tensor], Tensor],
    stock: Sequence[Tensor],
    steps: int,
    seed: int,
) -> None:
    """Train the later blocks of `trunk` and its classifier together; the mean of its last weights is kept.

    `stock`: patches (BATCH, 1, 96, 64), which the teacher hears again at each step. The trunk learns its hints, its
    scores, and, through a linear map of the features that are read out, what these say: `said` (n, 521) -> unit
    (n, dim). The first blocks, which cost most and err least, stay as they are. Steps are in proportion to the size of
    each tensor's weights, which differ by orders of magnitude.
    """
    torch.set_num_threads(1)
    trunk.requires_grad_(False).to(memory_format=torch.channels_last)  # twice as fast
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        settled = [trunk.first(patches.to(memory_format=torch.channels_last), SETTLED) for patches in stock]
        features = torch.cat([pooled(trunk.later(x.float(), SETTLED)) for x in settled[:8]])
    words = Sayer(features, said(torch.zeros(1, CLASSES)).shape[1])
    later = [
        p
        for part in (trunk.blocks[SETTLED:], trunk.classifier)
        for p in part.requires_grad_(True).parameters()
    ]
    groups: list[dict[str, Any]] = [
        {"params": [p], "rate": RATE * (float(p.detach().square().mean().sqrt()) + 1e-3)} for p in later
    ]
    groups.append({"params": list(words.parameters()), "rate": 1e-3})
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.98))
    trained = [p for group in groups for p in group["params"]]
    means = [p.detach().clone() for p in trained]
    random = np.random.default_rng(seed)
    start, shown = time.perf_counter(), []
    for step in range(steps):
        for group in optimiser.param_groups:
            fade = 0.5 + 0.5 * cos(pi * step / steps)
            group["lr"] = group["rate"] * min(1.0, (step + 1) / 20) * max(0.02, fade)
        row = int(random.integers(len(stock)))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hints, logits = teacher(stock[row])
        logits, wanted = logits.float(), torch.sigmoid(logits.float())
        given = trunk.later(settled[row].float().to(memory_format=torch.channels_last), SETTLED)
        losses = [hint_loss(got, hint.float()) for got, hint in zip(given, hints[SETTLED:], strict=True)]
        found = trunk.classifier(torch.relu(given[-1]).mean((2, 3)))
        losses.append(2 * (found - logits).square().mean() / logits.var(0).mean())
        surprise = binary_cross_entropy_with_logits(found, wanted) - binary_cross_entropy_with_logits(
            logits, wanted
        )
        losses.append(100 * surprise)
        losses.append(3 * (1 - (words(pooled(given)) * said(wanted)).sum(1).mean()))
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 20.0)
        optimiser.step()
        keep = min(0.98, step / (step + 10))
        for mean, p in zip(means, trained, strict=True):
            mean.mul_(keep).add_(p.detach(), alpha=1 - keep)
        shown.append([loss.item() for loss in losses])
        if (step + 1) % 20 == 0:
            seconds = time.perf_counter() - start
            log.info("%d of %d, %.0f s: %s", step + 1, steps, seconds, np.round(np.mean(shown, 0), 3))
            shown = []
    with torch.no_grad():
        for mean, p in zip(means, trained, strict=True):
            p.copy_(mean)
    trunk.requires_grad_(True)


class Sayer(torch.nn.Module):
    """A linear map of standardised features to unit vectors, for training only."""

    def __init__(self, features: Tensor, out: int) -> None:
        super().__init__()
        deviation = features.std(0)
        self.mean, self.deviation = features.mean(0), deviation + 0.05 * deviation.mean()
        self.map = torch.nn.Linear(features.shape[1], out)

    def forward(self, features: Tensor) -> Tensor:
        return normalize(self.map((features - self.mean) / self.deviation), dim=1)


def hint_loss(given: Tensor, wanted: Tensor) -> Tensor:
    """Squared error in units of each channel's variance; what the ReLU removes on both sides weighs a tenth."""
    audible = (given.detach() > 0) | (wanted > 0)
    error = (given - wanted).square() * torch.where(audible, 1.0, 0.1)
    return (error.mean((0, 2, 3)) / wanted.var((0, 2, 3)).clamp(min=1e-3 * float(wanted.var()))).mean()


def new_trunk(lessons: Iterator[Lesson], seed: int) -> Trunk:
    torch.manual_seed(seed)
    return Trunk([hint.float() for hint in next(lessons)[1]])


def _flat(features: Tensor) -> Tensor:
    """(n, c, h, w) -> (n * h * w, c)"""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
