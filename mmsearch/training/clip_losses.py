"""open_clip's contrastive losses, for batches in which the same text or picture may stand several times."""

from typing import Any

import torch
from torch import Tensor

from mmsearch.encoders.open_clip import import_open_clip

import_open_clip()  # which gets along with a torchvision that plain imports fail at

from open_clip.loss import ClipLoss, SigLipLoss  # noqa: E402


class PairClipLoss(ClipLoss):
    """``ClipLoss`` with a ground truth that is given.

    `belongs` (n, n) bool, symmetric: which texts belong to which pictures; each of several right ones has its share.
    """

    belongs: Tensor

    def get_ground_truth(self, device: Any, num_logits: int) -> Tensor:
        shares = self.belongs.to(device, torch.float32)
        return shares / shares.sum(1, keepdim=True)


class PairSigLipLoss(SigLipLoss):
    """The same for ``SigLipLoss``."""

    belongs: Tensor

    def get_ground_truth(
        self, device: Any, dtype: torch.dtype, num_logits: int, negative_only: bool = False
    ) -> Tensor:
        return 2 * self.belongs.to(device, dtype) - 1
