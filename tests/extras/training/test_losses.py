"""The contrastive loss against a slow numpy oracle."""

import numpy as np
import torch
from numpy.typing import NDArray

from mmsearch.training.losses import multi_positive_infonce, shared_picture_infonce


def oracle(
    images: NDArray[np.float64], texts: NDArray[np.float64], belongs: NDArray[np.bool_], scale: float
) -> float:
    """The mean over rows, then over directions, of each positive's -log of its share, pair by pair."""
    scores = np.exp(scale * texts @ images.T)
    to_image = []
    for text, row in enumerate(scores):
        to_image.append(np.mean([-np.log(row[j] / row.sum()) for j in np.flatnonzero(belongs[text])]))
    to_text = []
    for image, column in enumerate(scores.T):
        to_text.append(
            np.mean([-np.log(column[i] / column.sum()) for i in np.flatnonzero(belongs[:, image])])
        )
    return float((np.mean(to_image) + np.mean(to_text)) / 2)


def unit(generator: np.random.Generator, rows: int, dim: int) -> NDArray[np.float64]:
    x: NDArray[np.float64] = generator.standard_normal((rows, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return x


def test_loss_equals_the_oracle_when_pictures_share_texts() -> None:
    generator = np.random.default_rng(3)
    images, texts = unit(generator, 4, 8), unit(generator, 7, 8)
    belongs = np.zeros((7, 4), bool)
    belongs[np.arange(7), [0, 0, 1, 2, 2, 3, 3]] = True
    belongs[4, 3] = belongs[0, 2] = True
    pictures, words, owners = (torch.from_numpy(array) for array in (images, texts, belongs))
    got = multi_positive_infonce(pictures, words, owners, torch.tensor(20.0))
    assert abs(float(got) - oracle(images, texts, belongs, 20.0)) < 1e-5


def test_loss_of_random_vectors_without_scale_is_the_log_of_the_choices() -> None:
    generator = np.random.default_rng(4)
    images = torch.from_numpy(unit(generator, 16, 8))
    loss = multi_positive_infonce(images, images, torch.eye(16, dtype=torch.bool), torch.tensor(0.0))
    assert abs(float(loss) - np.log(16)) < 1e-6


def test_loss_vanishes_for_matched_pairs_at_a_high_scale() -> None:
    axes = torch.eye(6)
    assert (
        float(multi_positive_infonce(axes, axes, torch.eye(6, dtype=torch.bool), torch.tensor(50.0))) < 1e-6
    )


def test_loss_among_texts_equals_the_oracle_and_leaves_loners_out() -> None:
    texts = unit(np.random.default_rng(5), 5, 6)
    belongs = np.zeros((5, 3), bool)
    belongs[[0, 1, 2, 3, 4], [0, 0, 1, 1, 2]] = True
    belongs[0, 1] = True  # text 0 describes the pictures 0 and 1, text 4 is alone
    found = []
    for i, partners in enumerate([[1, 2, 3], [0], [0, 3], [0, 2]]):
        scores = np.exp(9.0 * texts @ texts[i])
        total = scores.sum() - scores[i]
        found.append(np.mean([-np.log(scores[j] / total) for j in partners]))
    got = shared_picture_infonce(torch.from_numpy(texts), torch.from_numpy(belongs), 9.0)
    assert abs(float(got) - np.mean(found)) < 1e-5


def test_loss_among_texts_without_partners_is_zero_and_trains() -> None:
    texts = torch.eye(3, requires_grad=True)
    loss = shared_picture_infonce(texts, torch.eye(3, dtype=torch.bool), 9.0)
    loss.backward()
    assert loss.item() == 0
    assert texts.grad is not None
    assert bool(torch.isfinite(texts.grad).all())
