"""The figures of a built-in model's card, from the finished model folder: ``mmsearch eval`` on what no training sees.

    python -m mmsearch.training.mini_card --data FOLDER [--model FOLDER] [--packages FOLDER]

The data folder is that of ``pairs``; ``--packages`` holds the unpacked Debian packages of ``judges``. The figures are
written into the model's MODEL_CARD.md, between two comments that are never touched.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.errors import MediaError, MmsearchError, ModelError
from mmsearch.evaluate import Figure, Result, evaluate
from mmsearch.manifests import Classes, Manifest, Media, Retrieval, read_manifest
from mmsearch.media import load_sound
from mmsearch.training.judges import STAMPS, Labelled, everyday_clips, scratch_clips, stamps
from mmsearch.training.languages import ENGLISH, read_stamps
from mmsearch.training.pairs import Pair, read_fashion, read_flickr
from mmsearch.types import AudioWindow, Modality

BEGIN, END = "<!-- figures of mmsearch eval: begin -->", "<!-- figures of mmsearch eval: end -->"
TYPE_AT_LEAST = 10  # products that a type needs to be asked for
COLOUR_AT_LEAST = 5  # and that a colour of a type needs
PAIRED = (
    "boots",
    "briefs",
    "capris",
    "cufflinks",
    "earrings",
    "flats",
    "flip flops",
    "gloves",
    "heels",
    "jeans",
    "leggings",
    "pants",
    "sandals",
    "shoes",
    "shorts",
    "socks",
    "stockings",
    "sunglasses",
    "tights",
    "trousers",
)
"""What is spoken of in the plural."""

RECALLS = ("recall@1", "recall@5", "recall@10", "median_rank")
PRECISION = ("precision@10", "map")
ACCURACY = ("accuracy", "f1_macro")


@dataclass(frozen=True)
class Section:
    """One set of questions, and the measures that the card shows of each kind of trial, in this order."""

    title: str
    manifest: Manifest
    measures: Sequence[str]


def singular(kind: str) -> str:
    """A type as it stands behind a colour, with or without an article: ``dresses`` -> ``a {} dress``."""
    if kind.endswith(PAIRED):
        return f"{{}} {kind}"
    for plural, one in (("sses", "ss"), ("ches", "ch"), ("rves", "rf"), ("ies", "ie"), ("s", "")):
        if kind.endswith(plural):
            kind = kind.removesuffix(plural) + one
            break
    return f"a {{}} {kind}"


def asked_for(product: Pair) -> str:
    """The product by colour and type: ``a navy blue t-shirt``, ``black jeans``."""
    words = singular(product.kind).format(product.colour)
    return f"an{words[1:]}" if words.startswith("a ") and words[2] in "aeio" else words


def products_manifest(folder: Path) -> Manifest:
    """Types as classes and as queries, and colours of types as queries, among all products held out of training."""
    _, products = read_fashion(folder)
    media = [Media(Modality.IMAGE, product.picture, product.picture.name) for product in products]
    kinds = [product.kind for product in products]
    frequent = {kind for kind in kinds if kinds.count(kind) >= TYPE_AT_LEAST}
    classes = sorted(frequent)
    rows = [n for n, kind in enumerate(kinds) if kind in frequent]
    coloured = [asked_for(product) for product in products]
    return Manifest(
        folder / "fashion" / "products.csv",
        [
            Classes(
                "zero-shot type",
                [media[n] for n in rows],
                classes,
                [((Media(Modality.TEXT, kind), 1.0),) for kind in classes],
                np.array([classes.index(kinds[n]) for n in rows], np.int64),
            ),
            asking("type -> products", kinds, media, TYPE_AT_LEAST),
            asking("colour and type -> products", coloured, media, COLOUR_AT_LEAST),
        ],
    )


def asking(name: str, words: Sequence[str], media: Sequence[Media], at_least: int) -> Retrieval:
    """Each of the words that enough media have, as a query for these among all of them."""
    queries = sorted({word for word in words if words.count(word) >= at_least})
    return Retrieval(
        name,
        [((Media(Modality.TEXT, query), 1.0),) for query in queries],
        media,
        [np.array([n for n, word in enumerate(words) if word == query], np.int64) for query in queries],
        np.arange(len(queries)),
        np.full(len(queries), -1),
    )


def sections(data: Path, packages: Path | None, work: Path) -> Iterator[Section]:
    """What the card tells. ``work`` takes the manifests; without ``packages`` there are no stamps and sounds."""
    photos = read_flickr(data, "dev")
    captions = ((str(pair.picture.resolve()), text) for pair in photos for text in pair.texts)
    yield Section(
        f"Photos: Flickr8k dev, {len(photos):,} photos",
        written(work / "photos.csv", ("image", "text"), captions),
        RECALLS,
    )
    yield Section("Products that no training sees", products_manifest(data), (*ACCURACY, *PRECISION))
    if packages is None:
        return
    drawn = read_stamps(packages / "tuxpaint-stamps-default" / STAMPS)
    pairs = ((str(one.picture.resolve()), one.captions[ENGLISH]) for one in drawn)
    yield Section(
        f"Tux Paint's stamps, {len(drawn):,} pictures unlike those trained on",
        written(work / "stamps.csv", ("image", "text"), pairs),
        RECALLS,
    )
    heard = [one for one in stamps(packages)[0] if audible(one.sound)]
    triples = ((str(one.picture.resolve()), str(one.sound.resolve()), one.caption) for one in heard)
    yield Section(
        f"Tux Paint's effects, {len(heard):,} sounds with their pictures and captions",
        written(work / "effects.csv", ("image", "audio", "text"), triples),
        RECALLS,
    )
    for title, clips in (
        ("Scratch's effects", scratch_clips(packages)),
        ("Everyday effects of Scorched 3D and GCompris", everyday_clips(packages)),
    ):
        yield Section(
            f"{title}, {len(clips[0]):,} sounds of {len(set(clips[1])):,} classes",
            written(work / "sounds.csv", ("audio", "label"), labelled(clips, work), ("the sound of {}",)),
            (*ACCURACY, "map"),
        )


def labelled(clips: Labelled, work: Path) -> Iterator[tuple[str, str]]:
    """Path and label of each clip; ``work`` takes those that lie within a file of many."""
    for number, (clip, label) in enumerate(zip(*clips, strict=True)):
        if isinstance(clip, Path):
            yield str(clip.resolve()), label
        else:
            path = work / f"clip-{number}.ogg"
            path.write_bytes(clip.getvalue())
            yield str(path), label


def audible(path: Path) -> bool:
    """Whether a recording holds more than silence; Tux Paint has some for animals that make no sound."""
    try:
        return any(True for _ in load_sound(path, AudioWindow()))
    except MediaError as error:
        if "is silent" not in str(error):
            raise
        return False


def written(
    path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]], prompts: Sequence[str] = ()
) -> Manifest:
    """A manifest as ``mmsearch eval`` reads it."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return read_manifest(path, prompts=prompts)


def figures(encoder: OnnxEncoder, data: Path, packages: Path | None = None) -> str:
    """The figures of a model as Markdown. Raises MediaError and ConfigError if data are missing."""
    parts = []
    with tempfile.TemporaryDirectory() as folder:
        for section in sections(data, packages, Path(folder)):
            results = evaluate(encoder, section.manifest).results
            parts.append(f"### {section.title}\n\n{table(results, section.measures)}")
    return "\n\n".join(parts)


def table(results: Sequence[Result], measures: Sequence[str]) -> str:
    """A Markdown table: what is asked, of how many, and each measure with its interval over the chance level."""
    names = [name for name in measures if any(name in result.measures for result in results)]
    lines = [
        "| | queries, candidates | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for result in results:
        found = result.figures()
        cells = [_cell(name, found) for name in names]
        lines.append(f"| {result.name} | {result.queries:,}, {result.candidates:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(name: str, found: Mapping[str, Figure]) -> str:
    if name not in found:
        return ""
    figure = found[name]
    value, low, high, chance = (
        f"{round(number, 1):,g}" if name == "median_rank" else f"{100 * number:.1f}"
        for number in (figure.value, figure.low, figure.high, figure.chance or 0.0)
    )
    return f"**{value}** ({low} to {high}; {chance})"


def write(card: Path, text: str) -> None:
    """Put the figures between the two comments of a card; a card that has none gets them at its end.

    Raises ModelError if only one of the comments is there.
    """
    before = card.read_text("utf-8")
    block = f"""{BEGIN}

Made by `python -m mmsearch.training.mini_card` from the files of this folder. Shares are per cent; in brackets the 95 %
bootstrap interval and, behind the semicolon, the chance level.

{text}

{END}"""
    if (BEGIN in before) != (END in before):
        raise ModelError(f"{card}: one of the comments that mark the figures is missing: {BEGIN} and {END}")
    if BEGIN in before:
        head, rest = before.split(BEGIN, 1)
        whole = head + block + rest.split(END, 1)[1]
    else:
        whole = f"{before.rstrip()}\n\n## Measured\n\n{block}\n"
    card.write_text(whole, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with flickr8k/ and fashion/")
    parser.add_argument("--model", type=Path, default=BUILT_IN_MODELS / "mini", help="model folder")
    parser.add_argument("--packages", type=Path, help="unpacked Debian packages that sounds are judged by")
    parser.add_argument("--threads", type=int, help="CPU threads")
    given = parser.parse_args()
    try:
        encoder = OnnxEncoder(given.model, threads=given.threads)
        write(given.model / "MODEL_CARD.md", figures(encoder, given.data, given.packages))
    except MmsearchError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
