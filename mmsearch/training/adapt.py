"""``mmsearch train``: from a person's pairs and a base model to a model folder of its own, with its card.

What does not learn runs once for each thing; heads and last layers are fitted to what it gives and put behind or into
the graphs of the base. What the new model forgets is measured on a general set that never changes.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mmsearch.encoders.onnx import CANONICAL_COSINE, OnnxEncoder, verify
from mmsearch.encoding import Progress, encode
from mmsearch.errors import ConfigError, ModelError
from mmsearch.manifests import Media
from mmsearch.tables import Problems
from mmsearch.training.activations import Activations, record
from mmsearch.training.card import draw_curves, write_card
from mmsearch.training.cut import cut
from mmsearch.training.dataset import Dataset
from mmsearch.training.finetune import Epoch, Options, fit
from mmsearch.training.folder import fields_of, scores_of, whole, write_model
from mmsearch.training.fusion import figures, fit_fusion
from mmsearch.training.outcome import (
    Trained,
    changes,
    fingerprint,
    general_results,
    media_of,
    media_side,
    results_among,
)
from mmsearch.training.residual import Features
from mmsearch.training.unfrozen import UnfrozenTower
from mmsearch.types import Modality

Floats = NDArray[np.float32]
Vectors = Mapping[Modality, Floats]

WORK = ".training"
COMPARED = 16


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
    media = media_of(dataset)
    told = fingerprint((base / "model.json").read_bytes(), media)
    towers = _unfrozen(base, options, modalities)
    vectors, features = _features(
        encoder, towers, media, table, out / WORK / f"features-{told[:16]}", threads, encoding
    )
    train, validation = media_side(dataset.train, media), media_side(dataset.validation, media)
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
    trained = Trained(
        out=out,
        base=fields_of(base)["name"],
        space=space,
        licence=fields_of(out)["licence"],
        options=options,
        what=_described(
            options, fitted.heads.trained, {one: tower.cut.layers for one, tower in towers.items()}
        ),
        loss=f"{'Multi-positive InfoNCE' if options.loss == 'infonce' else 'Sigmoid loss'}, among texts "
        f"{options.among_texts:g}",
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
        validation=changes(results_among(vectors, validation), results_among(moved, validation)),
        general=changes(general_results(encoder), general_results(written)),
        fusion=figures(fusion, moved, validation) if fusion else {},
    )
    draw_curves(fitted.history, fitted.best, out / "curves.png")
    write_card(trained, out / "MODEL_CARD.md")
    shutil.rmtree(out / WORK)
    return trained


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


def _described(options: Options, trained: Sequence[Modality], layers: Mapping[Modality, int]) -> str:
    """What was trained, in words."""
    parts = []
    if layers:
        counts = " and ".join(f"{count} of its {modality} tower" for modality, count in layers.items())
        parts.append(
            f"its last layers trained ({counts}: those at most {options.unfreeze} before the vectors)"
        )
    if options.head:
        parts.append(f"a trained {options.head} head on its {' and '.join(trained)} tower")
    return " and ".join(parts)


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
