"""Hydra reads each YAML file of sslcli once, and merges the same choices once, in the process of the tests.

Composing takes half of the time of a short run, and thousands of tests run commands. What a command sets and how its words are
parsed and checked is not remembered. Folders of the user, and processes that tests start, are composed as ever."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from omegaconf import OmegaConf

OURS = {"hydra", "main", "schema"}  # providers of files that no test changes


def install(patch: pytest.MonkeyPatch) -> None:
    load, merge = "load_config", "_compose_config_from_defaults_list"
    patch.setattr(ConfigRepository, load, remembered(getattr(ConfigRepository, load), loaded))
    patch.setattr(ConfigLoaderImpl, merge, remembered(getattr(ConfigLoaderImpl, merge), merged))
    patch.setattr(defaults_list, "_create_interpolation_map", mapping_if_read(defaults_list._create_interpolation_map))


def loaded(repository: Any, config_path: str) -> tuple[Any, object]:
    """The repository, and what identifies the file."""
    return repository, config_path


def merged(loader: Any, defaults: list[Any], repo: Any) -> tuple[Any, object]:
    """The repository, and what identifies the choices."""
    return repo, [vars(default) for default in defaults]


def remembered(function: Callable[..., Any], identity: Callable[..., tuple[Any, object]]) -> Callable[..., Any]:
    """`function` with a memory of its results, copies of which are returned."""
    known: dict[str, bytes] = {}

    @functools.wraps(function)
    def called(*args: Any, **named: Any) -> Any:
        repository, what = identity(*args, **named)
        sources = repository.get_sources()
        if {source.provider for source in sources} - OURS:
            return function(*args, **named)
        key = repr([what, [source.path for source in sources]])
        if key not in known:
            known[key] = pickle.dumps(function(*args, **named))
        return pickle.loads(known[key])

    return called


def mapping_if_read(mapping: Callable[..., Any]) -> Callable[..., Any]:
    """`mapping` of the choices, which names with an interpolation read, where there are such names."""

    @functools.wraps(mapping)
    def mapped(overrides: Any, defaults: list[Any], self_added: bool) -> Any:
        names = [str(getattr(entry, attribute, "")) for entry in defaults for attribute in ("path", "value")]
        if not any("${" in name for name in names):
            return OmegaConf.create()
        return mapping(overrides, defaults, self_added)

    return mapped
