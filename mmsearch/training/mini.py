"""The recipe of the built-in model: ``python -m mmsearch.training.mini --data FOLDER --out FOLDER [--free]``.

Seeded from end to end. Writes a complete model folder but for the card, and prints its evaluation as JSON.
"""

import argparse
import copy
import hashlib
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.training.classes import class_texts, class_vectors, read_nouns
from mmsearch.training.cutouts import cutouts
from mmsearch.training.evaluate_mini import evaluate
from mmsearch.training.export import (
    chain,
    export_graph,
    optimise,
    quantise_convolutions,
    quantise_products,
    store_half,
)
from mmsearch.training.features import Floats, cached, image_features, load_picture, text_features
from mmsearch.training.heads import Head, ImageHead
from mmsearch.training.loop import Examples, train
from mmsearch.training.package import write_folder
from mmsearch.training.pairs import Pair, read_fashion, read_flickr, read_sample
from mmsearch.training.towers import ImageReadout, TextTower
from mmsearch.training.trunks import IMAGE_FEATURES, ImageTrunk, TextTrunk, load_tokenizer, tokenize
from mmsearch.training.tuning import Words, render, tune

SIZE = 224
CALIBRATION = 96  # pictures that set the ranges of the int8 graph
CROPS = 2  # random renderings of each training photo, besides the plain one
EPOCHS = 30
SHARES = (1.0, 0.5, 0.3)  # of the photos, the products and the cutouts in each epoch
HELD = 800  # of the training photos, the last: the trunks are never tuned on them, and what was chosen was chosen there
TUNING_EPOCHS = 6
SEEDS = (0, 1)
WORDNET = Path("/usr/share/wordnet")

log = logging.getLogger("mmsearch.training")


class Build:
    """One run of the recipe: the quantised trunks, their features, the heads, the folder."""

    def __init__(self, work: Path, wordnet: Path, cache: Path | None) -> None:
        self.work, self.cache = work, cache
        self.tokenizer = load_tokenizer()
        self.image_trunk, self.text_trunk = ImageTrunk(SIZE), TextTrunk()
        self.image_graph, self.text_graph = work / "image_trunk.onnx", work / "text_trunk.onnx"
        self.classes = class_texts(read_nouns(wordnet))

    def quantise(self, calibration: Sequence[Path]) -> None:
        """Both trunks as int8 graphs; heads are trained on what these give, so they learn to live with int8."""
        plain = self.work / "image_plain.onnx"
        export_graph(
            self.image_trunk,
            (torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),),
            ["pixels"],
            "features",
            {0: "n"},
            plain,
        )
        quantise_convolutions(plain, self.image_graph, (load_picture(path, SIZE) for path in calibration))
        self.export_text(None, self.text_graph)

    def export_text(self, head: Head | None, target: Path) -> None:
        """The text tower as an optimised int8 graph; without a head, the trunk alone."""
        plain, products = self.work / "text_plain.onnx", self.work / "text_int8.onnx"
        ids = torch.ones(2, 7, dtype=torch.int64)
        tower = TextTower(self.text_trunk, head)
        export_graph(
            tower, (ids, ids), ["input_ids", "attention_mask"], "vectors", {0: "n", 1: "length"}, plain
        )
        quantise_products(plain, products)
        optimise(products, target)

    def export_image(self, head: Head, target: Path) -> None:
        """The image tower: the quantised trunk with the head behind it."""
        readout, whole = self.work / "readout.onnx", self.work / "image_whole.onnx"
        export_graph(
            ImageReadout(head), (torch.rand(2, IMAGE_FEATURES),), ["features"], "vectors", {0: "n"}, readout
        )
        chain(self.image_graph, readout, whole)
        optimise(whole, target)
        store_half(target)

    def pictures(self, pairs: Sequence[Pair], seed: int | None = None) -> Floats:
        paths = [pair.picture for pair in pairs]
        key = ("pictures", self.image_graph.read_bytes(), [path.name for path in paths], SIZE, seed)
        return cached(self.cache, key, lambda: image_features(self.image_graph, paths, SIZE, seed))

    def texts(self, texts: Sequence[str]) -> Floats:
        key = ("texts", self.text_graph.read_bytes(), texts)
        return cached(self.cache, key, lambda: text_features(self.text_graph, self.tokenizer, texts))

    def examples(self, *domains: Sequence[Pair]) -> Examples:
        """Photos in several crops, products and cutouts as they are (white borders carry nothing to crop)."""
        photos = domains[0]
        plain = np.concatenate([self.pictures(pairs) for pairs in domains])
        views = [plain]
        for seed in range(1, CROPS + 1):
            views.append(np.concatenate([self.pictures(photos, seed), plain[len(photos) :]]))
        pairs = [pair for pairs in domains for pair in pairs]
        texts = sorted({text for pair in pairs for text in pair.texts})
        row = {text: i for i, text in enumerate(texts)}
        owned = torch.full((len(pairs), max(len(pair.texts) for pair in pairs)), -1)
        for i, pair in enumerate(pairs):
            rows = sorted({row[text] for text in pair.texts})
            owned[i, : len(rows)] = torch.tensor(rows)
        return Examples(
            torch.from_numpy(np.stack(views)),
            torch.from_numpy(self.texts(texts)),
            owned,
            torch.arange(len(domains)).repeat_interleave(torch.tensor([len(pairs) for pairs in domains])),
            SHARES,
        )

    def trained_head(self, photos: Sequence[Pair], products: Sequence[Pair], colours: Sequence[Pair]) -> Head:
        """The mean of a few training runs that start alike and see the pairs in another order."""
        examples = self.examples(photos, products, colours)
        log.info("features of %d pictures and %d texts", len(examples.owned), len(examples.texts))
        start = self.new_head(examples.views.flatten(0, 1), 0)
        # One process a seed, one thread each: small matrices gain little from more threads, and a seed is only a seed
        # if nothing else draws from the same generator.
        with ProcessPoolExecutor(len(SEEDS), get_context("spawn")) as pool:
            runs = [pool.submit(_train, start, examples, seed) for seed in SEEDS]
            return average([run.result() for run in runs])

    def tune(self, photos: Sequence[Pair], products: Sequence[Pair], colours: Sequence[Pair]) -> None:
        """Tune both trunks on photos with captions, from a head that is trained on their features."""
        folder = self.cache or self.work
        told = repr([(pair.picture.name, pair.texts) for pair in photos])
        key = hashlib.sha256(told.encode()).hexdigest()[:20]  # other photos are tuned on anew
        kept = folder / f"tuned-{key}.pt"
        if not kept.exists():
            head = self.trained_head(photos, products, colours)
            renderings = render([pair.picture for pair in photos], SIZE, folder / f"renderings-{key}")
            texts = sorted({text for pair in photos for text in pair.texts})
            row = {text: i for i, text in enumerate(texts)}
            tuned = tune(
                self.image_trunk,
                self.text_trunk,
                head,
                renderings,
                Words(self.tokenizer, texts),
                torch.tensor([[row[text] for text in pair.texts] for pair in photos]),
                Words(self.tokenizer, [text for texts in self.classes for text in texts], longest=32),
                epochs=TUNING_EPOCHS,
            )
            torch.save(tuned, kept)
        self.image_trunk, self.text_trunk = torch.load(kept, weights_only=False)

    def fidelity(self, head: Head, folder: Path, photos: Sequence[Pair]) -> dict[str, Any]:
        """Mean and least cosine of the shipped int8 towers to the float towers with the same heads."""
        pictures = [pair.picture for pair in photos]
        captions = [pair.texts[0] for pair in photos]
        plain = torch.from_numpy(image_features(self.work / "image_plain.onnx", pictures, SIZE))
        ids, mask = tokenize(self.tokenizer, captions)
        with torch.no_grad():
            images, texts = head.image_vectors(plain), head.text_vectors(self.text_trunk(ids, mask))
        shipped_images = image_features(folder / "image.onnx", pictures, SIZE)
        shipped_texts = text_features(folder / "text.onnx", self.tokenizer, captions)
        return {
            "int8_image_cosine": _agreement(images.numpy(), shipped_images),
            "int8_text_cosine": _agreement(texts.numpy(), shipped_texts),
        }

    def untrained_head(self) -> Head:
        """A head whose learned half is ConSE for a picture and MiniLM for a text: what class texts alone give."""
        head = self.new_head(torch.zeros(2, IMAGE_FEATURES), 0)
        torch.nn.init.zeros_(head.image.linear.weight)
        head.eval()
        return head

    def new_head(self, features: torch.Tensor, seed: int) -> Head:
        torch.manual_seed(seed)
        vectors = class_vectors(self.texts, self.classes)
        return Head(ImageHead(features), self.image_trunk.classifier(), vectors)


def _agreement(plain: Floats, shipped: Floats) -> dict[str, float]:
    cosines = (plain * shipped).sum(1)
    return {"mean": round(float(cosines.mean()), 4), "least": round(float(cosines.min()), 4)}


def _train(head: Head, examples: Examples, seed: int) -> Head:
    torch.set_num_threads(1)
    return train(head, examples, epochs=EPOCHS, seed=seed)


def average(heads: Sequence[Head]) -> Head:
    """One head whose weights are the mean of several that saw the same data in another order (model soup)."""
    mean = copy.deepcopy(heads[0])
    states = [head.state_dict() for head in heads]
    mean.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    mean.eval()
    return mean


def build(data: Path, out: Path, wordnet: Path, sample: Path | None, cache: Path | None) -> dict[str, Any]:
    """Build the model folder `out` and return its evaluation.

    With `sample` the model is `mini-free`: that folder's photos set the ranges of the int8 graph, class texts do the
    rest, and `data` serves to evaluate only.
    """
    out.mkdir(parents=True, exist_ok=True)
    dev, (products, held) = read_flickr(data, "dev"), read_fashion(data)
    captions = [caption for pair in dev for caption in pair.texts]
    with tempfile.TemporaryDirectory() as folder:
        run = Build(Path(folder), wordnet, cache)
        if sample is None:
            photos = read_flickr(data, "train")
            colours = cutouts([pair.picture for pair in photos], run.work / "cutouts")
            calibration = spread([*photos, *products], CALIBRATION)
            run.quantise(calibration)
            raw = run.texts(captions)
            run.tune(photos[:-HELD], products, colours[:-HELD])
            run.quantise(calibration)
            head = run.trained_head(photos, products, colours)
        else:
            run.quantise(spread(read_sample(sample), CALIBRATION))
            raw = run.texts(captions)
            head = run.untrained_head()
        run.export_image(head, out / "image.onnx")
        run.export_text(head, out / "text.onnx")
        run.tokenizer.save(str(out / "tokenizer.json"), pretty=False)
        fidelity = run.fidelity(head, out, dev[:100])
    name = "mini" if sample is None else "mini-free"
    write_folder(out, name, SIZE, {})
    figures = evaluate(OnnxEncoder(out), dev, held, raw) | fidelity
    levels = {kind: found["level"] for kind, found in figures["nothing_below"].items()}
    write_folder(out, name, SIZE, levels)
    return figures


def spread(pairs: Sequence[Pair], count: int) -> list[Path]:
    """About `count` pictures, evenly spaced."""
    return [pair.picture for pair in pairs[:: max(1, len(pairs) // count)]]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build the built-in model and print its evaluation as JSON.")
    parser.add_argument("--data", type=Path, required=True, help="folder with flickr8k/ and fashion/")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--wordnet", type=Path, default=WORDNET, help="folder with WordNet 3.0's data.noun")
    parser.add_argument(
        "--free", type=Path, metavar="SAMPLE", help="build mini-free, calibrated on these free photos"
    )
    parser.add_argument("--cache", type=Path, help="keep features here between runs")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)  # the quantiser's own lines are many and mean nothing here
    figures = build(given.data, given.out, given.wordnet, given.free, given.cache)
    sys.stdout.write(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
