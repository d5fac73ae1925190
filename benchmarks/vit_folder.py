"""rclip's own model as a mmsearch model folder: the same ONNX files, our pipeline against rclip's.

    python -m benchmarks.vit_folder DATA WORK

The weights are random (see ``benchmarks.peer``), so this compares speed and memory only.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
import sys
from pathlib import Path

import numpy as np

from benchmarks import measure, photos
from benchmarks.index_speed import MMSEARCH
from benchmarks.peer import Rclip
from mmsearch.training.clip_tokenizer import clip_tokenizer

ROUNDS = 1
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def model_folder(rclip: Rclip, work: Path) -> Path:
    """rclip's model as a model folder; its space is made up for this benchmark."""
    folder = work / "vit-b-32-256-random"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, file in (("image.onnx", "visual.onnx"), ("text.onnx", "textual.onnx")):
        (folder / name).symlink_to((rclip.model / file).resolve())
    vocabulary = rclip.model.parent / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
    clip_tokenizer(vocabulary).save(str(folder / "tokenizer.json"))
    picture = np.zeros((1, 256, 256, 3), np.uint8)
    nothing = np.zeros((1, 512), np.float32)
    np.savez(
        folder / "canonical.npz", images=picture, image_vectors=nothing, texts=["a dog"], text_vectors=nothing
    )
    files = {}
    for name in ("image.onnx", "text.onnx", "tokenizer.json", "canonical.npz"):
        content = (folder / name).read_bytes()
        files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    model = {
        "format": 1,
        "name": "vit-b-32-256-random",
        "version": "1",
        "description": "ViT-B-32-256 with random weights",
        "licence": "none: random weights",
        "space": {"id": "vit-b-32-256-random", "dim": 512, "metric": "cosine"},
        "towers": {
            "image": {
                "file": "image.onnx",
                "precision": "float32",
                "input": "input",
                "output": "output",
                "batch": 8,
                "preprocess": {
                    "size": [256, 256],
                    "resize": "crop",
                    "interpolation": "bicubic",
                    "layout": "NCHW",
                    "dtype": "float32",
                    "mean": [255 * value for value in MEAN],
                    "std": [255 * value for value in STD],
                },
            },
            "text": {
                "file": "text.onnx",
                "precision": "float32",
                "tokenizer": "tokenizer.json",
                "clean": "lower",
                "context": 77,
                "pad_to": 77,
                "dtype": "int64",
                "inputs": {"input": "ids"},
                "output": "output",
            },
        },
        "canonical": "canonical.npz",
        "files": files,
    }
    (folder / "model.json").write_text(json.dumps(model, indent=1))
    return folder


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    folder = photos.folder(data, work, "photos500")
    rclip = Rclip(work)
    model = model_folder(rclip, work)
    rclip.forget()
    asked = min((rclip.query(folder, "a dog") for _ in range(3)), key=lambda cost: cost.wall_s)
    count = len(list(folder.iterdir()))
    ours, theirs = [], []
    for _ in range(ROUNDS):
        home = work / "home-vit"
        shutil.rmtree(home, ignore_errors=True)
        ours.append(measure.run([*MMSEARCH, "index", folder, "--home", home, "--model", model, "--json"]))
        assert json.loads(ours[-1].output)["added"] == count
        rclip.forget()
        theirs.append(rclip.index(folder))
    speeds = [
        (count / a.wall_s, count / (b.wall_s - asked.wall_s)) for a, b in zip(ours, theirs, strict=True)
    ]
    result = {
        "photos": count,
        "images_per_s": round(statistics.median(a for a, _ in speeds), 2),
        "rclip_images_per_s": round(statistics.median(b for _, b in speeds), 2),
        "times_rclip": round(statistics.median(a / b for a, b in speeds), 2),
        "times_rclip_by_cpu": round(
            statistics.median((b.cpu_s - asked.cpu_s) / a.cpu_s for a, b in zip(ours, theirs, strict=True)), 2
        ),
        "rss_mb": round(max(cost.rss_mb for cost in ours)),
        "rclip_rss_mb": round(max(cost.rss_mb for cost in theirs)),
    }
    measure.report("vit_folder", result, work)


if __name__ == "__main__":
    main()
