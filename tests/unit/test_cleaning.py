"""What a text goes through before the tokenizer of an open_clip model; the oracle itself is in tests/extras/clip."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mmsearch.encoders.cleaning import Cleaning, clean


@pytest.mark.parametrize(
    ("text", "how", "expected"),
    [
        ("  A dog\n on\tgrass ", "whitespace", "A dog on grass"),
        ("A Dog", "lower", "a dog"),
        ("Red_shoes, size 42!", "canonicalize", "red shoes size 42"),
        ("Rock &amp;amp; Roll", "lower", "rock & roll"),
        ("&Eacute;t&eacute; &#8364;5", "whitespace", "Été €5"),
        ("it’s “fine”", "whitespace", 'it\'s "fine"'),
        ("schÃ¶n", "whitespace", "schön"),
        ("Ｆｕｌｌ ﬁne", "lower", "full fine"),
        ("e\u0301", "whitespace", "é"),
        ("ΣΑΣ", "lower", "σας"),
        ("a\x00b\x1b[31mc", "whitespace", "abc"),
        ("", "canonicalize", ""),
    ],
)
def test_texts_are_repaired_and_brought_to_one_form(text: str, how: Cleaning, expected: str) -> None:
    assert clean(text, how) == expected


def test_plain_english_loads_nothing_that_repairs() -> None:
    code = "import sys; from mmsearch.encoders.cleaning import clean; clean('a dog', 'lower')"
    code += "; print('ftfy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
