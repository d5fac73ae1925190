"""An export gives the vectors of open_clip itself: its transform, its tokenizer, its towers, run by torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest

from mmsearch.encoders.manifest import Manifest
from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.encoders.open_clip import OpenClipEncoder, import_open_clip, load_model
from mmsearch.encoders.sources import Source
from mmsearch.training import export as graphs
from mmsearch.training.export_clip import Exported, export_model
from mmsearch.types import Image, Modality, Vectors
from tests.clip_models import FAMILIES
from tests.extras.clip.conftest import PHOTOS, Export, Tiny

TEXTS = [
    "a dog on the grass",
    "",
    "It’s a photo of the sea &amp; sky,\n with a BLUE tree",
    "car",
    "the house " * 40,
    "ein Bär 🐻 auf 雪",
]


def photos() -> list[Image]:
    """Photos of several proportions, one odd, one grey, one smaller than any tower takes."""
    found: list[Image] = [PIL.Image.open(path) for path in PHOTOS[:5]]
    shapes = [(333, 201), (97, 400), (31, 17)]
    found += [PIL.Image.open(path).resize(shape) for path, shape in zip(PHOTOS[5:8], shapes, strict=True)]
    return [*found, PIL.Image.open(PHOTOS[9]).convert("L")]


class Oracle:
    """open_clip as its README uses it; ``double`` computes with 64 bits."""

    def __init__(self, source: Source, double: bool = False) -> None:
        import torch

        open_clip = import_open_clip()
        loaded = load_model(source)
        self.model = loaded.model.double() if double else loaded.model
        self.dtype = torch.float64 if double else torch.float32
        self.tokenizer = loaded.tokenizer
        # The transform goes by the model's configuration, read by open_clip and not by us.
        _, self.transform = open_clip.create_model_from_pretrained(
            f"local-dir:{source.folder}", return_transform=True, **_local_text(source)
        )

    def pixels(self, images: Sequence[Image]) -> Any:
        import torch

        return torch.stack([self.transform(image) for image in images])

    def images(self, images: Sequence[Image]) -> Vectors:
        import torch

        with torch.inference_mode():
            vectors = self.model.encode_image(self.pixels(images).to(self.dtype), normalize=True)
        return np.asarray(vectors.float().numpy())

    def texts(self, texts: Sequence[str]) -> Vectors:
        import torch

        with torch.inference_mode():
            vectors = self.model.encode_text(self.tokenizer(list(texts)), normalize=True)
        return np.asarray(vectors.float().numpy())


def _local_text(source: Source) -> dict[str, Any]:
    import json

    text = json.loads((source.folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    if "hf_model_name" not in text:
        return {}
    here = {"hf_model_name": str(source.folder / "text"), "hf_model_pretrained": False}
    return {"text_cfg": {**text, **here}}


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_torch(family: str, tiny: Tiny, export: Export) -> None:
    oracle, encoder = Oracle(tiny(family)), OnnxEncoder(export(family, "fp32").out, threads=1)
    shown = photos()
    # A random network of many layers may be so steep that float32 itself is off by more.
    slack = 4 * np.abs(oracle.images(shown) - Oracle(tiny(family), double=True).images(shown)).max()
    for got, expected, allowed in (
        (encoder.encode_images(shown), oracle.images(shown), max(1e-4, slack)),
        (encoder.encode_texts(TEXTS), oracle.texts(TEXTS), 1e-4),
    ):
        assert np.abs(got - expected).max() <= allowed
        assert (got * expected).sum(axis=1).min() >= 0.99999
        assert (expected @ expected.T).min() < 0.99, "the inputs do not differ enough to tell anything"


@pytest.mark.parametrize("family", FAMILIES)
def test_pixels_are_those_of_the_transform_of_open_clip(family: str, tiny: Tiny, export: Export) -> None:
    tower = Manifest.read(export(family, "fp32").out).image_tower()
    assert tower is not None
    expected = Oracle(tiny(family)).pixels(photos()).numpy()
    assert np.abs(tower.pixels(photos()) - expected).max() <= 1e-3


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_smaller_precisions_are_near_and_smaller(precision: Any, tiny: Tiny, export: Export) -> None:
    exported, whole = export("vit", precision), export("vit", "fp32")
    assert exported.as_asked
    oracle, encoder = Oracle(tiny("vit")), OnnxEncoder(exported.out, threads=1)
    floor = {"fp16": 0.9999, "int8": 0.99}[precision]
    assert (encoder.encode_images(photos()) * oracle.images(photos())).sum(axis=1).min() >= floor
    assert (encoder.encode_texts(TEXTS) * oracle.texts(TEXTS)).sum(axis=1).min() >= floor
    sizes = [(one.out / "text.onnx").stat().st_size for one in (exported, whole)]
    assert sizes[0] < {"fp16": 0.52, "int8": 0.3}[precision] * sizes[1]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_vector_does_not_depend_on_its_neighbours(precision: Any, export: Export) -> None:
    encoder = OnnxEncoder(export("vit", precision).out, threads=1)
    texts, shown = [*TEXTS, "a photo", "a cat in the snow", "red", "a bird"], photos()
    together, alone = encoder.encode_texts(texts), [encoder.encode_texts([text])[0] for text in texts]
    np.testing.assert_allclose(together, alone, atol=2e-6)
    alone = [encoder.encode_images([picture])[0] for picture in shown]
    np.testing.assert_allclose(encoder.encode_images(shown), alone, atol=2e-6)


def test_short_texts_are_not_padded_where_that_is_of_no_effect(export: Export) -> None:
    padded = {
        family: export(family, "fp32").out for family in ("vit", "xlm-roberta", "siglip2", "mobileclip2")
    }
    lengths = {}
    for family, folder in padded.items():
        tower = Manifest.read(folder).text_tower()
        assert tower is not None
        lengths[family] = getattr(tower, "pad_to", 0)
    assert lengths == {"vit": None, "xlm-roberta": None, "siglip2": 24, "mobileclip2": 24}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_folder_is_whole_and_of_the_space_of_the_model(
    precision: Any, tiny: Tiny, export: Export
) -> None:
    exported = export("siglip2", precision)
    assert verify(exported.out, threads=1) == []
    encoder = OnnxEncoder(exported.out, threads=1)
    assert encoder.space == OpenClipEncoder(tiny("siglip2")).space
    vectors = encoder.encode_images([PIL.Image.open(path) for path in PHOTOS])
    assert np.abs(encoder.means[Modality.IMAGE] - vectors.mean(axis=0)).max() <= 0.02
    assert set(encoder.spreads) == set(encoder.means) == {Modality.IMAGE, Modality.TEXT}
    assert "64 photos" in (exported.out / "MODEL_CARD.md").read_text()


def test_weights_beyond_the_limit_of_one_file_lie_beside_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "LARGEST", 100_000)
    exported = export_model(tiny("vit"), tmp_path / "large", threads=1)
    weights = {path.name for path in exported.out.glob("*.data")}
    assert weights == {"image.onnx.data", "text.onnx.data"}
    assert (exported.out / "image.onnx").stat().st_size < 100_000
    assert (exported.out / "text.onnx").stat().st_size < 100_000, "it was optimised into one file again"
    assert weights < {path.name for path in Manifest.read(exported.out).hashes()}
    assert verify(exported.out, threads=1) == []


def test_attention_is_a_few_products(export: Export) -> None:
    graph = onnx.load(export("vit", "fp32").out / "image.onnx").graph
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")]
    # Of each of two layers: query, key and value at once, weights, mixture, output, and two of the MLP; the projection.
    assert len(products) == 2 * 6 + 1


def test_towers_are_reported(export: Export) -> None:
    exported: Exported = export("vit", "int8")
    assert exported.towers["image"].products == 2 * 4 + 1
    assert exported.towers["image"].exact == 0
    assert 0.99 <= exported.towers["text"].smallest <= exported.towers["text"].mean <= 1
