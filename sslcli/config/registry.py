"""Where YAML files lie, which choices there are, and the schema of the keys that we own."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sslcli.errors import RequestError

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
KINDS = {  # the word after `sslcli list` -> config group
    "methods": "method",
    "backbones": "backbone",
    "datasets": "dataset",
    "augmentations": "augmentation",
    "evals": "evaluator",
    "experiments": "experiment",
    "optimizers": "optimizer",
    "schedules": "schedule",
    "devices": "device",
}
ENTRY_POINTS = "sslcli.plugins"  # name -> package; the package's `configs/` folder joins the search path

# Limits for YAML that is not ours (an alias bomb of 242 bytes costs OmegaConf half a minute).
MAX_YAML_BYTES, MAX_YAML_ALIASES, MAX_YAML_NODES, MAX_YAML_DEPTH = 1_000_000, 50, 20_000, 50
LONG_NUMBER = re.compile(r"[-+]?[0-9][0-9a-fA-F_xob:]{100,}")  # what YAML reads as an integer
MAX_ENTRIES = 50_000  # files and folders below a --config-dir


# ---------------------------------------------------------------------------------------------------------------- folders


def config_dir() -> Path:
    """The shipped `configs/`: inside the package when installed, at the top of a checkout otherwise."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


@functools.cache
def plugin_packages() -> tuple[str, ...]:
    """Names of installed packages that extend sslcli: their classes may be named in YAML, their `configs/` is searched."""
    return tuple(sorted({e.value.split(":")[0] for e in importlib.metadata.entry_points(group=ENTRY_POINTS)}))


def plugin_config_dirs() -> list[Path]:
    from importlib.resources import files

    return [path for name in plugin_packages() if (path := Path(str(files(name))) / "configs").is_dir()]


def search_override(extra: Iterable[Path]) -> list[str]:
    """The override that adds the folders of plug-ins (and, when composing ourselves, of --config-dir) to Hydra's search path."""
    folders = [*plugin_config_dirs(), *extra]
    return [f"hydra.searchpath=[{','.join(f'file://{p.resolve()}' for p in folders)}]"] if folders else []


def choices(group: str, extra: Iterable[Path] = ()) -> dict[str, Path]:
    """The YAML files of a group by name: the folder is the registry. Ours come first and win."""
    found: dict[str, Path] = {}
    for root in [config_dir(), *plugin_config_dirs(), *extra]:
        for path in sorted((root / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


@functools.cache
def targets(group: str) -> frozenset[str]:
    """What the YAML files of a group (and experiments), of sslcli and of installed plug-ins, name as their `_target_`."""
    files = [*choices(group).values(), *choices("experiment").values()]
    texts = (path.read_text(encoding="utf-8") for path in files)
    return frozenset(t for text in texts for t in re.findall(r"^ *_target_: *([\w.]+)", text, re.MULTILINE))


# Dotted names of earlier versions, and those of today. Runs name the former: they are built from the latter, and compared by
# the former, so that the hash of a configuration stays.
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
}
_FIRST = {new: old for old, new in RENAMED.items()}


def current_name(target: Any) -> Any:
    """The dotted name of today of a `_target_` that an earlier version may have written."""
    return RENAMED.get(target, target) if isinstance(target, str) else target


def first_name(target: Any) -> Any:
    """The dotted name under which a `_target_` was first published."""
    return _FIRST.get(target, target) if isinstance(target, str) else target


def describe(path: Path, group: str) -> dict[str, Any]:
    """What a YAML says of itself (`summary`, `family`, `source`, ...), without composing or importing anything."""
    import yaml

    if not path.is_relative_to(config_dir()):
        check_yaml(path)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader) or {}
    except (yaml.YAMLError, ValueError) as e:  # ValueError: a date that is none
        raise RequestError(f"{path} is not valid YAML: {one_line(e)}") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds no keys")
    inner = content.get(group) if isinstance(content.get(group), dict) else None
    node = {**content, **(inner or {})}
    head = next((line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if _is_header(line)), "")
    return {**node, "summary": node.get("summary") or head}


def _is_header(line: str) -> bool:
    return line.startswith("# ") and "@package" not in line


def check_foreign_yaml(folder: Path) -> None:
    """Looks at every YAML file below a folder from outside, before OmegaConf sees it; see `check_yaml`."""
    entries = 0
    for root, folders, files in os.walk(folder):  # follows no links
        folders.sort()
        entries += len(files) + len(folders)
        if entries > MAX_ENTRIES:
            raise RequestError(
                f"{folder} holds more than {MAX_ENTRIES:,} files", "give the folder that holds the YAML files itself"
            )
        for name in sorted(f for f in files + folders if f.endswith(".yaml")):
            check_yaml(Path(root, name))


def check_yaml(path: Path) -> None:
    """Refuses a YAML file that is too large, binary, or built to explode. Nothing in it is made into an object.

    Raises RequestError. A FIFO, a device or a folder is never opened."""
    import stat

    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise RequestError(f"{path} is no regular file")
        if about.st_size > MAX_YAML_BYTES:
            raise RequestError(f"{path} is {about.st_size:,} bytes; a config file may have {MAX_YAML_BYTES:,}")
        content = path.read_bytes()
    except OSError as e:
        raise RequestError(f"{path} cannot be read: {e.strerror}") from None
    yaml_text(content, path)


def yaml_text(content: bytes, path: Path) -> str:
    """The text of a YAML file (`path`, for messages) that is not built to explode. RequestError."""
    import yaml

    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as e:
        raise RequestError(f"{path} is not UTF-8 text (byte {e.start})", "save it as UTF-8") from None
    if text.startswith("\ufeff"):
        raise RequestError(f"{path} starts with a byte-order mark", "save it as UTF-8 without BOM")
    aliases = nodes = depth = 0
    try:
        for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            aliases += isinstance(event, yaml.AliasEvent)
            nodes += isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.ScalarEvent) and LONG_NUMBER.fullmatch(event.value):
                raise RequestError(f"{path} holds a number of {len(event.value):,} digits: {event.value[:20]}...")
            for what, n, most in (
                ("aliases", aliases, MAX_YAML_ALIASES),
                ("nodes", nodes, MAX_YAML_NODES),
                ("levels", depth, MAX_YAML_DEPTH),
            ):
                if n > most:
                    raise RequestError(f"{path} has too many {what} (over {most:,})")
    except yaml.YAMLError as e:
        raise RequestError(f"{path} is not valid YAML: {one_line(e)}", _where(e)) from None
    return text


def _where(e: Exception) -> str | None:
    mark = getattr(e, "problem_mark", None)
    return f"look at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else None


# ----------------------------------------------------------------------------------------------------------------- schema


@dataclass
class Train:
    """How long and in what portions. Values: configs/train/default.yaml."""

    epochs: int | None = None
    steps: int | None = None
    budget: Any = None
    batch_size: int | str = "auto"
    accumulate: int = 1
    clip: float | None = None
    save_every: Any = "5m"
    eval_every: Any = "auto"
    save_in_background: bool = False
    keep: int = 2
    on_collapse: str = "warn"
    devices: Any = 1
    strategy: str = "ddp"
    sync_batchnorm: bool = True
    classes: Any = None


@dataclass
class Device:
    type: str = "auto"
    precision: str = "auto"
    channels_last: Any = "auto"
    compile: bool = False
    native: Any = "auto"
    workers: Any = "auto"
    threads: int | None = None


@dataclass
class Common:
    """The keys of every word that Hydra runs. A group that a YAML fills is `Any`: the class it names is its schema."""

    method: Any = None
    backbone: Any = None
    dataset: Any = None
    augmentation: Any = None
    optimizer: Any = None
    schedule: Any = None
    evaluator: Any = None
    logger: Any = None
    device: Device = field(default_factory=Device)
    train: Train = field(default_factory=Train)
    seed: int = 0
    init: str | None = None


@dataclass
class Pretrain(Common):
    resume: Any = None


@dataclass
class Eval(Common):
    run: str = "latest"
    labels: Any = "all"
    seeds: int = 1
    allow_data_change: bool = False


@dataclass
class Pipeline(Pretrain):
    stages: list[str] = field(default_factory=list)
    report: bool = True
    labels: Any = "all"
    seeds: int = 1


@dataclass
class Bench(Common):
    repeats: int = 3
    seconds: float = 2.0


SCHEMAS = {"pretrain": Pretrain, "eval": Eval, "pipeline": Pipeline, "bench": Bench}


def filled(cfg: dict[str, Any]) -> dict[str, Any]:
    """A run's configuration with the schema's defaults where an older or edited config.yaml lacks a key."""
    defaults = asdict(Common())
    found = {**cfg, **{key: cfg.get(key, defaults[key]) for key in ("seed", "init")}}
    for group in ("device", "train"):
        own = cfg.get(group, {})
        found[group] = {**defaults[group], **own} if isinstance(own, dict) else own
    return found


def on_gpu(device: str, yes: Any, no: Any) -> Any:
    """`yes` where `device` (the choice of the group, or device.type) means a GPU of this machine, else `no`."""
    if device in ("cpu", "cuda", "mps"):
        return no if device == "cpu" else yes
    import torch

    return yes if torch.cuda.is_available() else no


@functools.cache
def register_resolvers() -> None:
    """Makes `${on_gpu:${device.type},224,64}` known to OmegaConf, once: defaults that follow the device. In a list of defaults,
    where no key is known yet, `${device}` is the choice of the group. A composed configuration holds what came of it."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("on_gpu", on_gpu)


@functools.cache
def register() -> None:
    """Makes the schemas known to Hydra, once."""
    from hydra.core.config_store import ConfigStore

    register_resolvers()

    for word, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{word}_schema", node=schema)


# ------------------------------------------------------------------------------------------------------------ run folders


def one_line(e: BaseException | str) -> str:
    """The first line of an error that says anything."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[0] if lines else type(e).__name__


def runs_root() -> Path:
    """Where run folders go: $SSLCLI_RUNS, or `runs` in the working folder."""
    return Path(os.environ.get("SSLCLI_RUNS") or "runs")
