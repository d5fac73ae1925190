"""Which weights of an open_clip network learn: last blocks, all, or low-rank changes; and how a head is folded in."""

import importlib.util
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmsearch.errors import ConfigError, MissingExtra
from mmsearch.types import Modality

_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|blocks?|layers?|layer[1-4])\.\d+$")
_SCALARS = ("logit_scale", "logit_bias")
_VISUAL = "visual."
ADAPTED = 2.0  # what low-rank changes are multiplied by, whatever their rank


def tower_of(name: str) -> Modality | None:
    """The tower that a module or weight of this name belongs to; None: to neither."""
    if name in _SCALARS or not name:
        return None
    return Modality.IMAGE if name.startswith(_VISUAL) else Modality.TEXT


def tower_weights(model: nn.Module, modality: Modality) -> Iterator[tuple[str, nn.Parameter]]:
    """Names and weights of one tower."""
    for name, weight in model.named_parameters():
        if tower_of(name) is modality:
            yield name, weight


def blocks_of(model: nn.Module, modality: Modality) -> list[tuple[str, nn.Module]]:
    """The blocks of a tower, from the input to the vectors: transformer blocks, or those of a convolutional network.

    Of blocks within blocks (stages) the inner ones count.
    """
    found = [(n, m) for n, m in model.named_modules() if tower_of(n) is modality and _BLOCK.search(n)]
    names = [name for name, _ in found]
    return [(n, m) for n, m in found if not any(other.startswith(f"{n}.") for other in names)]


def unfreeze_all(model: nn.Module, modality: Modality) -> None:
    """Let every weight of a tower learn."""
    for _, weight in tower_weights(model, modality):
        weight.requires_grad_(True)


def unfreeze_last(model: nn.Module, modality: Modality, count: int, run: Callable[[], Tensor]) -> None:
    """Let the last `count` blocks of a tower learn, and whatever comes between them and the vectors.

    `run` sends something through the tower. What comes in at the first of these blocks is cut off from what it was made
    of; the weights that still have a gradient are the wanted ones, whatever the architecture.

    Raises ConfigError if the tower has fewer blocks.
    """
    blocks = blocks_of(model, modality)
    if count > len(blocks):
        have = f"{len(blocks)} blocks" if blocks else "no blocks that are known"
        raise ConfigError(
            f"--unfreeze {count}: the {modality} tower has {have}; give a lower number, or --unfreeze all"
        )

    def detach(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return _detached(given), {name: _detached(one) for name, one in named.items()}

    unfreeze_all(model, modality)
    hook = blocks[-count][1].register_forward_pre_hook(detach, with_kwargs=True)
    try:
        run().sum().backward()
    finally:
        hook.remove()
    for _, weight in tower_weights(model, modality):
        weight.requires_grad_(weight.grad is not None)
        weight.grad = None


def _detached(given: Any) -> Any:
    if isinstance(given, Tensor):
        return given.detach()
    return tuple(_detached(one) for one in given) if isinstance(given, tuple) else given


class LowRank:
    """Low-rank changes of the matrices in the blocks of some towers (Hu et al. 2021, "LoRA"), by the library peft.

    Changed are linear layers, convolutions of one pixel, and the queries, keys and values of attention that keeps them
    in one matrix. Of ``nn.MultiheadAttention`` the projection behind it stays: its own layer is never called, so that
    nothing could be put in its place, and peft's other way (adding to the weights and subtracting again at each
    call) lets them drift.

    Raises ConfigError if a tower has nothing of this kind, MissingExtra without peft.
    """

    def __init__(self, model: nn.Module, towers: Sequence[Modality], rank: int) -> None:
        if importlib.util.find_spec("peft") is None:
            raise MissingExtra("--lora", "clip")
        import peft
        from open_clip.transformer import Attention

        modules: list[str] = []
        parameters: list[str] = []
        for tower in towers:
            before = len(modules) + len(parameters)
            for prefix, block in blocks_of(model, tower):
                for name, layer in block.named_modules(prefix=prefix):
                    if isinstance(layer, nn.MultiheadAttention | Attention):
                        parameters.append(f"{name}.in_proj_weight")
                    elif _is_matrix(layer):
                        modules.append(name)
            if before == len(modules) + len(parameters):
                raise ConfigError(
                    f"--lora: the {tower} tower has no matrices in blocks that are known; use --unfreeze all"
                )
        config = peft.LoraConfig(
            r=rank,
            lora_alpha=round(ADAPTED * rank),
            target_modules=modules or None,
            target_parameters=parameters or None,
        )
        self._tuner = peft.LoraModel(model, config, "default")

    def merge(self) -> None:
        """Add the changes to the weights; the network is then built as it was before."""
        self._tuner.merge_and_unload()


def _is_matrix(layer: nn.Module) -> bool:
    if isinstance(layer, nn.Linear):
        return not isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear)
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1


def fold_head(model: Any, config: dict[str, Any], modality: Modality, change: Tensor) -> None:
    """Put a linear head, y + change @ y, into the last layer of a tower, for a vector y of any length.

    A tower that ends without a matrix gets one, and `config` (``model_cfg``) says so, so that open_clip builds it.
    """
    change = change.detach()
    whole = torch.eye(len(change), device=change.device) + change
    owner, name = _last_matrix(model, modality)
    with torch.no_grad():
        if owner is None:
            _append(model, config, modality, whole)
            return
        last = getattr(owner, name)
        if isinstance(last, nn.Linear):
            last.weight.copy_(whole @ last.weight)
            if last.bias is not None:
                last.bias.copy_(whole @ last.bias)
        else:  # a plain weight (inputs, outputs)
            last.copy_(last @ whole.T)


def _last_matrix(model: Any, modality: Modality) -> tuple[Any, str]:
    """Who holds the last linear layer (or plain weight) of a tower, and its name; (None, "") if there is none."""
    if modality is Modality.TEXT:
        text = getattr(model, "text", model)
        if getattr(text, "text_projection", None) is not None:
            return text, "text_projection"
        if isinstance(getattr(text, "proj", None), nn.Sequential):
            return text.proj, str(len(text.proj) - 1)
        return (text, "proj") if isinstance(getattr(text, "proj", None), nn.Linear) else (None, "")
    visual = model.visual
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return visual, "proj"
    if hasattr(visual, "attnpool"):
        return visual.attnpool, "c_proj"
    layers = list(_linear_layers(visual.head)) or list(_linear_layers(visual.trunk.get_classifier()))
    return layers[-1] if layers else (None, "")


def _linear_layers(part: nn.Module) -> Iterator[tuple[Any, str]]:
    if isinstance(part, nn.Linear):
        yield nn.ModuleDict({"last": part}), "last"
    for module in part.modules():
        yield from ((module, name) for name, child in module.named_children() if isinstance(child, nn.Linear))


def _append(model: Any, config: dict[str, Any], modality: Modality, whole: Tensor) -> None:
    """Give a tower that ends without one a linear layer, built as open_clip builds it."""
    layer = nn.Linear(*whole.T.shape, bias=False, device=whole.device)
    layer.weight.copy_(whole)
    if modality is Modality.IMAGE:
        model.visual.head = nn.Sequential(OrderedDict(drop=nn.Dropout(0.0), proj=layer))
        config["vision_cfg"] = {**config["vision_cfg"], "timm_proj": "linear", "timm_proj_bias": False}
    elif "hf_model_name" in config["text_cfg"]:
        model.text.proj = layer
        config["text_cfg"] = {**config["text_cfg"], "hf_proj_type": "linear"}
    else:
        text = getattr(model, "text", model)
        text.text_projection = nn.Parameter(whole.T.clone())
        config["text_cfg"] = {**config["text_cfg"], "proj_type": "linear", "proj_bias": False}


def without_decay(model: Any, weights: Mapping[str, Tensor]) -> set[str]:
    """Names of weights that must not be pulled to zero: norms, biases, scales, positions."""
    kept = set(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else set()
    return {name for name, weight in weights.items() if weight.ndim < 2 or name in kept}
