"""The two towers of an open_clip model as ONNX graphs that give its vectors, normalised to length 1."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, scaled_dot_product_attention

from mmsearch.encoders.open_clip import import_open_clip
from mmsearch.training.export import export_graph

PIXELS, IDS, VECTORS = "pixels", "ids", "vectors"
"""Names of the inputs and of the output."""


class _Images(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model.encode_image(pixels, normalize=True)


class _Texts(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.encode_text(ids, normalize=True)


class _CausalTexts(nn.Module):
    """A text tower whose tokens only look back and whose vector is that of the end token: what stands behind that is
    of no effect, so ids (n, length) of any length will do where open_clip pads to the context. A short caption is
    five times faster.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.pool = tower.text_pool_type if hasattr(tower, "text_pool_type") else tower.pool_type
        self.end = tower.text_eos_id if hasattr(tower, "text_eos_id") else tower.eos_id
        self.pooled = import_open_clip().transformer.text_global_pool

    def forward(self, ids: Tensor) -> Tensor:
        tower, length = self.tower, ids.shape[1]
        x = tower.token_embedding(ids) + tower.positional_embedding[:length]
        x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
        x = self.pooled(tower.ln_final(x), ids, self.pool, eos_token_id=self.end)
        projection = tower.text_projection
        if isinstance(projection, nn.Linear):
            x = projection(x)
        elif projection is not None:
            x = x @ projection
        return normalize(x, dim=-1)


class _Attention(nn.Module):
    """``nn.MultiheadAttention`` of a sequence with itself, written so that its graph is a dozen nodes and not a
    hundred, and all its products with weights are such as int8 can take.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads, dim = attention.num_heads, attention.embed_dim
        self.given = nn.Linear(dim, 3 * dim)
        self.given.weight, self.given.bias = attention.in_proj_weight, attention.in_proj_bias
        self.out = nn.Linear(dim, dim)
        self.out.weight, self.out.bias = attention.out_proj.weight, attention.out_proj.bias

    def forward(
        self, x: Tensor, _k: Tensor, _v: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        n, length, dim = x.shape
        parts = self.given(x).reshape(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=attn_mask)
        return self.out(mixed.transpose(1, 2).reshape(n, length, dim)), None


def export_images(model: Any, size: tuple[int, int], path: Path) -> None:
    """Write the graph from ``pixels`` (n, 3, height, width) float32, normalised, to ``vectors`` (n, dim) float32.

    size: width and height. The model's attention layers are replaced by others that compute the same.
    """
    width, height = size
    _simplify(model)
    example = torch.randn(2, 3, height, width)
    with _plain_operators():
        export_graph(_Images(model), (example,), [PIXELS], VECTORS, {0: "n"}, path)


def export_texts(model: Any, example: Tensor, path: Path) -> bool:
    """Write the graph from ``ids`` (n, length) int64 to ``vectors`` (n, dim) float32; returns whether ids may be
    shorter than the context. ``example`` is what open_clip's tokenizer gives for two texts.

    The model's attention layers are replaced by others that compute the same.
    """
    tower = model.text if isinstance(model, import_open_clip().CustomTextCLIP) else model
    _simplify(model)
    if _is_causal(tower):
        module, axes, shorter = _CausalTexts(tower), {0: "n", 1: "length"}, True
    elif hasattr(tower, "config"):  # of transformers; it masks what is padding
        module, axes, shorter = _Texts(model), {0: "n", 1: "length"}, True
    else:
        module, axes, shorter = _Texts(model), {0: "n"}, False
    with _plain_operators():
        export_graph(module, (example,), [IDS], VECTORS, axes, path)
    return shorter


def _is_causal(tower: Any) -> bool:
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", None))
    plain = getattr(tower, "cls_emb", None) is None
    return getattr(tower, "attn_mask", None) is not None and pool in ("argmax", "eos") and plain


def _simplify(model: nn.Module) -> None:
    kind = import_open_clip().transformer.ResidualAttentionBlock
    for block in model.modules():
        if not isinstance(block, kind) or hasattr(block, "ln_1_kv"):
            continue
        if isinstance(block.attn, nn.MultiheadAttention) and block.attn.batch_first:
            block.attn = _Attention(block.attn)
    model.eval().requires_grad_(False)


@contextlib.contextmanager
def _plain_operators() -> Iterator[None]:
    """Attention of what was not replaced as operators that ONNX has."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
