"""Which method runs on which kind of data: what modalities provide and methods require, by their YAML files, and what a request
implies. Imports no torch."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sslcli.config import instantiate, registry
from sslcli.errors import RequestError

WORDS = {  # what a modality provides (configs/modality) and a method requires (configs/method)
    "views": "two random views of a sample",
    "values": "values that can be predicted",
    "continuous": "values that are all numbers",
    "positions": "a backbone with a token for each position",
    "blocks": "neighboring positions that belong together",
    "order": "positions in an order",
    "vocabulary": "ids of a vocabulary",
    "items": "items that users chose, one after another",
    "columns": "columns of a table",
    "pixels": "an image",
    "time": "a time axis",
    "frames": "frames of a clip",
    "pairs": "samples of two kinds that belong together",
}
LENGTH = ("train.epochs", "train.budget")
DEFAULT_REQUIRES = ("views",)
PLAIN, UNUSUAL, REFUSED = "plain", "unusual", "refused"


def modality_files(config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """configs/modality: the YAML files by name, with those of `config_dirs` and of the folders that this process trusts."""
    return registry.choices("modality", [*config_dirs, *map(Path, instantiate.trusted_folders())])


def modalities(config_dirs: Iterable[Path] = ()) -> list[str]:
    """The names of all modalities."""
    return list(modality_files(config_dirs))


@functools.cache
def description(name: str) -> Mapping[str, Any]:
    """configs/modality/NAME.yaml. RequestError for an unknown name."""
    files = modality_files()
    if name not in files:
        raise RequestError(f"unknown modality {name!r}", f"the modalities are {', '.join(files)}")
    return registry.describe(files[name], "modality")


def provides(name: str) -> frozenset[str]:
    """What a modality provides; a method runs on it where this includes all that the method requires."""
    return frozenset(description(name).get("provides", ()))


def is_unusual(method: str, name: str) -> bool:
    """Whether a method, by the name of its YAML file, is no usual choice for a modality, although it runs."""
    return method in description(name).get("unusual", ())


def token_backbone(dataset: str) -> str:
    """The default backbone of methods that require positions, for the data set of a YAML file: that of the modality which the file
    names, of images otherwise."""
    return str(_of_dataset(dataset).get("token_backbone", "vit_micro"))


def with_implied(overrides: list[str]) -> list[str]:
    """The overrides of a request, with the method or the experiment of the data where none is chosen, and without the number of
    steps of a recipe where epochs or a time are given."""
    return with_length(with_method(overrides))


def with_method(overrides: list[str]) -> list[str]:
    """With the default method or experiment of the modality, where neither a method, a backbone nor an experiment is chosen; with
    the method of `experiment=adapt`. Given weights (`init`) get no experiment, whose learning rate is that of random weights."""
    given = _values(overrides)
    if given.get("experiment") == "adapt":
        return with_adaptation(overrides)
    if not given.keys().isdisjoint(("method", "backbone", "experiment")):
        return overrides
    usual = _of_dataset(given.get("dataset", ""))
    groups = ("method",) if given.get("init", "null") != "null" or "run" in given else ("method", "experiment")
    return [*overrides, *(f"{group}={usual[group]}" for group in groups if group in usual)]


def with_adaptation(overrides: list[str]) -> list[str]:
    """The overrides of a request with the method of `experiment=adapt`, where none is chosen: masked prediction for a backbone of
    the class of the modality's token backbone. For others the experiment itself has one with an EMA teacher."""
    given = _values(overrides)
    if "method" in given or "backbone" not in given:
        return overrides
    dataset = given.get("dataset", "")
    files = registry.choices("backbone", map(Path, instantiate.trusted_folders()))
    names = [name for name in (given["backbone"], token_backbone(dataset)) if name in files]
    targets = [registry.describe(files[name], "backbone").get("_target_") for name in names]
    if len(targets) < 2 or targets[0] != targets[1]:
        return overrides
    return [*overrides, f"method={_of_dataset(dataset).get('masked_method', 'mae')}"]


def with_length(overrides: list[str]) -> list[str]:
    """`train.steps=null` where the recipe of the method or of the experiment has a number of steps, which would take precedence
    over the length that the request gives."""
    given = _values(overrides)
    typed = [key for key in LENGTH if given.get(key, "null") != "null"]
    if not typed or "train.steps" in given:
        return overrides
    for group in ("method", "experiment"):
        files = registry.choices(group, map(Path, instantiate.trusted_folders()))
        if given.get(group) in files:
            recipe: Mapping[str, Any] = registry.describe(files[given[group]], group)
            if (recipe.get("train") or {}).get("steps"):
                return [*overrides, "train.steps=null"]
    return overrides


def _values(overrides: list[str]) -> dict[str, str]:
    return {key.lstrip("+"): value for key, _, value in (o.partition("=") for o in overrides)}


def _of_dataset(dataset: str) -> Mapping[str, Any]:
    """The modality of the data set of a YAML file; images where it names none."""
    files = registry.choices("dataset", map(Path, instantiate.trusted_folders()))
    node = registry.describe(files[dataset], "dataset") if dataset in files else {}
    return description(str(node.get("modality", "image")))


def requires(node: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> frozenset[str]:
    """What a method requires: the `requires` of its YAML node, and of its tasks, which are among `methods`."""
    tasks = node.get("tasks")
    of_tasks = [requires(methods[t], methods) for t in tasks if t in methods] if isinstance(tasks, list) else []
    return frozenset(node.get("requires", DEFAULT_REQUIRES)).union(*of_tasks)


def support(method: str, needed: frozenset[str], kind: Mapping[str, Any]) -> str:
    """Whether a method that requires `needed` runs on a modality, by its YAML node: `plain`, `unusual` or `refused`."""
    if not needed <= frozenset(kind.get("provides", ())):
        return REFUSED
    return UNUSUAL if method in kind.get("unusual", ()) else PLAIN


def methods_for(name: str) -> list[str]:
    """The methods that run on a modality and are a usual choice."""
    nodes = {method: registry.describe(path, "method") for method, path in registry.choices("method").items()}
    here = description(name)
    return [m for m, node in nodes.items() if support(m, requires(node, nodes), here) == PLAIN]
