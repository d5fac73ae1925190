"""The trained part of `mini`: two small heads over frozen trunks, and the vectors they end in."""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.training.classes import conse
from mmsearch.training.trunks import CLASS_FEATURES, IMAGE_FEATURES, TEXT_FEATURES

LEARNED = 2 / 3  # share of the learned half in a cosine of two full vectors; ConSE or raw MiniLM has the rest
DIM = 2 * TEXT_FEATURES


class ImageHead(nn.Module):
    """Pooled features (n, 2048) -> learned half (n, 384), unit rows.

    A linear map, an MLP that starts at zero, and ConSE as a starting point, so that the head begins as a zero-shot
    classifier and learns what the classes leave out.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, hidden: int = 512, dropout: float = 0.5, noise: float = 0.1) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        self.register_buffer("deviation", features.std(0) + 1e-3)
        self.linear = nn.Linear(IMAGE_FEATURES, TEXT_FEATURES)
        self.mlp = nn.Sequential(
            nn.Linear(IMAGE_FEATURES, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, TEXT_FEATURES),
        )
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        last = self.mlp[3]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.prior = nn.Parameter(torch.tensor(1.0))
        self.dropout = nn.Dropout(dropout)
        self.noise = noise

    def forward(self, features: Tensor, prior: Tensor) -> Tensor:
        x = (features - self.mean) / self.deviation
        if self.training:
            x = self.dropout(x + self.noise * torch.randn_like(x))
        return normalize(self.linear(x) + self.mlp(x) + self.prior * prior, dim=1)


class TextHead(nn.Module):
    """Unit MiniLM vectors (n, 384) -> learned half (n, 384), unit rows; starts as the identity."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.linear = nn.Linear(TEXT_FEATURES, TEXT_FEATURES)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, text: Tensor) -> Tensor:
        return normalize(text + self.linear(self.dropout(text)), dim=1)


def join(learned: Tensor, plain: Tensor) -> Tensor:
    """The final vectors (n, 768) of two unit halves: two thirds of a cosine are learned, one third is plain."""
    return torch.cat([sqrt(LEARNED) * learned, sqrt(1 - LEARNED) * plain], dim=1)


class Head(nn.Module):
    """Both heads with the learned temperature; what one training run produces."""

    classes: Tensor
    class_weight: Tensor
    class_bias: Tensor

    def __init__(self, image: ImageHead, classifier: tuple[Tensor, Tensor], classes: Tensor) -> None:
        super().__init__()
        self.image = image
        self.text = TextHead()
        self.log_scale = nn.Parameter(torch.tensor(20.0).log())
        self.register_buffer("class_weight", classifier[0])
        self.register_buffer("class_bias", classifier[1])
        self.register_buffer("classes", classes)

    def class_scores(self, features: Tensor) -> Tensor:
        """Logits (n, 1000) of the ImageNet classes from pooled features (n, 2048)."""
        return features[:, :CLASS_FEATURES] @ self.class_weight.T + self.class_bias

    def conse(self, features: Tensor) -> Tensor:
        """ConSE vectors (n, 384) of pooled features (n, 2048)."""
        return conse(self.class_scores(features), self.classes)

    def image_vectors(self, features: Tensor) -> Tensor:
        """Full vectors (n, 768), unit rows, of pooled features (n, 2048)."""
        prior = self.conse(features)
        return join(self.image(features, prior), prior)

    def text_vectors(self, text: Tensor) -> Tensor:
        """Full vectors (n, 768), unit rows, of unit MiniLM vectors (n, 384)."""
        return join(self.text(text), text)
