"""The closest peer, rclip (https://github.com/yurijmikhalevich/rclip), set up to do the same kind of work.

    python -m benchmarks.peer DATA WORK

Its weights come from a model hub. So that the comparison needs none, the architecture it runs (ViT-B-32-256, ONNX,
float32) is exported with random weights: speed and memory do not depend on their values. Answers do, so no answer
is judged here. The environments and the exported model are kept in WORK/peer.
"""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np

from benchmarks import measure, photos

TORCH = "torch==2.13.0"
MODEL = "ViT-B-32-256-datacomp_s34b_b86k"
EXPORT = """
import sys, torch, transformers as t
torch.manual_seed(0)

class Tower(torch.nn.Module):
    def __init__(self, model, takes, gives):
        super().__init__()
        self.model, self.takes, self.gives = model.eval(), takes, gives

    def forward(self, input):
        return getattr(self.model(**{self.takes: input}), self.gives)

vision = t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(image_size=256, patch_size=32, projection_dim=512))
words = t.CLIPTextModelWithProjection(t.CLIPTextConfig(vocab_size=49408, hidden_size=512, intermediate_size=2048,
    num_hidden_layers=12, num_attention_heads=8, projection_dim=512, eos_token_id=49407))
ids = torch.randint(1, 49000, (2, 77))
ids[:, -1] = 49407
towers = {"visual": (Tower(vision, "pixel_values", "image_embeds"), torch.randn(2, 3, 256, 256)),
          "textual": (Tower(words, "input_ids", "text_embeds"), ids)}
with torch.no_grad():
    for name, (tower, example) in towers.items():
        torch.onnx.export(tower, (example,), f"{sys.argv[1]}/{name}.onnx", opset_version=18, dynamo=False,
            input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "b"}, "output": {0: "b"}})
"""


class Rclip:
    """rclip with a database of its own in ``work/peer/DATABASE``."""

    def __init__(self, work: Path, database: str = "bench-data") -> None:
        peer = work / "peer"
        self.command = environment(peer / "rclip-env", "rclip") / "rclip"
        self.model = _model(peer)
        self.data = peer / database
        self.data.mkdir(exist_ok=True)
        for shared in (MODEL, "tokenizer"):
            if not (self.data / shared).exists():
                (self.data / shared).symlink_to(peer / "rclip-data" / shared)
        self.environ = {"RCLIP_DATADIR": str(self.data)}

    def forget(self) -> None:
        """Empty the database."""
        for file in self.data.glob("db.sqlite3*"):
            file.unlink()

    def index(self, folder: Path) -> measure.Cost:
        """Index ``folder``; rclip cannot without answering a query, whose cost is to be subtracted."""
        return measure.run([self.command, "-t", "1", "a dog"], cwd=folder, env=self.environ)

    def query(self, folder: Path, text: str) -> measure.Cost:
        """A text query from a cold process, ten answers, without looking for new files."""
        return measure.run([self.command, "-n", "-t", "10", text], cwd=folder, env=self.environ)

    def fill(self, folder: Path) -> None:
        """Enter the photos of ``folder`` with random vectors: a query takes as long whatever their values."""
        self.forget()
        self.query(folder, "makes the tables")
        rng = np.random.default_rng(0)
        with sqlite3.connect(self.data / "db.sqlite3") as database:
            for file in sorted(folder.iterdir()):
                vector = rng.normal(size=512).astype(np.float32)
                vector /= np.linalg.norm(vector)
                stat = file.stat()
                database.execute(
                    "INSERT INTO images(filepath, modified_at, size, vector, hash) VALUES (?, ?, ?, ?, ?)",
                    (str(file), stat.st_mtime, stat.st_size, vector.tobytes(), rng.bytes(16).hex()),
                )

    @property
    def bytes_on_disk(self) -> int:
        return sum(file.stat().st_size for file in self.data.glob("db.sqlite3*"))


def environment(path: Path, *packages: str) -> Path:
    if not (path / "ready").exists():
        venv.create(path, with_pip=True)
        for (
            package
        ) in packages:  # one after the other: torch first, so that nothing asks for another build of it
            subprocess.run([path / "bin" / "pip", "install", "--quiet", package], check=True)
        (path / "ready").touch()
    return path / "bin"


def _model(peer: Path) -> Path:
    """Export the model and unpack the CLIP vocabulary, which open_clip's wheel carries."""
    model = peer / "rclip-data" / MODEL
    if not (model / "textual.onnx").exists():
        model.mkdir(parents=True, exist_ok=True)
        tools = environment(peer / "export-env", TORCH, "transformers", "onnx", "numpy")
        subprocess.run([tools / "python", "-c", EXPORT, model], check=True)
    vocabulary = peer / "rclip-data" / "tokenizer" / "bpe_simple_vocab_16e6.txt.gz"
    if not vocabulary.exists():
        vocabulary.parent.mkdir(exist_ok=True)
        pip: list[str | Path] = [sys.executable, "-m", "pip"]
        subprocess.run(
            [*pip, "download", "--quiet", "--no-deps", "-d", peer, "open_clip_torch==3.3.0"], check=True
        )
        with zipfile.ZipFile(io.BytesIO(next(peer.glob("open_clip_torch-*.whl")).read_bytes())) as wheel:
            vocabulary.write_bytes(wheel.read("open_clip/bpe_simple_vocab_16e6.txt.gz"))
    return model


def main() -> None:
    data, work = map(Path, sys.argv[1:])
    rclip = Rclip(work.resolve())
    for name in ("photos", "photos500", "photos12mp"):
        folder = photos.folder(data, work, name).resolve()
        rclip.forget()
        busy = measure.processor_seconds()
        indexed = rclip.index(folder)
        busy = measure.processor_seconds() - busy
        queries = [rclip.query(folder, "a dog") for _ in range(3)]
        query = min(queries, key=lambda cost: cost.wall_s)
        count = len(list(folder.iterdir()))
        result = {
            "photos": count,
            "images_per_s": round(count / (indexed.wall_s - query.wall_s), 2),
            "images_per_cpu_s": round(count / (indexed.cpu_s - query.cpu_s), 2),
            "index_rss_mb": round(indexed.rss_mb),
            "cold_query_s": round(query.wall_s, 3),
            "cold_query_cpu_s": round(query.cpu_s, 3),
            "query_rss_mb": round(query.rss_mb),
            "share_of_the_machine": round(indexed.cpu_s / busy, 2),
        }
        measure.report(f"peer-{name}", result, work)
        sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
