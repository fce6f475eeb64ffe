"""The identity of a run: texts about a choice do not belong to it, and hashes of an earlier rule are recognized."""

from __future__ import annotations

import copy
import json

from omegaconf import OmegaConf

from sslcli.config import compose
from sslcli.runs.identity import config_hash, has_hash, identity_config, is_fact
from sslcli.runs.run import Run


def configuration() -> dict:
    cfg = compose.compose("pretrain", ["method=simclr"])
    return compose.to_container(OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"]))


def test_facts_are_no_part_of_the_identity():
    cfg = configuration()
    reworded = copy.deepcopy(cfg)
    reworded["method"]["summary"] = reworded["backbone"]["summary"] = "other words"
    reworded["method"]["source"] = "another source"
    assert config_hash(reworded) == config_hash(cfg)
    assert identity_config(reworded) == identity_config(cfg)
    reworded["method"]["temperature"] = 0.5
    assert config_hash(reworded) != config_hash(cfg)


def test_facts_of_tasks_and_arguments_of_the_same_name():
    assert is_fact("method.tasks.mae.source")
    assert is_fact("backbone.summary")
    assert not is_fact("method.plan.summary")
    assert not is_fact("dataset.source")
    assert not is_fact("method.tasks.mae.mask_ratio")


def test_hash_of_an_earlier_rule_is_computed_again(tmp_path):
    cfg = configuration()
    (tmp_path / "config.yaml").write_text(json.dumps(cfg))
    for recorded, known in (("0123456789abcdef", True), (config_hash(cfg), True), ("2-0123456789abcdef", False)):
        (tmp_path / "status.json").write_text(json.dumps({"status": "done", "config_hash": recorded}))
        assert has_hash(Run(tmp_path), config_hash(cfg)) is known
    (tmp_path / "status.json").write_text(json.dumps({"status": "done"}))
    assert not has_hash(Run(tmp_path), config_hash(cfg))
    (tmp_path / "config.yaml").write_text("{")
    (tmp_path / "status.json").write_text(json.dumps({"status": "done", "config_hash": "0123456789abcdef"}))
    assert not has_hash(Run(tmp_path), config_hash(cfg))
