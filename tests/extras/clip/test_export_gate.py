"""int8 is written only where it is near torch on real inputs; what is not as asked is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
from onnx import TensorProto, helper, numpy_helper

from mmsearch.encoders import load_encoder
from mmsearch.encoders.onnx import OnnxEncoder
from mmsearch.encoders.open_clip import OpenClipEncoder
from mmsearch.encoders.sources import Source, find_source
from mmsearch.errors import ConfigError, ModelError
from mmsearch.media import load_image
from mmsearch.training import export_clip
from mmsearch.training.export_clip import export_model
from mmsearch.training.real_inputs import general
from mmsearch.training.row_int8 import errors, products, quantise
from tests.extras.clip.conftest import PHOTOS, Export, Tiny

SCALE = 64.0  # a power of two, so that float32 computes exactly what it did
Tensors = dict[str, Any]
Outliers = Callable[[str, Sequence[str]], Source]


@pytest.fixture
def with_outliers(tiny: Tiny, tmp_path: Path) -> Outliers:
    """A tiny ViT four channels of whose normalised activations are 64 times as large, and the weights that take them
    64 times smaller: before the layers given (names of what normalises), in one tower.
    """

    def make(tower: str, layers: Sequence[str]) -> Source:
        from safetensors.torch import load_file, save_file

        folder = tmp_path / "outliers"
        shutil.copytree(tiny("vit").folder, folder, ignore=shutil.ignore_patterns("onnx"))
        path = folder / "open_clip_model.safetensors"
        tensors: Tensors = load_file(path)
        for name, weight in tensors.items():
            prefix, _, last = name.rpartition(".")
            in_tower = name.startswith("visual.") == (tower == "image") and "resblocks" in name
            if last != "weight" or not in_tower or not prefix.endswith(tuple(layers)):
                continue
            block = prefix.rpartition(".")[0]
            taker = "attn.in_proj_weight" if prefix.endswith("ln_1") else "mlp.c_fc.weight"
            weight[:4] *= SCALE
            tensors[f"{prefix}.bias"][:4] *= SCALE
            tensors[f"{block}.{taker}"][:, :4] /= SCALE
        save_file(tensors, path)
        source = find_source(folder)
        assert source is not None
        return source

    return make


def shown() -> list[Any]:
    return [PIL.Image.open(path) for path in PHOTOS[:16]]


def said() -> list[str]:
    return [caption for _, caption in general()][:40]


def encoded(encoder: Any, tower: str) -> Any:
    return encoder.encode_images(shown()) if tower == "image" else encoder.encode_texts(said())


@pytest.mark.parametrize("tower", ["image", "text"])
def test_a_tower_with_outliers_is_not_written_in_int8(
    tower: str, tiny: Tiny, with_outliers: Outliers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = with_outliers(tower, ["ln_1", "ln_2"])
    plain = encoded(OpenClipEncoder(tiny("vit"), device="cpu", precision="fp32"), tower)
    torch = encoded(OpenClipEncoder(source, device="cpu", precision="fp32"), tower)
    np.testing.assert_allclose(torch, plain, atol=1e-5)
    told: list[str] = []
    exported = export_model(source, tmp_path / "gated", precision="int8", threads=1, told=told.append)
    other = "text" if tower == "image" else "image"
    assert exported.towers[other].precision == "int8"
    assert exported.towers[tower].precision == "fp16"
    assert not exported.as_asked
    assert exported.towers[tower].refused
    assert any(line.startswith(f"{tower}.onnx: int8") for line in told)
    assert f"The {tower} tower was to be int8 and is fp16." in (exported.out / "MODEL_CARD.md").read_text()
    gated = encoded(OnnxEncoder(exported.out, threads=1), tower)
    assert (gated * plain).sum(axis=1).min() >= 0.999

    monkeypatch.setattr(export_clip, "GATE", {**export_clip.GATE, "int8": -1.0})
    open_gate = export_model(source, tmp_path / "open", precision="int8", threads=1)
    assert open_gate.towers[tower].precision == "int8"
    bent = encoded(OnnxEncoder(open_gate.out, threads=1), tower)
    assert (bent * plain).sum(axis=1).min() < 0.99, "int8 would have been good enough"


def test_the_product_that_int8_bends_is_left_exact(
    with_outliers: Outliers, tiny: Tiny, tmp_path: Path
) -> None:
    source = with_outliers("image", ["resblocks.0.ln_2"])
    exported = export_model(source, tmp_path / "spared", precision="int8", threads=1)
    tower = exported.towers["image"]
    assert tower.precision == "int8"
    assert 1 <= tower.exact <= 2
    assert tower.refused[0].startswith("int8: smallest cosine")
    graph = onnx.load(exported.out / "image.onnx").graph
    exact = [node.name for node in graph.node if node.op_type == "MatMul" and "/mlp/c_fc/" in node.name]
    assert len(exact) == 1
    assert "resblocks.0" in exact[0]
    plain = encoded(OpenClipEncoder(tiny("vit"), device="cpu", precision="fp32"), "image")
    assert (encoded(OnnxEncoder(exported.out, threads=1), "image") * plain).sum(axis=1).min() >= 0.99


def test_towers_of_convolutions_are_not_written_in_int8(export: Export) -> None:
    exported = export("mobileclip2", "int8")
    assert exported.towers["image"].precision != "int8"
    assert "linear layers" in exported.towers["image"].refused[0]
    assert exported.towers["text"].precision == "int8"


def test_inputs_of_ones_own_are_measured_too(tiny: Tiny, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for name in ("a.png", "b.jpg"):
        PIL.Image.open(PHOTOS[0]).save(own / name)
    (own / "said.txt").write_text("eins\n\nzwei\ndrei\n")
    plain, more = (
        export_model(tiny("vit"), tmp_path / name, inputs=inputs, threads=1).towers
        for name, inputs in (("plain", None), ("more", own))
    )
    assert more["image"].inputs == plain["image"].inputs + 2
    assert more["text"].inputs == plain["text"].inputs + 3


def test_an_export_is_replaced_and_nothing_else(tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = export_model(tiny("vit"), out, threads=1)
    before = (out / "image.onnx").stat().st_size
    assert export_model(tiny("vit"), out, precision="fp16", threads=1).out == first.out == out
    assert (out / "image.onnx").stat().st_size < before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="no export"):
        export_model(tiny("vit"), mine, threads=1)
    assert (mine / "letter.txt").read_text() == "dear"


def test_a_failure_leaves_the_old_export(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    export_model(tiny("vit"), out, threads=1)
    before = (out / "model.json").read_bytes()
    monkeypatch.setattr(export_clip, "GATE", dict.fromkeys(export_clip.GATE, 2.0))
    with pytest.raises(ModelError, match="use it with torch"):
        export_model(tiny("vit"), out, threads=1)
    assert (out / "model.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_is_loaded_under_the_name_of_the_model_until_its_weights_change(
    tiny: Tiny, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(tiny("vit").folder, tmp_path / "model")
    source = find_source(folder)
    assert source is not None
    assert isinstance(load_encoder(source.name, device="cpu"), OpenClipEncoder)
    assert export_model(source, threads=1).out == folder / "onnx"
    assert isinstance(load_encoder(source.name), OnnxEncoder)
    weights = folder / "open_clip_model.safetensors"
    os.utime(weights)  # a copy
    assert isinstance(load_encoder(source.name), OnnxEncoder)
    tensors: Tensors = load_file(weights)
    tensors["ln_final.weight"] *= 1.5
    save_file(tensors, weights)
    with pytest.raises(ModelError, match=r"has changed since .* models export"):
        load_encoder(source.name)
    weights.unlink()  # who has the export may not need the weights
    assert isinstance(load_encoder(source.name), OnnxEncoder)


def graph_of(weight: Any, path: Path) -> onnx.ModelProto:
    """y = x @ weight."""
    rows, columns = weight.shape
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"], "product")],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "l", rows])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "l", columns])],
            [numpy_helper.from_array(weight, "w")],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return model


def test_a_product_is_that_of_rounded_rows_and_columns(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(32, 5)).astype(np.float32)
    x = generator.normal(size=(2, 3, 32)).astype(np.float32)
    x[0, 1] = 0
    x[1, 0] *= 1000
    model = graph_of(weight, tmp_path / "plain.onnx")
    assert products(model) == {"product": 160}
    told = errors(onnx.load(tmp_path / "plain.onnx"), {"x": x}, tmp_path / "probe.onnx")
    quantise(model)
    onnx.save(model, tmp_path / "int8.onnx")
    (got,) = onnxruntime.InferenceSession(tmp_path / "int8.onnx").run(None, {"x": x})
    rows = np.abs(x).max(axis=-1, keepdims=True) / 127
    columns = np.abs(weight).max(axis=0) / 63
    rounded = np.rint(np.divide(x, rows, out=np.zeros_like(x), where=rows > 0)) * rows
    expected = rounded.astype(np.float64) @ (np.rint(weight / columns) * columns)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    true = x.astype(np.float64) @ weight
    assert told["product"] == pytest.approx(
        float(np.linalg.norm(expected - true) / np.linalg.norm(true)), rel=0.01
    )


def run(*arguments: str | Path, home: Path, block: bool = False) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; ``block`` makes torch and its friends impossible to import."""
    blocked = ["torch", "open_clip", "transformers", "onnx", "timm", "torchvision"] if block else []
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked!r}))\nfrom mmsearch.cli import main; main()"
    )
    environ = {**os.environ, "MMSEARCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False)


def test_after_an_export_nothing_needs_torch(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny("vit").folder, tmp_path / "model")
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in PHOTOS[:4]:
        shutil.copyfile(path, photos / path.name)
    home = tmp_path / "home"
    name = f"local-dir:{folder}"
    refused = run("index", photos, "--model", name, home=home, block=True)
    assert refused.returncode != 0
    exported = run("models", "export", name, "--json", home=home)
    assert exported.returncode == 0, exported.stderr
    assert json.loads(exported.stdout)["towers"]["image"]["smallest"] > 0.9999
    indexed = run("index", photos, "--model", name, "--json", home=home, block=True)
    assert indexed.returncode == 0, indexed.stderr
    assert json.loads(indexed.stdout)["added"] == 4
    query = "a dog & a “cat”"
    found = run("search", query, "--json", home=home, block=True)
    assert found.returncode == 0, found.stderr
    hits = [json.loads(line) for line in found.stdout.splitlines()]
    source = find_source(folder)
    assert source is not None
    torch = OpenClipEncoder(source, device="cpu", precision="fp32")
    # Decoded as an index decodes them: JPEGs at a lower resolution, if that is still the tower's.
    pictures = torch.encode_images([load_image(path, min_side=torch.image_size) for path in PHOTOS[:4]])
    expected = pictures @ torch.encode_texts([query])[0]
    scores = {Path(hit["path"]).name: hit["score"] for hit in hits}
    assert scores == pytest.approx(
        {path.name: float(one) for path, one in zip(PHOTOS[:4], expected, strict=True)}, abs=2e-3
    )


def test_the_command_says_what_is_not_as_asked(with_outliers: Outliers, tmp_path: Path) -> None:
    source = with_outliers("text", ["ln_1", "ln_2"])
    done = run("models", "export", source.name, "--precision", "int8", "--json", home=tmp_path / "home")
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert told["as_asked"] is False
    assert told["towers"]["text"]["precision"] == "fp16"
    assert "the text tower is fp16 and not int8 (int8: smallest cosine" in done.stderr
    assert run("models", "verify", source.folder / "onnx", home=tmp_path / "home").returncode == 0


def test_what_cannot_be_exported_is_told_in_one_line(tmp_path: Path) -> None:
    for name, expected in (
        ("mini", "is no open_clip model"),
        ("open-clip:ViT-B-32/some_tag", "its files are not on this machine"),
    ):
        done = run("models", "export", name, home=tmp_path / "home")
        assert done.returncode == 5
        assert expected in done.stderr
        assert "Traceback" not in done.stderr
