"""Config error messages: errors of Hydra and OmegaConf rewritten, with the nearest valid name as a hint."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from sslcli.config.dotted import walk
from sslcli.config.registry import GROUPS, KINDS, SYNONYMS, choices, config_dir, search_override
from sslcli.config.schema import register
from sslcli.errors import RequestError, first_line, listing, nearest


def unknown_choice(group: str, name: str, known: Iterable[str]) -> RequestError:
    """The error for a name that a config group does not have. `known`: the names that it has."""
    known = list(known)
    synonym = SYNONYMS.get(name)
    close = synonym if synonym in known else nearest(name, known)
    plural = next((k for k, g in KINDS.items() if g == group), None)
    all_of = f"`sslcli list {plural}` shows all {len(known)}" if plural else f"there are {listing(sorted(known))}"
    article = "an" if group[0] in "aeiou" else "a"
    return RequestError(
        f"no {group} named `{name}`",
        f"did you mean `{close}`? {all_of}" if close else f"{all_of}; {article} {group} is needed",
    )


def rewrite_error(e: Exception, command: str, overrides: list[str], config_dirs: list[Path]) -> RequestError:
    """An exception of Hydra or OmegaConf, raised for these overrides, as an error with a hint."""
    text = "\n".join(str(x) for x in (e, e.__cause__) if x is not None)
    if m := re.search(r"Could not (?:find|load) '([\w-]+)/([^']*)'", text):
        group, name = m[1], m[2]
        if group in GROUPS:
            return unknown_choice(group, name, choices(group, config_dirs))
    if m := re.search(r"Could not override '([\w/@.-]+)'\.\s*No match in the defaults list", text):
        return unknown_key(m[1], command, overrides, config_dirs)
    if "Config group override must be" in text:
        invalid = next((o for o in overrides if not _names_choice(o)), listing(overrides))
        return RequestError(
            f"'{invalid}': expected the name of a choice",
            "GROUP=NAME selects a choice; GROUP.KEY=VALUE sets one of its keys",
        )
    if "Ambiguous value for argument" in text:
        ambiguous = re.search(r"argument '([^']+)'", text)
        shown = ambiguous[1] if ambiguous else "a value"
        one_list = f"; write a list as {shown.replace('=', '=[', 1)}]" if shown.partition("=")[0] not in GROUPS else ""
        return RequestError(f"'{shown}' has several values", f"add -m to run each{one_list}")
    if re.search(
        r"Error parsing override|LexerNoViableAlt|no viable alternative|mismatched input|extraneous input|token recognition",
        text,
    ):
        invalid = next((o for o in overrides if not _parses(o)), listing(overrides))
        return RequestError(f"cannot parse '{invalid}'", _how_to_quote(invalid))
    if m := re.search(r"An item is already at '([^']+)'|Could not delete from config\. '([^']+)' does not exist", text):
        if m[2]:
            return unknown_key(m[2], command, overrides, config_dirs)
        return RequestError(
            f"the key `{m[1]}` exists already", f"without the +: {m[1]}={override_value(m[1], overrides)}"
        )
    if m := re.search(r"[Ii]nterpolation key '([^']+)' not found", text):
        return RequestError(f"`${{{m[1]}}}` refers to no key")
    m = re.search(r"(?:Could not override|Error merging override) '?([\w.@/+~-]+)", text)
    key = m[1] if m else None
    if missing := re.search(r"Key '([^']+)' (?:is )?not in", text):
        full = re.search(r"full_key: ([\w.]+)", text)
        return unknown_key(key or (full[1] if full else missing[1]), command, overrides, config_dirs)
    if key is not None:
        if "does not support deletion" in text:
            key = key.lstrip("~")
            return RequestError(f"`{key}` cannot be removed", f"{key}=null disables it where that is possible")
        value = override_value(key, overrides)
        if "is not a ListConfig" in text:
            return RequestError(f"{key}: expected a list, got '{value}'", f"{key}=[{value}]")
        if expected := re.search(r"could not be converted to (\w+)", text):
            return RequestError(f"{key}: expected {_type_name(expected[1])}, got '{value}'")
        return RequestError(f"{key}={value}: {first_line(e.__cause__ or e)}")
    if m := re.search(r"Value '([^']*)'.* could not be converted to (\w+)", text):
        full = re.search(r"full_key: ([\w.]+)", text)
        return RequestError(f"{full[1] if full else 'a key'}: expected {_type_name(m[2])}, got '{m[1]}'")
    return RequestError(first_line(e))


def _names_choice(override: str) -> bool:
    """Whether the value of an override of a group is a name; true for all other overrides."""
    import yaml

    key, _, text = override.partition("=")
    if key.lstrip("+~") not in ("", *GROUPS):
        return True
    try:
        return isinstance(yaml.safe_load(text), str)
    except yaml.YAMLError:
        return False


def _how_to_quote(override: str) -> str:
    """How an override is written that does not parse: a text with a comma or another special character in quotes of its own."""
    key, _, value = override.partition("=")
    text = value.replace("\\", "\\\\").replace('"', '\\"')
    quoted = f'{key}="{text}"'
    hint = f"an override is key=value; the shell may require quotes: '{override}'"
    if not value or value[0] in "[{\"'" or not _parses(quoted):
        return hint
    return f"an override is key=value; a text with special characters has quotes of its own: {shlex.quote(quoted)}"


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unknown_key(
    key: str, command: str = "pretrain", overrides: Iterable[str] = (), config_dirs: Iterable[Path] = ()
) -> RequestError:
    """The error for a key that does not exist, with the nearest key of the choices in `overrides` as a hint."""
    key = key.lstrip("+")
    if key in GROUPS:
        return RequestError(f"`{key}` has no such choice here")
    overrides = list(overrides)
    if key == "dataset.path":
        return path_without_reader(Path(override_value(key, overrides)))
    known = known_keys(command, tuple(selected_choices(overrides, list(config_dirs))))
    key = _unknown_inside(key, override_value(key, overrides), known)
    parent, _, leaf = key.rpartition(".")
    siblings = {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent} - {leaf, "_target_", "summary"}
    if key.startswith("augmentation.") and key.count(".") == 3 and parent in known:
        return RequestError(
            f"`{parent}` has no key `{leaf}`",
            f"it has {listing(sorted(siblings))}; `+{key}=VALUE` sets a parameter that the recipe leaves at its default",
        )
    chosen = any(override.partition("=")[0] == "dataset" for override in overrides)
    if parent == "dataset" and command == "eval" and not chosen:
        return RequestError(
            f"`{key}` requires a data set on the command line",
            f"dataset=NAME dataset.path=PATH {key}=VALUE; without one, the data set of the run is read as it was in training",
        )
    # `lr=1` or `train.lr=1` for `optimizer.lr`, but no key of the online evaluator; of eval, `seen=` for `evaluator.seen`
    never = ("hydra.",) if command == "eval" else ("evaluator.", "hydra.")
    elsewhere = (k for k in sorted(known) if k.rpartition(".")[2] == leaf and k != key)
    best = next((k for k in elsewhere if not k.startswith(never)), None)
    if not best and (close := nearest(leaf, siblings)):
        best = f"{parent}.{close}" if parent else close
    if not best and parent not in known:
        best = nearest(key, known)
    has = f"`{parent}` has no key `{leaf}`" if parent in known else f"there is no key `{key}`"
    inside = f"`{parent}` has {listing(sorted(siblings))}" if parent and siblings else None
    return RequestError(
        has, f"did you mean `{best}`?" if best else inside or f"`sslcli {command} --help` shows the keys"
    )


def _unknown_inside(key: str, value: str, known: Collection[str]) -> str:
    """The first key of a mapping `value` that does not exist below the existing `key`; `key` itself without one."""
    import yaml

    try:
        inside = yaml.safe_load(value) if key in known else None
    except yaml.YAMLError:
        return key
    below = [f"{key}.{name}" for name in inside] if isinstance(inside, dict) else []
    return next((name for name in below if name not in known), key)


def override_value(key: str, overrides: Iterable[str]) -> str:
    """The value of a key in the overrides. The last one counts, as for Hydra. "" where there is none."""
    values = [o.split("=", 1)[1] for o in overrides if "=" in o and o.lstrip("+~").split("=", 1)[0] == key]
    return values[-1] if values else ""


def path_without_reader(path: Path) -> RequestError:
    """The error for `dataset.path` with a data set that reads no files."""
    return RequestError("dataset.path is set, but the selected data set reads no files", f"add {reader(path)}")


def reader(path: Path) -> str:
    """The override that selects the data set for the files at `path`."""
    from itertools import islice

    try:
        names = [path.name] if path.is_file() else [p.name for p in islice(path.iterdir(), 1000)]
    except OSError:
        names = []
    kinds = {Path(name).suffix.lower() for name in names}
    if {"manifest.json", "index.bin"} & set(names) and path.is_dir():
        return "dataset=pack"
    if ".tar" in kinds:
        return "dataset=tar"
    if ".npz" in kinds:
        return "dataset=arrays, or for time series dataset=series"
    return "dataset=arrays" if kinds & {".npy", ".pt"} else "dataset=image_folder"


def selected_choices(overrides: Iterable[str], config_dirs: list[Path]) -> Iterator[str]:
    """The overrides that select an existing choice, each with its first value only."""
    for group, _, names in (o.partition("=") for o in overrides):
        name = names.partition(",")[0]
        if group in GROUPS and name in choices(group, config_dirs):
            yield f"{group}={name}"
    yield from search_override(config_dirs)


@functools.cache
def known_keys(command: str, overrides: tuple[str, ...] = ()) -> frozenset[str]:
    """All dotted keys of the configuration of a command."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    register()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            cfg = hydra.compose(command, list(overrides))
        except HydraException:  # choices that exclude each other: the keys of the defaults
            cfg = hydra.compose(command)
        tree = OmegaConf.to_container(cfg, resolve=False)
    return frozenset(key for key, _ in walk(tree))


def _type_name(name: str) -> str:
    return {"Integer": "an integer", "Float": "a number", "Boolean": "true or false"}.get(name, name)
