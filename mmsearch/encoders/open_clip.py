"""The encoder that runs open_clip's models with torch, on the CPU or on a GPU. Needs the extra ``clip``.

open_clip builds the network and loads the weights; preprocessing, batches, precision and what happens when memory
runs out are here.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.config import Device, Precision
from mmsearch.encoders.onnx import usable_cores
from mmsearch.encoders.open_clip_config import preprocess_of, read_config, space_id, weights_file
from mmsearch.encoders.open_clip_model import (
    OpenClipModel,
    first_line,
    import_open_clip,
    load_model,
    require_extra,
)
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.sources import Source
from mmsearch.encoders.torch_device import chosen_device, chosen_precision, is_out_of_memory
from mmsearch.errors import ModelError
from mmsearch.types import AudioWindow, Image, Modality, Space, Vector, Vectors, Waveform

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    import torch

__all__ = ["OpenClipEncoder", "OpenClipModel", "import_open_clip", "load_model"]

CPU_BATCH = 8  # of each core
GPU_BATCH = 512  # at most; the memory that is free decides
_PROBE = 8  # pictures whose memory is measured
_MEMORY = 0.7  # share of the free memory of a GPU that a batch may take
_PICTURES = 32
_TEXTS = 64


class OpenClipEncoder:
    """The ``Encoder`` of an open_clip model. torch is imported when something is first encoded.

    ``device`` and ``precision`` are those of ``Settings``; auto takes a GPU if there is one, and on it bfloat16 (or
    float16 where it has none), on a CPU bfloat16 if that has AMX, else float32. ``compile`` runs the image tower
    through ``torch.compile``.

    Raises ``ModelError`` if the files are not on this machine or the configuration is wrong.
    """

    def __init__(
        self,
        source: Source,
        *,
        threads: int | None = None,
        device: Device = "auto",
        precision: Precision = "auto",
        compile: bool = False,
    ) -> None:
        if not source.present:
            raise source.missing()
        require_extra()
        self.source = source
        self._config = read_config(source)
        self.space = Space(space_id(source, self._config), int(self._config["model_cfg"]["embed_dim"]))
        self._threads = threads
        self._device = device
        self._precision = precision
        self._compile = compile
        self._batch = {Modality.IMAGE: _PICTURES, Modality.TEXT: _TEXTS}  # as many as memory allows at once
        self._lock = threading.Lock()
        self._tokenizing = threading.Lock()  # a fast tokenizer must not be used by two threads
        self._loaded: OpenClipModel | None = None

    modalities = frozenset({Modality.IMAGE, Modality.TEXT})
    audio_window = AudioWindow()
    levels: Mapping[Modality, float] = {}
    means: Mapping[Modality, Vector] = {}
    spreads: Mapping[Modality, Mapping[Modality, float]] = {}

    @cached_property
    def preprocess(self) -> Preprocess:
        """What pictures go through. Raises ``ModelError`` if the model does not say."""
        return preprocess_of(self.source, self._config)

    @property
    def adapted(self) -> frozenset[Modality]:
        """Modalities whose towers were trained to meet the others of the space, which stayed (``mmsearch train
        --only``); they say nothing of which space it is.
        """
        trained = self._config.get("trained")
        if not isinstance(trained, dict) or trained.get("base_space") != self.space.id:
            return frozenset()
        return frozenset(modality for modality in self.modalities if modality in trained.get("towers", ()))

    @property
    def fingerprint(self) -> str:
        """Names configuration, weights (by size and time of change) and precision."""
        file = weights_file(self.source).stat()
        told = [json.dumps(self._config, sort_keys=True), file.st_size, file.st_mtime_ns, self._precision]
        return hashlib.blake2b(repr(told).encode(), digest_size=16).hexdigest()

    @property
    def image_size(self) -> int:
        return max(self.preprocess.size)

    @property
    def batch_size(self) -> int:
        on_gpu = self._loaded is not None and self._where(self._loaded).type == "cuda"
        if on_gpu or self._device.startswith("cuda"):
            return GPU_BATCH
        return (
            2 * CPU_BATCH * self._cores
        )  # two runs a core: at the end of a call one core waits for the other

    def load(self) -> OpenClipModel:
        """The network, loaded now instead of at its first use. Raises ``ModelError``, ``MissingExtra``."""
        with self._lock:
            if self._loaded is None:
                device = chosen_device(self._device)
                precision = chosen_precision(self._precision, device)
                import torch

                if self._threads and device == "cpu":
                    torch.set_num_threads(self._threads)
                loaded = load_model(self.source, device=device, precision=precision)
                if self._compile:
                    loaded.model.visual = torch.compile(loaded.model.visual, dynamic=True)
                if device == "cuda":
                    self._batch[Modality.IMAGE] = self._fitting(loaded)
                self._loaded = loaded
            return self._loaded

    def prepare_image(self, image: Image) -> Image:
        return self.preprocess.prepare(image)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """(n, dim) vectors of n pictures; where memory runs out, in smaller batches. Raises ``ModelError``."""
        loaded = self.load()

        def forward(rows: slice) -> Any:
            pixels = self.preprocess.pixels(images[rows])
            return loaded.model.encode_image(self._tensor(pixels).to(loaded.dtype), normalize=True)

        return self._side_by_side(forward, len(images), Modality.IMAGE)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) vectors of n texts; what goes beyond the context is cut off. Raises ``ModelError``."""
        loaded = self.load()
        readable = [text.encode("utf-8", "replace").decode() for text in texts]

        def forward(rows: slice) -> Any:
            with self._tokenizing:
                ids = loaded.tokenizer(readable[rows])
            return loaded.model.encode_text(ids.to(self._where(loaded)), normalize=True)

        return self._side_by_side(forward, len(readable), Modality.TEXT)

    def knows(self, word: str) -> bool | None:
        """Whether the tokenizer leaves a word whole, as it does a letter. Raises ``ModelError``."""
        loaded = self.load()
        with self._tokenizing:
            letter, ids = loaded.tokenizer(["a", word.encode("utf-8", "replace").decode()])
        return int((letter != ids).sum()) <= 1

    def encode_audio(self, clips: Sequence[Waveform]) -> Vectors:
        """Raises ``ModelError``: open_clip's models have no ears."""
        raise ModelError(
            f"{self.source.short}: this model has no audio tower. Use one that has, such as mini, or give it one "
            "with `mmsearch bridge`"
        )

    def _side_by_side(self, forward: Callable[[slice], Any], count: int, modality: Modality) -> Vectors:
        """On a CPU small runs on one core each, as many as there are cores: half as fast again as one run on all of
        them, whose threads wait for each other at every layer, and longer still when decoding takes a core.
        """
        loaded = self.load()
        on_cpu = self._where(loaded).type == "cpu" and not self._compile
        if not on_cpu or self._cores == 1 or count <= CPU_BATCH:
            return self._batches(forward, range(count), modality)
        parts = [range(count)[start : start + CPU_BATCH] for start in range(0, count, CPU_BATCH)]
        return np.concatenate(
            list(self._pool.map(lambda part: self._batches(forward, part, modality), parts))
        )

    @property
    def _cores(self) -> int:
        return self._threads or usable_cores()

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        from concurrent.futures import ThreadPoolExecutor

        import torch

        return ThreadPoolExecutor(self._cores, "encode", initializer=lambda: torch.set_num_threads(1))

    def _batches(self, forward: Callable[[slice], Any], chosen: range, modality: Modality) -> Vectors:
        """Rows in batches, each half as large as before when memory runs out."""
        import torch

        vectors = np.zeros((len(chosen), self.space.dim), np.float32)
        first, start, count = chosen.start, 0, len(chosen)
        while start < count:
            rows = slice(start, min(start + self._batch[modality], count))
            try:
                with torch.inference_mode():
                    made = forward(slice(first + rows.start, first + rows.stop))
                    vectors[rows] = made.float().cpu().numpy()
            except Exception as error:  # a compiler raises anything
                if not is_out_of_memory(error):
                    raise self._failed(error) from error
                if rows.stop - start == 1:
                    raise ModelError(
                        f"{self.source.short}: memory is too small for a single input ({first_line(error)}). Use a "
                        "smaller model, or --device cpu"
                    ) from error
                failed = True
            else:
                failed = False
            if failed:  # outside of the handler, which would hold on to the tensors of the failed run
                self._batch[modality] = min(self._batch[modality], (rows.stop - start) // 2)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = rows.stop
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"{self.source.short}: makes numbers that are not finite. Use --precision fp32; if it makes them with "
                "that too, its weights are damaged"
            )
        return _unit(vectors)

    def _failed(self, error: Exception) -> ModelError:
        if self._compile:
            return ModelError(
                f"{self.source.short}: torch could not compile it ({first_line(error)}). Leave --compile out; on a "
                "CPU it needs a C++ compiler"
            )
        return ModelError(f"{self.source.short}: failed on its input ({first_line(error)})")

    def _tensor(self, pixels: Any) -> torch.Tensor:
        import torch

        loaded = self._loaded
        assert loaded is not None
        return torch.from_numpy(pixels).to(self._where(loaded), non_blocking=True)

    @staticmethod
    def _where(loaded: OpenClipModel) -> Any:
        return next(loaded.model.parameters()).device

    def _fitting(self, loaded: OpenClipModel) -> int:
        """How many pictures fit into the free memory of the GPU at once, by what a few of them take."""
        import torch

        width, height = self.preprocess.size
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with torch.inference_mode():
            pixels = torch.zeros((_PROBE, 3, height, width), device="cuda", dtype=loaded.dtype)
            loaded.model.encode_image(pixels)
        each = max(1, (torch.cuda.max_memory_allocated() - before) // _PROBE)
        free, _ = torch.cuda.mem_get_info()
        return int(min(GPU_BATCH, max(1, _MEMORY * free // each)))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
