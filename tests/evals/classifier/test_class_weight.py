"""Balanced weights of classes, against scikit-learn."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch

from sslcli.data.dataset import ArraySource, Dataset
from sslcli.errors import RequestError
from sslcli.evals.base.features import EvalData
from sslcli.evals.classifier.class_weight import class_weights
from sslcli.evals.finetune import finetune
from sslcli.evals.finetuning.learning_rate import class_score
from sslcli.evals.finetuning.objectives import Classes
from sslcli.evals.finetuning.recipe import Recipe
from sslcli.evals.fit.grid_search import Grid
from sslcli.evals.fit.linear_probe import Standardizer, choose_c
from sslcli.evals.fit.logistic import Logistic
from sslcli.evals.pairing.separation import separation
from sslcli.evals.probe import probe
from sslcli.runs.results import SavedResult
from tests.conftest import SMOKE
from tests.evals import toys


def overlapping(n: int, classes: int, d: int = 6, seed: int = 0):
    """Features (n, d) of classes that overlap, the first of which has most samples."""
    g = torch.Generator().manual_seed(seed)
    y = torch.multinomial(torch.tensor([0.9] + [0.1 / (classes - 1)] * (classes - 1)), n, True, generator=g)
    y[:classes] = torch.arange(classes)
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    x[torch.arange(n), y] += 1.0
    return x, y


def imbalanced_images(n: int = 200, seed: int = 0) -> ArraySource:
    """8 x 8 images of noise; the class is the brighter of two rows, nearly lost in it, and one of nine is of the second."""
    g = torch.Generator().manual_seed(seed)
    y = (torch.arange(n) % 10 == 0).long()
    x = torch.randint(0, 160, (n, 1, 8, 8), generator=g, dtype=torch.uint8)
    x[torch.arange(n), 0, y] += 15
    return ArraySource(x, y)


@pytest.fixture
def imbalanced():
    dataset = Dataset("rows", "image", (1, 8, 8), imbalanced_images(), imbalanced_images(seed=1), ("usual", "rare"))
    return EvalData(dataset, untrained=lambda seed=0: toys.Blind())


@pytest.mark.parametrize("y", [[0, 0, 0, 1], [0, 1, 2] * 3, [2, 2, 2, 2, 1, 0, 0]])
def test_balanced_weights_are_those_of_scikit_learn(y):
    from sklearn.utils.class_weight import compute_class_weight

    found = class_weights(torch.tensor(y), max(y) + 1, "balanced")
    expected = compute_class_weight("balanced", classes=np.unique(y), y=np.asarray(y))
    np.testing.assert_allclose(found.numpy(), expected)
    assert found[torch.tensor(y)].mean() == pytest.approx(1)
    assert class_weights(torch.tensor(y), max(y) + 1, None) is None


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("strength", [1e-2, 1.0])
def test_balanced_logistic_regression_matches_scikit_learn(classes, strength):
    from sklearn.linear_model import LogisticRegression

    x, y = overlapping(600, classes)
    c = strength if classes > 2 else 2 * strength
    theirs = LogisticRegression(C=c, tol=1e-9, max_iter=10_000, class_weight="balanced").fit(x.numpy(), y.numpy())
    ours = Logistic(x, y, classes, weights=class_weights(y, classes, "balanced")).fit(strength, tol=1e-10)
    assert ours.converged
    expected = torch.tensor(theirs.predict_proba(x.numpy()))
    torch.testing.assert_close(torch.softmax(ours.logits(x.float()).double(), dim=1), expected, rtol=0, atol=2e-5)


def test_single_precision_and_more_features_than_samples_reach_the_same_solution():
    x, y = overlapping(80, 3, d=120)
    weights = class_weights(y, 3, "balanced")
    wide = Logistic(x, y, 3, weights=weights).fit(0.1, tol=1e-9)
    single = Logistic(x, y, 3, double=False, weights=weights).fit(0.1, tol=1e-7)  # refined in double precision
    torch.testing.assert_close(wide.weight, single.weight, rtol=1e-3, atol=1e-5)


def test_c_is_chosen_by_weighted_accuracy():
    x, y = overlapping(300, 2)
    grid = Grid.of([1e-7, 1.0])  # the smallest predicts the frequent class for nearly all samples
    assert choose_c(x.float(), y, 2, grid, 0, 0).how.startswith("accuracy over")
    chosen = choose_c(x.float(), y, 2, grid, 0, 0, weights=class_weights(y, 2, "balanced"))
    assert chosen.how.startswith("weighted accuracy over")
    logits, truth = torch.tensor([[2.0, 0], [2, 0], [2, 0]]), torch.tensor([0, 0, 1])
    assert class_score(logits, truth)[0] == 2
    assert class_score(logits, truth, class_weights(truth, 2, "balanced"))[0] == pytest.approx(1.5)


def test_probe_with_balanced_weights_finds_the_rare_class(imbalanced):
    usual = probe(toys.Rows(), imbalanced, strengths=1.0)
    result = probe(toys.Rows(), imbalanced, strengths=1.0, class_weight="balanced")
    assert result.metrics["balanced_top1"] > usual.metrics["balanced_top1"] + 0.05
    assert result.metrics["top1"] < usual.metrics["top1"]
    for baseline in ("raw", "untrained"):
        assert result.metrics[f"{baseline}.balanced_top1"] != usual.metrics[f"{baseline}.balanced_top1"]
    assert result.protocol["class_weight"] == "balanced"
    assert result.details["class_weights"] == {"usual": pytest.approx(200 / 360, abs=1e-6), "rare": 5.0}
    assert usual.protocol["class_weight"] is None
    assert result.fitted.make().protocol["class_weight"] == "balanced"
    assert "class_weight" not in usual.fitted.make().protocol
    assert json.dumps(result.protocol)


def test_probe_with_balanced_weights_equals_scikit_learn(imbalanced):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score

    backbone = toys.Rows()
    (x, y), (x_test, y_test) = imbalanced.features(backbone, "train"), imbalanced.features(backbone, "test")
    scale = Standardizer(x)
    x, x_test = scale(x, torch.arange(len(x))).numpy(), scale(x_test, torch.arange(len(x_test))).numpy()
    model = LogisticRegression(C=0.2, class_weight="balanced", tol=1e-8).fit(x, y.numpy())  # two classes: twice our C
    expected = balanced_accuracy_score(y_test.numpy(), model.predict(x_test))
    found = probe(backbone, imbalanced, strengths=0.1, class_weight="balanced", baselines=False)
    assert found.metrics["balanced_top1"] == pytest.approx(expected)


def test_support_vector_machine_takes_the_weights(imbalanced):
    usual = probe(toys.Rows(), imbalanced, kind="svm", strengths=1.0, baselines=False)
    result = probe(toys.Rows(), imbalanced, kind="svm", strengths=1.0, baselines=False, class_weight="balanced")
    assert result.metrics["balanced_top1"] > usual.metrics["balanced_top1"]
    assert result.protocol["class_weight"] == "balanced"


def test_fine_tuning_weights_the_loss(imbalanced):
    outputs, targets = torch.randn(5, 2), torch.tensor([0, 0, 0, 0, 1])
    weights = class_weights(targets, 2, "balanced")
    hot = torch.nn.functional.one_hot(targets, 2).float()
    found = Classes(targets, 2, weights).loss(outputs, hot, Recipe())
    each = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    torch.testing.assert_close(found, (each * weights[targets].float()).mean())

    settings = {"augment": "clean", "epochs": 1, "min_steps": 30, "lr": [0.001, 0.01], "calibrate": False}
    usual = finetune(toys.Rows(), imbalanced, **settings)
    result = finetune(toys.Rows(), imbalanced, class_weight="balanced", **settings)
    assert result.metrics["balanced_top1"] > usual.metrics["balanced_top1"]
    assert result.metrics["scratch.balanced_top1"] >= usual.metrics["scratch.balanced_top1"]
    assert result.protocol["class_weight"] == "balanced"
    assert result.details["class_weights"]["rare"] == 5.0


def test_a_value_to_predict_has_no_class_weights():
    source = ArraySource(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), targets={"value": torch.rand(4).double()})
    data = EvalData(Dataset("values", "image", (1, 8, 8), source, source, (), task="value"))
    for evaluator in (probe, finetune):
        with pytest.raises(RequestError, match="class_weight=balanced needs classes, and the data set has a value"):
            evaluator(
                toys.Rows(), data, class_weight="balanced", **({"augment": "clean"} if evaluator is finetune else {})
            )
    with pytest.raises(RequestError, match="class_weight=equal: expected balanced or null"):
        probe(toys.Rows(), data, class_weight="equal")


def test_results_with_different_weights_do_not_compare(tmp_path):
    def saved(class_weight):
        settings = {} if class_weight is None else {"class_weight": class_weight}
        record = {"numbers": {"top1": 0.5}, "fingerprint": "a", "evaluator": settings}
        return SavedResult("probe", tmp_path, "eval/probe.json", record)

    assert separation(saved(None), saved("balanced"), "top1").why == "measured with different evaluator.class_weight"
    assert "class_weight" not in separation(saved("balanced"), saved("balanced"), "top1").why


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A table of which a tenth are of the class `leave`, whose numbers are slightly larger."""
    numbers = random.Random(0)
    folder = tmp_path_factory.mktemp("rows")
    lines = [
        f"{numbers.gauss(rare * 0.8, 1):.3f},{numbers.gauss(0, 1):.3f},{'leave' if rare else 'stay'}"
        for rare in (i % 10 == 0 for i in range(300))
    ]
    (folder / "rows.csv").write_text("a,b,label\n" + "\n".join(lines) + "\n")
    return folder / "rows.csv"


def test_warning_names_the_key_and_the_report_shows_it(cli, rows, tmp_path):
    made = cli("pretrain", *SMOKE, "dataset=table", f"dataset.path={rows}", "method=scarf", "backbone=mlp")
    assert made.code == 0, made.err
    usual = cli("eval", "probe", "device=cpu", "evaluator.baselines=false", "evaluator.strengths=0.0001")
    assert "evaluator.class_weight=balanced weights the classes equally" in usual.err
    found = cli("eval", "probe", "device=cpu", "evaluator.class_weight=balanced", "--json")
    assert found.code == 0, found.err
    assert "it replaces the result with" in found.err
    assert "class_weight=None" in found.err
    assert "C 1, on standardized numbers and one-hot categories; balanced class weights" in found.out
    assert cli("runs", "report", "latest").code == 0
    page = next(tmp_path.rglob("report.html")).read_text(encoding="utf-8")
    assert "balanced class weights" in page
    wrong = cli("eval", "probe", "device=cpu", "evaluator.class_weight=equal")
    assert wrong.code == 2
    assert "evaluator.class_weight: expected balanced or null, got 'equal'" in wrong.err
