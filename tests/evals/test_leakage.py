"""No evaluator may fit anything to the test split. Parametrized over the YAML files of all evaluators."""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from sslcli.config import instantiate, registry
from sslcli.data.dataset import ArraySource, Dataset
from sslcli.evals.artefacts.predictions import Predictions
from sslcli.evals.base.features import EvalData
from sslcli.evals.base.result import Result
from sslcli.methods.autoencoder import Autoencoder
from sslcli.views import Views
from tests.evals import toys

# fill fits frequencies of tokens, of which images have none: tests/evals/test_fill.py compares them with the training split
# forecast has parts of its own in time: tests/evals/test_forecast.py changes the test part
# recommend has events of its own: tests/evals/test_recommend.py compares its baselines with references of the training events
# zeroshot fits nothing: tests/evals/test_zeroshot.py
EVALUATORS = sorted(set(registry.choices("evaluator")) - {"online", "fill", "forecast", "recommend", "zeroshot"})
SPEAK = ("probe", "knn", "finetune", "attentive", "cluster")  # of each test sample
WEAK = {"weak": {"random_resized_crop": {"scale": [0.5, 1.0]}}}
QUICK: dict[str, dict[str, Any]] = {  # settings that keep a toy's measurement short
    "finetune": {"epochs": 1, "min_steps": 4},
    "labels": {"seeds": 2, "amounts": [2, "all"], "supervised_seeds": 1, "epochs": 1, "min_steps": 2},
    "robustness": {"max_samples": 40, "attack_samples": 8, "corruptions": ["gaussian_noise", "contrast"]},
    "explain": {"samples": 12},
    "attentive": {"epochs": 1, "min_steps": 4, "lr": 0.001},
    "quality": {"groups": 20, "views": 3},
}


def measure(name: str, dataset: Dataset) -> Result:
    node = yaml.safe_load(registry.choices("evaluator")[name].read_text())
    given = {"labels": "all" if name == "labels" else "10/class", "seeds": 2, "picks": None}
    node = {k: given[k] if isinstance(v, str) and v.startswith("${") and k in given else v for k, v in node.items()}
    known = inspect.signature(instantiate.resolve("evaluator", node["_target_"])).parameters
    node |= {k: v for k, v in QUICK.get(name, {}).items() if k in known}
    data = EvalData(
        dataset,
        untrained=lambda draw=0: network(name, 10 + draw),
        recipes=yaml.safe_load(registry.choices("augmentation")["gray_small"].read_text()),
        pretraining=lambda: (Autoencoder(network(name, 0)).eval(), Views({"weak": 1}, WEAK, dataset)),
        trained_on="something else",  # transfer wants it so
        seed=1,
    )
    return instantiate.partial("evaluator", node, "backbone", "data")(network(name, 0), data)


DATASET = toys.dataset(classes=3)


@functools.cache
def unchanged(name: str) -> Result:
    """The result on the data set as it is, which each test compares with another."""
    return measure(name, DATASET)


def network(name: str, seed: int) -> nn.Module:
    """A small backbone for 8 x 8 images, with tokens for evaluators that need them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        kind = "vit_micro" if name == "attentive" else "convnet"
        node = yaml.safe_load(registry.choices("backbone")[kind].read_text())
        node |= {"patch": 2} if kind == "vit_micro" else {"width": 4, "blocks": 1}
        return instantiate.build("backbone", node, input_shape=(1, 8, 8)).eval()


def predictions(result: Result) -> dict[str, torch.Tensor]:
    """What a result says of each test sample, one column a sample."""
    found = {}
    for file, artefact in result.artefacts.items():
        if isinstance(artefact, Predictions):
            found[file] = artefact.predicted
        elif file == "assignment.csv":
            artefact.rows = list(artefact.rows)
            found[file] = torch.tensor([int(row[list(artefact.header).index("cluster")]) for row in artefact.rows])
    return found


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluator_fit_ignores_test_labels(name):
    test = DATASET.test
    order = torch.randperm(len(test), generator=torch.Generator().manual_seed(3))
    assert not torch.equal(test.labels, test.labels[order])
    one, other = unchanged(name), measure(name, replace(DATASET, test=ArraySource(test.x, test.labels[order])))
    assert one.protocol == other.protocol
    for key, value in predictions(one).items():
        assert torch.equal(value, predictions(other)[key]), key


@pytest.mark.parametrize("name", EVALUATORS)
def test_prediction_ignores_other_test_samples(name):
    """Half of the test split is replaced: what is said of the other half stays, so no statistic is taken over the test split."""
    test, half = DATASET.test, len(DATASET.test) // 2
    x = test.x.clone()
    x[half:] = 255 - x[half:]
    one, other = unchanged(name), measure(name, replace(DATASET, test=ArraySource(x, test.labels)))
    assert predictions(one) or name not in SPEAK
    for key, value in predictions(one).items():
        assert torch.equal(value[..., :half], predictions(other)[key][..., :half]), key
