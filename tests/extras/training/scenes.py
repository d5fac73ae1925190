"""Generated pictures with captions that compose, and a tiny open_clip architecture that can learn them from nothing."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import torch

from mmsearch.encoders.open_clip import import_open_clip

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 220),
    "yellow": (230, 210, 50),
    "purple": (150, 60, 190),
    "white": (245, 245, 245),
}
SHAPES = ("circle", "square", "triangle", "cross", "bar")
PLACES = tuple(
    " ".join(words) for words in itertools.product(("top", "middle", "bottom"), ("left", "centre", "right"))
)
WORDS = sorted({"a", "at", "the", *COLOURS, *SHAPES, *(word for place in PLACES for word in place.split())})
SIDE = 32


def write_scenes(folder: Path, *, held_out: int = 54, copies: int = 2, seed: int = 0) -> Path:
    """Every colour x shape x place (270) as a picture and a caption: `held_out` of them to validate on, the rest to
    train on, drawn `copies` times with small differences. Returns the table.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    scenes = list(itertools.product(COLOURS, SHAPES, range(len(PLACES))))
    order = generator.permutation(len(scenes))
    lines = [["image", "text", "split"]]
    for rank, number in enumerate(order):
        colour, shape, place = scenes[number]
        validating = rank < held_out
        for copy in range(1 if validating else copies):
            name = f"{number}-{copy}.png"
            _draw(colour, shape, place, generator).save(folder / name)
            text = f"a {colour} {shape} at the {PLACES[place]}"
            lines.append([name, text, "val" if validating else "train"])
    path = folder / "scenes.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    return path


def _draw(colour: str, shape: str, place: int, generator: np.random.Generator) -> PIL.Image.Image:
    grey = int(generator.integers(0, 60))
    picture = PIL.Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
    draw = PIL.ImageDraw.Draw(picture)
    row, column = divmod(place, 3)
    x, y = np.array([column, row]) * SIDE / 3 + SIDE / 6 + generator.uniform(-1, 1, 2)
    size = generator.uniform(3.7, 4.7)
    fill = tuple(
        int(value) for value in np.clip(np.array(COLOURS[colour]) + generator.integers(-15, 16, 3), 0, 255)
    )
    box = (x - size, y - size, x + size, y + size)
    if shape == "circle":
        draw.ellipse(box, fill=fill)
    elif shape == "square":
        draw.rectangle(box, fill=fill)
    elif shape == "triangle":
        draw.polygon([(x, y - size), (x - size, y + size), (x + size, y + size)], fill=fill)
    elif shape == "cross":
        draw.rectangle((x - size, y - 1, x + size, y + 1), fill=fill)
        draw.rectangle((x - 1, y - size, x + 1, y + size), fill=fill)
    else:
        draw.rectangle((x - size, y - 1.5, x + size, y + 1.5), fill=fill)
    return picture


def save_untrained(folder: Path, *, width: int = 64, seed: int = 0) -> Path:
    """A CLIP of a few hundred thousand parameters with random weights and a tokenizer of whole words."""
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers.models import WordLevel

    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<unk>", *WORDS, "<eos>"]  # CLIP takes what stands at the highest id
    tokenizer = Tokenizer(
        WordLevel({token: number for number, token in enumerate(tokens)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", len(tokens) - 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 12}
    told |= {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "<eos>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(told), "utf-8")
    config = {
        "model_cfg": {
            "embed_dim": width,
            "vision_cfg": {
                "image_size": SIDE,
                "layers": 3,
                "width": width,
                "head_width": 16,
                "patch_size": 8,
            },
            "text_cfg": {
                "context_length": 12,
                "vocab_size": len(tokens),
                "hf_tokenizer_name": "words",
                "width": width,
                "heads": 4,
                "layers": 2,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "squash"},
    }
    (folder / "open_clip_config.json").write_text(json.dumps(config), "utf-8")
    torch.manual_seed(seed)
    model = import_open_clip().create_model(f"local-dir:{folder}", load_weights=False)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder
