"""``mmsearch train`` from pairs to a model folder that finds what its base did not."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.errors import MediaError
from mmsearch.tables import read_table
from mmsearch.training.adapt import train_model
from mmsearch.training.dataset import Dataset, make_dataset
from mmsearch.training.finetune import Options
from mmsearch.types import Modality
from tests.colour_model import save_colour_model
from tests.e2e.conftest import in_process
from tests.extras.training.conftest import SWAPPED
from tests.toy import COLOURS


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_colour_model(tmp_path / "base")


QUICK = Options(epochs=25, batch=40, rate=0.1, patience=25, among_texts=0.0)


def read(pairs: Path) -> Dataset:
    return make_dataset(pairs, read_table(pairs), root=pairs.parent)


def test_the_new_model_finds_the_colours_by_their_new_names(base: Path, pairs: Path, tmp_path: Path) -> None:
    trained = train_model(pairs, read(pairs), base, tmp_path / "new", QUICK)
    change = trained.validation["text->image"]["recall@1"]
    assert change.base.value < 0.5 < change.new.value
    assert change.difference.value == pytest.approx(change.new.value - change.base.value)
    assert verify(tmp_path / "new") == []
    encoder = OnnxEncoder(tmp_path / "new")
    assert encoder.space.id.startswith("new-")
    red = encoder.encode_images([PIL.Image.new("RGB", (8, 8), (250, 5, 5))])[0]
    names = encoder.encode_texts(list(COLOURS))
    assert list(COLOURS)[int((names @ red).argmax())] == "green"
    sounds = {"text->audio", "audio->text"}  # the base has a tower for them, too
    assert set(trained.general) == {"text->image", "image->text", "caption->caption"} | sounds
    assert trained.untrained == [Modality.AUDIO]
    assert "The audio tower was not trained" in (tmp_path / "new" / "MODEL_CARD.md").read_text()
    assert (tmp_path / "new" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "new" / ".training").exists()


def test_one_side_only_keeps_the_space_and_the_other_tower(base: Path, pairs: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    trained = train_model(pairs, read(pairs), base, new, dataclasses.replace(QUICK, only=Modality.TEXT))
    assert trained.space == "colours-1"
    assert (new / "image.onnx").read_bytes() == (base / "image.onnx").read_bytes()
    assert (new / "text.onnx").read_bytes() != (base / "text.onnx").read_bytes()
    with np.load(new / "canonical.npz") as made, np.load(base / "canonical.npz") as before:
        np.testing.assert_array_equal(made["image_vectors"], before["image_vectors"])
        assert (made["text_vectors"] * before["text_vectors"]).sum() < 0.99
    assert verify(new) == []


def test_scores_are_measured_anew_as_far_as_the_pairs_tell(base: Path, pairs: Path, tmp_path: Path) -> None:
    towers = ("image", "text", "audio")
    spreads = {asked: dict.fromkeys(towers, 0.5) for asked in towers}
    old = save_colour_model(tmp_path / "old", means=dict.fromkeys(towers, [0.1] * 4), spreads=spreads)
    train_model(pairs, read(pairs), old, tmp_path / "new", QUICK)
    encoder = OnnxEncoder(tmp_path / "new")
    texts = encoder.encode_texts([SWAPPED[list(SWAPPED)[n % 4]] for n in range(160)])
    images = encoder.encode_images([PIL.Image.open(tmp_path / f"{n}.png") for n in range(160)])
    np.testing.assert_allclose(encoder.means[Modality.IMAGE], images.mean(0), atol=1e-5)
    np.testing.assert_allclose(encoder.means[Modality.AUDIO], [0.1] * 4, atol=1e-6)
    beyond = (texts @ (images - images.mean(0)).T)[~np.eye(160, dtype=bool)]
    assert encoder.spreads[Modality.TEXT][Modality.IMAGE] == pytest.approx(
        np.percentile(beyond, 99), abs=1e-4
    )
    assert encoder.spreads[Modality.TEXT][Modality.AUDIO] == 0.5
    best = (np.unique(texts, axis=0) @ images.T).max(1)
    assert best.min() - 0.01 <= encoder.levels[Modality.IMAGE] <= best.max() + 0.01
    assert encoder.levels[Modality.TEXT] == 0.9  # no picture has two names


def test_sounds_are_trained_on_too(base: Path, tmp_path: Path) -> None:
    import soundfile

    from tests.toy import RATE, TONES

    generator = np.random.default_rng(0)
    lines = [["audio", "text", "split"]]
    for number in range(60):
        heard = list(TONES)[number % 3]
        length = np.arange(RATE // 2) / RATE
        samples = np.sin(2 * np.pi * TONES[heard] * length) + 0.05 * generator.standard_normal(len(length))
        soundfile.write(tmp_path / f"{number}.wav", 0.5 * samples.astype(np.float32), RATE)
        lines.append([f"{number}.wav", SWAPPED[heard], "val" if number >= 40 else "train"])
    path = tmp_path / "sounds.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(lines)
    trained = train_model(path, read(path), base, tmp_path / "new", dataclasses.replace(QUICK, batch=20))
    change = trained.validation["text->audio"]["recall@1"]
    assert change.base.value < 0.5 < change.new.value
    assert verify(tmp_path / "new") == []


def test_resuming_gives_the_model_of_an_uninterrupted_run(base: Path, pairs: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, epochs=8)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole, cut = tmp_path / "one" / "new", tmp_path / "two" / "new"
    train_model(pairs, read(pairs), base, whole, options)

    class Stopped(Exception):
        pass

    def stop(epoch: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        train_model(pairs, read(pairs), base, cut, options, epochs=stop)
    assert not (cut / "model.json").exists()
    train_model(pairs, read(pairs), base, cut, options, resume=True)
    for name in ("image.onnx", "text.onnx", "model.json", "MODEL_CARD.md"):
        assert (whole / name).read_bytes() == (cut / name).read_bytes(), name


def test_a_fusion_head_makes_one_vector_of_picture_and_title(base: Path, pairs: Path, tmp_path: Path) -> None:
    from mmsearch.errors import ModelError

    rows = [
        f"{n}.png,{SWAPPED[list(SWAPPED)[n % 4]]} {word}" for n in range(160) for word in ("red", "thing")
    ]
    pairs.write_text("\n".join(["image,text", *rows]) + "\n")
    options = dataclasses.replace(QUICK, fusion="attention")
    trained = train_model(pairs, read(pairs), base, tmp_path / "new", options)
    assert set(trained.fusion) == {"everything", "image only", "text only"}
    assert verify(tmp_path / "new") == []
    encoder = OnnxEncoder(tmp_path / "new")
    images = encoder.encode_images([PIL.Image.open(tmp_path / f"{n}.png") for n in range(3)])
    texts = encoder.encode_texts(["green thing", "blue thing", "red thing"])
    fused = encoder.fuse({Modality.IMAGE: images, Modality.TEXT: texts})
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(encoder.fuse({Modality.TEXT: texts}), texts, atol=1e-5)
    with pytest.raises(ModelError, match="does not fuse audio"):
        encoder.fuse({Modality.AUDIO: texts})
    with pytest.raises(ModelError, match="no fusion head"):
        OnnxEncoder(base).fuse({Modality.TEXT: texts})
    assert "## One vector for an item" in (tmp_path / "new" / "MODEL_CARD.md").read_text()


def test_pictures_that_cannot_be_read_are_named_before_training(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "7.png").write_bytes(b"nor this")
    with pytest.raises(MediaError, match=r"(?s)2 problems.*line 5: .*3\.png.*line 9: .*7\.png"):
        train_model(pairs, read(pairs), base, tmp_path / "new", QUICK)


def test_the_command_prints_gain_and_loss_and_the_card_can_be_shown(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    new = tmp_path / "mine"
    given = [
        "--model",
        base,
        "--out",
        new,
        "--rate",
        "0.1",
        "--epochs",
        "12",
        "--patience",
        "12",
        "--batch",
        "40",
    ]
    ran = in_process("train", pairs, *given)
    assert ran.code == 0, ran.err
    assert "epoch 1: loss " in ran.err
    assert "general set: what it forgot" in ran.out
    assert f"{new}: a model of the space mine-" in ran.out
    shown = in_process("models", "show", new).out
    assert "## What it forgot" in shown
    assert in_process("models", "verify", new).code == 0
    assert "there is a model already" in in_process("train", pairs, *given).err
    home = tmp_path / "home"
    assert (
        in_process("index", tmp_path / "0.png", tmp_path / "1.png", "--home", home, "--model", new).code == 0
    )
    found = in_process("search", "green", "--home", home, "--json").records()
    assert Path(found[0]["path"]).name == "0.png"


def test_a_collection_with_titles_is_trained_on(base: Path, pairs: Path, tmp_path: Path) -> None:
    from mmsearch import Engine, NewItem, NewPart

    home = tmp_path / "home"
    with Engine.open(home, collection="shop", model=str(base), create=True) as engine:
        rows = read_table(pairs)
        engine.add(
            NewItem(
                key=str(tmp_path / str(row.one("image"))),
                modality=Modality.IMAGE,
                title=row.one("text"),
                parts=[NewPart(modality=Modality.IMAGE, content=tmp_path / str(row.one("image")))],
                is_file=True,
            )
            for row in rows
        )
    new = tmp_path / "new"
    ran = in_process(
        *("train", "--collection", "shop", "--home", home, "--model", base, "--out", new, "--json"),
        *("--rate", "0.1", "--epochs", "10", "--batch", "40"),
    )
    assert ran.code == 0, ran.err
    (record,) = ran.records()
    assert record["items"] == [144, 16]
    assert json.loads((new / "model.json").read_text())["trained"]["base"] == "colours"


def test_a_base_without_the_tower_is_refused(base: Path, pairs: Path, tmp_path: Path) -> None:
    fields = json.loads((base / "model.json").read_text())
    del fields["towers"]["text"]
    (base / "model.json").write_text(json.dumps(fields))
    ran = in_process("train", pairs, "--model", base, "--out", tmp_path / "new")
    assert ran.code == 5
    assert "the model has no text tower" in ran.err
    shutil.rmtree(base)
    assert in_process("train", pairs, "--model", base, "--out", tmp_path / "new").code == 5
