"""ONNX operators that move and pick numbers but do not change them, in torch; see ``operators``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Attributes = Mapping[str, Any]
Inputs = Sequence[Any]  # tensors, None for an input that is left out


def ints(x: Tensor) -> list[int]:
    """The numbers of a shape, or of axes."""
    return [int(value) for value in x.flatten().tolist()]


def given(inputs: Inputs, place: int) -> Any:
    """An input that may be left out."""
    return inputs[place] if place < len(inputs) else None


def axes_of(node: Attributes, inputs: Inputs, place: int = 1) -> list[int] | None:
    """The axes that an input or, in older opsets, an attribute names; None if neither does."""
    asked = given(inputs, place)
    found = ints(asked) if asked is not None else node.get("axes")
    return list(found) if found else None


def reshape(node: Attributes, inputs: Inputs) -> Tensor:
    shape = ints(inputs[1])
    if not node.get("allowzero"):
        shape = [inputs[0].shape[n] if size == 0 else size for n, size in enumerate(shape)]
    found: Tensor = inputs[0].reshape(shape)
    return found


def flatten(node: Attributes, inputs: Inputs) -> Tensor:
    axis = node.get("axis", 1)
    first = math.prod(inputs[0].shape[:axis])
    found: Tensor = inputs[0].reshape(first, -1)
    return found


def unsqueeze(node: Attributes, inputs: Inputs) -> Tensor:
    x = inputs[0]
    axes = axes_of(node, inputs) or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(node: Attributes, inputs: Inputs) -> Tensor:
    axes = axes_of(node, inputs)
    found: Tensor = inputs[0].squeeze() if axes is None else inputs[0].squeeze(tuple(axes))
    return found


def slice_(node: Attributes, inputs: Inputs) -> Tensor:
    x = inputs[0]
    starts, ends = ints(inputs[1]), ints(inputs[2])
    axes = ints(inputs[3]) if given(inputs, 3) is not None else list(range(len(starts)))
    steps = ints(inputs[4]) if given(inputs, 4) is not None else [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        rows = torch.arange(x.shape[axis], device=x.device)[slice(start, end, 1 if step < 0 else step)]
        if step < 0:
            rows = torch.tensor(range(x.shape[axis])[start : None if end < -x.shape[axis] else end : step])
        x = x.index_select(axis, rows.to(x.device))
    return x


def split(node: Attributes, inputs: Inputs) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    whole = inputs[0].shape[axis]
    if given(inputs, 1) is not None:
        sizes = ints(inputs[1])
    elif "split" in node:
        sizes = list(node["split"])
    else:
        each = math.ceil(whole / node["outputs"])
        sizes = [min(each, whole - start) for start in range(0, whole, each)]
    return tuple(torch.split(inputs[0], sizes, dim=axis))


def gather(node: Attributes, inputs: Inputs) -> Tensor:
    data, rows = inputs[0], inputs[1].long().to(inputs[0].device)
    axis = node.get("axis", 0) % data.dim()
    rows = torch.where(rows < 0, rows + data.shape[axis], rows)
    found: Tensor = data.index_select(axis, rows.flatten())
    return found.reshape([*data.shape[:axis], *rows.shape, *data.shape[axis + 1 :]])


def gather_nd(node: Attributes, inputs: Inputs) -> Tensor:
    data, rows = inputs[0], inputs[1].long()
    if node.get("batch_dims", 0):
        raise NotImplementedError("batch_dims")
    found: Tensor = data[tuple(rows.unbind(-1))]
    return found


def scatter_elements(node: Attributes, inputs: Inputs) -> Tensor:
    if node.get("reduction", "none") != "none":
        raise NotImplementedError("reduction")
    found: Tensor = inputs[0].scatter(node.get("axis", 0), inputs[1].long(), inputs[2])
    return found


def top_k(node: Attributes, inputs: Inputs) -> tuple[Tensor, Tensor]:
    k = ints(inputs[1])[0]
    values, rows = torch.topk(
        inputs[0], k, dim=node.get("axis", -1), largest=bool(node.get("largest", 1)), sorted=True
    )
    return values, rows


def arg_max(node: Attributes, inputs: Inputs) -> Tensor:
    found: Tensor = inputs[0].argmax(node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))
    return found


def expand(node: Attributes, inputs: Inputs) -> Tensor:
    shape = torch.broadcast_shapes(inputs[0].shape, tuple(ints(inputs[1])))
    found: Tensor = inputs[0].expand(shape)
    return found


def pad(node: Attributes, inputs: Inputs) -> Tensor:
    x, rank = inputs[0], inputs[0].dim()
    sides = ints(inputs[1])
    axes = [axis % rank for axis in ints(inputs[3])] if given(inputs, 3) is not None else list(range(rank))
    by_axis = {axis: (sides[n], sides[n + len(axes)]) for n, axis in enumerate(axes)}
    flat = [side for axis in reversed(range(rank)) for side in by_axis.get(axis, (0, 0))]
    if node.get("mode", "constant") != "constant":
        raise NotImplementedError("mode")
    value = given(inputs, 2)
    return functional.pad(x, flat, value=0.0 if value is None else float(value))


def constant_of_shape(node: Attributes, inputs: Inputs) -> Tensor:
    value = node.get("value")
    if value is None:
        return torch.zeros(ints(inputs[0]))
    return torch.full(ints(inputs[0]), value.flatten()[0].item(), dtype=value.dtype)


def trilu(node: Attributes, inputs: Inputs) -> Tensor:
    k = ints(inputs[1])[0] if given(inputs, 1) is not None else 0
    return torch.triu(inputs[0], k) if node.get("upper", 1) else torch.tril(inputs[0], k)
