"""The sound tower's front end and graph against an independent reckoning, its training against a small problem."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mmsearch.training.audio_tower import CLASSES, AudioTower, FrontEnd, Patches, Readout, Trunk
from mmsearch.training.distil import BATCH, SETTLED, Lesson, Regression, distil, draw, examples, polish
from mmsearch.training.export import export_graph, session, store_half
from mmsearch.training.sounds import Bank

RATE = 16_000
SHAPES = [(32, 48, 32), (64, 48, 32), (64, 24, 16), (64, 24, 16), (128, 12, 8)]


def tone(hertz: float, seconds: float = 1.0) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE).astype(np.float32)


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float64]:
    """Numpy's Fourier transform and triangles written out one by one."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(samples) - 399, 160)
    magnitude = np.abs(np.fft.rfft([samples[s : s + 400] * window for s in starts], 512))
    mel = 1127 * np.log(1 + np.fft.rfftfreq(512, 1 / RATE) / 700)
    low, high = 1127 * np.log(1 + np.array([125, 7500]) / 700)
    edges = np.linspace(low, high, 66)
    bands = [np.interp(mel, edges[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(64)]
    found: NDArray[np.float64] = np.log(magnitude @ np.array(bands).T + 0.001)
    return found


def test_front_end_equals_numpys_fourier_transform() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 8000).astype(np.float32) + tone(1000, 0.5)
    with torch.no_grad():
        got = FrontEnd()(torch.from_numpy(samples)[None])[0].numpy()
    expected = log_mel(samples)
    assert got.shape == expected.shape == (48, 64)
    assert np.abs(got - expected).max() < 1e-3


def test_silent_patches_weigh_nothing_and_the_end_is_heard() -> None:
    silence = np.zeros(2 * RATE, np.float32)
    late = np.concatenate([silence, tone(800, 0.3)])
    patches, weights = Patches()(torch.from_numpy(late)[None])
    assert patches.shape[:2] == weights.shape
    assert weights.sum().item() == pytest.approx(1)
    starts = 0.48 * np.arange(weights.shape[1])
    hears = (starts + 0.96 > 2.0) & (starts < 2.3)
    assert weights[0, torch.from_numpy(~hears)].sum() < 1e-3


WHOLE = [(16, 48, 32)] * 4 + [(32, 12, 8)] * 3 + [(512, 6, 4)] * 5 + [(64, 3, 2), (1024, 3, 2)]


def hints(shapes: list[tuple[int, int, int]] = SHAPES) -> list[torch.Tensor]:
    return [torch.randn(4, *shape) for shape in shapes]


def small_tower() -> AudioTower:
    torch.manual_seed(0)
    trunk = Trunk(hints(WHOLE))
    words = torch.nn.functional.normalize(torch.randn(CLASSES, 768), dim=1)
    readout = Readout(words, torch.rand(CLASSES), words[:40].mean(0))
    torch.nn.init.normal_(readout.map.weight, std=0.02)
    tower = AudioTower(trunk, readout)
    tower.eval()
    return tower


def test_graph_gives_unit_vectors_of_torch_for_any_length(tmp_path: Path) -> None:
    tower, path = small_tower(), tmp_path / "audio.onnx"
    export_graph(tower, (torch.rand(1, 2 * RATE),), ["samples"], "vectors", {0: "n", 1: "s"}, path)
    store_half(path)
    graph = session(path)
    random = np.random.default_rng(1)
    for count, length in ((1, RATE), (3, RATE + 7000), (2, 5 * RATE), (1, 8080)):
        samples = random.uniform(-1, 1, (count, length)).astype(np.float32)
        samples[:, length // 2 :] *= 0.01
        (got,) = graph.run(["vectors"], {"samples": samples})
        with torch.no_grad():
            expected = tower(torch.from_numpy(samples)).numpy()
        assert got.shape == (count, 768)
        assert np.linalg.norm(got, axis=1) == pytest.approx(np.ones(count), abs=1e-4)
        assert (got * expected).sum(1).min() > 0.999


def test_readout_says_the_words_of_the_class_that_is_heard() -> None:
    words = torch.nn.functional.normalize(torch.randn(CLASSES, 768), dim=1)
    readout = Readout(words, torch.ones(CLASSES), torch.zeros(768))
    scores = torch.full((2, CLASSES), 1e-4)
    scores[0, 7], scores[1, 300] = 0.9, 0.9
    assert (readout.said(scores) @ words.T).argmax(1).tolist() == [7, 300]


def test_regression_equals_least_squares() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(400, 12, generator=random, dtype=torch.float32)
    targets = torch.randn(400, 5, generator=random) + 2
    regression = Regression(12, 5)
    for part in range(0, 400, 100):
        regression.add(features[part : part + 100], targets[part : part + 100], 1.0)
    layer = torch.nn.Linear(12, 5)
    regression.solve(layer)
    rows = np.c_[features.numpy(), np.ones(400)]
    expected = np.linalg.lstsq(rows, targets.numpy(), rcond=None)[0]
    assert layer.weight.detach().numpy() == pytest.approx(expected[:-1].T, abs=5e-3)
    assert layer.bias.detach().numpy() == pytest.approx(expected[-1], abs=5e-3)  # ridge


def test_distilled_trunk_gives_what_its_teacher_gives() -> None:
    """The teacher is another trunk with random weights; the student sees no more of it than its features."""
    torch.manual_seed(1)
    teacher, patches = Trunk(hints()).eval(), torch.randn(BATCH, 1, 96, 64)
    for block in teacher.blocks:
        torch.nn.init.normal_(block.pointwise.weight, std=block.pointwise.in_features**-0.5)

    def lesson() -> Lesson:
        heard = patches[torch.randperm(BATCH)] + 0.3 * torch.randn(BATCH, 1, 96, 64)
        with torch.no_grad():
            features, logits = teacher(heard)
        return heard, features, logits

    stock = [lesson() for _ in range(8)]
    student = Trunk([hint[: examples(hint)] for hint in stock[0][1]])
    distil(student, stock, 24)
    heard, features, _ = lesson()
    with torch.no_grad():
        given, _ = student(heard)
    error = (given[-1] - features[-1]).square().mean() / features[-1].var()
    assert error < 0.4


def test_polishing_brings_the_trunks_scores_to_its_teachers() -> None:
    """The teacher is another trunk again; of a linear read-out of its scores the student must learn as well."""
    torch.manual_seed(2)
    shapes = [(16, 12, 8)] * 8 + [(24, 6, 4)] * 4 + [(32, 3, 2)] * 2
    teacher = Trunk(hints([(16, 48, 32), *shapes[1:]])).eval().requires_grad_(False)
    for block in teacher.blocks:
        torch.nn.init.normal_(block.pointwise.weight, std=block.pointwise.in_features**-0.5)
    student = Trunk(hints([(16, 48, 32), *shapes[1:]]))
    student.load_state_dict(teacher.state_dict())
    with torch.no_grad():
        for part in (*student.blocks[SETTLED:], student.classifier):
            for weights in part.parameters():
                weights.add_(0.3 * weights.std() * torch.randn_like(weights)) if weights.numel() > 1 else None
    words = torch.randn(CLASSES, 8)
    stock = [torch.randn(BATCH, 1, 96, 64) for _ in range(4)]

    def error() -> float:
        with torch.no_grad():
            given, wanted = (trunk(stock[0])[1] for trunk in (student, teacher))
        return float((given - wanted).square().mean() / wanted.var())

    before = error()
    polish(
        student, teacher, lambda scores: torch.nn.functional.normalize(scores @ words, dim=1), stock, 40, 0
    )
    assert error() < 0.5 * before


def test_the_two_patches_of_a_scene_are_its_first_and_its_last_second() -> None:
    bank = Bank((8000 * np.sin(np.arange(10 * RATE) / 5)).astype(np.int16), np.array([10 * RATE]), np.ones(1))
    patches = draw(bank, FrontEnd(), np.random.default_rng(0))
    assert patches.shape == (BATCH, 1, 96, 64)
    assert patches.isfinite().all()
