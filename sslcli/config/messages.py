"""What a typo is told: Hydra's and OmegaConf's errors in the user's words, with the nearest right name."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from sslcli.config.dotted import walk
from sslcli.config.registry import GROUPS, KINDS, choices, config_dir, search_override
from sslcli.config.schema import register
from sslcli.errors import RequestError, first_line, listing, nearest

ALSO_KNOWN_AS = {"webdataset": "tar", "wds": "tar", "imagefolder": "image_folder", "folder": "image_folder"}


def unknown_choice(group: str, name: str, known: Iterable[str]) -> RequestError:
    known = list(known)
    also = ALSO_KNOWN_AS.get(name)
    close = also if also in known else nearest(name, known)
    plural = next((k for k, g in KINDS.items() if g == group), None)
    all_of = f"`sslcli list {plural}` shows all {len(known)}" if plural else f"there are {listing(sorted(known))}"
    article = "an" if group[0] in "aeiou" else "a"
    return RequestError(
        f"no {group} named `{name}`",
        f"did you mean `{close}`? {all_of}" if close else f"{all_of}; {article} {group} is needed",
    )


def rewrite_error(e: Exception, word: str, overrides: list[str], extra: list[Path]) -> RequestError:
    """Hydra's and OmegaConf's errors in the user's words."""
    text = "\n".join(str(x) for x in (e, e.__cause__) if x is not None)
    if m := re.search(r"Could not (?:find|load) '([\w-]+)/([^']*)'", text):
        group, name = m[1], m[2]
        if group in GROUPS:
            return unknown_choice(group, name, choices(group, extra))
    if m := re.search(r"Could not override '([\w/@.-]+)'\.\s*No match in the defaults list", text):
        return unknown_key(m[1], word, overrides, extra)
    if "Config group override must be" in text:
        bad = next((o for o in overrides if not _names_choice(o)), listing(overrides))
        return RequestError(
            f"`{bad}`: a group takes the name of a choice", "GROUP=NAME; keys of it are GROUP.KEY=VALUE"
        )
    if "Ambiguous value for argument" in text:
        ambiguous = re.search(r"argument '([^']+)'", text)
        shown = ambiguous[1] if ambiguous else "a value"
        one_list = (
            f"; for one list, write {shown.replace('=', '=[', 1)}]" if shown.partition("=")[0] not in GROUPS else ""
        )
        return RequestError(f"`{shown}` is several values", f"add -m to run each{one_list}")
    if re.search(
        r"Error parsing override|LexerNoViableAlt|no viable alternative|mismatched input|extraneous input|token recognition",
        text,
    ):
        bad = next((o for o in overrides if not _parses(o)), listing(overrides))
        return RequestError(f"cannot read `{bad}`", f"an override is key=value; the shell may want quotes: '{bad}'")
    if m := re.search(r"An item is already at '([^']+)'|Could not delete from config\. '([^']+)' does not exist", text):
        if m[2]:
            return unknown_key(m[2], word, overrides, extra)
        return RequestError(f"there is a key `{m[1]}` already", f"without the +: {m[1]}={given(m[1], overrides)}")
    if m := re.search(r"[Ii]nterpolation key '([^']+)' not found", text):
        return RequestError(f"`${{{m[1]}}}` names no key")
    m = re.search(r"(?:Could not override|Error merging override) '?([\w.@/+~-]+)", text)
    key = m[1] if m else None
    if missing := re.search(r"Key '([^']+)' (?:is )?not in", text):
        full = re.search(r"full_key: ([\w.]+)", text)
        return unknown_key(key or (full[1] if full else missing[1]), word, overrides, extra)
    if key is not None:
        if "does not support deletion" in text:
            key = key.lstrip("~")
            return RequestError(f"`{key}` cannot be taken out", f"{key}=null switches it off where that is possible")
        value = given(key, overrides)
        if "is not a ListConfig" in text:
            return RequestError(f"`{key}={value}`: expected a list, got `{value}`", f"{key}=[{value}]")
        if wanted := re.search(r"could not be converted to (\w+)", text):
            return RequestError(f"`{key}={value}`: expected {_kind(wanted[1])}, got `{value}`")
        return RequestError(f"`{key}={value}`: {first_line(e.__cause__ or e)}")
    if m := re.search(r"Value '([^']*)'.* could not be converted to (\w+)", text):
        full = re.search(r"full_key: ([\w.]+)", text)
        return RequestError(f"`{full[1] if full else 'a key'}={m[1]}`: expected {_kind(m[2])}, got `{m[1]}`")
    return RequestError(first_line(e))


def _names_choice(override: str) -> bool:
    """Whether this is no override of a group, or its value is a name."""
    import yaml

    key, _, text = override.partition("=")
    if key.lstrip("+~") not in ("", *GROUPS):
        return True
    try:
        return isinstance(yaml.safe_load(text), str)
    except yaml.YAMLError:
        return False


def _parses(override: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def unknown_key(
    key: str, word: str = "pretrain", overrides: Iterable[str] = (), extra: Iterable[Path] = ()
) -> RequestError:
    """`train.epoch` -> error with `train.epochs` as hint, looked up among the keys that these overrides' choices bring."""
    key = key.lstrip("+")
    if key in GROUPS:
        return RequestError(f"`{key}` takes no such choice here")
    overrides = list(overrides)
    if key == "dataset.path":
        return path_alone(Path(given(key, overrides)))
    known = known_keys(word, tuple(chosen(overrides, list(extra))))
    parent, _, leaf = key.rpartition(".")
    siblings = {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == parent} - {leaf, "_target_", "summary"}
    close = nearest(leaf, siblings)
    best = f"{parent}.{close}" if close and parent else close
    if not best and parent not in known:
        best = nearest(key, known)
    if (
        not best
    ):  # `lr=1` or `train.lr=1` for `optimizer.lr`; the evaluator of a training is another thing than its method
        elsewhere = (k for k in sorted(known) if k.rpartition(".")[2] == leaf and k != key)
        best = next((k for k in elsewhere if not k.startswith(("evaluator.", "hydra."))), None)
    has = f"`{parent}` has no key `{leaf}`" if parent in known else f"there is no key `{key}`"
    inside = f"`{parent}` has {listing(sorted(siblings))}" if parent and siblings else None
    return RequestError(has, f"did you mean `{best}`?" if best else inside or f"`sslcli {word} --help` shows the keys")


def given(key: str, overrides: Iterable[str]) -> str:
    """The value of a key among the overrides: the last one is the one that Hydra takes. "" where there is none."""
    values = [o.split("=", 1)[1] for o in overrides if "=" in o and o.lstrip("+~").split("=", 1)[0] == key]
    return values[-1] if values else ""


def path_alone(path: Path) -> RequestError:
    """`dataset.path=` with a data set that reads no files."""
    return RequestError(
        "`dataset.path` is given, but the data set that is chosen reads no files", f"add {reader(path)}"
    )


def reader(path: Path) -> str:
    """What to type for the data sets that would read what lies there."""
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


def chosen(overrides: Iterable[str], extra: list[Path]) -> Iterator[str]:
    """Of the overrides, the choices (the first of several) that are there, as one-value overrides."""
    for group, _, names in (o.partition("=") for o in overrides):
        name = names.partition(",")[0]
        if group in GROUPS and name in choices(group, extra):
            yield f"{group}={name}"
    yield from search_override(extra)


@functools.cache
def known_keys(word: str, chosen: tuple[str, ...] = ()) -> frozenset[str]:
    import hydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    register()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            made = hydra.compose(word, list(chosen))
        except HydraException:  # choices that do not go together: the keys of none of them
            made = hydra.compose(word)
        tree = OmegaConf.to_container(made, resolve=False)
    return frozenset(key for key, _ in walk(tree))


def _kind(name: str) -> str:
    return {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false"}.get(name, name)
