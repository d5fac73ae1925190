"""What goes into an open_clip network: pictures at its size and texts as ids, made once and kept while it learns."""

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmsearch.encoders.open_clip import OpenClipEncoder
from mmsearch.encoding import Progress, ahead, decode
from mmsearch.errors import ConfigError, MediaError
from mmsearch.manifests import Media
from mmsearch.tables import Problems

DECODED = 32  # pictures that a thread decodes at a time
TOKENISED = 1024


class Pixels:
    """n pictures as the network wants them, read from a file of bytes (n, height, width, 3).

    Bytes take a quarter of the room of floats; they become floats on the device.
    """

    def __init__(self, path: Path, mean: Sequence[float], std: Sequence[float]) -> None:
        self._stack = np.load(path, mmap_mode="r")
        self._mean = torch.tensor(mean).reshape(3, 1, 1)
        self._scale = (1 / torch.tensor(std)).reshape(3, 1, 1)
        self._device = "cpu"

    def __len__(self) -> int:
        return len(self._stack)

    def __getitem__(self, media: Tensor) -> Tensor:
        """(n, height, width, 3) uint8."""
        return torch.from_numpy(self._stack[media.cpu().numpy()]).to(self._device)

    def to(self, device: str) -> "Pixels":
        self._device = device
        self._mean, self._scale = self._mean.to(device), self._scale.to(device)
        return self

    def normalised(self, pixels: Tensor) -> Tensor:
        """(n, 3, height, width) float32, to the bit what ``Preprocess.pixels`` makes of the pictures."""
        return (pixels.permute(0, 3, 1, 2).contiguous().float() - self._mean) * self._scale


def keep_pixels(
    encoder: OpenClipEncoder,
    media: Sequence[Media],
    problems: Problems,
    path: Path,
    progress: Progress = lambda done, total: None,
) -> Pixels | None:
    """Decode all pictures, at the size of the network, into the file `path`, if it is not there from an earlier run.

    What cannot be read is added to `problems`; then there is no file, and the answer is None. Raises ConfigError if
    the disk has no room.
    """
    rules = encoder.preprocess
    mean, std = rules.mean, rules.std
    assert mean is not None
    assert std is not None
    if path.is_file():
        progress(len(media), len(media))
        return Pixels(path, mean, std)
    width, height = rules.size
    needed, free = len(media) * width * height * 3, shutil.disk_usage(path.parent).free
    if needed > free:
        raise ConfigError(
            f"{path.parent}: the pictures take {needed / 1e9:.1f} GB while they are trained on, and "
            f"{free / 1e9:.1f} GB are free. Give another --out, or train a head (--head)"
        )
    partial = path.with_suffix(".part.npy")
    stack = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(media), height, width, 3))
    parts = [range(start, min(start + DECODED, len(media))) for start in range(0, len(media), DECODED)]
    wrong = False
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = ahead(pool, lambda rows: [decode(encoder, media[row])[0] for row in rows], parts)
        for rows, contents in zip(parts, found, strict=True):
            for row, content in zip(rows, contents, strict=True):
                if isinstance(content, MediaError):
                    problems.add(media[row].place, str(content))
                    wrong = True
                else:
                    stack[row] = np.asarray(content)
            progress(rows.stop, len(media))
    stack.flush()
    del stack
    if wrong:
        partial.unlink()
        return None
    os.replace(partial, path)
    return Pixels(path, mean, std)


def tokens_of(tokenizer: Callable[[list[str]], Tensor], media: Sequence[Media]) -> Tensor:
    """The ids (n, context) of n texts; what goes beyond the context is cut off."""
    texts = [str(one.content).encode("utf-8", "replace").decode() for one in media]
    parts = (texts[start : start + TOKENISED] for start in range(0, len(texts), TOKENISED))
    return torch.cat([tokenizer(part) for part in parts])
