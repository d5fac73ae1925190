"""The two finished towers as torch modules, ready to be exported: trunk, head, final vectors."""

from torch import Tensor, nn

from mmsearch.training.export import RowInt8
from mmsearch.training.heads import Head
from mmsearch.training.trunks import TextTrunk


class ImageReadout(nn.Module):
    """Pooled features (n, 2048) -> vectors (n, 768); chained behind the quantised trunk."""

    def __init__(self, head: Head) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        return self.head.image_vectors(features)


class TextTower(nn.Module):
    """Token ids and mask (n, length) -> vectors (n, 768); word vectors stored as int8, one scale per word."""

    def __init__(self, trunk: TextTrunk, head: Head | None) -> None:
        super().__init__()
        self.trunk = trunk
        self.words = RowInt8(trunk.words.weight.detach())
        self.head = head

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        text: Tensor = self.trunk.from_words(self.words(ids), mask)
        return text if self.head is None else self.head.text_vectors(text)
