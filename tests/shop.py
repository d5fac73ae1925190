"""A brute-force shop: what ``Engine.results`` must answer, worked out in float64 over plain dicts."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch import Modality, NewItem, NewPart
from mmsearch.types import AttributeValue


@dataclasses.dataclass(frozen=True)
class Product:
    """One item: a picture's vector, perhaps a second one, a title, perhaps a text, attributes."""

    key: str
    vectors: Sequence[NDArray[np.float32]]
    title: str = ""
    text: str = ""
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    content: bytes | None = None

    def new(self) -> NewItem:
        """The item as one gives it to ``Engine.add``. The words are part of the first pictures' parts."""
        said = [self.text, *[None] * (len(self.vectors) - 1)]
        parts = [
            NewPart(modality=Modality.IMAGE, vector=vector, text=text or None)
            for vector, text in zip(self.vectors, said, strict=True)
        ]
        return NewItem(
            key=self.key,
            modality=Modality.IMAGE,
            parts=parts,
            title=self.title or None,
            attributes=self.attributes,
            content_hash=self.content,
        )

    def cosine(self, query: NDArray[np.float32]) -> float:
        """The best of its vectors, as stored in half precision."""
        stored = [vector.astype(np.float16).astype(np.float64) for vector in self.vectors]
        return max(float(vector @ query.astype(np.float64)) for vector in stored)


def plain_words(text: str) -> list[str]:
    """Words of texts that hold nothing but plain words."""
    return re.findall(r"[a-z0-9]+", text.lower())


def bm25f(
    products: Sequence[Product],
    query: Mapping[str, float],
    *,
    title_weight: float,
    b_title: float,
    b_text: float,
    k1: float,
) -> dict[str, dict[str, float]]:
    """Of each word of the query (with what it counts) the score of each product that holds it, from the formula."""
    titles = {product.key: Counter(plain_words(product.title)) for product in products}
    # A text that only repeats the title says nothing new.
    texts = {
        product.key: Counter(plain_words(product.text if product.text != product.title else ""))
        for product in products
    }
    n = sum(bool(titles[key] or texts[key]) for key in titles)  # that say something
    mean_title = (
        sum(sum(found.values()) for found in titles.values()) / max(sum(map(bool, titles.values())), 1)
        or 1e-9
    )
    mean_text = (
        sum(sum(found.values()) for found in texts.values()) / max(sum(map(bool, texts.values())), 1) or 1e-9
    )
    scores: dict[str, dict[str, float]] = {}
    for word, counts in query.items():
        holding = [key for key in titles if titles[key][word] or texts[key][word]]
        idf = math.log(1 + (n - len(holding) + 0.5) / (len(holding) + 0.5))
        scores[word] = {}
        for key in holding:
            long_title = sum(titles[key].values()) / mean_title
            long_text = sum(texts[key].values()) / mean_text
            often = title_weight * titles[key][word] / (1 - b_title + b_title * long_title)
            often += texts[key][word] / (1 - b_text + b_text * long_text)
            scores[word][key] = counts * idf * often * (k1 + 1) / (k1 + often)
    return scores


def edit_distance(a: str, b: str) -> int:
    """Optimal string alignment by its recurrence."""
    table = [[i + j if 0 in (i, j) else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
            )
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[len(a)][len(b)]


def counts(products: Sequence[Product], value: Callable[[Product], AttributeValue | None]) -> Counter[object]:
    """How often each value comes; of a list each entry once."""
    found: Counter[object] = Counter()
    for product in products:
        one = value(product)
        if isinstance(one, list | tuple):
            found.update(set(one))
        elif one is not None:
            found[one] += 1
    return found
