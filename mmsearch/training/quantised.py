"""The ONNX operators of quantised graphs in torch. Numbers of quantised tensors are floats here, see ``operators``.

Scales and zero points are tensors of one number, or of one for each channel. The range of what a node gives (that of
its zero point's type) is in its attribute ``range``, which ``cut`` writes there.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mmsearch.training.operators import Operator, along, conv, rounded
from mmsearch.training.shaping import Attributes, Inputs, given

ZERO_POINTS = {
    "QuantizeLinear": 2,
    "QLinearConv": 7,
    "QLinearMatMul": 7,
    "QLinearAdd": 7,
    "QLinearMul": 7,
    "QLinearConcat": 1,
    "QLinearGlobalAveragePool": 4,
    "QLinearSigmoid": 4,
    "QLinearLeakyRelu": 4,
    "QGemm": 8,
}
"""Operator -> the input that is the zero point of its output, whose type is the output's."""


def real(codes: Tensor, scale: Tensor, zero: Tensor | None, axis: int = 1) -> Tensor:
    """What the numbers of a quantised tensor stand for."""
    shifted = codes if zero is None else codes - along(codes, zero, axis)
    return shifted * along(codes, scale, axis)


def codes(x: Tensor, scale: Tensor, zero: Tensor | None, limits: tuple[int, int], axis: int = 1) -> Tensor:
    """The numbers that stand for x."""
    found = rounded(x / along(x, scale, axis))
    return (found if zero is None else found + along(x, zero, axis)).clamp(*limits)


def quantize(node: Attributes, inputs: Inputs) -> Tensor:
    return codes(inputs[0], inputs[1], given(inputs, 2), node["range"], node.get("axis", 1))


def dequantize(node: Attributes, inputs: Inputs) -> Tensor:
    return real(inputs[0], inputs[1], given(inputs, 2), node.get("axis", 1))


def dynamic_quantize(node: Attributes, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Each row of x by itself: the engine encodes one text at a time, so that none depends on its neighbours."""
    x = inputs[0]
    rest = tuple(range(1, x.dim()))
    low, high = (
        x.detach().amin(rest, keepdim=True).clamp(max=0),
        x.detach().amax(rest, keepdim=True).clamp(min=0),
    )
    scale = ((high - low) / 255).clamp(min=1e-30)
    zero = torch.round(-low / scale).clamp(0, 255)
    return (rounded(x / scale) + zero).clamp(0, 255), scale, zero


def _shifted(x: Tensor, zero: Tensor | None) -> Tensor:
    """Codes of activations less their zero point, which is one number or one a row."""
    return x if zero is None else x - zero


def _weights(x: Tensor, zero: Tensor | None) -> Tensor:
    """Codes of a matrix less its zero point, which is one number or one a column."""
    return x if zero is None else x - along(x, zero, -1)


def qlinear_conv(node: Attributes, inputs: Inputs) -> Tensor:
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = inputs[:8]
    bias = given(inputs, 8)
    if bias is not None:
        bias = bias * (x_scale * w_scale)
    y = conv(node, [real(x, x_scale, x_zero), real(w, w_scale, w_zero, axis=0), bias])
    return codes(y, y_scale, y_zero, node["range"])


def qlinear_matmul(node: Attributes, inputs: Inputs) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    product = real(a, a_scale, a_zero, axis=-2) @ real(b, b_scale, b_zero, axis=-1)
    return codes(product, y_scale, y_zero, node["range"])


def qgemm(node: Attributes, inputs: Inputs) -> Tensor:
    a, a_scale, a_zero, b, b_scale, b_zero = inputs[:6]
    transposed = bool(node.get("transB"))
    left = real(a.T if node.get("transA") else a, a_scale, a_zero)
    right = real(b, b_scale, b_zero, axis=0 if transposed else 1)
    y = node.get("alpha", 1.0) * (left @ (right.T if transposed else right))
    if (bias := given(inputs, 6)) is not None:
        y = y + bias * (node.get("alpha", 1.0) * a_scale * b_scale)
    if (y_scale := given(inputs, 7)) is None:
        return y
    return codes(y, y_scale, given(inputs, 8), node["range"])


def _qlinear_binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def operator(node: Attributes, inputs: Inputs) -> Tensor:
        a, a_scale, a_zero, b, b_scale, b_zero, y_scale = inputs[:7]
        y = function(real(a, a_scale, a_zero), real(b, b_scale, b_zero))
        return codes(y, y_scale, given(inputs, 7), node["range"])

    return operator


def qlinear_concat(node: Attributes, inputs: Inputs) -> Tensor:
    parts = [real(*inputs[start : start + 3]) for start in range(2, len(inputs), 3)]
    return codes(torch.cat(parts, dim=node["axis"]), inputs[0], inputs[1], node["range"])


def _qlinear_unary(function: Callable[[Attributes, Tensor], Tensor]) -> Operator:
    def operator(node: Attributes, inputs: Inputs) -> Tensor:
        y = function(node, real(inputs[0], inputs[1], inputs[2]))
        return codes(y, inputs[3], given(inputs, 4), node["range"])

    return operator


def _global_mean(node: Attributes, x: Tensor) -> Tensor:
    if node.get("channels_last"):
        raise NotImplementedError("channels_last")
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


def matmul_integer(node: Attributes, inputs: Inputs) -> Tensor:
    return _shifted(inputs[0], given(inputs, 2)) @ _weights(inputs[1], given(inputs, 3))


def conv_integer(node: Attributes, inputs: Inputs) -> Tensor:
    weight, zero = inputs[1], given(inputs, 3)
    if zero is not None:
        weight = weight - along(weight, zero, 0)
    return conv(node, [_shifted(inputs[0], given(inputs, 2)), weight])


def matmul_integer_to_float(node: Attributes, inputs: Inputs) -> Tensor:
    a, b, a_scale, b_scale = inputs[:4]
    product = (
        _shifted(a, given(inputs, 4)) * a_scale @ (_weights(b, given(inputs, 5)) * along(b, b_scale, -1))
    )
    bias = given(inputs, 6)
    return product if bias is None else product + bias


def dynamic_quantize_matmul(node: Attributes, inputs: Inputs) -> Tensor:
    a, a_scale, a_zero = dynamic_quantize({}, inputs[:1])
    b, b_scale, b_zero, bias = inputs[1], inputs[2], given(inputs, 3), given(inputs, 4)
    return matmul_integer_to_float({}, [a, b, a_scale, b_scale, a_zero, b_zero, bias])


QUANTISED: dict[str, Any] = {
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "DynamicQuantizeLinear": dynamic_quantize,
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear_matmul,
    "QGemm": qgemm,
    "QLinearAdd": _qlinear_binary(torch.add),
    "QLinearMul": _qlinear_binary(torch.mul),
    "QLinearConcat": qlinear_concat,
    "QLinearGlobalAveragePool": _qlinear_unary(_global_mean),
    "QLinearSigmoid": _qlinear_unary(lambda node, x: torch.sigmoid(x)),
    "QLinearLeakyRelu": _qlinear_unary(lambda node, x: functional.leaky_relu(x, node.get("alpha", 0.01))),
    "MatMulInteger": matmul_integer,
    "ConvInteger": conv_integer,
    "MatMulIntegerToFloat": matmul_integer_to_float,
    "DynamicQuantizeMatMul": dynamic_quantize_matmul,
}
