"""`format=torch_export`: a program of torch.export, which runs without the code of sslcli."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sslcli.errors import RequestError, first_line
from sslcli.formats.export import TrainedModel
from sslcli.formats.runtimes.base import SHARED, RuntimeFormat, inputs, network
from sslcli.formats.runtimes.usage import Runtime


class TorchExport(RuntimeFormat):
    name: ClassVar[str] = "torch_export"
    file: ClassVar[str] = "encoder.pt2"
    files: ClassVar[tuple[str, ...]] = (file, *SHARED)
    code: ClassVar[Runtime] = Runtime(
        ("import torch",),
        'encoder = torch.export.load("encoder.pt2").module()',
        "{name} = encoder(torch.from_numpy(x)).detach().numpy()",
    )

    def save(self, path: Path, model: TrainedModel) -> None:
        torch.export.save(program(model, self.name), path)

    def run(self, path: Path, x: Tensor) -> Tensor:
        features: Tensor = torch.export.load(path).module()(x)
        return features

    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        return [f"torch.export.load({str(Path(out) / self.file)!r}).module()"]


def program(model: TrainedModel, form: str) -> Any:
    """The exported program of the network, for batches of any size. RequestError for a backbone that torch cannot export."""
    batch = torch.export.Dim("batch", min=1)
    try:
        with torch.no_grad():
            return torch.export.export(network(model), (inputs(model)[:3],), dynamic_shapes=({0: batch},))
    except Exception as e:  # of any part of the compiler
        raise RequestError(
            f"format={form}: torch.export does not support {type(model.backbone).__name__}: {first_line(e)}",
            "leave format out for weights and encoder.json",
        ) from e
