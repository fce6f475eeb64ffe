"""`format=sslcli`, the default: encoder.safetensors, encoder.json and preprocessor/, as in a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch

from sslcli.formats.export import ExportFormat, TrainedModel, largest_difference
from sslcli.runs.encoder import FILES, PREPROCESSOR, load_encoder, write_encoder
from sslcli.runs.find import restart_command


class SslcliFolder(ExportFormat):
    name: ClassVar[str] = "sslcli"
    files: ClassVar[tuple[str, ...]] = (*FILES, f"{PREPROCESSOR}/")

    def check(self, model: TrainedModel) -> None:
        pass

    def write(self, folder: Path, model: TrainedModel) -> list[str]:
        info = {**model.info, "run": model.run.path.resolve().name}
        write_encoder(folder, model.backbone.state_dict(), info, model.preprocessor.files())
        return []

    @torch.no_grad()
    def largest_difference(self, folder: Path, model: TrainedModel) -> float:
        """Of the weights, whose bits are the same."""
        again, _ = load_encoder(folder)
        pairs = zip(model.backbone.state_dict().values(), again.state_dict().values(), strict=True)
        return max(largest_difference(a.double(), b.double()) for a, b in pairs)

    def next_steps(self, out: str, model: TrainedModel) -> list[str]:
        start = f"./{out}" if out == "null" else out  # `init=null` starts from no weights
        return [
            restart_command(model.run.path, start),
            f"safetensors.torch.load_file({str(Path(out) / FILES[0])!r})",
        ]
