"""A run is measured and resumed on its own data: found again, compared, refused where they are other ones."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import sslcli
from sslcli.config import registry
from sslcli.data.preprocess import load as load_preprocessor
from sslcli.data.preprocess import preprocessor_of
from sslcli.data.record import (
    DataRecord,
    data_differences,
    describe_dataset,
    is_same_dataset,
    path_keys,
    read_record,
    with_absolute_paths,
    with_recorded_paths,
)
from sslcli.data.sources.image_folder import image_folder
from sslcli.runs.run import Run

RUN = [
    "method=simsiam",
    "backbone=convnet",
    "backbone.width=4",
    "train.epochs=null",
    "train.steps=2",
    "train.batch_size=8",
    "train.eval_every=0",
    "device=cpu",
    "device.threads=1",
    "dataset=image_folder",
    "dataset.path=pics",
]
KNN = ("eval", "knn", "evaluator.baselines=false", "device=cpu", "device.threads=1", "--json")


def picture(path: Path, value: int, mode: str = "L", side: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(value)
    pixels = (value + rng.normal(0, 20, (side, side, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def folder(root: Path, classes: tuple[str, ...] = ("ant", "bee"), n: int = 10) -> Path:
    for c, name in enumerate(classes):
        for i in range(n):
            picture(root / name / f"{i}.png", 60 + 90 * c + i)
    return root


@pytest.fixture
def run(cli, tmp_path):
    """A run of 20 gray pictures of 16 pixels in a/pics, started in a/ with a relative path."""
    folder(tmp_path / "a" / "pics")
    os.chdir(tmp_path / "a")
    trained = cli("pretrain", *RUN)
    assert trained.code == 0, trained.err
    return (tmp_path / "a" / trained.last).resolve()


def measured(cli, run, *words):
    result = cli(*KNN, f"run={run}", *words)
    return result, json.loads(result.out) if result.code == 0 else {}


def test_eval_from_another_working_folder(cli, tmp_path, run):
    folder(tmp_path / "b" / "pics", ("x", "y", "z"), n=14)
    os.chdir(tmp_path / "b")
    result, record = measured(cli, run)
    assert result.code == 0, result.err
    assert record["protocol"]["splits"] == {"train": 16, "labelled": 16, "test": 4}
    resumed = cli("resume", str(run), "train.steps=3")
    assert resumed.code == 0, resumed.err
    assert json.loads((run / "status.json").read_text())["data"]["path"] == str(tmp_path / "a" / "pics")


def test_record_describes_dataset(run, tmp_path):
    kept = json.loads((run / "status.json").read_text())["data"]
    data = image_folder(str(tmp_path / "a" / "pics"))
    assert kept["path"] == str(tmp_path / "a" / "pics")
    assert kept["fingerprint"] == data.fingerprint
    assert (kept["modality"], kept["shape"], kept["values"]) == ("image", [1, 16, 16], data.values.to_json())
    assert kept["preprocessor"] == preprocessor_of(data).sha256 == load_preprocessor(run).sha256
    assert kept["samples"] == {"train": 16, "test": 4}
    assert kept["split"] == data.split != ""


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda p: picture(p / "ant" / "new.png", 90, "RGB"), "21 samples, were 20 (1 added in all)"),
        (lambda p: picture(p / "ant" / "new.png", 90, side=40), "21 samples, were 20 (1 added in all)"),
        (lambda p: (p / "ant" / "0.png").unlink(), "19 samples, were 20 (1 removed in all)"),
        (lambda p: (p / "ant" / "0.png").rename(p / "ant" / "zero.png"), "names, sizes or contents differ"),
    ],
)
def test_eval_and_resume_reject_changed_data(cli, run, tmp_path, change, said):
    change(tmp_path / "a" / "pics")
    for words in ((*KNN, f"run={run}"), ("resume", str(run), "train.steps=3")):
        refused = cli(*words)
        assert refused.code == 7, refused.err
        assert said in refused.err
        assert "allow_data_change=true" in refused.err
    result, record = measured(cli, run, "allow_data_change=true")
    assert result.code == 0, result.err
    assert any("changed since the run was trained" in note for note in record["protocol"]["notes"])
    allowed = cli("resume", str(run), "train.steps=3", "allow_data_change=true")
    assert allowed.code == 0, allowed.err
    if "added" not in said:  # of one shape: the data as they are now are the run's, also after one more resume
        assert cli("resume", str(run), "train.steps=4").code == 0
        assert cli(*KNN, f"run={run}").code == 0
    assert json.loads((run / "status.json").read_text())["data"]["shape"] == [1, 16, 16]


def test_color_image_among_gray_is_read_as_gray(run, tmp_path):
    picture(tmp_path / "a" / "pics" / "ant" / "new.png", 90, "RGB")
    record = read_record(Run(run), allow_change=True)
    node = with_recorded_paths(Run(run).config["dataset"], record)
    assert (node["channels"], node["image_size"]) == (1, 16)


def test_eval_of_run_on_class_subset(cli):
    made = cli("pretrain", *RUN[:-2], "dataset=digits", "train.classes=[3,7]", "train.batch_size=64")
    assert made.code == 0, made.err
    assert measured(cli, made.last)[0].code == 0
    assert cli("resume", made.last, "train.steps=3").code == 0


def test_resume_changed_contents_same_sizes(cli, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):  # uncompressed: the size stays
        path = tmp_path / "pics" / f"{i}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 99, (8, 8), dtype=np.uint8)).save(path)
    trained = cli("pretrain", *RUN)
    assert trained.code == 0, trained.err
    for path in (tmp_path / "pics").iterdir():
        Image.fromarray(rng.integers(99, 255, (8, 8), dtype=np.uint8)).save(path)
    refused = cli("resume", trained.last, "train.steps=3")
    assert refused.code == 7
    assert "the mean of the channels is" in refused.err


def test_moved_data_matched_by_fingerprint(cli, run, tmp_path):
    (tmp_path / "a" / "pics").rename(tmp_path / "scratch")
    gone, _ = measured(cli, run)
    assert gone.code == 7
    assert "dataset.path=NEW" in gone.err
    result, record = measured(cli, run, "dataset.path=../scratch")
    assert result.code == 0, result.err
    assert record["eval"] == "knn"  # the run's own data, under their own name
    resumed = cli("resume", str(run), "dataset.path=../scratch", "train.steps=4")
    assert resumed.code == 0, resumed.err
    assert "dataset.path was pics, is ../scratch" in resumed.err
    os.chdir(tmp_path)
    again, _ = measured(cli, run)  # resume keeps where they lie
    assert again.code == 0, again.err
    folder(tmp_path / "other", n=9)
    refused, _ = measured(cli, run, "dataset.path=other")
    assert refused.code == 7
    assert "18 samples, were 20" in refused.err
    assert cli("resume", str(run), "dataset.path=other", "train.steps=5").code == 7


def test_resume_finished_run_updates_data_path(cli, run, tmp_path):
    (tmp_path / "a" / "pics").rename(tmp_path / "scratch")
    gone = cli("runs", "report", str(run))
    assert f"sslcli resume {run} dataset.path=NEW" in gone.err
    kept = cli("resume", str(run), "dataset.path=../scratch")
    assert kept.code == 0, kept.err
    assert f"are at {tmp_path / 'scratch'} now" in kept.err
    assert "nothing to resume" in kept.err
    assert measured(cli, run)[0].code == 0
    folder(tmp_path / "other", n=9)
    assert cli("resume", str(run), "dataset.path=../other").code == 7
    assert measured(cli, run)[0].code == 0


def test_moved_project_finds_data(cli, run, tmp_path):
    os.chdir(tmp_path)
    (tmp_path / "a").rename(tmp_path / "c")
    os.chdir(tmp_path / "c")
    result, _ = measured(cli, tmp_path / "c" / "runs" / run.name)
    assert result.code == 0, result.err


def test_eval_named_dataset_may_differ(cli, run, tmp_path):
    picture(tmp_path / "a" / "pics" / "ant" / "new.png", 90)
    result, record = measured(cli, run, "dataset=image_folder", "dataset.path=pics")
    assert result.code == 0, result.err
    assert record["eval"] == "knn@image_folder"
    assert not (run / "eval" / "knn.json").exists()


def test_run_without_data_record(cli, run, tmp_path):
    status = json.loads((run / "status.json").read_text())
    del status["data"]
    (run / "status.json").write_text(json.dumps(status))
    assert measured(cli, run)[0].code == 0
    assert cli("resume", str(run), "train.steps=3").code == 0
    for name in ("data", "fingerprint"):
        status = json.loads((run / "status.json").read_text())
        status.pop(name)
        (run / "status.json").write_text(json.dumps(status))
    encoder = json.loads((run / "encoder.json").read_text())
    assert read_record(Run(run)).known == {
        "modality": "image",
        "shape": encoder["input_shape"],
        "values": encoder["values"],
        "preprocessor": encoder["preprocessor"]["sha256"],
    }
    picture(tmp_path / "a" / "pics" / "ant" / "new.png", 90, "RGB", side=40)
    refused, _ = measured(cli, run)
    assert refused.code == 7
    assert "Traceback" not in refused.err
    assert measured(cli, run, "allow_data_change=true")[0].code == 0  # at its own size, in gray


def test_data_differences_changed_holdout(tmp_path):
    """Labels of a list changed: the files are the same, the held-out ones are not."""
    folder(tmp_path / "pics")
    names = [f"pics/{c}/{i}.png" for c in ("ant", "bee") for i in range(10)]
    kinds = ["u"] * 10 + ["v"] * 10
    lists = []
    for labels in (kinds, kinds[5:] + kinds[:5]):
        path = tmp_path / f"{len(lists)}.csv"
        path.write_text("path,label\n" + "\n".join(f"{n},{k}" for n, k in zip(names, labels, strict=True)))
        lists.append(image_folder(str(path)))
    assert lists[0].fingerprint == lists[1].fingerprint
    known = describe_dataset(lists[0])
    assert data_differences(known, lists[0]) == []
    assert any("other samples are held out" in said for said in data_differences(known, lists[1]))


def test_read_record_invalid_values(run):
    status = json.loads((run / "status.json").read_text())
    status["data"] = {"path": 3, "shape": "1 x 2", "mean": [None], "samples": {"train": "many"}, "fingerprint": [1]}
    (run / "status.json").write_text(json.dumps(status))
    assert read_record(Run(run)).known == {}
    shutil.copy(run / "config.yaml", run / "config.yaml.bak")
    assert yaml.safe_load((run / "config.yaml").read_text())["dataset"]["path"] == "pics"


def test_eval_changed_labels_in_list(cli, tmp_path):
    """The names, the sizes and the held-out samples stay: only what a training sample is called has changed."""
    folder(tmp_path / "pics")
    rows = [f"pics/{name}/{i}.png,{name},{'test' if i > 6 else 'train'}" for name in ("ant", "bee") for i in range(10)]

    def write(lines: list[str]) -> None:
        (tmp_path / "list.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")

    write(rows)
    trained = cli("pretrain", *RUN[:-1], "dataset.path=list.csv")
    assert trained.code == 0, trained.err
    write(rows[::-1])  # the same labels in another order
    assert cli(*KNN, f"run={trained.last}").code == 0
    write([rows[0].replace(",ant", ",bee"), *rows[1:]])
    refused = cli(*KNN, f"run={trained.last}")
    assert (refused.code, "other labels" in refused.err, "allow_data_change=true" in refused.err) == (7, True, True)
    _, record = measured(cli, trained.last, "allow_data_change=true")
    assert any("other labels" in note for note in record["protocol"]["notes"])


def people(path: Path, n: int = 40) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(n)
    lines = ["age,town,label", *(f"{rng.normal(40, 9):.2f},{'abc'[i % 3]},{'xy'[i % 2]}" for i in range(n))]
    path.write_text("\n".join(lines))
    return path


TABLE = ["method=vicreg", "backbone=mlp", "backbone.width=8", *RUN[2:8], "dataset=table"]


def test_test_file_is_found_from_another_folder(cli, tmp_path):
    """dataset.test is a second path: another file of this name in the working folder is not read."""
    people(tmp_path / "a" / "train" / "people.csv")
    people(tmp_path / "a" / "test" / "others.csv", 20)
    os.chdir(tmp_path / "a")
    trained = cli("pretrain", *TABLE, "dataset.path=train/people.csv", "dataset.test=test/others.csv")
    assert trained.code == 0, trained.err
    run = (tmp_path / "a" / trained.last).resolve()
    kept = json.loads((run / "status.json").read_text())["data"]
    assert (kept["path"], kept["paths"]) == (
        str(tmp_path / "a" / "train" / "people.csv"),
        {"test": str(tmp_path / "a" / "test" / "others.csv")},
    )
    people(tmp_path / "b" / "test" / "others.csv", 33)
    os.chdir(tmp_path / "b")
    result, record = measured(cli, run)
    assert result.code == 0, result.err
    assert record["protocol"]["splits"]["test"] == 20
    assert cli("resume", str(run), "train.steps=3").code == 0


def test_rows_of_a_file_without_a_header_are_embedded(cli, tmp_path):
    whole = people(tmp_path / "people.csv").read_text().splitlines()
    (tmp_path / "rows.csv").write_text("\n".join(whole[1:]))
    (tmp_path / "later.csv").write_text("\n".join(line.rpartition(",")[0] for line in whole[1:]))
    trained = cli("pretrain", *TABLE, "dataset.path=rows.csv", "dataset.names=[age,town,label]")
    assert trained.code == 0, trained.err
    encoder = sslcli.load(trained.last)
    expected = encoder.embed("people.csv")
    assert expected.shape == (40, encoder.dim)
    assert torch.equal(encoder.embed("rows.csv"), expected)
    assert torch.equal(encoder.embed(tmp_path / "later.csv"), expected)
    assert torch.equal(encoder.transform("later.csv"), encoder.transform("people.csv"))


def test_same_data_set_from_another_folder(tmp_path):
    train, test = (str(people(tmp_path / "a" / f"{name}.csv")) for name in ("train", "test"))
    node = {"_target_": "sslcli.data.table", "path": "train.csv", "test": "test.csv"}
    record = DataRecord("run", {"path": train, "paths": {"test": test}})
    given = {**node, "modality": "table", "path_keys": ["path", "test"]}
    os.chdir(tmp_path / "a")
    assert is_same_dataset(given, {**node, "path_keys": ["path", "test"]}, record)
    assert is_same_dataset({**given, "test": test}, {**node, "path_keys": ["path", "test"]}, record)
    assert not is_same_dataset({**given, "test": train}, {**node, "path_keys": ["path", "test"]}, record)


def test_key_that_the_run_did_not_have_means_its_default(tmp_path):
    node = {"_target_": "sslcli.data.table", "path": str(people(tmp_path / "t.csv"))}
    record = DataRecord("run", {"path": node["path"]})
    assert is_same_dataset({**node, "task": "auto", "max_categories": 1000}, node, record)
    assert not is_same_dataset({**node, "task": "value"}, node, record)


def test_project_that_moved_as_a_whole(tmp_path):
    node = {"path": "train.csv", "test": "test.csv", "path_keys": ["path", "test"]}
    record = DataRecord("run", {"path": "/gone/train.csv", "paths": {"test": "/gone/test.csv"}})
    os.chdir(tmp_path)
    people(tmp_path / "train.csv"), people(tmp_path / "test.csv")
    found = with_recorded_paths(node, record)
    assert (found["path"], found["test"]) == (str(tmp_path / "train.csv"), str(tmp_path / "test.csv"))


def test_file_beside_the_table_stays_relative(tmp_path):
    """`dataset.test=test.csv` may lie beside dataset.path: the reader looks there."""
    os.chdir(tmp_path)
    node = with_absolute_paths({"path": "data/train.csv", "test": "test.csv", "path_keys": ["path", "test"]})
    assert (node["path"], node["test"]) == (str(tmp_path / "data" / "train.csv"), "test.csv")


def test_lists_of_files_become_absolute(tmp_path):
    os.chdir(tmp_path)
    (tmp_path / "more.txt").touch()
    node = with_absolute_paths(
        {"path": "a.csv", "unlabelled": ["more.txt", "x/*.txt"], "path_keys": ["path", "unlabelled"]}
    )
    assert node["unlabelled"] == [str(tmp_path / "more.txt"), "x/*.txt"]


@pytest.mark.parametrize("name", sorted(registry.choices("dataset")))
def test_path_keys_name_all_paths(name):
    """Keys that are called so in a data set's YAML file name files; path_keys lists them."""
    node = registry.describe(registry.choices("dataset")[name], "dataset")
    named = {
        key for key in node if key in ("path", "test", "train", "file", "folder", "root", "manifest") and key in node
    }
    named -= {"train"} if isinstance(node.get("train"), dict) else set()
    assert named <= set(path_keys(node))
    assert set(path_keys(node)) <= set(node) | {"path"}
