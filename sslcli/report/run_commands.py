"""The commands that produced a run, and those that would add evaluations to its page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli.config import modalities, registry
from sslcli.config.overrides import as_typed
from sslcli.evals.base.info import evaluator_infos
from sslcli.report.html.elements import capitalize, command_block, section
from sslcli.report.html.markup import Html, el
from sslcli.report.run_contents import Evaluation, RunContents, mapping
from sslcli.runs.find import run_command

if TYPE_CHECKING:
    from sslcli.report.model_figures import ModelFigures


def commands_section(run: RunContents, name: str) -> Html | None:
    lines = [run_command(run.path, run.word, *map(as_typed, run.overrides))]
    done = stages(run) if run.word == "pipeline" else []
    lines += [
        evaluation_command(e, run.path, name) for e in sort_by_time(run) if e.kind not in done or "overrides" in e.about
    ]
    lines.append(f"sslcli runs report {shlex.quote(name)}")
    return section("commands", "Made by", command_block("\n".join(dict.fromkeys(lines))))


def stages(run: RunContents) -> list[str]:
    """The evaluators that a pipeline ran."""
    import yaml

    given = next((o.partition("=")[2] for o in run.overrides if o.startswith("stages=")), None)
    if given is None:
        return [
            str(s) for s in registry.describe(registry.config_dir() / "pipeline.yaml", "pipeline").get("stages", [])
        ]
    try:
        names = yaml.safe_load(given)
    except yaml.YAMLError:
        return []
    return [str(s) for s in names] if isinstance(names, list) else []


def sort_by_time(run: RunContents) -> list[Evaluation]:
    """Evaluations in chronological order."""
    return sorted(run.evals, key=lambda e: (str(e.about.get("time", "")), e.name))


def evaluation_command(e: Evaluation, run: Path, name: str) -> str:
    """The command of an evaluation; without recorded overrides, one with the settings that differ from the YAML."""
    words = ["eval", e.kind, f"run={name}"]
    if isinstance(given := e.about.get("overrides"), list):
        return run_command(run, *words, *(as_typed(str(o)) for o in given))
    for key, usual in (("labels", "all"), ("seeds", "1")):
        if e.protocol.get(key) is not None and str(e.protocol[key]) != usual:
            words.append(f"{key}={e.protocol[key]}")
    path = registry.choices("evaluator").get(e.kind)
    default = registry.describe(path, "evaluator") if path else {}
    for key, value in mapping(e.about.get("evaluator")).items():
        if key not in ("_target_", "summary", "labels", "seeds") and key in default and default[key] != value:
            words.append(f"evaluator.{key}={override_value(value)}")
    return run_command(run, *words, *([f"dataset={e.dataset}"] if e.dataset else []))


def override_value(value: object) -> str:
    """A value as in an override of Hydra."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "").replace(" ", "")


def unmet_needs(run: RunContents) -> set[str]:
    """Requirements of evaluators that this run's method or backbone does not meet."""
    from sslcli import builders
    from sslcli.config import instantiate
    from sslcli.errors import SslError
    from sslcli.methods.base import Method

    unmet = set()
    if mapping(run.config.get("dataset")).get("time_split") is None:
        unmet.add("timeline")
    method, backbone = (mapping(run.config.get(part)) for part in ("method", "backbone"))
    try:
        kind = str(mapping(run.config.get("dataset")).get("modality", "image"))
        if "items" not in modalities.provides(kind):
            unmet.add("next_items")
        if "_target_" in method and all(t.reconstruct is Method.reconstruct for t in builders.method_classes(method)):
            unmet.add("reconstruction")
        classes = builders.method_classes(method) if "_target_" in method else []
        if not any(t.sample_vectors is not Method.sample_vectors for t in classes[:1]):
            unmet.add("captions")
        if classes and all(
            t.token_logits is Method.token_logits for t in classes[1:] or classes
        ):  # tasks, or the method
            unmet.add("masked_tokens")
        if "_target_" in backbone and not hasattr(instantiate.resolve("backbone", backbone["_target_"]), "patchify"):
            unmet.add("tokens")
    except SslError:  # the code of the run is not installed: all evaluators are offered
        pass
    return unmet


def missing_section(run: RunContents, atlas: ModelFigures | None, name: str) -> Html | None:
    """Evaluations that are not on the page, each with its command."""
    have = {e.kind for e in run.evals if not e.outdated}
    rows = []
    if not run.trained:
        rows.append(("the encoder, and with it the map and all evaluations", run_command(run.path, "resume", name)))
    else:
        unmet = unmet_needs(run)
        for info in evaluator_infos().values():
            if info.name not in have and not info.needs & unmet:
                more = ["dataset=NAME"] if "dataset" in info.needs else []
                words = ["eval", info.name, f"run={name}", *more]
                rows.append((info.summary or info.name, run_command(run.path, *words)))
    notes = run.notes + (atlas.notes if atlas else [])
    if not rows and not notes:
        return None
    return section(
        "missing",
        "Not on this page",
        el("ul", *(el("li", capitalize(n), ".") for n in notes), class_="notes") if notes else None,
        el(
            "div",
            *(el("div", el("p", capitalize(what), "."), command_block(line), class_="wanted") for what, line in rows),
        )
        if rows
        else None,
    )
