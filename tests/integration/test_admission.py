"""Which models may encode for a collection: exports of the same weights, new towers on a base, other checkpoints."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from mmsearch import Engine, Modality, NewItem, NewPart
from mmsearch.encoders import BUILT_IN_MODELS, Encoder, load_encoder
from mmsearch.encoders.canonical import CANONICAL_COSINE, TEXTS, canonical_vectors, pictures, sounds
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.errors import ModelError, SpaceMismatch
from tests.colour_model import save_colour_model
from tests.oracle import directions
from tests.toy import ToyEncoder

TURN = np.linalg.qr(directions(4, 4, seed=5))[0].astype(np.float32)
OTHER = np.linalg.qr(directions(4, 4, seed=6))[0].astype(np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``full``; ``half``, the same weights in half precision; ``other``, other weights of the same name and space."""
    folder = tmp_path_factory.mktemp("models")
    save_colour_model(folder / "full", turn=TURN)
    save_colour_model(folder / "half", turn=TURN, half=True)
    save_colour_model(folder / "other", turn=OTHER)
    save_colour_model(folder / "silent", turn=TURN, audio=False)
    return folder


def counted(name: str, plain: Callable[..., Any], asked: list[str]) -> Callable[..., Any]:
    def encode(self: OnnxEncoder, inputs: Any) -> Any:
        asked.append(name)
        return plain(self, inputs)

    return encode


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The towers that were asked for vectors since."""
    asked: list[str] = []
    for name in ("encode_images", "encode_texts", "encode_audio"):
        monkeypatch.setattr(OnnxEncoder, name, counted(name, getattr(OnnxEncoder, name), asked))
    return asked


@contextlib.contextmanager
def catalog(home: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(home / "catalog.db")) as connection:
        yield connection
        connection.commit()


def known(home: Path) -> dict[str, Any]:
    with catalog(home) as connection:
        rows = connection.execute("SELECT modality, data FROM canonicals ORDER BY modality").fetchall()
        admitted = connection.execute("SELECT fingerprint FROM admitted").fetchall()
    return {"canonicals": dict(rows), "admitted": {name for (name,) in admitted}}


def fill(engine: Engine) -> None:
    parts = [NewPart(modality=Modality.TEXT, content="red")]
    engine.add([NewItem(key="a", modality=Modality.TEXT, parts=parts)])


def test_a_new_collection_keeps_what_the_canonical_inputs_are_in_its_space(
    models: Path, tmp_path: Path
) -> None:
    with Engine.open(tmp_path, model=models / "full") as engine:
        found = canonical_vectors(engine.encoder, engine.encoder.modalities)
    kept = known(tmp_path)
    assert kept["admitted"] == {load_encoder(models / "full").fingerprint}
    assert set(kept["canonicals"]) == {"image", "text", "audio"}
    for modality, vectors in found.items():
        stored = np.frombuffer(kept["canonicals"][modality], "<f2").reshape(-1, 4)
        np.testing.assert_array_equal(stored, vectors.astype(np.float16))
    assert len(found[Modality.TEXT]) == len(TEXTS)
    assert len(found[Modality.IMAGE]) == len(pictures())
    assert len(found[Modality.AUDIO]) == len(sounds(16_000, 1.0))


def test_the_same_weights_in_half_precision_are_admitted_and_remembered(
    models: Path, tmp_path: Path, encoded: list[str]
) -> None:
    with Engine.open(tmp_path, model=models / "full") as engine:
        fill(engine)
    exact, half = (load_encoder(models / name) for name in ("full", "half"))
    assert (exact.encode_texts(["red"]) != half.encode_texts(["red"])).any(), "not the same file twice"
    encoded.clear()
    with Engine.open(tmp_path, model=models / "half", create=False) as engine:
        assert sorted(encoded) == ["encode_audio", "encode_images", "encode_texts"]
        assert engine.search("red")[0].score == pytest.approx(1.0, abs=2e-3)
    assert known(tmp_path)["admitted"] == {exact.fingerprint, half.fingerprint}
    encoded.clear()
    with Engine.open(tmp_path, model=models / "half", create=False) as engine:
        assert encoded == [], "nothing is compared twice"
        engine.search("red")
        assert encoded == ["encode_texts"]


def test_another_checkpoint_of_the_same_name_is_refused_with_the_command_that_helps(
    models: Path, tmp_path: Path
) -> None:
    with Engine.open(tmp_path, collection="photos", model=models / "full") as engine:
        fill(engine)
    before = known(tmp_path)
    with pytest.raises(SpaceMismatch) as refused:
        Engine.open(tmp_path, collection="photos", model=models / "other", create=False)
    assert f"mmsearch migrate photos --model {models / 'other'}" in str(refused.value)
    assert "'colours-1'" in str(refused.value)
    assert "tower" in str(refused.value)
    assert known(tmp_path) == before
    with Engine.open(tmp_path, collection="photos", create=False) as engine:
        assert engine.search("red")[0].score == pytest.approx(1.0, abs=2e-3)


def test_the_refusal_names_tower_and_cosine(models: Path, tmp_path: Path) -> None:
    """Only the sounds differ: a model with the other's audio tower."""
    mixed = Path(shutil.copytree(models / "full", tmp_path / "mixed"))
    shutil.copy(models / "other" / "audio.onnx", mixed / "audio.onnx")
    manifest = json.loads((mixed / "model.json").read_text())
    manifest["version"] = "2.0"
    (mixed / "model.json").write_text(json.dumps(manifest))
    Engine.open(tmp_path / "home", model=models / "full").close()
    right, wrong = (
        canonical_vectors(load_encoder(folder), [Modality.AUDIO])[Modality.AUDIO]
        for folder in (models / "full", mixed)
    )
    cosine = float((right.astype(np.float16).astype(np.float64) * wrong).sum(axis=1).min())
    assert cosine < CANONICAL_COSINE
    with pytest.raises(SpaceMismatch, match=rf"the audio tower of .*{cosine:.2f}"):
        Engine.open(tmp_path / "home", model=mixed, create=False)


def test_a_model_folder_that_was_replaced_is_refused_when_it_is_loaded(models: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(models / "full", tmp_path / "own"))
    with Engine.open(tmp_path / "home", model=own) as engine:
        fill(engine)
    shutil.rmtree(own)
    shutil.copytree(models / "other", own)
    with Engine.open(tmp_path / "home", create=False) as engine:
        assert len(list(engine.items())) == 1, "what needs no encoder goes on"
        with pytest.raises(SpaceMismatch, match=f"mmsearch migrate default --model {own}"):
            engine.search("red")
    shutil.rmtree(own)
    shutil.copytree(models / "half", own)
    with Engine.open(tmp_path / "home", create=False) as engine:
        assert engine.search("red")


def test_a_model_that_brings_a_new_modality_adds_what_it_is(models: Path, tmp_path: Path) -> None:
    Engine.open(tmp_path, model=models / "silent").close()
    assert set(known(tmp_path)["canonicals"]) == {"image", "text"}
    Engine.open(tmp_path, model=models / "full").close()
    assert set(known(tmp_path)["canonicals"]) == {"image", "text", "audio"}
    with pytest.raises(SpaceMismatch):
        Engine.open(tmp_path, model=models / "other")


def test_the_catalog_of_a_reader_is_not_written(models: Path, tmp_path: Path) -> None:
    Engine.open(tmp_path, model=models / "full").close()
    before = known(tmp_path)
    with Engine.open(tmp_path, create=False) as writer, writer.writing():
        done: list[Any] = []

        def read() -> None:
            with Engine.open(tmp_path, model=models / "half", create=False) as engine:
                done.append(engine.space)

        reader = threading.Thread(target=read)
        reader.start()
        reader.join()
        assert done, "it is admitted even so"
    assert known(tmp_path) == before
    Engine.open(tmp_path, model=models / "half", create=False).close()
    assert len(known(tmp_path)["admitted"]) == 2


def forget_canonicals(home: Path) -> None:
    """As in a catalog that was made before they were kept."""
    with catalog(home) as connection:
        connection.execute("DELETE FROM canonicals")
        connection.execute("DELETE FROM admitted")


def test_an_older_collection_gets_its_canonical_vectors_when_it_is_written_not_searched(
    models: Path, tmp_path: Path, encoded: list[str]
) -> None:
    with Engine.open(tmp_path, model=models / "full") as engine:
        fill(engine)
    whole = known(tmp_path)
    forget_canonicals(tmp_path)
    encoded.clear()
    with Engine.open(tmp_path, create=False) as engine:
        engine.search("red")
        assert encoded == ["encode_texts"]
        assert known(tmp_path) == {"canonicals": {}, "admitted": set()}
        fill(engine)
    assert known(tmp_path) == whole


def test_an_older_collection_asks_its_own_model_before_it_admits_another(
    models: Path, tmp_path: Path
) -> None:
    Engine.open(tmp_path, model=models / "full").close()
    whole = known(tmp_path)
    forget_canonicals(tmp_path)
    with pytest.raises(SpaceMismatch, match="tower"):
        Engine.open(tmp_path, model=models / "other", create=False)
    assert known(tmp_path) == whole
    forget_canonicals(tmp_path)
    Engine.open(tmp_path, model=models / "half", create=False).close()
    assert known(tmp_path)["canonicals"] == whole["canonicals"]


def test_an_older_collection_without_its_model_says_that_it_cannot_compare(
    models: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(models / "full", tmp_path / "own"))
    Engine.open(tmp_path / "home", model=own).close()
    forget_canonicals(tmp_path / "home")
    shutil.rmtree(own)
    notices: list[str] = []
    Engine.open(tmp_path / "home", model=models / "half", create=False, notice=notices.append).close()
    assert ["cannot be checked" in line for line in notices] == [True]


def test_a_programs_encoder_is_compared_too(tmp_path: Path) -> None:
    class Inverted(ToyEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.fingerprint = "inverted"

        def _embed(self, colours: Any) -> Any:
            return super()._embed(1 - colours)

    class Export(ToyEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.fingerprint = "export"

    Engine.open(tmp_path, model=ToyEncoder()).close()
    Engine.open(tmp_path, model=Export()).close()
    with pytest.raises(SpaceMismatch, match=r"(image|audio|text) tower"):
        Engine.open(tmp_path, model=Inverted())


# -- the built-in models -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("mini")
    Engine.open(home).close()
    return home


def test_the_towers_of_another_language_are_admitted_by_their_base(mini: Path, encoded: list[str]) -> None:
    """Its text tower needs a package that need not be there: it is not what tells the space."""
    with Engine.open(mini, model="mini-multilingual", create=False) as engine:
        assert sorted(encoded) == ["encode_audio", "encode_images"]
        fingerprint = engine.encoder.fingerprint
    kept = known(mini)
    assert {fingerprint, load_encoder("mini").fingerprint} <= kept["admitted"]
    assert fingerprint != load_encoder("mini").fingerprint


def test_what_another_language_indexed_is_searched_with_the_base(tmp_path: Path) -> None:
    with Engine.open(tmp_path, model="mini-multilingual") as engine:
        picture = PIL.Image.new("RGB", (64, 64), (200, 20, 20))
        parts = [NewPart(modality=Modality.IMAGE, content=picture)]
        engine.add([NewItem(key="red", modality=Modality.IMAGE, parts=parts)])
    assert set(known(tmp_path)["canonicals"]) == {"audio", "image"}
    with Engine.open(tmp_path, model="mini", create=False) as engine:
        assert engine.search("a red square")[0].item.key == "red"
    assert set(known(tmp_path)["canonicals"]) == {"audio", "image", "text"}
    Engine.open(tmp_path, model="mini-multilingual", create=False).close()


def test_a_model_for_another_base_is_refused(mini: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUILT_IN_MODELS / "mini-multilingual", tmp_path / "foreign"))
    manifest = json.loads((folder / "model.json").read_text())
    manifest["base"]["files"]["image.onnx"]["sha256"] = "0" * 64
    (folder / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"another image\.onnx"):
        Engine.open(mini, model=folder, create=False)


def test_a_tower_that_was_trained_towards_the_others_is_admitted_by_them(
    models: Path, tmp_path: Path
) -> None:
    """As `mmsearch train --only text` writes it."""
    trained = Path(shutil.copytree(models / "full", tmp_path / "trained"))
    shutil.copy(models / "other" / "text.onnx", trained / "text.onnx")
    manifest = json.loads((trained / "model.json").read_text())
    manifest["trained"] = {"base": "colours", "base_space": "colours-1", "towers": ["text"]}
    (trained / "model.json").write_text(json.dumps(manifest))
    Engine.open(tmp_path / "home", model=models / "full").close()
    Engine.open(tmp_path / "home", model=trained, create=False).close()
    manifest["trained"]["base_space"] = "colours-0"
    manifest["version"] = "2.0"
    (trained / "model.json").write_text(json.dumps(manifest))
    with pytest.raises(SpaceMismatch, match="the text tower"):
        Engine.open(tmp_path / "home", model=trained, create=False)


def test_a_fingerprint_tells_models_apart_and_not_their_folders(models: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(models / "full", tmp_path / "copy")
    prints: list[str] = [
        one.fingerprint
        for one in map(load_encoder, (models / "full", copy, models / "half", models / "other"))
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_canonical_inputs_are_always_the_same() -> None:
    """Catalogs hold vectors of them: a change of these would make every model a stranger."""
    digest = hashlib.sha256()
    for picture in pictures():
        assert picture.size == (320, 240)
        small = np.asarray(picture.resize((16, 12), PIL.Image.Resampling.BOX), np.float32)
        digest.update(np.rint(small / 16).astype(np.uint8).tobytes())
    for sound in sounds(16_000, 3.0):
        assert len(sound) == 48_000
        loudness = np.sqrt((sound.reshape(-1, 1600).astype(np.float64) ** 2).mean(axis=1))
        digest.update(np.rint(loudness * 20).astype(np.uint8).tobytes())
    digest.update("|".join(TEXTS).encode())
    assert digest.hexdigest()[:16] == "1053b53a425a474a"


def test_every_canonical_input_of_mini_differs_from_the_others() -> None:
    encoder: Encoder = load_encoder("mini")
    for modality, vectors in canonical_vectors(encoder, encoder.modalities).items():
        cosines = vectors @ vectors.T - 2 * np.eye(len(vectors))
        assert cosines.max() < 0.95, modality
