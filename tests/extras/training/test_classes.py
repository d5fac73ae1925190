"""ConSE against a loop, and the WordNet reader against lines of the real format."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmsearch.errors import ConfigError
from mmsearch.training.classes import conse, read_nouns

NOUNS = "\n".join(
    (
        "  1 This is a line of the licence",
        "00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | that which exists  ",
        "02084071 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 002 @ 00001740 n 0000 ~ 01322604 n 0000 "
        '| a member of the genus Canis; "the dog barked all night"  ',
        "02999999 05 n 01 Rex 0 001 @i 02084071 n 0000 | a famous dog  ",
    )
)


def test_conse_is_the_probability_weighted_mean_of_the_best_classes() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((3, 12)) * 4
    vectors = generator.standard_normal((12, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = []
    for row in logits:
        share = np.exp(row / 2) / np.exp(row / 2).sum()
        best = np.argsort(-share)[:4]
        mixed = sum(share[c] * vectors[c] for c in best)
        expected.append(mixed / np.linalg.norm(mixed))
    got = conse(torch.from_numpy(logits), torch.from_numpy(vectors), temperature=2.0, top=4)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)


def test_nouns_are_read_with_names_hypernym_and_gloss_without_examples(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(NOUNS, "latin-1")
    nouns = read_nouns(tmp_path)
    assert set(nouns) == {"00001740", "02084071", "02999999"}
    dog = nouns["02084071"]
    assert dog.names == ("dog", "domestic dog", "Canis familiaris")
    assert dog.hypernym == "00001740"
    assert dog.gloss == "a member of the genus Canis"
    assert nouns["02999999"].hypernym == "02084071"
    assert nouns["00001740"].hypernym is None


def test_a_folder_without_wordnet_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.noun"):
        read_nouns(tmp_path)
