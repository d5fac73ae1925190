"""The model folder: ``model.json`` with its hashes, and the canonical inputs with their vectors."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.training.trunks import CONTEXT

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


def write_folder(folder: Path, name: str, size: int, nothing_below: dict[str, float]) -> None:
    """Write ``model.json`` and ``canonical.npz`` beside the finished graphs and the tokenizer."""
    write_manifest(folder, name, size, nothing_below)
    write_canonical(folder)
    write_manifest(folder, name, size, nothing_below)  # now with the hash of canonical.npz


def write_manifest(folder: Path, name: str, size: int, nothing_below: dict[str, float]) -> None:
    """Write ``model.json`` for the files that lie in `folder`; the hashes cover every file but itself and the card."""
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
        if path.suffix in (".onnx", ".npz") or path.name == "tokenizer.json"
    }
    manifest: dict[str, Any] = {
        "format": 1,
        "name": name,
        "version": "1.0",
        "description": "Photos, pictures and texts in one space; EfficientNet-lite1 and MiniLM with trained heads.",
        "licence": TERMS[name],
        "space": {"id": f"{name}-1", "dim": 768, "metric": "cosine"},
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
        "files": files,
    }
    (folder / "model.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


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
