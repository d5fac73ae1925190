"""``mmsearch train`` of open_clip models, from pairs to a folder that mmsearch and plain open_clip load."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mmsearch.encoders import load_encoder
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoders.open_clip import OpenClipEncoder, import_open_clip
from mmsearch.encoders.open_clip_config import preprocess_of, read_config
from mmsearch.encoders.sources import find_source
from mmsearch.errors import ConfigError, MediaError, ModelError
from mmsearch.evaluate import evaluate
from mmsearch.manifests import read_manifest
from mmsearch.tables import read_table
from mmsearch.training.clip_folder import rules_of
from mmsearch.training.clip_learner import ClipOptions
from mmsearch.training.clip_tuning import tune_clip
from mmsearch.training.dataset import Dataset, make_dataset
from mmsearch.training.outcome import GENERAL, Trained
from mmsearch.types import Modality
from tests.clip_models import save_tiny
from tests.e2e.conftest import in_process
from tests.extras.training.scenes import save_untrained, write_scenes

QUICK = ClipOptions(everything=True, rate=3e-3, epochs=3, batch=54, patience=9)
HELD_OUT = 54


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"), held_out=HELD_OUT)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_untrained(tmp_path_factory.mktemp("base"))


def dataset_of(table: Path) -> Dataset:
    return make_dataset(table, read_table(table), root=table.parent)


def tune(table: Path, base: Path, out: Path, options: ClipOptions, **given: Any) -> Trained:
    source = find_source(f"local-dir:{base}")
    assert source is not None
    return tune_clip(table, dataset_of(table), source, out, options, threads=1, **given)


def weights_of(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = load_file(folder / "open_clip_model.safetensors")
    return found


def changed(base: Path, new: Path) -> set[str]:
    before, after = weights_of(base), weights_of(new)
    return {name for name in after if name not in before or not torch.equal(after[name], before[name])}


def encoder_of(folder: Path) -> OpenClipEncoder:
    source = find_source(f"local-dir:{folder}")
    assert source is not None
    return OpenClipEncoder(source, threads=1, device="cpu", precision="fp32")


def assert_plain_open_clip_gives_the_same(folder: Path, table: Path) -> None:
    """What somebody has who knows nothing of mmsearch."""
    open_clip = import_open_clip()
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    rows = read_table(table)[:5]
    pictures = [PIL.Image.open(table.parent / str(row.one("image"))) for row in rows]
    texts = [str(row.one("text")) for row in rows]
    encoder = encoder_of(folder)
    with torch.no_grad():
        images = model.encode_image(torch.stack([preprocess(one) for one in pictures]), normalize=True)
        words = model.encode_text(tokenizer(texts), normalize=True)
    np.testing.assert_allclose(encoder.encode_images(pictures), images.numpy(), atol=1e-4)
    np.testing.assert_allclose(encoder.encode_texts(texts), words.numpy(), atol=1e-5)


def test_a_tiny_network_learns_from_nothing_to_find_what_it_never_saw_together(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    """274,000 random parameters and 432 pairs; asked for are 54 combinations of colour, shape and place that were held
    out. Chance is 1 in 54; when this was written 0.93 and 0.94 were found first.
    """
    options = dataclasses.replace(QUICK, epochs=30, batch=64, patience=30)
    trained = tune(scenes, base, tmp_path / "new", options)
    assert trained.items == (432, HELD_OUT)
    for direction in ("text->image", "image->text"):
        found = trained.validation[direction]["recall@1"]
        assert found.new.chance == pytest.approx(1 / HELD_OUT)
        assert found.base.value < 0.1
        assert found.new.value > 0.75
        assert found.difference.low > 0.5
    assert trained.history[0].loss > 3 > 0.6 > trained.history[-1].loss
    encoder = load_encoder(f"local-dir:{tmp_path / 'new'}")
    rows = [row for row in read_table(scenes) if row.one("split") == "val"]
    images = encoder.encode_images([PIL.Image.open(scenes.parent / str(row.one("image"))) for row in rows])
    texts = encoder.encode_texts([str(row.one("text")) for row in rows])
    found_first = ((texts @ images.T).argmax(1) == np.arange(HELD_OUT)).mean()
    assert found_first == pytest.approx(trained.validation["text->image"]["recall@1"].new.value)


BLOCK = ("attn.in_proj_weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
ENDS = {"visual.proj", "text_projection", "logit_scale"}
NORMS = {f"{name}.{kind}" for name in ("visual.ln_post", "ln_final") for kind in ("weight", "bias")}
LAST = ("visual.transformer.resblocks.2", "transformer.resblocks.1")


@pytest.mark.parametrize("what", ["head", "lora", "blocks"])
def test_only_what_was_asked_for_changes_and_open_clip_loads_it(
    what: str, scenes: Path, base: Path, tmp_path: Path
) -> None:
    options: dict[str, dict[str, Any]] = {
        "head": {"head": "linear"},
        "lora": {"lora": 4},
        "blocks": {"unfreeze": 1},
    }
    new = tmp_path / "new"
    trained = tune(scenes, base, new, dataclasses.replace(QUICK, everything=False, **options[what]))
    names = set(weights_of(base))
    expected: dict[str, set[str]] = {
        "head": ENDS,
        "lora": {name for name in names if name.endswith(BLOCK)} | {"logit_scale"},
        "blocks": ENDS | NORMS | {name for name in names if name.startswith(LAST)},
    }
    assert changed(base, new) == expected[what]
    assert set(weights_of(new)) == names
    assert_plain_open_clip_gives_the_same(new, scenes)
    config = json.loads((new / "open_clip_config.json").read_text())
    assert config["space"] == trained.space == encoder_of(new).space.id
    assert trained.space.startswith("new-")
    assert encoder_of(new).adapted == frozenset()
    assert config["trained"]["base_space"] == f"local-dir:{base.name}"
    assert not (new / ".training").exists()
    assert (new / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_it_forgot_is_measured_on_the_general_set(scenes: Path, base: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    trained = tune(scenes, base, new, dataclasses.replace(QUICK, epochs=1))
    assert set(trained.general) == {"text->image", "image->text", "caption->caption"}
    for folder, which in ((base, "base"), (new, "new")):
        for result in evaluate(encoder_of(folder), read_manifest(GENERAL)).results:
            for name, figure in result.figures().items():
                assert getattr(trained.general[result.name][name], which) == figure
    card = (new / "MODEL_CARD.md").read_text()
    assert "## What it forgot" in card
    change = trained.general["text->image"]["recall@10"]
    assert (
        f"| text->image | recall@10 | {100 * change.base.value:.1f} | {100 * change.new.value:.1f} |" in card
    )
    assert "all of its image and text towers trained" in card
    assert "`ClipLoss` of open_clip" in card


@pytest.mark.parametrize("only", [Modality.IMAGE, Modality.TEXT])
@pytest.mark.parametrize("what", ["head", "everything"])
def test_one_side_only_keeps_the_space_and_the_other_tower_to_the_bit(
    only: Modality, what: str, scenes: Path, base: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = (
        {"everything": True} if what == "everything" else {"head": "linear", "everything": False}
    )
    trained = tune(scenes, base, tmp_path / "new", dataclasses.replace(QUICK, only=only, **given))
    assert trained.space == f"local-dir:{base.name}" == encoder_of(tmp_path / "new").space.id
    assert encoder_of(tmp_path / "new").adapted == {only}
    assert encoder_of(base).adapted == frozenset()
    moved = changed(base, tmp_path / "new") - {"logit_scale"}
    assert moved
    assert {name.startswith("visual.") for name in moved} == {only is Modality.IMAGE}


@pytest.mark.parametrize(
    "given",
    [
        {"lora": 2, "everything": False},
        {"head": "linear", "everything": False},
        {"chunk": 20},
    ],
)
def test_resuming_gives_the_very_files_of_an_uninterrupted_run(
    given: dict[str, Any], scenes: Path, base: Path, tmp_path: Path
) -> None:
    options = dataclasses.replace(QUICK, **given)
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole, cut = tmp_path / "one" / "new", tmp_path / "two" / "new"
    tune(scenes, base, whole, options)

    class Stopped(Exception):
        pass

    def stop(epoch: object) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        tune(scenes, base, cut, options, epochs=stop)
    assert not (cut / "open_clip_config.json").exists()
    with pytest.raises(ConfigError, match="the checkpoint was made with"):
        tune(scenes, base, cut, dataclasses.replace(options, seed=1), resume=True)
    tune(scenes, base, cut, options, resume=True)
    for path in whole.iterdir():
        assert path.read_bytes() == (cut / path.name).read_bytes(), path.name


def test_other_seeds_give_other_weights_and_the_same_seed_the_same(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    found = []
    for number, seed in enumerate((0, 0, 1)):
        options = dataclasses.replace(QUICK, epochs=2, seed=seed)
        tune(scenes, base, tmp_path / str(number), options)
        found.append(weights_of(tmp_path / str(number))["visual.transformer.resblocks.0.mlp.c_fc.weight"])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_training_stops_when_recall_gets_no_better(scenes: Path, base: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(QUICK, everything=False, head="linear", epochs=200, rate=0.1, patience=2)
    with pytest.raises(ModelError, match="no epoch found more"):
        tune(scenes, base, tmp_path / "new", dataclasses.replace(options, rate=0.0))
    trained = tune(scenes, base, tmp_path / "other", options)
    assert len(trained.history) == trained.best + 2 < 200


def test_a_head_on_siglip_becomes_a_layer_that_open_clip_builds(scenes: Path, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "siglip2")
    new = tmp_path / "new"
    options = dataclasses.replace(QUICK, everything=False, head="linear", loss="sigmoid", rate=1e-2)
    trained = tune(scenes, base, new, options)
    text = {"text.text_projection.weight", "text.text_projection.bias"}
    assert changed(base, new) == {"visual.head.proj.weight", *text, "logit_scale", "logit_bias"}
    assert_plain_open_clip_gives_the_same(new, scenes)
    assert "`SigLipLoss` of open_clip" in (new / "MODEL_CARD.md").read_text()
    assert trained.validation["text->image"]["recall@10"].new.value > 10 / HELD_OUT


def test_the_sigmoid_loss_gives_a_network_a_bias_that_open_clip_builds(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    tune(scenes, base, new, dataclasses.replace(QUICK, epochs=8, loss="sigmoid"))
    assert set(weights_of(new)) - set(weights_of(base)) == {"logit_bias"}
    bias = json.loads((new / "open_clip_config.json").read_text())["model_cfg"]["init_logit_bias"]
    assert bias == pytest.approx(float(weights_of(new)["logit_bias"]))
    assert_plain_open_clip_gives_the_same(new, scenes)


@pytest.mark.parametrize("family", ["vit", "siglip2", "convnext", "mobileclip2"])
def test_preprocessing_is_written_as_open_clip_reads_it(family: str, tmp_path: Path) -> None:
    encoder = encoder_of(save_tiny(tmp_path / family, family))
    config = read_config(encoder.source) | {"preprocess_cfg": rules_of(encoder.preprocess)}
    again = preprocess_of(encoder.source, config)
    for field in dataclasses.fields(again):
        was, now = getattr(encoder.preprocess, field.name), getattr(again, field.name)
        assert now == (pytest.approx(was) if field.name in ("mean", "std") else was)


def test_pictures_that_cannot_be_read_are_named_before_training(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    table = tmp_path / "pairs" / "scenes.csv"
    shutil.copytree(scenes.parent, table.parent)
    names = [str(row.one("image")) for row in read_table(table)]
    for number in (2, 7):
        (table.parent / names[number]).write_bytes(f"no picture {number}".encode())

    def started(epoch: object) -> None:
        raise AssertionError

    for options in (QUICK, dataclasses.replace(QUICK, everything=False, head="linear")):
        with pytest.raises(MediaError, match=rf"(?s)2 problems.*line 4: .*{names[2]}.*line 9: .*{names[7]}"):
            tune(table, base, tmp_path / "new", options, epochs=started)


def test_the_command_trains_and_what_it_writes_is_searched_with(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    new, home = tmp_path / "mine", tmp_path / "home"
    given = ["--model", f"local-dir:{base}", "--out", new, "--unfreeze", "all", "--rate", "0.003"]
    given += ["--epochs", "12", "--batch", "64", "--chunk", "40", "--threads", "1"]
    ran = in_process("train", scenes, *given)
    assert ran.code == 0, ran.err
    assert "epoch 1: loss " in ran.err
    assert "general set: what it forgot" in ran.out
    assert f"{new}: a model of the space mine-" in ran.out
    assert "there is a model already" in in_process("train", scenes, *given).err
    pictures = sorted(scenes.parent.glob("*-0.png"))[:60]
    assert in_process("index", *pictures, "--home", home, "--model", f"local-dir:{new}").code == 0
    row = next(row for row in read_table(scenes) if row.one("image") == pictures[0].name)
    found = in_process("search", str(row.one("text")), "--home", home, "--json", "-k", "10").records()
    assert pictures[0].name in [Path(hit["path"]).name for hit in found]


def test_what_the_base_has_indexed_is_searched_with_a_text_tower_trained_to_meet_it(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    new, home = tmp_path / "new", tmp_path / "home"
    pictures = sorted(scenes.parent.glob("*-0.png"))[:20]
    assert in_process("index", *pictures, "--home", home, "--model", f"local-dir:{base}").code == 0
    tune(scenes, base, new, dataclasses.replace(QUICK, only=Modality.TEXT), onnx=True)
    asked = ["a red circle", "--home", home, "--model", f"local-dir:{new}", "--json", "-k", "20"]
    exported = in_process("search", *asked)
    assert exported.code == 0, exported.err
    shutil.rmtree(new / "onnx")
    torch_ran = in_process("search", *asked)
    assert torch_ran.code == 0, torch_ran.err
    query = encoder_of(new).encode_texts(["a red circle"])[0]
    scores = encoder_of(base).encode_images([PIL.Image.open(path) for path in pictures]) @ query
    best = [str(pictures[number]) for number in np.argsort(-scores)[:3]]
    for ran in (exported, torch_ran):
        assert [hit["path"] for hit in ran.records()[:3]] == best
    tune(scenes, base, tmp_path / "other", dataclasses.replace(QUICK, epochs=2))
    refused = in_process("search", *asked[:3], "--model", f"local-dir:{tmp_path / 'other'}")
    assert refused.code != 0
    assert "holds" in refused.err


def test_on_request_it_is_exported_and_then_needs_no_torch(scenes: Path, base: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    tune(scenes, base, new, dataclasses.replace(QUICK, epochs=1), onnx=True)
    exported = load_encoder(f"local-dir:{new}")
    assert isinstance(exported, OnnxEncoder)
    encoder = encoder_of(new)
    assert exported.space == encoder.space
    texts = ["a red circle at the top left", "a white bar at the middle right"]
    np.testing.assert_allclose(exported.encode_texts(texts), encoder.encode_texts(texts), atol=1e-4)
    pictures = [PIL.Image.open(path) for path in sorted(scenes.parent.glob("*.png"))[:4]]
    np.testing.assert_allclose(exported.encode_images(pictures), encoder.encode_images(pictures), atol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--head", "mlp"], "--head mlp cannot be used here: local-dir:BASE is an open_clip model"),
        (["--fusion", "sum"], "--fusion cannot be used here"),
        (["--only", "audio"], "--only audio cannot be used here"),
        (
            ["--lora", "4", "--unfreeze", "1"],
            "one thing at a time: give one of --head linear, --lora, --unfreeze",
        ),
        (["--chunk", "8"], "--chunk cannot be used here: nothing runs through the towers"),
        (["--checkpoint-activations"], "--checkpoint-activations cannot be used here"),
        (["--unfreeze", "99"], "--unfreeze 99: the image tower has 3 blocks"),
        (["--unfreeze", "some"], "--unfreeze some: give a number of layers or blocks, or all"),
        (["--head", "none"], "nothing would be trained"),
    ],
)
def test_options_that_do_not_apply_are_errors(
    given: list[str], message: str, scenes: Path, base: Path, tmp_path: Path
) -> None:
    ran = in_process("train", scenes, "--model", f"local-dir:{base}", "--out", tmp_path / "new", *given)
    assert ran.code == 2, ran.err
    assert message.replace("BASE", str(base)) in ran.err


@pytest.mark.parametrize("given", [["--lora", "4"], ["--unfreeze", "all"], ["--chunk", "8"], ["--onnx"]])
def test_options_of_open_clip_models_are_errors_for_others(
    given: list[str], scenes: Path, tmp_path: Path
) -> None:
    ran = in_process("train", scenes, "--out", tmp_path / "new", *given)
    assert ran.code == 2
    assert (
        f"{' '.join(given[: 2 if 'all' in given else 1])} cannot be used here: mini is no open_clip model"
        in ran.err
    )


def test_models_that_are_not_here_and_pairs_with_sounds_are_refused(
    scenes: Path, base: Path, tmp_path: Path
) -> None:
    ran = in_process("train", scenes, "--model", "hf-hub:nobody/nothing", "--out", tmp_path / "new")
    assert ran.code == 5
    assert "mmsearch models pull hf-hub:nobody/nothing" in ran.err
    table = scenes.with_name("sounds.csv")
    rows = [f"{n}.wav,a sound of {n}" for n in range(30)]
    for n in range(30):
        (scenes.parent / f"{n}.wav").write_bytes(b"RIFF" + bytes([n]))
    table.write_text("\n".join(["audio,text", *rows]) + "\n")
    ran = in_process("train", table, "--model", f"local-dir:{base}", "--out", tmp_path / "new")
    assert ran.code == 5
    assert "has no audio tower, and the pairs have such media" in ran.err


def test_without_peft_the_extra_is_named(
    scenes: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest)
    )
    given = ["--model", f"local-dir:{base}", "--out", tmp_path / "new", "--lora", "4"]
    ran = in_process("train", scenes, *given)
    assert ran.code == 5
    assert 'pip install "mmsearch[clip]"' in ran.err
