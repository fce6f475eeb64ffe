"""A run whose rows are named by a column: what the commands write and read.

1. `predict` writes the identifiers first, under their name, as CSV, JSON and Parquet; a file without them has an error that says
   what to do.
2. `embed`, `pick` and `data audit` name rows by them; `labels=` reads them.
3. The run resumes; a run without identifiers takes another column by name.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from sslcli import api
from tests.inference.encoders import CPU, short_run

HEAD = ["income", "age", "customer_id", "city", "label"]
ROWS = [
    (f"{1000 + 37.25 * i:.2f}", 20 + i * i % 47, f"C{i:03}", ("rome", "oslo")[i % 2], ("not yet", "yes")[i > 30])
    for i in range(64)
]
NEW = [row[:4] for row in ROWS[:5]]


def write(path: Path, rows, head=HEAD) -> str:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    data = ["dataset=table", f"dataset.path={write(folder / 'rows.csv', ROWS)}", "dataset.id=customer_id"]
    return short_run(folder, *data)


def test_predictions_have_the_identifiers(cli, run, tmp_path):
    new = write(tmp_path / "new.csv", NEW, HEAD[:4])
    done = cli("predict", str(run), new)
    rows = list(csv.DictReader(done.out.splitlines()))
    assert list(rows[0])[:3] == ["customer_id", "path", "class"]
    assert [(row["customer_id"], row["path"]) for row in rows] == [(row[2], new) for row in NEW]
    assert [float(r["probability_not yet"]) + float(r["probability_yes"]) for r in rows] == pytest.approx([1] * 5)
    objects = [json.loads(line) for line in cli("predict", str(run), new, "--json").out.splitlines()]
    assert objects == api.load(run).predict(new)
    assert [o["customer_id"] for o in objects] == [row[2] for row in NEW]
    own = csv.DictReader(cli("predict", str(run), "split=test").out.splitlines())
    assert all(row["path"] == f"test/{row['customer_id']}" for row in own)
    memory = [dict(zip(HEAD, row, strict=False)) for row in NEW]
    assert [row["class"] for row in api.load(run).predict(memory)] == [o["class"] for o in objects]


def test_parquet_of_numeric_identifiers(cli, run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    new = write(tmp_path / "new.csv", [(*row[:2], i, row[3]) for i, row in enumerate(NEW)], HEAD[:4])
    assert cli("predict", str(run), new, "out=p.parquet").code == 0
    assert parquet.read_table(tmp_path / "p.parquet")["customer_id"].to_pylist() == ["0", "1", "2", "3", "4"]


def test_file_without_identifiers(cli, run, tmp_path):
    bare = write(tmp_path / "bare.csv", [(a, b, d) for a, b, _, d in NEW], ["income", "age", "city"])
    wrong = cli("predict", str(run), bare)
    assert wrong.code != 0
    assert "has no column customer_id" in wrong.err
    assert f"dataset=table dataset.path={bare} dataset.id=none" in wrong.err
    done = cli("predict", str(run), "dataset=table", f"dataset.path={bare}", "dataset.id=none")
    assert done.out.splitlines()[1].startswith("train/line 2,")
    twice = write(tmp_path / "twice.csv", [*NEW, NEW[0]], HEAD[:4])
    wrong = cli("predict", str(run), twice, "out=p.csv")
    assert "lines 2 and 7: the identifier C000 occurs twice" in wrong.err
    assert not (tmp_path / "p.csv").exists()


def test_embeddings_and_audit_name_rows(cli, run, tmp_path):
    assert cli("embed", str(run), write(tmp_path / "new.csv", NEW, HEAD[:4]), "out=E.npz").code == 0
    assert np.load(tmp_path / "E.npz")["id"].tolist() == [row[2] for row in NEW]
    both = [write(tmp_path / f"{name}.csv", NEW, HEAD[:4]) for name in "ab"]
    assert cli("embed", str(run), *both, "out=two.npz").code == 0
    assert np.load(tmp_path / "two.npz")["id"].tolist() == [f"{path}:{row[2]}" for path in both for row in NEW]
    copied = write(tmp_path / "copied.csv", [*ROWS, (*ROWS[3][:2], "X1", *ROWS[3][3:])])
    done = cli(
        "data", "audit", "dataset=table", f"dataset.path={copied}", "dataset.id=customer_id", "dataset.holdout=0"
    )
    assert done.code == 0, done.err
    found = list(csv.DictReader((tmp_path / "audit.csv").read_text().splitlines()))
    assert [(r["path"], r["partner"]) for r in found if r["issue"] == "exact_copy"] == [("train/X1", "train/C003")]


def test_picks_are_labels_by_identifier(cli, run, tmp_path):
    done = cli("pick", str(run), "n=12", "out=pick.csv", "page=pick.html")
    assert done.code == 0, done.err
    picks = list(csv.DictReader((tmp_path / "pick.csv").read_text().splitlines()))
    classes = {row[2]: row[4] for row in ROWS}
    assert all(row["customer_id"] in classes for row in picks)
    assert '"key":"customer_id"' in (tmp_path / "pick.html").read_text()
    write(
        tmp_path / "labels.csv",
        [(r["customer_id"], classes[r["customer_id"]]) for r in picks],
        ["customer_id", "label"],
    )
    more = cli("pick", str(run), "n=5", "have=labels.csv", "--json")
    assert not {p["customer_id"] for p in json.loads(more.out)["picks"]} & {row["customer_id"] for row in picks}
    evaluated = cli("eval", "knn", f"run={run}", "labels=labels.csv", "evaluator.baselines=false", "device=cpu")
    assert (evaluated.code, "labels of 12 samples from labels.csv" in evaluated.err) == (0, True), evaluated.err


def test_run_resumes_and_another_column_can_be_named(cli, run, tmp_path):
    data = ["dataset=table", f"dataset.path={write(tmp_path / 'rows.csv', ROWS)}", "dataset.drop=[customer_id]"]
    steps = ["train.steps=2", "train.epochs=null", "train.eval_every=0", "train.batch_size=16"]
    bare = api.pretrain("method=scarf", *data, *steps, **CPU).path
    assert "id" not in json.loads((bare / "preprocessor" / "preprocessor.json").read_text())
    words = ["dataset=table", f"dataset.path={tmp_path}/rows.csv", "dataset.id=customer_id", "split=train"]
    assert cli("embed", str(bare), *words, "out=E.npz").code == 0
    assert np.load(tmp_path / "E.npz")["id"][0].startswith("C0")
    assert cli("resume", str(run), "train.steps=4").code == 0
