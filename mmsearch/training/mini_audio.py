"""The recipe of the sound tower of `mini`: ``python -m mmsearch.training.mini_audio --model FOLDER ...``.

Adds `audio.onnx`, `means.npz` and the canonical sounds to a finished model folder and prints the evaluation as JSON.
Seeded from end to end. See docs/models.md for the packages that it reads.
"""

import argparse
import csv
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.media import load_image
from mmsearch.training.audio_tower import CLASSES, RATE, AudioTower, Readout, Trunk
from mmsearch.training.centring import means_of, spreads_of
from mmsearch.training.distil import distil, new_trunk, polish, stream, take
from mmsearch.training.evaluate_audio import evaluate_sounds
from mmsearch.training.evaluate_mini import encode_pictures
from mmsearch.training.export import export_graph, session, store_half
from mmsearch.training.features import Floats
from mmsearch.training.package import add_sound
from mmsearch.training.pairs import read_flickr
from mmsearch.training.sounds import Bank, Samples, collect
from mmsearch.training.teacher import Teacher
from mmsearch.types import Modality

STOCK, FIT = 64, 700  # batches of patches that the blocks are fitted on, steps of each block
POLISH_STOCK, POLISH = 896, 3000
CLIPS, CLIP_SECONDS = 1500, 3  # single recordings: an average sound, and what the read-out learns from
RIDGE = 200.0
SILENCE = "Silence"
PRIOR = 0.4  # how much a class that is heard everywhere loses

AMONG_SOUNDS = 0.5
"""The spread among sounds: what 1 of 10 pairs of the 82 everyday recordings exceeds. Taken like the others it would be
.7 to 1, because many recordings are of one kind, and a recording would find photos before itself.
"""

log = logging.getLogger("mmsearch.training")


def class_names(teacher: Path) -> list[str]:
    """The 521 names, from the class map beside the teacher's file."""
    with (teacher.parent / "yamnet_class_map.csv").open(encoding="utf-8") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


def trained_trunk(teacher: Path, bank: Bank, names: Sequence[str], words: Tensor, seed: int = 0) -> Trunk:
    """`words` (521, dim): what `names` of the teacher's classes mean in the space that will be read out into."""
    judge = Teacher(teacher).eval()
    lessons = stream(bank, judge, seed)
    trunk = new_trunk(lessons, seed)
    distil(trunk, take(lessons, STOCK), FIT)
    stock, scores = [], []
    for patches, _, logits in islice(lessons, POLISH_STOCK):
        stock.append(patches.clone())
        scores.append(torch.sigmoid(logits))
    polish(trunk, judge, fitted(torch.cat(scores), names, words).said, stock, POLISH, seed)
    trunk.eval()
    return trunk


def listen(trunk: Trunk, teacher: Path, bank: Bank) -> dict[str, Floats]:
    """What trunk and teacher hear in single recordings: E features, S scores, T the teacher's scores."""
    words = torch.zeros(CLASSES, 2)
    tower = AudioTower(trunk, Readout(words, words[:, 0], words[0])).eval()
    judge, random = Teacher(teacher).eval(), np.random.default_rng(11)
    heard: dict[str, list[Floats]] = {"E": [], "S": [], "T": []}
    with torch.no_grad():
        for _ in range(CLIPS):
            level = np.float32(10 ** -abs(random.normal(0, 0.4)))
            samples = torch.from_numpy(bank.draw(random, CLIP_SECONDS * RATE) * level)[None]
            scores, features = tower.hear(samples)
            patches, weights = tower.patches(samples)
            wanted = torch.sigmoid(judge(patches[0][:, None])[1]) * weights[0][:, None]
            for name, rows in zip("EST", (features, scores, wanted.sum(0, keepdim=True)), strict=True):
                heard[name].append(rows.numpy())
    return {name: np.concatenate(rows) for name, rows in heard.items()}


def meanings(names: Sequence[str], encoder: OnnxEncoder) -> Tensor:
    """What the names mean as words and as sounds, (n, dim), unit rows."""
    plain = encoder.encode_texts([name.lower() for name in names])
    spoken = encoder.encode_texts([f"the sound of {name.lower()}" for name in names])
    return torch.nn.functional.normalize(torch.from_numpy(plain + spoken), dim=1)


def fitted(scores: Tensor, names: Sequence[str], words: Tensor) -> Readout:
    """The read-out of scores (n, 521) like these."""
    found = Readout(words, (scores.mean(0) + 1e-3) ** -PRIOR, torch.zeros(words.shape[1]))
    found.gains[names.index(SILENCE)] = 0
    found.background.copy_(found.raw(scores).mean(0))
    return found


def readout(heard: Mapping[str, Floats], names: Sequence[str], words: Tensor) -> Readout:
    """The read-out of scores, and the ridge regression of the teacher's read-out on the trunk's features."""
    features, scores, judged = (torch.from_numpy(heard[name]) for name in "EST")
    head, wanted = fitted(scores, names, words), fitted(judged, names, words).said(judged)
    mean, deviation = features.mean(0), features.std(0)
    deviation = deviation + 1e-3 * deviation.mean()
    rows = (features - mean) / deviation
    weights = torch.linalg.solve(rows.T @ rows + RIDGE * torch.eye(rows.shape[1]), rows.T @ wanted)
    with torch.no_grad():
        head.map.weight.copy_((weights / deviation[:, None]).T)
        head.map.bias.copy_(-(mean / deviation) @ weights)
    return head


def encode(graph: Path, clips: Sequence[Samples]) -> Floats:
    """What the finished tower gives, (n, 768)."""
    tower = session(graph)
    return np.concatenate([tower.run(None, {"samples": clip[None]})[0] for clip in clips])


def background(encoder: OnnxEncoder, data: Path, heard: Floats, every: int = 12) -> dict[Modality, Floats]:
    """Vectors of each modality from which means and spreads are taken: training photos, a caption of each, clips."""
    pairs = read_flickr(data, "train")[::every]
    return {
        Modality.IMAGE: encode_pictures(encoder, pairs),
        Modality.TEXT: encoder.encode_texts([pair.texts[0] for pair in pairs]),
        Modality.AUDIO: heard,
    }


def build(model: Path, data: Path, packages: Path, cache: Path) -> dict[str, Any]:
    """Add the sound tower to `model` and return its evaluation.

    `data` has yamnet/, sounds/ and flickr8k/; `packages` the unpacked Debian packages by name; `cache` keeps the
    decoded recordings and the trained trunk.
    """
    teacher = data / "yamnet" / "yamnet.tflite"
    bank = collect(packages, data / "sounds", cache)
    log.info("%d recordings, %.0f minutes", len(bank), bank.minutes)
    encoder, names = OnnxEncoder(model), class_names(teacher)
    words = meanings(names, encoder)
    stored = cache / f"trunk-{FIT}-{POLISH}.pt"
    if not stored.exists():
        torch.save(trained_trunk(teacher, bank, names, words), stored)
    trunk = torch.load(stored, weights_only=False)
    kept = cache / f"heard-{CLIPS}.npz"
    if not kept.exists():
        arrays: dict[str, Any] = dict(listen(trunk, teacher, bank))
        np.savez(kept, **arrays)
    heard = dict(np.load(kept))
    head = readout(heard, names, words)
    target = model / "audio.onnx"
    tower = AudioTower(trunk, head).eval()
    export_graph(tower, (torch.rand(1, 2 * RATE),), ["samples"], "vectors", {0: "n", 1: "s"}, target)
    store_half(target)
    with torch.no_grad():
        vectors = head(torch.from_numpy(heard["S"]), torch.from_numpy(heard["E"])).numpy()
    found = background(encoder, data, vectors)
    means = means_of(found)
    spreads = spreads_of(found, means)
    spreads[Modality.AUDIO][Modality.AUDIO] = AMONG_SOUNDS
    add_sound(model, means, spreads)
    return evaluate_sounds(
        packages,
        lambda clips: encode(target, clips),
        encoder.encode_texts,
        lambda paths: encoder.encode_images([load_image(path) for path in paths]),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Add the sound tower to a model folder, print its evaluation as JSON."
    )
    parser.add_argument("--model", type=Path, required=True, help="finished model folder; it gains the tower")
    parser.add_argument("--data", type=Path, required=True, help="folder with yamnet/, sounds/ and flickr8k/")
    parser.add_argument(
        "--packages", type=Path, required=True, help="folder of unpacked Debian packages, by name"
    )
    parser.add_argument(
        "--cache", type=Path, required=True, help="keeps the decoded recordings (1.3 GB) and the trunk"
    )
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    figures = build(given.model, given.data, given.packages, given.cache)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
