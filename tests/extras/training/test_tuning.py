"""Tuning moves what it should, towards the captions, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mmsearch.training.heads import Head, ImageHead
from mmsearch.training.losses import multi_positive_infonce
from mmsearch.training.trunks import CUT, ImageTrunk, TextTrunk, load_tokenizer
from mmsearch.training.tuning import RENDERINGS, Renderings, Weights, Words, render, tune

SIZE = 64
PHOTOS = sorted((Path(__file__).parents[3] / "data" / "photos").glob("*.jpg"))[:6]
CAPTIONS = [f"{path.stem.replace('-', ' ')} {kind}" for path in PHOTOS for kind in ("in a photo", "outside")]
OWNED = torch.arange(len(CAPTIONS)).reshape(-1, 2)


@pytest.fixture(scope="module")
def trunks() -> tuple[ImageTrunk, TextTrunk]:
    return ImageTrunk(SIZE), TextTrunk()


@pytest.fixture(scope="module")
def renderings(tmp_path_factory: pytest.TempPathFactory) -> Renderings:
    return render(PHOTOS, SIZE, tmp_path_factory.mktemp("renderings"))


def new_head(image: ImageTrunk, renderings: Renderings) -> Head:
    torch.manual_seed(0)
    classes = torch.nn.functional.normalize(torch.randn(1000, 384), dim=1)
    return Head(ImageHead(features(image, renderings)), image.classifier(), classes)


def features(image: ImageTrunk, renderings: Renderings) -> Tensor:
    maps = torch.from_numpy(np.array(renderings.maps[0])).float()
    with torch.no_grad():
        return image.back(maps, torch.from_numpy(renderings.means[0]).float())


def tuned(
    trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings, head: Head, weights: Weights, epochs: int
) -> tuple[ImageTrunk, TextTrunk, Head]:
    tokenizer, heads = load_tokenizer(), []
    found = tune(
        *trunks,
        head,
        renderings,
        Words(tokenizer, CAPTIONS),
        OWNED,
        Words(tokenizer, ["a machine that flies", "a very long definition of nothing at all"], longest=4),
        epochs=epochs,
        weights=weights,
        progress=lambda epoch, image, text, head: heads.append(head),
    )
    return *found, heads[-1].eval()


def changed(before: torch.nn.Module, after: torch.nn.Module) -> set[str]:
    now = dict(after.named_parameters())
    return {name for name, old in before.named_parameters() if not torch.equal(old, now[name])}


def test_the_two_halves_of_the_image_trunk_are_the_whole(trunks: tuple[ImageTrunk, TextTrunk]) -> None:
    image = trunks[0]
    pixels = torch.randint(0, 255, (2, SIZE, SIZE, 3), dtype=torch.uint8)
    steps = []
    hooks = [block.register_forward_hook(lambda *_: steps.append(1)) for block in image.net._blocks]
    with torch.no_grad():
        maps, means = image.front(pixels)
        assert len(steps) == CUT
        assert torch.equal(image.back(maps, means), image(pixels))
    for hook in hooks:
        hook.remove()
    assert maps.shape == (2, 80, SIZE // 16, SIZE // 16)


def test_renderings_are_the_plain_picture_and_others(
    trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings
) -> None:
    from mmsearch.training.features import load_picture

    assert renderings.maps.shape[:2] == (RENDERINGS + 1, len(PHOTOS))
    pixels = torch.from_numpy(np.stack([load_picture(path, SIZE) for path in PHOTOS]))
    with torch.no_grad():
        plain, _ = trunks[0].front(pixels)
    seen = torch.from_numpy(np.array(renderings.maps)).float()
    scale = plain.square().mean().sqrt()
    assert (seen[0] - plain).square().mean().sqrt() < 0.05 * scale  # bfloat16
    assert all((other - plain).square().mean().sqrt() > 0.2 * scale for other in seen[1:])


def test_tuning_brings_captions_to_their_photos(
    trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings
) -> None:
    head = new_head(trunks[0], renderings)
    image, text, after = tuned(trunks, renderings, head, Weights(), 12)
    words = Words(load_tokenizer(), CAPTIONS)
    losses = []
    for i, t, h in ((*trunks, head.eval()), (image, text, after)):
        seen = features(i, renderings)
        with torch.no_grad():
            pictures, learned = h.image(seen, h.conse(seen)), h.text(words.encode(t)[OWNED[:, 0]])
        each = torch.eye(len(PHOTOS), dtype=torch.bool)
        losses.append(float(multi_positive_infonce(pictures, learned, each, torch.tensor(20.0))))
    assert losses[1] < losses[0] / 2


def test_the_front_the_filters_and_the_word_vectors_stay(
    trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings
) -> None:
    image, text, _ = tuned(trunks, renderings, new_head(trunks[0], renderings), Weights(), 1)
    moved = changed(trunks[0], image)
    assert moved
    assert not {name for name in moved if "depthwise" in name or "_conv_stem" in name or "_fc" in name}
    assert min(int(name.split(".")[2]) for name in moved if "_blocks" in name) == CUT
    assert {name.split(".")[0] for name in changed(trunks[1], text)} == {"layers"}


def test_a_part_with_rate_zero_is_left_alone(
    trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings
) -> None:
    head = new_head(trunks[0], renderings)
    image, text, _ = tuned(trunks, renderings, head, Weights(text=0), 1)
    assert changed(trunks[0], image)
    assert not changed(trunks[1], text)
    image, text, _ = tuned(trunks, renderings, head, Weights(image=0), 1)
    assert not changed(trunks[0], image)
    assert changed(trunks[1], text)


def test_what_is_told_to_stay_stays_nearer(
    trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings
) -> None:
    head, words = new_head(trunks[0], renderings), Words(load_tokenizer(), CAPTIONS)
    before = words.encode(trunks[1])
    cosines = []
    for keep in (0.0, 20.0):
        _, text, _ = tuned(trunks, renderings, head, Weights(words=keep, text=1e-3), 4)
        cosines.append(float((words.encode(text) * before).sum(1).mean()))
    assert cosines[1] > cosines[0]


def test_tuning_is_repeatable(trunks: tuple[ImageTrunk, TextTrunk], renderings: Renderings) -> None:
    head = new_head(trunks[0], renderings)
    first, again = (tuned(trunks, renderings, head, Weights(), 1)[0] for _ in range(2))
    assert not changed(first, again)
