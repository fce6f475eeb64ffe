from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import DataError, RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.fit.calibrated_probe import class_columns
from sslcli.evals.fit.linear_probe import fit_linear_probe
from sslcli.evals.inputs import attacks
from sslcli.evals.inputs.label_subsets import Amount
from sslcli.evals.metrics import calibration as calibration
from sslcli.evals.probe import probe
from sslcli.evals.robustness import robustness
from sslcli.nn.values import Continuous
from tests.evals import toys

FEW = {
    "corruptions": ["gaussian_noise", "contrast"],
    "max_samples": 60,
    "attack_samples": 30,
    "attack_steps": 3,
    "strength": 0.1,
}


# attacks ---------------------------------------------------------------------------------------------------------------


def linear(k: int = 2) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(12, k)


def flat(layer: nn.Linear):
    return lambda x: layer(x.flatten(1))


def pixels(n: int = 20) -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(n, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def test_attack_matches_closed_form_for_linear_model():
    """The worst change of eps is -eps sign(w) of the margin's weights; it lowers the margin by eps |w|_1, and a step finds it."""
    layer, x, eps = linear(), pixels(), 0.05
    y = layer(x.flatten(1)).argmax(dim=1)
    w = layer.weight[y] - layer.weight[1 - y]
    worst = (x.flatten(1) - eps * w.sign()).view_as(x)
    torch.testing.assert_close(attacks.fgsm(flat(layer), x, y, eps), worst)
    torch.testing.assert_close(attacks.pgd(flat(layer), x, y, eps, 10), worst)
    start = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.testing.assert_close(attacks.pgd(flat(layer), x, y, eps, 10, start), worst)
    margin = lambda z: (z.flatten(1) * w).sum(dim=1)  # noqa: E731
    torch.testing.assert_close(margin(x) - margin(worst), eps * w.abs().sum(dim=1))


@pytest.mark.parametrize("attack", [attacks.fgsm, lambda *a: attacks.pgd(*a, 5, torch.ones(20, 3, 2, 2))])
def test_attack_stays_in_value_range(attack):
    layer, x = linear(4), torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % 4
    z = attack(flat(layer), x, y, 0.1)
    assert (z - x).abs().max() <= 0.1 + 1e-6
    assert z.min() >= 0
    assert z.max() <= 1
    assert not z.requires_grad
    assert layer.weight.grad is None


def test_attack_matches_torchattacks():
    theirs = pytest.importorskip("torchattacks")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 4)).eval()
    x = pixels()
    y = torch.arange(20) % 4
    torch.testing.assert_close(attacks.fgsm(net, x, y, 0.03), theirs.FGSM(net, eps=0.03)(x, y))
    other = theirs.PGD(net, eps=0.03, alpha=2.5 * 0.03 / 10, steps=10, random_start=False)(x, y)
    torch.testing.assert_close(attacks.pgd(net, x, y, 0.03, 10), other)


# calibration -----------------------------------------------------------------------------------------------------------


def guesses(n: int = 400, k: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, k, (n,), generator=g)
    return 1.5 * torch.randn(n, k, generator=g) + 2 * F.one_hot(y, k), y


def test_calibration_error_of_known_case():
    p = torch.tensor([[0.95, 0.05], [0.85, 0.15], [0.25, 0.75], [0.65, 0.35]])
    y = torch.tensor([0, 1, 1, 0])
    assert calibration.ece(p, y, bins=2) == pytest.approx(0.05)  # all in one bin: confidence .8, accuracy .75
    assert calibration.ece(p, y, bins=10) == pytest.approx((0.05 + 0.85 + 0.25 + 0.35) / 4)  # each in its own
    assert calibration.brier(p, y) == pytest.approx((0.005 + 1.445 + 0.125 + 0.245) / 4)
    assert calibration.brier(p, torch.tensor([0, -1, 1, 0])) == pytest.approx((0.005 + 1.745 + 0.125 + 0.245) / 4)
    assert calibration.nll(p.log(), y) == pytest.approx(-math.log(0.95 * 0.15 * 0.75 * 0.65) / 4)
    table = calibration.reliability(p, y, bins=10)
    assert table[:, 0].tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1]
    assert table[8].tolist() == pytest.approx([1, 0.85, 0])


def test_calibration_error_matches_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.classification")
    logits, y = guesses()
    p = logits.softmax(dim=1)
    expected = metrics.multiclass_calibration_error(p, y, 5, n_bins=15, norm="l1")
    assert calibration.ece(p, y) == pytest.approx(float(expected), abs=1e-6)


def test_brier_and_nll_match_scikit_learn():
    from sklearn.metrics import brier_score_loss, log_loss

    logits, y = guesses()
    p = logits.double().softmax(dim=1)
    assert calibration.nll(logits, y) == pytest.approx(log_loss(y, p))
    assert calibration.brier(p[:, :2] / p[:, :2].sum(dim=1, keepdim=True), (y > 0).long()) == pytest.approx(
        2 * brier_score_loss((y > 0).long(), p[:, 1] / p[:, :2].sum(dim=1))
    )


def test_temperature_matches_scipy():
    from scipy.optimize import minimize_scalar

    logits, y = guesses()
    best = minimize_scalar(
        lambda t: calibration.nll(logits / t, y), bounds=(0.05, 20), method="bounded", options={"xatol": 1e-6}
    )
    t = calibration.fit_temperature(logits, y)
    assert t == pytest.approx(best.x, rel=1e-3)
    assert calibration.fit_temperature(3 * logits, y) == pytest.approx(3 * t, rel=1e-4)
    assert calibration.fit_temperature(5.0 * F.one_hot(y, 5), y) == pytest.approx(
        calibration.COLDEST, rel=1e-3
    )  # all right: no optimum


def drawn(n: int, factor: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (n, 5) that are `factor` times those of the probabilities that their classes are drawn by."""
    g = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 5, generator=g)
    return factor * logits, torch.multinomial(logits.softmax(dim=1), 1, generator=g)[:, 0]


def test_temperature_stays_where_scaling_does_not_help():
    """Of calibrated logits a fitted temperature is noise, which would make other samples worse."""
    chosen = [calibration.choose_temperature(*drawn(115, 1.0, seed), seed) for seed in range(40)]
    assert sum(t.value == 1.0 for t in chosen) >= 34
    assert max(abs(t.fitted - 1) for t in chosen) > 0.15
    kept = next(t for t in chosen if t.value == 1.0)
    assert kept.describe("held-out logits").startswith(
        f"1: {kept.fitted:.3g}, fitted to held-out logits, is no reliable"
    )
    worse = [  # on other samples, by the temperatures that were not taken
        calibration.nll(logits / t.fitted, y) - calibration.nll(logits, y)
        for t, (logits, y) in zip(chosen, (drawn(2000, 1.0, 100 + seed) for seed in range(40)), strict=True)
        if t.value == 1.0
    ]
    assert sum(worse) > 0


@pytest.mark.parametrize(("factor", "n"), [(3.0, 60), (3.0, 2000), (1 / 3, 300)])
def test_temperature_is_taken_where_logits_are_off(factor, n):
    found = calibration.choose_temperature(*drawn(n, factor, 1), 0)
    assert found.value == found.fitted == pytest.approx(factor, rel=0.5)
    assert found.losses[1] < found.losses[0]
    assert f"{n:,} labelled training samples (log loss" in found.describe("held-out logits")


def test_temperature_stays_where_all_held_out_samples_are_right():
    y = torch.arange(30) % 3
    found = calibration.choose_temperature(4.0 * F.one_hot(y, 3), y, 0)
    assert (found.value, found.held) == (1.0, 30)
    assert "30 labelled training samples that were held out are right" in found.describe("")
    assert calibration.choose_temperature(torch.zeros(0, 3), y[:0], 0) == calibration.Temperature()


# the evaluator ---------------------------------------------------------------------------------------------------------


def test_calibrated_head_matches_the_probe(data):
    backbone = toys.Rows()
    (x, y), (x_test, y_test) = data.features(backbone, "train"), data.features(backbone, "test")
    head = fit_linear_probe(x, y, Amount("all"), 0, data.dataset.classes)
    expected = probe(backbone, data, baselines=False).metrics["top1"]
    assert float((head.predict(x_test) == y_test).double().mean()) == pytest.approx(expected)
    torch.testing.assert_close(head.linear("cpu")(x_test), head.logits(x_test), atol=1e-4, rtol=1e-4)


def test_temperature_is_fitted_to_held_out_samples(data):
    from sslcli.evals.fit.calibrated_probe import held_out_temperature
    from sslcli.evals.inputs.label_subsets import folds

    x, y = data.features(toys.Rows(), "train")
    ids = torch.arange(0, 240, 4)
    some = torch.full_like(y, -1)
    some[ids] = y[ids]
    head = fit_linear_probe(x, some, Amount("all"), 0, strength=10.0)
    scaling = held_out_temperature(x, y, ids, head, data)
    fold, logits, y_true = folds(y[ids], 5, 0, 0), [], []
    for f in range(5):
        rest = torch.full_like(y, -1)
        rest[ids[fold != f]] = y[ids[fold != f]]
        logits.append(fit_linear_probe(x, rest, Amount("all"), 0, strength=10.0).logits(x[ids[fold == f]]))
        y_true.append(y[ids[fold == f]])
    assert scaling.held == 60
    assert scaling.fitted == pytest.approx(calibration.fit_temperature(torch.cat(logits), torch.cat(y_true)))
    assert scaling.fitted > calibration.fit_temperature(
        head.logits(x[ids]), y[ids]
    )  # on its own samples it is surer than it should be
    assert held_out_temperature(x, y, ids[:3], head, data) == calibration.Temperature()


def test_class_columns_of_missing_classes():
    classes = torch.tensor([1, 3, 7])
    assert class_columns(classes, torch.tensor([7, 1, 2, 9, 3, 0])).tolist() == [2, 0, -1, -1, 1, -1]


def test_robustness_metrics_and_protocol(data):
    result = robustness(toys.Rows(), data, **FEW)
    metrics = result.metrics
    for kind in ("", "raw.", "untrained."):
        assert {
            f"{kind}{n}" for n in ("clean.top1", "corrupted.top1", "drop", "pgd4.top1", "ece", "scaled.nll")
        } <= set(metrics)
    assert metrics["clean.top1"] > 0.9 > metrics["untrained.clean.top1"]
    assert metrics["corrupted.top1"] == pytest.approx((metrics["gaussian_noise.top1"] + metrics["contrast.top1"]) / 2)
    assert metrics["drop"] == pytest.approx(1 - metrics["corrupted.top1"] / metrics["clean.top1"])
    assert metrics["fgsm4.top1"] <= metrics["fgsm1.top1"] <= 1
    table = json.loads(json.dumps(result.details))["top1"]["backbone"]
    assert table[1][0] == table[0][0] == pytest.approx(metrics["clean.top1"])
    assert result.protocol["splits"] == {"train": 240, "labelled": 240, "test": 60}
    json.dumps(result.protocol)
    other = EvalData(toys.dataset(), untrained=toys.Blind, batch_size=7)
    assert robustness(toys.Rows(), other, **FEW).metrics == pytest.approx(metrics, abs=1e-3)


def test_clean_accuracy_equals_the_probe(data):
    found = robustness(toys.Rows(), data, **{**FEW, "max_samples": 1000, "attack_samples": 0}, baselines=False).metrics
    assert found["clean.top1"] == probe(toys.Rows(), data, strengths=0.1, baselines=False).metrics["top1"]
    assert not any(name.startswith(("pgd", "fgsm")) for name in found)


def test_robustness_fit_ignores_the_test_split():
    """With the test labels shuffled, temperature and strength are as they were."""
    shuffled = toys.dataset()
    shuffled.test.labels = shuffled.test.labels[torch.randperm(120, generator=torch.Generator().manual_seed(0))]
    honest, other = (robustness(toys.Rows(), EvalData(d), **FEW) for d in (toys.dataset(), shuffled))
    assert honest.metrics["temperature"] == other.metrics["temperature"]
    assert honest.protocol["strength"] == other.protocol["strength"]
    assert other.metrics["clean.top1"] < honest.metrics["clean.top1"]


def test_robustness_of_time_series(tmp_path):
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (80,), generator=g)
    x = torch.randn(80, 1, 30, generator=g) + 2.0 * y[:, None, None]
    x[::3, :, 25:] = math.nan
    source = ArraySource(x, y)
    rows = Dataset("s", "series", (1, 30), source, source, ("a", "b"), values=Continuous((0.0,), (1.0,)))

    class Mean(nn.Module):
        dim = 2

        def forward(self, x):
            return torch.cat([x.nanmean(dim=2), x[:, :, 0].nan_to_num()], dim=1)

    result = robustness(Mean(), EvalData(rows), strength=0.1)
    assert result.metrics["clean.top1"] > 0.95
    assert "pgd1.top1" not in result.metrics
    assert any("no attacks" in note for note in result.protocol["notes"])
    for name, artefact in result.artefacts.items():
        artefact.save(tmp_path / name)
        assert artefact.caption
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corruptions.png", "reliability.png", "strengths.png"]


def test_robustness_with_one_label_per_class(data):
    found = robustness(toys.Rows(), data, **FEW, labels="2/class", baselines=False).metrics
    assert all(math.isfinite(v) for v in found.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"corruptions": ["gausian_noise"]}, "gausian_noise"),
        ({"corruptions": ["drift"]}, "for images"),
        ({"corruptions": []}, "empty"),
        ({"max_samples": 0}, "at least"),
        ({"attack_steps": 0}, "at least"),
        ({"strength": -1.0}, "strength"),
        ({"labels": "many"}, "not understood"),
    ],
)
def test_robustness_rejects_invalid_settings(data, wrong, message):
    backbone = toys.Rows()
    with pytest.raises(RequestError, match=message) as error:
        robustness(backbone, data, **wrong)
    assert error.value.hint
    assert backbone.calls == 0


def test_robustness_requires_labels():
    rows = toys.dataset()
    rows.test.labels = None
    with pytest.raises(DataError, match="no labels"):
        robustness(toys.Rows(), EvalData(rows))
