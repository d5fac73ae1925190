"""The contrastive losses."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def multi_positive_infonce(images: Tensor, texts: Tensor, belongs: Tensor, scale: Tensor) -> Tensor:
    """Symmetric InfoNCE with several positives a row (Khosla et al. 2020, "Supervised Contrastive Learning", L_out).

    images: (n, d) unit rows; texts: (m, d) unit rows; belongs: (m, n) bool, every row and column with at least one
    True; scale: the inverse temperature, a scalar. Each text chooses among all pictures and each picture among all
    texts; what a row loses is the mean of its positives' -log softmax. Returns the mean of the two directions.
    """
    logits = scale * texts @ images.T
    weights = belongs.float()
    to_image = -(torch.log_softmax(logits, dim=1) * weights).sum(1) / weights.sum(1)
    to_text = -(torch.log_softmax(logits, dim=0) * weights).sum(0) / weights.sum(0)
    return (to_image.mean() + to_text.mean()) / 2


def shared_picture_infonce(texts: Tensor, belongs: Tensor, scale: float) -> Tensor:
    """The same among texts: each must find, among all others, the texts that own a picture with it.

    texts: (m, d) unit rows; belongs: (m, n) bool, who owns which picture. Texts that share with no other are left out;
    if all are, the loss is 0. It keeps text search from paying for picture search.
    """
    alone = torch.eye(len(texts), dtype=torch.bool, device=texts.device)
    owners = belongs.float()
    together = ((owners @ owners.T) > 0) & ~alone
    logits = (scale * texts @ texts.T).masked_fill(alone, float("-inf"))
    shares = torch.log_softmax(logits, dim=1).masked_fill(~together, 0.0)
    counts = together.sum(1)
    kept = counts > 0
    return -(shares.sum(1)[kept] / counts[kept]).sum() / kept.sum().clamp(min=1)


def sigmoid_loss(images: Tensor, texts: Tensor, belongs: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Every pair on its own: does it belong together? Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training".

    images: (n, d) unit rows; texts: (m, d) unit rows; belongs: (m, n) bool; scale and bias: scalars, the bias negative
    at the start because most pairs do not belong together. Returns the sum over pairs by the number of texts.
    """
    logits = scale * texts @ images.T + bias
    signs = belongs.to(logits.dtype) * 2 - 1
    return -logsigmoid(signs * logits).sum() / len(texts)
