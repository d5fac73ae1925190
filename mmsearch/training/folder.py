"""The model folder of a trained model: the files of its base, with heads behind the graphs of the trained towers."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.manifests import Media
from mmsearch.training.centring import means_of, spreads_of
from mmsearch.training.dataset import Dataset
from mmsearch.training.export import append_head
from mmsearch.training.finetune import Fit, Options
from mmsearch.training.fusion import FILE, Fusion, export_fusion
from mmsearch.types import Modality, Vector

Floats = NDArray[np.float32]
Vectors = Mapping[Modality, Floats]

GALLERY = 1000  # items that scores are measured among, as those of the built-in model were
ENOUGH = 20  # items that tell a percentile


@dataclasses.dataclass(frozen=True)
class Scores:
    """What model.json says about scores: ``nothing_below``, and what brings several modalities to one scale."""

    levels: Mapping[Modality, float]
    means: Mapping[Modality, Vector]
    spreads: Mapping[Modality, Mapping[Modality, float]]


def scores_of(
    encoder: OnnxEncoder, vectors: Vectors, dataset: Dataset, media: Mapping[Modality, Sequence[Media]]
) -> Scores:
    """The scores of the new model, measured like those of the built-in one; what the base does not have is left out.

    Measured on the validation items, with items that were trained on where they are few. What the pairs cannot tell
    (of a modality that they do not have, or how captions of a photo compare where none has two) is the base's.
    """
    items = (*dataset.validation, *dataset.train)[:GALLERY]
    row = {modality: {one: n for n, one in enumerate(found)} for modality, found in media.items()}
    owned = {
        modality: [[row[modality][one] for one in item.media[modality]] for item in items]
        for modality in media
    }
    levels = dict(encoder.levels)
    words = owned.get(Modality.TEXT, [])
    galleries: dict[Modality, list[int]] = {}
    asking: dict[Modality, list[int]] = {}
    for modality in media:
        galleries[modality] = [rows[0] for rows in owned[modality] if rows]
        asking[modality] = [n for rows in words for n in rows]
    several = [rows for rows in words if len(rows) > 1]
    asking[Modality.TEXT] = [rows[0] for rows in several]
    galleries[Modality.TEXT] = [n for rows in several for n in rows[1:]]
    for modality in levels:
        if len(asking.get(modality, ())) >= ENOUGH:
            gallery = vectors[modality][galleries[modality]]
            best = (vectors[Modality.TEXT][asking[modality]] @ gallery.T).max(1)
            levels[modality] = round(float(np.percentile(best, 5)), 2)
    if not encoder.spreads:
        return Scores(levels, {}, {})
    whole = [n for n in range(len(items)) if all(owned[modality][n] for modality in media)]
    if len(whole) < ENOUGH:
        return Scores(levels, encoder.means, encoder.spreads)
    alike = {modality: vectors[modality][[rows[n][0] for n in whole]] for modality, rows in owned.items()}
    means = {**encoder.means, **means_of(alike)}
    found = spreads_of(alike, means)
    spreads = {asked: {**base, **found.get(asked, {})} for asked, base in encoder.spreads.items()}
    return Scores(levels, means, spreads)


def write_model(
    encoder: OnnxEncoder,
    out: Path,
    fitted: Fit,
    options: Options,
    table: Path,
    scores: Scores,
    fusion: Fusion | None = None,
) -> str:
    """Write graphs, tokenizer, canonical vectors and ``model.json``; returns the space id."""
    fields, sources = whole(encoder.folder)
    learned = " and ".join(
        [*(["last layers"] if options.unfreeze else []), *(["heads"] if options.head else [])]
    )
    trained = [modality.value for modality in fitted.heads.trained]
    for name, path in sources.items():
        shutil.copyfile(path, out / name)
    np.savez_compressed(out / fields["canonical"], **canonical_arrays(encoder.folder))
    digest = hashlib.sha256()
    for name in trained:
        tower = fields["towers"][name]
        path = out / tower["file"]
        if name in fitted.heads.towers:
            fitted.heads.towers[name].write(path)
        if name in fitted.heads.heads:
            append_head(path, path, tower["output"], fitted.heads.heads[name].layers())
        digest.update(path.read_bytes())
    name = out.resolve().name
    space = fields["space"] if options.only else {**fields["space"], "id": f"{name}-{digest.hexdigest()[:8]}"}
    fields |= {
        "name": name,
        "version": "1.0",
        "description": f"{fields['name']} with {learned} trained on {table.name}",
        "licence": f"{fields.get('licence', 'unknown')}; {learned} trained on the pairs of their owner",
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
    # A fusion of the base was made for its own vectors.
    if replaced := fields.pop("fusion", None):
        fields["files"].pop(replaced["file"], None)
        (out / replaced["file"]).unlink()
    if fusion is not None:
        fields["fusion"] = export_fusion(fusion, encoder.space.dim, out / FILE)
        fields["files"][FILE] = {}
    told = fields.get("scores", {}) | {
        modality.value: {"nothing_below": level} for modality, level in scores.levels.items()
    }
    if scores.spreads:
        told["spreads"] = scores.spreads
        arrays: dict[str, Any] = {modality.value: mean for modality, mean in scores.means.items()}
        np.savez(out / told["means"], **arrays)
    if told:
        fields["scores"] = told
    seal(out, fields)
    _write_canonical(OnnxEncoder(out), out / fields["canonical"], trained)
    seal(out, fields)  # now with the hash of the canonical vectors
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
    if Modality.AUDIO in trained:
        arrays["sound_vectors"] = encoder.encode_audio(list(arrays["sounds"]))
    np.savez_compressed(path, **arrays)


def seal(out: Path, fields: dict[str, Any]) -> None:
    """Write ``model.json`` with the hashes of the files that it lists."""
    fields["files"] = {
        name: {
            "sha256": hashlib.sha256((out / name).read_bytes()).hexdigest(),
            "bytes": (out / name).stat().st_size,
        }
        for name in fields["files"]
    }
    (out / "model.json").write_text(json.dumps(fields, indent=1) + "\n", "utf-8")


def whole(folder: Path) -> tuple[dict[str, Any], dict[str, Path]]:
    """The fields of ``model.json`` and where each of its files is; of a model that stands on a built-in one, as if the
    towers of that were its own.
    """
    fields = fields_of(folder)
    sources = {name: folder / name for name in fields["files"]}
    if (base := fields.pop("base", None)) is None:
        return fields, sources
    below, files = whole(BUILT_IN_MODELS / base["model"])
    lent = {name: tower for name, tower in below["towers"].items() if name not in fields["towers"]}
    fields["towers"] = lent | fields["towers"]
    fields["scores"] = below.get("scores", {}) | fields.get("scores", {})
    wanted = [*(tower["file"] for tower in lent.values()), below.get("scores", {}).get("means")]
    for name in filter(None, wanted):
        sources.setdefault(name, files[name])
        fields["files"].setdefault(name, {})
    return fields, sources


def canonical_arrays(folder: Path) -> dict[str, Any]:
    """The canonical inputs and vectors, with those of the built-in model that a model stands on."""
    fields = fields_of(folder)
    below = canonical_arrays(BUILT_IN_MODELS / fields["base"]["model"]) if "base" in fields else {}
    with np.load(folder / fields["canonical"]) as found:
        return below | dict(found)


def fields_of(folder: Path) -> dict[str, Any]:
    """``model.json`` as it is; that it is right was checked when the model was loaded."""
    found: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
    return found
