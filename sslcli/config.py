"""From words to a checked configuration: where YAML files lie, what may stand in them, and what a typo is told.

Three nets catch a mistake before any work: the schema below (for keys we own), Hydra's struct flag (keys of a chosen YAML), and
`build.check` (arguments of the class that a YAML names).
"""

from __future__ import annotations

import functools
import importlib.metadata
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from sslcli.errors import RequestError, listing, nearest

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
MAX_YAML_BYTES, MAX_YAML_ALIASES, MAX_YAML_NODES = 1_000_000, 50, 20_000


# ---------------------------------------------------------------------------------------------------------------- folders


def config_dir() -> Path:
    """The shipped `configs/`: inside the package when installed, at the top of a checkout otherwise."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "configs"


@functools.cache
def plugin_packages() -> tuple[str, ...]:
    """Names of installed packages that extend sslcli: their classes may be named in YAML, their `configs/` is searched."""
    return tuple(sorted({e.value.split(":")[0] for e in importlib.metadata.entry_points(group=ENTRY_POINTS)}))


def plugin_config_dirs() -> list[Path]:
    from importlib.resources import files

    return [path for name in plugin_packages() if (path := Path(str(files(name))) / "configs").is_dir()]


def choices(group: str, extra: Iterable[Path] = ()) -> dict[str, Path]:
    """The YAML files of a group by name: the folder is the registry. Ours come first and win."""
    found: dict[str, Path] = {}
    for root in [config_dir(), *plugin_config_dirs(), *extra]:
        for path in sorted((root / group).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def describe(path: Path, group: str) -> dict[str, Any]:
    """What a YAML says of itself (`summary`, `family`, `source`, ...), without composing or importing anything."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(path.read_text(encoding="utf-8"), loader) or {}
    inner = content.get(group) if isinstance(content.get(group), dict) else None
    node = {**content, **(inner or {})}
    head = next((line.lstrip("# ") for line in path.read_text("utf-8").splitlines() if _is_header(line)), "")
    return {**node, "summary": node.get("summary") or head}


def _is_header(line: str) -> bool:
    return line.startswith("# ") and "@package" not in line


def check_foreign_yaml(folder: Path) -> None:
    """Refuses YAML from outside that is too large, binary, or built to explode, before OmegaConf sees it."""
    import yaml

    for path in sorted(folder.rglob("*.yaml")):
        size = path.stat().st_size
        if size > MAX_YAML_BYTES:
            raise RequestError(f"{path} is {size:,} bytes; a config file may have {MAX_YAML_BYTES:,}")
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError as e:
            raise RequestError(f"{path} is not UTF-8 text (byte {e.start})", "save it as UTF-8") from None
        if text.startswith("\ufeff"):
            raise RequestError(f"{path} starts with a byte-order mark", "save it as UTF-8 without BOM")
        aliases = nodes = 0
        try:
            for event in yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
                aliases += isinstance(event, yaml.AliasEvent)
                nodes += isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
                if aliases > MAX_YAML_ALIASES or nodes > MAX_YAML_NODES:
                    raise RequestError(f"{path} has too many {'aliases' if aliases > MAX_YAML_ALIASES else 'nodes'}")
        except yaml.YAMLError as e:
            raise RequestError(f"{path} is not valid YAML: {_one_line(e)}") from None


# ----------------------------------------------------------------------------------------------------------------- schema


@dataclass
class Train:
    """How long and in what portions. Values: configs/train/default.yaml."""

    epochs: int | None = None
    steps: int | None = None
    budget: Any = None
    batch_size: int = 256
    accumulate: int = 1
    clip: float | None = None
    save_every: Any = "5m"
    eval_every: Any = "auto"
    keep: int = 2
    on_collapse: str = "warn"


@dataclass
class Device:
    type: str = "auto"
    precision: str = "auto"
    channels_last: Any = "auto"
    compile: bool = False
    workers: Any = "auto"
    threads: int | None = None


@dataclass
class Pretrain:
    """The keys of `sslcli pretrain`. A group that a YAML fills is `Any`: the class it names is its schema."""

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
class Eval(Pretrain):
    run: str = "latest"
    labels: Any = "all"
    seeds: int = 1


@dataclass
class Pipeline(Pretrain):
    stages: list[str] = field(default_factory=list)
    labels: Any = "all"
    seeds: int = 1


SCHEMAS = {"pretrain": Pretrain, "eval": Eval, "pipeline": Pipeline}


def register() -> None:
    """Makes the schemas known to Hydra."""
    from hydra.core.config_store import ConfigStore

    for word, schema in SCHEMAS.items():
        ConfigStore.instance().store(name=f"{word}_schema", node=schema)


# ---------------------------------------------------------------------------------------------------------------- compose


def compose(word: str, overrides: list[str], extra: list[Path] | None = None) -> Any:
    """The configuration of `word` with `overrides`, as a DictConfig. Mistakes raise RequestError with a hint."""
    import hydra

    register()
    search = search_override(extra or [])
    try:
        with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
            return hydra.compose(word, overrides=[*search, *overrides], return_hydra_config=True)
    except Exception as e:  # composing touches nothing but words and YAML: whatever fails here, the words were wrong
        raise explain(e, word, overrides, extra or []) from None


def search_override(extra: Iterable[Path]) -> list[str]:
    """The override that adds the folders of plug-ins (and, when composing ourselves, of --config-dir) to Hydra's search path."""
    folders = [*plugin_config_dirs(), *extra]
    return [f"hydra.searchpath=[{','.join(f'file://{p.resolve()}' for p in folders)}]"] if folders else []


def load_choice(group: str, name: str, root: Any, extra: Iterable[Path] = ()) -> Any:
    """One YAML of a group under a composed root (so that `${labels}` resolves); for stages that are chosen in a list."""
    from omegaconf import OmegaConf

    known = choices(group, extra)
    if name not in known:
        raise unknown_choice(group, name, known)
    merged: Any = OmegaConf.merge(root, {group: None})
    OmegaConf.set_struct(merged, False)
    merged[group] = OmegaConf.load(known[name])
    return merged[group]


def plain(node: Any) -> Any:
    """Resolved, as plain dicts, lists, numbers and strings. A missing or unresolvable value is a RequestError."""
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    if not isinstance(node, (DictConfig, ListConfig)):
        return node
    try:
        missing = sorted(OmegaConf.missing_keys(node))
        if missing:
            path = node._get_full_key(None)
            key = f"{path}.{missing[0]}" if path else missing[0]
            raise RequestError(f"`{key}` must be given", f"add {key}=...")
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except InterpolationKeyError as e:
        name = re.search(r"key '([^']+)' not found", str(e))
        at = f"`{e.full_key}`: " if e.full_key else ""
        raise RequestError(f"{at}`${{{name[1] if name else '?'}}}` names no key") from None
    except OmegaConfBaseException as e:
        raise RequestError(f"a value cannot be resolved: {_one_line(e)}") from None


# ----------------------------------------------------------------------------------------------------------- explanations


def unknown_choice(group: str, name: str, known: Iterable[str]) -> RequestError:
    known = list(known)
    close = nearest(name, known)
    plural = next((k for k, g in KINDS.items() if g == group), None)
    all_of = f"`sslcli list {plural}` shows all {len(known)}" if plural else f"there are {listing(sorted(known))}"
    article = "an" if group[0] in "aeiou" else "a"
    return RequestError(
        f"no {group} named `{name}`",
        f"did you mean `{close}`? {all_of}" if close else f"{all_of}; {article} {group} is needed",
    )


def explain(e: Exception, word: str, overrides: list[str], extra: list[Path]) -> RequestError:
    """Hydra's and OmegaConf's errors in the user's words."""
    text = "\n".join(str(x) for x in (e, e.__cause__) if x is not None)
    if m := re.search(r"Could not (?:find|load) '([\w-]+)/([^']*)'", text):
        group, name = m[1], m[2]
        if group in GROUPS:
            return unknown_choice(group, name, choices(group, extra))
    if m := re.search(r"Could not override '([\w/@.-]+)'\.\s*No match in the defaults list", text):
        return unknown_key(m[1], word)
    if "Config group override must be" in text:
        bad = next((o for o in overrides if o.partition("=")[0].lstrip("+~") in ("", *GROUPS)), listing(overrides))
        return RequestError(
            f"`{bad}`: a group takes the name of a choice", "GROUP=NAME; keys of it are GROUP.KEY=VALUE"
        )
    if "Ambiguous value for argument" in text:
        ambiguous = re.search(r"argument '([^']+)'", text)
        shown = ambiguous[1] if ambiguous else "a value"
        return RequestError(
            f"`{shown}` is several values", f"add -m to run each; for one list, write {shown.replace('=', '=[', 1)}]"
        )
    if re.search(
        r"Error parsing override|LexerNoViableAlt|no viable alternative|mismatched input|extraneous input|token recognition",
        text,
    ):
        bad = next((o for o in overrides if not _parses(o)), listing(overrides))
        return RequestError(f"cannot read `{bad}`", f"an override is key=value; the shell may want quotes: '{bad}'")
    if m := re.search(r"[Ii]nterpolation key '([^']+)' not found", text):
        return RequestError(f"`${{{m[1]}}}` names no key")
    m = re.search(r"(?:Could not override|Error merging override) '?([\w.@/+~-]+)", text)
    key = m[1] if m else None
    if missing := re.search(r"Key '([^']+)' (?:is )?not in", text):
        full = re.search(r"full_key: ([\w.]+)", text)
        return unknown_key(key or (full[1] if full else missing[1]), word)
    if key is not None:
        if "does not support deletion" in text:
            return RequestError(f"`{key}` cannot be taken out", f"{key}=null switches it off where that is possible")
        value = next((o.split("=", 1)[1] for o in overrides if o.lstrip("+~").split("=", 1)[0] == key and "=" in o), "")
        if wanted := re.search(r"could not be converted to (\w+)", text):
            return RequestError(f"`{key}={value}`: expected {_kind(wanted[1])}, got `{value}`")
        return RequestError(f"`{key}={value}`: {_one_line(e.__cause__ or e)}")
    if m := re.search(r"Value '([^']*)'.* could not be converted to (\w+)", text):
        full = re.search(r"full_key: ([\w.]+)", text)
        return RequestError(f"`{full[1] if full else 'a key'}={m[1]}`: expected {_kind(m[2])}, got `{m[1]}`")
    return RequestError(_one_line(e))


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unknown_key(key: str, word: str = "pretrain") -> RequestError:
    """`train.epoch` -> error with `train.epochs` as hint, looked up among the keys of the default composition."""
    key = key.lstrip("+")
    if key in GROUPS:
        return RequestError(f"`{key}` takes no such choice here")
    known = known_keys(word)
    parent, _, leaf = key.rpartition(".")
    siblings = {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent}
    close = nearest(leaf, siblings)
    best = f"{parent}.{close}" if close and parent else close or nearest(key, known)
    if not best:  # `lr=1` for `optimizer.lr`
        best = next((k for k in sorted(known) if k.rpartition(".")[2] == leaf), None)
    has = f"`{parent}` has no key `{leaf}`" if parent else f"there is no key `{key}`"
    inside = f"`{parent}` has {listing(sorted(siblings))}" if siblings else None
    return RequestError(has, f"did you mean `{best}`?" if best else inside or f"`sslcli {word} --help` shows the keys")


@functools.cache
def known_keys(word: str) -> frozenset[str]:
    import hydra
    from omegaconf import OmegaConf

    register()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        tree = OmegaConf.to_container(hydra.compose(word), resolve=False)
    found: set[str] = set()

    def walk(node: Any, path: str) -> None:
        if path:
            found.add(path)
        if isinstance(node, dict):
            for k, v in node.items():
                walk(v, f"{path}.{k}" if path else str(k))

    walk(tree, "")
    return frozenset(found)


def _kind(name: str) -> str:
    return {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}.get(name, name)


def _one_line(e: BaseException | str) -> str:
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return lines[0] if lines else type(e).__name__


# ------------------------------------------------------------------------------------------------------------ value checks


def seconds(value: Any, key: str) -> float:
    """A duration: 90, `90s`, `20m`, `1h30m`, `2d`. Raises RequestError naming `key`."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        total = float(value)
    else:
        parts = re.fullmatch(
            r"\s*(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?\s*", str(value)
        )
        if not parts or not any(parts.groups()):
            raise RequestError(f"`{key}={value}` is no duration", "write it as 90s, 20m or 1h30m")
        total = sum(float(p or 0) * unit for p, unit in zip(parts.groups(), (86400, 3600, 60, 1), strict=True))
    if not (math.isfinite(total) and total > 0):
        raise RequestError(f"`{key}={value}` must be more than nothing")
    return total


def check_values(cfg: dict[str, Any], word: str = "pretrain") -> None:
    """Ranges of what we own. Raises RequestError."""
    for key in cfg:
        if key not in {f.name for f in fields(SCHEMAS[word])}:
            raise unknown_key(key, word)
    for group in (
        "method",
        "backbone",
        "dataset",
        "optimizer",
        "schedule",
        "evaluator",
        "augmentation",
        "logger",
        "train",
        "device",
    ):
        if not isinstance(cfg.get(group), dict):
            raise RequestError(
                f"there is no {group}", f"choose one: {group}=NAME (`sslcli pretrain --help` lists them)"
            )
    train, device = cfg["train"], cfg["device"]

    def at_least(key: str, value: Any, low: float, what: str = "") -> None:
        if value is not None and not (isinstance(value, (int, float)) and math.isfinite(value) and value >= low):
            raise RequestError(f"`{key}={value}` must be {what or f'a number of at least {low}'}")

    for key in ("epochs", "steps", "batch_size", "accumulate", "keep"):
        at_least(f"train.{key}", train[key], 1)
    if train["clip"] is not None and not (math.isfinite(train["clip"]) and train["clip"] > 0):
        raise RequestError(f"`train.clip={train['clip']}` must be a positive number, or null")
    if train["batch_size"] % train["accumulate"]:
        raise RequestError(
            f"train.batch_size={train['batch_size']} is not divisible by train.accumulate={train['accumulate']}",
            "batch_size is the whole batch of one optimizer step",
        )
    if not any(train[k] is not None for k in ("epochs", "steps", "budget")):
        raise RequestError("nothing says how long to train", "give train.epochs, train.steps or train.budget")
    if train["budget"] is not None:
        seconds(train["budget"], "train.budget")
    if not isinstance(train["save_every"], int) or isinstance(train["save_every"], bool):
        seconds(train["save_every"], "train.save_every")
    else:
        at_least("train.save_every", train["save_every"], 1)
    if train["eval_every"] != "auto":
        at_least("train.eval_every", train["eval_every"], 0, "auto, or a number of epochs (0: never)")
    _one_of("train.on_collapse", train["on_collapse"], ("warn", "stop"))
    _one_of("device.type", device["type"], ("auto", "cpu", "cuda", "mps"))
    _one_of("device.precision", device["precision"], ("auto", "fp32", "bf16"))
    _one_of("device.channels_last", device["channels_last"], ("auto", True, False))
    if device["workers"] != "auto":
        at_least("device.workers", device["workers"], 0, "auto, or a number of at least 0")
    at_least("device.threads", device["threads"], 1)
    for key in ("lr", "weight_decay"):
        value = (cfg.get("optimizer") or {}).get(key)
        if value is None or value == "":
            raise RequestError(f"`optimizer.{key}` has no value", f"give optimizer.{key}=NUMBER")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise RequestError(f"`optimizer.{key}={value}`: expected a number, got `{value}`")
        if not math.isfinite(value) or value < 0 or (key == "lr" and value == 0):
            raise RequestError(
                f"`optimizer.{key}={value}` must be a {'positive' if key == 'lr' else 'non-negative'} number"
            )
    for key, value in _walk(cfg.get("method") or {}, "method"):
        if key.rpartition(".")[2] in ("temperature", "queue") and isinstance(value, (int, float)) and value <= 0:
            raise RequestError(f"`{key}={value}` must be more than 0")
    for key, value in _walk(cfg, ""):
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"`{key}={value}` is not a finite number")
        if value == "":
            raise RequestError(f"`{key}=` has no value", f"give {key}=VALUE, or {key}=null for none")


def _walk(node: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(node, dict):
        for k, v in node.items():
            yield from _walk(v, f"{path}.{k}" if path else str(k))
    elif isinstance(node, list):
        for i, v in enumerate(node):
            yield from _walk(v, f"{path}.{i}")
    else:
        yield path, node


def _one_of(key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        names = [str(a).lower() for a in allowed]
        close = nearest(str(value), names)
        raise RequestError(
            f"`{key}={value}` is not one of {', '.join(names)}", f"did you mean `{key}={close}`?" if close else None
        )


def runs_root() -> Path:
    """Where run folders go: $SSLCLI_RUNS, or `runs` in the working folder."""
    return Path(os.environ.get("SSLCLI_RUNS") or "runs")
