"""Heads on frozen vectors: they learn, stop, resume, and their graphs give what they give."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import normalize

from mmsearch.errors import ConfigError
from mmsearch.training import finetune
from mmsearch.training.export import append_head, session
from mmsearch.training.finetune import Epoch, Fit, Options, Side, recall, side_of
from mmsearch.training.losses import sigmoid_loss
from mmsearch.training.residual import HIDDEN, Heads, Kind
from mmsearch.types import Modality

IMAGE, TEXT, AUDIO = Modality.IMAGE, Modality.TEXT, Modality.AUDIO


def turned(items: int, dim: int = 16) -> tuple[dict[Modality, torch.Tensor], Side, Side]:
    """Texts are their pictures, turned by a rotation that no one was told: linear heads can undo it."""
    generator = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(items, dim, generator=generator), dim=1)
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator)).Q
    texts = normalize(images @ rotation + 0.05 * torch.randn(items, dim, generator=generator), dim=1)
    rows = [{IMAGE: [n], TEXT: [n]} for n in range(items)]
    cut = items * 4 // 5
    return (
        {IMAGE: images, TEXT: texts},
        side_of(rows[:cut], [1.0] * cut),
        side_of(rows[cut:], [1.0] * (items - cut)),
    )


def fit(*given: Any, **named: Any) -> Fit:
    return finetune.fit(*given, dim=16, **named)


def options(**given: object) -> Options:
    return Options(**{"epochs": 12, "batch": 64, "rate": 2e-2, "decay": 0.0, "among_texts": 0.0} | given)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_heads_lift_validation_recall_from_chance(loss: str, head: str) -> None:
    vectors, train, validation = turned(500)
    start = recall(Heads([], 16, "linear", 1.0, 0.0), vectors, validation)
    assert start < 10
    found = fit(vectors, train, validation, options(loss=loss, head=head))
    assert found.best > 0
    assert found.history[found.best - 1].recall == max(epoch.recall for epoch in found.history)
    assert recall(found.heads, vectors, validation) == pytest.approx(found.history[found.best - 1].recall)
    assert recall(found.heads, vectors, validation) > 60


def test_one_tower_alone_is_trained_towards_the_frozen_other() -> None:
    vectors, train, validation = turned(500)
    found = fit(vectors, train, validation, options(only=TEXT))
    assert list(found.heads.heads) == ["text"]
    assert torch.equal(found.heads(IMAGE, vectors[IMAGE]), vectors[IMAGE])
    assert recall(found.heads, vectors, validation) > 60


def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(tmp_path: Path) -> None:
    vectors, train, validation = turned(300)
    whole = fit(vectors, train, validation, options(), checkpoint=tmp_path / "whole.pt", fingerprint="a")
    path = tmp_path / "cut.pt"
    fit(vectors, train, validation, options(), checkpoint=path, fingerprint="a", stop_after=4)
    seen: list[Epoch] = []
    resumed = fit(
        vectors,
        train,
        validation,
        options(),
        checkpoint=path,
        fingerprint="a",
        resume=True,
        progress=seen.append,
    )
    assert seen[0].number == 5
    assert resumed.history == whole.history
    for name, weights in whole.heads.state_dict().items():
        assert torch.equal(weights, resumed.heads.state_dict()[name]), name


def test_a_checkpoint_of_other_data_or_options_is_refused(tmp_path: Path) -> None:
    vectors, train, validation = turned(100)
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(ConfigError, match="no checkpoint"):
        fit(vectors, train, validation, options(), checkpoint=path, resume=True)
    fit(vectors, train, validation, options(), checkpoint=path, fingerprint="a", stop_after=1)
    for changed, fingerprint in ((options(seed=1), "a"), (options(), "b")):
        with pytest.raises(ConfigError, match="other pairs, another base or other options"):
            fit(vectors, train, validation, changed, checkpoint=path, fingerprint=fingerprint, resume=True)


def test_training_stops_when_recall_no_longer_rises() -> None:
    vectors, train, validation = turned(200)
    noise = {IMAGE: vectors[IMAGE], TEXT: normalize(torch.randn(200, 16), dim=1)}
    found = fit(noise, train, validation, options(epochs=50, patience=3))
    assert len(found.history) == found.best + 3 < 50


def test_an_item_of_weight_zero_is_never_drawn() -> None:
    vectors, train, validation = turned(100)
    spoilt = {**vectors, TEXT: vectors[TEXT].clone()}
    spoilt[TEXT][:40] = torch.nan
    weights = torch.ones(80, dtype=torch.float64)
    weights[:40] = 0
    found = fit(spoilt, Side(train.owned, weights), validation, options(epochs=3))
    assert all(np.isfinite(epoch.loss) for epoch in found.history)


def test_three_modalities_are_all_brought_together() -> None:
    vectors, train, validation = turned(400)
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(5))).Q
    vectors[AUDIO] = vectors[IMAGE] @ rotation
    train, validation = (
        Side({**side.owned, AUDIO: side.owned[IMAGE]}, side.weights) for side in (train, validation)
    )
    found = fit(vectors, train, validation, options())
    assert set(found.heads.heads) == {"image", "text", "audio"}
    assert found.history[found.best - 1].recall > 60


def test_recall_counts_equal_scores_as_misses() -> None:
    side = side_of([{IMAGE: [n], TEXT: [n]} for n in range(20)], [1.0] * 20)
    same = torch.ones(20, 4) / 2
    assert recall(Heads([], 4, "linear", 1.0, 0.0), {IMAGE: same, TEXT: same}, side) == 0
    assert recall(Heads([], 20, "linear", 1.0, 0.0), {IMAGE: torch.eye(20), TEXT: torch.eye(20)}, side) == 100


def test_sigmoid_loss_equals_the_loop_over_pairs() -> None:
    generator = np.random.default_rng(0)
    images, texts = generator.standard_normal((3, 5)), generator.standard_normal((4, 5))
    belongs = generator.random((4, 3)) < 0.4
    expected = 0.0
    for t, text in enumerate(texts):
        for i, image in enumerate(images):
            logit = 3.0 * float(text @ image) - 2.0
            expected += np.log1p(np.exp(-logit if belongs[t, i] else logit))
    given = [torch.from_numpy(array) for array in (images, texts, belongs)]
    got = sigmoid_loss(given[0], given[1], given[2], torch.tensor(3.0), torch.tensor(-2.0))
    assert float(got) == pytest.approx(expected / 4)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("opset", [13, 17, 20])
def test_a_graph_with_its_head_gives_what_torch_gives(tmp_path: Path, kind: Kind, opset: int) -> None:
    torch.manual_seed(0)
    weight = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["vectors"]),
            helper.make_node("Relu", ["vectors"], ["other"]),
        ],
        "base",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in ("vectors", "other")],
        [numpy_helper.from_array(weight, "weight")],
    )
    base, whole = tmp_path / "base.onnx", tmp_path / "whole.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), base)
    heads = Heads([IMAGE], 8, kind, 1.0, 0.0).eval()
    for parameter in heads.heads["image"].parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layers = heads.heads["image"].layers()
    assert [shape[0].shape for shape in layers] == (
        [(8, 8)] if kind == "linear" else [(8, HIDDEN), (HIDDEN, 8)]
    )
    append_head(base, whole, "vectors", layers)
    onnx.checker.check_model(onnx.load(whole), full_check=True)
    x = np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32)
    vectors, other = session(whole).run(["vectors", "other"], {"x": x})
    with torch.no_grad():
        expected = heads(IMAGE, normalize(torch.from_numpy(x @ weight), dim=1)).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(other, np.maximum(x @ weight, 0), atol=1e-5)


def test_a_graph_may_get_a_second_head(tmp_path: Path) -> None:
    weights = np.random.default_rng(2).standard_normal((2, 8, 8)).astype(np.float32)
    nodes = [helper.make_node("Identity", ["x"], ["vectors"])]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 8]) for name in ("x", "vectors")]
    graph = helper.make_graph(nodes, "base", ends[:1], ends[1:])
    path = tmp_path / "base.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    x = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)
    expected = x / np.linalg.norm(x, axis=1, keepdims=True)
    for weight in weights:
        append_head(path, path, "vectors", [(weight, np.zeros(8, np.float32))])
        expected = expected + expected @ weight
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    (vectors,) = session(path).run(["vectors"], {"x": x})
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
