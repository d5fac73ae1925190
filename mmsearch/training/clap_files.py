"""Where the files of a CLAP model are. Loads neither torch nor transformers: a missing model is told at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from mmsearch.errors import MissingExtra, ModelError

__all__ = ["PREFIX", "find_clap"]

PREFIX = "clap:"
NEEDED = ("config.json", "preprocessor_config.json")
TOKENIZERS = ("tokenizer.json", "vocab.json")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def find_clap(name: str) -> Path:
    """The folder of a CLAP model in the format of transformers, given by its path or by its name on the Hugging Face
    hub (then from the hub's cache). Nothing is downloaded.

    Raises MissingExtra without transformers, and ModelError that says what to fetch and where to put it.
    """
    if importlib.util.find_spec("transformers") is None:
        raise MissingExtra("CLAP", "clap")
    folder = Path(name).expanduser()
    if not folder.is_dir():
        found = _cached(name)
        if found is None:
            raise ModelError(
                f"{PREFIX}{name}: neither a folder nor a model in the cache of the Hugging Face hub. Where there is "
                f"a network run `hf download {name}`, or put {', '.join(NEEDED)}, {TOKENIZERS[0]} and {WEIGHTS[0]} "
                f"of https://huggingface.co/{name} in a folder and give --audio {PREFIX}FOLDER"
            )
        folder = found
    for wanted in (*((name,) for name in NEEDED), TOKENIZERS, WEIGHTS):
        if not any((folder / file).is_file() for file in wanted):
            raise ModelError(
                f"{folder}: {' or '.join(wanted)} is missing. Fetch it from where the rest is from"
            )
    return folder


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (HFValidationError, LocalEntryNotFoundError):
        return None
