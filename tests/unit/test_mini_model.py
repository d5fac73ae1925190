"""The shipped files of `mini`: complete, small, true to their canonical vectors, and right without VNNI."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
import pytest
from numpy.typing import NDArray

import mmsearch.models
from mmsearch.encoders.onnx import OnnxEncoder, verify

FOLDER = Path(mmsearch.models.__file__).parent / "mini"
PHOTOS = Path(__file__).parents[2] / "data" / "photos"
PRODUCTS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
LIMIT = 40_000_000  # bytes, words and pictures together
SOUND_LIMIT = 15_000_000


@pytest.fixture(scope="module")
def encoder() -> OnnxEncoder:
    return OnnxEncoder(FOLDER, threads=1)


def constants(path: Path) -> dict[str, NDArray[np.generic]]:
    graph = onnx.load(path).graph
    return {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}


def test_files_are_those_of_the_manifest_and_fit_their_limit() -> None:
    files = json.loads((FOLDER / "model.json").read_text())["files"]
    parts = {"image.onnx", "text.onnx", "audio.onnx", "tokenizer.json", "canonical.npz", "means.npz"}
    assert set(files) == parts
    for name, entry in files.items():
        data = (FOLDER / name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["bytes"], entry["sha256"]), name
    sound = (FOLDER / "audio.onnx").stat().st_size
    assert sound <= SOUND_LIMIT
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) - sound <= LIMIT


def test_canonical_inputs_give_their_vectors() -> None:
    assert verify(FOLDER, threads=1) == []


def test_drawings_and_photos_are_found_by_words(encoder: OnnxEncoder) -> None:
    with np.load(FOLDER / "canonical.npz") as canonical:
        pictures = [PIL.Image.fromarray(pixels) for pixels in canonical["images"]]
    vectors = encoder.encode_images(pictures)
    best = (encoder.encode_texts(["a checkered pattern", "a red ball"]) @ vectors.T).argmax(axis=1)
    assert best.tolist() == [3, 1]
    wanted = {
        "a hedgehog in the garden": "hedgehog",
        "a polar bear": "polar-bear",
        "a panda eating bamboo": "panda",
        "a rocket taking off": "rocket",
    }
    photos = sorted(PHOTOS.glob("*.jpg"))
    gallery = encoder.encode_images([PIL.Image.open(photo).convert("RGB") for photo in photos])
    best = (encoder.encode_texts(list(wanted)) @ gallery.T).argmax(axis=1)
    assert [photos[row].stem for row in best] == list(wanted.values())


def test_convolution_weights_keep_to_seven_bits() -> None:
    """Without VNNI two products are added in 16 bits, saturating: 2 x 255 x 64 fits, 2 x 255 x 127 does not."""
    graph = onnx.load(FOLDER / "image.onnx").graph
    weights = constants(FOLDER / "image.onnx")
    convolutions = [node for node in graph.node if node.op_type == "QLinearConv"]
    assert len(convolutions) > 40
    for node in convolutions:
        values = weights[node.input[3]].astype(np.int32)
        assert np.abs(values).max() <= 64, node.name


def test_text_products_use_no_signed_eight_bit_weights() -> None:
    """onnxruntime's u8 x s8 kernels saturate without VNNI; its u8 x u8 kernels do not."""
    graph = onnx.load(FOLDER / "text.onnx").graph
    weights = constants(FOLDER / "text.onnx")
    products = [node for node in graph.node if node.op_type in PRODUCTS]
    assert len(products) == 37  # six a layer, and the head
    assert all(weights[node.input[1]].dtype == np.uint8 for node in products)


def test_a_text_has_one_vector_whatever_its_company(encoder: OnnxEncoder) -> None:
    texts = [
        "a dog on grass",
        "two children run along the beach towards the waves at sunset, laughing",
        "snow",
    ]
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    assert (together * alone).sum(axis=1).min() > 0.99


def test_words_that_are_written_right_are_known(encoder: OnnxEncoder) -> None:
    known = ["horse", "boat", "leather", "sneakers", "a", "café"]
    misspelt = ["hrose", "boaat", "lether", "snekers", "sunglases", "a479"]
    assert [encoder.knows(word) for word in known + misspelt] == [True] * len(known) + [False] * len(misspelt)


def test_synonyms_are_nearer_than_strangers(encoder: OnnxEncoder) -> None:
    a, b, c = encoder.encode_texts(["a puppy on the lawn", "a small dog on grass", "annual tax declaration"])
    assert a @ b > 0.5 > a @ c
