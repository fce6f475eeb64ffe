"""Info blocks in evaluators' YAML files: read by the report, and no part of a configuration's identity."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslcli import evals
from sslcli.config import instantiate, registry
from sslcli.evals.base.info import evaluator_info, evaluator_infos

NEEDS = {"labels", "tokens", "reconstruction", "masked_tokens", "timeline", "next_items", "captions", "dataset"}


def test_info_of_every_evaluator_is_complete():
    nodes = {name: registry.describe(path, "evaluator") for name, path in registry.choices("evaluator").items()}
    assert set(evaluator_infos()) == set(nodes) - {"online"}
    for name, info in evaluator_infos().items():
        assert {"title", "metric", "needs", "order"} <= set(nodes[name]), name
        assert info.title, name
        assert info.needs <= NEEDS, name
        assert ("${labels}" in str(nodes[name])) <= (name == "explain" or not info.label_free), name
    orders = [info.order for info in evaluator_infos().values()]
    assert orders == sorted(set(orders))


def test_info_is_not_passed_to_the_evaluator():
    node = registry.describe(registry.choices("evaluator")["probe"], "evaluator")
    bare = instantiate.without_facts("evaluator", node)
    assert set(node) - set(bare) == set(registry.FACT_KEYS["evaluator"])
    assert not set(instantiate.arguments("evaluator", node)) & {*registry.FACT_KEYS["evaluator"], "summary"}


@pytest.mark.parametrize("name", ["of_a_plugin", "unknown"])
def test_info_of_an_unknown_evaluator_is_default(name):
    info = evaluator_info(name)
    assert (info.title, info.metrics) == (name.replace("_", " ").capitalize(), ("top1",))


def test_evaluator_module_has_the_name_of_its_yaml():
    folder = Path(evals.__file__).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    choices = registry.choices("evaluator")
    assert files == set(choices)
    for name, path in choices.items():
        assert registry.describe(path, "evaluator")["_target_"].startswith(f"sslcli.evals.{name}."), name
