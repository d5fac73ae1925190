"""Int8 products of matrices in ONNX graphs, whose activations are scaled row by row.

A row (a token) is divided by its largest absolute value and becomes bytes around 128. So a vector does not depend on
its neighbours in a batch, as it does where onnxruntime itself quantises dynamically and scales the whole tensor, and
one large token does not cost the others their digits (Yao et al. 2022, "ZeroQuant"). With MiniLM's weights the smallest
cosine of 128 captions is .995, onnxruntime's gives .991 (both with 7 bits of weights).

Weights are scaled by output channel and have 7 bits: processors without VNNI add pairs of products in 16 bits, which 8
bits overflow, so that vectors would differ from machine to machine.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from mmsearch.training.export import save

BYTE, ZERO = 127, 128
WEIGHT = 63
TINY = 1e-12  # what a row of zeros is divided by
TABLE = 1000  # rows from which on a table of embeddings is stored as int8


def products(model: ModelProto) -> dict[str, int]:
    """Node -> number of weights, of the products with a constant matrix. Nodes get names if they have none."""
    matrices = {one.name: one.dims for one in model.graph.initializer if len(one.dims) == 2}
    found = {}
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}{number}"
        if node.op_type == "MatMul" and node.input[1] in matrices:
            found[node.name] = int(np.prod(matrices[node.input[1]]))
    return found


def weights(model: ModelProto) -> int:
    """Number of all weights but those in tables that are only looked up."""
    looked_up = {node.input[0] for node in model.graph.node if node.op_type == "Gather"}
    return sum(int(np.prod(one.dims)) for one in model.graph.initializer if one.name not in looked_up)


def errors(model: ModelProto, feeds: Mapping[str, NDArray[Any]], scratch: Path) -> dict[str, float]:
    """Node -> how far its int8 product is from the true one, relative to that, for these inputs of the graph.
    `scratch` is a file to write to; `model` is used up.
    """
    known = products(model)
    nodes = {node.name: node for node in model.graph.node if node.name in known}
    matrices = _matrices(model, nodes.values())
    wanted = list(dict.fromkeys(node.input[0] for node in nodes.values()))
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    save(model, scratch)
    session = onnxruntime.InferenceSession(scratch, options, providers=["CPUExecutionProvider"])
    inputs = dict(zip(wanted, session.run(wanted, dict(feeds)), strict=True))
    found = {}
    for name, node in nodes.items():
        matrix = matrices[node.input[1]]
        x = inputs[node.input[0]].reshape(-1, len(matrix))
        codes, scales = quantised(matrix)
        rows = np.maximum(np.abs(x).max(axis=1, keepdims=True), TINY)
        rounded = np.rint(x / rows * BYTE) * (rows / BYTE)
        true = x @ matrix
        distance = np.linalg.norm(rounded @ (codes * scales) - true)
        found[name] = float(distance) / max(float(np.linalg.norm(true)), TINY)
    return found


def quantised(matrix: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes (k, n) within ±63 and one scale for each column (n,)."""
    scales = np.maximum(np.abs(matrix).max(axis=0), TINY).astype(np.float32) / np.float32(WEIGHT)
    return np.rint(matrix / scales).astype(np.int8), scales


def quantise(model: ModelProto, exact: Collection[str] = ()) -> None:
    """Make the products with a constant matrix int8, but those of the nodes `exact`, and the tables of embeddings."""
    chosen = products(model).keys() - set(exact)
    nodes = [node for node in model.graph.node if node.name in chosen]
    matrices = _matrices(model, nodes)
    constants: dict[str, Any] = {
        "int8/tiny": np.float32(TINY),
        "int8/scale": np.float32(1 / BYTE),
        "int8/zero": np.uint8(ZERO),
    }
    by_name = {node.name: node for node in nodes}
    written: list[NodeProto] = []
    coded: set[str] = set()
    for node in model.graph.node:
        if node.name not in by_name:
            written.append(node)
            continue
        x, name = node.input[0], f"{node.name}/int8"
        codes, scales = quantised(matrices[node.input[1]])
        constants |= {
            f"{name}/codes": codes,
            f"{name}/scales": scales,
            f"{name}/zeros": np.zeros_like(scales, np.int8),
        }
        if x not in coded:  # several products may take the same input
            coded.add(x)
            written += _coding(x)
        factors = [
            f"{x}/bytes",
            f"{name}/codes",
            "int8/scale",
            f"{name}/scales",
            "int8/zero",
            f"{name}/zeros",
        ]
        written.append(
            helper.make_node(
                "MatMulIntegerToFloat", factors, [f"{name}/product"], name, domain="com.microsoft"
            )
        )
        written.append(
            helper.make_node("Mul", [f"{name}/product", f"{x}/row"], [node.output[0]], f"{name}/scaled")
        )
    _replace(model, written, constants)
    _quantise_tables(model)
    if not any(known.domain == "com.microsoft" for known in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _coding(x: str) -> list[NodeProto]:
    """The nodes that make bytes of the rows of x."""
    return [
        helper.make_node("Abs", [x], [f"{x}/absolute"], f"{x}/absolute"),
        helper.make_node(
            "ReduceMax", [f"{x}/absolute"], [f"{x}/largest"], f"{x}/largest", axes=[-1], keepdims=1
        ),
        helper.make_node("Max", [f"{x}/largest", "int8/tiny"], [f"{x}/row"], f"{x}/row"),
        helper.make_node("Div", [x, f"{x}/row"], [f"{x}/unit"], f"{x}/unit"),
        helper.make_node(
            "QuantizeLinear", [f"{x}/unit", "int8/scale", "int8/zero"], [f"{x}/bytes"], f"{x}/bytes"
        ),
    ]


def _quantise_tables(model: ModelProto) -> None:
    """Tables that rows are looked up in, as int8 with a scale for each row."""
    tables = {
        one.name: one
        for one in model.graph.initializer
        if len(one.dims) == 2 and one.dims[0] >= TABLE and one.data_type == TensorProto.FLOAT
    }
    written: list[NodeProto] = []
    constants: dict[str, Any] = {}
    for node in model.graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables or _axis(node) != 0:
            written.append(node)
            continue
        table, ids = node.input
        values = numpy_helper.to_array(tables[table])
        scales = np.maximum(np.abs(values).max(axis=1, keepdims=True), TINY) / np.float32(BYTE)
        constants |= {f"{table}/codes": np.rint(values / scales).astype(np.int8), f"{table}/scales": scales}
        own = f"{node.output[0]}/int8"
        written += [
            helper.make_node("Gather", [f"{table}/codes", ids], [f"{own}/codes"], f"{own}/codes"),
            helper.make_node(
                "Cast", [f"{own}/codes"], [f"{own}/floats"], f"{own}/floats", to=TensorProto.FLOAT
            ),
            helper.make_node("Gather", [f"{table}/scales", ids], [f"{own}/scales"], f"{own}/scales"),
            helper.make_node("Mul", [f"{own}/floats", f"{own}/scales"], [node.output[0]], own),
        ]
    _replace(model, written, constants)


def _axis(node: NodeProto) -> int:
    return next((one.i for one in node.attribute if one.name == "axis"), 0)


def _matrices(model: ModelProto, nodes: Collection[NodeProto]) -> dict[str, NDArray[np.float32]]:
    wanted = {node.input[1] for node in nodes}
    return {
        one.name: numpy_helper.to_array(one).astype(np.float32)
        for one in model.graph.initializer
        if one.name in wanted
    }


def _replace(model: ModelProto, nodes: list[NodeProto], constants: Mapping[str, Any]) -> None:
    """Give the graph other nodes and more constants, and take away those that nothing uses any more."""
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for name, values in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    used = {name for node in kept for name in node.input} | {one.name for one in model.graph.output}
    for one in [one for one in model.graph.initializer if one.name not in used]:
        model.graph.initializer.remove(one)
