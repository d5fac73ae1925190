"""The teacher of the audio tower, for training only: YAMNet (Apache-2.0), read out of its ``.tflite`` file into torch.

In torch it runs on batches and gives every layer's features, which the student learns to reproduce; the interpreter
gives one patch at a time and the scores alone. Nothing of it is in the shipped tower.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import pad

FRAMES, BANDS = 96, 64
CLASSES = 521


class Convolution(nn.Module):
    """A convolution with TensorFlow's ``SAME`` padding, bias included; weights (out, in / groups, 3 or 1, 3 or 1)."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, groups: int) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.stride, self.groups, self.size = stride, groups, weight.shape[2]

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 2:  # an even side: nothing before, one after
            x = pad(x, (0, 1, 0, 1))
        padding = 1 if self.size == 3 and self.stride == 1 else 0
        return torch.conv2d(x, self.weight, self.bias, self.stride, padding, groups=self.groups)


class Teacher(nn.Module):
    """Log-mel patches (n, 1, 96, 64) -> the output of the 14 layers before their last ReLU, then logits (n, 521)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        convolutions, (weight, bias) = read_layers(path)
        stem, pairs = convolutions[0], convolutions[1:]
        self.layers = nn.ModuleList([stem])
        for depthwise, pointwise in zip(pairs[::2], pairs[1::2], strict=True):
            self.layers.append(nn.Sequential(depthwise, nn.ReLU(), pointwise))
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, patches: Tensor) -> tuple[list[Tensor], Tensor]:
        features, x = [], patches
        with torch.no_grad():
            for layer in self.layers:
                x = layer(x)
                features.append(x)
                x = torch.relu(x)
            return features, x.mean((2, 3)) @ self.weight.T + self.bias


def read_layers(path: Path) -> tuple[list[Convolution], tuple[Tensor, Tensor]]:
    """The convolutions in order and the last product's weight (521, 1024) and bias (521,), all float32.

    The file keeps most weights as int8 with one scale per tensor.
    """
    interpreter, operations = _open(path)
    tensors = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}

    def constant(index: int) -> Tensor:
        values: NDArray[Any] = interpreter.get_tensor(index)
        if values.dtype == np.int8:
            scales, zeros = tensors[index]["quantization"]
            values = (values.astype(np.float32) - zeros) * scales
        return torch.from_numpy(np.array(values, np.float32))

    sources = {op["outputs"][0]: op["inputs"][0] for op in operations if op["op_name"] == "DEQUANTIZE"}
    found: list[Convolution] = []
    last: tuple[Tensor, Tensor] | None = None
    for op in operations:
        if op["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            continue
        source, weight_index, bias_index = op["inputs"]
        if op["op_name"] == "FULLY_CONNECTED":
            if tuple(tensors[weight_index]["shape"]) == (CLASSES, 1024):
                last = constant(weight_index), constant(bias_index)
            continue
        weight = constant(sources.get(weight_index, weight_index))
        depthwise = op["op_name"] == "DEPTHWISE_CONV_2D"
        # (out, 3, 3, in), and for a depthwise one (1, 3, 3, channels)
        weight = weight.permute(3, 0, 1, 2) if depthwise else weight.permute(0, 3, 1, 2)
        before, after = (tensors[index]["shape"][1] for index in (source, op["outputs"][0]))
        found.append(
            Convolution(
                weight, constant(bias_index), int(before) // int(after), weight.shape[0] if depthwise else 1
            )
        )
    if last is None:
        raise ValueError(f"{path}: holds no product with {CLASSES} classes; is it YAMNet?")
    return found, last


def interpreted_scores(path: Path, patch: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the file itself gives for 15,600 samples: scores (521,) and log-mel patch (96, 64)."""
    interpreter, _ = _open(path)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], patch[None])
    interpreter.invoke()
    scores, mel = (interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details())
    return scores[0], mel


def _open(path: Path) -> tuple[Any, list[dict[str, Any]]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    return interpreter, interpreter._get_ops_details()
