"""export format=timm, torch_export and onnx: read back in the other runtime, with metadata, or not written at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from sslcli.classifier.files import load_classifier
from sslcli.cli.commands.export import load_model
from sslcli.errors import RequestError, TrainingError
from sslcli.formats.registry import export_format
from sslcli.formats.runtimes.base import network
from sslcli.formats.runtimes.timm import TimmFolder
from sslcli.formats.runtimes.torch_export import TorchExport
from sslcli.runs.encoder import load_encoder
from sslcli.runs.run import Run
from tests.conftest import SMOKE

VIT = [word for word in SMOKE if not word.startswith("backbone.")]
VIT += [
    "backbone=vit_micro",
    "backbone.width=24",
    "backbone.depth=2",
    "backbone.pool=cls",
    "train.steps=1",
    "train.epochs=null",
]


@pytest.fixture
def run(cli) -> str:
    done = cli("pretrain", *VIT)
    assert done.code == 0, done.err
    return done.last


def expected(run: str, x: Tensor) -> Tensor:
    backbone, _ = load_encoder(Path(run))
    with torch.no_grad():
        return backbone.eval()(x)


def test_run_in_other_runtimes(cli, run, monkeypatch):
    x = torch.randn(5, 1, 8, 8)
    for name in ("timm", "torch_export"):
        done = cli("export", run, f"format={name}", f"out={name}", "--json")
        assert done.code == 0, done.err
        assert json.loads(done.out)["difference"] <= 1e-5
        about = json.loads(Path(name, "metadata.json").read_text())
        assert (about["input_shape"], len(about["values"]["mean"])) == ([1, 8, 8], 1)
        assert "simsiam" in Path(name, "README.md").read_text()
    program = torch.export.load("torch_export/encoder.pt2").module()
    assert torch.allclose(program(x), expected(run, x), atol=1e-5)
    network = timm.create_model("local-dir:timm", pretrained=True).eval()
    assert torch.allclose(network(x), expected(run, x), atol=1e-5)
    assert network.pretrained_cfg["mean"] == about["values"]["mean"]
    refused = cli("export", run, "format=timm", "precision=int8", "out=other")
    assert (refused.code, Path("other").exists()) == (RequestError.code, False)
    assert "precision=int8: format=timm has fp32" in refused.err
    monkeypatch.setattr(TorchExport, "run", lambda self, path, x: torch.zeros(len(x), 24))
    failed = cli("export", run, "format=torch_export", "out=other")
    assert (failed.code, Path("other").exists()) == (TrainingError.code, False)
    assert "nothing was written" in failed.err


def test_run_in_onnxruntime(cli, run):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    done = cli("export", run, "format=onnx", "out=graph")
    assert done.code == 0, done.err
    session = onnxruntime.InferenceSession("graph/encoder.onnx", providers=["CPUExecutionProvider"])
    x = torch.randn(5, 1, 8, 8)
    (features,) = session.run(None, {"input": x.numpy()})
    assert torch.allclose(torch.from_numpy(features), expected(run, x), atol=1e-4)
    stored = session.get_modelmeta().custom_metadata_map["sslcli"]
    assert json.loads(stored) == json.loads(Path("graph/metadata.json").read_text())


def test_classifier_in_other_runtimes(cli, run):
    """Logits divided by the temperature: their softmax has the probabilities of the classifier that the run kept."""
    kept = cli("eval", "probe", f"run={run}", "labels=100", "evaluator.baselines=false")
    assert kept.code == 0, kept.err
    classifier = load_classifier(Path(run), "probe")
    x = torch.randn(5, 1, 8, 8)
    probabilities = classifier.probabilities(expected(run, x)).float()
    for name in ("timm", "torch_export"):
        done = cli("export", run, f"format={name}", "head=probe", f"out={name}", "--json")
        assert done.code == 0, done.err
        assert "held-out samples: " in done.err
        assert "(change +0.000)" in done.err
        scores = json.loads(done.out)
        assert scores["top1"] == scores["run_top1"] > 0.3
        assert f"top-1 of {scores['compared_samples']} held-out samples" in done.err
        assert json.loads(Path(name, "metadata.json").read_text())["classes"] == list(classifier.classes)
    program = torch.export.load("torch_export/encoder.pt2").module()
    assert torch.allclose(program(x).softmax(dim=1), probabilities, atol=1e-4)
    network = timm.create_model("local-dir:timm", pretrained=True).eval()
    assert torch.allclose(network(x).softmax(dim=1), probabilities, atol=1e-4)
    refused = cli("export", run, "format=timm", "head=finetune", "out=other")
    assert (refused.code, Path("other").exists()) == (RequestError.code, False)
    assert "has no classifier of eval finetune" in refused.err
    refused = cli("export", run, "head=probe", "out=other")
    assert "format=sslcli has no classifier" in refused.err


@pytest.mark.parametrize(("share", "lost"), [(0.04, False), (0.3, True)])
def test_predictions_are_compared_without_labels(share, lost, cli, run, monkeypatch):
    """Of the samples, a share has another class in the file."""
    kept = cli("eval", "probe", f"run={run}", "labels=100", "evaluator.baselines=false")
    assert kept.code == 0, kept.err
    model = load_model(Run.open(Path(run)), "last", TorchExport(), "probe")
    assert model.samples is not None
    model = replace(model, labels=None)
    n = round(share * len(model.samples))
    own = network(model)(model.samples).detach()
    other = own.clone()
    other[:n] = own[:n].flip(1)
    monkeypatch.setattr(TorchExport, "run", lambda self, path, x: other)
    if lost:
        with pytest.raises(TrainingError, match="nothing was written"):
            TorchExport().comparison(Path("out"), model)
    else:
        scores, (line,) = TorchExport().comparison(Path("out"), model)
        assert scores == {"agreement": pytest.approx(1 - n / len(own)), "compared_samples": len(own)}
        agreement = f"{1 - n / len(own):.1%} of {len(own)} samples without a label"
        assert line == f"the file predicts the class of the network for {agreement}"


@pytest.mark.parametrize(
    ("precision", "head"), [("fp16", "probe"), ("int8", "none")]
)  # int8 changes classes of so small a network
def test_precisions_of_onnx(precision, head, cli, run):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    kept = cli("eval", "probe", f"run={run}", "labels=100", "evaluator.baselines=false")
    assert kept.code == 0, kept.err
    done = cli("export", run, "format=onnx", f"head={head}", f"precision={precision}", "out=graph")
    assert done.code == 0, done.err
    assert ("held-out samples: " in done.err) == (head == "probe")
    session = onnxruntime.InferenceSession("graph/encoder.onnx", providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["sslcli"])["precision"] == precision


def test_backbone_that_timm_lacks_is_refused(cli):
    done = cli("pretrain", *SMOKE, "train.steps=1", "train.epochs=null")
    refused = cli("export", done.last, "format=timm", "out=folder")
    assert refused.code == RequestError.code
    assert "timm has no network like ConvNet here" in refused.err
    assert not Path("folder").exists()


def test_names_of_formats():
    assert export_format("safetensors").name == "sslcli"
    assert isinstance(export_format("timm"), TimmFolder)
    with pytest.raises(RequestError, match="expected one of"):
        export_format("tflite")
