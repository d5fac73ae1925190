"""What a training came to: gains on the validation items, and losses on a general set that never changes."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import Encoder
from mmsearch.evaluate import Figure, Result, compare, evaluate, retrieve
from mmsearch.manifests import Media, read_manifest
from mmsearch.measures import retrieval_measures
from mmsearch.training.dataset import Dataset, Item
from mmsearch.training.finetune import Epoch, Options, Side, side_of
from mmsearch.types import Modality

Floats = NDArray[np.float32]
Vectors = Mapping[Modality, Floats]

GENERAL = Path(__file__).parent / "general" / "captions.csv"


@dataclasses.dataclass(frozen=True)
class Change:
    """A measure of the base, of the new model, and the paired difference."""

    base: Figure
    new: Figure
    difference: Figure


Changes = Mapping[str, Mapping[str, Change]]
"""Direction -> measure -> change."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training came to. `what` learned, and by which `loss`, in words. `untrained` towers kept their vectors;
    `layers` counts those that were unfrozen, `media` (train, validation) by modality; `fusion` has, for items fused
    from everything and from each modality alone, how well their other texts find them.
    """

    out: Path
    base: str
    space: str
    licence: str
    options: Options
    what: str
    loss: str
    trained: Sequence[Modality]
    untrained: Sequence[Modality]
    layers: Mapping[Modality, int]
    table: Path
    rows: int
    left_out: int
    items: tuple[int, int]
    media: Mapping[Modality, tuple[int, int]]
    best: int
    history: Sequence[Epoch]
    validation: Changes
    general: Changes
    fusion: Mapping[str, Mapping[str, Figure]]

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return found


def media_of(dataset: Dataset) -> dict[Modality, list[Media]]:
    """Each distinct thing to train on or to validate on."""
    return {
        modality: list(
            dict.fromkeys(
                found
                for item in (*dataset.train, *dataset.validation)
                for found in item.media.get(modality, ())
            )
        )
        for modality in dataset.modalities
    }


def fingerprint(base: bytes, media: Mapping[Modality, Sequence[Media]]) -> str:
    """What names the base and everything that is encoded: files by path, size and time."""
    digest = hashlib.sha256(base)
    for modality, found in media.items():
        for one in found:
            known = str(one.content)
            if isinstance(one.content, Path):
                status = one.content.stat()
                known = f"{known} {status.st_size} {status.st_mtime_ns}"
            digest.update(f"{modality} {known}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def media_side(items: Sequence[Item], media: Mapping[Modality, Sequence[Media]]) -> Side:
    row = {modality: {one: n for n, one in enumerate(found)} for modality, found in media.items()}
    return side_of(
        [
            {modality: [row[modality][one] for one in item.media[modality]] for modality in media}
            for item in items
        ],
        [item.weight for item in items],
    )


def results_among(vectors: Vectors, side: Side) -> Iterator[Result]:
    """Retrieval among the items of a side, in each direction."""
    owned = {
        modality: [[n for n in row if n >= 0] for row in table.tolist()]
        for modality, table in side.owned.items()
    }
    for one, other in itertools.permutations(owned, 2):
        gallery = sorted({n for rows in owned[other] for n in rows})
        place = {n: position for position, n in enumerate(gallery)}
        answers: dict[int, set[int]] = {}
        cluster: dict[int, int] = {}
        for item, (queries, found) in enumerate(zip(owned[one], owned[other], strict=True)):
            for n in queries if found else ():
                answers.setdefault(n, set()).update(place[m] for m in found)
                cluster.setdefault(n, item)
        relevant = [np.array(sorted(found), np.int64) for found in answers.values()]
        ranks = retrieve(vectors[one][list(answers)], vectors[other][gallery], relevant).ranks
        yield Result(
            f"{one}->{other}",
            len(relevant),
            len(gallery),
            retrieval_measures(ranks, len(gallery)),
            np.array(list(cluster.values()), np.int64),
            (),
            (),
        )


def general_results(encoder: Encoder) -> list[Result]:
    """What an encoder gives on the general set; nothing if it has no two towers for it."""
    if Modality.TEXT not in encoder.modalities:
        return []
    return list(evaluate(encoder, read_manifest(GENERAL)).results)


def changes(base: Iterable[Result], new: Iterable[Result]) -> dict[str, dict[str, Change]]:
    """The same trials of base and new model, compared."""
    return {now.name: change(then, now) for then, now in zip(base, new, strict=True)}


def change(old: Result, new: Result) -> dict[str, Change]:
    before, after, difference = old.figures(), new.figures(), compare(old, new)
    return {name: Change(before[name], after[name], difference[name]) for name in before}
