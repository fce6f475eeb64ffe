"""A kind of data that a user brings with --config-dir works everywhere, and its samples are drawn, although no file of the program
knows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslcli.config import instantiate
from sslcli.data.loading.loader import Loader
from sslcli.evals.anomaly import anomaly
from sslcli.evals.artefacts.attribution_sheets import AttributionExample, map_sheet
from sslcli.evals.artefacts.sample_sheets import thumbnails
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result
from sslcli.evals.cluster import cluster
from sslcli.evals.reconstruct import reconstruct
from sslcli.evals.retrieval import retrieval
from sslcli.evals.robustness import robustness
from sslcli.methods.base import Batch, Method, Reconstruction
from sslcli.report.feature_map.feature_map import feature_map
from sslcli.report.feature_map.view import view
from sslcli.report.run_contents import read_run
from sslcli.training.method_images import save_views
from sslcli.views import Views
from tests.conftest import SMOKE
from tests.letters import spelling

FOLDER = Path(spelling.__file__).parent


@pytest.fixture
def folder(monkeypatch) -> Path:
    """The folder for --config-dir; trusted in this test alone."""
    monkeypatch.setattr(instantiate, "_folders", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    return FOLDER


@pytest.fixture
def data(folder) -> EvalData:
    instantiate.trust_folder(folder)
    return EvalData(spelling.load())


@pytest.fixture
def backbone() -> spelling.CountLetters:
    torch.manual_seed(0)
    return spelling.CountLetters((spelling.LENGTH,), spelling.VALUES)


class Reverse(Method):
    """Reconstructs each word backward."""

    def reconstruct(self, batch: Batch) -> Reconstruction:
        (x,) = batch.views
        return Reconstruction(x, x.flip(1), values=self.backbone.values)


def check_drawing(artefact, path) -> None:
    artefact.save(path)
    with Image.open(path) as image:
        assert min(image.size) > 90
        assert len(image.convert("RGB").getcolors(1 << 24)) > 8  # more than an empty page


def test_thumbnails_are_text(data):
    assert thumbnails(data, "train", [3])[3].text() == spelling.spell(data.dataset.train.x)[3]


@pytest.mark.parametrize(
    ("evaluate", "name"),
    [
        (cluster, "exemplars.png"),
        (retrieval, "neighbours.png"),
        (anomaly, "samples.png"),
        (robustness, "corruptions.png"),
    ],
)
def test_sheets_of_evaluators(data, backbone, evaluate, name, tmp_path):
    result: Result = evaluate(backbone, data, baselines="raw")
    check_drawing(result.artefacts[name], tmp_path / name)


def test_attribution_sheet(data, tmp_path):
    x, _ = data.inputs("test", torch.arange(4))
    shown = [AttributionExample(i, x[i], torch.rand(2, spelling.LENGTH)) for i in range(4)]
    sheets, _ = map_sheet(data, "attention", "attention", shown, torch.rand(4, spelling.LENGTH, 5))
    check_drawing(sheets["maps.png"], tmp_path / "maps.png")


def test_reconstruction_sheet(data, backbone, tmp_path):
    evaluated = EvalData(data.dataset, pretraining=lambda: (Reverse(backbone).eval(), None))
    result = reconstruct(backbone, evaluated)
    check_drawing(result.artefacts["samples.png"], tmp_path / "samples.png")


def test_sheet_of_views(data, tmp_path):
    loader = Loader(data.dataset.train, Views({"clean": 2}, {}, data.dataset), batch_size=5, seed=0)
    assert save_views(loader, data.dataset, tmp_path / "views.png") == 5
    with Image.open(tmp_path / "views.png") as image:
        assert image.width > 300


def test_map_of_a_report_shows_text(data, backbone, tmp_path):
    (tmp_path / "config.yaml").write_text("method: {_target_: sslcli.methods.simclr.SimCLR}\nseed: 0\n")
    (tmp_path / "status.json").write_text(json.dumps({"status": "finished"}))
    drawn = feature_map(read_run(tmp_path), data, backbone)
    assert drawn is not None
    assert drawn.sprite is None
    page = view(drawn)
    assert "map-sprite" not in page
    markup = page.partition('<template id="map-samples">')[2].partition("</template>")[0]
    assert markup.count('<p class="preview">') == len(data.dataset.test)
    assert thumbnails(data, "test", [0])[0].html() in markup


def test_commands_take_the_modality(cli, folder, tmp_path):
    mine = ("--config-dir", str(folder))
    run = cli("pretrain", *mine, "dataset=letters", "method=vicreg", *SMOKE)
    assert run.code == 0, run.err
    assert "word 6, 2 classes" in run.err
    assert "vocabulary of 27" in cli("data", "inspect", *mine, "dataset=letters").out
    assert "letters" in cli("list", "modalities", *mine).out
    result = cli("eval", "probe", *mine)
    assert result.code == 0, result.err
    report = cli("runs", "report", *mine)
    assert report.code == 0, report.err
    assert '<p class="preview">' in (tmp_path / report.out.strip()).read_text(encoding="utf-8")
