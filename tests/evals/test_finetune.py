from __future__ import annotations

import json

import pytest
import torch

from sslcli.data import notify
from sslcli.data.subset import Concat, Subset
from sslcli.errors import DataError, RequestError, TrainingError
from sslcli.evals.finetune import finetune
from sslcli.evals.finetuning.learning_rate import best_rate, held_out
from sslcli.evals.finetuning.predictions import logistic_head, measure, say_length
from sslcli.evals.finetuning.recipe import ROWS, Length, Recipe, length_notes
from sslcli.evals.finetuning.training import train
from sslcli.evals.fit.grid_search import Grid
from sslcli.evals.inputs import label_subsets as subsets
from sslcli.evals.probe import probe
from sslcli.runtime import progress
from tests.conftest import SMOKE
from tests.evals import learners

QUICK = {"epochs": 0, "min_steps": 60, "augment": "weak"}  # a recipe
PLAIN = {**QUICK, "calibrate": False}


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_finetune_solves_a_nonlinear_task():
    data = learners.data()
    backbone = learners.Net(7)
    before = weights(backbone).clone()
    result = finetune(backbone, data, seeds=2, **PLAIN)
    raw = probe(backbone, data).metrics["raw.top1"]
    assert raw < 0.7
    assert result.metrics["top1"] > 0.95
    assert result.metrics["scratch.top1"] > 0.95
    assert set(result.metrics) == {"top1", "top1_std", "scratch.top1", "scratch.top1_std"}
    assert torch.equal(weights(backbone), before)  # a copy learned, not the run's backbone
    assert backbone.training
    json.dumps([result.protocol, result.details])
    curve = result.details["training"]["run"]
    assert curve["step"][-1] == 60
    assert curve["accuracy"][-1] > 0.95
    assert curve["loss"][-1] < curve["loss"][0]
    assert result.artefacts["predictions.safetensors"].predicted.shape == (2, 100)
    assert result.artefacts["confusion.png"].counts.sum() == 200
    again = finetune(backbone, learners.data(), seeds=2, **PLAIN)
    assert again.metrics == result.metrics
    assert again.details == result.details


def test_trainings_are_parts_of_their_draws(monkeypatch):
    """So that the time that is left is that of all draws."""
    seen: set[tuple[str, int]] = set()
    advance = notify.show_progress

    def watched(label: str, done: int, total: int) -> None:
        advance(label, done, total)
        seen.update((part.label, part.total) for part in progress._tasks if part.label != label)

    monkeypatch.setattr(notify, "show_progress", watched)
    finetune(learners.Net(7), learners.data(), seeds=2, **{**PLAIN, "min_steps": 2})
    assert {("fine-tuning, all, draw of labels", 2), ("training from scratch, all, draw of labels", 2)} <= seen


def test_finetune_from_run_and_scratch_agree_for_equal_weights():
    """Both starts are the same training: only the first weights tell them apart."""
    data, amount, recipe = learners.data(), subsets.parse("20/class"), Recipe(**QUICK)
    run = measure(learners.Net(1), data, amount, range(1), recipe, "run", head="random")
    scratch = measure(learners.Net(99), data, amount, range(1), recipe, "scratch")  # of its first draw: Net(1)
    assert run.curves == scratch.curves
    assert torch.equal(run.predicted[0], scratch.predicted[0])


def test_finetune_ignores_the_test_split():
    honest, shuffled = learners.dataset(), learners.dataset()
    shuffled.test.labels = shuffled.test.labels[torch.randperm(100, generator=torch.manual_seed(0))]
    found = []
    for rows in (honest, shuffled):
        data = learners.data(rows)
        found.append(finetune(learners.Net(3), data, labels="20/class", lr=[1e-3, 1e-2], baselines=False, **PLAIN))
        ids = subsets.draw(data.labels("train"), subsets.parse("20/class"), 0, 0)
        found.append(weights(train(learners.Net(3), data, ids, Recipe(**QUICK), 0).backbone))
    assert torch.equal(found[1], found[3])
    assert found[0].details == found[2].details
    assert found[0].protocol == found[2].protocol
    assert found[0].metrics != found[2].metrics
    same = (
        found[0].artefacts["predictions.safetensors"].predicted,
        found[2].artefacts["predictions.safetensors"].predicted,
    )
    assert torch.equal(*same)


def test_finetune_fills_batches_with_views():
    recipe = Recipe(epochs=50, min_steps=300, batch_size=64, augment="weak")
    assert Length.of(recipe, 2) == Length(2, ROWS // 2, 300)
    assert Length.of(recipe, 10) == Length(10, 4, 300)
    assert Length.of(recipe, 100) == Length(50, 1, 300)  # two halves, not 64 and a rest
    assert Length.of(recipe, 1437) == Length(65, 1, 50 * 22)
    both = Recipe(epochs=50, min_steps=300, batch_size=64, augment="weak+global")
    assert Length.of(both, 10) == Length(10, 2, 300)
    assert Length.of(both, 1280) == Length(32, 1, 50 * 40 // 2)  # as many rows as with one kind
    short = Recipe(epochs=50, min_steps=300, max_steps=800, batch_size=64, augment="weak")
    assert [Length.of(short, n).steps for n in (100, 500, 1437)] == [300, 400, 800]
    data = learners.data()
    one = finetune(learners.Net(3), data, labels="1/class", epochs=0, min_steps=5, augment="weak", baselines=False)
    assert one.protocol["batch"] == {"samples": 2, "views_of_each": 16}


def test_finetune_head_starts_as_the_probe():
    """With a rate of nearly nothing, the answers are those of the logistic regression."""
    data, backbone = learners.data(), learners.Net(3)
    backbone.norm.momentum = 0.0  # its statistics stay
    fit = finetune(backbone, data, labels="30/class", lr=1e-12, baselines=False, epochs=0, min_steps=1, augment="weak")
    plain = probe(backbone, data, labels="30/class", baselines=False)
    own, theirs = (r.artefacts["predictions.safetensors"].predicted for r in (fit, plain))
    assert torch.equal(own, theirs)
    head = logistic_head(backbone, data)(torch.arange(60), data.labels("train")[:60])
    assert head.weight.shape == (2, 24)


def test_finetune_selects_learning_rate_on_training_samples():
    data = learners.data()
    ids = torch.arange(100)
    assert train(learners.Net(3), data, ids, Recipe(lr=[1e-9, 3e-3], **QUICK), 0).rate.value == 3e-3
    one = subsets.draw(data.labels("train"), subsets.parse("1/class"), 0, 0)
    assert (
        train(learners.Net(3), data, one, Recipe(lr=[1e-9, 3e-3], **QUICK), 0).rate.value == 1e-9
    )  # nothing to spare: the first
    y = torch.tensor([0] * 10 + [1] * 10)
    seen = []

    def fit(places, rate):
        seen.append(set(places.tolist()))
        return rate

    def score(rate, places):
        assert not seen[-1] & set(places.tolist())
        return torch.eye(2)[y[places]] * rate, y[places]  # all right; a surer one has the lower loss

    found = best_rate(Grid.of([1.0, 5.0, 2.0]), 1.0, y, 0, fit, score)
    assert (found.value, found.edge, found.tried) == (5.0, "highest", (1.0, 2.0, 5.0))


@pytest.mark.parametrize("grouped", [False, True])
def test_no_class_is_held_out_alone(grouped):
    """A class with one label, or in one group, is trained on; the rate and the temperature are chosen on the others."""
    y = torch.tensor([0] * 10 + [1] * 10 + [2])
    groups = torch.tensor([*range(5), *range(5), *range(5), *range(5), 7]) if grouped else None
    for seed in range(20):
        parts = held_out(y, seed, groups)
        assert parts is not None
        inside, outside = parts
        assert torch.equal(torch.cat(parts).sort().values, torch.arange(21))
        assert y[inside].unique().tolist() == [0, 1, 2]
        assert len(outside) >= 2
        if groups is not None:
            assert not torch.isin(groups[inside], groups[outside]).any()


def test_nothing_is_held_out_of_few_labels():
    assert held_out(torch.tensor([0, 1, 2, 2, 2]), 0) is None
    assert (
        held_out(torch.tensor([0, 0, 1, 1]), 0, torch.tensor([0, 0, 1, 1])) is None
    )  # each group has a class of its own


def test_finetune_with_a_class_in_one_group():
    """The last class is that of one group, the largest one, which would be the fifth fold."""
    data = learners.data()
    source = data.source("train")
    y = data.labels("train")
    source.groups = torch.where(y == y.max(), 100, torch.arange(len(y)) % 4)
    trained = train(
        learners.Net(3),
        data,
        torch.arange(100),
        Recipe(**QUICK),
        0,
        head=logistic_head(learners.Net(3), data),
        calibrate=True,
    )
    assert trained.head.out_features == len(y.unique())


def test_finetune_passes_options_and_device_settings():
    data = learners.data(autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16), channels_last=True)
    result = finetune(
        learners.Net(3), data, layer_decay=0.5, mixup=0.4, cutmix=1.0, label_smoothing=0.1, baselines=False, **PLAIN
    )
    assert result.metrics["top1"] > 0.6
    assert result.protocol["cutmix"] == 1.0
    only = finetune(learners.Net(3), data, start="scratch", **PLAIN)
    assert set(only.metrics) == {"top1"}
    assert only.protocol["head"] == "random"


def test_finetune_rejects_invalid_settings():
    data = learners.data()
    for wrong in (
        {"lr": 0.0},
        {"lr": []},
        {"batch_size": 1},
        {"epochs": -1},
        {"min_steps": 0},
        {"max_steps": 0},
        {"layer_decay": 0.0},
        {"mixup": -1.0},
        {"label_smoothing": 1.0},
        {"augment": "strong"},
        {"augment": "weak+none"},
    ):
        with pytest.raises(RequestError, match=f"evaluator.{next(iter(wrong))}=") as error:
            finetune(learners.Net(), data, **wrong)
        assert "evaluator." in error.value.hint
    with pytest.raises(TrainingError, match="not finite"):
        finetune(learners.Net(), data, lr=1e30, head="random", baselines=False, **PLAIN)
    rows = learners.dataset()
    rows.test = None
    with pytest.raises(DataError, match="no test split"):
        finetune(learners.Net(), learners.data(rows), **PLAIN)


def test_finetune_reports_a_missing_baseline():
    data = learners.data()
    data.untrained = None
    result = finetune(learners.Net(), data, **PLAIN)
    assert set(result.metrics) == {"top1"}
    assert "no baseline from scratch" in result.protocol["notes"][0]


def test_subset_keeps_inputs_names_and_errors():
    source = learners.crossed(10, 0)
    source.names = [f"f{i}" for i in range(10)]
    source.bad = {7: "truncated"}
    part = Subset(source, torch.tensor([7, 2]), torch.tensor([1, 0]))
    assert len(part) == 2
    assert torch.equal(part.resident.tensor, source.x[[7, 2]])
    assert torch.equal(part.read(1), source.x[2])
    assert part.bad == {0: "truncated"}
    assert list(part.names) == ["f7", "f2"]
    assert part.name_of(0) == "f7"
    assert Subset(source, torch.arange(10)).resident.tensor is source.x
    both = Concat(part, source)
    assert len(both) == 12
    assert torch.equal(both.resident.tensor, torch.cat([source.x[[7, 2]], source.x]))
    assert both.labels.tolist() == [1, 0, *source.labels.tolist()]
    assert both.bad == {0: "truncated", 9: "truncated"}
    assert (both.name_of(1), both.name_of(2), both.names[11]) == ("f2", "f0", "f9")
    assert torch.equal(both.read(1), source.x[2])
    assert torch.equal(both.read(2), source.x[0])


def test_views_of_several_sizes(cli):
    """Weak views have the size of a sample, those of pretraining half of it."""
    half = ["augmentation=symmetric", "+augmentation.global.random_resized_crop.size=0.5"]
    run = cli("pretrain", "method=simsiam", *SMOKE, *half, "train.eval_every=0")
    assert run.code == 0, run.err
    words = [
        "labels=2/class",
        "evaluator.epochs=1",
        "evaluator.min_steps=2",
        "evaluator.mixup=0.5",
        "device=cpu",
        "--json",
    ]
    tuned = cli("eval", "finetune", f"run={run.last}", *words)
    assert tuned.code == 0, tuned.err
    assert 0 < json.loads(tuned.out)["numbers"]["top1"] <= 1


def test_given_epochs_are_honored():
    def steps(n, **given):
        return Length.of(Recipe(batch_size=64, augment="weak", **given), n).steps

    assert steps(128) == 300  # 50 epochs would be 100
    assert steps(1280) == 1000
    assert [steps(128, epochs=epochs) for epochs in (1, 5, 500)] == [2, 10, 1000]
    assert steps(128, epochs=5, min_steps=60) == 60
    assert steps(128, min_steps=60) == 100
    assert steps(128, max_steps=80) == 80
    assert Length.of(Recipe(epochs=1), 10).steps == 1  # with two kinds of views, half a step
    for wrong in ({"epochs": 0}, {"epochs": -1, "min_steps": 5}, {"min_steps": 60, "max_steps": 50}, {"max_steps": 0}):
        with pytest.raises(RequestError, match=r"evaluator\.(epochs|max_steps)"):
            Recipe(**wrong)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "300 steps: 50 epochs of 128 labeled samples are 100, and at least 300 are taken (evaluator.min_steps)"),
        (
            {"max_steps": 80},
            "80 steps: 50 epochs of 128 labeled samples are 100, and at most 80 are taken (evaluator.max_steps)",
        ),
        ({"epochs": 1}, "2 steps, 1 epoch of 128 labeled samples"),
    ],
)
def test_length_of_a_training_is_described(given, expected, capsys):
    recipe = Recipe(batch_size=64, augment="weak", **given)
    say_length(recipe, 128, "training")
    assert capsys.readouterr().err == f"training: {expected}\n"
    assert length_notes(recipe, 128, Length.of(recipe, 128)) == ([] if "epochs" in given else [expected])


def test_finetune_says_its_length_and_records_it(capsys):
    result = finetune(
        learners.Net(7), learners.data(learners.dataset(12, 8)), epochs=3, augment="weak", calibrate=False
    )
    said = capsys.readouterr().err
    assert "fine-tuning, labels=all: 3 steps, 3 epochs of 12 labeled samples" in said
    assert "training from scratch, labels=all: 3 steps, 3 epochs of 12 labeled samples" in said
    assert {k: result.protocol[k] for k in ("steps", "epochs", "min_steps")} == {
        "steps": 3,
        "epochs": 3,
        "min_steps": 1,
    }
