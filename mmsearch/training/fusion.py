"""One vector for an item of several media: a picture and a title, either of which may be missing."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.errors import ConfigError
from mmsearch.evaluate import Figure, Result, retrieve
from mmsearch.measures import retrieval_measures
from mmsearch.training.export import export_graph
from mmsearch.training.finetune import FusionKind, Options, Side
from mmsearch.training.losses import multi_positive_infonce
from mmsearch.types import Modality

Floats = NDArray[np.float32]

EPOCHS = 20
DROPPED = 0.3  # how often each modality of an item is left out while it trains
SCALE = 20.0  # inverse temperature
FILE = "fusion.onnx"


class Fusion(nn.Module):
    """Vectors (n, d) of each modality in a fixed order, rows of zeros where it is missing -> unit vectors (n, d).

    sum: weighted by one number a modality. linear: each modality through a map of its own (at the start the identity).
    attention: weighted by what the vectors themselves say, in a softmax over those that are there.
    """

    def __init__(self, kind: FusionKind, modalities: Sequence[Modality], dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.modalities = tuple(modalities)
        self.weights = nn.Parameter(torch.zeros(len(self.modalities)))
        self.asks = nn.Parameter(torch.zeros(len(self.modalities), dim))
        self.maps = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in self.modalities)
        for layer in self.maps:
            nn.init.zeros_(layer.weight)
        if kind != "attention":
            self.asks.requires_grad_(False)
        if kind != "linear":
            self.maps.requires_grad_(False)

    def forward(self, *vectors: Tensor) -> Tensor:
        stacked = torch.stack(vectors, dim=1)
        there = (stacked * stacked).sum(2) > 0
        if self.kind == "linear":
            moved = [x + layer(x) for x, layer in zip(vectors, self.maps, strict=True)]
            return normalize(torch.stack(moved, dim=1).sum(1), dim=1)
        said = self.weights + (stacked * self.asks).sum(2)
        shares = torch.softmax(said.masked_fill(~there, -1e4), dim=1)
        return normalize((shares[:, :, None] * stacked).sum(1), dim=1)


def fit_fusion(vectors: Mapping[Modality, Floats], train: Side, validation: Side, options: Options) -> Fusion:
    """Train the fusion that `options.fusion` names on finished vectors (n, d) of each modality.

    An item is fused from one of its texts (its title) and what else it has, some of it dropped at random; others of its
    texts must find it among the items of the batch. The epoch that does best on the validation items, with everything
    and with each modality alone, is kept.

    Raises ConfigError if too few items have two texts and something else.
    """
    if options.fusion is None:
        raise ValueError("no kind of fusion is asked for")
    torch.manual_seed(options.seed)
    modalities = tuple(train.owned)
    rows = _usable(train)
    if Modality.TEXT not in modalities or len(rows) < 2 or len(_usable(validation)) < 2:
        raise ConfigError(
            "a fusion needs items with two texts and a picture or sound, to train and to validate on: one text is the "
            "title, the other asks for the item"
        )
    tensors = {modality: torch.from_numpy(found) for modality, found in vectors.items()}
    fusion = Fusion(options.fusion, modalities, next(iter(tensors.values())).shape[1])
    optimiser = torch.optim.AdamW(
        [parameter for parameter in fusion.parameters() if parameter.requires_grad],
        lr=options.rate if options.fusion == "linear" else 10 * options.rate,
        weight_decay=options.decay,
    )
    best, kept = -1.0, fusion.state_dict()
    for epoch in range(EPOCHS + 1):
        measured = results(fusion, vectors, validation).values()
        found = float(np.mean([result.measures["map"].value for result in measured]))
        if found > best:
            best, kept = found, copy.deepcopy(fusion.state_dict())
        if epoch == EPOCHS:
            break
        fusion.train()
        order = rows[torch.randperm(len(rows))]
        size = min(options.batch, len(order))
        for batch in (order[start : start + size] for start in range(0, len(order) - size + 1, size)):
            parts, queries, asked = _drawn(tensors, train, batch)
            belongs = asked[:, None] == asked[None, :]  # the same words ask for each item that has them
            loss = multi_positive_infonce(fusion(*parts), queries, belongs, torch.tensor(SCALE))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    fusion.load_state_dict(kept)
    fusion.eval()
    return fusion


def _usable(side: Side) -> Tensor:
    """Items with two texts and something else."""
    if Modality.TEXT not in side.owned:
        return torch.zeros(0, dtype=torch.int64)
    texts = (side.owned[Modality.TEXT] >= 0).sum(1)
    others = sum(
        (owned >= 0).any(1).long() for modality, owned in side.owned.items() if modality is not Modality.TEXT
    )
    return ((texts > 1) & (torch.as_tensor(others) > 0)).nonzero()[:, 0]


def _drawn(
    vectors: Mapping[Modality, Tensor], side: Side, batch: Tensor
) -> tuple[list[Tensor], Tensor, Tensor]:
    """The parts of a batch of items, some dropped; another text of each as its query; and the ids of those texts."""
    counts = (side.owned[Modality.TEXT][batch] >= 0).sum(1)
    title = (torch.rand(len(batch)) * counts).long()
    other = (title + 1 + (torch.rand(len(batch)) * (counts - 1)).long()) % counts
    asked = side.owned[Modality.TEXT][batch, other]
    parts, there = [], []
    for modality, owned in side.owned.items():
        have = (owned[batch] >= 0).sum(1)
        place = title if modality is Modality.TEXT else (torch.rand(len(batch)) * have).long()
        ids = owned[batch, place.clamp(max=owned.shape[1] - 1)]
        parts.append(vectors[modality][ids.clamp(min=0)])
        there.append(ids >= 0)
    present = torch.stack(there, dim=1)
    kept = present & (torch.rand(present.shape) >= DROPPED)
    kept = torch.where(kept.any(1, keepdim=True), kept, present)  # never all of them
    masked = [part * kept[:, place, None] for place, part in enumerate(parts)]
    return masked, vectors[Modality.TEXT][asked], asked


def results(fusion: Fusion, vectors: Mapping[Modality, Floats], side: Side) -> dict[str, Result]:
    """How well the other texts of the items find them: fused from everything, and from each modality alone."""
    rows = _usable(side).tolist()
    owned = {modality: table.tolist() for modality, table in side.owned.items()}
    firsts = {modality: [owned[modality][row][0] for row in rows] for modality in fusion.modalities}
    asking = [(place, n) for place, row in enumerate(rows) for n in owned[Modality.TEXT][row][1:] if n >= 0]
    queries = vectors[Modality.TEXT][[n for _, n in asking]]
    clusters = np.array([place for place, _ in asking], np.int64)
    found = {}
    for name, kept in {
        "everything": fusion.modalities,
        **{f"{m} only": (m,) for m in fusion.modalities},
    }.items():
        parts = []
        for modality in fusion.modalities:
            ids = np.array(firsts[modality])
            part = np.where((ids >= 0)[:, None], vectors[modality][ids], 0)
            parts.append(torch.from_numpy(part if modality in kept else np.zeros_like(part)))
        with torch.no_grad():
            gallery = fusion.eval()(*parts).numpy()
        ranks = retrieve(queries, gallery, [np.array([place]) for place in clusters]).ranks
        measures = retrieval_measures(ranks, len(gallery))
        found[name] = Result(name, len(queries), len(gallery), measures, clusters, (), ())
    return found


def figures(fusion: Fusion, vectors: Mapping[Modality, Floats], side: Side) -> dict[str, dict[str, Figure]]:
    """The measures of `results` with their intervals."""
    return {name: result.figures() for name, result in results(fusion, vectors, side).items()}


def export_fusion(fusion: Fusion, dim: int, path: Path) -> dict[str, object]:
    """Write the graph; returns what model.json says about it."""
    names = [modality.value for modality in fusion.modalities]
    example = tuple(torch.rand(2, dim) for _ in names)
    export_graph(fusion, example, names, "vectors", {0: "n"}, path)
    return {
        "file": path.name,
        "kind": fusion.kind,
        "inputs": {name: name for name in names},
        "output": "vectors",
    }
