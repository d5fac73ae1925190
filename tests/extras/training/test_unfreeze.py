"""``mmsearch train --unfreeze``: the last layers of the towers learn from what comes in before them."""

import dataclasses
import hashlib
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from mmsearch.encoders.onnx import OnnxEncoder, verify
from mmsearch.encoding import encode
from mmsearch.errors import ConfigError
from mmsearch.manifests import Media
from mmsearch.tables import Problems, read_table
from mmsearch.training.activations import TOGETHER, Activations, record
from mmsearch.training.adapt import train_model
from mmsearch.training.cut import cut
from mmsearch.training.dataset import Dataset, make_dataset
from mmsearch.training.export import append_head
from mmsearch.training.finetune import Options
from mmsearch.training.residual import Heads
from mmsearch.training.unfrozen import UnfrozenTower
from mmsearch.types import MEDIA, Modality
from tests.colour_model import save_colour_model
from tests.e2e.conftest import in_process
from tests.toy import COLOURS, RATE, tone

QUICK = Options(
    unfreeze=1, head=None, epochs=120, batch=40, rate=0.3, patience=120, among_texts=0.0, decay=0.0
)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The colour model with a layer at the end of its picture and text towers that changes nothing yet."""
    folder = save_colour_model(tmp_path / "base")
    fields = json.loads((folder / "model.json").read_text())
    for name in ("image.onnx", "text.onnx"):
        layer = (np.zeros((4, 4), np.float32), np.zeros(4, np.float32))
        append_head(folder / name, folder / name, "vectors", [layer])
        fields["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "model.json").write_text(json.dumps(fields))
    return folder


def read(pairs: Path) -> Dataset:
    return make_dataset(pairs, read_table(pairs), root=pairs.parent)


def test_the_layers_learn_the_new_names(base: Path, pairs: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    trained = train_model(pairs, read(pairs), base, new, QUICK)
    change = trained.validation["text->image"]["recall@1"]
    assert change.base.value < 0.5 < change.new.value
    assert trained.layers == {Modality.IMAGE: 1, Modality.TEXT: 1}
    assert verify(new) == []
    encoder = OnnxEncoder(new)
    red = encoder.encode_images([PIL.Image.new("RGB", (8, 8), (250, 5, 5))])[0]
    names = encoder.encode_texts(list(COLOURS))
    assert list(COLOURS)[int((names @ red).argmax())] == "green"
    for name in ("image.onnx", "text.onnx"):
        assert (new / name).stat().st_size == (base / name).stat().st_size
        assert (new / name).read_bytes() != (base / name).read_bytes()
    card = (new / "MODEL_CARD.md").read_text()
    assert "with its last layers trained (1 of its image tower and 1 of its text tower" in card
    fields = json.loads((new / "model.json").read_text())
    assert fields["trained"]["options"]["unfreeze"] == 1
    assert fields["licence"].endswith("last layers trained on the pairs of their owner")
    assert not (new / ".training").exists()


def test_one_tower_alone_with_a_head_behind_it(base: Path, pairs: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    options = dataclasses.replace(QUICK, only=Modality.TEXT, head="linear", rate=0.1)
    trained = train_model(pairs, read(pairs), base, new, options)
    assert trained.space == "colours-1"
    assert (new / "image.onnx").read_bytes() == (base / "image.onnx").read_bytes()
    assert (new / "text.onnx").stat().st_size > (base / "text.onnx").stat().st_size
    assert verify(new) == []
    card = (new / "MODEL_CARD.md").read_text()
    assert "(1 of its text tower" in card
    assert "and a trained linear head on its text tower" in card


def test_resuming_gives_the_model_of_an_uninterrupted_run(base: Path, pairs: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, epochs=40, decay=0.05)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole, broken = tmp_path / "one" / "new", tmp_path / "two" / "new"
    train_model(pairs, read(pairs), base, whole, options)

    class Stopped(Exception):
        pass

    def stop(epoch: Any) -> None:
        if epoch.number == 3:
            raise Stopped

    with pytest.raises(Stopped):
        train_model(pairs, read(pairs), base, broken, options, epochs=stop)
    train_model(pairs, read(pairs), base, broken, options, resume=True)
    for name in ("image.onnx", "text.onnx", "model.json", "MODEL_CARD.md"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name


def recordings(folder: Path) -> list[Media]:
    """Short ones, and one of several parts."""
    import soundfile

    found = []
    for n, sound in enumerate([tone("red"), tone("blue"), np.concatenate([tone("red"), tone("green")] * 4)]):
        soundfile.write(folder / f"{n}.wav", sound, RATE)
        found.append(Media(Modality.AUDIO, folder / f"{n}.wav", f"line {n}"))
    return found


@pytest.mark.parametrize("modality", list(MEDIA))
def test_what_is_kept_gives_the_vectors_of_the_engine(modality: Modality, base: Path, tmp_path: Path) -> None:
    encoder = OnnxEncoder(base)
    if modality is Modality.AUDIO:
        media = recordings(tmp_path)
    elif modality is Modality.TEXT:
        captions = ["red", "a blue and red thing", "green", "white and blue or \udcff"]
        media = [Media(Modality.TEXT, text) for text in captions]
    else:
        media = []
        for n, colour in enumerate(COLOURS.values()):
            PIL.Image.new("RGB", (20, 11), colour).save(tmp_path / f"{n}.png")
            media.append(Media(Modality.IMAGE, tmp_path / f"{n}.png"))
    found = cut(base / f"{modality}.onnx", "vectors", 1)
    problems = Problems(tmp_path)
    seen: list[tuple[int, int]] = []
    vectors = record(
        encoder,
        found,
        modality,
        media,
        problems,
        tmp_path / "kept",
        threads=2,
        progress=lambda done, total: seen.append((done, total)),
    )
    expected, _ = encode(encoder, media, problems)
    assert len(problems) == 0
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert seen[-1] == (len(media), len(media))
    kept = Activations(tmp_path / "kept")
    heads = Heads([modality], 4, None, 1.0, 0.0, {modality: UnfrozenTower(found)})
    assert len(kept) == len(media)
    np.testing.assert_allclose(heads.encode(modality, kept).numpy(), expected, atol=2e-3)
    some = torch.tensor([2, 0])
    np.testing.assert_allclose(heads.encode(modality, kept, some).numpy(), expected[[2, 0]], atol=2e-3)
    again = record(encoder, found, modality, [], problems, tmp_path / "kept")  # taken as it is
    np.testing.assert_array_equal(again, vectors)


def test_a_batch_runs_in_small_groups_with_the_same_gradient(base: Path, tmp_path: Path) -> None:
    found = cut(base / "text.onnx", "vectors", 1)
    media = [Media(Modality.TEXT, text) for text in ("red", "blue thing", "green", "white thing")] * 40
    media = [
        dataclasses.replace(one, content=f"{one.content} {'x ' * (n % 3)}") for n, one in enumerate(media)
    ]
    record(OnnxEncoder(base), found, Modality.TEXT, media, Problems(tmp_path), tmp_path / "kept", threads=1)
    kept = Activations(tmp_path / "kept")
    heads = Heads([Modality.TEXT], 4, None, 1.0, 0.0, {Modality.TEXT: UnfrozenTower(found)})
    taken = kept[torch.arange(160)]
    assert max(len(places) for places, _ in taken.groups) <= TOGETHER
    assert len(taken.groups) > 2
    target = torch.randn(160, 4, generator=torch.Generator().manual_seed(0))
    (heads(Modality.TEXT, taken) * target).sum().backward()
    (tower,) = heads.towers.values()
    together = [parameter.grad.clone() for parameter in tower.parameters()]
    heads.zero_grad()
    for n in range(160):
        (heads(Modality.TEXT, kept[torch.tensor([n])]) * target[n]).sum().backward()
    for one, parameter in zip(together, tower.parameters(), strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, parameter.grad, atol=1e-3, rtol=1e-3)


def test_a_full_disk_is_told_before_anything_is_kept(
    base: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100, 90, 10))
    with pytest.raises(
        ConfigError, match=r"takes about 0\.0 GB while it is trained on, and 0\.0 GB are free"
    ):
        train_model(pairs, read(pairs), base, tmp_path / "new", QUICK)


def test_the_command_trains_layers_and_tells_what_it_cannot(base: Path, pairs: Path, tmp_path: Path) -> None:
    given = ["--model", base, "--rate", "0.1", "--epochs", "12", "--patience", "12", "--batch", "40"]
    ran = in_process("train", pairs, *given, "--out", tmp_path / "mine", "--unfreeze", "1")
    assert ran.code == 0, ran.err
    assert "validation items" in ran.out
    assert "its last layers trained" in in_process("models", "show", tmp_path / "mine").out
    ran = in_process("train", pairs, *given, "--out", tmp_path / "other", "--unfreeze", "9")
    assert ran.code == 5
    assert "image.onnx: the tower has only 2 layers one behind another, so the last 9 cannot" in ran.err
    ran = in_process("train", pairs, *given, "--out", tmp_path / "other", "--head", "none")
    assert ran.code == 2
    assert "nothing would be trained" in ran.err
    plain = save_colour_model(tmp_path / "plain")
    ran = in_process("train", pairs, "--model", plain, "--out", tmp_path / "other", "--unfreeze", "1")
    assert ran.code == 5
    assert "text.onnx: the tower has no layer with weights of its own" in ran.err


def test_pictures_that_cannot_be_read_are_named_before_training(
    base: Path, pairs: Path, tmp_path: Path
) -> None:
    from mmsearch.errors import MediaError

    (tmp_path / "3.png").write_bytes(b"no picture")
    (tmp_path / "7.png").write_bytes(b"nor this")
    with pytest.raises(MediaError, match=r"(?s)2 problems.*line 5: .*3\.png.*line 9: .*7\.png"):
        train_model(pairs, read(pairs), base, tmp_path / "new", QUICK)


def test_a_model_that_stands_on_a_built_in_one_takes_its_towers_along(
    base: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    fields = json.loads((base / "model.json").read_text())
    for name in ("text.onnx", "tokenizer.json"):
        shutil.copyfile(base / name, above / name)
    with np.load(base / "canonical.npz") as found:
        np.savez(above / "canonical.npz", texts=found["texts"], text_vectors=found["text_vectors"])
    lent = {name: fields["files"][name] for name in ("image.onnx", "audio.onnx")}
    own = {
        name: {"sha256": hashlib.sha256((above / name).read_bytes()).hexdigest(), "bytes": 1}
        for name in ("text.onnx", "tokenizer.json", "canonical.npz")
    }
    fields |= {"name": "above", "towers": {"text": fields["towers"]["text"]}, "files": own}
    fields["base"] = {"model": "base", "files": lent}
    (above / "model.json").write_text(json.dumps(fields))
    monkeypatch.setattr("mmsearch.encoders.manifest.BUILT_IN_MODELS", tmp_path)
    monkeypatch.setattr("mmsearch.training.folder.BUILT_IN_MODELS", tmp_path)
    assert verify(above) == []
    new = tmp_path / "new"
    train_model(pairs, read(pairs), above, new, QUICK)
    made = json.loads((new / "model.json").read_text())
    assert set(made["towers"]) == {"image", "text", "audio"}
    assert "base" not in made
    assert verify(new) == []
    assert (new / "audio.onnx").read_bytes() == (base / "audio.onnx").read_bytes()
