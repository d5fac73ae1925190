"""A small training run learns a relation it has never been told."""

import numpy as np
import torch
from torch.nn.functional import normalize

from mmsearch.training.evaluate_mini import recall
from mmsearch.training.heads import Head, ImageHead
from mmsearch.training.loop import Examples, batches, owned_texts, train
from mmsearch.training.trunks import CLASS_FEATURES, IMAGE_FEATURES, TEXT_FEATURES


def toy(pictures: int) -> tuple[Examples, Head]:
    """Pictures and texts that are two random views of the same hidden points; the classifier knows nothing."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(pictures, 12, generator=generator)
    features = hidden @ torch.randn(12, IMAGE_FEATURES, generator=generator)
    texts = normalize(hidden @ torch.randn(12, TEXT_FEATURES, generator=generator), dim=1)
    examples = Examples(features[None], texts, torch.arange(pictures)[:, None], torch.zeros(pictures))
    torch.manual_seed(0)
    nothing = (torch.zeros(10, CLASS_FEATURES), torch.zeros(10))
    head = Head(ImageHead(features), nothing, normalize(torch.randn(10, TEXT_FEATURES), dim=1))
    return examples, head


def first_place(head: Head, examples: Examples) -> float:
    with torch.no_grad():
        images, texts = head.image_vectors(examples.views[0]), head.text_vectors(examples.texts)
    return recall(texts.numpy(), images.numpy(), np.arange(len(texts)))[0]


def test_training_lifts_recall_from_chance() -> None:
    examples, head = toy(256)
    head.eval()
    assert first_place(head, examples) < 5
    losses: list[float] = []
    train(head, examples, epochs=15, batch=64, progress=lambda _, loss: losses.append(loss))
    assert losses[-1] < losses[0] / 2
    assert first_place(head, examples) > 60


def test_training_is_repeatable() -> None:
    ends = []
    for _ in range(2):
        examples, head = toy(64)
        ends.append(train(head, examples, epochs=2, batch=32, seed=7).state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_texts_of_a_batch_come_once_and_know_all_their_pictures() -> None:
    examples = Examples(
        torch.zeros(1, 3, 2),
        torch.arange(4.0)[:, None],
        torch.tensor([[0, 1], [1, -1], [3, 2]]),
        torch.zeros(3),
    )
    texts, belongs = owned_texts(examples, torch.tensor([1, 0]))
    assert texts[:, 0].tolist() == [0.0, 1.0]
    assert belongs.tolist() == [[False, True], [True, True]]


def test_an_epoch_sees_the_share_of_each_domain() -> None:
    domains = torch.tensor([0] * 64 + [1] * 64 + [2] * 5)
    torch.manual_seed(0)
    parts = batches(domains, 16, (1.0, 0.5, 1.0))
    assert all(len(set(domains[rows].tolist())) == 1 for rows in parts)
    seen = torch.cat(parts)
    assert len(seen) == len(set(seen.tolist()))
    assert torch.bincount(domains[seen]).tolist() == [64, 32, 5]
