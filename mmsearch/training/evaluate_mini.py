"""The figures of the model card, from vectors of pictures and texts."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoding import encode
from mmsearch.evaluate import retrieve
from mmsearch.manifests import Media
from mmsearch.measures import retrieval_measures
from mmsearch.tables import Problems
from mmsearch.training.pairs import Pair
from mmsearch.types import Modality

Floats = NDArray[np.float32]

ABSENT = (
    "invoice from the dentist",
    "quarterly revenue spreadsheet",
    "recipe for onion soup",
    "circuit board under a microscope",
    "map of the Paris metro",
    "x-ray of a broken arm",
    "the surface of the moon",
    "tax declaration form",
    "penguins on an iceberg",
    "handwritten shopping list",
    "python source code on a screen",
    "a submarine periscope",
    "molecular structure of caffeine",
    "an espresso machine",
    "Egyptian hieroglyphs",
    "a nuclear power plant",
    "weather forecast for tomorrow",
    "a violin concerto score",
    "bacteria in a petri dish",
    "a vending machine in an empty corridor",
)


def recall(queries: Floats, gallery: Floats, owners: NDArray[np.int64]) -> list[float]:
    """Per cent of queries (m, d) whose gallery row `owners` (m,) is among the 1, 5 and 10 best by cosine."""
    return _recall(queries, gallery, [np.array([owner]) for owner in owners])


def recall_any(queries: Floats, gallery: Floats, groups: NDArray[np.int64]) -> list[float]:
    """Per cent of queries (n, d) that have a gallery row with ``groups == row`` among the 1, 5 and 10 best."""
    return _recall(queries, gallery, [np.flatnonzero(groups == row) for row in range(len(queries))])


def _recall(queries: Floats, gallery: Floats, relevant: Sequence[NDArray[np.int64]]) -> list[float]:
    measures = retrieval_measures(retrieve(queries, gallery, relevant).ranks, len(gallery))
    return [round(measures[f"recall@{k}"].value * 100, 2) for k in (1, 5, 10)]


def caption_to_caption(texts: Floats, per_picture: int) -> list[float]:
    """Text search among captions: each picture's first caption is the query, all other captions are the gallery.

    texts: (n * per_picture, d), the captions of one picture next to each other. A hit is a caption of the same picture.
    """
    stacked = texts.reshape(-1, per_picture, texts.shape[1])
    gallery = stacked[:, 1:].reshape(-1, texts.shape[1])
    groups = np.repeat(np.arange(len(stacked)), per_picture - 1)
    return recall_any(stacked[:, 0], gallery, groups)


def precision_by_kind(queries: Floats, gallery: Floats, wanted: Sequence[str], kinds: Sequence[str]) -> float:
    """Mean precision at 10 in per cent of one query per kind; only kinds with at least ten rows should be asked for."""
    relevant = [np.flatnonzero(np.array(kinds) == kind) for kind in wanted]
    measures = retrieval_measures(retrieve(queries, gallery, relevant).ranks, len(gallery))
    return round(measures["precision@10"].value * 100, 2)


def frequent(kinds: Sequence[str], at_least: int = 10) -> list[str]:
    """The kinds that occur often enough for a precision at 10, in alphabetical order."""
    return sorted(kind for kind, count in Counter(kinds).items() if count >= at_least)


def evaluate(
    encoder: OnnxEncoder, photos: Sequence[Pair], products: Sequence[Pair], raw: Floats
) -> dict[str, Any]:
    """Every figure of a finished model folder.

    photos: the dev gallery, five captions each. products: held out of training. raw: MiniLM's own vectors of the
    captions, picture by picture, as the bar that caption search must not fall below.
    """
    images = encode_pictures(encoder, photos)
    captions = [caption for pair in photos for caption in pair.texts]
    texts = encoder.encode_texts(captions)
    per = len(photos[0].texts)
    owners = np.repeat(np.arange(len(photos)), per)
    kinds = [pair.kind for pair in products]
    asked = frequent(kinds)
    return {
        "photos": len(photos),
        "text_to_image": recall(texts, images, owners),
        "image_to_text": recall_any(images, texts, owners),
        "caption_to_caption": caption_to_caption(texts, per),
        "caption_to_caption_minilm": caption_to_caption(raw, per),
        "products": len(products),
        "type_to_product_p10": precision_by_kind(
            encoder.encode_texts(asked), encode_pictures(encoder, products), asked, kinds
        ),
        "types": len(asked),
        "nothing_below": nothing_below(encoder, images, texts),
    }


def encode_pictures(encoder: OnnxEncoder, pairs: Sequence[Pair]) -> Floats:
    """Vectors of the pictures, opened as the engine opens them. Raises ``MediaError``."""
    problems = Problems(pairs[0].picture.parent)
    media = [Media(Modality.IMAGE, pair.picture, pair.picture.name) for pair in pairs]
    vectors, _ = encode(encoder, media, problems)
    problems.raise_any()
    return vectors


def nothing_below(encoder: OnnxEncoder, images: Floats, texts: Floats) -> dict[str, dict[str, float]]:
    """For pictures and for texts the top cosine under which a text query has probably found nothing.

    ``level`` is the 5th percentile of the top scores of captions in a gallery that holds their picture (or their
    picture's other captions): of the queries that have a match, one in twenty is doubted. ``absent`` is the share of
    the `ABSENT` queries, about things that the gallery does not show, that are doubted.
    """
    absent = encoder.encode_texts(ABSENT)
    first = np.arange(0, len(texts), len(texts) // len(images))
    others = np.delete(texts, first, axis=0)
    found = {}
    for kind, queries, gallery in (("image", texts, images), ("text", texts[first], others)):
        level = round(float(np.percentile((queries @ gallery.T).max(1), 5)), 2)
        doubted = ((absent @ gallery.T).max(1) < level).mean()
        found[kind] = {"level": level, "absent": round(float(doubted), 2)}
    return found
