"""The model folder: ``model.json`` with its hashes, and the canonical inputs with their vectors."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.training.export import session
from mmsearch.training.trunks import CONTEXT
from mmsearch.types import Modality, Vector

CANONICAL_TEXTS = (
    "a dog on grass",
    "two people riding bicycles on a city street",
    "a red dress",
    "snow on a mountain at sunset",
    "invoice for the dentist, March 2021",
    "children playing in the water",
    "black leather shoes",
    "a plate of food on a wooden table",
)


def canonical_pictures(side: int = 96) -> NDArray[np.uint8]:
    """Six drawn pictures (6, side, side, 3) uint8: gradient, disc, stripes, checks, sky over grass, noise."""
    y, x = np.mgrid[0:side, 0:side]
    disc = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 3) ** 2
    pictures = np.zeros((6, side, side, 3), np.uint8)
    pictures[0] = np.stack([x, y, x[::-1]], axis=2) * 255 // side
    pictures[1] = np.where(disc[..., None], (220, 30, 40), (245, 245, 240))
    pictures[2] = np.where((x // 8 % 2 == 0)[..., None], (20, 40, 120), (250, 220, 60))
    pictures[3] = np.where(((x // 12 + y // 12) % 2 == 0)[..., None], 15, 240)
    pictures[4] = np.where((y < side // 2)[..., None], (110, 170, 235), (60, 140, 50))
    pictures[5] = np.random.default_rng(5).integers(0, 256, (side, side, 3))
    return pictures


TERMS = {
    "mini": "weights partly trained on research-licensed photos, otherwise Apache-2.0: see MODEL_CARD.md",
    "mini-free": "Apache-2.0 and WordNet licence: MODEL_CARD.md",
}

VERSIONS = {"mini": "2.0", "mini-free": "1.0"}
"""A new major version is a new space."""


def write_folder(folder: Path, name: str, size: int, nothing_below: dict[str, float]) -> None:
    """Write ``model.json`` and ``canonical.npz`` beside the finished graphs and the tokenizer."""
    write_manifest(folder, name, size, nothing_below)
    write_canonical(folder)
    write_manifest(folder, name, size, nothing_below)  # now with the hash of canonical.npz


def write_manifest(folder: Path, name: str, size: int, nothing_below: dict[str, float]) -> None:
    """Write ``model.json`` for the files that lie in `folder`; the hashes cover every file but itself and the card."""
    manifest: dict[str, Any] = {
        "format": 1,
        "name": name,
        "version": VERSIONS[name],
        "description": "Photos, pictures and texts in one space; EfficientNet-lite1 and MiniLM with trained heads.",
        "licence": TERMS[name],
        "space": {"id": f"{name}-{VERSIONS[name].partition('.')[0]}", "dim": 768, "metric": "cosine"},
        "towers": {
            "image": {
                "file": "image.onnx",
                "precision": "int8",
                "input": "pixels",
                "output": "vectors",
                "batch": 8,
                "optimised": True,
                "preprocess": {
                    "size": [size, size],
                    "resize": "squash",
                    "interpolation": "bilinear",
                    "layout": "NHWC",
                    "dtype": "uint8",
                },
            },
            "text": {
                "file": "text.onnx",
                "precision": "int8",
                "tokenizer": "tokenizer.json",
                "context": CONTEXT,
                "pad_to": None,
                "dtype": "int64",
                "optimised": True,
                "inputs": {"input_ids": "ids", "attention_mask": "mask"},
                "output": "vectors",
            },
        },
        "scores": {kind: {"nothing_below": level} for kind, level in nothing_below.items()},
        "canonical": "canonical.npz",
    }
    _write(folder, manifest)


def _write(folder: Path, manifest: dict[str, Any]) -> None:
    manifest["files"] = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".npz") or path.name == "tokenizer.json"
    }
    (folder / "model.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def canonical_sounds(rate: int = 16_000) -> NDArray[np.float32]:
    """Four made sounds of one second (4, rate) float32: a tone, a rising chirp, clicks, swelling noise."""
    times = np.arange(rate) / rate
    sounds = np.zeros((4, rate))
    sounds[0] = np.sin(2 * np.pi * 440 * times)
    sounds[1] = np.sin(2 * np.pi * (200 * times + 1500 * times**2))
    sounds[2, :: rate // 8] = 1
    sounds[3] = np.random.default_rng(5).uniform(-1, 1, rate) * times
    return (sounds * 16384).astype(np.int16).astype(np.float32) / np.float32(32768)


def add_sound(
    folder: Path, means: Mapping[Modality, Vector], spreads: Mapping[Modality, Mapping[Modality, float]]
) -> None:
    """Make the ``audio.onnx`` that lies in a finished model folder a part of it, with its canonical sounds.

    `means` (modality -> (dim,) float32) becomes ``means.npz``; `spreads` are those of `mmsearch.training.centring`. The
    towers that were there stay as they are.
    """
    manifest = json.loads((folder / "model.json").read_text("utf-8"))
    manifest["towers"]["audio"] = {
        "file": "audio.onnx",
        "precision": "float16 weights",
        "input": "samples",
        "output": "vectors",
        "batch": 1,
        "sample_rate": 16_000,
        "seconds": 10.0,
        "hop_seconds": 5.0,
        "min_seconds": 1.0,
    }
    stored_means: dict[str, Any] = {str(modality): mean for modality, mean in means.items()}
    np.savez_compressed(folder / "means.npz", **stored_means)
    manifest["scores"]["means"] = "means.npz"
    manifest["scores"]["spreads"] = {
        str(asked): {str(found): round(spread, 3) for found, spread in row.items()}
        for asked, row in spreads.items()
    }
    with np.load(folder / "canonical.npz") as stored:
        arrays = dict(stored)
    sounds = canonical_sounds()
    (vectors,) = session(folder / "audio.onnx", threads=1).run(["vectors"], {"samples": sounds})
    np.savez_compressed(folder / "canonical.npz", **arrays | {"sounds": sounds, "sound_vectors": vectors})
    _write(folder, manifest)


def write_canonical(folder: Path) -> None:
    """Write ``canonical.npz`` with what the towers in `folder` give for the canonical inputs (needs a model.json)."""
    import PIL.Image

    pictures = canonical_pictures()
    encoder = OnnxEncoder(folder, threads=1)
    np.savez_compressed(
        folder / "canonical.npz",
        images=pictures,
        image_vectors=encoder.encode_images([PIL.Image.fromarray(picture) for picture in pictures]),
        texts=np.array(CANONICAL_TEXTS),
        text_vectors=encoder.encode_texts(CANONICAL_TEXTS),
    )
