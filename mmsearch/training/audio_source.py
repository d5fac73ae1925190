"""Where a bridge starts: a sound tower as a graph, and the text tower of the same space."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.encoders import model_folder
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.errors import ModelError
from mmsearch.media import load_sound
from mmsearch.training.clap_files import PREFIX, find_clap
from mmsearch.training.export import session
from mmsearch.training.folder import whole
from mmsearch.types import AudioWindow, Modality, Vector, Vectors

GENERAL = Path(__file__).parent / "general"


@dataclasses.dataclass(frozen=True)
class AudioSource:
    """``tower`` is what model.json says about the sound tower, ``graph`` its file. ``mean`` (dim,) is the mean of its
    vectors of sounds, each at length 1.
    """

    name: str
    space: str
    licence: str
    graph: Path
    tower: Mapping[str, Any]
    encode_texts: Callable[[Sequence[str]], Vectors]
    mean: Vector


def open_source(model: str, work: Path, threads: int | None = None) -> AudioSource:
    """The sound tower of a built-in name or a model folder, or of ``clap:`` and a name or folder; its graph is then
    written into ``work``.

    Raises ModelError if there is no such model, or if it lacks the sound or the text tower.
    """
    if model.startswith(PREFIX):
        return _clap(model, work)
    folder = model_folder(model)
    encoder = OnnxEncoder(folder, threads=threads)
    for modality, kind in ((Modality.AUDIO, "audio"), (Modality.TEXT, "text")):
        if modality not in encoder.modalities:
            raise ModelError(
                f"{folder}: has no {kind} tower to bridge from. Give another --audio, such as mini"
            )
    fields, files = whole(folder)
    tower, window = fields["towers"]["audio"], encoder.audio_window
    tower |= {"min_seconds": tower.get("min_seconds", 1.0), **dataclasses.asdict(window)}
    mean = encoder.means.get(Modality.AUDIO)
    return AudioSource(
        name=fields.get("name", folder.name),
        space=fields["space"]["id"],
        licence=fields.get("licence", "unknown"),
        graph=files[tower["file"]],
        tower=tower,
        encode_texts=encoder.encode_texts,
        mean=_mean_heard(files[tower["file"]], tower) if mean is None else mean,
    )


def _clap(model: str, work: Path) -> AudioSource:
    from mmsearch.training.clap import Clap

    name = model.removeprefix(PREFIX)
    clap = Clap(find_clap(name))
    graph = work / "clap.onnx"
    clap.export(graph)
    return AudioSource(
        name=Path(name).name,
        space=model,
        licence=f"weights of {name} under the terms of their owner",
        graph=graph,
        tower=clap.tower,
        encode_texts=clap.encode_texts,
        mean=_mean_heard(graph, clap.tower),
    )


def _mean_heard(graph: Path, tower: Mapping[str, Any]) -> Vector:
    """The mean of the sounds of the general set: a few, but what all sounds share weighs more than what they do not."""
    window = AudioWindow(tower["sample_rate"], tower["seconds"], tower["hop_seconds"])
    shortest = round(tower["min_seconds"] * window.sample_rate)
    runs = session(graph)
    found = []
    for path in sorted(GENERAL.glob("*.ogg")):
        clip = next(iter(load_sound(path, window)))
        samples = clip if len(clip) >= shortest else np.resize(clip, shortest)
        (vectors,) = runs.run([tower["output"]], {tower["input"]: samples[None]})
        found.append(vectors[0] / np.linalg.norm(vectors[0]))
    return np.asarray(np.mean(found, axis=0), np.float32)
