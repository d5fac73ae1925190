"""Ids are those of open_clip's own tokenizers, whatever the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmsearch.encoders.manifest import Manifest, TextTower
from mmsearch.encoders.onnx import load_tokenizer
from mmsearch.encoders.open_clip import load_model
from tests.extras.clip.conftest import Export, Tiny

FAMILIES = ["vit", "siglip2", "xlm-roberta"]
"""One of each kind of tokenizer: CLIP's own, Gemma's behind ``canonicalize``, that of XLM-RoBERTa."""

# Letters that Unicode has got since are cut by the tables of the two libraries, which are not of one age.
OLD = st.characters(exclude_categories=["Cs", "Cn"])
ENTITIES = [
    "&amp;",
    "&lt;b&gt;",
    "&amp;amp;",
    "&eacute;",
    "&#39;",
    "&#x1F43B;",
    "&nbsp;",
    "&quot;",
    "& c",
    "&EACUTE;",
]
PIECES = st.one_of(
    st.text(OLD, max_size=8),
    st.sampled_from(ENTITIES),
    st.sampled_from(
        ["dog", "it’s", "IT'S", "they'Re", "“quoted”", "ﬁne", "Ｆｕｌｌ", "ΣΑΣ", "İ", "ſ", "'ſ", "K", "ǅ"]
    ),
    st.sampled_from(
        [" ", "\n", "\r\n", "\t\t", "\x00", "\x1b[31m", "\x1f", "\x85", "\xa0", "\u2028", "\u3000", "\u200b"]
    ),
    st.sampled_from(["🐻", "👩‍👩‍👧", "🇩🇪"]),
    st.sampled_from(["é", "e\u0301", "雪", "ß", "ẞ", "٣", "½", "…", "_", "__init__", "can't", "''s"]),
)
TEXTS = st.lists(PIECES, max_size=30).map("".join)

Ids = Callable[[str], list[int]]


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, tiny: Tiny, export: Export) -> tuple[Ids, Ids]:
    family: str = request.param
    theirs = load_model(tiny(family)).tokenizer
    tower = Manifest.read(export(family, "fp32").out).text_tower()
    assert isinstance(tower, TextTower)
    tokenizer, pad = load_tokenizer(tower)

    def padded(text: str) -> list[int]:
        ids = tokenizer.encode(tower.cleaned(text)).ids
        return [*ids, *[pad] * (tower.context - len(ids))]

    return padded, lambda text: [int(one) for one in theirs([text])[0]]


@settings(max_examples=400)
@given(text=TEXTS)
@example(text="")
@example(text="  \n ")
@example(text="a photo of the dog " * 50)
@example(text="word" * 500)
@example(text="Rock &amp;amp; Roll &copy; 2024")
@example(text="schÃ¶n")  # UTF-8 that was read as Latin-1
def test_ids_are_those_of_open_clip(text: str, both: tuple[Ids, Ids]) -> None:
    ours, theirs = both
    assert ours(text) == theirs(text)


def test_captions_give_the_ids_of_open_clip(both: tuple[Ids, Ids]) -> None:
    from mmsearch.training.real_inputs import general

    ours, theirs = both
    captions = [caption for _, caption in general()]
    assert len(captions) > 100
    for caption in captions:
        assert ours(caption) == theirs(caption)


def test_the_names_of_the_special_tokens_are_plain_text(tiny: Tiny, export: Export) -> None:
    """open_clip would take them for the tokens themselves, and the vector from before the end of the text."""
    tower = Manifest.read(export("vit", "fp32").out).text_tower()
    assert isinstance(tower, TextTower)
    tokenizer, _ = load_tokenizer(tower)
    ids = tokenizer.encode(tower.cleaned("a <end_of_text> b")).ids
    assert ids.count(49407) == 1
    assert ids[-1] == 49407


def test_a_tokenizer_that_draws_tokens_is_refused(tiny: Tiny) -> None:
    from mmsearch.errors import ModelError
    from mmsearch.training.clip_tokenizer import portable

    tokenizer: Any = load_model(tiny("vit")).tokenizer
    tokenizer.reduction_fn = lambda *_: None
    with pytest.raises(ModelError, match="draws tokens at random"):
        portable(tokenizer)
