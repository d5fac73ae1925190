"""A person's own pairs: rows checked, merged into items, and split so that no photo is on both sides.

An item is everything that belongs to one picture (or to one sound, where there is no picture): files with the same
bytes are one. This module does not need torch.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmsearch.errors import ConfigError
from mmsearch.manifests import COLUMNS, Media
from mmsearch.tables import Problems, Row
from mmsearch.types import MEDIA, Modality

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
SHARE = 0.1  # of the groups that are kept for validation where no column says it
LEAST = 2  # items on either side


@dataclasses.dataclass(frozen=True)
class Item:
    """Media that belong together. `weight` says how often it is drawn, 1 being usual; `place` is its first row."""

    media: Mapping[Modality, tuple[Media, ...]]
    weight: float
    place: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Items to train on and to validate on; `left_out` rows are of the split test."""

    train: Sequence[Item]
    validation: Sequence[Item]
    rows: int
    left_out: int

    @property
    def modalities(self) -> tuple[Modality, ...]:
        return tuple(
            modality
            for modality in MEDIA
            if any(item.media.get(modality) for item in (*self.train, *self.validation))
        )

    def count(self, modality: Modality) -> tuple[int, int]:
        """How many distinct media of a modality there are to train on and to validate on."""
        sides = (self.train, self.validation)
        train, validation = (
            len({media for item in side for media in item.media.get(modality, ())}) for side in sides
        )
        return train, validation


@dataclasses.dataclass(frozen=True)
class _Pair:
    """One usable row."""

    row: Row
    media: Mapping[Modality, tuple[Media, ...]]
    weight: float
    split: str | None


class Groups:
    """Names that are joined into groups (union-find)."""

    def __init__(self) -> None:
        self._parents: dict[str, str] = {}

    def find(self, name: str) -> str:
        parent = self._parents.setdefault(name, name)
        while parent != self._parents[parent]:
            parent = self._parents[name] = self._parents[self._parents[parent]]
        return parent

    def join(self, names: Sequence[str]) -> None:
        first, *others = [self.find(name) for name in names]
        for other in others:
            self._parents[other] = first


def make_dataset(path: Path, rows: Sequence[Row], *, root: Path, seed: int = 0) -> Dataset:
    """The rows of the table `path` as a dataset. Files are relative to `root`; `seed` draws the validation groups.

    Where a column `split` names no validation rows, one group in ten of the training rows is taken. A group is what
    shares a value of the column `group`, a picture or a sound.

    Raises MediaError that names every wrong row: a missing file, an empty cell, a weight or split that is none, a
    photo on both sides, a column that is the same in every row; and ConfigError if there is too little.
    """
    problems = Problems(path)
    hashes = _Hashes(root)
    pairs = [pair for row in rows if (pair := _pair(row, hashes, problems))]
    for modality in MEDIA if not problems else ():  # what is left of a wrong table tells nothing
        contents = {media for pair in pairs for media in pair.media[modality]}
        if len(contents) == 1 and len(pairs) > 1:
            reason = (
                f"is the same in every row, {str(next(iter(contents)))!r}: there is nothing to tell apart"
            )
            problems.add(f"column {COLUMNS[modality][0]}", reason)
    groups = [_group_names(pair, hashes) for pair in pairs]
    joined = Groups()
    for names in groups:
        joined.join(names)
    group_of = [joined.find(names[0]) for names in groups]
    splits = _splits(pairs, group_of, problems)
    problems.raise_any()
    asked = [name for name, split in splits.items() if split in (None, "train")]
    if "val" not in splits.values():
        by_draw = sorted(asked, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
        splits |= dict.fromkeys(by_draw[: max(1, round(SHARE * len(by_draw)))], "val")
    sides: dict[str, list[_Pair]] = {"train": [], "val": [], "test": []}
    for pair, group in zip(pairs, group_of, strict=True):
        sides[splits[group] or "train"].append(pair)
    train, validation = _items(sides["train"], hashes), _items(sides["val"], hashes)
    if len(train) < LEAST or len(validation) < LEAST:
        raise ConfigError(
            f"{path}: {len(train)} items to train on and {len(validation)} to validate on are too few; at least "
            f"{LEAST} of each are needed, and some hundred for a gain"
        )
    return Dataset(train, validation, len(rows), len(sides["test"]))


class _Hashes:
    """Paths of a table, and what their bytes are."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._known: dict[Path, str | None] = {}
        self._first: dict[str, Path] = {}

    def file(self, cell: str) -> tuple[Path, bool]:
        """The path of a cell, and whether there is such a file."""
        path = self._root / cell
        if path not in self._known:
            digest: str | None
            try:
                digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            except OSError:
                digest = None
            self._known[path] = digest
            if digest is not None:
                self._first.setdefault(digest, path)
        return path, self._known[path] is not None

    def content(self, media: Media) -> str:
        """What names the content of a file."""
        return str(self._known[Path(media.content)])

    def first(self, media: Media) -> Media:
        """The first file of the table with the same bytes."""
        if media.modality is Modality.TEXT:
            return media
        return dataclasses.replace(media, content=self._first[self.content(media)])


def _pair(row: Row, hashes: _Hashes, problems: Problems) -> _Pair | None:
    """The pair of a row; None if something is wrong with it."""
    wrong = len(problems)
    media: dict[Modality, tuple[Media, ...]] = {}
    for modality, columns in COLUMNS.items():
        found = []
        for cell in row.all(*columns):
            if modality is Modality.TEXT:
                found.append(Media(modality, cell, row.place))
                continue
            path, exists = hashes.file(cell)
            if not exists:
                problems.add(row.place, f"{modality} {path}: no such file, or it cannot be read")
            found.append(Media(modality, path, row.place))
        media[modality] = tuple(found)
    given = [modality for modality, found in media.items() if found]
    if len(given) < 2:
        problems.add(
            row.place,
            f"only {given[0]} is given, and nothing that belongs to it"
            if given
            else "has no image, audio or text",
        )
    weight, split = 1.0, None
    try:
        if (said := row.one("weight")) is not None:
            weight = _weight(said)
        if (said := row.one("split")) is not None:
            if said.lower() not in SPLITS:
                raise ValueError(f"split is {said!r}, not one of train, val and test")
            split = SPLITS[said.lower()]
        row.one("group")
    except ValueError as error:
        problems.add(row.place, str(error))
    return _Pair(row, media, weight, split) if len(problems) == wrong else None


def _weight(cell: str) -> float:
    try:
        weight = float(cell)
    except ValueError:
        weight = -1.0
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight is {cell!r}, not a number of 0 or more")
    return weight


def _group_names(pair: _Pair, hashes: _Hashes) -> list[str]:
    """What joins a row with others: its group, and the contents of its files."""
    group = pair.row.one("group")
    files = [media for modality in (Modality.IMAGE, Modality.AUDIO) for media in pair.media[modality]]
    return [*([f"group {group}"] if group else []), *(f"file {hashes.content(media)}" for media in files)]


def _splits(pairs: Sequence[_Pair], groups: Sequence[str], problems: Problems) -> dict[str, str | None]:
    """Group -> the split that its rows name. A group on two sides is a problem of each row unlike the first."""
    splits: dict[str, str | None] = {}
    named: dict[str, _Pair] = {}
    for pair, group in zip(pairs, groups, strict=True):
        splits.setdefault(group, pair.split)
        if pair.split is None:
            continue
        first = named.setdefault(group, pair)
        splits[group] = first.split
        if first.split != pair.split:
            what = "the same photo, sound or group"
            problems.add(
                pair.row.place, f"is in {pair.split}, and {what} is in {first.split} ({first.row.place})"
            )
    return splits


def _items(pairs: Sequence[_Pair], hashes: _Hashes) -> list[Item]:
    """Rows of the same picture (or sound) as one item, in the order of their first rows."""
    owners: dict[Media, list[_Pair]] = {}
    for pair in pairs:
        owner = (pair.media[Modality.IMAGE] or pair.media[Modality.AUDIO])[0]
        owners.setdefault(hashes.first(owner), []).append(pair)
    return [
        Item(
            {
                modality: tuple(
                    dict.fromkeys(hashes.first(media) for pair in own for media in pair.media[modality])
                )
                for modality in MEDIA
            },
            sum(pair.weight for pair in own) / len(own),
            own[0].row.place,
        )
        for own in owners.values()
    ]
