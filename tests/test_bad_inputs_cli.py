"""Bad inputs through the door: the exit code, the words, and that no folder is left (each: tests/data/test_bad_inputs.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.parametrize(("make", "kind", "sentence", "hint"), REFUSED, ids=[r[0].__name__.strip("_") for r in REFUSED])
def test_a_folder_that_cannot_be_used(cli, tmp_path, make, kind, sentence, hint):
    path = make(tmp_path / "data")
    result = cli("pretrain", *SMALL, f"dataset.path={path}")
    assert result.code == kind.code, result.err
    assert result.err.count("error: ") == 1
    assert hint in result.err if hint else "hint: " in result.err
    assert result.out == ""
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "name", ["a b", "a,b", "a=b", "[a]", "it's", "{x}", "Ä ö", "-rf", "a\\b", "$(touch x)", "100%"]
)
def test_paths_need_no_quoting_for_hydra(cli, tmp_path, name):
    two_classes(tmp_path / name, n=20)
    result = cli("pretrain", *SMALL, f"dataset.path={tmp_path / name}", "train.steps=1")
    assert result.code == 0, result.err


def test_one_class_is_no_probe(cli, tmp_path):  # 27
    from tests.data.conftest import picture

    (tmp_path / "data" / "only").mkdir(parents=True)
    for i in range(40):
        picture(i).save(tmp_path / "data" / "only" / f"{i}.png")
    assert cli("pretrain", *SMALL, f"dataset.path={tmp_path / 'data'}", "train.steps=1").code == 0
    refused = cli("eval", "probe")
    assert refused.code in (2, 7)
    assert "class" in refused.err


def test_unlabelled_data_pretrain_and_say_why_there_is_no_probe(cli, tmp_path):
    from tests.data.conftest import picture

    (tmp_path / "data").mkdir()
    for i in range(60):
        picture(i).save(tmp_path / "data" / f"{i}.png")
    assert cli("pretrain", *SMALL, f"dataset.path={tmp_path / 'data'}", "train.eval_every=1", "train.steps=2").code == 0
    refused = cli("eval", "knn")
    assert refused.code in (2, 7)
    assert "label" in refused.err
    assert cli("eval", "quality").code == 0


def test_strict_inspection_finds_what_is_broken(cli, tmp_path):
    folder = two_classes(tmp_path / "data", n=20)
    (folder / "cat" / "torn.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:60])
    result = cli("data", "inspect", "dataset=image_folder", f"dataset.path={folder}", "--strict")
    assert result.code == 7, result
    assert "torn.png" in result.out + result.err


def test_resume_after_files_changed_is_refused(cli, tmp_path, monkeypatch):  # 29
    from sslcli import train
    from tests.test_train import Killed

    folder = two_classes(tmp_path / "data", n=20)
    original = train.Trainer.save

    def save(self, first=False):
        original(self, first)
        raise Killed

    monkeypatch.setattr(train.Trainer, "save", save)
    with pytest.raises(Killed):
        cli("pretrain", *SMALL, f"dataset.path={folder}", "train.batch_size=16")
    monkeypatch.setattr(train.Trainer, "save", original)
    (folder / "cat" / "0.png").unlink()
    refused = cli("resume", "latest")
    assert refused.code == 2
    assert "fingerprint" in refused.err
