"""Config groups and their choices: which YAML files exist, where they are located, and the `_target_` names they use."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sslcli.config.safe_yaml import check_yaml
from sslcli.errors import RequestError, first_line

GROUPS = (
    "method",
    "backbone",
    "dataset",
    "augmentation",
    "device",
    "optimizer",
    "schedule",
    "train",
    "evaluator",
    "logger",
    "experiment",
)
KINDS = {  # argument of `sslcli list` -> config group
    "methods": "method",
    "backbones": "backbone",
    "datasets": "dataset",
    "augmentations": "augmentation",
    "evals": "evaluator",
    "modalities": "modality",
    "experiments": "experiment",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "devices": "device",
}
SYNONYMS = {  # other names of choices
    "webdataset": "tar",
    "wds": "tar",
    "imagefolder": "image_folder",
    "folder": "image_folder",
    "gpu": "cuda",
}
# Keys of a YAML file that describe its target and change nothing that it computes.
FACT_KEYS: dict[str, frozenset[str]] = {
    "": frozenset({"summary"}),
    "dataset": frozenset({"modality", "path_keys"}),  # path_keys: those that name files or folders
    "method": frozenset({"family", "source", "requires", "needs", "modality"}),  # modality: in runs of earlier versions
    "evaluator": frozenset({"title", "metric", "needs", "order", "ranks_runs"}),  # see sslcli/evals/base/info.py
}
ENTRY_POINTS = "sslcli.plugins"  # name -> package; the package's `configs/` folder joins the search path


# ---------------------------------------------------------------------------------------------------------------- folders


def config_dir() -> Path:
    """The `configs/` of sslcli: inside the package when installed, at the top of a checkout otherwise."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@functools.cache
def plugin_packages() -> tuple[str, ...]:
    """Names of installed packages that extend sslcli: YAML may name their classes, and their `configs/` is searched."""
    import importlib.metadata  # a quarter of the time of `sslcli --help`

    return tuple(sorted({e.value.split(":")[0] for e in importlib.metadata.entry_points(group=ENTRY_POINTS)}))


def plugin_config_dirs() -> list[Path]:
    from importlib.resources import files

    return [path for name in plugin_packages() if (path := Path(str(files(name))) / "configs").is_dir()]


def search_override(config_dirs: Iterable[Path]) -> list[str]:
    """The override that adds the folders of plug-ins, and `config_dirs`, to Hydra's search path."""
    folders = [*plugin_config_dirs(), *config_dirs]
    return [f"hydra.searchpath=[{','.join(f'file://{p.resolve()}' for p in folders)}]"] if folders else []


def choices(group: str, config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """The YAML files of a group by name. Where a name occurs twice, sslcli comes before plug-ins, and plug-ins before
    `config_dirs`."""
    files: dict[str, Path] = {}
    for root in [config_dir(), *plugin_config_dirs(), *config_dirs]:
        for path in sorted((root / group).glob("*.yaml")):
            files.setdefault(path.stem, path)
    return files


def evaluators(config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """The YAML files of the evaluators that `sslcli eval` takes; `online` evaluates while training."""
    return {name: path for name, path in choices("evaluator", config_dirs).items() if name != "online"}


@functools.cache
def targets(group: str) -> frozenset[str]:
    """All `_target_` names in the YAML files of a group and of experiments, of sslcli and of installed plug-ins, and the
    preprocessors of modalities."""
    files = [*choices(group).values(), *choices("experiment").values()]
    texts = (path.read_text(encoding="utf-8") for path in files)
    return frozenset(
        t for text in texts for t in re.findall(r"^ *(?:_target_|preprocessor): *([\w.]+)", text, re.MULTILINE)
    )


# Dotted names in the runs of earlier versions -> current names. Objects are built by the current name. Configurations are
# compared by the first name, so that their hash does not change.
RENAMED = {
    **{
        f"sslcli.data.classic.{name}": f"sslcli.data.{name}"
        for name in ("cifar10", "cifar100", "digits", "fashion_mnist", "kmnist", "mnist", "stl10", "svhn")
    },
    "sslcli.data.arrays.arrays": "sslcli.data.arrays",
    "sslcli.data.folder.image_folder": "sslcli.data.image_folder",
    "sslcli.data.pack.pack": "sslcli.data.pack",
    "sslcli.data.series.series": "sslcli.data.series",
    "sslcli.data.tar.tar": "sslcli.data.tar",
    "sslcli.evals.curve.curve": "sslcli.evals.labels.curve",
    "sslcli.evals.quality.online": "sslcli.evals.online.online",
}
_FIRST_NAMES = {new: old for old, new in RENAMED.items()}


def current_name(target: object) -> Any:
    """The current dotted name of a `_target_` that an earlier version may have written."""
    return RENAMED.get(target, target) if isinstance(target, str) else target


def first_name(target: object) -> Any:
    """The dotted name under which a `_target_` was first published."""
    return _FIRST_NAMES.get(target, target) if isinstance(target, str) else target


def describe(path: Path, group: str) -> dict[str, Any]:
    """The content of a YAML file with its `summary`, read without composing or importing anything. RequestError."""
    import yaml

    if not path.is_relative_to(config_dir()):
        check_yaml(path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader) or {}
    except (yaml.YAMLError, ValueError) as e:  # ValueError: an invalid date
        raise RequestError(f"{path} is not valid YAML: {first_line(e)}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path}: expected a mapping")
    inner = content.get(group) if isinstance(content.get(group), dict) else None
    node = {**content, **(inner or {})}
    lines = path.read_text("utf-8").splitlines()
    head = next((line.lstrip("# ") for line in lines if _is_header(line)), "")
    facts = (
        {name.lower(): text for line in lines for name, text in _FACT.findall(line)} if group == "experiment" else {}
    )
    return {**node, **facts, "summary": node.get("summary") or head}


_FACT = re.compile(r"^# (Published|Measured|Time): (.+)$")  # lines of an experiment: what to expect of it


def _is_header(line: str) -> bool:
    return line.startswith("# ") and "@package" not in line


def backbone_overrides(backbone: dict[str, Any]) -> list[str]:
    """The overrides that select a backbone's configuration: `backbone=NAME`, and the keys that differ from that YAML."""
    candidates: list[list[str]] = []
    for name, path in choices("backbone").items():
        known = describe(path, "backbone")
        if known.get("_target_") == backbone.get("_target_"):
            other = {k: v for k, v in backbone.items() if k not in ("_target_", "summary") and known.get(k) != v}
            candidates.append([f"backbone={name}", *(f"backbone.{k}={_json_text(v)}" for k, v in other.items())])
    return min(candidates, key=len, default=[])


def _json_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
