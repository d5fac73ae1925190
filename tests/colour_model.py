"""The toy encoder as a model folder, for tests that run mmsearch as a program of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace

from tests.toy import COLOURS, RATE, TONES, tone

SIZE = 8
LEVELS = {"image": 0.9, "text": 0.9}


def save_colour_model(
    folder: Path,
    *,
    space: str = "colours-1",
    audio: bool = True,
    means: Mapping[str, Sequence[float]] | None = None,
    spreads: Mapping[str, Mapping[str, float]] | None = None,
    turn: NDArray[np.float32] | None = None,
    half: bool = False,
    seconds: float = 2.0,
) -> Path:
    """A model folder: a picture is (r, g, b, 0.25) of its mean colour, a text the sum of those of its colour words.

    A text without a colour word is (0, 0, 0, 1), the direction of black. A sound is the shares of the three tones in
    it. ``audio`` false leaves that tower out; ``means`` and ``spreads`` are stored as those of the modalities. ``turn``
    (4, dim) is what all vectors are multiplied by at last, in half precision if ``half``; ``seconds`` is the window of
    sounds.
    """
    turn = np.eye(4, dtype=np.float32) if turn is None else turn
    last = Last(turn, half, half or turn.shape != (4, 4) or not np.array_equal(turn, np.eye(4)))
    folder.mkdir(parents=True, exist_ok=True)
    matrix = np.eye(3, 4, dtype=np.float32) / 255
    bias = np.array([0, 0, 0, 0.25], np.float32)
    _save(
        folder / "image.onnx",
        last,
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
        last,
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
    if audio:
        _save_audio(folder / "audio.onnx", last, bias)
    red = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    red[..., 0] = 255
    vector = np.array([[1, 0, 0, 0.25]], np.float32) @ turn
    vector /= np.linalg.norm(vector)
    np.savez(
        folder / "canonical.npz",
        images=red,
        image_vectors=vector,
        texts=np.array(["red"]),
        text_vectors=vector,
        sounds=tone("red")[np.newaxis],
        sound_vectors=vector,
    )
    if means is not None:
        np.savez(
            folder / "means.npz",
            allow_pickle=False,
            **{name: np.array(mean, np.float32) for name, mean in means.items()},
        )
    manifest = _manifest(
        folder, space, turn.shape[1], audio=audio, means=means is not None, spreads=spreads, seconds=seconds
    )
    (folder / "model.json").write_text(json.dumps(manifest, indent=1))
    return folder


class Last(NamedTuple):
    """What every tower does at last."""

    turn: NDArray[np.float32]
    half: bool
    needed: bool


def _save_audio(path: Path, last: Last, bias: NDArray[np.float32]) -> None:
    """The power of each tone, from a bank of sines and cosines of 5 ms, over the sum of the powers."""
    times = np.arange(RATE // 200) / RATE
    waves = [wave(2 * np.pi * hertz * times) for wave in (np.sin, np.cos) for hertz in TONES.values()]
    _save(
        path,
        last,
        [
            helper.make_node("Unsqueeze", ["samples", "channel"], ["mono"]),
            helper.make_node("Conv", ["mono", "bank"], ["filtered"], strides=[len(times)]),
            helper.make_node("Mul", ["filtered", "filtered"], ["power"]),
            helper.make_node("ReduceMean", ["power"], ["six"], axes=[2], keepdims=0),
            helper.make_node("MatMul", ["six", "pairs"], ["three"]),
            helper.make_node("ReduceSum", ["three", "channel"], ["whole"], keepdims=1),
            helper.make_node("Div", ["three", "whole"], ["shares"]),
            helper.make_node("MatMul", ["shares", "matrix"], ["rgb"]),
            helper.make_node("Add", ["rgb", "bias"], ["vectors"]),
        ],
        [helper.make_tensor_value_info("samples", T.FLOAT, ["n", "s"])],
        {
            "channel": np.array([1]),
            "bank": np.array(waves, np.float32)[:, np.newaxis],
            "pairs": np.tile(np.eye(3, dtype=np.float32), (2, 1)),
            "matrix": np.eye(3, 4, dtype=np.float32),
            "bias": bias,
        },
    )


def _manifest(
    folder: Path, space: str, dim: int, *, audio: bool, means: bool, spreads: object, seconds: float
) -> dict[str, object]:
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
    text |= {"dtype": "int64", "inputs": inputs, "output": "vectors"}
    towers: dict[str, object] = {"image": image, "text": text}
    files = ["image.onnx", "text.onnx", "tokenizer.json", "canonical.npz"]
    scores: dict[str, object] = {name: {"nothing_below": level} for name, level in LEVELS.items()}
    if audio:
        window = {"sample_rate": RATE, "seconds": seconds, "hop_seconds": seconds / 2, "min_seconds": 0.1}
        towers["audio"] = {
            "file": "audio.onnx",
            "precision": "fp32",
            "input": "samples",
            "output": "vectors",
            "batch": 1,
            **window,
        }
        files.append("audio.onnx")
    if means:
        scores["means"] = "means.npz"
        files.append("means.npz")
    if spreads is not None:
        scores["spreads"] = spreads
    return {
        "format": 1,
        "name": "colours",
        "version": "1.0",
        "description": "colours and their names",
        "licence": "CC0-1.0",
        "space": {"id": space, "dim": dim, "metric": "cosine"},
        "towers": towers,
        "scores": scores,
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
    last: Last,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    constants: dict[str, np.ndarray],
) -> None:
    """A graph whose last node gives ``vectors``, which are turned if there is anything to turn."""
    kind, turn = (T.FLOAT16, last.turn.astype(np.float16)) if last.half else (T.FLOAT, last.turn)
    if last.needed:
        nodes[-1].output[0] = "plain"
        nodes += [
            helper.make_node("Cast", ["plain"], ["cast"], to=kind),
            helper.make_node("MatMul", ["cast", "turn"], ["turned"]),
            helper.make_node("Cast", ["turned"], ["vectors"], to=T.FLOAT),
        ]
        constants = {**constants, "turn": turn}
    output = helper.make_tensor_value_info("vectors", T.FLOAT, ["n", turn.shape[1]])
    initial = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "tower", inputs, [output], initial)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
