"""Unusable data on the command line: exit code and error, and no run folder (the errors: tests/data/test_bad_inputs.py)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.test_bad_inputs import REFUSED, two_classes

SMALL = [
    "dataset=image_folder",
    "backbone=convnet",
    "backbone.width=8",
    "experiment=smoke",
    "device=cpu",
    "device.threads=1",
    "device.workers=0",
]


@pytest.mark.parametrize(("make", "error", "message", "hint"), REFUSED, ids=[r[0].__name__.strip("_") for r in REFUSED])
def test_unusable_folder(cli, tmp_path, make, error, message, hint):
    path = make(tmp_path / "data")
    result = cli("pretrain", *SMALL, f"dataset.path={path}")
    assert result.code == error.code, result.err
    assert result.err.count("error: ") == 1
    assert hint in result.err if hint else "hint: " in result.err
    assert result.out == ""
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "name", ["a b", "a,b", "a=b", "[a]", "it's", "{x}", "Ä ö", "-rf", "a\\b", "$(touch x)", "100%"]
)
def test_path_needs_no_hydra_quoting(cli, tmp_path, name):
    two_classes(tmp_path / name, n=20)
    result = cli("pretrain", *SMALL, f"dataset.path={tmp_path / name}", "train.steps=1")
    assert result.code == 0, result.err


def test_probe_needs_two_classes(cli, tmp_path):
    from tests.data.conftest import make_image

    (tmp_path / "data" / "only").mkdir(parents=True)
    for i in range(40):
        make_image(i).save(tmp_path / "data" / "only" / f"{i}.png")
    assert cli("pretrain", *SMALL, f"dataset.path={tmp_path / 'data'}", "train.steps=1").code == 0
    refused = cli("eval", "probe")
    assert refused.code in (2, 7)
    assert "class" in refused.err


def test_unlabeled_data_pretrains_only(cli, tmp_path):
    from tests.data.conftest import make_image

    (tmp_path / "data").mkdir()
    for i in range(60):
        make_image(i).save(tmp_path / "data" / f"{i}.png")
    assert cli("pretrain", *SMALL, f"dataset.path={tmp_path / 'data'}", "train.eval_every=1", "train.steps=2").code == 0
    refused = cli("eval", "knn")
    assert refused.code in (2, 7)
    assert "label" in refused.err
    assert cli("eval", "quality").code == 0


def test_inspect_strict_finds_unreadable_files(cli, tmp_path):
    folder = two_classes(tmp_path / "data", n=20)
    (folder / "cat" / "broken.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:60])
    arguments = ["data", "inspect", "dataset=image_folder", f"dataset.path={folder}", "--strict"]
    for resident in ("true", "false"):
        for limit, code in (("0.01", 0), ("0", 7)):  # one in 41 is within 1 %, rounded up
            result = cli(*arguments, f"dataset.resident={resident}", f"dataset.max_bad_fraction={limit}")
            assert result.code == code, result
            assert "unreadable     1 of 41" in result.out
            assert "cat/broken.png" in result.out
            report = json.loads(cli(*arguments, f"dataset.resident={resident}", "--json").out)
            assert [b["name"] for b in report["bad"]] == ["cat/broken.png"]


def test_too_many_unreadable_files(cli, tmp_path):
    from tests.data.bad_files import make_folder

    unreadable = make_folder(tmp_path / "data", 200, 0.2)
    data = ["dataset=image_folder", f"dataset.path={tmp_path / 'data'}"]
    for resident in ("true", "false"):
        arguments = [*data, f"dataset.resident={resident}"]
        result = cli("data", "inspect", *arguments, "--strict", "--json")
        assert result.code == 7
        assert {b["name"] for b in json.loads(result.out)["bad"]} == set(unreadable)
        result = cli("pretrain", *SMALL, *arguments[1:])
        assert result.code == 7
        assert "of 200 samples cannot be read, more than 1.0%" in result.err
        assert not Path("runs").exists()
    for resident in ("true", "false"):
        arguments = [
            *SMALL,
            *data[1:],
            f"dataset.resident={resident}",
            "dataset.max_bad_fraction=0.3",
            "train.batch_size=16",
        ]
        assert cli("pretrain", *arguments).code == 0


def test_folder_name_may_be_a_number(cli, tmp_path, monkeypatch):
    two_classes(tmp_path / "2024", n=20)
    monkeypatch.chdir(tmp_path)
    assert cli("data", "inspect", "dataset=image_folder", "dataset.path=2024").code == 0


def test_resume_refuses_changed_files(cli, tmp_path, monkeypatch):
    from sslcli.training.loop import trainer
    from tests.conftest import Killed

    folder = two_classes(tmp_path / "data", n=20)
    original = trainer.Trainer.save

    def save(self, **kw):
        original(self, **kw)
        raise Killed

    monkeypatch.setattr(trainer.Trainer, "save", save)
    with pytest.raises(Killed):
        cli("pretrain", *SMALL, f"dataset.path={folder}", "train.batch_size=16")
    monkeypatch.setattr(trainer.Trainer, "save", original)
    (folder / "cat" / "0.png").unlink()
    refused = cli("resume", "latest")
    assert refused.code == 7
    assert "fingerprint" in refused.err


def test_one_sample_is_refused(cli, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1, 8, 8), np.uint8))
    for batch in ("auto", "32"):
        refused = cli("pretrain", "dataset=arrays", "dataset.path=x.npy", f"train.batch_size={batch}", "--dry-run")
        assert (refused.code, "1 training sample: expected at least 2" in refused.err) == (7, True), refused.err


def test_pack_refuses_dangling_link(cli, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (8, 8)).save(folder / "a.png")
    (tmp_path / "x.pack").symlink_to("nowhere")
    refused = cli("data", "pack", "dataset=image_folder", "dataset.path=photos", "out=x.pack")
    assert (refused.code, "is not a pack" in refused.err) == (2, True)
    assert not (tmp_path / "x.pack.part").exists()


def test_removed_working_folder(cli, tmp_path, monkeypatch):
    folder = tmp_path / "removed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    refused = cli("data", "inspect", "dataset=digits")
    assert (refused.code, "the working folder no longer exists" in refused.err) == (2, True)
