"""Residual heads on the vectors of frozen towers: at the start a model's own vectors, in the end what pairs taught."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.types import Modality

Kind = Literal["linear", "mlp"]
HIDDEN = 512


class ResidualHead(nn.Module):
    """Unit vectors (n, d) -> unit vectors (n, d): unit(x + f(x)), f a linear map or an MLP that starts at zero.

    Starting as the identity means that the first step already stands where the base model ends, and weight decay pulls
    back to it.
    """

    def __init__(self, dim: int, kind: Kind, dropout: float = 0.2, noise: float = 0.02) -> None:
        super().__init__()
        first = nn.Linear(dim, dim if kind == "linear" else HIDDEN)
        self.maps = nn.ModuleList([first] if kind == "linear" else [first, nn.Linear(HIDDEN, dim)])
        last = self.maps[-1]
        nn.init.zeros_(last.weight)
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
        """Weight (inputs, outputs) and bias (outputs,) of each map, for ``export.append_residual``."""
        return [
            (layer.weight.detach().cpu().numpy().T.copy(), layer.bias.detach().cpu().numpy())
            for layer in self.maps
        ]


class Heads(nn.Module):
    """One head for each trained modality, the learned temperature, and the bias of the sigmoid loss."""

    def __init__(
        self, modalities: Iterable[Modality], dim: int, kind: Kind, scale: float, bias: float
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({modality.value: ResidualHead(dim, kind) for modality in modalities})
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        self.bias = nn.Parameter(torch.tensor(bias))

    def forward(self, modality: Modality, vectors: Tensor) -> Tensor:
        """Vectors (n, d) through the head of their modality; as they are if it is not trained."""
        if modality.value not in self.heads:
            return vectors
        moved: Tensor = self.heads[modality.value](vectors)
        return moved
