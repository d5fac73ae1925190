"""What learns in an open_clip network, and with which gradients."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmsearch.encoders.open_clip import load_model
from mmsearch.encoders.sources import find_source
from mmsearch.errors import ConfigError
from mmsearch.training.clip_features import Pixels
from mmsearch.training.clip_learner import ClipLearner, ClipOptions
from mmsearch.training.clip_losses import PairClipLoss, PairSigLipLoss
from mmsearch.training.clip_parts import LowRank, fold_head, tower_weights, unfreeze_all, unfreeze_last
from mmsearch.training.finetune import side_of
from mmsearch.training.losses import multi_positive_infonce, sigmoid_loss
from mmsearch.types import Modality
from tests.clip_models import save_tiny

TOWERS = (Modality.IMAGE, Modality.TEXT)
SMALL = ("vit", "siglip2", "convnext", "resnet", "xlm-roberta")
"""A family of each kind of tower; the others are larger and are made of the same parts."""

TEXTS = [
    "a red cat",
    "a blue dog",
    "the sea",
    "snow on grass",
    "a photo of a tree",
    "a house and a car",
    "a bird",
]

Saved = Callable[[str], Path]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The folder of a tiny model of a family."""
    known: dict[str, Path] = {}

    def saved(family: str) -> Path:
        if family not in known:
            known[family] = save_tiny(tmp_path_factory.mktemp(family), family)
        return known[family]

    return saved


class Network:
    """A tiny network with frozen weights, and seven pairs of what goes into it."""

    def __init__(self, folder: Path) -> None:
        source = find_source(f"local-dir:{folder}")
        assert source is not None
        loaded = load_model(source)
        self.model = loaded.model
        size = self.model.visual.image_size
        height, width = size if isinstance(size, tuple) else (size, size)
        stack = np.random.default_rng(0).integers(0, 256, (len(TEXTS), height, width, 3), np.uint8)
        np.save(folder / "pixels.npy", stack)
        self.features: dict[Modality, Any] = {
            Modality.IMAGE: Pixels(folder / "pixels.npy", (127.5,) * 3, (127.5,) * 3),
            Modality.TEXT: loaded.tokenizer(TEXTS),
        }

    def run(self, modality: Modality, rows: int = 3) -> Tensor:
        given = self.features[modality][torch.arange(rows)]
        if modality is Modality.IMAGE:
            vectors = self.model.encode_image(self.features[modality].normalised(given))
        else:
            vectors = self.model.encode_text(given)
        assert isinstance(vectors, Tensor)
        return vectors

    def vectors(self) -> dict[Modality, Tensor]:
        self.model.eval()
        with torch.no_grad():
            return {modality: self.run(modality) for modality in TOWERS}

    def learner(self, **options: Any) -> ClipLearner:
        side = side_of(
            [{modality: [n] for modality in TOWERS} for n in range(len(TEXTS))], [1.0] * len(TEXTS)
        )
        return ClipLearner(self.model, self.features, side, side, ClipOptions(**options), heads={})

    def learning(self) -> set[str]:
        return {name for name, weight in self.model.named_parameters() if weight.requires_grad}


def gradients(learner: ClipLearner, run: Callable[[], Tensor]) -> dict[str, Tensor]:
    learner.zero_grad()
    torch.manual_seed(5)
    run().backward()
    return {
        name: weight.grad.clone() for name, weight in learner.learning().items() if weight.grad is not None
    }


def assert_same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert set(one) == set(other)
    assert len(one) > 10
    for name, gradient in one.items():
        scale = max(float(gradient.abs().max()), 1e-3)
        assert float((gradient - other[name]).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_gradients_of_chunks_are_those_of_the_whole_batch(saved: Saved, loss: str) -> None:
    network = Network(saved("vit"))
    for tower in TOWERS:
        unfreeze_all(network.model, tower)
    rows = torch.arange(len(TEXTS))
    found = {}
    for chunk in (3, 100):
        learner = network.learner(loss=loss, chunk=chunk)
        learner.train()
        with torch.no_grad():
            if learner.bias is not None:
                learner.bias.fill_(-10.0)
        found[chunk] = gradients(learner, functools.partial(learner.loss, rows))
    assert_same_gradients(found[3], found[100])
    alone = torch.cat([network.learner(loss="infonce", chunk=100).loss(some)[None] for some in rows.split(3)])
    if loss == "infonce":
        whole = network.learner(loss="infonce", chunk=3).loss(rows)
        assert float(whole.detach()) > float(alone.mean().detach()) + 0.1, "a chunk has the negatives of all"


def test_chunks_draw_the_same_dropout_when_they_run_again(saved: Saved) -> None:
    network = Network(saved("xlm-roberta"))
    unfreeze_all(network.model, Modality.TEXT)
    learner = network.learner(chunk=2)
    learner.train()
    ids = network.features[Modality.TEXT]
    weights = torch.randn(len(TEXTS), network.run(Modality.TEXT).shape[1])

    def in_chunks() -> Tensor:
        return (learner.vectors(Modality.TEXT, torch.arange(len(TEXTS))) * weights).sum()

    def kept() -> Tensor:
        return (torch.cat([learner(Modality.TEXT, part) for part in ids.split(2)]) * weights).sum()

    with torch.no_grad():
        assert not torch.equal(kept(), kept()), "there is dropout"
    assert_same_gradients(gradients(learner, in_chunks), gradients(learner, kept))


@pytest.mark.parametrize("family", ["vit", "siglip2", "convnext", "xlm-roberta"])
def test_checkpointed_activations_give_the_same_gradients(saved: Saved, family: str) -> None:
    network = Network(saved(family))
    for tower in TOWERS:
        unfreeze_all(network.model, tower)
    rows = torch.arange(len(TEXTS))
    plain = network.learner(chunk=4)
    plain.train()
    before = gradients(plain, lambda: plain.loss(rows))
    light = network.learner(chunk=4, light=True)
    light.train()
    after = gradients(light, lambda: light.loss(rows))
    assert_same_gradients(before, after)


def test_where_activations_cannot_be_checkpointed_it_is_said(saved: Saved) -> None:
    with pytest.raises(ConfigError, match="cannot do this for the image tower"):
        Network(saved("resnet")).learner(light=True)


def test_losses_are_those_of_open_clip_where_every_pair_is_another() -> None:
    open_clip_loss = importlib.import_module("open_clip.loss")
    torch.manual_seed(0)
    images, texts = normalize(torch.randn(6, 8)), normalize(torch.randn(6, 8))
    scale, bias = torch.tensor(12.0), torch.tensor(-7.0)
    softmax, sigmoid = PairClipLoss(), PairSigLipLoss()
    softmax.belongs = sigmoid.belongs = torch.eye(6, dtype=torch.bool)
    torch.testing.assert_close(softmax(images, texts, scale), open_clip_loss.ClipLoss()(images, texts, scale))
    torch.testing.assert_close(
        sigmoid(images, texts, scale, bias), open_clip_loss.SigLipLoss()(images, texts, scale, bias)
    )


def test_losses_know_texts_that_stand_twice_in_a_batch() -> None:
    torch.manual_seed(0)
    images, texts = normalize(torch.randn(6, 8)), normalize(torch.randn(6, 8))
    texts[3] = texts[1]
    belongs = torch.eye(6, dtype=torch.bool)
    belongs[1, 3] = belongs[3, 1] = True
    scale, bias = torch.tensor(12.0), torch.tensor(-7.0)
    softmax, sigmoid = PairClipLoss(), PairSigLipLoss()
    softmax.belongs = sigmoid.belongs = belongs
    torch.testing.assert_close(
        softmax(images, texts, scale), multi_positive_infonce(images, texts, belongs, scale)
    )
    torch.testing.assert_close(
        sigmoid(images, texts, scale, bias), sigmoid_loss(images, texts, belongs, scale, bias)
    )


def test_a_batch_says_which_of_its_pairs_belong_together(saved: Saved) -> None:
    network = Network(saved("vit"))
    owned = [{Modality.IMAGE: [0], Modality.TEXT: [2]}, {Modality.IMAGE: [1], Modality.TEXT: [2]}]
    side = side_of([*owned, {Modality.IMAGE: [2], Modality.TEXT: [0]}], [1.0] * 3)
    learner = ClipLearner(network.model, network.features, side, side, ClipOptions(), heads={})
    images, texts = (learner.encode(tower, network.features[tower]) for tower in TOWERS)
    belongs = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]).bool()
    expected = multi_positive_infonce(images[:3], texts[[2, 2, 0]], belongs, learner.scale.exp())
    torch.testing.assert_close(learner.loss(torch.arange(3)), expected)


def test_the_bias_of_a_sigmoid_starts_where_softmax_left_off(saved: Saved) -> None:
    network = Network(saved("vit"))
    learner = network.learner(loss="sigmoid")
    assert learner.bias is not None
    images, texts = (learner.encode(tower, network.features[tower]) for tower in TOWERS)
    logits = learner.scale.exp() * images @ texts.T + learner.bias
    assert float(logits.logsumexp(1).mean().detach()) == pytest.approx(0, abs=1e-4)
    assert Network(saved("siglip2")).learner(loss="sigmoid").bias is not None


@pytest.mark.parametrize("family", SMALL)
def test_low_rank_changes_reach_every_block_and_merge_without_a_trace(saved: Saved, family: str) -> None:
    network = Network(saved(family))
    before = {name: weight.clone() for name, weight in network.model.state_dict().items()}
    base = network.vectors()
    changes = LowRank(network.model, TOWERS, 2)
    for tower, vectors in network.vectors().items():
        torch.testing.assert_close(vectors, base[tower], rtol=1e-5, atol=1e-5)
    learning = network.learning()
    assert learning
    assert all("lora_" in name for name in learning)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in network.model.named_parameters():
            if "lora_B" in name:
                weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    learner = network.learner(chunk=4)
    learner.train()
    learner.loss(torch.arange(len(TEXTS))).backward()
    for name, weight in network.model.named_parameters():
        if "lora_" in name:
            assert weight.grad is not None, name
            assert float(weight.grad.abs().max()) > 0, name
    apart = network.vectors()
    changes.merge()
    after = network.model.state_dict()
    assert set(after) == set(before)
    for tower, vectors in network.vectors().items():
        assert not torch.allclose(vectors, base[tower], atol=1e-3)
        torch.testing.assert_close(
            vectors, apart[tower], rtol=1e-4, atol=1e-4 * float(apart[tower].abs().max())
        )
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert {name.rsplit(".", 1)[1] for name in moved} <= {"weight", "in_proj_weight"}
    if family == "vit":
        block = ("attn.in_proj_weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
        towers = ("visual.transformer", "transformer")
        assert moved == {
            f"{tower}.resblocks.{n}.{name}" for tower in towers for n in (0, 1) for name in block
        }


def test_the_last_block_learns_with_all_behind_it_and_nothing_before(saved: Saved) -> None:
    network = Network(saved("vit"))
    for tower in TOWERS:
        unfreeze_last(network.model, tower, 1, functools.partial(network.run, tower))
    heads = {"visual.proj", "visual.ln_post.weight", "visual.ln_post.bias"}
    heads |= {"text_projection", "ln_final.weight", "ln_final.bias"}
    blocks = ("visual.transformer.resblocks.1.", "transformer.resblocks.1.")
    names = {name for name, _ in network.model.named_parameters()}
    assert network.learning() == heads | {name for name in names if name.startswith(blocks)}


@pytest.mark.parametrize("family", SMALL)
def test_fewer_blocks_are_part_of_more(saved: Saved, family: str) -> None:
    network = Network(saved(family))
    for tower in TOWERS:
        names = []
        for count in (1, 2):
            unfreeze_last(network.model, tower, count, functools.partial(network.run, tower))
            names.append(network.learning())
        assert names[0] < names[1] < {name for name, _ in tower_weights(network.model, tower)}
        network.model.requires_grad_(False)
        with pytest.raises(ConfigError, match=rf"--unfreeze 99: the {tower} tower has \d+ blocks"):
            unfreeze_last(network.model, tower, 99, functools.partial(network.run, tower))


@pytest.mark.parametrize("family", [*SMALL, "pe-core"])
def test_a_head_is_folded_into_the_last_layer(saved: Saved, family: str) -> None:
    network = Network(saved(family))
    before = network.vectors()
    config: dict[str, Any] = {"vision_cfg": {}, "text_cfg": {}}
    for tower in TOWERS:
        dim = before[tower].shape[1]
        change = 0.1 * torch.randn(dim, dim, generator=torch.Generator().manual_seed(0))
        fold_head(network.model, config, tower, change)
        expected = before[tower] + before[tower] @ change.T
        torch.testing.assert_close(network.vectors()[tower], expected, rtol=1e-4, atol=1e-4)
    assert config["text_cfg"] == {}
    assert bool(config["vision_cfg"]) == (family == "siglip2")


def test_scales_norms_biases_and_positions_do_not_decay(saved: Saved) -> None:
    network = Network(saved("vit"))
    for tower in TOWERS:
        unfreeze_all(network.model, tower)
    learner = network.learner()
    names = {id(weight): name for name, weight in learner.named_parameters()}
    decaying, still = ({names[id(one)] for one in group["params"]} for group in learner.groups())
    assert [group["weight_decay"] for group in learner.groups()] == [0.05, 0.0]
    assert {"model.visual.proj", "model.visual.transformer.resblocks.0.attn.in_proj_weight"} <= decaying
    assert {"scale", "model.visual.ln_post.weight", "model.visual.positional_embedding"} <= still
    assert {"model.positional_embedding", "model.transformer.resblocks.0.mlp.c_fc.bias"} <= still
    assert decaying | still == set(names.values())


def test_a_batch_never_changes_what_normalises_by_it(saved: Saved) -> None:
    network = Network(saved("resnet"))
    unfreeze_all(network.model, Modality.IMAGE)
    before = {name: value.clone() for name, value in network.model.named_buffers()}
    learner = network.learner(chunk=2)
    learner.train()
    learner.loss(torch.arange(len(TEXTS))).backward()
    for name, value in network.model.named_buffers():
        assert torch.equal(value, before[name]), name
