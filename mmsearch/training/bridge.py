"""``mmsearch bridge``: a sound tower for a space that has none, learnt from texts alone.

The text tower beside the sound tower and that of the target encode the same texts; a linear map learns to put each text
of the one space where the other has it, and is then put behind the sound tower, whose vectors live where those texts
do. Nothing of the target changes. After C-MCR (Wang et al. 2023, "Connecting Multi-modal Contrastive Representations")
and Ex-MCR (Wang et al. 2023, "Extending Multi-modal Contrastive Representations"), of which what helped is kept:
contrastive loss between the spaces, noise on the texts. Their gap between modalities is closed by centring each on its
own mean (Liang et al. 2022, "Mind the Gap").
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from mmsearch.encoders import BUILT_IN_MODELS, model_folder
from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.encoding import Progress, encode
from mmsearch.errors import ConfigError, ModelError
from mmsearch.evaluate import Figure, evaluate, retrieve
from mmsearch.manifests import Media, read_manifest
from mmsearch.measures import retrieval_measures
from mmsearch.tables import Problems, read_table
from mmsearch.training.audio_source import AudioSource, open_source
from mmsearch.training.bridge_card import write_card
from mmsearch.training.centring import means_of, spreads_of
from mmsearch.training.export import append_head
from mmsearch.training.folder import canonical_arrays, seal, whole
from mmsearch.training.package import canonical_sounds
from mmsearch.types import Modality, Vector, Vectors

Floats = NDArray[np.float32]

CHUNK = 256
HELD_OUT = 500  # texts at most, and one in ten
GENERAL = Path(__file__).parent / "general" / "captions.csv"
AUDIO, MEANS = "audio.onnx", "means.npz"
MEASURED = ("means", "spreads")
NARROWEST, WIDEST = 0.01, 2.0


@dataclasses.dataclass(frozen=True)
class Options:
    """How the map is learnt. ``ridge`` is that of the least squares it starts from (and stays with if ``epochs`` is 0),
    ``noise`` the standard deviation in each dimension, ``scale`` what cosines are multiplied by in the loss.
    """

    epochs: int = 12
    batch: int = 512
    rate: float = 1e-3
    decay: float = 1e-2
    noise: float = 0.02
    scale: float = 20.0
    ridge: float = 1.0
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Bridged:
    """What a bridge came to. ``texts``: learnt from, held out. ``found`` is how often a held-out text, put over the
    bridge, is nearest to itself (and the chance of that); ``general`` has the general set's sounds and captions.
    """

    out: Path
    audio: str
    target: str
    space: str
    licence: str
    corpus: str
    texts: tuple[int, int]
    options: Options
    found: tuple[float, float]
    general: Mapping[str, Mapping[str, Figure]]

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self), default=str))
        return found


def bridge_model(
    audio: str,
    target: str,
    corpus: str,
    texts: Sequence[str],
    out: Path,
    options: Options = Options(),
    *,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Bridged:
    """Write the model folder ``out``: the model ``target`` with the sound tower of ``audio`` brought into its space.

    ``corpus`` is what the card calls ``texts``. Raises ConfigError if ``out`` is taken or both are of one space, and
    ModelError if a model does not exist or lacks the tower that is needed.
    """
    if (out / "model.json").exists():
        raise ConfigError(f"{out}: there is a model already; give another folder with --out")
    folder = model_folder(target)
    encoder = OnnxEncoder(folder, threads=threads)
    if Modality.TEXT not in encoder.modalities:
        raise ModelError(
            f"{folder}: has no text tower, and a bridge is learnt from texts. Give another --model"
        )
    with tempfile.TemporaryDirectory() as work:
        source = open_source(audio, Path(work), threads)
        if source.space == encoder.space.id:
            raise ConfigError(
                f"{audio} and {target} share the space {source.space}: its sound tower needs no bridge"
            )
        total = 2 * len(texts)
        ours = _in_chunks(source.encode_texts, texts, lambda done: progress(done, total))
        theirs = _in_chunks(encoder.encode_texts, texts, lambda done: progress(len(texts) + done, total))
        kept, held = _split(len(texts), options.seed)
        weight = fit(ours[kept], theirs[kept], options)
        fields = _write(source, encoder, out, weight, corpus, len(kept), options)
    made = OnnxEncoder(out, threads=threads)
    if problems := verify(out, threads=threads):
        raise ModelError(f"{out}: the written model does not give what was learnt: {problems[0]}")
    bridged = Bridged(
        out=out,
        audio=source.name,
        target=fields["bridged"]["target"],
        space=made.space.id,
        licence=fields["licence"],
        corpus=corpus,
        texts=(len(kept), len(held)),
        options=options,
        found=(_recall(ours[held], theirs[held], ours[kept].mean(0), weight), 1 / len(held)),
        general=_heard(made),
    )
    write_card(bridged, out / "MODEL_CARD.md")
    return bridged


def fit(ours: Vectors, theirs: Vectors, options: Options) -> Floats:
    """The map (ours, theirs) that takes centred vectors of texts of one space to those of the other.

    ``ours`` (n, d) and ``theirs`` (n, e) are unit vectors of the same n texts. Least squares is the start; then each
    text must be nearest to itself in batches (InfoNCE in both directions), whose vectors of ours are noisy.
    """
    one, other = (_centred(vectors) for vectors in (ours, theirs))
    gram = one.T @ one + options.ridge * np.eye(one.shape[1], dtype=np.float32)
    weight = torch.from_numpy(np.linalg.solve(gram, one.T @ other).astype(np.float32)).requires_grad_()
    if not options.epochs:
        return np.asarray(weight.detach().numpy())
    given, wanted = torch.from_numpy(one), torch.from_numpy(other)
    chance = torch.Generator().manual_seed(options.seed)
    optimiser = torch.optim.AdamW([weight], lr=options.rate, weight_decay=options.decay)
    steps = options.epochs * -(-len(one) // options.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, total_steps=steps, pct_start=0.1)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(given), generator=chance).split(options.batch):
            noise = options.noise * torch.randn(len(rows), given.shape[1], generator=chance)
            loss = _loss(normalize(given[rows] + noise, dim=1) @ weight, wanted[rows], options.scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return np.ascontiguousarray(weight.detach().numpy())


def _loss(put: Tensor, wanted: Tensor, scale: float) -> Tensor:
    scores = scale * normalize(put, dim=1) @ wanted.T
    own = torch.arange(len(scores))
    loss: Tensor = (cross_entropy(scores, own) + cross_entropy(scores.T, own)) / 2
    return loss


def _centred(vectors: Vectors) -> Floats:
    moved = vectors - vectors.mean(0)
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-9), np.float32)


def _in_chunks(
    encode_texts: Callable[[Sequence[str]], Vectors], texts: Sequence[str], progress: Callable[[int], None]
) -> Vectors:
    parts = []
    for start in range(0, len(texts), CHUNK):
        parts.append(encode_texts(texts[start : start + CHUNK]))
        progress(start + len(parts[-1]))
    return np.concatenate(parts)


def _heard(encoder: OnnxEncoder) -> dict[str, dict[str, Figure]]:
    """Measures of the sounds of the general set and their captions."""
    manifest = read_manifest(GENERAL)
    trials = [trial for trial in manifest.trials if trial.name in ("text->audio", "audio->text")]
    found = evaluate(encoder, dataclasses.replace(manifest, trials=trials)).results
    return {result.name: result.figures() for result in found}


def _split(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows to learn from and rows held out."""
    rows = np.random.default_rng(seed).permutation(count)
    held = min(HELD_OUT, count // 10)
    return np.sort(rows[held:]), np.sort(rows[:held])


def _recall(ours: Vectors, theirs: Vectors, mean: Vector, weight: Floats) -> float:
    put = np.asarray((ours - mean) @ weight, np.float32)
    put /= np.maximum(np.linalg.norm(put, axis=1, keepdims=True), 1e-9)
    ranks = retrieve(put, theirs, [np.array([row]) for row in range(len(put))]).ranks
    return float(retrieval_measures(ranks, len(theirs))["recall@1"].value)


def _write(
    source: AudioSource,
    encoder: OnnxEncoder,
    out: Path,
    weight: Floats,
    corpus: str,
    learnt: int,
    options: Options,
) -> dict[str, Any]:
    """The target's files with the bridged tower; returns ``model.json``. It holds all files, so it can be moved."""
    fields, files = whole(encoder.folder)
    fusion = fields.get("fusion")
    if fusion and "audio" in fusion["inputs"].values():  # made for another sound tower
        files.pop(fields.pop("fusion")["file"], None)
    if old := fields["towers"].pop("audio", None):
        files.pop(old["file"], None)
    out.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        shutil.copyfile(path, out / name)
    layer = (weight, -source.mean @ weight)
    append_head(source.graph, out / AUDIO, source.tower["output"], [layer], residual=False)
    target = fields.get("name", encoder.folder.name)
    scores = {
        name: told for name, told in fields.get("scores", {}).items() if name not in (*MEASURED, "audio")
    }
    fields |= {
        "name": out.resolve().name,
        "version": "1.0",
        "description": f"{target} with the sound tower of {source.name}, brought into its space by texts alone",
        "licence": f"{fields.get('licence', 'unknown')}; sound tower: {source.licence}",
        "towers": {**fields["towers"], "audio": {**source.tower, "file": AUDIO}},
        "scores": scores,
        "bridged": {
            "target": target,
            "audio": source.name,
            "audio_space": source.space,
            "corpus": corpus,
            "texts": learnt,
            "options": dataclasses.asdict(options),
        },
        "files": {name: {} for name in (*files, AUDIO)},
    }
    seal(out, fields)
    made = OnnxEncoder(out)
    sounds = canonical_sounds(source.tower["sample_rate"])
    arrays = canonical_arrays(encoder.folder) | {
        "sounds": sounds,
        "sound_vectors": made.encode_audio(list(sounds)),
    }
    np.savez_compressed(out / fields["canonical"], **arrays)
    means, spreads = _scales(encoder, made)
    stored: dict[str, Any] = {str(modality): mean for modality, mean in means.items()}
    np.savez(out / MEANS, **stored)
    fields["scores"] = {**scores, "means": MEANS, "spreads": spreads}
    fields["files"] |= {MEANS: {}}
    seal(out, fields)
    return fields


def _scales(
    target: OnnxEncoder, made: OnnxEncoder
) -> tuple[dict[Modality, Vector], dict[Modality, dict[Modality, float]]]:
    """Means and spreads of the new model: those of the target as far as it has them, the rest from the general set.

    That set is small and its items are unlike each other. So a spread on it counts by the one that mini, whose spreads
    are known from thousands of items, has there.
    """
    known = dict(target.means)
    known.pop(Modality.AUDIO, None)
    mini = OnnxEncoder(BUILT_IN_MODELS / "mini")
    means, spreads = _on_general_set(made, known)
    _, small = _on_general_set(mini, {modality: mini.means[modality] for modality in known})
    found = {
        asked: {
            of: min(WIDEST, max(NARROWEST, round(spread * mini.spreads[asked][of] / small[asked][of], 3)))
            for of, spread in row.items()
        }
        for asked, row in spreads.items()
    }
    for asked, row in target.spreads.items():
        found[asked] |= {of: spread for of, spread in row.items() if Modality.AUDIO not in (asked, of)}
    return means, found


def _on_general_set(
    encoder: OnnxEncoder, known: Mapping[Modality, Vector]
) -> tuple[dict[Modality, Vector], dict[Modality, dict[Modality, float]]]:
    """Means, but for those known, and spreads. The mean of sounds is zero: that is where a bridge puts the mean of its
    source, and a dozen of sounds tells no better one.
    """
    rows = [row.cells for row in read_table(GENERAL)]
    described = {str(row["image"]): str(row["text"]) for row in rows if "image" in row}
    heard = dict.fromkeys(str(row["audio"]) for row in rows if "audio" in row)
    media = {
        Modality.IMAGE: [_file(Modality.IMAGE, name) for name in described],
        Modality.TEXT: [Media(Modality.TEXT, text, text) for text in described.values()],
        Modality.AUDIO: [_file(Modality.AUDIO, name) for name in heard],
    }
    vectors: dict[Modality, Floats] = {
        modality: encode(encoder, found, Problems(GENERAL))[0]
        for modality, found in media.items()
        if modality in encoder.modalities
    }
    means = {**means_of(vectors), Modality.AUDIO: np.zeros(encoder.space.dim, np.float32), **known}
    return means, spreads_of(vectors, means)


def _file(modality: Modality, name: str) -> Media:
    return Media(modality, GENERAL.parent / name, name)
