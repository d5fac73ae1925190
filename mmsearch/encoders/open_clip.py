"""The encoder that runs open_clip's models with torch, on the CPU or on a GPU. Needs the extra ``clip``.

open_clip builds the network and loads the weights; preprocessing, batches, precision and what happens when memory
runs out are here.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.config import Device, Precision
from mmsearch.encoders.open_clip_config import preprocess_of, read_config, space_id, weights_file
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.sources import Source
from mmsearch.errors import ConfigError, MissingExtra, ModelError
from mmsearch.types import AudioWindow, Image, Modality, Space, Vector, Vectors, Waveform

if TYPE_CHECKING:
    import torch

__all__ = ["OpenClipEncoder", "OpenClipModel", "import_open_clip", "load_model"]

CPU_BATCH = 32
GPU_BATCH = 512  # at most; the memory that is free decides
_PROBE = 8  # pictures whose memory is measured
_MEMORY = 0.7  # share of the free memory of a GPU that a batch may take
_TEXTS = 64


class OpenClipModel:
    """A network with its weights, in evaluation mode, and what goes with it.

    ``model`` is open_clip's ``CLIP`` or ``CustomTextCLIP``, ``tokenizer`` takes a list of texts and gives ids
    (n, context), ``dtype`` is that of the pixels.
    """

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], torch.Tensor], dtype: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = dtype


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
        self.source = source
        self._config = read_config(source)
        self.space = Space(space_id(source, self._config), int(self._config["model_cfg"]["embed_dim"]))
        self._threads = threads
        self._device = device
        self._precision = precision
        self._compile = compile
        self._batch = 0  # pictures that memory allows at once; 0: not known yet
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
        return GPU_BATCH if on_gpu or self._device == "cuda" else CPU_BATCH

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
                self._batch = CPU_BATCH
                if device == "cuda":
                    self._batch = self._fitting(loaded)
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

        return self._batches(forward, len(images), self._batch)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """(n, dim) vectors of n texts; what goes beyond the context is cut off. Raises ``ModelError``."""
        loaded = self.load()
        readable = [text.encode("utf-8", "replace").decode() for text in texts]

        def forward(rows: slice) -> Any:
            with self._tokenizing:
                ids = loaded.tokenizer(readable[rows])
            return loaded.model.encode_text(ids.to(self._where(loaded)), normalize=True)

        return self._batches(forward, len(readable), _TEXTS)

    def encode_audio(self, clips: Sequence[Waveform]) -> Vectors:
        """Raises ``ModelError``: open_clip's models have no ears."""
        raise ModelError(
            f"{self.source.short}: this model has no audio tower. Use one that has, such as mini, or give it one "
            "with `mmsearch bridge`"
        )

    def _batches(self, forward: Callable[[slice], Any], count: int, batch: int) -> Vectors:
        """Rows in batches, each half as large as before when memory runs out."""
        import torch

        vectors = np.zeros((count, self.space.dim), np.float32)
        start = 0
        while start < count:
            rows = slice(start, min(start + batch, count))
            try:
                with torch.inference_mode():
                    vectors[rows] = forward(rows).float().cpu().numpy()
            except RuntimeError as error:  # torch.OutOfMemoryError is one
                if not _is_out_of_memory(error):
                    raise ModelError(f"{self.source.short}: failed on its input ({error})") from error
                if rows.stop - start == 1:
                    raise ModelError(
                        f"{self.source.short}: memory is too small for a single input ({error}). Use a smaller "
                        "model, or --device cpu"
                    ) from error
                failed = True
            else:
                failed = False
            if failed:  # outside of the handler, which would hold on to the tensors of the failed run
                batch = (rows.stop - start) // 2
                self._batch = min(self._batch, batch)
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start = rows.stop
        return _unit(vectors)

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


def load_model(
    source: Source, *, device: str = "cpu", precision: str = "fp32", evaluate: bool = True
) -> OpenClipModel:
    """Build the network and load its weights; what did not load is an error. ``precision``: fp32, fp16 or bf16.

    Raises ``ModelError``, ``MissingExtra``.
    """
    open_clip = import_open_clip()
    config = read_config(source)
    fixed = _with_local_files(source, config["model_cfg"])
    name, weights = f"local-dir:{source.folder}", None
    if source.weights is not None:
        name, weights = str(source.architecture), str(source.weights)
    else:
        weights_file(source)  # says what is wrong better than open_clip does
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries below, about themselves
            model = open_clip.create_model(
                name,
                pretrained=weights,
                precision=precision,
                device=device,
                require_pretrained=True,
                pretrained_text=False,
                **fixed,
            )
            tokenizer = open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip and the libraries below raise anything
        raise ModelError(
            f"{source.short}: its weights did not load ({_first_line(error)}). Are they those of this architecture, "
            "and whole? `mmsearch models pull` fetches them again"
        ) from error
    if evaluate:
        model.eval().requires_grad_(False)
    return OpenClipModel(model, tokenizer, open_clip.get_input_dtype(precision) or _float32())


def _with_local_files(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make open_clip read the configuration of a text trunk from the folder and not from the hub."""
    text = dict(config["text_cfg"])
    trunk = source.folder / "text"
    if "hf_model_name" in text and (trunk / "config.json").is_file():
        return {"text_cfg": {**text, "hf_model_name": str(trunk), "hf_model_pretrained": False}}
    return {}


def _float32() -> Any:
    import torch

    return torch.float32


def import_open_clip() -> Any:
    """The library. Raises ``MissingExtra`` if it is not installed, ``ModelError`` if it cannot be imported."""
    for name in ("torch", "open_clip"):
        if importlib.util.find_spec(name) is None:
            raise MissingExtra("an open_clip model", "clip")
    try:
        _import_torchvision()
        import open_clip
    except Exception as error:
        raise ModelError(
            f"open_clip cannot be imported ({_first_line(error)}). Do torch and torchvision fit each other? "
            "pip install --upgrade torch torchvision"
        ) from error
    return open_clip


def _import_torchvision() -> None:
    """Import torchvision, also one that was compiled for another torch.

    open_clip needs its transforms, which are plain Python. A common pair, torch for CPUs beside the torchvision of
    PyPI that is compiled for CUDA, fails at the import on two operators that its library would define; they are
    declared here (and never called).
    """
    import torch

    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _DECLARED.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _DECLARED[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


_DECLARED: list[Any] = []  # a library that nobody holds takes its operators with it


def chosen_device(device: Device) -> str:
    """cpu or cuda. Raises ``ConfigError`` if cuda is asked for and torch sees none."""
    if device == "cpu":
        return "cpu"
    import_open_clip()
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ConfigError("--device cuda: torch sees no GPU. Install torch for CUDA, or use --device auto")
    return "cpu"


def chosen_precision(precision: Precision, device: str) -> str:
    """fp32, fp16 or bf16. Raises ``ConfigError`` for float16 on a CPU, which computes it in single steps."""
    import torch

    if device == "cuda":
        if precision == "auto":
            return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        return precision
    if precision == "fp16":
        raise ConfigError("--precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    if precision == "auto":
        return "bf16" if bfloat16_is_fast() else "fp32"
    return precision


def bfloat16_is_fast() -> bool:
    """Whether the CPU multiplies matrices of bfloat16 (AMX); those that only convert them gain nothing."""
    import torch

    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch before 2.10 cannot tell
    return bool(known.get("amx_bf16"))


def _is_out_of_memory(error: RuntimeError) -> bool:
    import torch

    told = str(error)
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in told


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(np.nan_to_num(vectors), axis=1, keepdims=True)
    return np.ascontiguousarray(np.nan_to_num(vectors) / np.where(lengths > 0, lengths, 1), np.float32)
