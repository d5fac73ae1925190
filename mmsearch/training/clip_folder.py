"""The folder of a tuned open_clip model: what ``local-dir:`` names, for mmsearch and for open_clip itself."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mmsearch.encoders.known import KNOWN
from mmsearch.encoders.open_clip import OpenClipEncoder, OpenClipModel
from mmsearch.encoders.preprocess import Preprocess
from mmsearch.encoders.sources import CONFIG, Source, find_source
from mmsearch.training.clip_learner import ClipOptions
from mmsearch.types import Modality

FILE = "open_clip_model.safetensors"
TRUNK = "text"
"""The folder within a model's own that has the configuration of a text trunk of ``transformers``."""

_TOKENISER = (".json", ".txt", ".model", ".jinja")


def licence_of(source: Source, config: Mapping[str, Any]) -> str:
    """The terms of the base, as far as they are known."""
    known = next((known.licence for known in KNOWN.values() if known.source == source.name), None)
    return str(known or config.get("licence") or "those of the base")


def write_clip_model(
    encoder: OpenClipEncoder,
    loaded: OpenClipModel,
    config: Mapping[str, Any],
    out: Path,
    options: ClipOptions,
    trained: Sequence[Modality],
) -> str:
    """Write weights, configuration and tokenizer; returns the id of the space.

    `config` has the ``model_cfg`` of the network as it is now. With ``only`` the space stays that of the base.
    """
    source = encoder.source
    weights = {
        name: one.detach().cpu().contiguous().clone() for name, one in loaded.model.state_dict().items()
    }
    save_file(weights, out / FILE, metadata={"format": "pt"})
    space = encoder.space.id
    if options.only is None:
        space = f"{out.resolve().name}-{hashlib.sha256((out / FILE).read_bytes()).hexdigest()[:8]}"
    told = {
        **config,
        "preprocess_cfg": config.get("preprocess_cfg") or rules_of(encoder.preprocess),
        "space": space,
        "licence": licence_of(source, config),
        "trained": {
            "base": source.short,
            "base_space": encoder.space.id,
            "towers": [modality.value for modality in trained],
            "options": {
                name: value for name, value in dataclasses.asdict(options).items() if value is not None
            },
        },
    }
    (out / CONFIG).write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    if source.weights is None:
        for path in sorted(source.folder.iterdir()):
            if path.is_file() and path.suffix in _TOKENISER and path.name != CONFIG:
                shutil.copyfile(path, out / path.name)
        if (source.folder / TRUNK).is_dir():
            shutil.copytree(source.folder / TRUNK, out / TRUNK, dirs_exist_ok=True)
    elif hasattr(loaded.tokenizer, "save_pretrained"):
        loaded.tokenizer.save_pretrained(str(out))
    return space


def rules_of(preprocess: Preprocess) -> dict[str, Any]:
    """``preprocess_cfg`` as open_clip writes it."""
    assert preprocess.mean is not None
    assert preprocess.std is not None
    width, height = preprocess.size
    return {
        "size": [height, width],
        "mean": [value / 255 for value in preprocess.mean],
        "std": [value / 255 for value in preprocess.std],
        "interpolation": preprocess.interpolation,
        "resize_mode": {"crop": "shortest", "pad": "longest", "squash": "squash"}[preprocess.resize],
        "fill_color": preprocess.pad_color[0],
    }


def opened(folder: Path, threads: int | None) -> OpenClipEncoder:
    """The encoder of a written folder, in float32."""
    source = find_source(f"local-dir:{folder.absolute()}")
    assert source is not None
    return OpenClipEncoder(source, threads=threads, precision="fp32")
