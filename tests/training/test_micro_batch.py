"""A micro-batch of one sample is refused before any work where a batch norm would see a single value."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sslcli.errors import RequestError
from sslcli.training.setup import rehearse
from sslcli.views import Views
from tests import rows

SHORT = ["train.epochs=null", "train.steps=1", "train.eval_every=0", "device.type=cpu", "device.threads=1"]


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=wine", "train.batch_size=1"],
        ["dataset=wine", "train.batch_size=4", "train.accumulate=4"],
        ["dataset=digits", "backbone=resnet18", "train.batch_size=1"],  # whose last map is one pixel
    ],
)
def test_batch_norm_of_one_value_is_refused(cli, tmp_path, words):
    refused = cli("pretrain", "method=supervised", *words, *SHORT)
    assert refused.code == 2, refused.err
    assert "Supervised sees one sample at a time, and batch normalization" in refused.err
    assert "a larger train.batch_size" in refused.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=wine", "backbone=ft_transformer"],  # no batch norm
        ["dataset=digits", "backbone=convnet", "backbone.width=8"],  # batch norm of maps
    ],
)
def test_one_sample_at_a_time_is_trained(cli, words):
    trained = cli("pretrain", "method=supervised", *words, "train.batch_size=2", "train.accumulate=2", *SHORT)
    assert trained.code == 0, trained.err


class OneAtATime(nn.Module):
    """A method of one row, with the layers `head` on it."""

    min_batch, uses_labels, uses_captions = 1, False, False

    def __init__(self, *head: nn.Module):
        super().__init__()
        self.backbone = nn.Linear(6, 3)
        self.head = nn.Sequential(*head)
        self.seen: list[int] = []

    def forward(self, batch):
        (x,) = batch.views
        if len(x) == 1 and not len(self.head):
            raise ValueError("another error")
        return {"loss": self.head(self.backbone(x.nan_to_num())).sum()}


def test_other_errors_are_not_translated():
    views = Views({"clean": 1}, {}, rows.dataset())
    with pytest.raises(RequestError, match="OneAtATime sees one sample at a time"):
        rehearse(OneAtATime(nn.BatchNorm1d(3)), views, rows.dataset(), micro_batch=1)
    with pytest.raises(ValueError, match="another error"):
        rehearse(OneAtATime(), views, rows.dataset(), micro_batch=1)
    rehearse(OneAtATime(nn.BatchNorm1d(3)), views, rows.dataset(), micro_batch=2)


def test_rehearsal_changes_nothing():
    method = OneAtATime(nn.BatchNorm1d(3))
    before = {k: v.clone() for k, v in method.state_dict().items()}
    state = torch.random.get_rng_state()
    rehearse(method, Views({"clean": 1}, {}, rows.dataset()), rows.dataset())
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
