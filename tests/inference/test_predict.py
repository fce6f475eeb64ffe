"""Predictions of new samples with the classifier that a run kept.

1. The classes are those of the evaluation, and the distance that of the reference.
2. The rows do not depend on the batch size, and are the same in Python and in every format.
3. A file that cannot be read is a row with an error.
4. A classifier that is missing, damaged or of another encoder, and a wrong request, end with their exit codes.
"""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sslcli import api
from sslcli.classifier.files import load_classifier
from sslcli.data import digits
from sslcli.errors import DataError, RequestError
from sslcli.inference.predictions import Predictor, rounded
from sslcli.runs import records
from tests.conftest import SMOKE

QUICK = ["labels=5/class", "evaluator.baselines=false", "device=cpu", "device.threads=1"]
CPU = {"device": {"type": "cpu", "threads": 1}}
HEAD = "path,class,probability,runner_up,runner_up_probability,distance,error"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with both classifiers; probe is the newer one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("predict"))
        path = api.pretrain(*SMOKE).path.resolve()
        api.evaluate(
            path, "finetune", *QUICK, "evaluator.epochs=0", "evaluator.min_steps=3", "evaluator.calibrate=false"
        )
        api.evaluate(path, "probe", *QUICK)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """70 digits as files, and one that is no image."""
    path = tmp_path_factory.mktemp("files")
    for i, image in enumerate(digits().test.x[:70, 0].numpy()):
        Image.fromarray(image).save(path / f"{i:02}.png")
    (path / "20.png").write_bytes(b"no image")
    return path


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.parametrize("evaluator", ["probe", "finetune"])
def test_classes_are_those_of_the_evaluation(cli, run, tmp_path, evaluator):
    done = cli("predict", str(run), "dataset=digits", "split=test", f"from={evaluator}", "out=p.csv", "device=cpu")
    assert (done.code, done.out) == (0, "p.csv\n"), done.err
    rows, measured = read(tmp_path / "p.csv"), read(run / "eval" / f"{evaluator}@5-class_predictions.csv")
    assert [row["class"] for row in rows] == [row["predicted"] for row in measured]
    classifier = load_classifier(run, evaluator)
    encoder = api.load(run)
    module = classifier.backbone or encoder.module
    with torch.no_grad():
        z = module(encoder.transform(digits().test.x[:9])).float()
    p = classifier.probabilities(z)
    assert [float(r["probability"]) for r in rows[:9]] == pytest.approx(p.amax(dim=1).tolist(), abs=1e-4)
    distance = classifier.reference.percentile(z).tolist()
    assert [float(r["distance"]) for r in rows[:9]] == pytest.approx(distance, abs=0.2)
    summary = records.summaries(run)["predict"]
    assert (summary["title"], summary["file"], summary["numbers"]["samples"]) == ("Predictions of digits", "p.csv", 360)
    assert sum(n for key, n in summary["numbers"].items() if key.startswith("class ")) == 360
    assert summary["notes"][0].startswith(f"classifier of {evaluator}: 10 classes")


def test_rows_do_not_depend_on_execution(cli, run, folder, tmp_path):
    words = ["predict", str(run), str(folder), "device=cpu", "device.workers=0"]
    files = {}
    for name, options in {"a": ["batch_size=1"], "b": ["batch_size=7"], "c": []}.items():
        assert cli(*words, f"out={name}.csv", *options).code == 0
        files[name] = (tmp_path / f"{name}.csv").read_text()
    assert files["a"] == files["b"] == files["c"]
    assert files["a"].startswith(f"{HEAD},{','.join(f'probability_{digit}' for digit in range(10))}\n")
    rows = read(tmp_path / "a.csv")
    assert [row["path"] for row in rows] == [str(p) for p in sorted(folder.iterdir())]
    assert [i for i, row in enumerate(rows) if row["error"]] == [20]
    assert set(rows[20].values()) == {str(folder / "20.png"), "", rows[20]["error"]}
    printed = cli(*words)
    assert printed.out == files["a"]
    assert "column error: 1" in printed.err
    objects = [json.loads(line) for line in cli(*words, "--json").out.splitlines()]
    encoder = api.load(run)
    assert encoder.predict(sorted(folder.iterdir())) == objects
    assert encoder.predict(folder) == objects
    assert objects[20]["class"] is None
    in_memory = encoder.predict(digits().test.x[:70])
    assert [{**r, "path": None} for i, r in enumerate(objects) if i != 20] == [
        r for i, r in enumerate(in_memory) if i != 20
    ]


def test_probability_of_each_class(cli, run, folder, tmp_path):
    words = ["predict", str(run), str(folder / "00.png"), str(folder / "20.png"), "device.workers=0"]
    assert cli(*words, "probabilities=top").out.startswith(HEAD + "\n")
    row, bad = csv.DictReader(cli(*words, "probabilities=all").out.splitlines())
    p = {name.removeprefix("probability_"): float(v) for name, v in row.items() if name.startswith("probability_")}
    assert sum(p.values()) == pytest.approx(1, abs=1e-12)
    assert (p[row["class"]], p[row["runner_up"]]) == (float(row["probability"]), float(row["runner_up_probability"]))
    assert list(p) == [str(digit) for digit in range(10)]
    assert {bad[f"probability_{digit}"] for digit in p} == {""}
    wrong = cli(*words, "probabilities=some")
    assert (wrong.code, "probabilities=some" in wrong.err) == (2, True)


def test_rounded_probabilities_sum_to_one():
    p = torch.cat([torch.randn(50, 300).mul(3).softmax(dim=1), torch.full((1, 300), 1 / 300)])
    table = torch.tensor(rounded(p), dtype=torch.float64)
    assert table.sum(dim=1).tolist() == pytest.approx([1] * 51, abs=1e-12)
    assert (table - p).abs().max() < 1.1e-6
    assert torch.equal(table.argsort(dim=1, stable=True)[:50, -2:], p[:50].argsort(dim=1, stable=True)[:, -2:])


@pytest.mark.parametrize(("classes", "which", "columns"), [(20, "auto", 20), (21, "auto", 0), (21, "all", 21)])
def test_columns_of_many_classes(classes, which, columns):
    kept = SimpleNamespace(classes=tuple(f"a class {i}" for i in range(classes)), reference=(), predicts_value=False)
    names = Predictor(kept, probabilities=which, id="class").columns
    assert (names[:3], len(names) - 8) == (("id_class", "path", "class"), columns)
    assert len(set(names)) == len(names)


def test_parquet_has_the_rows_of_csv(cli, run, folder, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    done = cli("predict", str(run), str(folder), "out=p.parquet", "threshold=0.5", "device.workers=0", "--json")
    table = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert table == api.load(run).predict(folder, threshold=0.5)
    unsure = [row for row in table if row["class"] is None and row["error"] is None]
    assert unsure
    assert all(row["probability"] < 0.5 and row["runner_up"] for row in unsure)
    assert json.loads(done.out)["unsure"] == len(unsure)


def test_value_of_a_table(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = api.pretrain(
        "method=scarf", "dataset=diabetes", "train.steps=3", "train.epochs=null", "train.eval_every=0", **CPU
    ).path
    result = api.evaluate(path, "probe", "evaluator.baselines=false", **CPU)
    assert cli("predict", str(path), "dataset=diabetes", "split=test", "out=p.csv", "device=cpu").code == 0
    rows, measured = read(tmp_path / "p.csv"), read(path / "eval" / "probe_values.csv")
    assert list(rows[0]) == ["path", "value", "distance", "error"]
    assert [float(r["value"]) for r in rows] == pytest.approx([float(r["predicted"]) for r in measured], rel=1e-4)
    assert load_classifier(path).protocol["test"]["rmse"] == pytest.approx(result["rmse"])
    for option in ("threshold=0.5", "probabilities=all"):
        wrong = cli("predict", str(path), "dataset=diabetes", option)
        assert (wrong.code, "predicts a value" in wrong.err) == (2, True)
    tuned = api.evaluate(
        path, "finetune", "evaluator.epochs=1", "evaluator.min_steps=2", "evaluator.baselines=false", **CPU
    )
    assert tuned["rmse"] != result["rmse"]
    words = ("dataset=diabetes", "split=test", "from=finetune", "out=tuned.csv", "device=cpu")
    assert cli("predict", str(path), *words).code == 0
    rows, measured = read(tmp_path / "tuned.csv"), read(path / "eval" / "finetune_values.csv")
    assert [float(r["value"]) for r in rows] == pytest.approx([float(r["predicted"]) for r in measured], rel=1e-4)


def test_refusals(cli, run, folder, tmp_path):
    (tmp_path / "clip.wav").write_bytes(b"RIFF")
    (tmp_path / "there.csv").write_text("kept")
    wrong = {
        "from=knn": "expected probe or finetune",
        "threshold=2": "from 0 to 1",
        "threshold=high": "expected a number",
        "batch_size=0": "positive integer",
        "out=there.csv": "exists",
        "out=p.xlsx": ".csv or .parquet",
        "out=nowhere/p.csv": "there is no folder",
        "train.epochs=3": "unexpected argument",
        "split=val": "expected all, train, test",
    }
    for option, message in wrong.items():
        done = cli("predict", str(run), str(folder), option)
        assert (done.code, message in done.err) == (2, True), (option, done.err)
    assert cli("predict").code == cli("predict", str(run), "nothing.png").code == 2
    other = cli("predict", str(run), str(tmp_path / "clip.wav"))
    assert (other.code, "clip.wav" in other.err) == (2, True), other.err
    assert (tmp_path / "there.csv").read_text() == "kept"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.wav", "there.csv"]
    with pytest.raises(DataError):
        api.load(run).predict(np.zeros((2, 8, 8), np.float32))


def test_classifier_that_cannot_be_used(cli, run, folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    file, image = copy / "classifier" / "probe" / "classifier.safetensors", str(folder / "00.png")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    damaged = cli("predict", str(copy), image, "device.workers=0")
    assert (damaged.code, "does not match the SHA-256" in damaged.err) == (4, True)
    info = copy / "classifier" / "probe" / "classifier.json"
    known = json.loads(info.read_text())
    info.write_text(json.dumps({**known, "temperature": 0}))
    assert cli("predict", str(copy), image, "from=probe").code == 4
    info.write_text(json.dumps({**known, "encoder": {"sha256": "0" * 64}}))
    trained_on = cli("predict", str(copy), image, "from=probe")
    assert (trained_on.code, "another encoder" in trained_on.err, "eval probe" in trained_on.err) == (2, True, True)
    shutil.rmtree(copy / "classifier" / "probe")
    missing = cli("predict", str(copy), image, "from=probe")
    assert (missing.code, f"sslcli eval probe run={copy}" in missing.err) == (2, True)
    assert cli("predict", str(copy), image, "device.workers=0").code == 0  # that of finetune is left
    shutil.rmtree(copy / "classifier")
    with pytest.raises(RequestError, match="has no classifier") as error:
        api.load(copy).predict([image])
    assert "sslcli eval probe" in error.value.hint
