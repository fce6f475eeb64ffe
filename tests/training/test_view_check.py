"""Views that a method compares and that are identical: a warning before training.

1. Recipes without a random operation are warned of, for every kind of data, in memory and on disk; others are not.
2. The warning names an operation that null leaves out. A single view, and methods that learn from labels, are not warned of.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sslcli import builders
from sslcli.config import compose
from sslcli.training import configuration
from sslcli.training.view_check import are_identical
from sslcli.views import Views
from tests.conftest import SMOKE
from tests.data.conftest import make_folder  # noqa: F401

RECIPE = """
summary: a mirror without parameters
global:
  horizontal_flip:
"""
SHORT = [word for word in SMOKE if not word.startswith("backbone.")]


def test_forgotten_parameters_are_warned_of(cli, tmp_path):
    folder = tmp_path / "mine" / "augmentation"
    folder.mkdir(parents=True)
    (folder / "mirror.yaml").write_text(RECIPE)
    words = ["pretrain", "--config-dir", "mine", *SHORT, "--dry-run", "method=simclr"]
    done = cli(*words, "augmentation=mirror")
    assert done.code == 0, done.err
    assert "the 2 views of each sample are identical: augmentation.global has no random operation" in done.err
    assert "'augmentation.global.horizontal_flip={}'" in done.err
    for others in (
        ["augmentation=mirror", "augmentation.global.horizontal_flip={}"],
        ["augmentation=mirror", "+augmentation.global.noise={}"],
        ["augmentation=none", "method=supervised"],
        ["augmentation=none", "method=mae", "backbone=vit_micro"],
        ["augmentation=simclr", "augmentation.global.gaussian_blur=null"],
    ):
        done = cli(*words, *others)
        assert done.code == 0, done.err
        assert "are identical" not in done.err, others


def test_files_on_disk_are_warned_of(cli, make_folder):  # noqa: F811
    make_folder({"a": 10, "b": 10})
    words = [*SHORT, "dataset=image_folder", "dataset.path=photos", "dataset.resident=false", "train.batch_size=8"]
    done = cli("pretrain", *words, "--dry-run", "method=byol", "augmentation=none")
    assert done.code == 0, done.err
    assert "the 2 views of each sample are identical" in done.err
    assert "sslcli list augmentations" in done.err
    assert Path("photos").is_dir()


@pytest.mark.parametrize(
    ("name", "random"),
    [
        ("digits", "noise"),
        ("wine", "corrupt"),
        ("capitals", "delete"),
        ("tones", "gain"),
        ("sessions", "reorder"),
    ],
)
def test_views_of_every_kind_of_data_are_compared(name, random):
    values = configuration.resolve(compose.compose("pretrain", [f"dataset={name}"]))
    dataset = builders.load_dataset(values)
    assert are_identical(Views({"clean": 2}, {}, dataset), dataset.pretrain)
    assert not are_identical(Views({"clean": 1}, {}, dataset), dataset.pretrain)
    assert not are_identical(Views({"weak": 2}, {"weak": {random: {}}}, dataset), dataset.pretrain)
