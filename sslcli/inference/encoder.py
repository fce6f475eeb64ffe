"""A trained encoder with all that identifies it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from sslcli.classifier.files import load_classifier
from sslcli.classifier.model import Classifier
from sslcli.data.dataset import Preprocessor
from sslcli.errors import RequestError
from sslcli.formats.initial import open_encoder
from sslcli.formats.registry import pretrained
from sslcli.runs import Record
from sslcli.runs.encoder import locate_encoder
from sslcli.runs.run import Run
from sslcli.runs.safetensors_file import hash_tensors


@dataclass(frozen=True)
class TrainedEncoder:
    """A backbone in evaluation mode, on the CPU, with its preprocessor.

    spec: what names it, without `latest` and relative paths. info: the content of encoder.json. sha256: of its weights. run: the
    run that trained it; None for an exported folder and for an encoder of another library."""

    spec: str
    module: nn.Module
    info: Record
    preprocessor: Preprocessor
    sha256: str
    run: Run | None

    @property
    def dim(self) -> int:
        return int(self.info["dim"])


def open_trained(spec: str) -> TrainedEncoder:
    """The encoder of a run, of a folder that `sslcli export` wrote, or of another library (`hf:FOLDER`).

    RequestError where there is none, TrainingError where its files are missing or damaged."""
    run, other = None, pretrained(spec)
    if other is not None:
        resolved = other.resolved()
    else:
        folder = locate_encoder(spec).resolve()
        resolved = str(folder)
        run = Run(folder) if (folder / "status.json").is_file() else None
    module, info, preprocessor = open_encoder(resolved)
    sha256 = info.get("sha256") or hash_tensors(module.state_dict())
    return TrainedEncoder(resolved, module.eval(), info, preprocessor, sha256, run)


def kept_classifier(run: Run | None, evaluator: str = "") -> Classifier:
    """The classifier that an evaluator kept in a run, see `load_classifier`. RequestError where there is no run."""
    if run is None:
        raise RequestError("an encoder that is no run has no classifier", "name a run: sslcli runs lists them")
    return load_classifier(run.path, evaluator)


def finetuned_encoder(encoder: TrainedEncoder) -> TrainedEncoder:
    """The encoder with the backbone that `eval finetune` kept in its run."""
    backbone = kept_classifier(encoder.run, "finetune").backbone
    assert backbone is not None
    return replace(encoder, module=backbone, sha256=hash_tensors(backbone.state_dict()))
