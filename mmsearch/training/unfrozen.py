"""The last layers of a tower as a torch module that learns, and their way back into the graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn
from torch.nn.functional import normalize

from mmsearch.errors import ModelError
from mmsearch.training.cut import Cut, Weight
from mmsearch.training.operators import OPERATORS, rounded
from mmsearch.training.quantised import QUANTISED


class UnfrozenTower(nn.Module):
    """What lies behind a cut: tensors that come in there -> vectors (n, d).

    What is trained of each weight is its difference to the base, so that weight decay pulls back to the base (Li et
    al. 2018, "Explicit Inductive Bias for Transfer Learning"). Weights that are stored as codes are rounded to them on
    the way, each with the scale of the base: what is measured here is what the written graph gives.
    """

    def __init__(self, cut: Cut) -> None:
        super().__init__()
        self.cut = cut
        self.differences = nn.ParameterList(torch.zeros_like(weight.base) for weight in cut.weights)
        self._weights = [_Base(weight) for weight in cut.weights]
        for number, base in enumerate(self._weights):
            self.add_module(f"base{number}", base)
        self._functions: list[tuple[onnx.NodeProto, Any, dict[str, Any]]] = []
        self._constants = _Constants()
        known: dict[str, Tensor] = dict(cut.constants)
        learned = {weight.name for weight in cut.weights}
        for node in cut.nodes:
            function = OPERATORS.get(node.op_type) or QUANTISED[node.op_type]
            attributes = _attributes(node) | {"range": cut.ranges.get(node.output[0])}
            if all(name == "" or name in known for name in node.input) and not learned.intersection(
                node.input
            ):
                _store(known, node, self._run(node, function, attributes, known))
            else:
                self._functions.append((node, function, attributes))
        used = {name for node, _, _ in self._functions for name in node.input}
        self._constants.take({name: value for name, value in known.items() if name in used})

    def forward(self, given: Mapping[str, Tensor]) -> Tensor:
        """given: what comes in, row by row: (n, ...) each. Returns unit rows. Raises ``ModelError`` if a node fails."""
        values: dict[str, Any] = {**self._constants.values(), **given}
        for weight, difference, base in zip(self.cut.weights, self.differences, self._weights, strict=True):
            values[weight.name] = base(difference)
        for node, function, attributes in self._functions:
            _store(values, node, self._run(node, function, attributes, values))
        return normalize(values[self.cut.output].float(), dim=1)

    def _run(
        self, node: onnx.NodeProto, function: Any, attributes: Mapping[str, Any], values: Mapping[str, Any]
    ) -> Any:
        try:
            return function(attributes, [values[name] if name else None for name in node.input])
        except (RuntimeError, NotImplementedError, KeyError, IndexError, ValueError, TypeError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            raise ModelError(
                f"{self.cut.file}: the operator {node.op_type} ({node.name or node.output[0]}) cannot be trained "
                f"({error}). Give a lower --unfreeze, or train a head (--head)"
            ) from error

    def write(self, target: Path) -> None:
        """Write the graph of the base with the weights as they are now, each stored as the base stores it."""
        model = onnx.load(self.cut.file)
        stored = {given.name: given for given in model.graph.initializer}
        inline = {
            node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"
        }
        behind = {name for node in self.cut.nodes for name in node.output}
        for weight, difference, base in zip(self.cut.weights, self.differences, self._weights, strict=True):
            old = stored.get(weight.name, inline.get(weight.name))
            if old is None:
                raise ValueError(f"{weight.name} is no constant of the graph")
            with torch.no_grad():
                values = base(difference).cpu().numpy()
            if weight.scale is not None:
                values = np.rint(values)
            name = weight.name
            users = [node for node in model.graph.node if name in node.input]
            if any(node.output[0] not in behind for node in users):  # shared with what is frozen
                name = f"{name}/trained"
                for node in users:
                    if node.output[0] in behind:
                        node.input[:] = [name if given == weight.name else given for given in node.input]
                model.graph.initializer.append(_constant(values, old, name))
            else:
                old.CopyFrom(_constant(values, old, old.name))
        onnx.save(model, target)


class _Base(nn.Module):
    """A weight of the base, and what it is with a difference: a number, or a code, as the graph takes it."""

    def __init__(self, weight: Weight) -> None:
        super().__init__()
        self.limits = weight.limits
        for name, value in (("base", weight.base), ("scale", weight.scale), ("zero", weight.zero)):
            self.register_buffer(name, value, persistent=False)

    def forward(self, difference: Tensor) -> Any:
        whole: Any = self.base + difference
        if self.scale is None:
            return whole
        code = rounded(whole / self.scale) + self.zero
        return code if self.limits is None else code.clamp(*self.limits)


class _Constants(nn.Module):
    """Constants under the names of the graph. Whole numbers stay on the CPU: they are shapes and indices."""

    def take(self, given: Mapping[str, Tensor]) -> None:
        self._names = {f"constant{number}": name for number, name in enumerate(given)}
        self._ints = {}
        for own, name in self._names.items():
            if given[name].is_floating_point():
                self.register_buffer(own, given[name], persistent=False)
            else:
                self._ints[name] = given[name]

    def values(self) -> dict[str, Tensor]:
        buffers = dict(self.named_buffers())
        return {self._names[own]: value for own, value in buffers.items()} | self._ints


def _store(values: dict[str, Any], node: onnx.NodeProto, found: Any) -> None:
    outputs = found if isinstance(found, tuple) else (found,)
    values.update((name, value) for name, value in zip(node.output, outputs, strict=False) if name)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found: dict[str, Any] = {"outputs": len(node.output)}
    for attribute in node.attribute:
        value: Any = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif isinstance(value, onnx.TensorProto):
            value = torch.from_numpy(numpy_helper.to_array(value).copy())
        found[attribute.name] = value
    return found


def _constant(values: Any, old: onnx.TensorProto, name: str) -> onnx.TensorProto:
    kind = helper.tensor_dtype_to_np_dtype(old.data_type)
    return numpy_helper.from_array(np.ascontiguousarray(values.astype(kind)), name)
