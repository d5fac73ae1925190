"""From torch modules to small ONNX graphs that give the same vectors on every processor.

Two traps decide the choices here. Processors without VNNI add pairs of u8 x s8 products in 16 bits, which saturates:
static int8 convolutions therefore use 7-bit weights (`reduce_range`), and the text tower's dynamic int8 products use
unsigned weights, whose kernels have no such step. And a graph that onnxruntime must first optimise costs a cold query
more than the query itself: graphs are saved already optimised, at the level that is not bound to a processor.
"""

import itertools
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

Floats = NDArray[np.float32]

OPSET = 17
HALF_FROM = 10_000  # float weights with more elements than this are stored as float16


def session(path: Path, threads: int = 2) -> onnxruntime.InferenceSession:
    """An onnxruntime CPU session that does not spin while it waits."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def export_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: list[str],
    output: str,
    axes: dict[int, str],
    path: Path,
    **others: dict[int, str],
) -> None:
    """Trace `module` into an ONNX file; `axes` names the dynamic axes of every input but those that have `others`, the
    output's first is ``n``.
    """
    dynamic = dict.fromkeys(inputs, axes) | others | {output: {0: "n"}}
    module.eval()  # the exporter restores the mode it found, and a fresh wrapper is in training mode
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the tracing exporter is deprecated; its graphs quantise without surprises
        torch.onnx.export(
            module,
            example,
            str(path),  # with a Path it does not know where to put weights beyond 2 GiB
            input_names=inputs,
            output_names=[output],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )


class _Calibration(CalibrationDataReader):
    def __init__(self, pictures: Iterable[NDArray[np.uint8]]) -> None:
        self._feeds: Iterator[NDArray[np.uint8]] = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        picture = next(self._feeds, None)
        return None if picture is None else {"pixels": picture[None]}


def quantise_convolutions(source: Path, target: Path, pictures: Iterable[NDArray[np.uint8]]) -> None:
    """Static QDQ int8, per channel, 7-bit weights; `pictures` are (size, size, 3) uint8 and set the ranges."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(target),
            _Calibration(pictures),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def quantise_products(source: Path, target: Path) -> None:
    """Dynamic int8 of every constant matrix product, per channel, unsigned weights."""
    quantize_dynamic(
        str(source),
        str(target),
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QUInt8,
    )


def chain(first: Path, second: Path, target: Path) -> None:
    """Feed the only output of one graph to the only input of the next."""
    front, back = onnx.load(first), onnx.load(second)
    back = compose.add_prefix(back, "head/", rename_inputs=False, rename_outputs=False)
    joint = (front.graph.output[0].name, back.graph.input[0].name)
    onnx.save(compose.merge_models(front, back, io_map=[joint]), target)


def append_head(
    source: Path,
    target: Path,
    output: str,
    layers: Sequence[tuple[Floats, Floats]],
    *,
    residual: bool = True,
) -> None:
    """Put a head behind the output of a graph: unit(v + f(v)) with v the unit vectors (n, d) it gave; without
    ``residual`` unit(f(v)), which may have another width.

    layers: weight (inputs, outputs) and bias (outputs,) of one or two linear maps, with GELU between two. Written with
    operators that mean the same in every opset from 13 on, so that the graph keeps its own. A graph may get several,
    one behind the other.
    """
    model = onnx.load(source)
    graph = model.graph
    known = {name for given in graph.node for name in given.output}
    number = next(n for n in itertools.count(1) if f"{output}/head{n}/base" not in known)
    own = f"{output}/head{number}"
    base = f"{own}/base"
    for given in graph.node:
        for names in (given.input, given.output):
            for n, name in enumerate(names):
                if name == output:
                    names[n] = base

    def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        graph.node.append(
            helper.make_node(kind, inputs, [name], name=f"{own}/node{len(graph.node)}", **attributes)
        )
        return name

    def constant(values: object, name: str) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        return name

    unit = x = node("LpNormalization", [base], f"{own}/unit", axis=1, p=2)
    for place, (weight, bias) in enumerate(layers):
        if place:  # GELU in its exact form
            scaled = node("Mul", [x, constant(np.sqrt(0.5), f"{own}/root")], f"{own}/scaled")
            erf = node("Erf", [scaled], f"{own}/erf")
            above = node("Add", [erf, constant(1.0, f"{own}/one")], f"{own}/above")
            halved = node("Mul", [x, constant(0.5, f"{own}/half")], f"{own}/halved")
            x = node("Mul", [halved, above], f"{own}/gelu")
        product = node("MatMul", [x, constant(weight, f"{own}/weight{place}")], f"{own}/product{place}")
        x = node("Add", [product, constant(bias, f"{own}/bias{place}")], f"{own}/layer{place}")
    moved = node("Add", [unit, x], f"{own}/moved") if residual else x
    node("LpNormalization", [moved], output, axis=1, p=2)
    for given in graph.output:
        if given.name == output and (shape := given.type.tensor_type.shape.dim):
            shape[-1].dim_value = layers[-1][0].shape[1]
    onnx.save(model, target)


def optimise(source: Path, target: Path) -> None:
    """Save what onnxruntime makes of the graph at the extended level: fused, but not laid out for one processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def store_half(path: Path) -> None:
    """Rewrite large float32 constants as float16 with a cast, which onnxruntime folds when it loads the graph."""
    model = onnx.load(path)
    halve(model)
    onnx.save(model, path)


def halve(model: onnx.ModelProto) -> None:
    """`store_half` of a graph in memory. What is looked up in a table is cast afterwards, so that the table stays small
    in memory as well. A constant beyond the range of float16 stays as it is.
    """
    graph = model.graph
    casts: list[onnx.NodeProto] = []
    for constant in list(graph.initializer):
        if constant.data_type != TensorProto.FLOAT or np.prod(constant.dims) < HALF_FROM:
            continue
        name = constant.name
        values = numpy_helper.to_array(constant)
        if np.abs(values).max() > np.finfo(np.float16).max:
            continue
        users = [node for node in graph.node if name in node.input]
        graph.initializer.remove(constant)
        graph.initializer.append(numpy_helper.from_array(values.astype(np.float16), f"{name}/half"))
        if all(node.op_type == "Gather" and node.input[0] == name for node in users):
            for node in users:
                node.input[0], given = f"{name}/half", node.output[0]
                node.output[0] = f"{given}/half"
                cast = helper.make_node(
                    "Cast", [node.output[0]], [given], f"{given}/cast", to=TensorProto.FLOAT
                )
                graph.node.insert(list(graph.node).index(node) + 1, cast)
            continue
        casts.append(helper.make_node("Cast", [f"{name}/half"], [name], f"{name}/cast", to=TensorProto.FLOAT))
    for cast in reversed(casts):
        graph.node.insert(0, cast)


LARGEST = 1_900_000_000
"""Bytes of weights from which on a graph's are in a file beside it: protobuf ends at 2 GiB."""


def save(model: onnx.ModelProto, path: Path) -> bool:
    """Write a graph; returns whether its weights are too large for one file and lie in ``<name>.data`` beside it. They
    are then taken out of `model`.
    """
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)  # onnx would append to it
    large = sum(len(one.raw_data) for one in model.graph.initializer) > LARGEST
    if large:
        onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside.name)
    else:
        onnx.save(model, path)
    return large


class RowInt8(nn.Module):
    """An embedding table stored as int8 with one scale per row; looks up (n, length) ids."""

    codes: Tensor
    scales: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scales = table.abs().amax(1, keepdim=True) / 127
        self.register_buffer("codes", (table / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, ids: Tensor) -> Tensor:
        return self.codes[ids].float() * self.scales[ids]
