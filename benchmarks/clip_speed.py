"""How fast an open_clip model runs through the pipeline: in torch, and exported, beside a plain loop over open_clip.

    python -m benchmarks.clip_speed DATA WORK       (in an environment with the extra ``clip``)

ViT-B-32 with random weights: speed does not depend on their values. The plain loop is what open_clip's README shows:
PIL opens a photo, open_clip's transform makes pixels of it, batches of 64 go through torch. Both run as processes of
their own on the same photos, in turns, in the same precision. What is compared is photos a second once all is loaded:
each run is repeated with a few photos, and the time and the photos of that are taken off, on both sides.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import measure, photos

ARCHITECTURE = "ViT-B-32"
ROUNDS = 3
PHOTOS = {"photos500": (320, 64), "photos12mp": (60, 12)}
"""How many photos of each folder are run, and how many of these in the run that is taken off."""
CAPTIONS, FEW_CAPTIONS = 1200, 200
MMSEARCH = (sys.executable, "-m", "mmsearch")

SAVE = """
import json, sys, torch
from pathlib import Path
from mmsearch.encoders.open_clip import import_open_clip
from safetensors.torch import save_file
open_clip = import_open_clip()
torch.manual_seed(0)
folder, name = Path(sys.argv[1]), sys.argv[2]
model = open_clip.create_model(name, pretrained=None)
weights = {key: value.contiguous() for key, value in model.state_dict().items()}
save_file(weights, folder / "open_clip_model.safetensors")
rules = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
rules |= {"interpolation": "bicubic", "resize_mode": "shortest"}
config = {"model_cfg": open_clip.get_model_config(name), "preprocess_cfg": rules}
(folder / "open_clip_config.json").write_text(json.dumps(config))
"""

PLAIN = """
import sys, torch
from pathlib import Path
from mmsearch.encoders.open_clip import import_open_clip
open_clip = import_open_clip()
from PIL import Image
folder, model, precision = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
model, transform = open_clip.create_model_from_pretrained(model, precision=precision)
dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
files = sorted(folder.iterdir())
vectors = []
with torch.inference_mode():
    for start in range(0, len(files), 64):
        pixels = torch.stack([transform(Image.open(file)) for file in files[start : start + 64]])
        vectors.append(model.encode_image(pixels.to(dtype), normalize=True).float())
assert torch.cat(vectors).shape[0] == len(files)
"""

TEXTS = """
import sys
from mmsearch.encoders import load_encoder
texts = open(sys.argv[2], encoding="utf-8").read().splitlines()[: int(sys.argv[3])]
assert len(load_encoder(sys.argv[1]).encode_texts(texts)) == len(texts)
"""

START = "import sys, mmsearch.cli; sys.argv = ['mmsearch', '--help']"

Run = Callable[[Path], measure.Cost]


def model_folder(work: Path) -> Path:
    """The model as a ``local-dir:``, made once."""
    folder = work / "clip" / "vit-b-32-random"
    if not folder.is_dir():
        unfinished = work / "clip" / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        subprocess.run([sys.executable, "-c", SAVE, unfinished, ARCHITECTURE], check=True)
        unfinished.rename(folder)
    return folder


def exported(model: Path, precision: str) -> tuple[Path, dict[str, Any]]:
    """The model's export in a precision, made once, and what the command told of it."""
    out = model.parent / precision
    report = model.parent / f"{precision}.json"
    if not report.is_file():
        command: list[str | Path] = [
            *MMSEARCH,
            "models",
            "export",
            model,
            "--precision",
            precision,
            "--out",
            out,
            "--json",
        ]
        report.write_text(measure.run(command).output)
    told: dict[str, Any] = json.loads(report.read_text())
    return out, told


def some(folder: Path, count: int, work: Path) -> Path:
    """A folder with links to the first photos of another."""
    made = work / "clip" / f"{folder.name}-{count}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    for path in sorted(folder.iterdir())[:count]:
        os.link(path, made / path.name)
    return made


def pipeline(model: str | Path, home: Path, *flags: str) -> Run:
    """``mmsearch index`` into an empty home."""

    def run(folder: Path) -> measure.Cost:
        shutil.rmtree(home, ignore_errors=True)
        cost = measure.run([*MMSEARCH, "index", folder, "--home", home, "--model", model, "--json", *flags])
        assert json.loads(cost.output)["added"] == len(list(folder.iterdir()))
        return cost

    return run


def plain(model: Path, precision: str) -> Run:
    return lambda folder: measure.run([sys.executable, "-c", PLAIN, folder, f"local-dir:{model}", precision])


def rates(runs: Mapping[str, Run], many: Path, few: Path) -> dict[str, Any]:
    """Photos a second (wall clock, and by processor time) of each, in turns; and the time to start."""
    count = len(list(many.iterdir())) - len(list(few.iterdir()))
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            short, long = run(few), run(many)
            wall[name].append(count / (long.wall_s - short.wall_s))
            cpu[name].append(count / (long.cpu_s - short.cpu_s))
    return {
        name: {
            "images_per_s": round(statistics.median(wall[name]), 2),
            "images_per_cpu_s": round(statistics.median(cpu[name]), 2),
            "times": {
                other: {
                    "wall": _ratio(wall[name], wall[other]),
                    "cpu": _ratio(cpu[name], cpu[other]),
                }
                for other in runs
                if other != name
            },
        }
        for name in runs
    }


def _ratio(these: list[float], those: list[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(these, those, strict=True)), 2)


def text_rates(folders: Mapping[str, Path], data: Path, work: Path) -> dict[str, Any]:
    """Captions a second of exports, started from nothing and the start taken off."""
    file = work / "clip" / "captions.txt"
    file.write_text("\n".join(photos.captions(data)), "utf-8")
    found: dict[str, list[float]] = {name: [] for name in folders}
    for _ in range(ROUNDS):
        for name, folder in folders.items():
            command: list[str | Path] = [sys.executable, "-c", TEXTS, folder, file]
            few, many = (measure.run([*command, str(count)]) for count in (FEW_CAPTIONS, CAPTIONS))
            found[name].append((CAPTIONS - FEW_CAPTIONS) / (many.wall_s - few.wall_s))
    speeds = {name: round(statistics.median(one), 1) for name, one in found.items()}
    return {"captions_per_s": speeds, "int8_times_fp32": _ratio(found["int8"], found["fp32"])}


def starting() -> dict[str, Any]:
    """Seconds of ``mmsearch --help`` and of ``import torch``, and whether the first needs the second."""
    helps = [measure.run([*MMSEARCH, "--help"]).wall_s for _ in range(7)]
    imports = [measure.run([sys.executable, "-c", "import torch"]).wall_s for _ in range(3)]
    code = f"{START}\ntry: mmsearch.cli.main()\nexcept SystemExit: pass"
    code = code.replace("mmsearch.cli.main()", "mmsearch.cli.run(['--help'])")
    told = f"{code}\nprint('torch' in sys.modules)"
    return {
        "help_s": round(statistics.median(helps), 3),
        "help_imports_torch": measure.run([sys.executable, "-c", told]).output.split()[-1] == "True",
        "import_torch_s": round(statistics.median(imports), 2),
    }


def main() -> None:
    data, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    model = model_folder(work)
    exports = {precision: exported(model, precision) for precision in ("fp32", "int8")}
    home = work / "home-clip"
    result: dict[str, Any] = {"rounds": ROUNDS, "start": starting()}
    for name, (count, few) in PHOTOS.items():
        folder = photos.folder(data, work, name)
        runs = {
            "plain": plain(model, "fp32"),
            "torch": pipeline(f"local-dir:{model}", home, "--precision", "fp32", "--device", "cpu"),
            "onnx_fp32": pipeline(exports["fp32"][0], home),
            "onnx_int8": pipeline(exports["int8"][0], home),
            "plain_bf16": plain(model, "bf16"),
            "torch_bf16": pipeline(f"local-dir:{model}", home, "--precision", "bf16", "--device", "cpu"),
        }
        result[name] = rates(runs, some(folder, count, work), some(folder, few, work))
    result["texts"] = text_rates({name: folder for name, (folder, _) in exports.items()}, data, work)
    result["exports"] = {name: told["towers"] for name, (_, told) in exports.items()}
    measure.report("clip_speed", result, work)


if __name__ == "__main__":
    main()
