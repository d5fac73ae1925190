"""The head of many languages: its regression beside a dense solution, its lessons, and the graph beside the module."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn.functional import normalize

from mmsearch.encoders.ngrams import hashed, padded
from mmsearch.training import distillation
from mmsearch.training.distillation import (
    DIM,
    TRUNK_FEATURES,
    HeadWithNgrams,
    MultilingualHead,
    NgramTable,
    fit_ngrams,
    regress,
)
from mmsearch.training.mini_multilingual import agreeing, export

ROWS = 60


def test_regression_on_ngrams_is_that_of_the_normal_equations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distillation, "ROUNDS", 60)
    rng = np.random.default_rng(0)
    grams = [rng.integers(1, ROWS + 1, rng.integers(0, 9)).tolist() for _ in range(300)]
    targets = rng.normal(size=(300, 5)).astype(np.float32)
    weights = rng.random(300).astype(np.float32)
    dense = np.zeros((300, ROWS + 1))
    for row, ids in zip(dense, grams, strict=True):
        np.add.at(row, ids, max(len(ids), 1) ** -0.5)
    scaled = dense * (weights / weights.mean())[:, None]
    expected = np.linalg.solve(scaled.T @ dense + distillation.RIDGE * np.eye(ROWS + 1), scaled.T @ targets)
    np.testing.assert_allclose(regress(grams, targets, weights, ROWS), expected, atol=1e-4)


def test_a_table_knows_words_that_it_has_seen_and_says_nothing_of_others() -> None:
    torch.manual_seed(0)
    words = [f"Wort{number}" for number in range(80)]
    targets = normalize(torch.randn(40, DIM))
    english = torch.arange(80) % 40
    table = fit_ngrams(
        [hashed(word, 5000) for word in words], english, targets, np.ones(80, np.float32), 5000
    )
    assert table.codes.dtype == torch.int8
    assert table.codes.shape == (5001, distillation.SIDE)
    assert not table.codes[0].any()
    grams = torch.from_numpy(padded([hashed(word, 5000) for word in words]))
    found = table(grams) @ (targets - targets.mean(0)).T
    assert (found.argmax(1) == english).float().mean() > 0.95
    assert not table(torch.zeros(2, 3, dtype=torch.int64)).any()


def test_the_longer_a_text_the_less_its_ngrams_weigh() -> None:
    table = NgramTable(torch.cat([torch.zeros(1, 2), torch.ones(9, 2)]), torch.eye(2))
    lengths = [1, distillation.ALL, 4 * distillation.ALL]
    sums = table(torch.from_numpy(padded([[1] * length for length in lengths])))[:, 0]
    means = [distillation.WEIGHT * length**0.5 for length in lengths[:2]]
    np.testing.assert_allclose(
        sums, [*means, means[1] / 2], rtol=1e-5
    )  # twice the root, a quarter of the weight


def test_the_graph_gives_the_vectors_of_the_module_whatever_the_padding(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = MultilingualHead(torch.randn(50, TRUNK_FEATURES), torch.randn(9, TRUNK_FEATURES)).eval()
    torch.nn.init.normal_(head.mlp[3].weight, std=0.02)
    words = ["Igel", "刺猬", "hedgehog"]
    rows = 5000
    targets = normalize(torch.randn(3, DIM))
    ids = [hashed(word, rows) for word in words]
    table = fit_ngrams(ids, torch.arange(3), targets, np.ones(3, np.float32), rows)
    both = HeadWithNgrams(head, table)
    features = normalize(torch.randn(3, TRUNK_FEATURES))
    grams = torch.from_numpy(padded([hashed(text, rows) for text in ("Ein Igel.", "", "刺猬")]))
    with torch.no_grad():
        expected = both(features, grams).numpy()
    export(both, tmp_path / "head.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "head.onnx")
    wide = np.pad(grams.numpy(), ((0, 0), (0, 50)))
    (vectors,) = session.run(None, {"features": features.numpy(), "ngrams": grams.numpy()})
    (more,) = session.run(None, {"features": features.numpy(), "ngrams": wide})
    assert (vectors * expected).sum(1).min() > 0.999
    np.testing.assert_array_equal(vectors, more)


def test_pairs_that_the_trunk_finds_far_from_each_other_are_left_out() -> None:
    rng = np.random.default_rng(2)
    words = rng.normal(size=(100, 20)).astype(np.float32)
    foreign = words + 3  # a direction that all words of a language share
    foreign[:40] = rng.normal(size=(40, 20)) + 3
    near = agreeing(words, foreign)
    assert near.sum() == 60
    assert near[40:].all()
