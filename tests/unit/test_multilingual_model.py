"""The shipped files of `mini-multilingual`: whole, small, and made for the `mini` that ships. They need no package."""

import hashlib
import json

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.manifest import Manifest
from mmsearch.encoders.packaged import PackagedTextTower

FOLDER, BASE = BUILT_IN_MODELS / "mini-multilingual", BUILT_IN_MODELS / "mini"
LIMIT = 10_500_000  # bytes


def test_files_are_those_of_the_manifest_and_fit_their_limit() -> None:
    files = json.loads((FOLDER / "model.json").read_text())["files"]
    assert set(files) == {"text.onnx", "canonical.npz"}
    for name, entry in files.items():
        data = (FOLDER / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"]), name
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= LIMIT


def test_the_head_was_made_for_the_towers_of_mini_that_ship() -> None:
    base = json.loads((FOLDER / "model.json").read_text())["base"]
    assert base["model"] == "mini"
    assert set(base["files"]) == {"image.onnx", "text.onnx"}
    for name, entry in base["files"].items():
        assert hashlib.sha256((BASE / name).read_bytes()).hexdigest() == entry["sha256"], name


def test_its_english_lies_near_that_of_mini_and_other_languages_near_its_english() -> None:
    with np.load(FOLDER / "canonical.npz") as own, np.load(BASE / "canonical.npz") as base:
        texts = [str(text) for text in own["texts"]]
        ours, theirs = own["text_vectors"], base["text_vectors"]
        assert texts[: len(theirs)] == [str(text) for text in base["texts"]]
    cosines = ours[: len(theirs)] @ theirs.T
    assert (cosines.argmax(axis=1) == np.arange(len(theirs))).all()
    assert cosines.diagonal().mean() > 0.6
    dogs = ours[len(theirs) :]  # "a dog on grass" in eight languages
    assert ((dogs @ theirs.T).argmax(axis=1) == texts.index("a dog on grass")).sum() >= 7


def test_the_head_takes_features_and_ngrams_and_gives_unit_vectors() -> None:
    tower = Manifest.read(FOLDER).text_tower()
    assert isinstance(tower, PackagedTextTower)
    session = onnxruntime.InferenceSession(tower.file)
    features = np.random.default_rng(0).normal(size=(3, 384)).astype(np.float32)
    texts = ["ein Igel", "", "草地上的一只狗"]
    for n in (3, 1, 0):
        (vectors,) = session.run([tower.output], tower.feeds(features[:n], texts[:n]))
        assert vectors.shape == (n, 768)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_its_table_has_the_rows_that_the_manifest_says_and_row_0_is_nothing() -> None:
    tower = Manifest.read(FOLDER).text_tower()
    assert isinstance(tower, PackagedTextTower)
    assert tower.ngrams is not None
    tables = [
        numpy_helper.to_array(constant)
        for constant in onnx.load(tower.file).graph.initializer
        if constant.data_type == onnx.TensorProto.INT8
    ]
    (table,) = tables
    assert len(table) == tower.ngrams.rows + 1
    assert not table[0].any()
