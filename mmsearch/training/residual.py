"""What learns from pairs: residual heads on the vectors of towers, and the last layers of the towers themselves."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from mmsearch.training.activations import Taken
from mmsearch.training.unfrozen import UnfrozenTower
from mmsearch.types import Modality

Kind = Literal["linear", "mlp"]
HIDDEN = 512
CHUNK = 64
LAYERS = 0.1  # the last layers learn more slowly than heads, which start from nothing


class ResidualHead(nn.Module):
    """Unit vectors (n, d) -> unit vectors (n, d): unit(x + f(x)), f a linear map or an MLP that starts at zero.

    Starting as the identity means that the first step already stands where the base model ends, and weight decay pulls
    back to it.
    """

    def __init__(
        self, dim: int, kind: Kind, dropout: float = 0.2, noise: float = 0.02, *, bias: bool = True
    ) -> None:
        super().__init__()
        first = nn.Linear(dim, dim if kind == "linear" else HIDDEN, bias)
        self.maps = nn.ModuleList([first] if kind == "linear" else [first, nn.Linear(HIDDEN, dim, bias)])
        last = self.maps[-1]
        nn.init.zeros_(last.weight)
        if bias:
            nn.init.zeros_(last.bias)
        self.dropout = nn.Dropout(dropout)
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.noise:
            x = normalize(x + self.noise * torch.randn_like(x), dim=1)
        moved = self.dropout(x)
        for number, layer in enumerate(self.maps):
            moved = layer(self.dropout(nn.functional.gelu(moved)) if number else moved)
        return normalize(x + moved, dim=1)

    def layers(self) -> Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weight (inputs, outputs) and bias (outputs,) of each map, for ``export.append_head``."""
        return [
            (layer.weight.detach().cpu().numpy().T.copy(), layer.bias.detach().cpu().numpy())
            for layer in self.maps
        ]


class Features(Protocol):
    """What is known of n media before anything that learns: their vectors, or what comes in at the cut of a tower."""

    def __len__(self) -> int: ...

    def __getitem__(self, media: Tensor) -> Tensor | Taken: ...

    def to(self, device: str) -> "Features": ...


class Heads(nn.Module):
    """What learns: of each modality the last layers of its tower, a head behind them, or both; the temperature, and the
    bias of the sigmoid loss.
    """

    def __init__(
        self,
        modalities: Sequence[Modality],
        dim: int,
        kind: Kind | None,
        scale: float,
        bias: float,
        towers: Mapping[Modality, UnfrozenTower] | None = None,
    ) -> None:
        super().__init__()
        self.trained = tuple(modalities)
        self.heads = nn.ModuleDict(
            {modality.value: ResidualHead(dim, kind) for modality in modalities} if kind else {}
        )
        self.towers = nn.ModuleDict({modality.value: tower for modality, tower in (towers or {}).items()})
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, modality: Modality, features: Tensor | Taken) -> Tensor:
        """Unit vectors (n, d) of media from their features; vectors come out as they are where nothing learns."""
        vectors = self._tower(modality, features) if isinstance(features, Taken) else features
        if modality.value not in self.heads:
            return vectors
        moved: Tensor = self.heads[modality.value](vectors)
        return moved

    def _tower(self, modality: Modality, taken: Taken) -> Tensor:
        """Of many groups only the vectors are kept; in the backward pass each runs again (Chen et al. 2016, "Training
        Deep Nets with Sublinear Memory Cost"), so that memory holds one group and not the batch.
        """
        tower: Any = self.towers[modality.value]
        if len(taken.groups) > 1 and torch.is_grad_enabled():
            found = [checkpoint(tower, given, use_reentrant=False) for _, given in taken.groups]
        else:
            found = [tower(given) for _, given in taken.groups]
        places, parts = torch.cat([places for places, _ in taken.groups]), torch.cat(found)
        vectors = parts.new_zeros(taken.count, parts.shape[1]).index_add(0, taken.owners[places], parts)
        return normalize(vectors, dim=1)

    def encode(self, modality: Modality, features: Features, media: Tensor | None = None) -> Tensor:
        """The same for the media of these numbers (all of them if None), a few at a time and without a gradient."""
        media = torch.arange(len(features)) if media is None else media
        self.eval()
        with torch.no_grad():
            return torch.cat([self(modality, features[some]) for some in media.split(CHUNK)])

    def groups(self, rate: float) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser, each with the highest rate (``most``) that it learns at."""
        layers = list(self.towers.parameters())
        known = {id(parameter) for parameter in layers}
        others = [parameter for parameter in self.parameters() if id(parameter) not in known]
        given = [(others, rate), (layers, rate * LAYERS)]
        return [{"params": found, "lr": most, "most": most} for found, most in given if found]
