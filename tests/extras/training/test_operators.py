"""Every operator that can be trained gives what onnxruntime gives."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from mmsearch.training.cut import tensor
from mmsearch.training.operators import OPERATORS, rounded
from mmsearch.training.quantised import QUANTISED, ZERO_POINTS

RNG = np.random.default_rng(0)
MICROSOFT = "com.microsoft"


def f(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def i(*values: Any) -> Any:
    return np.array(values, np.int64)


def u8(*shape: int) -> Any:
    return RNG.integers(0, 256, shape).astype(np.uint8)


def s8(*shape: int) -> Any:
    return RNG.integers(-63, 64, shape).astype(np.int8)


def scale(value: float = 0.02) -> Any:
    return np.array(value, np.float32)


def zero(value: int = 128) -> Any:
    return np.array(value, np.uint8)


def per_channel(n: int) -> Any:
    return RNG.uniform(0.005, 0.02, n).astype(np.float32)


X = f(2, 3, 4)
PICTURE = f(2, 4, 7, 6)
BOOLS = RNG.random((2, 3)) < 0.5
FIXED = {"channels": f(4), "spread": np.abs(f(4)) + 0.1}

CASES: list[tuple[str, dict[str, Any], list[Any]]] = [
    *((name, {}, [X]) for name in ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid")),
    *((name, {}, [X]) for name in ("HardSwish", "Identity", "LeakyRelu", "Neg", "Reciprocal", "Relu")),
    *((name, {}, [X]) for name in ("Sigmoid", "Sin", "Softplus", "Tanh", "Dropout", "Softmax")),
    *((name, {}, [np.abs(X) + 0.1]) for name in ("Log", "Sqrt")),
    *((name, {}, [X, f(3, 1)]) for name in ("Add", "Div", "Mul", "Sub", "Max", "Min")),
    *((name, {}, [X, f(2, 3, 4)]) for name in ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")),
    *((name, {}, [BOOLS, ~BOOLS[:1]]) for name in ("And", "Or")),
    ("Not", {}, [BOOLS]),
    ("Equal", {}, [i(1, 2, 3), i(1, 0, 3)]),
    ("Where", {}, [BOOLS, f(2, 3), f(3)]),
    ("Pow", {}, [np.abs(X), np.array(1.7, np.float32)]),
    ("Div", {}, [i(7, -7, 9), i(2, 2, -4)]),
    ("Clip", {}, [X, np.array(-0.5, np.float32)]),
    ("Clip", {}, [X, None, np.array(0.5, np.float32)]),
    ("Cast", {"to": TensorProto.INT64}, [X * 3]),
    ("Cast", {"to": TensorProto.FLOAT}, [i(1, 2)]),
    ("MatMul", {}, [X, f(2, 4, 5)]),
    ("Gemm", {"transB": 1, "alpha": 0.5, "beta": 2.0}, [f(3, 4), f(5, 4), f(5)]),
    ("Gemm", {"transA": 1}, [f(4, 3), f(4, 5)]),
    ("Einsum", {"equation": "bij,bkj->bik"}, [X, f(2, 5, 4)]),
    ("Conv", {"strides": [2, 1], "pads": [1, 0, 2, 1], "group": 2}, [PICTURE, f(6, 2, 3, 2), f(6)]),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, [PICTURE, f(3, 4, 3, 3)]),
    ("Conv", {"auto_pad": "SAME_LOWER"}, [PICTURE, f(3, 4, 2, 2)]),
    ("Conv", {"dilations": [2, 2]}, [PICTURE, f(3, 4, 2, 2)]),
    ("Conv", {"strides": [3]}, [f(2, 1, 20), f(5, 1, 4)]),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}, [PICTURE]),
    ("AveragePool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, [PICTURE]),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [PICTURE]),
    ("GlobalAveragePool", {}, [PICTURE]),
    ("GlobalMaxPool", {}, [PICTURE]),
    (
        "BatchNormalization",
        {"epsilon": 1e-3},
        [PICTURE, f(4), f(4), FIXED["channels"], FIXED["spread"]],
    ),
    ("LayerNormalization", {"epsilon": 1e-6}, [X, f(4), f(4)]),
    ("LayerNormalization", {"axis": 1}, [X, f(3, 4)]),
    ("SimplifiedLayerNormalization", {"epsilon": 1e-6}, [X, f(4)]),  # of onnxruntime, in the plain domain
    ("LpNormalization", {"axis": 1, "p": 2}, [X]),
    *((name, {"axes": [1], "keepdims": 0}, [X]) for name in ("ReduceL2", "ReduceMax", "ReduceMean")),
    *((name, {}, [X]) for name in ("ReduceMin", "ReduceSumSquare", "ReduceMean", "ReduceSum")),
    ("ReduceSum", {"keepdims": 0}, [X, i(0, -1)]),
    ("ReduceSum", {"noop_with_empty_axes": 1}, [X]),
    ("Softmax", {"axis": 1}, [X]),
    ("ArgMax", {"axis": 1, "keepdims": 0}, [X]),
    ("TopK", {"axis": 1}, [X, i(2)]),
    ("Shape", {}, [X]),
    ("Shape", {"start": 1, "end": 2}, [X]),
    ("Reshape", {}, [X, i(0, -1, 2)]),
    ("Flatten", {"axis": 2}, [X]),
    ("Transpose", {"perm": [1, 2, 0]}, [X]),
    ("Transpose", {}, [X]),
    ("Unsqueeze", {}, [X, i(0, -1)]),
    ("Squeeze", {}, [f(2, 1, 3, 1), i(1)]),
    ("Squeeze", {}, [f(2, 1, 3, 1)]),
    ("Concat", {"axis": 1}, [X, f(2, 1, 4)]),
    ("Split", {"axis": 2}, [X, i(1, 3)]),
    ("Slice", {}, [X, i(1, 0), i(9, -1), i(1, 2)]),
    ("Slice", {}, [X, i(-1), i(-99), i(2), i(-2)]),
    ("Gather", {"axis": 1}, [X, i([0, -1], [2, 1])]),
    ("Gather", {}, [i(7, 8, 9), np.array(1)]),
    ("GatherElements", {"axis": 2}, [X, RNG.integers(0, 4, (2, 3, 2))]),
    ("GatherND", {}, [X, i([0, 1], [1, 2])]),
    ("ScatterElements", {"axis": 1}, [f(2, 5), i([0, 3], [4, 1]), f(2, 2)]),
    ("Expand", {}, [f(3, 1), i(2, 1, 4)]),
    ("Tile", {}, [f(2, 3), i(2, 1)]),
    ("Pad", {}, [X, i(0, 1, 0, 0, 0, 2), np.array(0.5, np.float32)]),
    ("Range", {}, [np.array(1), np.array(9), np.array(3)]),
    ("Trilu", {"upper": 0}, [f(4, 4), np.array(1)]),
    ("ConstantOfShape", {"value": helper.make_tensor("v", TensorProto.FLOAT, [1], [2.5])}, [i(2, 3)]),
]
FUSED: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("Gelu", {}, [X]),
    ("FastGelu", {}, [X, f(4)]),
    ("BiasGelu", {}, [X, f(4)]),
    ("QuickGelu", {"alpha": 1.702}, [X]),
    ("SkipLayerNormalization", {"epsilon": 1e-6}, [X, f(2, 3, 4), f(4), f(4), f(4)]),
    ("FusedMatMul", {"transB": 1, "alpha": 0.3}, [X, f(2, 5, 4)]),
    ("FusedConv", {"activation": "Relu", "kernel_shape": [3, 3]}, [PICTURE, f(3, 4, 3, 3), f(3)]),
    ("FusedGemm", {"activation": "LeakyRelu", "activation_alpha": 0.01}, [f(3, 4), f(4, 5), f(5)]),
    (
        "Attention",
        {"num_heads": 2},
        [f(2, 5, 8), f(8, 24) * 0.3, f(24), np.array([[1] * 5, [1, 1, 1, 0, 0]], np.int32)],
    ),
    ("Attention", {"num_heads": 2, "unidirectional": 1}, [f(2, 5, 8), f(8, 24) * 0.3, f(24)]),
]
CODES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("QuantizeLinear", {}, [X, scale(), zero(100)]),
    ("QuantizeLinear", {"axis": 2}, [X, per_channel(4), np.array([0, 3, -5, 9], np.int8)]),
    ("DequantizeLinear", {"axis": 0}, [s8(3, 4), per_channel(3), np.zeros(3, np.int8)]),
    ("DynamicQuantizeLinear", {}, [X[:1]]),
    (
        "QLinearConv",
        {"pads": [1, 1, 1, 1], "group": 2},
        [
            u8(2, 4, 7, 6),
            scale(),
            zero(),
            s8(6, 2, 3, 3),
            per_channel(6),
            np.zeros(6, np.int8),
            scale(0.1),
            zero(90),
            RNG.integers(-900, 900, 6).astype(np.int32),
        ],
    ),
    (
        "QLinearMatMul",
        {},
        [
            u8(2, 3, 4),
            scale(),
            zero(),
            u8(4, 5),
            per_channel(5),
            np.array([128] * 5, np.uint8),
            scale(0.05),
            zero(),
        ],
    ),
    ("MatMulInteger", {}, [u8(2, 3, 4), u8(4, 5), zero(9), zero(130)]),
    ("ConvInteger", {}, [u8(1, 2, 5, 5), u8(3, 2, 3, 3), zero(9), zero(130)]),
]
FUSED_CODES: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("QLinearAdd", {}, [u8(2, 3), scale(), zero(), u8(2, 3), scale(0.03), zero(7), scale(0.04), zero()]),
    ("QLinearMul", {}, [u8(2, 3), scale(), zero(), u8(2, 3), scale(0.03), zero(7), scale(0.04), zero()]),
    (
        "QLinearConcat",
        {"axis": 1},
        [scale(), zero(), u8(2, 3), scale(0.01), zero(5), u8(2, 2), scale(0.03), zero()],
    ),
    ("QLinearGlobalAveragePool", {}, [u8(2, 3, 4, 4), scale(), zero(), scale(0.01), zero(120)]),
    ("QLinearSigmoid", {}, [u8(2, 3), scale(), zero(), scale(1 / 256), zero(0)]),
    ("QLinearLeakyRelu", {"alpha": 0.1}, [u8(2, 3), scale(), zero(), scale(), zero()]),
    (
        "QGemm",
        {"transB": 1},
        [u8(2, 4), scale(), zero(), u8(5, 4), scale(), zero(), None, scale(0.05), zero()],
    ),
    ("QGemm", {}, [u8(2, 4), scale(), zero(), u8(4, 5), scale(), zero()]),
    (
        "MatMulIntegerToFloat",
        {},
        [u8(1, 3, 4), u8(4, 5), scale(), per_channel(5), zero(), np.array([128] * 5, np.uint8), f(5)],
    ),
    ("DynamicQuantizeMatMul", {}, [X[:1], u8(4, 5), per_channel(5), np.array([128] * 5, np.uint8), f(5)]),
]
EVERYTHING = [
    *((name, "", attributes, inputs) for name, attributes, inputs in CASES + CODES),
    *((name, MICROSOFT, attributes, inputs) for name, attributes, inputs in FUSED + FUSED_CODES),
]


def outputs_of(
    name: str, domain: str, attributes: dict[str, Any], inputs: list[Any], count: int
) -> list[Any]:
    """What onnxruntime makes of one node."""
    names = [f"x{n}" if given is not None else "" for n, given in enumerate(inputs)]
    node = helper.make_node(name, names, [f"y{n}" for n in range(count)], domain=domain, **attributes)
    given = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    types = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in given.items()
    ]
    results = [helper.make_empty_tensor_value_info(f"y{n}") for n in range(count)]
    graph = helper.make_graph([node], "one", types, results)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, given))


@pytest.mark.parametrize(
    ("name", "domain", "attributes", "inputs"),
    EVERYTHING,
    ids=[f"{n}-{case[0]}" for n, case in enumerate(EVERYTHING)],
)
def test_an_operator_gives_what_onnxruntime_gives(
    name: str, domain: str, attributes: dict[str, Any], inputs: list[Any]
) -> None:
    count = {"TopK": 2, "Split": 2, "DynamicQuantizeLinear": 3}.get(name, 1)
    expected = outputs_of(name, domain, attributes, inputs, count)
    given = {
        key: torch.from_numpy(np.array([2.5], np.float32)) if key == "value" else value
        for key, value in attributes.items()
    }
    if name == "FusedGemm":  # its activation's parameters are named otherwise
        given["activation_params"] = [given.pop("activation_alpha")]
    given["outputs"] = count
    if (place := ZERO_POINTS.get(name)) is not None and place < len(inputs):
        kind = np.iinfo(inputs[place].dtype)
        given["range"] = (kind.min, kind.max)
    tensors = [None if array is None else tensor(np.asarray(array)) for array in inputs]
    got = (OPERATORS.get(name) or QUANTISED[name])(given, tensors)
    got = got if isinstance(got, tuple) else (got,)
    for mine, theirs in zip(got, expected, strict=False):
        assert tuple(mine.shape) == theirs.shape or theirs.size == mine.numel() == 1
        whole = theirs.dtype in (np.uint8, np.int8)  # halves may be rounded either way
        np.testing.assert_allclose(
            mine.numpy().reshape(theirs.shape).astype(np.float64),
            theirs.astype(np.float64),
            atol=1 if whole else 2e-4,
            rtol=1e-4,
        )
        if whole:
            assert np.mean(mine.numpy() != theirs) < 0.05


def test_every_operator_is_compared() -> None:
    assert {case[0] for case in EVERYTHING} == set(OPERATORS) | set(QUANTISED)


def test_rounding_has_the_gradient_of_the_identity() -> None:
    x = torch.tensor([0.4, 1.6, -2.5], requires_grad=True)
    y = rounded(x)
    assert y.tolist() == [0.0, 2.0, -2.0]
    (y * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 3.0]
