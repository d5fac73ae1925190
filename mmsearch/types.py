"""The words of mmsearch as types: arrays with their shapes, items, parts, queries, hits."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import PIL.Image

    from mmsearch.shapes import Boost, Examples, Facet, Group, Highlight, Sort, Stage, Taste

Vectors: TypeAlias = NDArray[np.float32]
"""(n, dim), C-contiguous, rows L2-normalised."""

Vector: TypeAlias = NDArray[np.float32]
"""(dim,), L2-normalised."""

Ids: TypeAlias = NDArray[np.int64]
"""(n,), each > 0."""

Image: TypeAlias = "PIL.Image.Image"
"""An RGB picture, orientation applied."""

Waveform: TypeAlias = NDArray[np.float32]
"""(samples,) of a mono recording at an encoder's sample rate, nominally within -1 to 1."""

AttributeValue: TypeAlias = str | float | int | bool | datetime | Sequence[str]
"""A naive ``datetime`` is read as UTC; a sequence of strings is a list of tags."""

Attributes: TypeAlias = Mapping[str, AttributeValue]

AttributeChanges: TypeAlias = Mapping[str, Mapping[str, AttributeValue | None]]
"""Key of an item -> name -> new value; None takes the attribute away."""


class Modality(StrEnum):
    """A kind of media, or ``FUSED``: the vector of an item as a whole, made of those of its other parts.

    No encoder encodes the last one. An item of that modality is a product.
    """

    IMAGE = "image"
    TEXT = "text"
    AUDIO = "audio"
    FUSED = "fused"


MEDIA = (Modality.IMAGE, Modality.TEXT, Modality.AUDIO)
"""What can be encoded."""


@dataclasses.dataclass(frozen=True, slots=True)
class Space:
    """What an encoder maps into. Vectors of different spaces never meet.

    ``id`` names the space (two models that share it may serve one collection), ``dim`` is the number of
    dimensions of a vector.
    """

    id: str
    dim: int


@dataclasses.dataclass(frozen=True, slots=True)
class AudioWindow:
    """What an encoder hears at once: ``seconds`` of sound at ``sample_rate`` (Hz); a longer recording is cut into
    parts of that length, one every ``hop_seconds``.
    """

    sample_rate: int = 16_000
    seconds: float = 10.0
    hop_seconds: float = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewPart:
    """One piece of an item to be embedded: give its ``content`` or its ready ``vector``.

    ``content`` is a text, a picture, the path of a picture file, mono samples at the encoder's rate, or the path of a
    sound file, of which only what lies between ``start`` and ``end`` counts if they are given. ``start`` and ``end``
    are seconds in an item of modality audio, else character offsets; ``page`` counts from 1. ``text`` is what a text
    part says; it is kept for snippets and full-text search and is taken from ``content`` when that is a string.
    ``source`` is the path or URL that the part was made of, ``stamp`` what it was then. A part of modality fused needs
    no content: its vector is made of those of the item's other parts (``mmsearch.fusing``).
    """

    modality: Modality
    content: str | Path | Image | Waveform | None = None
    vector: Vector | None = None
    start: float | None = None
    end: float | None = None
    page: int | None = None
    text: str | None = None
    source: str | None = None
    stamp: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NewItem:
    """An item to add. ``key`` is its name within the collection: for a file its absolute path.

    Adding a key that exists replaces that item's parts and attributes and keeps its id. ``size`` (bytes),
    ``mtime_ns`` (nanoseconds since 1970) and ``content_hash`` (16 bytes) are given for files. Items with the same hash
    are copies of each other. ``feed`` is the id of the feed that a product came from (``mmsearch.feeds``).
    """

    key: str
    modality: Modality
    parts: Sequence[NewPart]
    title: str | None = None
    attributes: Attributes = dataclasses.field(default_factory=dict)
    is_file: bool = False
    size: int | None = None
    mtime_ns: int | None = None
    content_hash: bytes | None = None
    feed: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One embedded piece of an item, as stored. One part is one vector. ``source`` is the path or URL of the picture
    that a part of a product was made of.
    """

    id: int
    modality: Modality
    ordinal: int = 0
    start: float | None = None
    end: float | None = None
    page: int | None = None
    text: str | None = None
    source: str | None = None
    stamp: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What a user gets back: a photo, a document, a recording, a product."""

    id: int
    key: str
    modality: Modality
    title: str | None
    is_file: bool
    size: int | None
    mtime_ns: int | None
    content_hash: bytes | None
    added: datetime
    attributes: Attributes
    parts: Sequence[Part] = ()

    @property
    def path(self) -> str | None:
        """Absolute path of the file this item stands for; None if it is not a file."""
        return self.key if self.is_file else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One result. ``rank`` counts from 1; higher scores are better (see ``Query``).

    ``part`` is the part that matched best; ``copies`` are keys of byte-identical items folded into this one. ``group``,
    ``highlights``, ``explanation`` and ``pinned`` are those of ``Engine.results``: what the query asked for; so is
    ``picture``, the id of the part that is the item's first picture, None if it has none.
    """

    rank: int
    score: float
    item: Item
    part: Part
    copies: Sequence[str] = ()
    group: Group | None = None
    highlights: Sequence[Highlight] = ()
    explanation: Sequence[Stage] = ()
    pinned: bool = False
    picture: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """One weighted term of a query: exactly one of ``text``, ``image``, ``audio``, ``item`` (an id) or ``vector``.

    ``audio`` is the path or URL of a recording, its bytes, or mono samples at the encoder's rate. A long recording
    stands for the mean of its parts, silence left out. A negative ``weight`` steers away from the term.
    """

    text: str | None = None
    image: Path | str | Image | None = None
    audio: Path | str | bytes | Waveform | None = None
    item: int | None = None
    vector: Vector | None = None
    weight: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Weighted terms, a filter, and how many items to return.

    ``where`` is a filter expression over attributes (see ``mmsearch.filters``), ``path`` a glob over item keys,
    ``modality`` limits the parts that may match, ``min_score`` drops hits below that score. Where all items are
    products, their fused parts alone are searched, and those of pictures if a term is a picture.

    Scores are cosines of the best part. In a list of several modalities those of pictures are, and those of texts and
    sounds are moved and stretched until they compare: by the encoder's ``means`` and ``spreads``
    (``mmsearch.ranking.centred``), or, for a model without, moved by its ``levels`` if all terms are texts.
    ``hybrid`` fuses in the full-text matches of the text terms by reciprocal rank; scores are then sums of
    1 / (60 + rank), and ``min_score`` still means the score without it.

    All from ``facets`` on is for ``Engine.results``, which also scores a hybrid query otherwise: 1 - ``text_weight``
    times the normalised score of the vector plus ``text_weight`` times the normalised BM25 over title and texts, less
    where words cannot judge (see ``mmsearch.hybrid``). It tolerates misspelt words (``typos``), reads the last word as
    a beginning (``prefix``), knows ``-word`` and ``"some words"`` (``mmsearch.operators``), and with ``text_weight`` 1
    finds only what holds the words. There, no terms at all mean: everything that passes the filter.

    ``sort`` orders by attributes, equals by score. ``group_by`` collapses items that share a text attribute (variants
    under their parent): the best stands for them, with up to ``group_size`` of them in ``Hit.group``. ``boosts``
    multiply scores. ``pinned`` keys come first, in their order, if they pass the filter and nothing is sorted;
    ``hidden`` keys never come. ``examples`` and ``taste``: see there. ``diversity`` (0 to 1) is the share of novelty
    in the order of the first 100 hits (maximal marginal relevance). ``fields`` are the attributes that hits carry
    (None: all). ``highlight`` and ``explain`` fill these fields of hits. ``settings``: whether the collection's
    synonyms and rules apply. ``cursor`` is ``Results.cursor`` of the page before, of the same query.
    """

    terms: Sequence[Term] = ()
    k: int = 10
    modality: Modality | None = None
    where: str | None = None
    path: str | None = None
    hybrid: bool = False
    min_score: float | None = None
    facets: Sequence[Facet] = ()
    sort: Sequence[Sort] = ()
    group_by: str | None = None
    group_size: int = 1
    boosts: Sequence[Boost] = ()
    pinned: Sequence[str] = ()
    hidden: Sequence[str] = ()
    examples: Examples | None = None
    taste: Taste | None = None
    text_weight: float = 0.5
    typos: bool = True
    prefix: bool = False
    diversity: float = 0.0
    fields: Sequence[str] | None = None
    highlight: bool = False
    explain: bool = False
    settings: bool = True
    cursor: str | None = None
