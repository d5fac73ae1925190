"""``mmsearch models export``: an open_clip model as a model folder of ONNX graphs, which needs no torch.

What is written is measured: each tower encodes real photos and captions, and must give the vectors that torch gives in
float32. A tower that int8 or float16 would bend too far is written in a higher precision, and the result says so.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from mmsearch.encoders.canonical import TEXTS, pictures
from mmsearch.encoders.known import KNOWN
from mmsearch.encoders.onnx import CANONICAL_COSINE, OnnxEncoder
from mmsearch.encoders.open_clip import OpenClipEncoder
from mmsearch.encoders.open_clip_config import weights_file
from mmsearch.encoders.sources import Source, sha256
from mmsearch.errors import ConfigError, ModelError
from mmsearch.training.centring import means_of, spreads_of
from mmsearch.training.clip_graphs import IDS, PIXELS, VECTORS, export_images, export_texts
from mmsearch.training.clip_tokenizer import portable
from mmsearch.training.export import halve, optimise, save
from mmsearch.training.export_card import card
from mmsearch.training.real_inputs import Real, general, real_inputs
from mmsearch.training.row_int8 import errors, products, quantise, weights
from mmsearch.types import Modality, Vectors

Precision = Literal["fp32", "fp16", "int8"]

GATE: Mapping[str, float] = {"fp32": 0.9999, "fp16": 0.999, "int8": CANONICAL_COSINE}
"""The smallest cosine to the vectors of torch in float32 that a tower of a precision may have, on real inputs."""

SPARED = (0.0, 0.06, 0.12, 0.25)
"""Shares of the products, those with the largest errors, that are left exact one after the other until int8 passes."""

LINEAR = 0.5
"""Share of the weights that must be those of products for int8 to be of use: convolutions it leaves as they are."""

BATCH = 8
PROBED = 8  # inputs that tell which products int8 bends most


@dataclasses.dataclass(frozen=True)
class Tower:
    """A tower that was written. ``smallest`` and ``mean`` are cosines to torch's float32 vectors on ``inputs`` real
    inputs, ``exact`` the number of products out of ``products`` that int8 left as they are. ``refused`` says of each
    precision that was tried before what was wrong with it.
    """

    file: str
    asked: Precision
    precision: Precision
    smallest: float
    mean: float
    inputs: int
    products: int
    exact: int
    refused: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was written, and where."""

    out: Path
    model: str
    space: str
    dim: int
    licence: str
    towers: Mapping[str, Tower]

    @property
    def as_asked(self) -> bool:
        """Whether every tower has the precision that was asked for."""
        return all(tower.precision == tower.asked for tower in self.towers.values())

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"out": str(self.out), "as_asked": self.as_asked}


def export_model(
    source: Source,
    out: Path | None = None,
    *,
    precision: Precision = "fp32",
    inputs: Path | None = None,
    threads: int | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Exported:
    """Write the model as a model folder; ``out`` None writes it to where it is loaded from under the model's own name.

    inputs: a folder with more pictures and ``.txt`` files (a text a line) to measure the towers on. An export that is
    there is replaced when the new one is whole. ``told`` hears what is being done.

    Raises ``ModelError`` for a model that is not there or cannot be exported, ``ConfigError`` if ``out`` is something
    else than an export, ``MediaError`` for inputs that cannot be read.
    """
    out = source.export if out is None else out.expanduser().absolute()
    if out.exists() and not _is_export(out):
        raise ConfigError(f"{out}: is there, and no export. Give another --out, or remove it")
    encoder = OpenClipEncoder(source, threads=threads, device="cpu", precision="fp32")
    told("encoding with torch")
    real = real_inputs(encoder, inputs)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        exported = _Writer(encoder, folder, real, precision, threads, told).write(out)
        _put(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return exported


class _Writer:
    """Writes one folder: first the tokenizer, then tower by tower, then what is known of the whole."""

    def __init__(
        self,
        encoder: OpenClipEncoder,
        folder: Path,
        real: Real,
        precision: Precision,
        threads: int | None,
        told: Callable[[str], None],
    ) -> None:
        self.encoder, self.folder, self.real = encoder, folder, real
        self.precision, self.threads, self.told = precision, threads, told
        known = next((one for one in KNOWN.values() if one.source == encoder.source.name), None)
        self.fields: dict[str, Any] = {
            "format": 1,
            "name": encoder.space.id,
            "version": "1.0",
            "description": "an open_clip model, exported",
            "licence": known.licence if known else "that of its weights; see where they come from",
            "space": {"id": encoder.space.id, "dim": encoder.space.dim, "metric": "cosine"},
            "towers": {},
            "exported": _origin(encoder.source),
        }
        if encoder.adapted:  # what is admitted as torch is, is so without it
            self.fields["trained"] = {
                "base_space": encoder.space.id,
                "towers": sorted(modality.value for modality in encoder.adapted),
            }

    def write(self, out: Path) -> Exported:
        model = self.encoder.load()
        try:
            tokenizer, cleaning = portable(model.tokenizer)
        except ModelError as error:
            raise ModelError(f"{self.encoder.source.short}: {error}") from error
        tokenizer.save(str(self.folder / "tokenizer.json"))
        rules = self.encoder.preprocess
        raw = self.folder / "raw"
        raw.mkdir()
        self.told("writing the image tower")
        export_images(model.model, rules.size, raw / "image.onnx")
        colours = {"mean": rules.mean, "std": rules.std, "dtype": "float32"}
        self.fields["towers"]["image"] = {
            "file": "image.onnx",
            "input": PIXELS,
            "output": VECTORS,
            "batch": BATCH,
            "preprocess": {
                name: value for name, value in dataclasses.asdict(rules).items() if name not in colours
            }
            | colours,
        }
        image = self._tower(Modality.IMAGE, raw / "image.onnx")
        shutil.rmtree(raw)
        raw.mkdir()
        self.told("writing the text tower")
        example = model.tokenizer(list(TEXTS[:2]))
        shorter = export_texts(model.model, example, raw / "text.onnx")
        self.fields["towers"]["text"] = {
            "file": "text.onnx",
            "tokenizer": "tokenizer.json",
            "clean": cleaning,
            "context": example.shape[1],
            "pad_to": None if shorter else example.shape[1],
            "dtype": "int64",
            "inputs": {IDS: "ids"},
            "output": VECTORS,
            "batch": BATCH,
        }
        text = self._tower(Modality.TEXT, raw / "text.onnx")
        shutil.rmtree(raw)
        self._scores()
        self._canonical()
        towers = {"image": image, "text": text}
        exported = Exported(
            out,
            self.encoder.space.id,
            self.encoder.space.id,
            self.encoder.space.dim,
            self.fields["licence"],
            towers,
        )
        (self.folder / "MODEL_CARD.md").write_text(card(exported, GATE), "utf-8")
        self._seal()
        return exported

    def _tower(self, modality: Modality, whole: Path) -> Tower:
        """Write the tower, whose float32 graph is `whole`, in the precision asked for, or in the next that passes its
        gate.
        """
        refused: list[str] = []
        inputs = self.real.of(modality)
        count = len(products(_outline(whole)))
        for precision, exact in self._steps(modality, whole, refused):
            self._write_graph(modality, whole, precision, exact)
            got = self._encode(modality)
            cosines = (got * self.real.vectors[modality]).sum(axis=1)
            smallest = float(cosines.min())
            if smallest >= GATE[precision]:
                return Tower(
                    file=f"{modality}.onnx",
                    asked=self.precision,
                    precision=precision,
                    smallest=smallest,
                    mean=float(cosines.mean()),
                    inputs=len(inputs),
                    products=count,
                    exact=len(exact),
                    refused=tuple(refused),
                )
            but = f" with {len(exact)} of {count} products left exact" if exact else ""
            refused.append(f"{precision}{but}: smallest cosine {smallest:.4f}, below {GATE[precision]}")
            self.told(f"{modality}.onnx: {refused[-1]}")
        raise ModelError(
            f"{self.encoder.source.short}: its {modality} tower gives other vectors in ONNX than in torch "
            f"({refused[-1]}). It cannot be exported: use it with torch"
        )

    def _steps(
        self, modality: Modality, whole: Path, refused: list[str]
    ) -> Iterator[tuple[Precision, frozenset[str]]]:
        """Precisions to try, with the products that int8 is to leave exact."""
        if self.precision == "int8":
            sizes = products(_outline(whole))
            share = sum(sizes.values()) / max(1, weights(_outline(whole)))
            if share < LINEAR:
                refused.append(f"int8: only {100 * share:.0f} % of its weights are linear layers")
                self.told(f"{modality}.onnx: {refused[-1]}")
            else:
                worst: list[str] = []
                for spared in SPARED:
                    if spared and not worst:
                        bent = errors(onnx.load(whole), self._feeds(modality), self.folder / "probe.onnx")
                        worst = sorted(bent, key=lambda name: -bent[name])
                        for path in self.folder.glob("probe.onnx*"):
                            path.unlink()
                    yield "int8", frozenset(worst[: round(spared * len(sizes))])
        if self.precision != "fp32":
            yield "fp16", frozenset()
        yield "fp32", frozenset()

    def _write_graph(
        self, modality: Modality, whole: Path, precision: Precision, exact: frozenset[str]
    ) -> None:
        tower, path = self.fields["towers"][str(modality)], self.folder / f"{modality}.onnx"
        model = onnx.load(whole)  # anew each time: a graph beyond 2 GiB cannot be copied in memory
        if precision == "int8":
            quantise(model, exact)
        elif precision == "fp16":
            halve(model)
        large = save(model, path)
        tower["precision"] = {"fp32": "float32", "fp16": "float16 weights", "int8": "int8"}[precision]
        if modality is Modality.TEXT:  # the layout of pictures is chosen by processor, when a graph is loaded
            # The casts of float16 are folded when it is loaded; a graph beyond 2 GiB cannot be saved again.
            tower["optimised"] = precision != "fp16" and not large
            if tower["optimised"]:
                plain = path.with_name("plain.onnx")
                path.rename(plain)
                optimise(plain, path)
                plain.unlink()

    def _encode(self, modality: Modality) -> Vectors:
        self._seal()
        encoder = OnnxEncoder(self.folder, threads=self.threads)
        if modality is Modality.IMAGE:
            return encoder.encode_images(self.real.pictures)
        return encoder.encode_texts(self.real.texts)

    def _feeds(self, modality: Modality) -> dict[str, NDArray[Any]]:
        if modality is Modality.IMAGE:
            return {PIXELS: self.encoder.preprocess.pixels(self.real.pictures[:PROBED])}
        ids = self.encoder.load().tokenizer(list(self.real.texts[:PROBED])).numpy()
        return {IDS: ids}

    def _scores(self) -> None:
        """`nothing_below`, means and spreads from the general set: 64 photos, each with its captions."""
        rows = general()
        photos = list(dict.fromkeys(photo for photo, _ in rows))
        found = self.real.vectors
        best = (found[Modality.TEXT][: len(rows)] @ found[Modality.IMAGE][: len(photos)].T).max(axis=1)
        first = [next(n for n, row in enumerate(rows) if row[0] == photo) for photo in photos]
        alike = {
            Modality.IMAGE: found[Modality.IMAGE][: len(photos)],
            Modality.TEXT: found[Modality.TEXT][first],
        }
        means = means_of(alike)
        spreads = spreads_of(alike, means)
        arrays: dict[str, Any] = {str(modality): mean for modality, mean in means.items()}
        np.savez(self.folder / "means.npz", **arrays)
        self.fields["scores"] = {
            "image": {"nothing_below": round(float(np.percentile(best, 5)), 3)},
            "means": "means.npz",
            "spreads": {str(asked): dict(row) for asked, row in spreads.items()},
        }

    def _canonical(self) -> None:
        """Canonical inputs with the vectors of torch: what every later export and copy is compared with."""
        shown, said = pictures(), list(TEXTS)
        np.savez_compressed(
            self.folder / "canonical.npz",
            images=np.stack([np.asarray(picture) for picture in shown]),
            image_vectors=self.real.vectors[Modality.IMAGE][-len(shown) :],
            texts=np.array(said),
            text_vectors=self.real.vectors[Modality.TEXT][-len(said) :],
        )
        self.fields["canonical"] = "canonical.npz"

    def _seal(self) -> None:
        """Write model.json with the hashes of all files."""
        kept = [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        self.fields["files"] = {
            path.name: {"sha256": sha256(path), "bytes": path.stat().st_size}
            for path in kept
            if path.name not in ("model.json", "MODEL_CARD.md")
        }
        (self.folder / "model.json").write_text(json.dumps(self.fields, indent=1) + "\n", "utf-8")


def _outline(path: Path) -> onnx.ModelProto:
    """A graph, perhaps without its weights."""
    return onnx.load(path, load_external_data=False)


def _origin(source: Source) -> dict[str, Any]:
    """What the export was made from; `Source.exported` compares it with what is there."""
    path = weights_file(source)
    stat = path.stat()
    return {
        "weights": path.name,
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "sha256": sha256(path),
    }


def _is_export(folder: Path) -> bool:
    """Whether nothing is lost if the folder is replaced: it is empty, or was written by an export."""
    if not folder.is_dir():
        return False
    try:
        fields = json.loads((folder / "model.json").read_text("utf-8"))
    except (OSError, ValueError):
        return not any(folder.iterdir())
    return isinstance(fields, dict) and "exported" in fields


def _put(folder: Path, out: Path) -> None:
    """Make the finished folder the one at `out`, whatever is there."""
    folder.chmod(0o755)
    if out.exists():
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        out.rename(old / "old")
        folder.rename(out)
        shutil.rmtree(old)
    else:
        folder.rename(out)
