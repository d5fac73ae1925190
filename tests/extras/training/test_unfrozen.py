"""The last layers of a graph as a torch module: the same vectors, gradients, and a graph with the new weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from mmsearch.encoders import BUILT_IN_MODELS
from mmsearch.errors import ModelError
from mmsearch.training.cut import Cut, cut, tensor
from mmsearch.training.export import (
    export_graph,
    optimise,
    quantise_convolutions,
    quantise_products,
    session,
    store_half,
)
from mmsearch.training.unfrozen import UnfrozenTower

MINI = BUILT_IN_MODELS / "mini"
Feeds = Mapping[str, NDArray[Any]]


def run(file: Path, feeds: Feeds, names: list[str]) -> dict[str, NDArray[Any]]:
    """Tensors of a graph, inner ones too, as onnxruntime computes them."""
    model = onnx.load(file)
    there = {output.name for output in model.graph.output}
    model.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n not in there)
    probe = file.with_suffix(".probe.onnx")
    onnx.save(model, probe)
    found = session(probe, 1).run(names, dict(feeds))
    probe.unlink()
    return dict(zip(names, found, strict=True))


def unit(x: NDArray[Any]) -> NDArray[Any]:
    found: NDArray[Any] = x / np.linalg.norm(x, axis=1, keepdims=True)
    return found


def coming_in(found: Cut, feeds: Feeds) -> dict[str, Tensor]:
    inner = [name for name in found.inputs if name not in feeds]
    known = {**feeds, **(run(found.file, feeds, inner) if inner else {})}
    return {name: tensor(known[name]) for name in found.inputs}


def check(file: Path, feeds: Feeds, depth: int, least: float, tmp_path: Path) -> UnfrozenTower:
    """The module gives what the graph gives; with other weights, what the written graph gives."""
    copy = tmp_path / "copy.onnx"
    copy.write_bytes(file.read_bytes())
    found = cut(copy, "vectors", depth)
    tower = UnfrozenTower(found)
    given = coming_in(found, feeds)
    with torch.no_grad():
        before = tower(given).numpy()
    expected = unit(run(copy, feeds, ["vectors"])["vectors"])
    assert (before * expected).sum(1).min() > least
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight, difference in zip(found.weights, tower.differences, strict=True):
            noise = torch.randn(difference.shape, generator=generator)
            difference += 0.3 * weight.base.std() * noise
        moved = tower(given).numpy()
    assert (moved * before).sum(1).max() < 0.999
    written = tmp_path / "written.onnx"
    tower.write(written)
    got = unit(run(written, feeds, ["vectors"])["vectors"])
    assert (got * moved).sum(1).min() > least
    assert abs(written.stat().st_size - copy.stat().st_size) < 0.01 * copy.stat().st_size + 300
    return tower


@pytest.mark.parametrize("depth", [2, 6])
def test_int8_picture_tower_of_mini(depth: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 7, 7, 3)).astype(np.uint8)
    pixels = np.kron(pixels, np.ones((1, 32, 32, 1), np.uint8))
    tower = check(MINI / "image.onnx", {"pixels": pixels}, depth, 0.999, tmp_path)
    codes = [weight for weight in tower.cut.weights if weight.limits]
    assert all(weight.limits[1] <= 64 for weight in codes if weight.limits)  # 7 bits, see export


@pytest.mark.parametrize("depth", [1, 5])
def test_dynamic_int8_text_tower_of_mini(depth: int, tmp_path: Path) -> None:
    ids = np.array([[101, 1037, 3899, 2006, 1996, 5568, 102]])
    check(
        MINI / "text.onnx",
        {"input_ids": ids, "attention_mask": np.ones_like(ids)},
        depth,
        0.9999,
        tmp_path,
    )


def test_float16_sound_tower_of_mini(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal((1, 32_000)).astype(np.float32)
    check(MINI / "audio.onnx", {"samples": samples}, 3, 0.999, tmp_path)


class Small(nn.Module):
    """Two convolutions with activations, a mean, and a linear map."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.ReLU6(), nn.Conv2d(8, 16, 3, 2, groups=2), nn.ReLU6()
        )
        self.last = nn.Linear(16, 8)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.layers(pixels.permute(0, 3, 1, 2).float() / 128 - 1)
        found: Tensor = self.last(x.mean((2, 3)))
        return found


PIXELS = np.random.default_rng(1).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)


def small(path: Path) -> Path:
    example = (torch.from_numpy(PIXELS),)
    export_graph(Small(), example, ["pixels"], "vectors", {0: "n"}, path)
    return path


@pytest.mark.parametrize("optimised", [False, True])
@pytest.mark.parametrize("depth", [1, 3])
def test_statically_quantised_graph_before_and_after_onnxruntime_fused_it(
    depth: int, optimised: bool, tmp_path: Path
) -> None:
    plain, file = small(tmp_path / "plain.onnx"), tmp_path / "quantised.onnx"
    quantise_convolutions(plain, file, PIXELS)
    if optimised:
        optimise(file, file)
    check(file, {"pixels": PIXELS}, depth, 0.995, tmp_path)


@pytest.mark.parametrize("halved", [False, True])
def test_float_graph(halved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = small(tmp_path / "plain.onnx")
    if halved:
        monkeypatch.setattr("mmsearch.training.export.HALF_FROM", 100)
        store_half(file)
    check(file, {"pixels": PIXELS}, 3, 0.9999, tmp_path)


class Words(nn.Module):
    """A small CLIP text tower: causal attention, QuickGELU, the vector of the last token."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 16)
        self.positions = nn.Parameter(torch.randn(6, 16) * 0.1)
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(3))
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.projection = nn.Parameter(torch.randn(16, 8))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.positions
        n, length, width = x.shape
        q, k, v = (
            part.reshape(n, length, 2, 8).transpose(1, 2) for part in self.qkv(self.norms[0](x)).chunk(3, -1)
        )
        mask = torch.full((length, length), float("-inf")).triu(1)
        mixed = torch.softmax(q @ k.transpose(-1, -2) / 8**0.5 + mask, -1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(n, length, width))
        y = self.up(self.norms[1](x))
        x = self.norms[2](x + self.down(y * torch.sigmoid(1.702 * y)))
        found: Tensor = x[torch.arange(n), ids.argmax(-1)] @ self.projection
        return found


@pytest.mark.parametrize("kind", ["float", "dynamic", "fused"])
def test_clip_like_text_tower(kind: str, tmp_path: Path) -> None:
    ids = np.array([[3, 9, 49, 0, 0, 0], [7, 8, 9, 10, 49, 0]])
    file, other = tmp_path / "words.onnx", tmp_path / "other.onnx"
    export_graph(Words(), (torch.from_numpy(ids),), ["ids"], "vectors", {0: "n"}, file)
    if kind != "float":
        quantise_products(file, other)
        if kind == "fused":
            optimise(other, other)
        file = other
    for depth in (1, 4, 5):
        feeds = {"ids": ids[:1] if kind != "float" else ids}  # one at a time, as the engine encodes
        check(file, feeds, depth, 0.9999, tmp_path)


def test_what_is_kept_is_small_and_nothing_else_is_needed() -> None:
    assert cut(MINI / "text.onnx", "vectors", 5).inputs == [
        "attention_mask",
        "/layers.4/down_norm/LayerNormalization_output_0",
    ]


def test_quantised_weights_learn(tmp_path: Path) -> None:
    plain, file = small(tmp_path / "plain.onnx"), tmp_path / "quantised.onnx"
    quantise_convolutions(plain, file, PIXELS)
    found = cut(file, "vectors", 3)
    tower = UnfrozenTower(found)
    given = coming_in(found, {"pixels": PIXELS})
    wanted = nn.functional.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(2)), dim=1)
    optimiser = torch.optim.Adam(tower.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        loss = 1 - (tower(given) * wanted).sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.35 * losses[0]
    assert all(difference.abs().sum() > 0 for difference in tower.differences)
    written = tmp_path / "written.onnx"
    tower.write(written)
    got = unit(run(written, {"pixels": PIXELS}, ["vectors"])["vectors"])
    assert 1 - (got * wanted.numpy()).sum(1).mean() == pytest.approx(losses[-1], abs=0.02)


def test_the_pass_in_bfloat16_stays_near() -> None:
    ids = np.array([[101, 1037, 3899, 2006, 1996, 5568, 102]])
    found = cut(MINI / "text.onnx", "vectors", 5)
    tower = UnfrozenTower(found)
    given = coming_in(found, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    with torch.autocast("cpu", torch.bfloat16):
        mixed = tower(given)
        mixed.sum().backward()
    assert mixed.dtype == torch.float32
    with torch.no_grad():
        assert (mixed * tower(given)).sum(1).min() > 0.99
    assert all(difference.grad is not None for difference in tower.differences)


def graph_of(nodes: list[Any], path: Path, **constants: NDArray[Any]) -> Path:
    graph = helper.make_graph(
        nodes,
        "tower",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


W = np.random.default_rng(3).standard_normal((4, 4)).astype(np.float32)


def test_a_weight_shared_with_a_frozen_layer_gets_a_copy_of_its_own(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["vectors"]),
    ]
    file = graph_of(nodes, tmp_path / "shared.onnx", w=W)
    tower = UnfrozenTower(cut(file, "vectors", 1))
    with torch.no_grad():
        tower.differences[0] += 1.0
    tower.write(tmp_path / "written.onnx")
    x = np.random.default_rng(4).standard_normal((2, 4)).astype(np.float32)
    got = run(tmp_path / "written.onnx", {"x": x}, ["vectors"])["vectors"]
    np.testing.assert_allclose(got, np.tanh(x @ W) @ (W + 1), atol=1e-5)
    both = UnfrozenTower(cut(file, "vectors", 2))
    assert len(both.differences) == 1  # learned as one where both layers learn


def test_what_cannot_be_trained_is_named(tmp_path: Path) -> None:
    odd = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Det", ["a"], ["vectors"], name="odd"),
    ]
    with pytest.raises(ModelError, match=r"odd\.onnx: the operator Det \(odd\) among the last 1 layers"):
        cut(graph_of(odd, tmp_path / "odd.onnx", w=W), "vectors", 1)
    plain = graph_of([helper.make_node("MatMul", ["x", "w"], ["vectors"])], tmp_path / "one.onnx", w=W)
    with pytest.raises(ModelError, match="only 1 layers one behind another, so the last 2"):
        cut(plain, "vectors", 2)
    none = graph_of([helper.make_node("Relu", ["x"], ["vectors"])], tmp_path / "none.onnx", w=W)
    with pytest.raises(ModelError, match="no layer with weights of its own"):
        cut(none, "vectors", 1)
    fixed = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["vectors"], name="fixed"),
    ]
    file = graph_of(fixed, tmp_path / "fixed.onnx", w=W, shape=np.array([1, 4]))
    with pytest.raises(ModelError, match=r"the operator Reshape \(fixed\) cannot be trained"):
        UnfrozenTower(cut(file, "vectors", 1))({"x": torch.ones(2, 4)})
