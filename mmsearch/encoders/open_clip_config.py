"""What an open_clip model says of itself, read without torch: configuration, space, weights, preprocessing."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.sources import CONFIG, WEIGHTS, Source
from mmsearch.errors import MissingExtra, ModelError

__all__ = ["architecture_config", "preprocess_of", "read_config", "space_id", "weights_file"]

_PREFERRED = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)


def read_config(source: Source) -> dict[str, Any]:
    """``model_cfg`` and ``preprocess_cfg`` of a model, without torch. Of an architecture with a file of weights, the
    architecture's own ``model_cfg`` and no ``preprocess_cfg``. Raises ``ModelError``, ``MissingExtra``.
    """
    if source.weights is not None:
        return {"model_cfg": architecture_config(source.short, str(source.architecture))}
    path = source.folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error}). Copy the model folder again.") from error
    for field in ("embed_dim", "vision_cfg", "text_cfg"):
        if not isinstance(config, dict) or field not in config.get("model_cfg", {}):
            raise ModelError(f"{path}: has no model_cfg.{field}; it is no configuration of open_clip")
    return dict(config)


def architecture_config(name: str, architecture: str) -> dict[str, Any]:
    """The ``model_cfg`` of one of open_clip's own architectures. Raises ``MissingExtra``, ``ModelError``."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise MissingExtra(name, "clip")
    path = Path(spec.origin).parent / "model_configs" / f"{architecture}.json"
    if not path.is_file():
        raise ModelError(f"{name}: open_clip has no architecture {architecture!r}")
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return config


def space_id(source: Source, config: Mapping[str, Any]) -> str:
    """The id of the space a model maps into: what its configuration declares as ``space``, else its name.

    A folder is called by its last part, a file of weights by its name: moving them leaves the space the same, and
    other weights under the same name are found out by their canonical vectors.
    """
    if isinstance(declared := config.get("space"), str) and declared:
        return declared
    if source.weights is not None:
        return f"open-clip:{source.architecture}/{source.weights.name}"
    return f"local-dir:{source.folder.name}" if source.scheme == "local-dir" else source.name


def weights_file(source: Source) -> Path:
    """The file of weights that open_clip takes. Raises ``ModelError`` if there is none that it reads."""
    if source.weights is not None:
        return source.weights
    found = [path for path in sorted(source.folder.iterdir()) if path.suffix in WEIGHTS[:3]]
    # open_clip's own order, which is what it loads
    found.sort(key=lambda path: (_PREFERRED.index(path.name) if path.name in _PREFERRED else len(_PREFERRED),
                                 path.suffix != ".safetensors"))  # fmt: skip
    if not found:
        raise ModelError(
            f"{source.folder}: has no weights that are called {', '.join(WEIGHTS[:3])}. "
            "Rename a .pt file to .pth if it holds a state dict"
        )
    return found[0]


def preprocess_of(source: Source, config: Mapping[str, Any]) -> Preprocess:
    """What pictures of a model go through, from its own configuration and never from a default.

    Raises ``ModelError`` if the model does not say: open_clip itself would take OpenAI's mean and deviation, which
    are wrong for other models and are only seen in bad results.
    """
    rules = config.get("preprocess_cfg")
    if rules is None and source.weights is not None:
        rules = _rules_of_tags(source)
    if not isinstance(rules, dict) or not rules.get("mean") or not rules.get("std"):
        raise ModelError(
            f"{source.folder / CONFIG}: preprocess_cfg has no mean and std, and no default is right for every model. "
            "Add those that it was trained with (and resize_mode and interpolation)"
        )
    size = config["model_cfg"]["vision_cfg"].get("image_size", 224)  # and never another, as open_clip has it
    height, width = size if isinstance(size, list | tuple) else (size, size)
    fill = int(rules.get("fill_color", 0))
    resize = {"shortest": "crop", "longest": "pad", "squash": "squash"}
    try:
        return Preprocess(
            size=(int(width), int(height)),
            resize=resize[rules.get("resize_mode", "shortest")],  # type: ignore[arg-type]
            interpolation="bilinear" if rules.get("interpolation") == "bilinear" else "bicubic",
            pad_color=(fill, fill, fill),
            layout="NCHW",
            mean=_scaled(rules["mean"]),
            std=_scaled(rules["std"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{source.short}: preprocess_cfg cannot be used ({error!r})") from error


def _rules_of_tags(source: Source) -> dict[str, Any]:
    """The preprocessing on which all published weights of an architecture agree."""
    from mmsearch.encoders.open_clip_model import import_open_clip

    open_clip = import_open_clip()
    tags = open_clip.list_pretrained_tags_by_model(source.architecture)
    kept = ("mean", "std", "interpolation", "resize_mode")
    found = [open_clip.get_pretrained_cfg(source.architecture, tag) for tag in tags]
    rules = [{key: rule[key] for key in kept if key in rule} for rule in found]
    if not rules or any(rule != rules[0] for rule in rules):
        raise ModelError(
            f"{source.short}: the preprocessing of {source.architecture} depends on its weights. Put the file into a "
            f"folder with {CONFIG} (model_cfg and preprocess_cfg) and name it local-dir:FOLDER"
        )
    return rules[0]


def _scaled(colour: Any) -> tuple[float, float, float]:
    red, green, blue = (
        255 * float(value) for value in (colour if isinstance(colour, list | tuple) else [colour] * 3)
    )
    return red, green, blue
