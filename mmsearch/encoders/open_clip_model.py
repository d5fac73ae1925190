"""Loading an open_clip model with torch: its network, its weights and its tokenizer, from this machine and no other."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mmsearch.encoders.open_clip_config import read_config, weights_file
from mmsearch.encoders.sources import Source
from mmsearch.encoders.torch_device import is_out_of_memory
from mmsearch.errors import MissingExtra, ModelError

if TYPE_CHECKING:
    import torch

__all__ = [
    "OpenClipModel",
    "first_line",
    "import_open_clip",
    "import_torchvision",
    "load_model",
    "require_extra",
]

VOCABULARIES = (
    "tokenizer.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)


class OpenClipModel:
    """A network with its weights, in evaluation mode, and what goes with it.

    ``model`` is open_clip's ``CLIP`` or ``CustomTextCLIP``, ``tokenizer`` takes a list of texts and gives ids
    (n, context), ``dtype`` is that of the pixels.
    """

    def __init__(self, model: Any, tokenizer: Callable[[list[str]], torch.Tensor], dtype: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.dtype = dtype


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
    tokenizer = _tokenizer(source, config["model_cfg"]["text_cfg"])
    dtype = open_clip.get_input_dtype(precision) or _float32()

    def create(precision: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries below, about themselves
            return open_clip.create_model(
                name,
                pretrained=weights,
                precision=precision,
                device=device,
                require_pretrained=True,
                pretrained_text=False,
                **fixed,
            )

    try:
        model = create(precision)
        if evaluate:
            model.eval().requires_grad_(False)
            if _has_branches(model.visual):
                model = model if precision == "fp32" else create("fp32").eval().requires_grad_(False)
                model = _fused(model).to(dtype)
        if fixed:  # open_clip halves only some layers of a trunk of transformers
            model.text.to(dtype)
    except Exception as error:  # open_clip and the libraries below raise anything
        if is_out_of_memory(error):
            raise ModelError(
                f"{source.short}: memory is too small for it ({first_line(error)}). Use a smaller model, or "
                "--device cpu"
            ) from error
        again = "" if source.scheme == "local-dir" or source.weights else (
            f" `mmsearch models verify {source.short}` tells, `mmsearch models pull {source.short}` fetches them again"
        )  # fmt: skip
        raise ModelError(
            f"{source.short}: its weights did not load ({first_line(error)}). Are they those of this architecture, "
            f"and whole?{again}"
        ) from error
    return OpenClipModel(model, tokenizer, dtype)


def _with_local_files(source: Source, config: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make open_clip read the configuration of a text trunk from the folder and not from the hub."""
    text = dict(config["text_cfg"])
    if not text.get("hf_model_name"):
        return {}
    trunk = source.folder / "text"
    if not (trunk / "config.json").is_file():
        raise ModelError(
            f"{trunk / 'config.json'}: is missing. It is the config.json of {text['hf_model_name']}, the trunk of the "
            "text tower"
        )
    return {"text_cfg": {**text, "hf_model_name": str(trunk), "hf_model_pretrained": False}}


def _tokenizer(source: Source, text: Mapping[str, Any]) -> Callable[[list[str]], torch.Tensor]:
    """open_clip's own tokenizer, or the one that lies in the folder; the hub is never asked. Raises ``ModelError``."""
    from open_clip import tokenizer

    told = {"context_length": text.get("context_length", tokenizer.DEFAULT_CONTEXT_LENGTH)}
    told |= text.get("tokenizer_kwargs") or {}
    if not text.get("hf_tokenizer_name"):
        made: Callable[[list[str]], torch.Tensor] = tokenizer.SimpleTokenizer(**told)
        return made
    try:
        if not any((source.folder / name).is_file() for name in VOCABULARIES):
            raise FileNotFoundError(
                "no " + ", ".join(VOCABULARIES)
            )  # or it would know no words, and not say so
        made = tokenizer.HFTokenizer(str(source.folder), tokenizer_mode=text.get("tokenizer_mode"), **told)
        made(["a"])
    except Exception as error:  # transformers raises anything
        raise ModelError(
            f"{source.short}: its tokenizer does not load from {source.folder} ({first_line(error)}). It needs the "
            f"tokenizer files of {text['hf_tokenizer_name']} there"
        ) from error
    return made


def _has_branches(tower: Any) -> bool:
    return any(hasattr(layer, "reparameterize") for layer in tower.modules())


def _fused(model: Any) -> Any:
    """The model with layers that were trained as several branches turned into the one that these add up to
    (MobileCLIP), as is right in float32 only.
    """
    from timm.utils import reparameterize_model

    model.visual = reparameterize_model(model.visual, inplace=True)
    return model


def _float32() -> Any:
    import torch

    return torch.float32


def require_extra() -> None:
    """Raises ``MissingExtra`` if torch or open_clip is not installed, without importing them."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "open_clip")):
        raise MissingExtra("an open_clip model", "clip")


def import_open_clip() -> Any:
    """The library. Raises ``MissingExtra`` if it is not installed, ``ModelError`` if it cannot be imported."""
    require_extra()
    try:
        import_torchvision()
        import open_clip
    except Exception as error:
        raise ModelError(
            f"open_clip cannot be imported ({first_line(error)}). Do torch and torchvision fit each other? "
            "pip install --upgrade torch torchvision"
        ) from error
    return open_clip


def import_torchvision() -> None:
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


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
