"""What comes in at the cut of a tower, for each medium: computed once, kept in files, read in batches.

One medium may have several parts (those of a long recording); its vector is the mean direction of theirs. Floats are
kept as float16, codes of quantised graphs as they are. The files are mapped into memory, so that their size is bound by
the disk.
"""

import copy
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import helper
from torch import Tensor

from mmsearch.encoders.manifest import Manifest
from mmsearch.encoders.onnx import OnnxEncoder, load_tokenizer, usable_cores
from mmsearch.encoders.packaged import PackagedTextTower, load_trunk
from mmsearch.encoding import Progress, ahead, decode
from mmsearch.errors import ConfigError, MediaError, ModelError
from mmsearch.manifests import Media
from mmsearch.tables import Problems
from mmsearch.training.cut import Cut, tensor
from mmsearch.types import Modality

TOGETHER = 64  # parts that run at once: what torch keeps of them is what memory has to hold

Feeds = Mapping[str, NDArray[Any]]
Feeder = Callable[[Any], list[Feeds]]


@dataclasses.dataclass(frozen=True)
class Taken:
    """Some media as a tower takes them: groups of parts that run together (their places, and what comes in), and which
    of the ``count`` media each part is of.
    """

    groups: Sequence[tuple[Tensor, Mapping[str, Tensor]]]
    owners: Tensor
    count: int


class Activations:
    """The kept inputs of a cut for n media; an index (m,) of media gives them as ``Taken``."""

    def __init__(self, folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        self._names: list[str] = index["names"]
        self._shapes: list[list[list[int]]] = index["shapes"]  # part -> tensor -> shape
        self._parts: list[list[int]] = index["parts"]  # medium -> its parts
        self._alone: bool = index["alone"]
        self._files = [
            np.memmap(folder / f"{n}.bin", dtype=kind, mode="r") for n, kind in enumerate(index["dtypes"])
        ]
        sizes = [[int(np.prod(shape)) for shape in shapes] for shapes in self._shapes]
        self._starts = np.cumsum([[0] * len(self._names), *sizes], axis=0)
        self._device = "cpu"

    def __len__(self) -> int:
        return len(self._parts)

    def to(self, device: str) -> Self:
        """The same, given on another device."""
        other = copy.copy(self)
        other._device = device
        return other

    def __getitem__(self, media: Tensor) -> Taken:
        rows, owners = [], []
        for n, medium in enumerate(media.tolist()):
            rows += self._parts[medium]
            owners += [n] * len(self._parts[medium])
        alike: dict[object, list[int]] = {}
        for place, row in enumerate(rows):
            alike.setdefault(place if self._alone else str(self._shapes[row]), []).append(place)
        groups = []
        for places in (
            some[start : start + TOGETHER]
            for some in alike.values()
            for start in range(0, len(some), TOGETHER)
        ):
            together = {
                name: tensor(np.concatenate([self._read(n, rows[place]) for place in places])).to(
                    self._device
                )
                for n, name in enumerate(self._names)
            }
            groups.append((torch.tensor(places, device=self._device), together))
        return Taken(groups, torch.tensor(owners, device=self._device), len(media))

    def _read(self, n: int, row: int) -> NDArray[Any]:
        start, end = self._starts[row, n], self._starts[row + 1, n]
        return self._files[n][start:end].reshape(self._shapes[row][n])


def record(
    encoder: OnnxEncoder,
    cut: Cut,
    modality: Modality,
    media: Sequence[Media],
    problems: Problems,
    folder: Path,
    *,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> NDArray[np.float32]:
    """Run the tower on media of its modality and keep what comes in at the cut in ``folder``.

    Returns the vectors (n, d) of the base; what was kept by an earlier run is taken as it is. What cannot be read is
    added to ``problems``.

    Raises ConfigError if the disk has too little room, ModelError if float16 cannot hold the numbers.
    """
    if (folder / "index.json").is_file():
        kept: NDArray[np.float32] = np.load(folder / "vectors.npy")
        return kept
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    threads = threads or usable_cores()
    feed = feeder(encoder, modality, threads)
    session = _session(encoder, cut, modality)
    given = {node.name for node in session.get_inputs()}
    made = [name for name in cut.inputs if name not in given]

    def run(medium: Media) -> list[tuple[list[NDArray[Any]], NDArray[np.float32]]] | MediaError:
        content: Any = medium.content if modality is Modality.TEXT else decode(encoder, medium)[0]
        if isinstance(content, MediaError):
            return content
        found = []
        for feeds in feed(content):
            *arrays, vectors = session.run([*made, cut.output], dict(feeds))
            known = {**feeds, **dict(zip(made, arrays, strict=True))}
            vector = vectors[0] / max(float(np.linalg.norm(vectors[0])), 1e-12)
            found.append(([_kept(known[name], cut) for name in cut.inputs], vector))
        return found

    shapes: list[list[list[int]]] = []
    parts: list[list[int]] = []
    vectors = np.zeros((len(media), encoder.space.dim), np.float32)
    dtypes: list[str] = []
    alone = False
    files = [(folder / f"{n}.bin").open("wb") for n in range(len(cut.inputs))]
    try:
        with ThreadPoolExecutor(threads) as pool:
            for n, (medium, found) in enumerate(zip(media, ahead(pool, run, media), strict=True)):
                if isinstance(found, MediaError):
                    problems.add(medium.place, str(found))
                    found = []
                parts.append(list(range(len(shapes), len(shapes) + len(found))))
                for arrays, vector in found:
                    if not shapes:
                        dtypes = [str(array.dtype) for array in arrays]
                        _check_room(folder, sum(array.nbytes for array in arrays) * len(media))
                    shapes.append([list(array.shape) for array in arrays])
                    alone |= any(
                        not array.ndim or array.shape[0] != 1 or (name in made and array.dtype == np.int64)
                        for name, array in zip(cut.inputs, arrays, strict=True)
                    )
                    for file, array in zip(files, arrays, strict=True):
                        file.write(array.tobytes())
                    vectors[n] += vector
                progress(n + 1, len(media))
    finally:
        for file in files:
            file.close()
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    if len(problems):
        return vectors
    np.save(folder / "vectors.npy", vectors)
    index = {"names": list(cut.inputs), "dtypes": dtypes, "shapes": shapes, "parts": parts, "alone": alone}
    partial = folder / "index.part"
    partial.write_text(json.dumps(index))
    os.replace(partial, folder / "index.json")
    return vectors


def feeder(encoder: OnnxEncoder, modality: Modality, threads: int) -> Feeder:
    """What makes the inputs of a tower's graph from a picture, a text or the clips of a recording, part by part."""
    manifest = Manifest.read(encoder.folder)
    if modality is Modality.IMAGE:
        picture = _there(manifest.image_tower())
        return lambda image: [{picture.input: picture.pixels([image])}]
    if modality is Modality.AUDIO:
        sound = _there(manifest.audio_tower())
        return lambda clips: [
            {sound.input: sound.prepare(clip)[np.newaxis].astype(np.float32)} for clip in clips
        ]
    tower = _there(manifest.text_tower())
    if isinstance(tower, PackagedTextTower):
        trunk, name = load_trunk(tower, threads), tower.input
        return lambda text: [{name: trunk([_clean(text)])}]
    words = tower
    tokenizer, pad = load_tokenizer(words)
    return lambda text: [words.feeds([tokenizer.encode(words.cleaned(text)).ids], pad)]


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _there(tower: Any) -> Any:
    if tower is None:
        raise ModelError("the model has no such tower")
    return tower


def _session(encoder: OnnxEncoder, cut: Cut, modality: Modality) -> onnxruntime.InferenceSession:
    """The graph with what comes in at the cut as further outputs."""
    model = onnx.load(cut.file)
    there = {given.name for given in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in cut.inputs if name not in there
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    tower = Manifest.read(encoder.folder).text_tower() if modality is Modality.TEXT else None
    if getattr(tower, "optimised", False):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _kept(array: NDArray[Any], cut: Cut) -> NDArray[Any]:
    if array.dtype not in (np.float32, np.float64):
        return array
    half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise ModelError(
            f"{cut.file}: numbers before the last {cut.depth} layers are too large for float16, in which they would be "
            "kept. Give another --unfreeze, or train a head (--head)"
        )
    return half


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"{folder}: what comes in at the last layers takes about {needed / 1e9:.1f} GB while it is trained on, and "
            f"{free / 1e9:.1f} GB are free. Give another --out or another --unfreeze"
        )
