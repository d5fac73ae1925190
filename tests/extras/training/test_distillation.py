"""The head of many languages: its regression beside a dense solution, its lessons, and the graph beside the module."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.functional import normalize

from mmsearch.encoders.ngrams import hashed, padded
from mmsearch.training import distillation
from mmsearch.training.distillation import DIM, TRUNK_FEATURES, Lessons, MultilingualHead, NgramTable, train
from mmsearch.training.mini_multilingual import agreeing, export

ROWS = 60


def test_the_table_starts_at_the_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "ROUNDS", 60)
    rng = np.random.default_rng(0)
    grams = [rng.integers(1, ROWS + 1, rng.integers(0, 9)).tolist() for _ in range(300)]
    targets = rng.normal(size=(300, 5)).astype(np.float32)
    weights = rng.random(300).astype(np.float32)
    table = NgramTable(ROWS, 5)
    table.regress(grams, targets, weights)
    dense = np.zeros((300, ROWS + 1))
    for row, ids in zip(dense, grams, strict=True):
        np.add.at(row, ids, max(len(ids), 1) ** -0.5)
    scaled = dense * (weights / weights.mean())[:, None]
    expected = np.linalg.solve(scaled.T @ dense + distillation.RIDGE * np.eye(ROWS + 1), scaled.T @ targets)
    np.testing.assert_allclose(table.bag.weight.detach(), expected, atol=1e-4)
    found = table(torch.from_numpy(padded(grams))).detach()
    np.testing.assert_allclose(found, dense @ expected, atol=1e-3)


def lessons(words: dict[str, str]) -> Lessons:
    """Each word has the vector of its English one; of the even ones the trunk's features are known."""
    torch.manual_seed(1)
    english = sorted(set(words.values()))
    features = normalize(torch.randn(len(words), TRUNK_FEATURES))
    features[1::2] = 0
    return Lessons(
        features=features,
        grams=[hashed(word, distillation.ROWS) for word in words],
        english=torch.tensor([english.index(other) for other in words.values()]),
        targets=normalize(torch.randn(len(english), DIM)),
        weights=torch.ones(len(words)) / len(words),
        languages=torch.randn(9, TRUNK_FEATURES),
        photo_texts=torch.tensor([[0], [1]]),
        pictures=normalize(torch.randn(2, DIM)),
    )


@pytest.fixture(scope="module")
def trained() -> tuple[MultilingualHead, Lessons]:
    given = lessons({f"Wort{i}": f"word {i}" for i in range(80)})
    head = MultilingualHead(given.features[::2], given.languages)
    head.start(given)
    train(head, given, steps=30, batch=64, photos=2)
    return head, given


def test_words_without_features_are_learnt_by_their_ngrams(trained: tuple[MultilingualHead, Lessons]) -> None:
    head, given = trained
    with torch.no_grad():
        vectors = head(*given.texts(torch.arange(80)))
    found = (vectors @ given.targets.T).argmax(1)
    assert (found == given.english).float().mean() > 0.95


def test_the_graph_gives_the_vectors_of_the_module_whatever_the_padding(
    trained: tuple[MultilingualHead, Lessons], tmp_path: Path
) -> None:
    head, _ = trained
    features = normalize(torch.randn(3, TRUNK_FEATURES))
    grams = torch.from_numpy(padded([hashed(text, distillation.ROWS) for text in ("Wort7", "", "ein Wort")]))
    with torch.no_grad():
        expected = head(features, grams)
    export(head, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    wide = np.pad(grams.numpy(), ((0, 0), (0, 50)))
    (vectors,) = session.run(None, {"features": features.numpy(), "ngrams": grams.numpy()})
    (padded_more,) = session.run(None, {"features": features.numpy(), "ngrams": wide})
    assert (vectors * expected.numpy()).sum(1).min() > 0.999
    np.testing.assert_array_equal(vectors, padded_more)


def test_pairs_that_the_trunk_finds_far_from_each_other_are_left_out() -> None:
    rng = np.random.default_rng(2)
    words = rng.normal(size=(100, 20)).astype(np.float32)
    foreign = words + 3  # a direction that all words of a language share
    foreign[:40] = rng.normal(size=(40, 20)) + 3
    near = agreeing(words, foreign)
    assert near.sum() == 60
    assert near[40:].all()
