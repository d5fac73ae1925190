"""open_clip's tokenizers in the format of the library ``tokenizers``."""

import gzip
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

from mmsearch.encoders.cleaning import Cleaning
from mmsearch.errors import ModelError

WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
START, END = "<start_of_text>", "<end_of_text>"
MERGES = 49152 - 256 - 2
"""Of the list of merges CLIP takes so many."""


def clip_tokenizer(vocabulary: Path) -> Tokenizer:
    """CLIP's tokenizer from the list of merges that open_clip carries (``bpe_simple_vocab_16e6.txt.gz``).

    It takes texts that `mmsearch.encoders.cleaning` has been over. The words of the start and end tokens in a text are
    text, where open_clip would take them for the tokens.
    """
    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")
    merges = [(one, other) for one, other in (line.split() for line in lines[1 : MERGES + 1])]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges)]
    ids = {word: number for number, word in enumerate([*words, START, END])}
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $0 {END}", special_tokens=[(START, ids[START]), (END, ids[END])]
    )
    return tokenizer


def portable(tokenizer: Any) -> tuple[Tokenizer, Cleaning]:
    """What does the work of a tokenizer of open_clip, with the id that it pads with, and the cleaning before it.

    Raises ``ModelError`` for a kind whose ids cannot be had so.
    """
    if hasattr(tokenizer, "byte_encoder"):
        if tokenizer.reduction_fn is not None:
            raise ModelError("its tokenizer draws tokens at random (reduction_mask): that is not exported")
        from open_clip.tokenizer import default_bpe

        found = clip_tokenizer(Path(default_bpe()))
        found.enable_padding(pad_id=0, pad_token="!")
        return found, _cleaning(tokenizer)
    inner = tokenizer.tokenizer
    if getattr(tokenizer, "tokenizer_mode", "") or getattr(tokenizer, "strip_sep_token", False):
        raise ModelError(
            "its tokenizer rewrites ids (strip_sep_token or tokenizer_mode): that is not exported"
        )
    if not hasattr(inner, "backend_tokenizer"):
        raise ModelError("its tokenizer is none of the fast ones of transformers: that is not exported")
    found = Tokenizer.from_str(inner.backend_tokenizer.to_str())
    found.no_truncation()
    found.enable_padding(pad_id=inner.pad_token_id, pad_token=inner.pad_token)
    return found, _cleaning(tokenizer)


def _cleaning(tokenizer: Any) -> Cleaning:
    from open_clip.tokenizer import get_clean_fn

    known: tuple[Cleaning, ...] = ("whitespace", "lower", "canonicalize")
    for name in known:
        if getattr(tokenizer, "clean_fn", None) is get_clean_fn(name):
            return name
    return "canonicalize"  # of SigLipTokenizer, which has no clean_fn


def _byte_letters() -> list[str]:
    """The letters that stand for bytes, in CLIP's order: the printable ones first, then the others moved past 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(len(others))]
