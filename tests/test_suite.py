"""The rules of the suite itself: no test writes into the checkout, a warning fails a test unless it is a library's own, and a
configuration that the suite remembers is the one that Hydra composes."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests import conftest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "write",
    [
        lambda: (ROOT / "leak").write_text(""),
        lambda: os.open(ROOT / "leak", os.O_CREAT | os.O_WRONLY),
        lambda: (ROOT / "leak").mkdir(),
        lambda: (ROOT / "runs" / "latest").symlink_to("x"),
        lambda: os.replace("x", ROOT / "README.md"),
        lambda: (ROOT / "README.md").unlink(),
    ],
)
def test_write_into_the_checkout_is_refused(write):
    with pytest.raises(RuntimeError, match="outside its temporary folder"):
        write()
    assert len(conftest._leaks) == 1
    conftest._leaks.clear()
    assert not (ROOT / "leak").exists()


def test_starts_in_an_empty_folder():
    assert list(Path.cwd().iterdir()) == []
    assert not Path.cwd().is_relative_to(ROOT)


def warned(module: str) -> None:
    warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)


def test_deprecations_of_torch_are_torchs():
    warned("torch._inductor.codecache")
    with pytest.raises(DeprecationWarning):
        warned("sslcli.training.loop.trainer")


def nodes(node: Any, path: str = "") -> dict[str, Any]:
    """The values, types and flags of a configuration by their paths."""
    facts = node._metadata
    found = {path: (type(node), facts.ref_type, facts.object_type, facts.optional, facts.flags)}
    if isinstance(node._value(), dict | list):
        keys = node._value() if isinstance(node._value(), dict) else range(len(node))
        return found | {k: v for key in keys for k, v in nodes(node._get_node(key), f"{path}.{key}").items()}
    return found | {f"{path}=": node._value()}


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("pretrain", ["method=byol", "optimizer.lr=0.1", "experiment=smoke"]),
        ("eval", ["evaluator=probe"]),
        ("pipeline", ["stages=[knn]", "seed=3"]),
    ],
)
def test_remembered_configuration_is_that_of_hydra(monkeypatch, command, words):
    from hydra._internal import defaults_list
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository

    from sslcli.config.compose import compose

    found = [nodes(compose(command, words)) for _ in range(2)]
    for owner, name in (
        (ConfigRepository, "load_config"),
        (ConfigLoaderImpl, "_compose_config_from_defaults_list"),
        (defaults_list, "_create_interpolation_map"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name).__wrapped__)
    assert found == [nodes(compose(command, words))] * 2


def test_folder_of_the_user_is_not_remembered(tmp_path):
    from sslcli.config.compose import compose

    (tmp_path / "optimizer").mkdir()
    for momentum in (0.1, 0.2):
        (tmp_path / "optimizer" / "mine.yaml").write_text(f"_target_: torch.optim.SGD\nmomentum: {momentum}\n")
        assert compose("pretrain", ["optimizer=mine"], [tmp_path]).optimizer.momentum == momentum
