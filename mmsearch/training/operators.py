"""ONNX operators in torch, so that the last layers of a finished graph can be trained.

Each function takes the attributes of a node and its inputs and gives its output, or a tuple of them, as the ONNX
specification says (and onnxruntime's, for its own operators). Numbers of quantised tensors are carried as floats, and
rounding lets gradients through as if it were not there (the straight-through estimator, Bengio et al. 2013): the graph
that is trained is the quantised one. Shapes and indices are int64.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmsearch.training.shaping import (
    Attributes,
    Inputs,
    arg_max,
    axes_of,
    constant_of_shape,
    expand,
    flatten,
    gather,
    gather_nd,
    given,
    ints,
    pad,
    reshape,
    scatter_elements,
    slice_,
    split,
    squeeze,
    top_k,
    trilu,
    unsqueeze,
)

Operator = Callable[[Attributes, Inputs], Any]

CASTS = {
    1: torch.float32,
    2: torch.float32,  # quantised numbers are carried as floats
    3: torch.float32,
    6: torch.float32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float32,
    16: torch.float32,
}
"""TensorProto's types -> what carries them here."""


def rounded(x: Tensor) -> Tensor:
    """To the nearest whole number (halves to even), with the gradient of the identity."""
    return x + (torch.round(x) - x).detach()


def along(x: Tensor, values: Tensor, axis: int) -> Tensor:
    """A scale or zero point of x, or one for each of its slices along an axis, in a shape that broadcasts."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.reshape(shape)


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def operator(node: Attributes, inputs: Inputs) -> Tensor:
        axes = axes_of(node, inputs)
        if axes is None:
            if node.get("noop_with_empty_axes"):
                return inputs[0]
            axes = list(range(inputs[0].dim()))
        return function(inputs[0], dim=axes, keepdim=bool(node.get("keepdims", 1)))

    return operator


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, inputs: function(inputs[0])


def _binary(function: Callable[[Tensor, Tensor], Any]) -> Operator:
    return lambda node, inputs: function(inputs[0], inputs[1])


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point() or b.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


# Linear layers


def gemm(node: Attributes, inputs: Inputs) -> Tensor:
    a = inputs[0].T if node.get("transA") else inputs[0]
    b = inputs[1].T if node.get("transB") else inputs[1]
    product: Tensor = node.get("alpha", 1.0) * (a @ b)
    bias = given(inputs, 2)
    return product if bias is None else product + node.get("beta", 1.0) * bias


def _padded(node: Attributes, x: Tensor, kernel: Sequence[int], value: float = 0.0) -> Tensor:
    """x (n, c, ...) with the padding of a convolution or pooling of this kernel."""
    rank = x.dim() - 2
    how = node.get("auto_pad", "NOTSET")
    if how in ("NOTSET", "VALID", ""):
        pads = list(node.get("pads", [0] * (2 * rank))) if how != "VALID" else [0] * (2 * rank)
    else:
        strides = node.get("strides", [1] * rank)  # onnxruntime knows no dilations with these
        before, after = [], []
        for size, k, stride in zip(x.shape[2:], kernel, strides, strict=True):
            whole = max(0, (math.ceil(size / stride) - 1) * stride + k - size)
            less, more = whole // 2, whole - whole // 2
            before.append(less if how == "SAME_UPPER" else more)
            after.append(more if how == "SAME_UPPER" else less)
        pads = before + after
    if not any(pads):
        return x
    flat = [side for axis in reversed(range(rank)) for side in (pads[axis], pads[axis + rank])]
    return functional.pad(x, flat, value=value)


def conv(node: Attributes, inputs: Inputs) -> Tensor:
    x, weight = inputs[0], inputs[1]
    rank = x.dim() - 2
    function: Any = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    found: Tensor = function(
        _padded(node, x, weight.shape[2:]),
        weight,
        given(inputs, 2),
        stride=tuple(node.get("strides", [1] * rank)),
        dilation=tuple(node.get("dilations", [1] * rank)),
        groups=node.get("group", 1),
    )
    return found


def _activated(function: Operator) -> Operator:
    """onnxruntime's fusion of a layer and the activation behind it."""

    def operator(node: Attributes, inputs: Inputs) -> Tensor:
        x = function(node, inputs)
        if len(inputs) > 3 and inputs[3] is not None:  # FusedConv adds a tensor
            x = x + inputs[3]
        parameters = node.get("activation_params", [])
        kinds: dict[str, Callable[[], Tensor]] = {
            "": lambda: x,
            "Relu": lambda: functional.relu(x),
            "Tanh": lambda: torch.tanh(x),
            "Sigmoid": lambda: torch.sigmoid(x),
            "LeakyRelu": lambda: functional.leaky_relu(x, *parameters),
            "Clip": lambda: x.clamp(*parameters),
            "HardSigmoid": lambda: (parameters[0] * x + parameters[1]).clamp(0, 1),
        }
        return kinds[node.get("activation", "")]()

    return operator


def fused_matmul(node: Attributes, inputs: Inputs) -> Tensor:
    a = inputs[0].transpose(-1, -2) if node.get("transA") else inputs[0]
    b = inputs[1].transpose(-1, -2) if node.get("transB") else inputs[1]
    return node.get("alpha", 1.0) * (a @ b)


# Normalisation and pooling


def layer_norm(node: Attributes, inputs: Inputs) -> Tensor:
    axis = node.get("axis", -1)
    return functional.layer_norm(
        inputs[0],
        inputs[0].shape[axis:],
        inputs[1],
        given(inputs, 2),
        node.get("epsilon", 1e-5),
    )


def rms_norm(node: Attributes, inputs: Inputs) -> Tensor:
    return functional.rms_norm(inputs[0], inputs[0].shape[-1:], inputs[1], node.get("epsilon", 1e-5))


def skip_layer_norm(node: Attributes, inputs: Inputs) -> tuple[Tensor, None, None, Tensor]:
    whole = inputs[0] + inputs[1]
    if (bias := given(inputs, 4)) is not None:
        whole = whole + bias
    found = functional.layer_norm(
        whole, whole.shape[-1:], inputs[2], given(inputs, 3), node.get("epsilon", 1e-12)
    )
    return found, None, None, whole


def batch_norm(node: Attributes, inputs: Inputs) -> Tensor:
    x, scale, bias, mean, variance = inputs
    return functional.batch_norm(x, mean, variance, scale, bias, eps=node.get("epsilon", 1e-5))


def lp_norm(node: Attributes, inputs: Inputs) -> Tensor:
    return functional.normalize(inputs[0], p=node.get("p", 2), dim=node.get("axis", -1), eps=1e-12)


def softmax(node: Attributes, inputs: Inputs) -> Tensor:
    return torch.softmax(inputs[0], dim=node.get("axis", -1))


def _spatial(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def max_pool(node: Attributes, inputs: Inputs) -> Tensor:
    kernel = node["kernel_shape"]
    x = _padded(node, inputs[0], kernel, -math.inf)
    function: Any = {1: functional.max_pool1d, 2: functional.max_pool2d}[len(kernel)]
    found: Tensor = function(
        x, tuple(kernel), tuple(node.get("strides", [1] * len(kernel))), ceil_mode=bool(node.get("ceil_mode"))
    )
    return found


def average_pool(node: Attributes, inputs: Inputs) -> Tensor:
    kernel = node["kernel_shape"]
    strides = tuple(node.get("strides", [1] * len(kernel)))
    function: Any = {1: functional.avg_pool1d, 2: functional.avg_pool2d}[len(kernel)]
    means: Tensor = function(_padded(node, inputs[0], kernel), tuple(kernel), strides)
    if node.get("count_include_pad"):
        return means
    counted: Tensor = function(_padded(node, torch.ones_like(inputs[0]), kernel), tuple(kernel), strides)
    return means / counted


def clip(node: Attributes, inputs: Inputs) -> Tensor:
    low, high = (
        (given(inputs, 1), given(inputs, 2)) if len(inputs) > 1 else (node.get("min"), node.get("max"))
    )
    found: Tensor = inputs[0].clamp(
        None if low is None else float(low), None if high is None else float(high)
    )
    return found


def attention(node: Attributes, inputs: Inputs) -> Tensor:
    """onnxruntime's ``Attention``: x (n, l, w), weights (w, 3 h), bias (3 h,), mask (n, l) or none."""
    x, weight, bias, mask = inputs[0], inputs[1], given(inputs, 2), given(inputs, 3)
    if any(given(inputs, place) is not None for place in range(4, 7)) or node.get("qkv_hidden_sizes"):
        raise NotImplementedError("past, attention_bias or qkv_hidden_sizes")
    y = x @ weight
    q, k, v = (y if bias is None else y + bias).chunk(3, dim=-1)
    n, length, width = q.shape
    heads = node["num_heads"]
    q, k, v = (part.reshape(n, length, heads, width // heads).transpose(1, 2) for part in (q, k, v))
    scores = q @ k.transpose(-1, -2) * (node.get("scale") or (width // heads) ** -0.5)
    if mask is not None:
        if mask.dim() != 2:
            raise NotImplementedError("mask_index that is no (n, length) mask")
        scores = scores + (1 - mask[:, None, None, :].to(scores.dtype)) * node.get(
            "mask_filter_value", -10000.0
        )
    if node.get("unidirectional"):
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    found: Tensor = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(n, length, width)
    return found


OPERATORS: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "ArgMax": arg_max,
    "Attention": attention,
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "BiasGelu": _binary(lambda x, bias: functional.gelu(x + bias)),
    "Cast": lambda node, inputs: inputs[0].to(CASTS[node["to"]]),
    "Ceil": _unary(torch.ceil),
    "Clip": clip,
    "Concat": lambda node, inputs: torch.cat([x for x in inputs if x.numel()], dim=node["axis"]),
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "Cos": _unary(torch.cos),
    "Div": _binary(_divide),
    "Dropout": _unary(lambda x: x),
    "Einsum": lambda node, inputs: torch.einsum(node["equation"], *inputs),
    "Elu": lambda node, inputs: functional.elu(inputs[0], node.get("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": expand,
    "FastGelu": lambda node, inputs: functional.gelu(sum(inputs[1:], inputs[0]), approximate="tanh"),
    "Flatten": flatten,
    "Floor": _unary(torch.floor),
    "FusedConv": _activated(lambda node, inputs: conv(node, inputs[:3])),
    "FusedGemm": _activated(gemm),
    "FusedMatMul": fused_matmul,
    "Gather": gather,
    "GatherElements": lambda node, inputs: inputs[0].gather(node.get("axis", 0), inputs[1].long()),
    "GatherND": gather_nd,
    "Gelu": lambda node, inputs: functional.gelu(inputs[0], approximate=node.get("approximate", "none")),
    "Gemm": gemm,
    "GlobalAveragePool": _unary(lambda x: x.mean(_spatial(x), keepdim=True)),
    "GlobalMaxPool": _unary(lambda x: x.amax(_spatial(x), keepdim=True)),
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": lambda node, inputs: (node.get("alpha", 0.2) * inputs[0] + node.get("beta", 0.5)).clamp(
        0, 1
    ),
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda node, inputs: functional.leaky_relu(inputs[0], node.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LpNormalization": lp_norm,
    "MatMul": _binary(torch.matmul),
    "Max": lambda node, inputs: torch.stack(torch.broadcast_tensors(*inputs)).amax(0),
    "MaxPool": max_pool,
    "Min": lambda node, inputs: torch.stack(torch.broadcast_tensors(*inputs)).amin(0),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "Pad": pad,
    "Pow": _binary(torch.pow),
    "QuickGelu": lambda node, inputs: inputs[0] * torch.sigmoid(node.get("alpha", 1.702) * inputs[0]),
    "Range": lambda node, inputs: torch.arange(*(x.item() for x in inputs), dtype=inputs[0].dtype),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduce(lambda x, **to: torch.linalg.vector_norm(x, **to)),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda x, **to: torch.sum(x * x, **to)),
    "Relu": _unary(functional.relu),
    "Reshape": reshape,
    "ScatterElements": scatter_elements,
    "Shape": lambda node, inputs: torch.tensor(inputs[0].shape)[slice(node.get("start", 0), node.get("end"))],
    "Sigmoid": _unary(torch.sigmoid),
    "SimplifiedLayerNormalization": rms_norm,
    "Sin": _unary(torch.sin),
    "SkipLayerNormalization": skip_layer_norm,
    "Slice": slice_,
    "Softmax": softmax,
    "Softplus": _unary(functional.softplus),
    "Split": split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Tile": lambda node, inputs: inputs[0].repeat(ints(inputs[1])),
    "TopK": top_k,
    "Transpose": lambda node, inputs: inputs[0].permute(
        node.get("perm") or list(reversed(range(inputs[0].dim())))
    ),
    "Trilu": trilu,
    "Unsqueeze": unsqueeze,
    "Where": lambda node, inputs: torch.where(*inputs),
}
"""Every operator that can stand in the trained part, with those of ``quantised``."""
