"""The identity of a run: texts about a choice do not belong to it, and hashes of an earlier rule are recognized."""

from __future__ import annotations

import copy
import json

from omegaconf import OmegaConf

from sslcli.config import compose
from sslcli.runs.identity import config_hash, has_configuration, has_hash, identity_config, is_fact, with_absent_keys
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


def test_absent_key_means_its_default(tmp_path):
    cfg = configuration()
    now = identity_config(cfg)
    for key, default in (
        ("method.temperature", cfg["method"]["temperature"]),
        ("backbone.width", cfg["backbone"]["width"]),
    ):
        before = {k: v for k, v in now.items() if k != key}
        assert with_absent_keys(before, cfg) == now
        changed = copy.deepcopy(cfg)
        group, name = key.split(".")
        changed[group][name] = default * 2
        assert with_absent_keys(before, changed) != identity_config(changed)
    assert with_absent_keys(now, cfg) == now


def test_only_keys_with_a_default_are_filled():
    cfg = configuration()
    now = identity_config(cfg)
    for key in ("method._target_", "augmentation.global.crop.p", "method.plan.global"):
        assert key not in with_absent_keys({k: v for k, v in now.items() if k != key}, cfg)


def test_run_of_an_earlier_version_has_the_configuration(tmp_path):
    cfg = configuration()
    earlier = copy.deepcopy(cfg)
    del earlier["method"]["temperature"]
    (tmp_path / "config.yaml").write_text(json.dumps(earlier))
    assert has_configuration(Run(tmp_path), cfg)
    earlier["seed"] += 1
    (tmp_path / "config.yaml").write_text(json.dumps(earlier))
    assert not has_configuration(Run(tmp_path), cfg)
    (tmp_path / "config.yaml").write_text("{")
    assert not has_configuration(Run(tmp_path), cfg)
