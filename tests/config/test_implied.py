"""What a request implies: the method of a kind of data, and one length of training."""

from __future__ import annotations

import pytest

from sslcli.config import compose
from sslcli.config.modalities import with_implied

SERIES = ["dataset=series", "dataset.path=x.npz"]
TEXT = ["dataset=text_table", "dataset.path=x.csv"]


def composed(words: list[str]) -> tuple[str, str, int | None, int | None]:
    cfg = compose.compose("pretrain", with_implied(words))
    names = [cfg[group]["_target_"].rpartition(".")[2] for group in ("method", "backbone")]
    return (*names, cfg.train.steps, cfg.train.epochs)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (SERIES, ("TS2Vec", "Dilated", 200, None)),
        ([*SERIES, "train.epochs=7"], ("TS2Vec", "Dilated", None, 7)),
        ([*SERIES, "train.epochs=7", "train.steps=9"], ("TS2Vec", "Dilated", 9, 7)),
        ([*SERIES, "method=simclr"], ("SimCLR", "TCN", None, 100)),
        ([*TEXT], ("SimCLR", "BERT", 270, None)),
        ([*TEXT, "train.epochs=3"], ("SimCLR", "BERT", None, 3)),
        ([*TEXT, "method=mlm"], ("MLM", "BERT", None, 10)),
        ([*TEXT, "init=hf:folder"], ("SimSiam", "BERT", None, 10)),
        (["dataset=table", "dataset.path=x.csv"], ("SCARF", "MLP", None, 100)),
        ([*SERIES, "backbone=mlp"], ("SimSiam", "MLP", None, 100)),
        ([*SERIES, "method=ts2vec", "backbone=gru", "train.budget=1m"], ("TS2Vec", "GRU", None, None)),
        ([], ("SimSiam", "ConvNet", None, 90)),
        (["experiment=smoke", "train.epochs=2"], ("SimSiam", "ConvNet", None, 2)),
        (["experiment=documents", "train.epochs=2"], ("SimCLR", "BERT", None, 2)),
        (["experiment=documents"], ("SimCLR", "BERT", 270, None)),
    ],
)
def test_method_and_length_follow_the_request(words, wanted):
    assert composed(words) == wanted


@pytest.mark.parametrize(
    "words",
    [
        [*SERIES, "experiment=smoke"],
        ["dataset=digits", "train.epochs=3"],
        ["dataset=series,digits"],
        ["method=ts2vec,simclr", "train.epochs=3"],
    ],
)
def test_nothing_is_implied(words):
    assert with_implied(words) == words
