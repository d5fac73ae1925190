"""Model folders of two toy spaces whose relation is known: eight concepts, seen, heard and read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import PIL.Image
from numpy.typing import NDArray
from onnx import TensorProto as T
from onnx import helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

RATE = 16_000
WORDS = ("bell", "dog", "rain", "train", "owl", "drum", "saw", "wave")
TONES = tuple(400 * (n + 1) for n in range(len(WORDS)))
"""Hz; whole numbers of cycles in 5 ms, so that they do not leak into each other."""

CORPUS = tuple(" ".join(words) for length in (1, 2, 3) for words in product(WORDS, repeat=length))

Weights = Mapping[str, float]
Floats = NDArray[np.float32]


def matrix(rows: int, columns: int, seed: int) -> Floats:
    return np.asarray(np.random.default_rng(seed).standard_normal((rows, columns)), np.float32)


class Concepts:
    """A space of ``dim`` dimensions. What is seen, heard or read has a share in each of the concepts, and its vector is
    tanh(bend * shares @ own) + gap, with a gap for each modality: the spaces are related, but by no rotation.
    """

    def __init__(self, name: str, dim: int, seed: int, bend: float, gap: float) -> None:
        self.name, self.dim, self.bend = name, dim, bend
        self.own = matrix(len(WORDS), dim, seed)
        drawn = matrix(3, dim, seed + 1)
        self.gaps = dict(zip(("image", "text", "audio"), gap * drawn / np.sqrt(dim), strict=True))

    def vectors(self, modality: str, shares: Floats) -> Floats:
        """What the tower of a modality gives for shares (n, 8), by numpy."""
        found = np.tanh(self.bend * shares @ self.own) + self.gaps[modality]
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)

    def save(self, folder: Path, towers: Sequence[str] = ("image", "text", "audio")) -> Path:
        """Write the model folder."""
        folder.mkdir(parents=True)
        described = {}
        arrays: dict[str, NDArray[np.generic]] = {}
        files = ["canonical.npz"]
        for tower in towers:
            files.append(f"{tower}.onnx")
            described[tower] = {
                "file": f"{tower}.onnx",
                "output": "vectors",
                **getattr(self, f"_{tower}")(folder),
            }
        if "text" in towers:
            files.append("tokenizer.json")
            arrays |= {"texts": np.array(["bell"]), "text_vectors": self.vectors("text", shares("bell"))}
        if "image" in towers:
            arrays |= {"images": np.asarray(picture("bell"))[None]}
            arrays["image_vectors"] = self.vectors("image", shares("bell"))
        if "audio" in towers:
            arrays |= {"sounds": sound("bell")[None], "sound_vectors": self.vectors("audio", shares("bell"))}
        np.savez(folder / "canonical.npz", allow_pickle=False, **arrays)
        manifest = {
            "format": 1,
            "name": self.name,
            "version": "1.0",
            "licence": "CC0-1.0",
            "space": {"id": f"{self.name}-1", "dim": self.dim, "metric": "cosine"},
            "towers": described,
            "canonical": "canonical.npz",
            "files": {
                name: {
                    "sha256": hashlib.sha256((folder / name).read_bytes()).hexdigest(),
                    "bytes": (folder / name).stat().st_size,
                }
                for name in files
            },
        }
        (folder / "model.json").write_text(json.dumps(manifest, indent=1))
        return folder

    def _image(self, folder: Path) -> dict[str, object]:
        nodes = [
            helper.make_node("Cast", ["pixels"], ["floats"], to=T.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["rows"], axes=[2, 3], keepdims=0),
            helper.make_node("ReduceSum", ["rows", "axis"], ["whole"], keepdims=1),
            helper.make_node("Div", ["rows", "whole"], ["shares"]),
        ]
        given = helper.make_tensor_value_info("pixels", T.UINT8, ["n", 8, 8, 3])
        self._write(folder / "image.onnx", nodes, [given], "image", {})
        rules = {"size": [8, 8], "resize": "squash", "interpolation": "bilinear", "layout": "NHWC"}
        return {"input": "pixels", "preprocess": rules | {"dtype": "uint8"}}

    def _text(self, folder: Path) -> dict[str, object]:
        nodes = [
            helper.make_node("Gather", ["words", "ids"], ["rows"]),
            helper.make_node("Cast", ["mask"], ["kept"], to=T.FLOAT),
            helper.make_node("Unsqueeze", ["kept", "last"], ["weights"]),
            helper.make_node("Mul", ["rows", "weights"], ["weighted"]),
            helper.make_node("ReduceSum", ["weighted", "axis"], ["sums"], keepdims=0),
            helper.make_node("ReduceSum", ["sums", "axis"], ["whole"], keepdims=1),
            helper.make_node("Div", ["sums", "whole"], ["shares"]),
        ]
        given = [helper.make_tensor_value_info(name, T.INT64, ["n", "length"]) for name in ("ids", "mask")]
        rows = np.concatenate([np.full((1, len(WORDS)), 1e-3), np.eye(len(WORDS))]).astype(np.float32)
        self._write(folder / "text.onnx", nodes, given, "text", {"words": rows, "last": np.array([2])})
        tokenizer = Tokenizer(
            WordLevel({word: n for n, word in enumerate(("[UNK]", *WORDS))}, unk_token="[UNK]")
        )
        tokenizer.pre_tokenizer = Whitespace()
        tokenizer.save(str(folder / "tokenizer.json"))
        rules = {"tokenizer": "tokenizer.json", "context": 16, "pad_to": None, "dtype": "int64"}
        return rules | {"inputs": {"ids": "ids", "mask": "mask"}}

    def _audio(self, folder: Path) -> dict[str, object]:
        times = np.arange(RATE // 200) / RATE
        bank = [wave(2 * np.pi * hertz * times) for wave in (np.sin, np.cos) for hertz in TONES]
        nodes = [
            helper.make_node("Unsqueeze", ["samples", "axis"], ["mono"]),
            helper.make_node("Conv", ["mono", "bank"], ["filtered"], strides=[len(times)]),
            helper.make_node("Mul", ["filtered", "filtered"], ["power"]),
            helper.make_node("ReduceMean", ["power"], ["both"], axes=[2], keepdims=0),
            helper.make_node("MatMul", ["both", "pairs"], ["tones"]),
            helper.make_node("ReduceSum", ["tones", "axis"], ["whole"], keepdims=1),
            helper.make_node("Div", ["tones", "whole"], ["shares"]),
        ]
        given = helper.make_tensor_value_info("samples", T.FLOAT, ["n", "s"])
        constants = {
            "bank": np.array(bank, np.float32)[:, None],
            "pairs": np.tile(np.eye(len(TONES), dtype=np.float32), (2, 1)),
        }
        self._write(folder / "audio.onnx", nodes, [given], "audio", constants)
        window = {"sample_rate": RATE, "seconds": 2.0, "hop_seconds": 1.0, "min_seconds": 0.1}
        return {"input": "samples", "batch": 1, **window}

    def _write(
        self,
        path: Path,
        nodes: list[onnx.NodeProto],
        inputs: list[onnx.ValueInfoProto],
        tower: str,
        constants: Mapping[str, NDArray[np.generic]],
    ) -> None:
        nodes = [
            *nodes,
            helper.make_node("MatMul", ["shares", "own"], ["product"]),
            helper.make_node("Tanh", ["product"], ["bent"]),
            helper.make_node("Add", ["bent", "gap"], ["vectors"]),
        ]
        every = {
            "own": self.bend * self.own,
            "gap": self.gaps[tower].astype(np.float32),
            "axis": np.array([1]),
            **constants,
        }
        initial = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in every.items()]
        output = helper.make_tensor_value_info("vectors", T.FLOAT, ["n", self.dim])
        graph = helper.make_graph(nodes, "tower", inputs, [output], initial)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, str(path))


def shares(text: str) -> Floats:
    """(1, 8): the share of each concept in a text."""
    words = text.split()
    return np.array([[words.count(word) / len(words) for word in WORDS]], np.float32)


def sound(text: str, seconds: float = 1.0) -> Floats:
    """A recording with these shares: the power of each tone."""
    times = np.arange(round(seconds * RATE)) / RATE
    waves = [
        np.sqrt(share) * np.sin(2 * np.pi * hertz * times)
        for share, hertz in zip(shares(text)[0], TONES, strict=True)
    ]
    return np.asarray(0.3 * np.sum(waves, axis=0), np.float32)


def picture(text: str) -> PIL.Image.Image:
    """8 x 8 pixels with these shares: the brightness of each row."""
    rows = np.round(240 * shares(text)[0]).astype(np.uint8)
    return PIL.Image.fromarray(np.repeat(rows, 8 * 3).reshape(8, 8, 3))
