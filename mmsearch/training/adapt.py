"""``mmsearch train``: from a person's pairs and a base model to a model folder of its own, with its card.

What does not learn runs once for each thing; heads and last layers are fitted to what it gives and put behind or into
the graphs of the base. What the new model forgets is measured on a general set that never changes.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmsearch.encoders.onnx import CANONICAL_COSINE, OnnxEncoder, verify
from mmsearch.encoding import Progress, encode
from mmsearch.errors import ConfigError, ModelError
from mmsearch.evaluate import Figure, Result, compare, evaluate, retrieve
from mmsearch.manifests import Media, read_manifest
from mmsearch.measures import retrieval_measures
from mmsearch.tables import Problems
from mmsearch.training.activations import Activations, record
from mmsearch.training.card import draw_curves, write_card
from mmsearch.training.cut import cut
from mmsearch.training.dataset import Dataset, Item
from mmsearch.training.finetune import Epoch, Options, Side, fit, side_of
from mmsearch.training.folder import fields_of, scores_of, whole, write_model
from mmsearch.training.fusion import figures, fit_fusion
from mmsearch.training.residual import Features
from mmsearch.training.unfrozen import UnfrozenTower
from mmsearch.types import Modality

Floats = NDArray[np.float32]
Vectors = Mapping[Modality, Floats]

GENERAL = Path(__file__).parent / "general" / "captions.csv"
WORK = ".training"
COMPARED = 16


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
    """What a training came to. `untrained` towers kept their vectors; `layers` counts those that were unfrozen, `media`
    (train, validation) by modality; `fusion` has, for items fused from everything and from each modality alone, how
    well their other texts find them.
    """

    out: Path
    base: str
    space: str
    licence: str
    options: Options
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


def train_model(
    table: Path,
    dataset: Dataset,
    base: Path,
    out: Path,
    options: Options,
    *,
    resume: bool = False,
    threads: int | None = None,
    encoding: Progress = lambda done, total: None,
    epochs: Callable[[Epoch], None] = lambda epoch: None,
    stop_after: int | None = None,
) -> Trained:
    """Train heads or last layers for the model folder `base` on the pairs of `table`; write the model folder `out`.

    Everything is encoded first, so that a file that cannot be read is told before training starts. An interrupted run
    leaves its checkpoint in `out`, and `resume` goes on from it.

    Raises MediaError that names table and rows, ConfigError if `out` is taken or the checkpoint is of something else,
    and ModelError if the base lacks a tower, or if no epoch was better than the base on the validation items.
    """
    if (out / "model.json").exists():
        raise ConfigError(f"{out}: there is a model already; give another folder with --out")
    encoder = OnnxEncoder(base, threads=threads)
    modalities = dataset.modalities
    if lacking := sorted(set(modalities) - encoder.modalities):
        raise ModelError(
            f"{base}: the model has no {' and no '.join(lacking)} tower, and the pairs have such media"
        )
    if options.only is not None and options.only not in modalities:
        raise ConfigError(
            f"{table}: the pairs have no {options.only}, so --only {options.only} trains nothing"
        )
    out.mkdir(parents=True, exist_ok=True)
    media = {
        modality: list(
            dict.fromkeys(
                found
                for item in (*dataset.train, *dataset.validation)
                for found in item.media.get(modality, ())
            )
        )
        for modality in modalities
    }
    told = _fingerprint(base, media)
    towers = _unfrozen(base, options, modalities)
    vectors, features = _features(
        encoder, towers, media, table, out / WORK / f"features-{told[:16]}", threads, encoding
    )
    train, validation = _side(dataset.train, media), _side(dataset.validation, media)
    fitted = fit(
        features,
        train,
        validation,
        options,
        dim=encoder.space.dim,
        towers=towers,
        checkpoint=out / WORK / "checkpoint.pt",
        fingerprint=told,
        resume=resume,
        stop_after=stop_after,
        progress=epochs,
    )
    if fitted.best == 0:
        raise ModelError(
            f"{out}: no epoch found more validation items than the base model does, so no model was written. Give more "
            "pairs, another --head, --unfreeze or --loss, or a lower --rate"
        )
    moved = {
        modality: fitted.heads.encode(modality, found).float().numpy() for modality, found in features.items()
    }
    fusion = fit_fusion(moved, train, validation, options) if options.fusion else None
    scores = scores_of(encoder, moved, dataset, media)
    space = write_model(encoder, out, fitted, options, table, scores, fusion)
    written = OnnxEncoder(out, threads=threads)
    if problems := verify(out, threads=threads) or _unlike(written, moved, media):
        raise ModelError(f"{out}: the written model does not give what was trained: {problems[0]}")
    changes = {
        new.name: _change(old, new)
        for old, new in zip(_results(vectors, validation), _results(moved, validation), strict=True)
    }
    trained = Trained(
        out=out,
        base=fields_of(base)["name"],
        space=space,
        licence=fields_of(out)["licence"],
        options=options,
        trained=fitted.heads.trained,
        untrained=sorted(encoder.modalities - set(fitted.heads.trained)),
        layers={modality: tower.cut.layers for modality, tower in towers.items()},
        table=table,
        rows=dataset.rows,
        left_out=dataset.left_out,
        items=(len(dataset.train), len(dataset.validation)),
        media={modality: dataset.count(modality) for modality in modalities},
        best=fitted.best,
        history=fitted.history,
        validation=changes,
        general=_forgotten(encoder, written),
        fusion=figures(fusion, moved, validation) if fusion else {},
    )
    draw_curves(fitted.history, fitted.best, out / "curves.png")
    write_card(trained, out / "MODEL_CARD.md")
    shutil.rmtree(out / WORK)
    return trained


def _fingerprint(base: Path, media: Mapping[Modality, Sequence[Media]]) -> str:
    """What names the base and everything that is encoded: files by path, size and time."""
    digest = hashlib.sha256((base / "model.json").read_bytes())
    for modality, found in media.items():
        for one in found:
            known = str(one.content)
            if isinstance(one.content, Path):
                status = one.content.stat()
                known = f"{known} {status.st_size} {status.st_mtime_ns}"
            digest.update(f"{modality} {known}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _unfrozen(base: Path, options: Options, modalities: Sequence[Modality]) -> dict[Modality, UnfrozenTower]:
    """The last layers of each tower that learns, if they are to."""
    if not options.unfreeze:
        return {}
    fields, files = whole(base)
    towers = fields["towers"]
    return {
        modality: UnfrozenTower(
            cut(files[towers[modality]["file"]], towers[modality]["output"], options.unfreeze)
        )
        for modality in ([options.only] if options.only else modalities)
    }


def _features(
    encoder: OnnxEncoder,
    towers: Mapping[Modality, UnfrozenTower],
    media: Mapping[Modality, Sequence[Media]],
    table: Path,
    kept: Path,
    threads: int | None,
    progress: Progress,
) -> tuple[dict[Modality, Floats], dict[Modality, Features]]:
    """Vectors of all media, and what is trained on: the same, or what comes in at the cut. Both are kept in files for a
    run that goes on later.
    """
    kept.mkdir(parents=True, exist_ok=True)
    problems = Problems(table)
    total = sum(map(len, media.values()))
    vectors: dict[Modality, Floats] = {}
    features: dict[Modality, Features] = {}
    done = 0
    for modality, found in media.items():

        def show(count: int, _: int, before: int = done) -> None:
            progress(before + count, total)

        path = kept / f"{modality}.npy"
        if modality in towers:
            vectors[modality] = record(
                encoder,
                towers[modality].cut,
                modality,
                found,
                problems,
                path.with_suffix(f".{towers[modality].cut.depth}"),
                threads=threads,
                progress=show,
            )
        elif path.is_file():
            vectors[modality] = np.load(path)
        else:
            vectors[modality], _ = encode(encoder, found, problems, show)
            if not problems:
                partial = path.with_suffix(".part.npy")
                np.save(partial, vectors[modality])
                os.replace(partial, path)
        done += len(found)
    problems.raise_any()
    for modality in media:
        if modality in towers:
            features[modality] = Activations(kept / f"{modality}.{towers[modality].cut.depth}")
        else:
            features[modality] = torch.from_numpy(vectors[modality])
    return vectors, features


def _unlike(
    encoder: OnnxEncoder, vectors: Mapping[Modality, Floats], media: Mapping[Modality, Sequence[Media]]
) -> list[str]:
    """Towers whose vectors differ from what was trained, measured on a few media of each."""
    found = []
    for modality, some in media.items():
        given, _ = encode(encoder, some[:COMPARED], Problems(encoder.folder))
        cosine = float((given * vectors[modality][:COMPARED]).sum(1).mean())
        if cosine < CANONICAL_COSINE:
            found.append(f"{modality} tower: the mean cosine is {cosine:.4f}, below {CANONICAL_COSINE}")
    return found


def _side(items: Sequence[Item], media: Mapping[Modality, Sequence[Media]]) -> Side:
    row = {modality: {one: n for n, one in enumerate(found)} for modality, found in media.items()}
    return side_of(
        [
            {modality: [row[modality][one] for one in item.media[modality]] for modality in media}
            for item in items
        ],
        [item.weight for item in items],
    )


def _results(vectors: Vectors, side: Side) -> Iterator[Result]:
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


def _forgotten(base: OnnxEncoder, new: OnnxEncoder) -> dict[str, dict[str, Change]]:
    """Base and new model on the general set; empty if they have no two towers for it."""
    if Modality.TEXT not in base.modalities:
        return {}
    manifest = read_manifest(GENERAL)
    before, after = (evaluate(encoder, manifest).results for encoder in (base, new))
    return {now.name: _change(then, now) for then, now in zip(before, after, strict=True)}


def _change(old: Result, new: Result) -> dict[str, Change]:
    before, after, difference = old.figures(), new.figures(), compare(old, new)
    return {name: Change(before[name], after[name], difference[name]) for name in before}
