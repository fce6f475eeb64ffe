"""sslcli resume RUN: the same folder, the same configuration, the next step."""

from __future__ import annotations

import os
from typing import Any

from sslcli import console
from sslcli.cli.main import Request, take_config_dir
from sslcli.config import checks
from sslcli.errors import RequestError, command, listing, nearest


def main(request: Request) -> int:
    if len(request.words) != 1:
        raise RequestError("resume which run?", "sslcli resume latest, or a run's folder or the start of its name")
    for folder in request.config_dirs:
        take_config_dir(folder)

    from sslcli.cli.commands.pretrain import go_on
    from sslcli.runs.find import find
    from sslcli.runs.run import Run

    run = Run.open(find(request.words[0]))
    cfg, given = run.config, dict(o.partition("=")[::2] for o in request.overrides)
    other_data = given.pop("allow_data_change", "false")
    if other_data not in ("true", "false"):
        raise RequestError(f"allow_data_change={other_data} is neither true nor false")
    longer = changed(cfg, given, request.words[0])
    require_known_address(cfg, "logger.mlflow.uri" in given, request.words[0])
    moved_to = str(cfg["dataset"]["path"]) if "dataset.path" in given else None
    go_on(run, cfg if given else None, other_data=other_data == "true", longer=longer, moved_to=moved_to)
    console.out(run.path)
    return 0


def require_known_address(cfg: dict[str, Any], typed: bool, name: str) -> None:
    """A run may come from anyone: its configuration alone does not choose the server that numbers are sent to (MLflow adds the
    user's password from the environment). RequestError unless the address was typed or is MLFLOW_TRACKING_URI."""
    options = cfg["logger"].get("mlflow") if isinstance(cfg.get("logger"), dict) else None
    uri = options.get("uri") if isinstance(options, dict) else None
    if uri is not None and not typed and uri != os.environ.get("MLFLOW_TRACKING_URI"):
        raise RequestError(
            f"by its own configuration this run sends its numbers to {uri}",
            f"if that address is yours: {command('resume', name, f'logger.mlflow.uri={uri}')}",
        )


def has_key(cfg: dict[str, Any], key: str) -> bool:
    """Whether a configuration has this key."""
    node: Any = cfg
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def changed(cfg: dict[str, Any], given: dict[str, str], name: str) -> bool:
    """Puts the words into the configuration, as far as they are about how, not what, is computed. True where the run's length
    was given anew."""
    import yaml

    from sslcli.runs.identity import EXECUTION_KEYS, LENGTH_KEYS, LOCATION_KEYS, is_below

    for key, text in given.items():
        if key not in (*LENGTH_KEYS, *LOCATION_KEYS) and not is_below(key, EXECUTION_KEYS):
            close = nearest(key, (*LENGTH_KEYS, *LOCATION_KEYS, *EXECUTION_KEYS))
            if close and not has_key(cfg, key):
                raise RequestError(f"there is no key `{key}`", f"did you mean `{close}`?")
            raise RequestError(
                f"`{key}` cannot change when resuming ({listing((*EXECUTION_KEYS, *LENGTH_KEYS, *LOCATION_KEYS), 20)} can)",
                f"to start a new run from its weights: {command('pretrain', f'init={name}', f'{key}={text}')}",
            )
        *path, last = key.split(".")
        node: Any = cfg
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not path or not isinstance(node, dict) or last not in node:
            close = nearest(key, (f"{g}.{k}" for g in ("device", "train", "logger") for k in cfg[g]))
            raise RequestError(f"there is no key `{key}`", f"did you mean `{close}`?" if close else None)
        try:
            node[last] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise RequestError(f"`{key}={text}` is not a value") from None
    if any(
        k in LENGTH_KEYS for k in given
    ):  # the last one given decides: steps win over epochs, and a budget over both
        for key in LENGTH_KEYS:
            if key not in given:
                cfg["train"][key.partition(".")[2]] = None
    checks.check_values(cfg)
    return any(k in LENGTH_KEYS for k in given)
