"""The toy encoder as a model folder, for tests that run mmsearch as a program of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from tests.toy import COLOURS

SIZE = 8
LEVELS = {"image": 0.9, "text": 0.9}


def save_colour_model(folder: Path, *, space: str = "colours-1") -> Path:
    """A model folder: a picture is (r, g, b, 0.25) of its mean colour, a text the sum of those of its colour words.

    A text without a colour word is (0, 0, 0, 1), the direction of black.
    """
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.eye(3, 4, dtype=np.float32) / 255
    bias = np.array([0, 0, 0, 0.25], np.float32)
    _save(
        folder / "image.onnx",
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=T.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["colour"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["colour", "matrix"], ["rgb"]),
            helper.make_node("Add", ["rgb", "bias"], ["vectors"]),
        ],
        [helper.make_tensor_value_info("pixels", T.UINT8, ["n", SIZE, SIZE, 3])],
        {"matrix": matrix, "bias": bias},
    )
    words = ["[UNK]", *COLOURS]
    rows = [[0, 0, 0, 1e-3], *([*(np.array(rgb) / 255), 0.25] for rgb in COLOURS.values())]
    _save(
        folder / "text.onnx",
        [
            helper.make_node("Gather", ["words", "ids"], ["embedded"]),
            helper.make_node("Cast", ["mask"], ["kept"], to=T.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "last"], ["weights"]),
            helper.make_node("Mul", ["embedded", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "tokens"], ["vectors"], keepdims=0),
        ],
        [helper.make_tensor_value_info(name, T.INT64, ["n", "length"]) for name in ("ids", "mask")],
        {"words": np.array(rows, np.float32), "last": np.array([2]), "tokens": np.array([1])},
    )
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    red = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    red[..., 0] = 255
    vector = np.array([[1, 0, 0, 0.25]], np.float32) / np.sqrt(np.float32(1.0625))
    np.savez(
        folder / "canonical.npz",
        images=red,
        image_vectors=vector,
        texts=np.array(["red"]),
        text_vectors=vector,
    )
    (folder / "model.json").write_text(json.dumps(_manifest(folder, space), indent=1))
    return folder


def _manifest(folder: Path, space: str) -> dict[str, object]:
    rules = {
        "size": [SIZE, SIZE],
        "resize": "squash",
        "interpolation": "bilinear",
        "layout": "NHWC",
        "dtype": "uint8",
    }
    image = {
        "file": "image.onnx",
        "precision": "fp32",
        "input": "pixels",
        "output": "vectors",
        "preprocess": rules,
    }
    inputs = {"ids": "ids", "mask": "mask"}
    text = {
        "file": "text.onnx",
        "precision": "fp32",
        "tokenizer": "tokenizer.json",
        "context": 64,
        "pad_to": None,
    }
    files = ["image.onnx", "text.onnx", "tokenizer.json", "canonical.npz"]
    return {
        "format": 1,
        "name": "colours",
        "version": "1.0",
        "description": "colours and their names",
        "licence": "CC0-1.0",
        "space": {"id": space, "dim": 4, "metric": "cosine"},
        "towers": {"image": image, "text": text | {"dtype": "int64", "inputs": inputs, "output": "vectors"}},
        "scores": {name: {"nothing_below": level} for name, level in LEVELS.items()},
        "canonical": "canonical.npz",
        "files": {
            name: {
                "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                "bytes": (folder / name).stat().st_size,
            }
            for name in files
        },
    }


def _save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> None:
    """A graph whose last node gives ``vectors``."""
    output = helper.make_tensor_value_info("vectors", T.FLOAT, ["n", 4])
    initial = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tower", inputs, [output], initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
