"""The sound tower: log-mel front end, a convolutional trunk of our own, and the read-out into the space of `mini`.

The trunk is trained by hints (FitNets, Romero et al. 2015): at the end of each of its five stages it must give the
features that the teacher has at the same resolution, thousands of targets for each patch instead of 521 scores that are
almost all zero. The layers between the hints are ours: dense convolutions first, then separable ones with 5 x 5 kernels
and shortcuts; nothing is taken over from the teacher but what its layers say about a sound.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad, unfold

RATE = 16_000
WINDOW, HOP, FOURIER = 400, 160, 512  # 25 ms every 10 ms
FRAMES, BANDS, STEP = 96, 64, 48  # a patch of .96 s every .48 s
LOWEST, HIGHEST = 125.0, 7500.0
NARROW = 256  # so many channels have two filters each
FLOOR = 0.001
AUDIBLE = 10 ** (-45 / 20)
TOP = 10
READ = -5, -3, -1  # blocks whose features are read out
FEATURES = 512 + 512 + 1024
WIDE = 6, 24  # feature maps with as many frames have 5 x 5 filters, longer and shorter ones 3 x 3
CLASSES = 521


def mel_weights() -> Tensor:
    """Triangles on the HTK mel scale over the magnitudes of the Fourier transform, (257, 64)."""

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    edges = torch.linspace(
        *mel(torch.tensor([LOWEST, HIGHEST], dtype=torch.float64)).tolist(), BANDS + 2, dtype=torch.float64
    )
    bins = mel(torch.linspace(0, RATE / 2, FOURIER // 2 + 1, dtype=torch.float64))[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    weights = torch.minimum(rising, falling).clamp(min=0)
    weights[0] = 0
    return weights.float()


class FrontEnd(nn.Module):
    """Samples (n, s) -> log-mel frames (n, t, 64), t = 1 + (s - 400) // 160. The Fourier transform is a convolution."""

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW, periodic=True, dtype=torch.float64)
        angle = (
            2
            * torch.pi
            / FOURIER
            * torch.outer(torch.arange(FOURIER // 2 + 1), torch.arange(WINDOW)).double()
        )
        waves = torch.cat([torch.cos(angle), torch.sin(angle)]) * window
        self.register_buffer("waves", waves.float()[:, None])
        self.register_buffer("mel", mel_weights())

    def forward(self, samples: Tensor) -> Tensor:
        found = torch.conv1d(samples[:, None], self.waves, stride=HOP)
        real, imaginary = found.split(FOURIER // 2 + 1, dim=1)
        magnitude = torch.sqrt(real * real + imaginary * imaginary)
        return torch.log(magnitude.transpose(1, 2) @ self.mel + FLOOR)


class Block(nn.Module):
    """Depthwise convolution, ReLU, 1 x 1 convolution. Gives values before a ReLU.

    `scale` (width,) is the size of what comes in. Each channel has `filters` filters; the first begins as the identity
    with a little noise, the second as noise, so that at least one of them is on the right side of its ReLU.
    """

    def __init__(self, scale: Tensor, out: int, stride: int, size: int, filters: int) -> None:
        super().__init__()
        width = len(scale)
        self.register_buffer("scale", scale.reshape(-1, 1, 1))
        self.depthwise = nn.Conv2d(width, filters * width, size, stride, size // 2, groups=width)
        self.pointwise = nn.Linear(filters * width, out)
        with torch.no_grad():
            for row, spread in zip(range(filters), (0.5, 1.5), strict=False):
                self.depthwise.weight[row::filters].normal_(std=spread / size)
            self.depthwise.weight[::filters, :, size // 2, size // 2] += 1.0
        nn.init.zeros_(self.depthwise.bias)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.depthwise(x / self.scale))

    def forward(self, x: Tensor) -> Tensor:
        return torch.conv2d(self.hidden(x), self.pointwise.weight[:, :, None, None], self.pointwise.bias)


class Stem(nn.Module):
    """A convolution over the patch, 5 x 5 at stride 2."""

    def __init__(self, out: int, size: int = 5) -> None:
        super().__init__()
        self.size = size
        self.pointwise = nn.Linear(size * size, out)

    def hidden(self, x: Tensor) -> Tensor:
        """(n, 1, 96, 64) -> (n, 25, 48, 32): each value with its neighbours."""
        n, _, height, width = x.shape
        return unfold(x, self.size, padding=self.size // 2, stride=2).reshape(n, -1, height // 2, width // 2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.pointwise.weight.reshape(-1, 1, self.size, self.size)
        return torch.conv2d(x, weight, self.pointwise.bias, 2, self.size // 2)


class Trunk(nn.Module):
    """Log-mel patches (n, 1, 96, 64) -> the 14 layers' features, each before its ReLU, and logits (n, 521).

    `hints`, some examples of what the layers must give, set the widths, strides and scales.
    """

    def __init__(self, hints: Sequence[Tensor]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Stem(hints[0].shape[1])])
        for before, after in pairwise(hints):
            size = torch.relu(before).square().mean((0, 2, 3)).sqrt()
            scale = size + 0.1 * size.mean()
            stride = before.shape[2] // after.shape[2]
            side = 5 if WIDE[0] <= after.shape[2] <= WIDE[1] else 3
            filters = 2 if len(scale) <= NARROW else 1
            self.blocks.append(Block(scale, after.shape[1], stride, side, filters))
        self.classifier = nn.Linear(hints[-1].shape[1], CLASSES)

    def first(self, x: Tensor, count: int) -> Tensor:
        """What the first `count` blocks make of patches, after the ReLU."""
        for block in self.blocks[:count]:
            x = torch.relu(block(x))
        return x

    def later(self, x: Tensor, start: int) -> list[Tensor]:
        """The features of the blocks from `start` on, each before its ReLU."""
        features = []
        for block in self.blocks[start:]:
            x = block(x)
            features.append(x)
            x = torch.relu(x)
        return features

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        features = self.later(x, 0)
        return features, self.classifier(torch.relu(features[-1]).mean((2, 3)))


def pooled(features: Sequence[Tensor]) -> Tensor:
    """What is read out of the trunk's features (all blocks, or the last of them), (n, FEATURES)."""
    return torch.cat([torch.relu(features[i]).mean((2, 3)) for i in READ], 1)


class Patches(nn.Module):
    """Samples (n, s) -> log-mel patches (n, p, 96, 64) and their weights (n, p), which sum to 1 for each clip.

    Patches start every .48 s; the end is padded so that nothing is left out. A patch counts as much as it is not
    silent: by the share of its frames that lie within 45 dB of the clip's loudest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.front = FrontEnd()

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        frames = self.front(
            pad(samples, (0, (STEP - 1) * HOP))
        )  # at least 96 of them for clips from .505 s on
        loudness = (frames.exp() - FLOOR).sum(2)
        audible = (loudness > AUDIBLE * loudness.amax(1, keepdim=True)).float()
        count = (frames.shape[1] - FRAMES) // STEP + 1
        rows = STEP * torch.arange(count, device=samples.device)[:, None] + torch.arange(FRAMES)
        weights = audible[:, rows].mean(2) + 1e-6
        return frames[:, rows], weights / weights.sum(1, keepdim=True)


class Readout(nn.Module):
    """What was heard in a clip -> vectors (n, 768), unit rows: in equal parts what the scores say and the map.

    The scores of the 521 classes: those that stand out most, softened, each with the vector that the text tower gives
    for its names, less what an average sound gives (ConSE, Norouzi et al. 2013, for sounds). And a linear map of the
    trunk's `FEATURES`, which makes up for what the trunk's scores miss.
    """

    def __init__(self, words: Tensor, gains: Tensor, background: Tensor) -> None:
        super().__init__()
        self.register_buffer("words", words)
        self.register_buffer("gains", gains)
        self.register_buffer("background", background)
        self.map = nn.Linear(FEATURES, words.shape[1])
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def raw(self, scores: Tensor) -> Tensor:
        strength = torch.sqrt(scores) * self.gains
        kept, rows = strength.topk(TOP, dim=1)
        strength = torch.zeros_like(strength).scatter(1, rows, kept)
        return normalize(strength @ self.words, dim=1)

    def said(self, scores: Tensor) -> Tensor:
        """What the scores alone say."""
        return normalize(self.raw(scores) - self.background, dim=1)

    def forward(self, scores: Tensor, features: Tensor) -> Tensor:
        return normalize(self.said(scores) + normalize(self.map(features), dim=1), dim=1)


class AudioTower(nn.Module):
    """Samples (n, s) float32 mono at 16 kHz, s >= 8,080 -> vectors (n, 768) float32, unit rows."""

    def __init__(self, trunk: Trunk, readout: Readout) -> None:
        super().__init__()
        self.patches, self.trunk, self.readout = Patches(), trunk, readout

    def hear(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """Scores (n, 521) and features (n, FEATURES), means over the patches of each clip."""
        patches, weights = self.patches(samples)
        features, logits = self.trunk(patches.reshape(-1, 1, FRAMES, BANDS))

        def mean(rows: Tensor) -> Tensor:
            return (rows.reshape(weights.shape[0], -1, rows.shape[1]) * weights[:, :, None]).sum(1)

        return mean(torch.sigmoid(logits)), mean(pooled(features))

    def forward(self, samples: Tensor) -> Tensor:
        return self.readout(*self.hear(samples))
