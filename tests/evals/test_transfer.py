from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli.data.dataset import ArraySource, Dataset, Source
from sslcli.data.images.channels import convert_channels, luminance
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.knn import knn
from sslcli.evals.probe import probe
from sslcli.evals.transfer import transfer
from sslcli.nn.values import Continuous
from tests.conftest import SMOKE
from tests.evals import toys


def test_transfer_equals_probe_and_knn():
    data = EvalData(toys.dataset(), untrained=toys.Blind, trained_on="others")
    found = transfer(toys.Rows(), data, labels="10/class", seeds=2, strengths=0.1)
    one = probe(toys.Rows(), data, labels="10/class", seeds=2, strengths=0.1).metrics
    other = knn(toys.Rows(), data, labels="10/class", seeds=2).metrics
    assert found.metrics["probe.top1"] == one["top1"]
    assert found.metrics["raw.probe.top1_std"] == one["raw.top1_std"]
    assert found.metrics["untrained.knn.top1"] == other["untrained.top1"]
    assert len(found.metrics) == len(one) + len(other) - len({"ece", "ece_uncalibrated"})  # no classifier is kept
    assert found.protocol["from"] == "others"
    assert found.protocol["to"] == "rows"
    assert (found.protocol["labels"], found.protocol["seeds"]) == ("10/class", 2)  # what both share is said once
    assert found.protocol["knn"] == {"k": 20, "temperature": 0.1}
    assert not {"labels", "seeds", "splits", "notes"} & set(found.protocol["probe"])
    assert {"strength", "solver", "baselines"} <= set(found.protocol["probe"])
    assert set(found.artefacts) == {
        "probe_confusion.png",
        "probe_predictions.safetensors",
        "probe_predictions.csv",
        "knn_predictions.safetensors",
        "knn_predictions.csv",
    }
    assert found.protocol["class_weight"] is None
    json.dumps(found.protocol)


def test_transfer_rejects_the_same_data():
    backbone = toys.Rows()
    with pytest.raises(RequestError, match="was trained on") as error:
        transfer(backbone, EvalData(toys.dataset(), untrained=toys.Blind))
    assert "dataset=NAME" in error.value.hint
    with pytest.raises(RequestError, match="nothing to transfer"):
        transfer(backbone, EvalData(toys.dataset()))
    assert backbone.calls == 0


def test_luminance_matches_pillow():
    x = torch.randint(0, 256, (2, 3, 9, 7), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    for image, ours in zip(x, luminance(x, 1), strict=True):
        theirs = np.asarray(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).convert("L"))
        assert np.abs(ours[0].numpy().astype(int) - theirs).max() <= 1  # it rounds in 16 bits
    white = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    assert luminance(white, 1).item() == 255
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
    assert luminance(red, 1).item() == 76


class Streamed(Source):
    """The same samples as decoded images."""

    def __init__(self, x: torch.Tensor):
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: int):
        pixels = self.x[index].permute(1, 2, 0).contiguous().numpy()
        return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


@pytest.mark.parametrize(("have", "want"), [(1, 3), (3, 1)])
def test_transfer_adapts_resident_and_streamed_images_equally(have, want):
    x = torch.randint(0, 256, (6, have, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    labels = torch.arange(6)
    mean, std = (0.4,) * want, (0.3,) * want
    inputs = []
    for source in (ArraySource(x, labels, [f"{i}.png" for i in range(6)]), Streamed(x)):
        found = convert_channels(Dataset("d", "image", (have, 8, 8), source, None), want)
        assert found.shape == (want, 8, 8)
        assert found.test is None
        found.values = Continuous(mean, std)
        inputs.append(EvalData(found).inputs("train", torch.tensor([4, 0]))[0])
        assert found.train.name_of(2) in ("2.png", "sample 2")
    torch.testing.assert_close(*inputs)
    expected = x[[4, 0]] / 255 if want == 3 else luminance(x[[4, 0]], 1) / 255
    torch.testing.assert_close(inputs[0], (expected.expand(-1, want, -1, -1) - 0.4) / 0.3)


def test_transfer_from_the_command_line(cli):
    """Digits, 8 x 8 gray, as color images of another size."""
    g = np.random.default_rng(0)
    y = np.arange(60) % 2
    x = g.integers(0, 60, (60, 12, 12, 3), dtype=np.uint8)
    x[y == 1, :6] += 150
    np.savez("colour.npz", x=x, y=y)
    assert cli("pretrain", *SMOKE).code == 0
    result = cli("eval", "transfer", "dataset=arrays", "dataset.path=colour.npz", "dataset.holdout=0.3")
    assert result.code == 0, result.err
    assert "luminance" in result.err
    (run,) = (p for p in Path("runs").iterdir() if not p.is_symlink())
    (file,) = (run / "eval").glob("transfer@*.json")
    record = json.loads(file.read_text())
    assert record["numbers"]["raw.probe.top1"] == 1.0
    assert any("luminance" in note for note in record["protocol"]["notes"])
    assert record["overrides"] == ["dataset=arrays", "dataset.path=colour.npz", "dataset.holdout=0.3"]
    assert cli("eval", "transfer").code == 2
    assert cli("eval", "transfer", "run=none").code == 2
