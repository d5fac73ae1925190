"""The encoder of model folders, on tiny towers built here whose answers numpy can work out."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL.Image
import pytest
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from mmsearch.encoders import load_encoder
from mmsearch.encoders.manifest import Manifest
from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.errors import ModelError
from mmsearch.types import Modality, Space, Vectors

DIM = 4
SIZE = (6, 4)  # width, height
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "dog", "runs"]
PIXEL_MATRIX = np.random.default_rng(1).normal(size=(3, DIM)).astype(np.float32)
WORD_VECTORS = np.random.default_rng(2).normal(size=(len(WORDS), DIM)).astype(np.float32)

Change = Callable[[dict[str, Any]], None]


def save(path: Path, nodes: list[Any], inputs: list[Any], constants: dict[str, NDArray[Any]]) -> None:
    """A graph whose last node gives ``vectors``."""
    graph = helper.make_graph(
        nodes,
        "tower",
        inputs,
        [helper.make_tensor_value_info("vectors", T.FLOAT, ["n", "dim"])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))


def save_image_tower(path: Path, *, channels_first: bool = False, floats: bool = False) -> None:
    """The mean colour times ``PIXEL_MATRIX``."""
    shape: list[str | int | None] = (
        ["n", 3, SIZE[1], SIZE[0]] if channels_first else ["n", SIZE[1], SIZE[0], 3]
    )
    axes = [2, 3] if channels_first else [1, 2]
    save(
        path,
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=T.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["colour"], axes=axes, keepdims=0),
            helper.make_node("MatMul", ["colour", "matrix"], ["vectors"]),
        ],
        [helper.make_tensor_value_info("pixels", T.FLOAT if floats else T.UINT8, shape)],
        {"matrix": PIXEL_MATRIX},
    )


def save_text_tower(path: Path, *, mask: bool = True, kind: int = T.INT64, tokens: int | None = None) -> None:
    """The sum of ``WORD_VECTORS`` of the tokens that the mask keeps (of all tokens without a mask)."""
    shape: list[str | int | None] = ["n", tokens or "tokens"]
    nodes = [helper.make_node("Gather", ["words", "ids"], ["embedded"])]
    inputs = [helper.make_tensor_value_info("ids", kind, shape)]
    constants: dict[str, NDArray[Any]] = {
        "words": WORD_VECTORS,
        "token_axis": np.array([1]),
        "last": np.array([2]),
    }
    if mask:
        inputs.append(helper.make_tensor_value_info("mask", kind, shape))
        nodes += [
            helper.make_node("Cast", ["mask"], ["kept"], to=T.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "last"], ["weights"]),
            helper.make_node("Mul", ["embedded", "weights"], ["weighted"]),
        ]
    last = "weighted" if mask else "embedded"
    nodes.append(helper.make_node("ReduceSum", [last, "token_axis"], ["vectors"], keepdims=0))
    save(path, nodes, inputs, constants)


def save_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(path))


def manifest() -> dict[str, Any]:
    return {
        "format": 1,
        "name": "tiny",
        "space": {"id": "tiny-1", "dim": DIM, "metric": "cosine"},
        "towers": {
            "image": {
                "file": "image.onnx",
                "input": "pixels",
                "output": "vectors",
                "batch": 2,
                "preprocess": {
                    "size": list(SIZE),
                    "resize": "squash",
                    "interpolation": "bicubic",
                    "layout": "NHWC",
                    "dtype": "uint8",
                },
            },
            "text": {
                "file": "text.onnx",
                "tokenizer": "tokenizer.json",
                "context": 6,
                "pad_to": None,
                "dtype": "int64",
                "inputs": {"ids": "ids", "mask": "mask"},
                "output": "vectors",
                "batch": 2,
            },
        },
        "files": {},
        "canonical": "canonical.npz",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_image_tower(tmp_path / "image.onnx")
    save_text_tower(tmp_path / "text.onnx")
    save_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "model.json").write_text(json.dumps(manifest()))
    return tmp_path


def rewrite(folder: Path, change: Change) -> None:
    fields = manifest()
    change(fields)
    (folder / "model.json").write_text(json.dumps(fields))


def photo(seed: int = 0, size: tuple[int, int] = SIZE) -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def unit(rows: NDArray[Any]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def text_oracle(*texts: str, context: int = 6) -> Vectors:
    rows = []
    for text in texts:
        words = [WORDS.index(word) if word in WORDS else 1 for word in text.split()]
        rows.append(WORD_VECTORS[[2, *words[: context - 2], 3]].sum(axis=0))
    return unit(np.array(rows))


def test_it_tells_its_space_and_modalities_without_opening_a_tower(folder: Path) -> None:
    (folder / "image.onnx").unlink()
    (folder / "text.onnx").unlink()
    encoder = load_encoder(folder, threads=3)
    assert encoder.space == Space("tiny-1", DIM)
    assert encoder.modalities == {Modality.IMAGE, Modality.TEXT}
    assert (encoder.image_size, encoder.batch_size) == (6, 2 * 2 * 3)


def test_pictures_become_the_vectors_that_numpy_computes_in_order_over_several_batches(folder: Path) -> None:
    photos = [photo(seed) for seed in range(5)]
    vectors = OnnxEncoder(folder).encode_images(photos)
    means = np.array([np.asarray(image, np.float32).mean(axis=(0, 1)) for image in photos])
    np.testing.assert_allclose(vectors, unit(means @ PIXEL_MATRIX), atol=1e-5)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous


def test_texts_become_the_vectors_that_numpy_computes_whatever_their_lengths_and_order(folder: Path) -> None:
    texts = ["a red dog runs", "dog", "a dog", "", "red red", "unheard words"]
    np.testing.assert_allclose(OnnxEncoder(folder).encode_texts(texts), text_oracle(*texts), atol=1e-5)


def test_a_text_beyond_the_context_is_cut_and_keeps_its_special_tokens(folder: Path) -> None:
    long, kept = "a red dog runs " * 50, "a red dog runs"
    np.testing.assert_allclose(OnnxEncoder(folder).encode_texts([long]), text_oracle(kept), atol=1e-5)


def test_text_that_is_no_valid_unicode_is_encoded_like_any_other(folder: Path) -> None:
    assert np.isfinite(OnnxEncoder(folder).encode_texts(["dog \udcff"])).all()


def test_nothing_gives_an_empty_array_of_the_right_shape(folder: Path) -> None:
    encoder = OnnxEncoder(folder)
    assert encoder.encode_images([]).shape == (0, DIM)
    assert encoder.encode_texts([]).shape == (0, DIM)


def test_a_picture_without_any_signal_gives_zeros_and_not_nan(folder: Path) -> None:
    black = PIL.Image.new("RGB", SIZE)
    np.testing.assert_array_equal(OnnxEncoder(folder).encode_images([black]), np.zeros((1, DIM)))


def test_a_clip_style_folder_gets_normalised_channels_first_floats_and_padded_ids(folder: Path) -> None:
    mean, std = [122.77, 116.75, 104.09], [68.5, 66.63, 70.32]

    def clip(fields: dict[str, Any]) -> None:
        rules = {"resize": "crop", "layout": "NCHW", "dtype": "float32", "mean": mean, "std": std}
        fields["towers"]["image"]["preprocess"].update(rules)
        fields["towers"]["text"].update(pad_to=77, context=77, dtype="int32", inputs={"ids": "ids"})

    rewrite(folder, clip)
    save_image_tower(folder / "image.onnx", channels_first=True, floats=True)
    save_text_tower(folder / "text.onnx", mask=False, kind=T.INT32, tokens=77)
    encoder = OnnxEncoder(folder)
    photos = [photo(seed) for seed in range(3)]
    means = np.array([(np.asarray(image, np.float32).mean(axis=(0, 1)) - mean) / std for image in photos])
    np.testing.assert_allclose(encoder.encode_images(photos), unit(means @ PIXEL_MATRIX), atol=1e-4)
    padded = WORD_VECTORS[[2, 6, 3] + [0] * 74].sum(axis=0, keepdims=True)
    np.testing.assert_allclose(encoder.encode_texts(["dog"]), unit(padded), atol=1e-5)


def test_the_padding_id_is_the_tokenizers_own(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=3, pad_token="[SEP]")
    tokenizer.save(str(folder / "tokenizer.json"))
    rewrite(folder, lambda fields: fields["towers"]["text"].update(pad_to=8, inputs={"ids": "ids"}))
    save_text_tower(folder / "text.onnx", mask=False)
    padded = WORD_VECTORS[[2, 6] + [3] * 6].sum(axis=0, keepdims=True)
    np.testing.assert_allclose(OnnxEncoder(folder).encode_texts(["dog"]), unit(padded), atol=1e-5)


@pytest.mark.parametrize("rule", ["squash", "crop", "pad"])
def test_preparing_twice_is_preparing_once_and_gives_the_size_of_the_tower(folder: Path, rule: str) -> None:
    rewrite(folder, lambda fields: fields["towers"]["image"]["preprocess"].update(resize=rule))
    encoder = OnnxEncoder(folder)
    for size in [(300, 20), (20, 300), (1, 1), (6, 4), (5, 1000)]:
        once = encoder.prepare_image(photo(size=size))
        assert once.size == SIZE
        assert encoder.prepare_image(once) is once


def white_middle(folder: Path, rule: str) -> NDArray[np.uint8]:
    """A black 120 x 40 picture whose middle 60 x 40, of the tower's proportions, is white: prepared by a rule."""
    rules = {"resize": rule, "pad_color": [9, 9, 9], "interpolation": "bilinear"}
    rewrite(folder, lambda fields: fields["towers"]["image"]["preprocess"].update(rules))
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, 30:90] = 255
    return np.asarray(OnnxEncoder(folder).prepare_image(PIL.Image.fromarray(pixels)))


def test_crop_keeps_the_middle_only(folder: Path) -> None:
    prepared = white_middle(folder, "crop")
    assert prepared[:, 1:-1].min() == 255
    assert prepared.min() > 200  # the very edge may see a little of what lies beside it


def test_squash_keeps_everything_out_of_proportion(folder: Path) -> None:
    prepared = white_middle(folder, "squash")
    assert prepared[:, 0].max() < 20
    assert prepared[:, 2:4].min() > 235


def test_pad_keeps_everything_in_proportion_between_bars_of_the_pad_colour(folder: Path) -> None:
    prepared = white_middle(folder, "pad")
    assert (prepared[[0, 3]] == 9).all()
    assert prepared[1:3, 0].max() < 20
    assert prepared[1:3, 2:4].min() > 235


def test_a_grey_picture_is_taken_as_rgb(folder: Path) -> None:
    assert OnnxEncoder(folder).prepare_image(PIL.Image.new("L", SIZE, 7)).getpixel((0, 0)) == (7, 7, 7)


def test_a_text_query_opens_neither_the_image_tower_nor_pillow(folder: Path) -> None:
    (folder / "image.onnx").unlink()
    code = (
        "import sys; from pathlib import Path; from mmsearch.encoders.onnx import OnnxEncoder\n"
        "light = {'onnxruntime', 'tokenizers', 'PIL'} & set(sys.modules)\n"
        "OnnxEncoder(Path(sys.argv[1])).encode_texts(['dog'])\n"
        "print(sorted(light), 'PIL' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "[] False False"


def test_many_threads_share_one_encoder_from_its_first_call(folder: Path) -> None:
    encoder = OnnxEncoder(folder, threads=1)
    texts = ["dog", "a red dog", "runs", "red runs"] * 8
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda text: encoder.encode_texts([text])[0], texts))
    np.testing.assert_allclose(vectors, text_oracle(*texts), atol=1e-5)


def without(*path: str) -> Change:
    def change(fields: dict[str, Any]) -> None:
        for name in path[:-1]:
            fields = fields[name]
        del fields[path[-1]]

    return change


def with_value(value: object, *path: str) -> Change:
    def change(fields: dict[str, Any]) -> None:
        for name in path[:-1]:
            fields = fields[name]
        fields[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (without("space"), "space is missing"),
        (without("space", "id"), "space.id is missing"),
        (with_value("768", "space", "dim"), "space.dim is '768'"),
        (with_value(True, "space", "dim"), "space.dim is True"),
        (with_value(0, "space", "dim"), "space.dim is 0"),
        (with_value(2, "format"), "format is 2"),
        (with_value([], "towers"), "towers is []"),
        (
            with_value("../image.onnx", "towers", "image", "file"),
            "towers.image.file is not the name of a file",
        ),
        (with_value("stretch", "towers", "image", "preprocess", "resize"), "towers.image.preprocess.resize"),
        (with_value([260], "towers", "image", "preprocess", "size"), "towers.image.preprocess.size is [260]"),
        (with_value([0, 9], "towers", "image", "preprocess", "size"), "towers.image.preprocess.size is not"),
        (with_value("float32", "towers", "image", "preprocess", "dtype"), "towers.image.preprocess.mean"),
        (with_value("float64", "towers", "text", "dtype"), "towers.text.dtype is 'float64'"),
        (with_value({"ids": "words"}, "towers", "text", "inputs"), "towers.text.inputs.ids is 'words'"),
    ],
)
def test_a_wrong_model_json_is_named_with_the_field(folder: Path, change: Change, field: str) -> None:
    rewrite(folder, change)
    with pytest.raises(ModelError) as caught:
        OnnxEncoder(folder)
    assert f"model.json: {field}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"text"', b"[" * 100_000])
def test_a_model_json_that_is_no_json_object_is_a_model_error(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.json"):
        OnnxEncoder(folder)


def test_a_folder_without_model_json_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"model\.json: no such file"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("name", ["image.onnx", "text.onnx", "tokenizer.json"])
@pytest.mark.parametrize("content", [None, b"", b"nothing of the kind"])
def test_a_missing_or_damaged_file_is_named_when_it_is_needed(
    folder: Path, name: str, content: bytes | None
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    encoder = OnnxEncoder(folder)
    calls: dict[str, Callable[[], Vectors]] = {"image.onnx": lambda: encoder.encode_images([photo()])}
    with pytest.raises(ModelError) as caught:
        calls.get(name, lambda: encoder.encode_texts(["dog"]))()
    assert str(folder / name) in str(caught.value)
    assert "copy" in str(caught.value).lower()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_value("images", "towers", "image", "input"), "has no input 'images'; it has pixels"),
        (with_value("embedding", "towers", "image", "output"), "has no output 'embedding'; it has vectors"),
        (with_value(5, "space", "dim"), r"gives vectors of shape (1, 4) for 1 inputs, not (1, 5)"),
        (with_value([8, 8], "towers", "image", "preprocess", "size"), "failed on its input"),
    ],
)
def test_a_tower_that_does_not_fit_its_model_json_is_a_model_error(
    folder: Path, change: Change, message: str
) -> None:
    rewrite(folder, change)
    with pytest.raises(ModelError) as caught:
        OnnxEncoder(folder).encode_images([photo()])
    assert "image.onnx" in str(caught.value)
    assert message in str(caught.value)


def test_a_missing_tower_is_a_model_error_of_that_modality_alone(folder: Path) -> None:
    rewrite(folder, without("towers", "image"))
    encoder = OnnxEncoder(folder)
    assert encoder.modalities == {Modality.TEXT}
    assert encoder.encode_texts(["dog"]).shape == (1, DIM)
    for call in (lambda: encoder.encode_images([photo()]), lambda: encoder.prepare_image(photo())):
        with pytest.raises(ModelError, match="no image tower"):
            call()
    rewrite(folder, without("towers", "text"))
    with pytest.raises(ModelError, match="no text tower"):
        OnnxEncoder(folder).encode_texts(["dog"])


@pytest.fixture
def verified(folder: Path) -> Path:
    """A folder with hashes and canonical vectors, as a builder of models leaves it."""
    encoder = OnnxEncoder(folder)
    pictures = np.stack([np.asarray(photo(seed, (30, 20))) for seed in range(3)])
    texts = np.array(["a dog", "red runs"])
    np.savez(
        folder / "canonical.npz",
        images=pictures,
        image_vectors=encoder.encode_images([PIL.Image.fromarray(p) for p in pictures]),
        texts=texts,
        text_vectors=encoder.encode_texts(list(texts)),
    )
    files = {
        name: {"sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest()}
        for name in ("image.onnx", "text.onnx", "tokenizer.json", "canonical.npz")
    }
    rewrite(folder, with_value(files, "files"))
    return folder


def test_a_whole_model_folder_has_no_problems(verified: Path) -> None:
    assert verify(verified) == []


def test_another_tower_in_the_place_of_the_first_fails_its_hash_and_its_canonical_vectors(
    verified: Path,
) -> None:
    global PIXEL_MATRIX
    kept, PIXEL_MATRIX = PIXEL_MATRIX, np.random.default_rng(9).normal(size=(3, DIM)).astype(np.float32)
    try:
        save_image_tower(verified / "image.onnx")
    finally:
        PIXEL_MATRIX = kept
    problems = verify(verified)
    assert len(problems) == 2
    assert "image.onnx: its sha256" in problems[0]
    assert "image tower: a canonical vector has cosine" in problems[1]


def test_a_lost_file_and_a_damaged_archive_are_each_a_problem(verified: Path) -> None:
    (verified / "tokenizer.json").unlink()
    (verified / "canonical.npz").write_bytes(b"no archive")
    problems = verify(verified)
    assert any("tokenizer.json: cannot be read" in problem for problem in problems)
    assert any("canonical.npz: its sha256" in problem for problem in problems)
    assert any("canonical.npz: cannot be read" in problem for problem in problems)
