"""LAION-CLAP (Wu et al. 2023, "Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-
Caption Augmentation") as transformers has it: its text tower, and its sound tower as a graph that takes samples.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from mmsearch.encoders.open_clip_model import import_torchvision
from mmsearch.errors import ModelError
from mmsearch.training.export import export_graph

BATCH = 32
LONGEST = 77  # tokens
QUIETEST = 1e-10
SHORTEST = 1.0  # seconds


class FrontEnd(nn.Module):
    """Samples (n, s) of any length -> decibels (n, 1, t, bands) of the longest clip that the model takes: what
    ``ClapFeatureExtractor`` makes of a clip that is not too long. The Fourier transform is a convolution.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        size = extractor.fft_window_size
        if extractor.padding not in ("repeatpad", "pad"):
            raise ModelError(
                f"preprocessor_config.json: padding is {extractor.padding!r}, not repeatpad or pad"
            )
        self.repeat = extractor.padding == "repeatpad"
        self.longest, self.hop, self.half = int(extractor.nb_max_samples), extractor.hop_length, size // 2
        window = torch.hann_window(size, periodic=True, dtype=torch.float64)
        angle = 2 * torch.pi / size * torch.outer(torch.arange(self.half + 1), torch.arange(size)).double()
        waves = torch.cat([torch.cos(angle), torch.sin(angle)]) * window
        fused = extractor.truncation == "fusion"
        filters = extractor.mel_filters if fused else extractor.mel_filters_slaney
        self.register_buffer("waves", waves.float()[:, None])
        self.register_buffer("mel", torch.from_numpy(filters).float())

    def forward(self, samples: Tensor) -> Tensor:
        samples = samples[:, : self.longest]
        if self.repeat:
            samples = samples.repeat(1, self.longest // samples.shape[1])
        samples = pad(samples, (0, self.longest - samples.shape[1]))
        samples = pad(samples[:, None], (self.half, self.half), mode="reflect")
        real, imaginary = torch.conv1d(samples, self.waves, stride=self.hop).split(self.half + 1, dim=1)
        power = (real * real + imaginary * imaginary).transpose(1, 2) @ self.mel
        return 10 * torch.log10(power.clamp(min=QUIETEST))[:, None]


class SoundTower(nn.Module):
    """Samples (n, s) -> unit vectors (n, d), of clips that are not longer than what the model takes."""

    def __init__(self, model: Any, extractor: Any) -> None:
        super().__init__()
        self.front, self.model = FrontEnd(extractor), model

    def forward(self, samples: Tensor) -> Tensor:
        decibels = self.front(samples)
        longer = torch.zeros(decibels.shape[0], 1, dtype=torch.bool)  # of clips that were cut: none is
        heard = self.model.audio_model(input_features=decibels, is_longer=longer).pooler_output
        return normalize(self.model.audio_projection(heard), dim=-1)


class Clap:
    """A CLAP model from a folder of its files. Raises ModelError if transformers cannot load it."""

    def __init__(self, folder: Path) -> None:
        try:
            if importlib.util.find_spec("torchvision"):  # transformers imports it where it is
                import_torchvision()
            from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

            self.model = ClapModel.from_pretrained(
                folder, local_files_only=True, attn_implementation="eager", dtype=torch.float32
            ).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self.extractor = ClapFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # transformers raises anything for files that do not belong together
            raise ModelError(f"{folder}: transformers cannot load it as a CLAP model ({error})") from error

    @property
    def tower(self) -> dict[str, Any]:
        """What model.json says about the sound tower, but for its file."""
        seconds = float(self.extractor.max_length_s)
        return {
            "precision": "float32",
            "input": "samples",
            "output": "vectors",
            "batch": 1,
            "sample_rate": int(self.extractor.sampling_rate),
            "seconds": seconds,
            "hop_seconds": seconds / 2,
            "min_seconds": min(SHORTEST, seconds),
        }

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(n, d) unit vectors."""
        vectors = np.empty((len(texts), self.model.config.projection_dim), np.float32)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        for rows in (order[start : start + BATCH] for start in range(0, len(order), BATCH)):
            given = self.tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=LONGEST,
                return_tensors="pt",
            )
            with torch.no_grad():
                read = self.model.text_model(given["input_ids"], given["attention_mask"]).pooler_output
                vectors[rows] = normalize(self.model.text_projection(read), dim=-1).numpy()
        return vectors

    def export(self, path: Path) -> None:
        """Write the sound tower as a graph: samples (1, s) -> vectors (1, d)."""
        tower = SoundTower(self.model, self.extractor).eval()
        example = torch.rand(1, int(1.5 * self.extractor.sampling_rate))
        export_graph(tower, (example,), ["samples"], "vectors", {0: "n", 1: "s"}, path)
