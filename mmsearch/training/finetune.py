"""Fitting heads and last layers to pairs: epochs with checkpoints, stopped early by the recall on validation items."""

import copy
import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mmsearch.encoders.torch_device import bfloat16_is_fast
from mmsearch.errors import ConfigError
from mmsearch.training.loop import TEXT_SCALE, owned_rows, rate_at
from mmsearch.training.losses import multi_positive_infonce, shared_picture_infonce, sigmoid_loss
from mmsearch.training.residual import Features, Heads, Kind
from mmsearch.training.unfrozen import UnfrozenTower
from mmsearch.types import MEDIA, Modality

Loss = Literal["infonce", "sigmoid"]
FusionKind = Literal["sum", "linear", "attention"]
KS = (1, 5, 10)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How to train. `only` names the one modality that learns; None: all that the pairs have.

    `unfreeze` is how many of the last layers of its tower learn, `head` what is put behind them; there must be one of
    both. `batch` is in items, `patience` in epochs without a better validation recall. `fusion` asks for a head that
    makes one vector of all media of an item.
    """

    only: Modality | None = None
    unfreeze: int = 0
    head: Kind | None = "linear"
    loss: Loss = "infonce"
    epochs: int = 30
    batch: int = 256
    rate: float = 1e-3
    decay: float = 0.05
    among_texts: float = 0.25
    patience: int = 6
    fusion: FusionKind | None = None
    seed: int = 0


class Learner(Protocol):
    """What `learn` trains."""

    def train(self, mode: bool = True) -> Any: ...

    def groups(self) -> list[dict[str, Any]]:
        """Parameter groups for AdamW, each with the highest rate (``most``) that it learns at."""

    def loss(self, rows: Tensor) -> Tensor:
        """The loss of a batch, given as rows of the items to train on."""

    def stepped(self) -> None:
        """Called after each step of the optimiser."""

    def recall(self) -> float:
        """Recall on the validation items, per cent."""

    def weights(self) -> dict[str, Any]:
        """A copy of everything that learns."""

    def set_weights(self, weights: Mapping[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True)
class Side:
    """Items of one split: `owned` maps a modality to the rows (items, k) of its vectors, filled up with -1.

    `weights` (items,) say how often an item is drawn.
    """

    owned: Mapping[Modality, Tensor]
    weights: Tensor


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What an epoch gave: mean loss, validation recall (see `recall`), and whether it is the best so far."""

    number: int
    loss: float
    recall: float
    best: bool


@dataclasses.dataclass
class Fit:
    """A finished training: the best heads, their epoch (0: the base itself), and every epoch."""

    heads: Heads
    best: int
    history: list[Epoch]


def fit(
    features: Mapping[Modality, Features],
    train: Side,
    validation: Side,
    options: Options,
    *,
    dim: int,
    towers: Mapping[Modality, UnfrozenTower] | None = None,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    resume: bool = False,
    stop_after: int | None = None,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> Fit:
    """Train heads and last layers (`towers`) on the features of each modality with AdamW, a warm-up and a cosine.

    `dim` is that of the vectors. What is a tensor among the features are frozen vectors (n, d).

    `checkpoint` is rewritten after each epoch. With `resume` the training goes on from it and ends with the very
    weights of one that was never interrupted: each epoch has a seed of its own. `fingerprint` names data and base.
    `stop_after` ends the run after so many epochs as an interruption would.

    Raises ConfigError if the checkpoint is missing or of other data or options.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = {modality: given.to(device) for modality, given in features.items()}
    torch.manual_seed(options.seed)
    trained = [options.only] if options.only else list(features)
    start = (20.0, 0.0) if options.loss == "infonce" else (10.0, -10.0)  # of SigLIP
    heads = Heads(trained, dim, options.head, *start, towers).to(device)
    learner = _Fitting(
        heads,
        features,
        train,
        validation,
        options,
        mixed=device == "cuda" or (bool(towers) and bfloat16_is_fast()),
    )
    best, history = learn(
        learner,
        train.weights,
        options,
        checkpoint=checkpoint,
        fingerprint=fingerprint,
        resume=resume,
        stop_after=stop_after,
        progress=progress,
    )
    heads.eval()
    return Fit(heads.to("cpu"), best, history)


def learn(
    learner: Learner,
    weights: Tensor,
    options: Options,
    *,
    longest: float | None = None,
    checkpoint: Path | None = None,
    fingerprint: str = "",
    resume: bool = False,
    stop_after: int | None = None,
    progress: Callable[[Epoch], None] = lambda epoch: None,
) -> tuple[int, list[Epoch]]:
    """Train with AdamW, a warm-up and a cosine; gives the learner the weights of its best epoch, and says which it was
    (0: those it came with) and what each epoch gave.

    `weights` (items,) say how often an item is drawn. A gradient longer than `longest` is cut to this. The rest is as
    in `fit`.
    """
    optimiser = torch.optim.AdamW(learner.groups(), weight_decay=options.decay)
    parameters = [one for group in optimiser.param_groups for one in group["params"]]
    steps = len(_batches(weights, options.batch))
    state = _State(learner.recall(), learner.weights())
    told = f"{fingerprint} {options}"
    if resume:
        state.load(checkpoint, told, learner, optimiser)
    for number in range(len(state.history) + 1, options.epochs + 1):
        if number - 1 - state.best >= options.patience or number - 1 == stop_after:
            break
        torch.manual_seed(options.seed * 1_000_003 + number)
        losses = []
        learner.train()
        for step, rows in enumerate(_batches(weights, options.batch)):
            done = (number - 1) * steps + step
            for group in optimiser.param_groups:
                group["lr"] = group["most"] * rate_at(done, options.epochs * steps)
            optimiser.zero_grad()
            loss = learner.loss(rows)
            loss.backward()
            if longest is not None:
                torch.nn.utils.clip_grad_norm_(parameters, longest)
            optimiser.step()
            learner.stepped()
            losses.append(loss.item())
        found = learner.recall()
        epoch = Epoch(number, sum(losses) / len(losses), found, found > state.recall)
        state.history.append(epoch)
        if epoch.best:
            state.best, state.recall, state.weights = number, found, learner.weights()
        if checkpoint is not None:
            state.save(checkpoint, told, learner, optimiser)
        progress(epoch)
    learner.set_weights(state.weights)
    return state.best, state.history


@dataclasses.dataclass
class _Fitting:
    """Heads and last layers as a `Learner`."""

    heads: Heads
    features: Mapping[Modality, Features]
    train_side: Side
    validation: Side
    options: Options
    mixed: bool

    def train(self, mode: bool = True) -> None:
        self.heads.train(mode)

    def groups(self) -> list[dict[str, Any]]:
        return self.heads.groups(self.options.rate)

    def loss(self, rows: Tensor) -> Tensor:
        with torch.autocast(self.heads.bias.device.type, torch.bfloat16, enabled=self.mixed):
            return _loss(self.heads, self.features, self.train_side, rows, self.options)

    def stepped(self) -> None:
        pass

    def recall(self) -> float:
        return recall(self.heads, self.features, self.validation)

    def weights(self) -> dict[str, Any]:
        return copy.deepcopy(self.heads.state_dict())

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        self.heads.load_state_dict(weights)


class Encoding(Protocol):
    """What has vectors (n, d) for media whose features are known."""

    def encode(self, modality: Modality, features: Features, media: Tensor | None = None) -> Tensor: ...


def recall(heads: Encoding, features: Mapping[Modality, Features], side: Side) -> float:
    """Per cent: the mean over all directions of R@1, R@5 and R@10 among the items of a side.

    An answer with the score of a wrong one counts as ranked behind it. R@k is left out where no list is longer than k.
    """
    known = {modality: owned_rows(owned) for modality, owned in side.owned.items()}
    vectors = {
        modality: heads.encode(modality, features[modality], ids) for modality, (ids, _) in known.items()
    }
    shares: list[float] = []
    for one, other in itertools.permutations(side.owned, 2):
        queries, gallery = vectors[one], vectors[other]
        owns_first, owns_second = known[one][1], known[other][1]
        belongs = (owns_first.float() @ owns_second.float().T > 0).to(queries.device)
        asking = belongs.any(1)
        scores = (queries @ gallery.T)[asking]
        right = belongs[asking]
        best = scores.masked_fill(~right, -2).amax(1, keepdim=True)
        ranks = ((scores >= best) & ~right).sum(1)
        shares += [float((ranks < k).float().mean()) for k in KS if k < len(gallery)]
    return 100 * sum(shares) / len(shares) if shares else 0.0


def _loss(
    heads: Heads, features: Mapping[Modality, Features], side: Side, rows: Tensor, options: Options
) -> Tensor:
    """The mean over pairs of modalities, plus the loss among the texts of one item."""
    drawn = {}
    for modality, owned in side.owned.items():
        ids, owners = owned_rows(owned[rows])
        vectors = heads(modality, features[modality][ids])
        drawn[modality] = (vectors, owners.to(vectors.device))
    scale = heads.log_scale.exp().clamp(max=100.0)
    losses = []
    for one, other in itertools.combinations(drawn, 2):
        if options.only not in (None, one, other):
            continue
        (a, owns_a), (b, owns_b) = drawn[one], drawn[other]
        belongs = owns_b.float() @ owns_a.float().T > 0
        kept_a, kept_b = belongs.any(0), belongs.any(1)
        if not kept_a.any():
            continue
        a, b, belongs = a[kept_a], b[kept_b], belongs[kept_b][:, kept_a]
        if options.loss == "sigmoid":
            losses.append(sigmoid_loss(a, b, belongs, scale, heads.bias))
        else:
            losses.append(multi_positive_infonce(a, b, belongs, scale))
    loss = torch.stack(losses).mean() if losses else heads.log_scale * 0
    if options.among_texts and options.only in (None, Modality.TEXT) and Modality.TEXT in drawn:
        words, owners = drawn[Modality.TEXT]
        loss = loss + options.among_texts * shared_picture_infonce(words, owners, TEXT_SCALE)
    return loss


def _batches(weights: Tensor, batch: int) -> list[Tensor]:
    """Items of an epoch in batches; drawn with replacement where the weights differ, each once where they do not."""
    if bool((weights == weights[0]).all()):
        rows = torch.randperm(len(weights))
    else:
        rows = torch.multinomial(weights, len(weights), replacement=True)
    size = min(batch, len(rows))
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


@dataclasses.dataclass
class _State:
    """What a checkpoint keeps beside the weights that are trained on."""

    recall: float
    weights: dict[str, Any]
    best: int = 0
    history: list[Epoch] = dataclasses.field(default_factory=list)

    def save(self, path: Path, told: str, learner: Learner, optimiser: torch.optim.Optimizer) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        torch.save(
            {
                "told": told,
                "best": self.best,
                "recall": self.recall,
                "weights": self.weights,
                "history": [dataclasses.asdict(epoch) for epoch in self.history],
                "learner": learner.weights(),
                "optimiser": optimiser.state_dict(),
            },
            partial,
        )
        os.replace(partial, path)

    def load(self, path: Path | None, told: str, learner: Learner, optimiser: torch.optim.Optimizer) -> None:
        if path is None or not path.is_file():
            raise ConfigError(f"{path}: there is no checkpoint to resume from; train without --resume")
        found = torch.load(path, map_location="cpu", weights_only=True)
        if found["told"] != told:
            raise ConfigError(
                f"{path}: the checkpoint was made with other pairs, another base or other options: give the same, or "
                "train without --resume"
            )
        self.best, self.recall, self.weights = found["best"], found["recall"], found["weights"]
        self.history = [Epoch(**epoch) for epoch in found["history"]]
        learner.set_weights(found["learner"])
        optimiser.load_state_dict(found["optimiser"])


def side_of(items: Sequence[Mapping[Modality, Sequence[int]]], weights: Sequence[float]) -> Side:
    """A side from the rows that each item has of each modality."""
    owned = {}
    for modality in MEDIA:
        most = max((len(item.get(modality, ())) for item in items), default=0)
        if most:
            table = torch.full((len(items), most), -1, dtype=torch.int64)
            for number, item in enumerate(items):
                rows = list(item.get(modality, ()))
                table[number, : len(rows)] = torch.tensor(rows, dtype=torch.int64)
            owned[modality] = table
    return Side(owned, torch.tensor(weights, dtype=torch.float64))
