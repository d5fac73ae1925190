"""An open_clip network as a learner: batches of pairs through its towers, a contrastive loss, recall."""

import dataclasses
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from mmsearch.errors import ConfigError
from mmsearch.training.clip_features import Pixels
from mmsearch.training.clip_losses import PairClipLoss, PairSigLipLoss
from mmsearch.training.clip_parts import tower_of, without_decay
from mmsearch.training.finetune import Options, Side, recall
from mmsearch.training.residual import CHUNK, Features, Kind, ResidualHead
from mmsearch.types import Modality

HIGHEST = math.log(100)  # of the logarithm of the scale, as in CLIP
BALANCED = 256  # items that the bias of the sigmoid loss is set by
BETAS = (0.9, 0.98)  # of CLIP
EPSILON = 1e-6
_LIGHT = ("grad_checkpointing", "gradient_checkpointing")  # as open_clip and timm, and transformers, call it


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipOptions(Options):
    """How to train an open_clip model: one of `head`, `lora` (its rank), `unfreeze` (last blocks), `everything`.

    At most `chunk` pictures or texts go through the network at a time, however large the batch is; `light` keeps of
    each block only what goes in, and runs it again in the backward pass. A gradient longer than `longest` is cut.
    """

    head: Kind | None = None
    lora: int = 0
    everything: bool = False
    chunk: int = 32
    light: bool = False
    longest: float = 1.0
    among_texts: float = 0.0


class ClipLearner(nn.Module):
    """The `Learner` of an open_clip network.

    `features` has of each modality what goes into its tower (``Pixels``, ids (n, context)), or, for a tower that stays,
    its vectors (n, d) float32. `heads` are put behind vectors.
    """

    def __init__(
        self,
        model: Any,
        features: Mapping[Modality, Features],
        train: Side,
        validation: Side,
        options: ClipOptions,
        *,
        heads: Mapping[Modality, ResidualHead],
        mixed: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.sides = (train, validation)
        self.options = options
        self.heads = nn.ModuleDict({modality.value: head for modality, head in heads.items()})
        self.mixed = mixed
        self.scale = model.logit_scale
        self.scale.requires_grad_(True)
        self.highest = max(HIGHEST, float(self.scale.detach().max()))
        self.bias: nn.Parameter | None = None
        if options.loss == "sigmoid":
            known = getattr(model, "logit_bias", None)
            self.bias = nn.Parameter(torch.zeros_like(self.scale)) if known is None else known
            self.bias.requires_grad_(True)
            if known is None:
                self.balance()
        if options.light:
            save_memory(model, [modality for modality, given in features.items() if not _are_vectors(given)])

    def balance(self) -> None:
        """Set the bias of a network that has none so that the sigmoid of right and wrong pairs adds up to 1 a picture,
        as the softmax did that it learned with.
        """
        assert self.bias is not None
        side = self.sides[1]
        rows = {modality: owned[:BALANCED, 0] for modality, owned in side.owned.items()}
        images, texts = (
            self.encode(modality, self.features[modality], rows[modality])
            for modality in (Modality.IMAGE, Modality.TEXT)
        )
        with torch.no_grad():
            self.bias.fill_(-(self.scale.exp() * images @ texts.T).logsumexp(1).mean())

    def train(self, mode: bool = True) -> "ClipLearner":
        """Layers that normalise by the batch keep what they know: a few pairs would spoil it, and so would chunks."""
        super().train(mode)
        for module in self.model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, modality: Modality, given: Tensor) -> Tensor:
        """Unit vectors (n, d) float32 of some of the features of a modality."""
        features = self.features[modality]
        if isinstance(features, Pixels):
            vectors = self.model.encode_image(features.normalised(given))
        elif given.is_floating_point():
            if modality.value not in self.heads:
                return given
            vectors = self.heads[modality.value](given)
        else:
            vectors = self.model.encode_text(given)
        return normalize(vectors.float(), dim=1)

    def vectors(self, modality: Modality, rows: Tensor) -> Tensor:
        """Vectors of a batch with their gradients.

        More than a chunk goes through in parts, of which only the vectors are kept; in the backward pass each part runs
        again with the gradient that the loss of the whole batch gives its vectors (Gao et al. 2021, "Scaling Deep
        Contrastive Learning Batch Size under Memory Limited Setup"). Every part so has the whole batch for negatives.
        """
        given = self.features[modality][rows]
        assert isinstance(given, Tensor)
        parts = given.split(self.options.chunk)
        with torch.autocast(given.device.type, torch.bfloat16, enabled=self.mixed):
            if len(parts) == 1 or given.is_floating_point():
                return self(modality, given)
            return torch.cat([checkpoint(self, modality, part, use_reentrant=False) for part in parts])

    def loss(self, rows: Tensor) -> Tensor:
        """open_clip's loss of one picture and one text of each item, drawn at random where it has several."""
        side = self.sides[0]
        drawn = {modality: _draw(owned[rows]) for modality, owned in side.owned.items()}
        belongs = torch.zeros(len(rows), len(rows), dtype=torch.bool)
        for ids in drawn.values():
            belongs |= ids[:, None] == ids
        images, texts = (
            self.vectors(modality, drawn[modality]) for modality in (Modality.IMAGE, Modality.TEXT)
        )
        scale = self.scale.exp()
        if self.bias is not None:
            sigmoid = PairSigLipLoss()
            sigmoid.belongs = belongs
            return sigmoid(images, texts, scale, self.bias)
        softmax = PairClipLoss()
        softmax.belongs = belongs
        return softmax(images, texts, scale)

    def stepped(self) -> None:
        with torch.no_grad():
            self.scale.clamp_(0, self.highest)

    def encode(self, modality: Modality, features: Features, media: Tensor | None = None) -> Tensor:
        """Unit vectors (n, d) of media, a few at a time, in float32 and without a gradient."""
        media = torch.arange(len(features)) if media is None else media
        self.eval()
        with torch.no_grad():
            return torch.cat([self(modality, features[some]) for some in media.split(CHUNK)])

    def recall(self) -> float:
        return recall(self, self.features, self.sides[1])

    def learning(self) -> dict[str, nn.Parameter]:
        """What learns."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def groups(self) -> list[dict[str, Any]]:
        learning = self.learning()
        still = {f"model.{name}" for name in without_decay(self.model, dict(self.model.named_parameters()))}
        parts = (
            (
                [one for name, one in learning.items() if name not in still and one.ndim > 1],
                self.options.decay,
            ),
            ([one for name, one in learning.items() if name in still or one.ndim < 2], 0.0),
        )
        rate = self.options.rate
        return [
            {"params": found, "lr": rate, "most": rate, "weight_decay": decay, "betas": BETAS, "eps": EPSILON}
            for found, decay in parts
            if found
        ]

    def weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.learning().items()}

    def set_weights(self, weights: Mapping[str, Any]) -> None:
        learning = self.learning()
        if set(weights) != set(learning):
            raise ConfigError("the checkpoint is of other weights: train without --resume")
        with torch.no_grad():
            for name, weight in learning.items():
                weight.copy_(weights[name])


def save_memory(model: Any, towers: Sequence[Modality]) -> None:
    """Keep of each block only what goes in, by open_clip's own switch. Raises ConfigError where it does nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about what open_clip calls
        model.set_grad_checkpointing(True)
    for tower in towers:
        modules = [module for name, module in model.named_modules() if tower_of(name) is tower]
        if not any(getattr(module, name, False) is True for module in modules for name in _LIGHT):
            raise ConfigError(
                f"--checkpoint-activations: open_clip cannot do this for the {tower} tower of the model; give a lower "
                "--chunk instead"
            )


def _are_vectors(features: Features) -> bool:
    return isinstance(features, Tensor) and features.is_floating_point()


def _draw(owned: Tensor) -> Tensor:
    """One of the ids of each row (n, k), which is filled up with -1."""
    if owned.shape[1] == 1:
        return owned[:, 0]
    places = torch.multinomial((owned >= 0).float(), 1)
    return owned.gather(1, places)[:, 0]
