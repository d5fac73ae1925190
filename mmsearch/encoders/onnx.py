"""The encoder that runs a model folder with onnxruntime: one ONNX file per tower, described by ``model.json``."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmsearch.encoders.canonical import CANONICAL_COSINE
from mmsearch.encoders.manifest import AudioTower, Fusion, ImageTower, Manifest, TextTower
from mmsearch.encoders.packaged import PackagedTextTower, TextTrunk, load_trunk
from mmsearch.errors import ModelError
from mmsearch.types import AudioWindow, Image, Modality, Vector, Vectors, Waveform

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from onnxruntime import InferenceSession
    from tokenizers import Tokenizer

__all__ = ["CANONICAL_COSINE", "OnnxEncoder", "load_tokenizer", "usable_cores", "verify"]

Tower = ImageTower | TextTower | PackagedTextTower | AudioTower | Fusion


class OnnxEncoder:
    """The ``Encoder`` of a model folder. A tower is loaded when it is first used, so that a text query never opens
    the image tower; every method may be called from several threads at once.

    ``threads`` is the number of CPU threads of one call; None means all this process may use.

    Raises ``ModelError`` if ``model.json`` is missing or wrong; a damaged tower is found when it is first used.
    """

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        manifest = Manifest.read(folder)
        self.folder = folder
        self.space = manifest.space()
        self.levels = manifest.levels()
        self.spreads = manifest.spreads()
        self._image = manifest.image_tower()
        self._text = manifest.text_tower()
        self._audio = manifest.audio_tower()
        self._manifest = manifest
        self._threads = threads or usable_cores()
        self._locks = {modality: threading.Lock() for modality in Modality}
        self._sessions: dict[Modality, InferenceSession] = {}
        self._fusion: InferenceSession | None = None
        self._tokenizer: tuple[Tokenizer, int] | None = None
        self._trunk: TextTrunk | None = None

    @property
    def modalities(self) -> frozenset[Modality]:
        towers = {Modality.IMAGE: self._image, Modality.TEXT: self._text, Modality.AUDIO: self._audio}
        return frozenset(modality for modality, tower in towers.items() if tower)

    @property
    def image_size(self) -> int:
        return max(self._image.size) if self._image else 1

    @property
    def audio_window(self) -> AudioWindow:
        return self._audio.window if self._audio else AudioWindow()

    @cached_property
    def fingerprint(self) -> str:
        """A hash of ``model.json``, and of that of the base: they hold the hashes of all files."""
        return self._manifest.fingerprint()

    @property
    def adapted(self) -> frozenset[Modality]:
        """Modalities whose towers were made to meet the others of the space; they say nothing of which space it is."""
        return self._manifest.adapted()

    def check_base(self) -> None:
        """Raises ``ModelError`` if the base that is installed is not the one this model was made to meet."""
        for path, wanted in self._manifest.base_hashes().items():
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                raise ModelError(
                    f"{self.folder}: was made to meet another {path.name} than {path}. Take a version of this model "
                    "that was made for the installed one."
                )

    @cached_property
    def means(self) -> Mapping[Modality, Vector]:
        """Read when it is first asked for. Raises ``ModelError``."""
        return self._manifest.means()

    @property
    def batch_size(self) -> int:
        tower = self._image or self._text
        # Two runs a core: at the end of a call one core waits for the other.
        return 2 * tower.batch * self._threads if tower else 1

    def load(self, modality: Modality) -> None:
        """Load a tower now instead of at its first use. Raises ``ModelError``."""
        if modality == Modality.IMAGE:
            self._image_session()
        elif modality == Modality.AUDIO:
            self._audio_session()
        elif isinstance(self._text, PackagedTextTower):
            self._trunk_session(self._text)
        else:
            self._text_session()

    def prepare_image(self, image: Image) -> Image:
        return self._image_tower().prepare(image)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """(n, dim) vectors of n pictures, a batch on each core. Raises ``ModelError``."""
        tower, session = self._image_session()
        vectors = np.empty((len(images), self.space.dim), np.float32)

        def encode(rows: Sequence[int]) -> None:
            pixels = tower.pixels([images[row] for row in rows])
            vectors[rows] = self._run(session, tower, {tower.input: pixels})

        self._side_by_side(encode, _batches(range(len(images)), tower.batch))
        return _unit(vectors)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) vectors of n texts; what goes beyond the context is cut off. Raises ``ModelError``."""
        if isinstance(self._text, PackagedTextTower):
            texts = [text.encode("utf-8", "replace").decode() for text in texts]
            return self._encode_packaged(self._text, texts)
        tower, session, tokenizer, pad_id = self._text_session()
        # Not encode_batch: its thread pool would print a warning in every process forked afterwards.
        ids = [tokenizer.encode(tower.cleaned(text)).ids for text in texts]
        vectors = np.empty((len(texts), self.space.dim), np.float32)
        by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))

        def encode(rows: Sequence[int]) -> None:
            vectors[rows] = self._run(session, tower, tower.feeds([ids[row] for row in rows], pad_id))

        self._side_by_side(encode, _batches(by_length, tower.batch))
        return _unit(vectors)

    def knows(self, word: str) -> bool | None:
        """Whether the tokenizer leaves a word whole. Raises ``ModelError``."""
        if isinstance(self._text, PackagedTextTower):
            return None
        tower, _, tokenizer, _ = self._text_session()
        return len(tokenizer.encode(tower.cleaned(word), add_special_tokens=False).ids) == 1

    def _encode_packaged(self, tower: PackagedTextTower, texts: Sequence[str]) -> Vectors:
        head, trunk = self._trunk_session(tower)
        vectors = np.empty((len(texts), self.space.dim), np.float32)
        for rows in _batches(range(len(texts)), tower.batch):
            batch = [texts[row] for row in rows]
            vectors[rows] = self._run(head, tower, tower.feeds(trunk(batch), batch))
        return _unit(vectors)

    def encode_audio(self, clips: Sequence[Waveform]) -> Vectors:
        """(n, dim) vectors of n clips of samples at the rate of ``audio_window``. Raises ``ModelError``."""
        tower, session = self._audio_session()
        prepared = [tower.prepare(clip) for clip in clips]
        vectors = np.empty((len(prepared), self.space.dim), np.float32)

        def encode(rows: Sequence[int]) -> None:
            samples = np.stack([prepared[row] for row in rows]).astype(np.float32, copy=False)
            vectors[rows] = self._run(session, tower, {tower.input: samples})

        by_length = sorted(range(len(prepared)), key=lambda row: len(prepared[row]))
        batches = []
        for _, alike in groupby(by_length, key=lambda row: len(prepared[row])):  # one run takes one length
            batches += _batches(list(alike), tower.batch)
        self._side_by_side(encode, batches)
        return _unit(vectors)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor  # a query never needs it

        return ThreadPoolExecutor(self._threads, "encode")

    def fuse(self, vectors: Mapping[Modality, Vectors]) -> Vectors:
        """One vector (n, dim) for each of n items from those of its media: (n, dim) of each modality, rows of zeros
        where an item has none; a modality that no item has may be left out.

        Raises ``ModelError`` if the model has no fusion head (``mmsearch train --fusion``), or not for a modality.
        """
        fusion = self._manifest.fusion()
        if fusion is None:
            raise ModelError(
                f"{self.folder}: this model has no fusion head. Train one with `mmsearch train --fusion`."
            )
        if unknown := sorted(set(vectors) - set(fusion.inputs.values())):
            raise ModelError(f"{fusion.file}: does not fuse {unknown[0]}. Leave it out, or train with it.")
        with self._locks[Modality.TEXT]:
            if self._fusion is None:
                self._fusion = _load(fusion, list(fusion.inputs))
        rows = len(next(iter(vectors.values()), ()))
        nothing = np.zeros((rows, self.space.dim), np.float32)
        feeds = {
            name: np.asarray(vectors.get(given, nothing), np.float32) for name, given in fusion.inputs.items()
        }
        return _unit(self._run(self._fusion, fusion, feeds))

    def _side_by_side(
        self, encode: Callable[[Sequence[int]], None], batches: Sequence[Sequence[int]]
    ) -> None:
        """Runs on one core each, as many as there are cores: a quarter to a third faster than one run on all of them,
        whose threads wait for each other at every node of the graph.
        """
        if len(batches) > 1 and self._threads > 1:
            list(self._pool.map(encode, batches))
        else:
            for rows in batches:
                encode(rows)

    def _run(
        self,
        session: InferenceSession,
        tower: Tower,
        feeds: dict[str, NDArray[Any]],
    ) -> Vectors:
        try:
            (vectors,) = session.run([tower.output], feeds)
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelError(
                f"{tower.file}: failed on its input ({error}). Does model.json fit it?"
            ) from error
        rows = len(next(iter(feeds.values())))
        if vectors.shape != (rows, self.space.dim):
            raise ModelError(
                f"{tower.file}: gives vectors of shape {vectors.shape} for {rows} inputs, not "
                f"({rows}, {self.space.dim}). Correct space.dim or the tower's output in model.json."
            )
        return np.asarray(vectors, np.float32)

    def _image_tower(self) -> ImageTower:
        if self._image is None:
            raise ModelError(f"{self.folder}: this model has no image tower. Use one that has, such as mini.")
        return self._image

    def _image_session(self) -> tuple[ImageTower, InferenceSession]:
        tower = self._image_tower()
        with self._locks[Modality.IMAGE]:
            session = self._sessions.get(Modality.IMAGE)
            if session is None:
                session = self._sessions[Modality.IMAGE] = _load(tower, [tower.input])
        return tower, session

    def _audio_session(self) -> tuple[AudioTower, InferenceSession]:
        tower = self._audio
        if tower is None:
            raise ModelError(f"{self.folder}: this model has no audio tower. Use one that has, such as mini.")
        with self._locks[Modality.AUDIO]:
            session = self._sessions.get(Modality.AUDIO)
            if session is None:
                session = self._sessions[Modality.AUDIO] = _load(tower, [tower.input])
        return tower, session

    def _text_session(self) -> tuple[TextTower, InferenceSession, Tokenizer, int]:
        tower = self._text
        if not isinstance(tower, TextTower):
            raise ModelError(f"{self.folder}: this model has no text tower. Use one that has, such as mini.")
        with self._locks[Modality.TEXT]:
            session = self._sessions.get(Modality.TEXT)
            if session is None:
                session = self._sessions[Modality.TEXT] = _load(tower, list(tower.inputs))
            if self._tokenizer is None:
                self._tokenizer = load_tokenizer(tower)
        return tower, session, *self._tokenizer

    def _trunk_session(self, tower: PackagedTextTower) -> tuple[InferenceSession, TextTrunk]:
        with self._locks[Modality.TEXT]:
            if self._trunk is None:
                self._trunk = load_trunk(tower, self._threads)
            session = self._sessions.get(Modality.TEXT)
            if session is None:
                inputs = [tower.input, *([tower.ngrams.input] if tower.ngrams else [])]
                session = self._sessions[Modality.TEXT] = _load(tower, inputs)
        return session, self._trunk


def verify(folder: Path, *, threads: int | None = None) -> list[str]:
    """What is wrong with a model folder, one sentence each: files that differ from their hashes in ``model.json``,
    and towers whose canonical vectors do not come out again; of a model with a base, the base's too. An empty list
    means that all is well.

    Raises ``ModelError`` if ``model.json`` itself is missing or wrong.
    """
    manifest = Manifest.read(folder)
    encoder = OnnxEncoder(folder, threads=threads)
    problems = verify(manifest.base.folder, threads=threads) if manifest.base else []
    for path, expected in manifest.hashes().items():
        try:
            if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
                problems.append(
                    f"{path}: its sha256 is not the one in model.json. Copy the model folder again."
                )
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}). Copy the model folder again.")
    canonical = manifest.canonical()
    try:
        with np.load(canonical) as arrays:
            if manifest.has(Modality.IMAGE):
                import PIL.Image

                images = [PIL.Image.fromarray(pixels) for pixels in arrays["images"]]
                problems += _compare("image", encoder.encode_images(images), arrays["image_vectors"])
            if manifest.has(Modality.TEXT):
                texts = [str(text) for text in arrays["texts"]]
                problems += _compare("text", encoder.encode_texts(texts), arrays["text_vectors"])
            if manifest.has(Modality.AUDIO):
                clips = list(arrays["sounds"])
                problems += _compare("audio", encoder.encode_audio(clips), arrays["sound_vectors"])
        manifest.means()
    except ModelError as error:
        problems.append(str(error))
    except Exception as error:  # numpy and zipfile raise anything for a damaged archive
        problems.append(f"{canonical}: cannot be read ({error}). Copy the model folder again.")
    return problems


def _compare(tower: str, got: Vectors, expected: Vectors) -> list[str]:
    if got.shape != expected.shape:
        return [f"{tower} tower: canonical vectors have shape {expected.shape}, it gives {got.shape}"]
    worst = float((got * _unit(expected.astype(np.float32))).sum(axis=1).min(initial=1.0))
    if worst >= CANONICAL_COSINE:
        return []
    return [f"{tower} tower: a canonical vector has cosine {worst:.4f}, below {CANONICAL_COSINE}"]


def _unit(vectors: Vectors) -> Vectors:
    """Rows at length 1; a row of zeros, or one that is not finite, becomes zeros."""
    vectors = np.nan_to_num(vectors, posinf=0, neginf=0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _batches(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _load(tower: Tower, inputs: list[str]) -> InferenceSession:
    import onnxruntime

    if not tower.file.is_file():
        raise ModelError(f"{tower.file}: no such file. The model folder is incomplete: copy it again.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # see OnnxEncoder._side_by_side
    options.log_severity_level = 3
    if isinstance(tower, TextTower) and tower.optimised:
        # Of the picture tower the layout of the convolutions is the processor's: onnxruntime chooses it when it loads.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(tower.file, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(
            f"{tower.file}: onnxruntime cannot load it ({error}). Copy the model folder again."
        ) from error
    for kind, wanted, present in (
        ("input", inputs, session.get_inputs()),
        ("output", [tower.output], session.get_outputs()),
    ):
        names = [node.name for node in present]
        if missing := [name for name in wanted if name not in names]:
            raise ModelError(
                f"{tower.file}: has no {kind} {missing[0]!r}; it has {', '.join(names)}. Correct model.json."
            )
    return session


def load_tokenizer(tower: TextTower) -> tuple[Tokenizer, int]:
    """The tokenizer, cutting at the context, and the id to pad with."""
    from tokenizers import Tokenizer

    if not tower.tokenizer.is_file():
        raise ModelError(f"{tower.tokenizer}: no such file. The model folder is incomplete: copy it again.")
    try:
        tokenizer = Tokenizer.from_file(str(tower.tokenizer))
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(
            f"{tower.tokenizer}: no readable tokenizer ({error}). Copy the model folder again."
        ) from error
    padding = tokenizer.padding or {}
    tokenizer.no_padding()
    tokenizer.enable_truncation(tower.context)
    return tokenizer, int(padding.get("pad_id", 0))
