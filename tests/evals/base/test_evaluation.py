"""Evaluations from Python: a resolved configuration in, records out, without Hydra's command line."""

from __future__ import annotations

import pytest

from sslcli.config import compose
from sslcli.errors import RequestError
from sslcli.evals.base.evaluation import evaluate
from sslcli.training.configuration import resolve


def values(*overrides: str) -> dict:
    return resolve(
        compose.compose("eval", ["run=none", "dataset=digits", "backbone=convnet", "backbone.width=8", *overrides])
    )


def test_evaluation_returns_records_by_evaluator(capsys):
    cfg = values("evaluator=knn")
    reports = []
    records = evaluate(cfg, {"knn": cfg["evaluator"]}, report=lambda *args: reports.append(args))
    assert list(records) == ["knn"]
    record = records["knn"]
    assert 0.5 < record["numbers"]["top1"] <= 1
    assert {"protocol", "intervals", "details", "artefacts", "fingerprint", "sha256", "seconds", "time"} <= set(record)
    assert reports == [("knn", record, None)]
    assert capsys.readouterr().out == ""


def test_evaluation_of_an_unknown_run_is_a_request_error(tmp_path, monkeypatch):
    monkeypatch.setenv("SSLCLI_RUNS", str(tmp_path))
    cfg = {**values("evaluator=knn"), "run": "missing"}
    with pytest.raises(RequestError, match="missing"):
        evaluate(cfg, {"knn": cfg["evaluator"]})
