"""Shipped YAML files: every choice composes and binds to the signature of its target."""

from __future__ import annotations

import functools
from itertools import zip_longest
from typing import Any

import pytest
import yaml

from sslcli.config import compose, instantiate, registry, safe_yaml, schema
from sslcli.errors import RequestError
from sslcli.training.configuration import resolve
from sslcli.training.setup import EVALUATOR_ARGUMENTS

METHODS, DATASETS = sorted(registry.choices("method")), sorted(registry.choices("dataset"))


GIVEN = {  # arguments that no configuration has
    "method": ["backbone", "data"],
    "backbone": ["input_shape"],
    "dataset": [],
    "optimizer": ["params"],
    "schedule": ["progress"],
}


def composed(**choices: str) -> dict[str, Any]:
    """The configuration of a pretraining with these choices, and a value for each path that they require."""
    words = [f"{group}={name}" for group, name in choices.items()]
    for group, name in choices.items():
        text = registry.choices(group)[name].read_text()
        words += [f"{group}.{key}=x" for key in ("path", "teacher") if f"{key}: ???" in text]
    return resolve(compose.compose("pretrain", words))


@pytest.mark.parametrize("group", [g for g in registry.GROUPS if g not in ("experiment",)])
def test_every_choice_has_summary_and_composes(group):
    """Methods and data sets compose in the next test."""
    evaluation = compose.compose("eval", []) if group == "evaluator" else None
    for name, path in registry.choices(group).items():
        described = registry.describe(path, group)
        if group in ("method", "backbone", "dataset", "augmentation", "evaluator"):
            assert described["summary"], path
        if evaluation is not None:
            given = EVALUATOR_ARGUMENTS if name == "online" else ["backbone", "data"]
            node = compose.load_choice(group, name, evaluation)
            instantiate.check(group, compose.to_container(node), given=given)
        elif group not in ("method", "dataset"):
            values = composed(**{group: name})
            if group in GIVEN and name != "timm":
                extra = {"name": "resnet18"} if name in ("torchvision",) and "name" not in values["backbone"] else {}
                instantiate.check(group, {**values[group], **extra}, given=GIVEN[group])


@functools.cache
def views_of(method: str) -> tuple[set[str], set[str]]:
    """The kinds of views that a method asks for, and those whose augmentation it brings."""
    file = registry.choices("method")[method]
    brought = yaml.safe_load(file.read_text()).get("augmentation", {})
    return set(registry.describe(file, "method")["plan"]), set(brought)


@pytest.mark.parametrize(("method", "dataset"), list(zip_longest(METHODS, DATASETS, fillvalue="digits")))
def test_every_method_composes_with_every_dataset(method, dataset):
    """A data set selects backbone and augmentation, a method what it needs in addition. Each is tested once, and each plan of views
    with every augmentation that a data set selects, or that the method brings."""
    cfg = composed(method=method, dataset=dataset)
    assert cfg["dataset"]["name"]
    for group in ("method", "dataset"):
        instantiate.check(group, cfg[group], given=GIVEN[group])
    for name in METHODS:
        plan, brought = views_of(name)
        assert plan <= {*cfg["augmentation"], *brought, "clean"}, (name, plan, list(cfg["augmentation"]))


@pytest.mark.parametrize(("method", "dataset"), [("mae", "series"), ("simclr", "cifar10")])
def test_command_line_overrides_defaults(method, dataset):
    words = [f"method={method}", f"dataset={dataset}", "dataset.path=x", "backbone=mlp", "optimizer.lr=0.123"]
    won = compose.compose("pretrain", words)
    assert "MLP" in won.backbone._target_
    assert won.optimizer.lr == 0.123


@pytest.mark.parametrize("name", sorted(registry.choices("experiment")))
def test_every_experiment_passes_checks(name):
    from sslcli.training.setup import check

    missing = {
        "adapt": ["init=latest"],
        "patchtst": ["dataset.path=series.csv"],
        "speakers": ["dataset.path=recordings"],
    }.get(name, [])
    check(resolve(compose.compose("pretrain", [f"experiment={name}", *missing])))


def test_schema_defaults_equal_yaml():
    from dataclasses import fields

    for group, name, fields_of in (("train", "default", schema.Train), ("device", "auto", schema.Device)):
        values = yaml.safe_load((registry.config_dir() / group / f"{name}.yaml").read_text())
        assert set(values) == {f.name for f in fields(fields_of)}


def test_foreign_yaml_is_checked_before_loading(tmp_path):
    (tmp_path / "method").mkdir()
    file = tmp_path / "method" / "x.yaml"
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(8)
    )
    cases = {
        "aliases": bomb,
        "bytes": "a: " + "x" * 1_100_000,
        "not valid YAML": "a: [1",
        "nodes": "a: [" + "1," * 30_000 + "]",
    }
    for says, text in cases.items():
        file.write_text(text)
        with pytest.raises(RequestError, match=says):
            safe_yaml.check_yaml_folder(tmp_path)
    file.write_bytes(b"\xff\xfea\x00")
    with pytest.raises(RequestError, match="UTF-8"):
        safe_yaml.check_yaml_folder(tmp_path)
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    with pytest.raises(RequestError, match="byte-order mark"):
        safe_yaml.check_yaml_folder(tmp_path)


def test_method_of_config_dir_trains(cli, tmp_path):
    from tests.conftest import SMOKE

    mine = tmp_path / "mine"
    (mine / "method").mkdir(parents=True)
    (mine / "centred.py").write_text(
        "from sslcli.methods.base import Batch, Method\n\n\n"
        "class Centred(Method):\n"
        "    def __init__(self, backbone, weight: float = 1.0):\n"
        "        super().__init__(backbone)\n"
        "        self.weight = weight\n\n"
        "    def forward(self, batch: Batch):\n"
        "        a, b = (self.backbone(v) for v in batch.views)\n"
        "        return {'loss': self.weight * (a - b).square().mean() + (a.std(0) - 1).square().mean()}\n"
    )
    (mine / "method" / "centred.yaml").write_text(
        "# @package _global_\nmethod:\n  _target_: centred.Centred\n  summary: mine\n  family: own\n  source: me\n"
        "  plan: {global: 2}\n  weight: 2.0\n"
    )
    result = cli("pretrain", "--config-dir", str(mine), "method=centred", *SMOKE)
    assert result.code == 0, result.err
    assert "Centred" in result.err
    assert "centred" in cli("list", "methods", "--config-dir", str(mine)).out
    assert cli("pretrain", "--config-dir", str(mine), "method=centred", "method.wieght=3", *SMOKE).code == 2
    (mine / "method" / "simsiam.yaml").write_text("a: 1\n")
    warned = cli("pretrain", "--config-dir", str(mine), "--dry-run", *SMOKE)
    assert "is not used" in warned.err
    assert cli("pretrain", "--config-dir", "nowhere").code == 2
