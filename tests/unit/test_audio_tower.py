"""The audio tower of a model folder, on one whose answers a Fourier transform can work out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.encoders import load_encoder
from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.errors import ModelError
from mmsearch.types import AudioWindow, Modality
from tests.colour_model import save_colour_model
from tests.toy import RATE, ToyEncoder, tone

MEANS = {"image": [0.1, 0.2, 0.3, 0.4], "text": [0.4, 0.1, 0.0, 0.1], "audio": [0, 0, 0, 0.5]}
SPREADS = {asked: {"image": 0.1, "text": 0.2, "audio": 0.3} for asked in MEANS}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_colour_model(tmp_path / "model", means=MEANS, spreads=SPREADS)


def change(folder: Path, **fields: Any) -> None:
    """Change fields of ``towers.audio`` and of ``scores``."""
    path = folder / "model.json"
    manifest = json.loads(path.read_text())
    manifest["scores"] |= fields.pop("scores", {})
    manifest["towers"]["audio"] |= fields
    path.write_text(json.dumps(manifest))


def test_clips_of_any_length_get_the_vectors_that_their_tones_say(folder: Path) -> None:
    clips = [
        tone("red"),
        tone("green", seconds=0.3),
        tone("red", "blue", seconds=2),
        tone("blue", seconds=0.3),
        tone("green", "blue", amplitude=0.01),
    ]
    vectors = load_encoder(folder).encode_audio(clips)
    assert vectors.shape == (5, 4)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, ToyEncoder().encode_audio(clips), atol=1e-3)


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_the_batch_does_not_change_the_vectors(folder: Path, batch: int) -> None:
    clips = [tone(colour, seconds=seconds) for seconds in (0.5, 1, 0.5) for colour in ("red", "blue")]
    expected = load_encoder(folder).encode_audio(clips)
    change(folder, batch=batch)
    np.testing.assert_allclose(load_encoder(folder).encode_audio(clips), expected, atol=1e-6)


def test_a_clip_that_is_too_short_is_repeated(folder: Path) -> None:
    encoder = load_encoder(folder)
    short = tone("green", seconds=0.01)
    np.testing.assert_allclose(
        encoder.encode_audio([short]), encoder.encode_audio([np.tile(short, 10)]), atol=1e-6
    )


def test_no_clips_have_no_vectors(folder: Path) -> None:
    assert load_encoder(folder).encode_audio([]).shape == (0, 4)


def test_the_window_is_the_one_of_the_manifest(folder: Path) -> None:
    assert load_encoder(folder).audio_window == AudioWindow(RATE, 2.0, 1.0)
    change(folder, seconds=8, hop_seconds=3)
    assert load_encoder(folder).audio_window == AudioWindow(RATE, 8.0, 3.0)


def test_a_model_without_the_tower_has_the_other_modalities_and_says_what_it_lacks(tmp_path: Path) -> None:
    encoder = load_encoder(save_colour_model(tmp_path / "model", audio=False))
    assert encoder.modalities == {Modality.IMAGE, Modality.TEXT}
    with pytest.raises(ModelError, match="no audio tower"):
        encoder.encode_audio([tone("red")])
    assert encoder.means == {}
    assert encoder.spreads == {}


def test_the_tower_is_loaded_when_it_is_first_used(folder: Path) -> None:
    (folder / "audio.onnx").unlink()
    encoder = OnnxEncoder(folder)
    encoder.encode_texts(["red"])
    with pytest.raises(ModelError, match=r"audio\.onnx: no such file"):
        encoder.load(Modality.AUDIO)


def test_means_are_read_when_they_are_first_asked_for(folder: Path) -> None:
    encoder = OnnxEncoder(folder)
    (folder / "means.npz").rename(folder / "elsewhere")
    encoder.encode_texts(["red"])
    with pytest.raises(ModelError, match=r"means\.npz: cannot be read"):
        _ = encoder.means
    (folder / "elsewhere").rename(folder / "means.npz")
    assert {str(name): mean.tolist() for name, mean in encoder.means.items()} == {
        name: pytest.approx(mean) for name, mean in MEANS.items()
    }
    assert encoder.spreads[Modality.AUDIO] == {
        Modality.IMAGE: 0.1,
        Modality.TEXT: 0.2,
        Modality.AUDIO: 0.3,
    }


@pytest.mark.parametrize("mean", [[1.0, 0, 0], [1.0, 0, 0, 0], [np.nan, 0, 0, 0]])
def test_a_mean_that_is_none_is_refused(tmp_path: Path, mean: list[float]) -> None:
    encoder = load_encoder(save_colour_model(tmp_path / "model", means={"image": mean}))
    with pytest.raises(ModelError, match="mean of modality image"):
        _ = encoder.means


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"sample_rate": 0}, "towers.audio.sample_rate"),
        ({"sample_rate": "16 kHz"}, "towers.audio.sample_rate"),
        ({"seconds": -1}, "towers.audio.seconds"),
        ({"hop_seconds": 0}, "towers.audio.hop_seconds"),
        ({"min_seconds": True}, "towers.audio.min_seconds"),
        ({"file": "../audio.onnx"}, "towers.audio.file"),
        ({"scores": {"spreads": {"text": {"text": 0.0}}}}, "scores.spreads.text.text"),
        (
            {"scores": {"spreads": {"text": {"text": 0.1}, "image": {"image": 0.1}}}},
            "scores.spreads.*missing",
        ),
    ],
)
def test_a_wrong_field_is_named(folder: Path, fields: dict[str, Any], says: str) -> None:
    change(folder, **fields)
    with pytest.raises(ModelError, match=says):
        load_encoder(folder)


def test_an_unknown_input_of_the_graph_is_named(folder: Path) -> None:
    change(folder, input="waves")
    with pytest.raises(ModelError, match="no input 'waves'; it has samples"):
        load_encoder(folder).encode_audio([tone("red")])


def test_verify_hears_the_canonical_sounds(folder: Path) -> None:
    assert verify(folder) == []
    with np.load(folder / "canonical.npz") as stored:
        arrays = dict(stored)
    arrays["sounds"] = tone("blue")[np.newaxis]
    np.savez(folder / "canonical.npz", allow_pickle=False, **arrays)
    assert any("audio tower: a canonical vector has cosine" in problem for problem in verify(folder))


def test_verify_reads_the_means(folder: Path) -> None:
    (folder / "means.npz").write_bytes(b"no archive")
    assert any("means.npz: cannot be read" in problem for problem in verify(folder))
