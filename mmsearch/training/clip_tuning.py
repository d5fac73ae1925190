"""``mmsearch train`` for open_clip models: from pairs and a base to a ``local-dir`` of its own, with its card.

A tower that stays runs once for each thing. Of one that learns, everything that goes in is decoded once, so that a file
that cannot be read is told before training starts.
"""

import copy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsearch.config import Device
from mmsearch.encoders.onnx import CANONICAL_COSINE
from mmsearch.encoders.open_clip import OpenClipEncoder, OpenClipModel
from mmsearch.encoders.open_clip_config import read_config
from mmsearch.encoders.sources import CONFIG, Source, find_source
from mmsearch.encoders.torch_device import bfloat16_is_fast
from mmsearch.encoding import Progress, encode
from mmsearch.errors import ConfigError, ModelError
from mmsearch.manifests import Media
from mmsearch.tables import Problems
from mmsearch.training.card import draw_curves, write_card
from mmsearch.training.clip_features import Pixels, keep_pixels, tokens_of
from mmsearch.training.clip_folder import licence_of, opened, write_clip_model
from mmsearch.training.clip_learner import ClipLearner, ClipOptions
from mmsearch.training.clip_parts import LowRank, fold_head, unfreeze_all, unfreeze_last
from mmsearch.training.dataset import Dataset
from mmsearch.training.finetune import Epoch, Side, learn
from mmsearch.training.outcome import (
    Floats,
    Trained,
    changes,
    fingerprint,
    general_results,
    media_of,
    media_side,
    results_among,
)
from mmsearch.training.residual import Features, ResidualHead
from mmsearch.types import Modality

WORK = ".training"
COMPARED = 16


def tune_clip(
    table: Path,
    dataset: Dataset,
    source: Source,
    out: Path,
    options: ClipOptions,
    *,
    onnx: bool = False,
    resume: bool = False,
    device: Device = "auto",
    threads: int | None = None,
    encoding: Progress = lambda done, total: None,
    epochs: Callable[[Epoch], None] = lambda epoch: None,
    stop_after: int | None = None,
) -> Trained:
    """Train the open_clip model `source` on the pairs of `table` and write it into the folder `out`.

    An interrupted run leaves its checkpoint in `out`, and `resume` goes on from it. With `onnx` the new model is
    exported, too.

    Raises MediaError that names table and rows, ConfigError if `out` is taken, an option is not for this model or the
    checkpoint is of something else, and ModelError if the pairs have sounds, the model is not on this machine, or no
    epoch was better than the base on the validation items.
    """
    if any((out / name).exists() for name in (CONFIG, "model.json")):
        raise ConfigError(f"{out}: there is a model already; give another folder with --out")
    if lacking := set(dataset.modalities) - OpenClipEncoder.modalities:
        raise ModelError(
            f"{source.short}: the model has no {' and no '.join(lacking)} tower, and the pairs have such media"
        )
    encoder = OpenClipEncoder(source, threads=threads, device=device, precision="fp32")
    config = copy.deepcopy(read_config(source))
    loaded = encoder.load()
    loaded.model.requires_grad_(False)
    place = str(next(loaded.model.parameters()).device)
    out.mkdir(parents=True, exist_ok=True)
    media = media_of(dataset)
    told = fingerprint(encoder.fingerprint.encode(), media)
    trained = [options.only] if options.only else [Modality.IMAGE, Modality.TEXT]
    kept = out / WORK / f"features-{told[:16]}"
    features = _features(encoder, loaded, media, [] if options.head else trained, table, kept, encoding)
    general = general_results(encoder)  # while the network is as it came
    train, validation = media_side(dataset.train, media), media_side(dataset.validation, media)
    torch.manual_seed(options.seed)
    heads = {
        modality: ResidualHead(encoder.space.dim, "linear", bias=False).to(place)
        for modality in (trained if options.head else ())
    }
    for modality, given in features.items():
        features[modality] = given.to(place)
    changed = _choose(loaded.model, features, trained, options)
    learner = ClipLearner(
        loaded.model, features, train, validation, options, heads=heads, mixed=_bfloat16_pays(place)
    ).to(place)
    before = _validation_vectors(learner, validation)
    try:
        best, history = learn(
            learner,
            train.weights,
            options,
            longest=options.longest,
            checkpoint=out / WORK / "checkpoint.pt",
            fingerprint=told,
            resume=resume,
            stop_after=stop_after,
            progress=epochs,
        )
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"{source.short}: the GPU has no memory for {options.chunk} at a time. Give a lower --chunk, or "
            "--checkpoint-activations, and go on with --resume if there was an epoch"
        ) from error
    if best == 0:
        raise ModelError(
            f"{out}: no epoch found more validation items than the base model does, so no model was written. Give more "
            "pairs, a lower --rate, or train something else: --head, --lora, --unfreeze"
        )
    after = _validation_vectors(learner, validation)
    learner.eval()
    if changed is not None:
        changed.merge()
    for modality, head in heads.items():
        fold_head(loaded.model, config["model_cfg"], modality, head.maps[0].weight)
    if learner.bias is not None and getattr(loaded.model, "logit_bias", None) is None:
        loaded.model.logit_bias = learner.bias
        config["model_cfg"]["init_logit_bias"] = float(learner.bias.detach())
    space = write_clip_model(encoder, loaded, config, out, options, trained)
    written = opened(out, threads)
    if wrong := _unlike(written, after, media):
        (out / CONFIG).unlink()
        raise ModelError(f"{out}: the written model does not give what was trained: {wrong}")
    outcome = Trained(
        out=out,
        base=source.short,
        space=space,
        licence=f"{licence_of(source, config)}; trained on the pairs of their owner",
        options=options,
        what=_described(options, trained),
        loss="InfoNCE (`ClipLoss` of open_clip)"
        if options.loss == "infonce"
        else "Sigmoid loss (`SigLipLoss` of open_clip)",
        trained=trained,
        untrained=sorted(OpenClipEncoder.modalities - set(trained)),
        layers={},
        table=table,
        rows=dataset.rows,
        left_out=dataset.left_out,
        items=(len(dataset.train), len(dataset.validation)),
        media={modality: dataset.count(modality) for modality in dataset.modalities},
        best=best,
        history=history,
        validation=changes(results_among(before, validation), results_among(after, validation)),
        general=changes(general, general_results(written)),
        fusion={},
    )
    draw_curves(history, best, out / "curves.png")
    write_card(outcome, out / "MODEL_CARD.md")
    if onnx:
        _export(out, threads)
    shutil.rmtree(out / WORK)
    return outcome


def _bfloat16_pays(place: str) -> bool:
    if place.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bfloat16_is_fast()


def _features(
    encoder: OpenClipEncoder,
    loaded: OpenClipModel,
    media: Mapping[Modality, Sequence[Media]],
    running: Sequence[Modality],
    table: Path,
    kept: Path,
    progress: Progress,
) -> dict[Modality, Any]:
    """What goes into each tower, or, of those that are not `running`, the vectors that come out. Pictures and vectors
    are kept in files for a run that goes on later.
    """
    kept.mkdir(parents=True, exist_ok=True)
    problems = Problems(table)
    total = sum(map(len, media.values()))
    features: dict[Modality, Any] = {}
    done = 0
    for modality, found in media.items():

        def show(count: int, _: int, before: int = done) -> None:
            progress(before + count, total)

        path = kept / f"{modality}.npy"
        if modality not in running:
            vectors = np.load(path) if path.is_file() else encode(encoder, found, problems, show)[0]
            if not problems:
                np.save(path, vectors)
            features[modality] = torch.from_numpy(vectors)
        elif modality is Modality.IMAGE:
            features[modality] = keep_pixels(encoder, found, problems, kept / "pixels.npy", show)
        else:
            features[modality] = tokens_of(loaded.tokenizer, found)
        done += len(found)
        progress(done, total)
    problems.raise_any()
    return features


def _choose(
    model: Any, features: Mapping[Modality, Features], trained: Sequence[Modality], options: ClipOptions
) -> LowRank | None:
    """Make learn what the options name, heads aside."""
    if options.lora:
        return LowRank(model, trained, options.lora)
    for modality in trained if options.everything or options.unfreeze else ():
        if options.everything:
            unfreeze_all(model, modality)
            continue

        def run(given: Features = features[modality], which: Modality = modality) -> Tensor:
            one = given[torch.tensor([0])]
            assert isinstance(one, Tensor)
            found = (
                model.encode_image(given.normalised(one))
                if isinstance(given, Pixels)
                else model.encode_text(one)
            )
            assert isinstance(found, Tensor), which
            return found

        unfreeze_last(model, modality, options.unfreeze, run)
    return None


def _validation_vectors(learner: ClipLearner, side: Side) -> dict[Modality, Floats]:
    """Vectors of what there is to validate on, in the rows of all media; the others are zeros."""
    found = {}
    for modality, owned in side.owned.items():
        rows = owned[owned >= 0].unique()
        vectors = learner.encode(modality, learner.features[modality], rows).cpu()
        whole = torch.zeros(len(learner.features[modality]), vectors.shape[1])
        whole[rows] = vectors
        found[modality] = whole.numpy()
    return found


def _unlike(
    encoder: OpenClipEncoder, vectors: Mapping[Modality, Floats], media: Mapping[Modality, Sequence[Media]]
) -> str:
    """The tower whose vectors differ from what was trained, measured on a few media of each."""
    for modality, some in media.items():
        rows = np.flatnonzero(np.abs(vectors[modality]).sum(1))[:COMPARED]
        given, _ = encode(encoder, [some[row] for row in rows], Problems(encoder.source.folder))
        cosine = float((given * vectors[modality][rows]).sum(1).mean())
        if not cosine >= CANONICAL_COSINE:
            return f"{modality} tower: the mean cosine is {cosine:.4f}, below {CANONICAL_COSINE}"
    return ""


def _described(options: ClipOptions, trained: Sequence[Modality]) -> str:
    """What was trained, in words."""
    towers = f"its {' and '.join(trained)} tower{'s' if len(trained) > 1 else ''}"
    if options.head:
        return f"a trained linear head, folded into the last layer of {towers}"
    if options.lora:
        return f"low-rank changes (LoRA, rank {options.lora}) of {towers}, added to the weights"
    if options.everything:
        return f"all of {towers} trained"
    return f"the last {options.unfreeze} blocks of {towers} trained, with what comes behind them"


def _export(out: Path, threads: int | None) -> None:
    """Write the two towers of the new model as ONNX, below its folder, where they are found."""
    source = find_source(f"local-dir:{out.absolute()}")
    assert source is not None
    from mmsearch.training.export_clip import export_model  # brings the tools of ONNX along

    export_model(source, threads=threads)
