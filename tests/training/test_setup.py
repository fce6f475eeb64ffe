"""Checks of a request before a run is built."""

from __future__ import annotations

import pytest

from sslcli.methods.mae import MAE
from sslcli.methods.simsiam import SimSiam
from sslcli.training.setup import check_data_for_method
from tests import rows

OLD_METHOD = """
from sslcli.methods.simsiam import SimSiam


class Old(SimSiam):
    needs_tokens = True
    modalities = ("image",)
"""


@pytest.mark.parametrize(
    ("name", "value", "instead"), [("needs_tokens", True, "positions"), ("modalities", ("image",), "pixels")]
)
def test_removed_attributes_are_warned_of(capsys, name, value, instead):
    check_data_for_method([type("Old", (SimSiam,), {name: value})], rows.dataset())
    said = capsys.readouterr().err
    assert f"Old.{name} has no effect: it was replaced by `requires`" in said
    assert f'"{instead}"' in said


def test_methods_of_today_are_not_warned_of(capsys):
    check_data_for_method([SimSiam, MAE], rows.dataset())
    assert capsys.readouterr().err == ""


def test_method_of_a_plug_in_is_warned_of(cli, tmp_path):
    folder = tmp_path / "mine"
    (folder / "method").mkdir(parents=True)
    (folder / "old.py").write_text(OLD_METHOD)
    text = "_target_: old.Old\nsummary: of an earlier version\nproj_dim: 16\npred_dim: 8\nplan: {global: 2}\n"
    (folder / "method" / "old.yaml").write_text(text)
    short = ["train.epochs=null", "train.steps=1", "train.batch_size=8", "device.type=cpu", "device.threads=1"]
    trained = cli("pretrain", "--config-dir", str(folder), "method=old", "dataset=wine", *short)
    assert trained.code == 0, trained.err
    assert "Old.needs_tokens has no effect" in trained.err
    assert "Old.modalities has no effect" in trained.err
