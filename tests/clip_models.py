"""Tiny open_clip models of every family, with random weights: whole ``local-dir:`` folders. Needs the extra clip."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmsearch.encoders.open_clip import import_open_clip

__all__ = ["CONTEXT", "FAMILIES", "save_tiny"]

OPENAI = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
HALF = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "resize_mode": "longest"}
PLAIN = {"mean": [0, 0, 0], "std": [1, 1, 1], "interpolation": "bilinear", "resize_mode": "shortest"}

CONTEXT = 24
VOCABULARY = 400
_TEXT = {"context_length": CONTEXT, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
_VIT = {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}


def _timm(name: str, size: int, pool: str, proj: str | None) -> dict[str, Any]:
    return {"timm_model_name": name, "timm_pool": pool, "timm_proj": proj, "image_size": size}


# family -> (model_cfg, preprocess_cfg), each in the shape that the real ones of the family have
_CONFIGS: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "vit": ({"embed_dim": 32, "vision_cfg": _VIT, "text_cfg": _TEXT}, OPENAI),
    "vit-quickgelu": ({"embed_dim": 32, "quick_gelu": True, "vision_cfg": _VIT, "text_cfg": _TEXT}, OPENAI),
    "siglip2": (
        {
            "embed_dim": 96,
            "init_logit_bias": -10,
            "custom_text": True,
            "vision_cfg": _timm("test_vit3", 160, "map", "none"),
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": VOCABULARY,
                "hf_tokenizer_name": "timm/ViT-B-16-SigLIP2",
                "tokenizer_kwargs": {"clean": "canonicalize"},
                "width": 96,
                "heads": 2,
                "layers": 2,
                "no_causal_mask": True,
                "proj_bias": True,
                "pool_type": "last",
                "norm_kwargs": {"eps": 1e-6},
                "act_kwargs": {"approximate": "tanh"},
            },
        },
        HALF,
    ),
    "pe-core": (
        {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": _timm("vit_pe_core_tiny_patch16_384", 384, "map", None),
            "text_cfg": _TEXT,
        },
        {**HALF, "interpolation": "bilinear"},
    ),
    "convnext": (
        {"embed_dim": 32, "vision_cfg": _timm("test_convnext", 160, "", "linear"), "text_cfg": _TEXT},
        IMAGENET,
    ),
    "resnet": (
        {
            "embed_dim": 32,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 32, "patch_size": None},
            "text_cfg": _TEXT,
        },
        OPENAI,
    ),
    "mobileclip2": (
        {
            "embed_dim": 32,
            "custom_text": True,
            "vision_cfg": _timm("fastvit_mci0", 256, "avg", None),
            "text_cfg": {**_TEXT, "no_causal_mask": True},
        },
        PLAIN,
    ),
    "xlm-roberta": (
        {
            "embed_dim": 32,
            "vision_cfg": _VIT,
            "text_cfg": {
                "context_length": CONTEXT,
                "hf_model_name": "xlm-roberta-base",
                "hf_tokenizer_name": "xlm-roberta-base",
                "hf_pooler_type": "mean_pooler",
            },
        },
        OPENAI,
    ),
}  # fmt: skip

FAMILIES = tuple(_CONFIGS)
"""vit, vit-quickgelu, siglip2, pe-core, convnext, resnet, mobileclip2, xlm-roberta."""

_TRUNK = {
    "model_type": "xlm-roberta",
    "architectures": ["XLMRobertaForMaskedLM"],
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 130,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}

_WORDS = (
    "a an the photo picture of with on in and dog cat red blue green car house tree bird sea sky snow grass"
)


def save_tiny(folder: Path, family: str, seed: int = 0) -> Path:
    """Write a whole model of ``family`` (one of ``FAMILIES``) into ``folder``, which is made, and return it.

    Its files: ``open_clip_config.json``, ``open_clip_model.safetensors``, a tokenizer where the family has one of its
    own, ``text/config.json`` where the trunk of its text tower is one of ``transformers``. Weights are random by
    ``seed`` and none is a plain constant, so that every layer has a say in the vectors.
    """
    open_clip = import_open_clip()
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    model_cfg, preprocess_cfg = _CONFIGS[family]
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2), "utf-8")
    changed: dict[str, Any] = {}
    if family == "siglip2":
        _gemma_tokenizer(folder)
    if family == "xlm-roberta":
        _roberta_tokenizer(folder)
        (folder / "text").mkdir(exist_ok=True)
        (folder / "text" / "config.json").write_text(json.dumps(_TRUNK), "utf-8")
        changed = {"text_cfg": {**model_cfg["text_cfg"], "hf_model_name": str(folder / "text")}}
        changed["text_cfg"]["hf_model_pretrained"] = False
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        logging.disable(logging.WARNING)  # that nothing was loaded
        try:
            model = open_clip.create_model(
                f"local-dir:{folder}", load_weights=False, pretrained_text=False, **changed
            )
        finally:
            logging.disable(logging.NOTSET)
        model.load_state_dict({name: _lively(name, value) for name, value in model.state_dict().items()})
        _settle(model.visual)
    weights = {name: value.detach().clone().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


def _lively(name: str, value: Any) -> Any:
    """A random value of a size that lets the input through to the vectors: as they are initialised, residual branches
    are scaled by 1e-6, biases are zero, and all pictures look the same.
    """
    import torch

    if not value.is_floating_point() or name.startswith("logit_"):
        return value
    if value.ndim > 1 and value.shape[0] > 1:
        return torch.randn_like(value) * 1.5 / value[0].numel() ** 0.5
    if value.numel() > 1 and float(value.std()) < 1e-9:
        return (value if float(value.abs().max()) > 1e-3 else 0) + 0.1 * torch.randn_like(value)
    return value


def _settle(tower: Any) -> None:
    """Give layers that normalise by the pictures they have seen the mean and variance of a few random ones."""
    import torch

    layers = [layer for layer in tower.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    if not layers:
        return
    for layer in layers:
        layer.momentum = 1.0
    size = tower.image_size if isinstance(tower.image_size, tuple) else (tower.image_size,) * 2
    coarse = torch.randn(4, 3, 8, 8)
    with torch.no_grad():
        tower.train()(torch.nn.functional.interpolate(coarse, size, mode="bilinear"))
    tower.eval()


def _gemma_tokenizer(folder: Path) -> None:
    """A tokenizer of the kind that SigLIP2 has: pieces behind ▁, bytes for what it does not know, <eos> at the end."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
    from tokenizers.models import BPE

    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    pieces = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz"]
    merges: list[tuple[str, str]] = []
    for word in ["▁" + word for word in _WORDS.split()]:
        whole = word[0]
        for letter in word[1:]:
            if whole + letter not in pieces:
                merges.append((whole, letter))
                pieces.append(whole + letter)
            whole += letter
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    assert len(vocabulary) <= VOCABULARY
    tokenizer = Tokenizer(BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": False,
        "add_eos_token": True,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_max_length": CONTEXT,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2), "utf-8")


def _roberta_tokenizer(folder: Path) -> None:
    """A tokenizer of the kind that XLM-RoBERTa has: likely pieces of a unigram model between <s> and </s>."""
    from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import Unigram

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    scores = [(token, 0.0) for token in special]
    scores += [("▁" + word, -3.0 - number / 100) for number, word in enumerate(_WORDS.split()) if word != "a"]
    scores += [(letter, -6.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    scores += [("▁a", -2.0), ("<mask>", 0.0)]
    tokenizer = Tokenizer(Unigram(scores, unk_id=3, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("  ", " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in [*special, "<mask>"]])
    tokenizer.save(str(folder / "tokenizer.json"))
    told = {
        "tokenizer_class": "XLMRobertaTokenizer",
        "model_max_length": 128,
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told, indent=2), "utf-8")
