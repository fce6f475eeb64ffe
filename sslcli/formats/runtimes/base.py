"""What exports for other runtimes share: the inputs that are compared, metadata about the preprocessing, and README.md."""

from __future__ import annotations

import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sslcli
from sslcli.console import human_count
from sslcli.data.standalone.guides import PROGRAM, guide
from sslcli.errors import TrainingError
from sslcli.formats.export import ExportFormat, TrainedModel
from sslcli.formats.huggingface.card import evaluation, plain, table
from sslcli.formats.runtimes.usage import Runtime, use
from sslcli.runs.encoder import PREPROCESSOR, write_preprocessor
from sslcli.runs.files import replace_file

METADATA = "metadata.json"
README = "README.md"
SHARED = (METADATA, README, PROGRAM, f"{PREPROCESSOR}/")  # of all of these formats
MAX_LOSS = 0.05  # of top-1 of held-out samples, or of agreement without labels


class RuntimeFormat(ExportFormat):
    """One file that computes the features (B, dim), or the logits (B, K) of a classifier, of a batch of any size; metadata.json,
    README.md, and what makes inputs of raw samples: preprocess.py and preprocessor/."""

    runtime: ClassVar[bool] = True
    file: ClassVar[str]
    code: ClassVar[Runtime]  # that reads the file

    @abstractmethod
    def save(self, path: Path, model: TrainedModel) -> None:
        """Writes the file."""

    @abstractmethod
    def run(self, path: Path, x: Tensor) -> Tensor:
        """The outputs of a batch as the other runtime computes them from the file."""

    def check(self, model: TrainedModel) -> None:
        pass

    def write(self, folder: Path, model: TrainedModel) -> list[str]:
        self.save(folder / self.file, model)
        replace_file(folder, METADATA, [(json.dumps(metadata(model), indent=2) + "\n").encode()])
        write_preprocessor(folder, model.preprocessor.files())
        if (found := guide(model.preprocessor)) is not None:
            replace_file(folder, PROGRAM, [found.code()])
        replace_file(folder, README, [self.card(model).encode()])
        return [] if model.samples is not None else ["compared on random inputs: the run's data cannot be read"]

    @torch.no_grad()
    def largest_difference(self, folder: Path, model: TrainedModel) -> float:
        """Of outputs of held-out samples, in units of the largest output where that is above 1. Batches of two sizes."""
        x = inputs(model)
        expected = network(model)(x)
        scale = max(1.0, float(expected.abs().max()))
        found = torch.cat([self.run(folder / self.file, part) for part in (x[:1], x[1:])])
        return float((found - expected).abs().max()) / scale if found.shape == expected.shape else float("inf")

    @torch.no_grad()
    def comparison(self, folder: Path, model: TrainedModel) -> tuple[dict[str, float], list[str]]:
        """Of a classifier, top-1 of the network (`run_top1`) and of the file (`top1`) on held-out samples; where none has a label,
        how often both predict the same class (`agreement`)."""
        if model.samples is None or model.classifier is None or model.classifier.predicts_value:
            return {}, []
        before, after = network(model)(model.samples).argmax(1), self.run(folder / self.file, model.samples).argmax(1)
        known = torch.zeros(len(before), dtype=torch.bool) if model.labels is None else model.labels >= 0
        n = int(known.sum())
        if n == 0:
            n, same = len(before), float((before == after).float().mean())
            line = f"the file predicts the class of the network for {same:.1%} of {n} samples without a label"
            lost, scores = 1 - same, {"agreement": same}
        else:
            assert model.labels is not None
            top1, of_file = (float((guess == model.labels)[known].float().mean()) for guess in (before, after))
            line = (
                f"top-1 of {n} held-out samples: {top1:.3f}, of the file {of_file:.3f} (change {of_file - top1:+.3f})"
            )
            lost, scores = top1 - of_file, {"top1": of_file, "run_top1": top1}
        if lost > MAX_LOSS:
            raise TrainingError(f"{line}: nothing was written", "precision=fp32")
        return {**scores, "compared_samples": n}, [line]

    def card(self, model: TrainedModel) -> str:
        about = metadata(model)
        cfg = model.run.valid_config
        parameters = human_count(sum(p.numel() for p in model.backbone.parameters()))
        rows = [
            ["method", plain(str(model.info.get("method", "")).split(".")[-2:][0])],
            ["network", f"{_name(model)}, {parameters} parameters, {model.backbone.dim} features"],
            ["data", plain(str(model.info["dataset"]))],
            ["training", f"{model.info['step']:,} steps, seed {cfg['seed']}"],
            *([["initial weights", plain(str(cfg["init"]))]] if cfg.get("init") else []),
        ]
        lines = [
            f"# {plain(model.run.path.resolve().name)}",
            "",
            f"An encoder, pretrained without labels by sslcli {sslcli.__version__}.",
            "",
            *table(["", ""], rows),
            "",
            "## Use",
            "",
            *use(model.preprocessor, about, inputs(model).dtype, self.code),
            "",
            "## Evaluation",
            "",
            *evaluation(model),
            "",
        ]
        return "\n".join(lines)


def _name(model: TrainedModel) -> str:
    """The class of the backbone, of a tower that below the projection."""
    return type(model.backbone if model.tower is None else model.backbone.get_submodule("backbone")).__name__


def metadata(model: TrainedModel) -> dict[str, Any]:
    """The shape and the values of an input, as in encoder.json, the content of preprocessor.json, and how the features were
    made."""
    info = model.info
    return {
        "input_shape": list(info["input_shape"]),
        "values": info["values"],
        "modality": info["modality"],
        "preprocessor": model.preprocessor.to_json(),
        **output(model),
        **tower(model),
        "backbone": {key: value for key, value in info["backbone"].items() if key != "summary"},
        "method": info.get("method"),
        "dataset": info["dataset"],
        "step": info["step"],
        "precision": model.precision,
        "sslcli": sslcli.__version__,
    }


def tower(model: TrainedModel) -> dict[str, Any]:
    """Which encoder of a shared space this is, and what its loss multiplies similarities by."""
    return (
        {}
        if model.tower is None or model.method is None
        else {"tower": model.tower, "scale": model.method.similarity_scale()}
    )


def output(model: TrainedModel) -> dict[str, Any]:
    """What the output is: features, logits of the classes in their order, or a value."""
    classifier = model.classifier
    if classifier is None:
        return {"output": {"features": model.backbone.dim}}
    if classifier.predicts_value:
        return {"output": {"value": 1}, "protocol": classifier.protocol}
    about = {"output": {"logits": len(classifier.classes)}, "classes": list(classifier.classes)}
    return {
        **about,
        "calibrated": "the softmax of the logits is the calibrated probability",
        "protocol": classifier.protocol,
    }


class WithClassifier(nn.Module):
    """Logits (B, K), divided by the temperature, of a batch."""

    weight: Tensor
    bias: Tensor

    def __init__(self, backbone: nn.Module, weight: Tensor, bias: Tensor):
        super().__init__()
        self.backbone = backbone
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.backbone(x), self.weight, self.bias)


def head(model: TrainedModel) -> tuple[Tensor, Tensor] | None:
    """Weight (K, dim) and bias (K,) of the classifier, both divided by its temperature; None without one."""
    classifier = model.classifier
    if classifier is None:
        return None
    return tuple((v.double() / classifier.temperature).float() for v in (classifier.weight, classifier.bias))  # type: ignore[return-value]


def network(model: TrainedModel) -> nn.Module:
    """What is exported, in evaluation mode."""
    found = head(model)
    return model.network if found is None else WithClassifier(model.network, *found).eval()


def inputs(model: TrainedModel, count: int = 8) -> Tensor:
    """Held-out samples of the run, as clean views (B, *shape); random ones where they cannot be read."""
    if model.samples is not None:
        return model.samples[:count]
    generator = torch.Generator().manual_seed(0)
    values: Any = model.backbone.values
    out: Tensor = values.random(count, tuple(model.info["input_shape"]), generator)
    return out
