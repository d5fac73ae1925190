"""The model folder of a trained model: the files of its base, with heads behind the graphs of the trained towers."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.manifests import Media
from mmsearch.training.dataset import Dataset
from mmsearch.training.evaluate_mini import ABSENT
from mmsearch.training.export import append_residual
from mmsearch.training.finetune import Fit, Options
from mmsearch.training.residual import Heads
from mmsearch.types import Modality

Floats = NDArray[np.float32]
Vectors = Mapping[Modality, Floats]

GALLERY = 1000  # media that the levels are measured among, as those of the built-in model were


def levels_of(
    encoder: OnnxEncoder,
    heads: Heads,
    vectors: Vectors,
    dataset: Dataset,
    media: Mapping[Modality, Sequence[Media]],
) -> dict[str, float]:
    """``nothing_below`` of the new model, measured like that of the built-in one, if the base has such levels.

    Halfway between the medians of the best scores of texts whose own is there, and of texts about absent things. A
    level that the pairs cannot tell (texts, where no item has two) is the base's.
    """
    levels = {modality.value: level for modality, level in encoder.levels.items()}
    if not levels or Modality.TEXT not in vectors:
        return levels
    with torch.no_grad():
        absent = heads(Modality.TEXT, torch.from_numpy(encoder.encode_texts(ABSENT))).numpy()
    row = {one: n for n, one in enumerate(media[Modality.TEXT])}
    words = [[row[one] for one in item.media[Modality.TEXT]] for item in dataset.validation]
    texts = vectors[Modality.TEXT]
    asking = [n for rows in words for n in rows]

    def halfway(queries: Floats, gallery: Floats) -> float:
        there, away = (float(np.median((found @ gallery.T).max(1))) for found in (queries, absent))
        return round((there + away) / 2, 2)

    for modality, found in vectors.items():
        if modality is not Modality.TEXT and asking:
            # The vectors of the validation items are the last ones.
            levels[modality.value] = halfway(texts[asking], found[-GALLERY:])
    firsts = [rows[0] for rows in words if len(rows) > 1]
    others = [n for rows in words for n in (rows[1:] if len(rows) > 1 else rows)]
    if firsts:
        levels[Modality.TEXT.value] = halfway(texts[firsts], texts[others])
    return levels


def write_model(
    encoder: OnnxEncoder, out: Path, fitted: Fit, options: Options, table: Path, levels: Mapping[str, float]
) -> str:
    """Write graphs, tokenizer, canonical vectors and ``model.json``; returns the space id."""
    base = encoder.folder
    fields = fields_of(base)
    trained = list(fitted.heads.heads)
    for name in fields["files"]:
        shutil.copyfile(base / name, out / name)
    digest = hashlib.sha256()
    for name in trained:
        tower = fields["towers"][name]
        layers = fitted.heads.heads[name].layers()
        digest.update(b"".join(array.tobytes() for layer in layers for array in layer))
        append_residual(base / tower["file"], out / tower["file"], tower["output"], layers)
    name = out.resolve().name
    space = fields["space"] if options.only else {**fields["space"], "id": f"{name}-{digest.hexdigest()[:8]}"}
    fields |= {
        "name": name,
        "version": "1.0",
        "description": f"{fields['name']} with heads trained on {table.name}",
        "licence": f"{fields.get('licence', 'unknown')}; heads trained on the pairs of their owner",
        "space": space,
        "trained": {
            "base": fields["name"],
            "base_space": fields["space"]["id"],
            "towers": trained,
            "options": {
                name: value for name, value in dataclasses.asdict(options).items() if value is not None
            },
        },
    }
    if levels:
        fields["scores"] = fields.get("scores", {}) | {
            modality: {"nothing_below": level} for modality, level in levels.items()
        }
    _seal(out, fields)
    _write_canonical(OnnxEncoder(out), out / fields["canonical"], trained)
    _seal(out, fields)  # now with the hash of the canonical vectors
    return str(space["id"])


def _write_canonical(encoder: OnnxEncoder, path: Path, trained: Sequence[str]) -> None:
    """The inputs of the base with the vectors of the new towers; those of a frozen tower must come out as they were."""
    import PIL.Image

    with np.load(path) as found:
        arrays = dict(found)
    if Modality.IMAGE in trained:
        pictures = [PIL.Image.fromarray(pixels) for pixels in arrays["images"]]
        arrays["image_vectors"] = encoder.encode_images(pictures)
    if Modality.TEXT in trained:
        arrays["text_vectors"] = encoder.encode_texts([str(text) for text in arrays["texts"]])
    np.savez_compressed(path, **arrays)


def _seal(out: Path, fields: dict[str, Any]) -> None:
    """Write ``model.json`` with the hashes of the files that it lists."""
    fields["files"] = {
        name: {
            "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(),
            "bytes": (out / name).stat().st_size,
        }
        for name in fields["files"]
    }
    (out / "model.json").write_text(json.dumps(fields, indent=1) + "\n", "utf-8")


def fields_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
    return found
