"""Where a tower's graph is cut so that its last layers can be trained: what lies behind, comes in there, and learns.

A layer is a node with a weight matrix of its own: a convolution or a matrix product. The last N layers are those with
at most N layers on the longest way from them to the vectors, themselves counted, so that layers side by side (queries,
keys and values, say) count once. Behind the cut lies all that depends on them.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import NodeProto, numpy_helper
from torch import Tensor

from mmsearch.errors import ModelError
from mmsearch.training.operators import OPERATORS
from mmsearch.training.quantised import QUANTISED, ZERO_POINTS

Array = NDArray[Any]

PASSING = {"Cast", "Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "DequantizeLinear"}
"""What may stand between a stored weight and its layer."""

SPREAD = 0.05  # usual for the numbers of a layer, where a graph does not tell the scale of its codes


@dataclasses.dataclass(frozen=True)
class Stored:
    """How a constant that learns is stored: the inputs of its node that make its scale (their product) and its zero
    point, and the axis of both if they have a number for each channel.
    """

    place: int
    scale: tuple[int, ...] = ()
    zero: int | None = None
    axis: int = 0


MATRICES: dict[str, tuple[Stored, ...]] = {
    "Conv": (Stored(1),),
    "FusedConv": (Stored(1),),
    "Gemm": (Stored(1),),
    "FusedGemm": (Stored(1),),
    "MatMul": (Stored(0), Stored(1)),
    "FusedMatMul": (Stored(0), Stored(1)),
    "Attention": (Stored(1),),
    "QLinearConv": (Stored(3, (4,), 5, 0),),
    "QLinearMatMul": (Stored(3, (4,), 5, -1),),
    "QGemm": (Stored(3, (4,), 5, 0),),
    "MatMulInteger": (Stored(1, (), 3, -1),),
    "ConvInteger": (Stored(1, (), 3, 0),),
    "MatMulIntegerToFloat": (Stored(1, (3,), 5, -1),),
    "DynamicQuantizeMatMul": (Stored(1, (2,), 3, -1),),
}
"""What makes a node a layer."""

VECTORS: dict[str, tuple[Stored, ...]] = {
    "Conv": (Stored(2),),
    "FusedConv": (Stored(2),),
    "Gemm": (Stored(2),),
    "FusedGemm": (Stored(2),),
    "Attention": (Stored(2),),
    "QLinearConv": (Stored(8, (1, 4)),),
    "QGemm": (Stored(6, (1, 4)),),
    "MatMulIntegerToFloat": (Stored(6),),
    "DynamicQuantizeMatMul": (Stored(4),),
    "BiasGelu": (Stored(1),),
    "FastGelu": (Stored(1),),
    "LayerNormalization": (Stored(1), Stored(2)),
    "SimplifiedLayerNormalization": (Stored(1),),
    "SkipLayerNormalization": (Stored(2), Stored(3), Stored(4)),
    "BatchNormalization": (Stored(1), Stored(2)),
    "Add": (Stored(0), Stored(1)),
    "Mul": (Stored(0), Stored(1)),
}
"""What learns with the layers: biases and gains. A single number does not."""


@dataclasses.dataclass(frozen=True)
class Weight:
    """A constant that learns. ``base`` (float32) is what it stands for in the base model.

    Of one that is stored as codes, base = (code - zero) * scale, with codes within ``limits``.
    """

    name: str
    base: Tensor
    scale: Tensor | None = None
    zero: Tensor | None = None
    limits: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Cut:
    """The part of a tower's graph that learns: its nodes in order, the tensors that come into it, and its constants."""

    file: Path
    nodes: Sequence[NodeProto]
    inputs: Sequence[str]
    output: str
    weights: Sequence[Weight]
    constants: Mapping[str, Tensor]
    ranges: Mapping[str, tuple[int, int]]
    """First output of a node that quantises -> the range of its codes."""
    depth: int
    layers: int
    """So many of the tower's layers learn."""


def cut(file: Path, output: str, depth: int) -> Cut:
    """Cut the graph in ``file`` so that the last ``depth`` layers before its output learn.

    Raises ``ModelError`` if it has fewer layers one behind another, or an operator behind the cut that cannot be
    trained.
    """
    graph = _Graph(file, output)
    heights = graph.heights()
    deepest = max(heights.values(), default=0)
    if deepest < depth:
        have = f"only {deepest} layers one behind another" if deepest else "no layer with weights of its own"
        raise ModelError(
            f"{file}: the tower has {have}, so the last {depth} cannot be trained. Give a lower --unfreeze"
        )
    layers = {n for n, height in heights.items() if graph.is_layer(n) and height <= depth}
    behind = graph.behind(layers)
    nodes = [graph.nodes[n] for n in sorted(behind)]
    for node in nodes:
        if node.op_type not in OPERATORS and node.op_type not in QUANTISED:
            raise ModelError(
                f"{file}: the operator {node.op_type} ({node.name or node.output[0]}) among the last {depth} layers "
                "cannot be trained. Give a lower --unfreeze, or train a head (--head)"
            )
    weights = graph.weights(nodes)
    learned = {weight.name for weight in weights}
    used = {name for node in nodes for name in node.input}
    return Cut(
        file,
        nodes,
        graph.coming_in(behind),
        output,
        weights,
        {name: tensor(graph.constants[name]) for name in used & set(graph.constants) - learned},
        graph.ranges(nodes),
        depth,
        len(layers),
    )


def tensor(array: Array) -> Tensor:
    """A constant, or what comes in at the cut, as the operators take it: int64 and bool stay, the rest is float32."""
    if array.dtype in (np.int64, np.bool_):
        return torch.from_numpy(array.copy())
    return torch.from_numpy(array.astype(np.float32))


class _Graph:
    """The nodes of a graph that its output depends on."""

    def __init__(self, file: Path, output: str) -> None:
        self.file = file
        model = onnx.load(file)
        self.constants = {given.name: numpy_helper.to_array(given) for given in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        everything = [node for node in model.graph.node if node.output[0] not in self.constants]
        makers = {name: node for node in everything for name in node.output}
        wanted, open_ = set(), [output]
        while open_:
            name = open_.pop()
            if name in makers and name not in wanted:
                wanted.update(makers[name].output)
                open_ += makers[name].input
        self.nodes = [node for node in everything if wanted.intersection(node.output)]
        self.makers = {name: n for n, node in enumerate(self.nodes) for name in node.output}
        self.fixed = set(self.constants) | {""}
        for node in self.nodes:
            if all(name in self.fixed for name in node.input):
                self.fixed.update(node.output)

    def is_layer(self, n: int) -> bool:
        node = self.nodes[n]
        return node.output[0] not in self.fixed and any(
            (root := self.root(node, place.place)) is not None and self.constants[root].ndim > 1
            for place in MATRICES.get(node.op_type, ())
        )

    def root(self, node: NodeProto, place: int) -> str | None:
        """The constant that an input of a node comes from."""
        name = node.input[place] if place < len(node.input) else ""
        while name in self.makers and self.nodes[self.makers[name]].op_type in PASSING:
            name = self.nodes[self.makers[name]].input[0]
        return name if name in self.constants else None

    def heights(self) -> dict[int, int]:
        """Of each node the number of layers on the longest way from it to the output, itself counted."""
        below: dict[str, int] = {}
        heights = {}
        for n in reversed(range(len(self.nodes))):
            node = self.nodes[n]
            heights[n] = max((below.get(name, 0) for name in node.output), default=0) + self.is_layer(n)
            for name in node.input:
                below[name] = max(below.get(name, 0), heights[n])
        return heights

    def behind(self, layers: set[int]) -> set[int]:
        """The layers, what depends on them, and what is cheaper to make anew than to keep: what follows without a layer
        from inputs of the graph or from what comes in anyway, and what follows from constants alone.
        """
        found: set[int] = set()
        moved: set[str] = set()
        for n, node in enumerate(self.nodes):
            if n in layers or moved.intersection(node.input):
                found.add(n)
                moved.update(node.output)
        grown = True
        while grown:
            before = len(found)
            for name in self.coming_in(found, fixed=True):
                found |= self._cheap(name, set(self.coming_in(found)) - {name})
            grown = len(found) > before
        return found

    def _cheap(self, name: str, there: set[str]) -> set[int]:
        """The nodes that make a tensor from those that are there and from inputs; none if it takes a layer."""
        found: set[int] = set()
        open_ = [name]
        while open_:
            made = self.makers.get(open_.pop())
            if made is None or made in found:
                continue
            if self.is_layer(made):
                return set()
            found.add(made)
            open_ += [given for given in self.nodes[made].input if given not in there]
        return found

    def coming_in(self, behind: set[int], *, fixed: bool = False) -> list[str]:
        """What nodes take from before the cut; ``fixed``: also what follows from constants alone."""
        names = dict.fromkeys(name for n in sorted(behind) for name in self.nodes[n].input)
        made = {name for n in behind for name in self.nodes[n].output}
        without = set(self.constants) | {""} if fixed else self.fixed
        return [name for name in names if name not in made and name not in without]

    def weights(self, nodes: Sequence[NodeProto]) -> list[Weight]:
        """The constants that learn; one that is stored in several nodes' places learns as one."""
        found: dict[str, Weight] = {}
        for node in nodes:
            if node.output[0] in self.fixed:
                continue
            for place in (*MATRICES.get(node.op_type, ()), *VECTORS.get(node.op_type, ())):
                root = self.root(node, place.place)
                if root is None or root in found or self.constants[root].size == 1:
                    continue
                if (weight := self._weight(node, place, root)) is not None:
                    found[root] = weight
        return list(found.values())

    def _weight(self, node: NodeProto, place: Stored, root: str) -> Weight | None:
        stored = self.constants[root]
        scale, zero, axis = [node.input[n] for n in place.scale], place.zero, place.axis
        zeros = node.input[zero] if zero is not None and zero < len(node.input) else ""
        name = node.input[place.place]
        while name != root:  # through what stands between
            between = self.nodes[self.makers[name]]
            if between.op_type == "DequantizeLinear":
                scale, zeros = [between.input[1]], between.input[2] if len(between.input) > 2 else ""
                axis = next((a.i for a in between.attribute if a.name == "axis"), 1)
            name = between.input[0]
        if stored.dtype in (np.float16, np.float32, np.float64):
            return Weight(root, tensor(stored))
        if stored.dtype not in (np.int8, np.uint8, np.int32) or not {*scale, zeros} <= set(self.constants) | {
            ""
        }:
            return None
        codes = tensor(stored)
        zero_point = _along(codes, self.constants[zeros], axis) if zeros else torch.zeros(())
        if scale:
            factor = torch.ones(())
            for one in scale:
                factor = factor * _along(codes, self.constants[one], axis)
        else:
            factor = SPREAD / (codes - zero_point).std()
        return Weight(root, (codes - zero_point) * factor, factor, zero_point, _limits(stored))

    def ranges(self, nodes: Sequence[NodeProto]) -> dict[str, tuple[int, int]]:
        found = {}
        for node in nodes:
            place = ZERO_POINTS.get(node.op_type)
            if place is not None:
                zero = self.constants.get(node.input[place]) if place < len(node.input) else None
                kind = np.iinfo(np.uint8 if zero is None else zero.dtype)
                found[node.output[0]] = (int(kind.min), int(kind.max))
        return found


def _along(codes: Tensor, values: Array, axis: int) -> Tensor:
    flat = tensor(np.asarray(values)).flatten()
    if len(flat) == 1:
        return flat.reshape(())
    shape = [1] * codes.dim()
    shape[axis] = -1
    return flat.reshape(shape)


def _limits(stored: Array) -> tuple[int, int] | None:
    """The range that codes may take. Signed ones keep to that of the base: beyond 7 bits the sums of processors without
    VNNI would saturate.
    """
    if stored.dtype == np.uint8:
        return (0, 255)
    if stored.dtype == np.int8:
        most = int(np.abs(stored.astype(np.int16)).max())
        return (-most, min(most, 127))
    return None
