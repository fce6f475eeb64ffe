"""Anomaly scores of steps: means over windows, metrics over steps, and the file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sslcli.data.sources.series import series
from sslcli.errors import DataError, RequestError
from sslcli.evals.anomaly import anomaly
from sslcli.evals.base.features import EvalData
from sslcli.evals.steps.scores import average_precision, step_scores


def test_steps_have_the_mean_of_their_windows():
    g = torch.Generator().manual_seed(0)
    spans = torch.tensor([[0, 0, 5], [0, 3, 5], [0, 6, 2], [2, 4, 3], [2, 10, 3]])
    scores = torch.rand(5, generator=g)
    steps = step_scores(scores, spans, [torch.arange(8) % 2, None, torch.arange(13) % 3 - 1])
    at = list(zip(steps.recording.tolist(), steps.step.tolist(), strict=True))
    assert at == [*((0, t) for t in range(8)), *((2, t) for t in (4, 5, 6, 10, 11, 12))]
    for (recording, t), score, known in zip(at, steps.score.tolist(), steps.anomalous.tolist(), strict=True):
        inside = [
            s for s, (r, a, n) in zip(scores.tolist(), spans.tolist(), strict=True) if r == recording and a <= t < a + n
        ]
        assert score == pytest.approx(np.mean(inside), rel=1e-6)
        assert known == (t % 2 if recording == 0 else t % 3 - 1)


def test_average_precision_is_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    g = torch.Generator().manual_seed(0)
    anomalous = torch.rand(200, generator=g) < 0.2
    for score in (torch.rand(200, generator=g), torch.randint(0, 6, (200,), generator=g).double(), torch.zeros(200)):
        expected = average_precision_score(anomalous.numpy(), score.numpy())
        assert average_precision(score, anomalous) == pytest.approx(expected)


def machine(path, anomalous: bool = True) -> str:
    """Recordings of a wave; the last ones have a burst of noise, at known steps."""
    rng = np.random.default_rng(0)
    lines = ["id,time,v,fault"]
    for recording in range(10):
        x = np.sin(np.arange(80) / 3) + 0.1 * rng.normal(size=80)
        bad = np.zeros(80, int)
        if anomalous and recording >= 8:
            bad[30:50] = 1
            x[30:50] = 3 * rng.normal(size=20)
        lines += [f"{recording},{t},{x[t]:.4f},{bad[t]}" for t in range(80)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_anomaly_reports_steps(tmp_path):
    path = machine(tmp_path / "m.csv")
    text = "split,id,time,v,fault\n" + "".join(
        f"{'test' if int(line.split(',')[0]) >= 8 else 'train'},{line}\n"
        for line in Path(path).read_text().splitlines()[1:]
    )
    (tmp_path / "s.csv").write_text(text)
    data = series(str(tmp_path / "s.csv"), window=8, stride=2, step_label="fault")
    assert data.shape == (1, 8)
    result = anomaly(nn.Flatten(), EvalData(data), scores=["knn_l2"], normal="all", baselines=False)
    assert result.metrics["steps.auroc"] > 0.9
    assert result.metrics["steps.ap"] > 0.7
    assert result.metrics["knn_l2.steps.auroc"] == result.metrics["steps.auroc"]
    result.artefacts["steps.csv"].save(tmp_path / "steps.csv")
    rows = list(csv.DictReader((tmp_path / "steps.csv").read_text().splitlines()))
    assert len(rows) == 2 * 80
    assert [int(row["step"]) for row in rows[:80]] == list(range(80))
    assert sum(int(row["anomalous"]) for row in rows) == 40


def test_steps_of_a_held_out_part_are_those_of_its_recordings(tmp_path):
    data = series(machine(tmp_path / "m.csv"), window=8, stride=4, step_label="fault", holdout=0.3)
    assert torch.equal(data.train.spans[:, 0].unique(), data.train.groups.unique())
    for i in (0, 7):
        recording, start, steps = data.test.spans[i].tolist()
        assert steps == 8
        assert int(data.test.step_labels[recording][start : start + 8].sum()) == 8 * (
            recording >= 8 and 30 <= start <= 42
        )
    plain = anomaly(
        nn.Flatten(), EvalData(series(machine(tmp_path / "m.csv", False), window=8, drop=["fault"])), baselines=False
    )
    assert "steps.csv" in plain.artefacts
    assert "steps.auroc" not in plain.metrics


def test_bad_step_labels_are_errors(tmp_path):
    path = machine(tmp_path / "m.csv")
    with pytest.raises(RequestError, match=r"dataset\.step_label=faults is not a column"):
        series(path, window=8, step_label="faults")
    with pytest.raises(DataError, match="holds other numbers than 0 and 1"):
        series(path, window=8, step_label="v")
