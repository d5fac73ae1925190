"""Fusion heads: better than either medium, and still there when one is missing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from mmsearch.errors import ConfigError
from mmsearch.training.export import session
from mmsearch.training.finetune import FusionKind, Options, Side, side_of
from mmsearch.training.fusion import Fusion, export_fusion, fit_fusion, results
from mmsearch.types import Modality

IMAGE, TEXT = Modality.IMAGE, Modality.TEXT
KINDS: list[FusionKind] = ["sum", "linear", "attention"]


def halves(items: int, dim: int = 32) -> tuple[dict[Modality, np.ndarray], Side, Side]:
    """A picture shows the first half of an item and noise; its three texts tell of all of it, through noise."""
    generator = torch.Generator().manual_seed(0)

    def noise() -> torch.Tensor:
        return torch.randn(items, dim, generator=generator)

    whole = noise()
    shown = whole.clone()
    shown[:, dim // 2 :] = 0
    texts = torch.cat([whole + 1.2 * noise() for _ in range(3)])
    vectors = {
        IMAGE: normalize(shown + 0.5 * noise(), dim=1).numpy(),
        TEXT: normalize(texts, dim=1).numpy(),
    }
    rows = [{IMAGE: [n], TEXT: [n, items + n, 2 * items + n]} for n in range(items)]
    cut = items * 3 // 4
    return vectors, side_of(rows[:cut], [1.0] * cut), side_of(rows[cut:], [1.0] * (items - cut))


def options(kind: FusionKind) -> Options:
    return Options(fusion=kind, batch=64, rate=1e-3, decay=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_is_found_best_by_everything_and_still_by_each_medium(kind: FusionKind) -> None:
    vectors, train, validation = halves(400)
    fusion = fit_fusion(vectors, train, validation, options(kind))
    found = {name: result.measures["map"] for name, result in results(fusion, vectors, validation).items()}
    start = results(Fusion(kind, [IMAGE, TEXT], 32), vectors, validation)
    before = {name: result.measures["map"] for name, result in start.items()}
    assert found["everything"].value > max(found["image only"].value, found["text only"].value)
    assert found["everything"].value > 0.98 * before["everything"].value
    for name in ("image only", "text only"):
        assert found[name].value > 5 * found[name].chance
        assert found[name].value > 0.9 * before[name].value


@pytest.mark.parametrize("kind", KINDS)
def test_before_training_a_fusion_is_the_mean_of_what_is_there(kind: FusionKind) -> None:
    a, b = (normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    fusion = Fusion(kind, [IMAGE, TEXT], 8).eval()
    with torch.no_grad():
        torch.testing.assert_close(fusion(a, b), normalize(a + b, dim=1))
        torch.testing.assert_close(fusion(a, torch.zeros(5, 8)), a)
        torch.testing.assert_close(fusion(torch.zeros(5, 8), b), b)


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_gives_what_torch_gives_with_parts_missing(tmp_path: Path, kind: FusionKind) -> None:
    torch.manual_seed(0)
    fusion = Fusion(kind, [IMAGE, TEXT], 8)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    told = export_fusion(fusion, 8, tmp_path / "fusion.onnx")
    assert told["inputs"] == {"image": "image", "text": "text"}
    a, b = (normalize(torch.randn(6, 8), dim=1) for _ in range(2))
    a[2] = 0
    b[4] = 0
    with torch.no_grad():
        expected = fusion.eval()(a, b).numpy()
    (got,) = session(tmp_path / "fusion.onnx").run(["vectors"], {"image": a.numpy(), "text": b.numpy()})
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_items_with_one_text_cannot_train_a_fusion() -> None:
    vectors, _, _ = halves(20)
    side = side_of([{IMAGE: [n], TEXT: [n]} for n in range(20)], [1.0] * 20)
    with pytest.raises(ConfigError, match="two texts and a picture or sound"):
        fit_fusion(vectors, side, side, options("sum"))
