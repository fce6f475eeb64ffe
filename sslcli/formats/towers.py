"""The two encoders of a method that reads captions, each as a model that is exported: samples, or captions, to unit vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.data.image_text.preprocessor import PairsPreprocessor
from sslcli.errors import RequestError
from sslcli.formats.export import ExportFormat, TrainedModel
from sslcli.formats.named_encoders import COPIES
from sslcli.runs import Record
from sslcli.runs.encoder import read_info
from sslcli.runs.run import Run

TOWERS = ("image", "text")


class TowerEncoder(nn.Module):
    """A backbone with the projection to the shared space: (B, *shape) -> unit vectors (B, dim)."""

    def __init__(self, backbone: nn.Module, projection: nn.Linear):
        super().__init__()
        self.backbone, self.projection = backbone, projection
        self.dim, self.values = projection.out_features, backbone.values

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(self.projection(self.backbone(x)), dim=1)


def check_tower(tower: str, head: str, form: ExportFormat) -> None:
    """RequestError where a tower cannot be exported."""
    if tower not in TOWERS:
        raise RequestError(f"tower={tower}: expected {' or '.join(TOWERS)}", "tower=text")
    if not form.runtime or form.name == "timm":
        raise RequestError(f"format={form.name} has no tower", "format=torch_export or onnx")
    if head != "none":
        raise RequestError(f"tower={tower} has no classifier", "leave head out")


def tower_model(model: TrainedModel, tower: str, captions: Tensor | None) -> TrainedModel:
    """One of the encoders of a method that reads captions. `captions`: held-out ones (n, L), to compare outputs on. RequestError
    for another method."""
    own = None if model.method is None else model.method.caption_method()
    if own is None or not isinstance(model.preprocessor, PairsPreprocessor):
        raise RequestError(
            f"tower={tower}: {model.run.path} is no run of a method that reads captions", "method=clip or siglip"
        )
    if tower == "image":
        encoder = TowerEncoder(own.backbone, own.shared.image_projection).eval()
        info = {**model.info, "dim": encoder.dim}
        return replace(model, backbone=encoder, info=info, tower=tower)
    own_captions = model.preprocessor.captions
    encoder = TowerEncoder(own.tower.backbone, own.shared.text_projection).eval()
    info = {
        **model.info,
        "dim": encoder.dim,
        "input_shape": list(own_captions.shape),
        "values": own_captions.values.to_json(),
        "modality": own_captions.kind,
        "backbone": _tower_config(model.run),
    }
    return replace(model, backbone=encoder, info=info, preprocessor=own_captions, samples=captions, tower=tower)


def _tower_config(run: Run) -> Record:
    """The configuration of the encoder of captions; of an encoder that the run has a copy of, that in the copy."""
    node = run.valid_config["method"]
    nodes = [node, *(node.get("tasks") or {}).values()]
    tower = next(n["tower"] for n in nodes if isinstance(n, dict) and "tower" in n)
    if isinstance(tower, dict):
        return dict(tower)
    copies = sorted((run.path / COPIES).glob("**/tower"))
    return dict(read_info(Path(copies[0]))["backbone"]) if copies else {"name": str(tower)}
