"""Encoding for many requests at once: the same vectors, fewer calls, no bad neighbour."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsearch.encoders import load_encoder
from mmsearch.errors import ModelError
from mmsearch.server.batching import SharedEncoder
from mmsearch.types import Vectors
from tests.colour_model import save_colour_model


class Slow:
    """An encoder whose calls are counted and wait until they are let go."""

    def __init__(self, folder: Path) -> None:
        self.inner = load_encoder(folder)
        self.calls: list[list[str]] = []
        self.gate = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    @property
    def batch_size(self) -> int:
        return 8

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        self.calls.append(list(texts))
        self.gate.wait(10)
        if "bad" in texts:
            raise ModelError("bad text")
        return self.inner.encode_texts(texts)


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(save_colour_model(tmp_path / "model"))


def test_what_comes_while_a_batch_is_encoded_goes_together_and_each_gets_its_own(slow: Slow) -> None:
    shared = SharedEncoder(slow)  # type: ignore[arg-type]
    words = ["red", "green", "blue", "red green", "green blue", "red blue"]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(shared.encode_texts, ["red red"])
        while not slow.calls:
            pass
        others = [pool.submit(shared.encode_texts, [word]) for word in words]
        while shared._texts._queue.qsize() < len(words):
            pass
        slow.gate.set()
        vectors = [other.result() for other in others]
        first.result()
    assert len(slow.calls) == 2
    assert sorted(slow.calls[1]) == sorted(words)
    for word, vector in zip(words, vectors, strict=True):
        np.testing.assert_array_equal(vector, slow.inner.encode_texts([word]))


def test_a_text_that_was_encoded_lately_is_not_encoded_again(slow: Slow) -> None:
    slow.gate.set()
    shared = SharedEncoder(slow, kept=2)  # type: ignore[arg-type]
    once = shared.encode_texts(["red", "green"])
    again = shared.encode_texts(["green", "red", "red"])
    np.testing.assert_array_equal(again, once[[1, 0, 0]])
    assert slow.calls == [["red", "green"]]
    assert (shared.hits, shared.misses) == (3, 2)
    shared.encode_texts(["blue"])  # drops the one that was not asked for longest
    shared.encode_texts(["green"])
    assert slow.calls[-1] == ["green"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    asked=st.lists(
        st.lists(st.sampled_from(["red", "green", "blue", "red blue", "green blue"]), max_size=4), max_size=9
    )
)
def test_whatever_was_kept_and_dropped_a_text_has_its_own_vector(slow: Slow, asked: list[list[str]]) -> None:
    slow.gate.set()
    shared = SharedEncoder(slow, kept=3)  # type: ignore[arg-type]
    for texts in asked:
        expected = [slow.inner.encode_texts([text])[0] for text in texts]
        for vector, right in zip(shared.encode_texts(texts), expected, strict=True):
            np.testing.assert_array_equal(vector, right)
        assert len(shared._rows) <= 3


def test_kept_vectors_are_no_ones_to_change(slow: Slow) -> None:
    slow.gate.set()
    shared = SharedEncoder(slow)  # type: ignore[arg-type]
    first = shared.encode_texts(["red"])
    expected = first.copy()
    first[:] = 7
    np.testing.assert_array_equal(shared.encode_texts(["red"]), expected)


def test_a_bad_text_fails_alone(slow: Slow) -> None:
    shared = SharedEncoder(slow)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(shared.encode_texts, ["red red"])
        while not slow.calls:
            pass
        good, bad = pool.submit(shared.encode_texts, ["blue"]), pool.submit(shared.encode_texts, ["bad"])
        while shared._texts._queue.qsize() < 2:
            pass
        slow.gate.set()
        first.result()
        np.testing.assert_array_equal(good.result(), slow.inner.encode_texts(["blue"]))
        with pytest.raises(ModelError, match="bad text"):
            bad.result()
