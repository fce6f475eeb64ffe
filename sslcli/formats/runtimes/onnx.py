"""`format=onnx`: a graph of ONNX with the metadata inside, compared in onnxruntime."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sslcli.errors import MachineError
from sslcli.formats.export import TrainedModel
from sslcli.formats.runtimes.base import SHARED, RuntimeFormat, inputs, metadata
from sslcli.formats.runtimes.torch_export import program
from sslcli.formats.runtimes.usage import Runtime, output_name


class Onnx(RuntimeFormat):
    """Input `input` (B, *shape), and output `features` (B, dim), `logits` (B, K) or `value` (B, 1), for batches of any size."""

    name: ClassVar[str] = "onnx"
    file: ClassVar[str] = "encoder.onnx"
    files: ClassVar[tuple[str, ...]] = (file, *SHARED)
    # onnxruntime fuses and orders operations in its own way; float16 has 11 bits, and int8 weights have 8
    tolerance: ClassVar[Mapping[str, float]] = {"fp32": 1e-4, "fp16": 3e-2, "int8": 0.5}
    code: ClassVar[Runtime] = Runtime(
        ("import onnxruntime",),
        'session = onnxruntime.InferenceSession("encoder.onnx", providers=["CPUExecutionProvider"])',
        '({name},) = session.run(None, {{"input": x}})',
    )

    def check(self, model: TrainedModel) -> None:
        require("onnxscript", "onnxruntime")

    def save(self, path: Path, model: TrainedModel) -> None:
        x = inputs(model)[:3]
        names: Any = {
            "input_names": ["input"],
            "output_names": [output_name(metadata(model))],
            "dynamic_shapes": ({0: torch.export.Dim("batch", min=1)},),
        }
        written: Any = torch.onnx.export(program(model, self.name), (x,), dynamo=True, verbose=False, **names)
        written.model.metadata_props["sslcli"] = json.dumps(metadata(model))
        written.save(str(path))
        if model.precision != "fp32":
            convert(path, model.precision)

    def run(self, path: Path, x: Tensor) -> Tensor:
        (runtime,) = require("onnxruntime")
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"input": x.numpy()})[0])

    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        return [f"onnxruntime.InferenceSession({str(Path(out) / self.file)!r})"]


def convert(path: Path, precision: str) -> None:
    """Converts the weights of a file: to float16, with inputs and outputs in float32, or to int8 with scales, for matrix products
    and convolutions whose inputs are quantized when it runs."""
    onnx, quantization, float16 = require("onnx", "onnxruntime.quantization", "onnxruntime.transformers.float16")
    about = {p.key: p.value for p in onnx.load(path).metadata_props}
    if precision == "int8":
        quantization.quantize_dynamic(path, path, per_channel=True, weight_type=quantization.QuantType.QInt8)
        graph = onnx.load(path)
    else:
        graph = float16.convert_float_to_float16(onnx.load(path), keep_io_types=True)
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, about)
    onnx.save(graph, path)


def require(*packages: str) -> list[Any]:
    """Packages of the extra [onnx]. MachineError where one is not installed."""
    from importlib import import_module

    try:
        return [import_module(package) for package in packages]
    except ImportError as e:
        raise MachineError(
            f"format=onnx requires the packages onnx, onnxscript and onnxruntime ({e})", "pip install 'sslcli[onnx]'"
        ) from e
