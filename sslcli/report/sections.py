"""The sections of a run's page, from top to bottom; each is None where there is nothing to show."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sslcli import console
from sslcli.config import registry
from sslcli.evals.base.info import evaluator_infos
from sslcli.report import images, mapview, results
from sslcli.report.charts import Line, curve
from sslcli.report.gather import Evaluation, Gathered, mapping, number
from sslcli.report.markup import Html, el
from sslcli.runs.listing import format_length

if TYPE_CHECKING:
    from sslcli.report.atlas import Atlas

NAMES = {"image_folder": "a folder of pictures", "arrays": "arrays", "tar": "tar shards", "pack": "a pack"}
ON_CURVES = ("loss", "lr", "samples_per_s", "data_wait", "spread", "progress")
MOST_CURVES = 24  # of what a method logs beside these


def section(name: str, heading: str, *content: Html | None) -> Html | None:
    """A section of the page, if anything is in it."""
    inside = [c for c in content if c is not None]
    return el("section", el("h2", heading), *inside, id=name, aria_label=heading) if inside else None


def heading(run: Gathered) -> tuple[str, str]:
    """`SimCLR on digits`, and what of it is said under that."""
    method, data = run.choice("method") or "a run", run.choice("dataset")
    what = next(iter(run.screen.get("what", [])), "")
    backbone = what.partition(" on ")[2] or run.choice("backbone")
    return f"{method} on {data}" if data else method, f"backbone {backbone}" if backbone else ""


STATES = {
    "done": "",
    "running": "This run is in progress: the page shows what there is so far.",
    "interrupted": "This run was interrupted.",
    "failed": "This run failed.",
    "lost": "This run ended without a word: its process is gone.",
}


def top(run: Gathered, name: str) -> Html:
    title, under = heading(run)
    warning = STATES.get(run.state, f"The status of this run is {run.state}.")
    error = run.status.get("error")
    resume = f"sslcli resume {shlex.quote(name)}" if run.state in ("interrupted", "failed", "lost") else None
    return el(
        "div",
        el("p", f"{'Supervised' if run.shown() == 'all of them' else 'Self-supervised'} pretraining", class_="kicker"),
        el("h1", title),
        el("p", "; ".join(part for part in (under, step_words(run)) if part), class_="under"),
        el(
            "div",
            el("p", el("strong", warning), f" {error}" if error else ""),
            command(resume) if resume else None,
            class_="status",
            role="note",
        )
        if warning
        else None,
        results.tiles(run),
        class_="top",
    )


def step_words(run: Gathered) -> str:
    seconds = number(run.status.get("seconds"))
    said = [format_length(run.length)] if run.step else []
    if seconds:
        said.append(console.human_time(seconds))
    return " in ".join(said)


# ---------------------------------------------------------------------------------------------------------- protocol card


def protocol(run: Gathered, atlas: Atlas | None) -> Html | None:
    rows = [(k, v) for k, v in card(run, atlas) if v]
    pairs = [el("div", el("dt", k), el("dd", v)) for k, v in rows]
    return section("protocol", "Protocol", el("dl", *pairs, class_="card")) if pairs else None


def card(run: Gathered, atlas: Atlas | None) -> Iterator[tuple[str, str]]:
    """How the numbers came about, in the order in which one asks."""
    status, cfg = run.status, run.config
    yield "data", next(iter(run.screen.get("data", [])), run.choice("dataset"))
    yield "splits", splits(run, atlas)
    used = sorted({results.how(e) for e in run.evals if results.how(e)})
    yield "labels", f"{'; '.join(used)}; {run.shown()} in pretraining" if used else ""
    draws = sorted({int(s) for e in run.evals if (s := number(e.about.get("draws"))) is not None})
    drawn = f", draws of labels from {', '.join(map(str, draws))}" if draws else ""
    yield "seeds", f"training {cfg['seed']}{drawn}" if "seed" in cfg else ""
    yield "measured at", last_epoch(run)
    yield "plan", "; ".join(run.screen.get("plan", [])[:3])
    yield "device", next(iter(run.screen.get("where", [])), "")
    seconds, memory = number(status.get("seconds")), number(status.get("peak_memory_mb"))
    cost = [console.human_time(seconds)] if seconds else []
    yield "cost", ", ".join(cost + ([f"peak memory {memory:,.0f} MB"] if memory else []))
    hashes = (status.get("config_hash"), *(e.about.get("config_hash") for e in run.evals))
    yield "config hash", str(next((h for h in hashes if h), ""))
    yield "weights", f"SHA-256 {str(run.encoder['sha256'])[:16]}" if run.encoder.get("sha256") else ""
    versions = {"sslcli": status.get("sslcli"), "python": status.get("python"), **mapping(status.get("packages"))}
    yield "versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)
    yield "git", str(status.get("git") or "")
    yield "made", str(status.get("created") or "")[:19].replace("T", " ")


def last_epoch(run: Gathered) -> str:
    epoch = next((e for m in reversed(run.metrics) if (e := number(m.get("epoch"))) is not None), None)
    step = number(run.encoder.get("step"))
    said = [f"epoch {epoch:.4g}{', the last' if run.state == 'done' else ''}"] if epoch is not None else []
    return ", ".join(said + ([f"step {step:,.0f}"] if step is not None else []))


def splits(run: Gathered, atlas: Atlas | None) -> str:
    sizes: dict[str, float] = dict(atlas.sizes) if atlas else {}
    for e in run.evals:
        if not sizes and not e.dataset:
            sizes = {k: n for k, v in mapping(e.protocol.get("splits")).items() if (n := number(v)) is not None}
    said = ", ".join(f"{n:,.0f} {k}" for k, n in sizes.items())
    data = mapping(run.config.get("dataset"))
    if data.get("holdout") is None:
        return said
    held = f"where there is no test split: dataset.holdout={data['holdout']}, split seed {data.get('split_seed')}"
    return f"{said}; {held}" if said else held


# ---------------------------------------------------------------------------------------------------------------- curves


def training(run: Gathered) -> Html | None:
    resumed = [s for e in run.events if e.get("event") == "resumed" and (s := number(e.get("step"))) is not None]
    drawn = [
        chart
        for title, key, options in (
            ("Loss", "train/loss", {}),
            ("Learning rate", "train/lr", {"zero": True}),
            ("Samples per second", "train/samples_per_s", {"zero": True}),
            ("Share of time spent waiting for data", "train/data_wait", {"zero": True, "percent": True}),
        )
        if (chart := one(run, title, key, resumed, **options))
    ]
    known = {f"train/{name}" for name in ON_CURVES}
    others = sorted({k for m in run.metrics for k in m if k.startswith("train/")} - known)
    more = [c for key in others[:MOST_CURVES] if (c := one(run, key.removeprefix("train/"), key, resumed))]
    return section(
        "curves",
        "Training",
        el("div", *drawn, class_="curves") if drawn else None,
        el("details", el("summary", "What else the method logs"), el("div", *more, class_="curves")) if more else None,
        happened(run),
    )


def one(run: Gathered, title: str, key: str, marks: list[float], **options: Any) -> Html | None:
    points = run.curve(key)
    return curve(title, [Line(key.rpartition("/")[2], points)], marks=marks, **options) if points else None


def happened(run: Gathered) -> Html | None:
    """What interrupted or troubled the run."""
    if not run.events:
        return None
    rows = [
        el(
            "tr",
            el("td", str(e.get("time", ""))[:19].replace("T", " ")),
            el("td", str(e.get("event", ""))[:100]),
            el("td", ", ".join(f"{k} {results.plain(v)}" for k, v in e.items() if k not in ("time", "event"))[:300]),
        )
        for e in run.events
    ]
    head = el("thead", el("tr", *(el("th", h, scope="col") for h in ("time", "event", ""))))
    table = results.scrolling(el("table", head, el("tbody", *rows)), "events")
    return el("details", el("summary", f"Events ({len(rows)})"), table)


def health(run: Gathered) -> Html | None:
    """Whether the features stay alive: online numbers, inside the training split."""
    spread = [Line("output", run.curve("train/spread")), Line("features", run.curve("eval/spread"))]
    drawn = [
        curve("Spread", spread, zero=True, note="1 where all directions are used alike, 0 where all is one point")
        if any(s.points for s in spread)
        else None,
        one(run, "RankMe", "eval/rankme", [], note="how many directions the features fill"),
        one(run, "kNN accuracy within the training split", "eval/knn/top1", [], percent=True),
    ]
    shown = [d for d in drawn if d is not None]
    return section("health", "Spread and rank", el("div", *shown, class_="curves")) if shown else None


# -------------------------------------------------------------------------------------------------------------- pictures


def views(run: Gathered, atlas: Atlas | None) -> Html | None:
    if atlas is None or atlas.views is None or (found := images.embedded(atlas.views)) is None:
        return None
    uri, (wide, high) = found
    kinds = ", ".join(f"{atlas.kinds.count(k)} {k}" for k in dict.fromkeys(atlas.kinds))
    caption = f"samples of the first batch, left, and their views ({kinds}) as the method saw them in the first epoch"
    return section("views", "What the method saw", results.image(uri, wide, high, caption))


def the_map(atlas: Atlas | None) -> Html | None:
    if atlas is None or atlas.map is None or atlas.sprite is None:
        return None
    return section("map", "Map of the features", mapview.view(atlas.map, atlas.sprite))


def own_pictures(run: Gathered) -> Html | None:
    shown = [results.figure(p) for p in run.pictures]
    return section("pictures", "What the method draws", *shown)


def measured(run: Gathered) -> Html | None:
    found = results.ordered(run.evals)
    return section("evaluations", "Evaluations", *(results.evaluation(e) for e in found))


def beside(run: Gathered) -> Html | None:
    return section("baselines", "Beside the baselines", results.bars(run))


# --------------------------------------------------------------------------------------------------- commands, environment


def command(text: str) -> Html:
    """A line to be typed, with a button (the script makes it) that copies it."""
    return el("div", el("pre", el("code", text), tabindex=0, role="region", aria_label="command"), class_="command")


def made_by(run: Gathered, name: str) -> Html | None:
    lines = [shlex.join(["sslcli", run.word, *run.overrides])]
    done = stages(run) if run.word == "pipeline" else []
    lines += [evaluation_command(e, name) for e in by_time(run) if e.kind not in done or "overrides" in e.about]
    lines.append(f"sslcli runs report {shlex.quote(name)}")
    return section("commands", "Made by", command("\n".join(dict.fromkeys(lines))))


def stages(run: Gathered) -> list[str]:
    """What a pipeline measured by itself."""
    import yaml

    given = next((o.partition("=")[2] for o in run.overrides if o.startswith("stages=")), None)
    if given is None:
        return [
            str(s) for s in registry.describe(registry.config_dir() / "pipeline.yaml", "pipeline").get("stages", [])
        ]
    try:
        found = yaml.safe_load(given)
    except yaml.YAMLError:
        return []
    return [str(s) for s in found] if isinstance(found, list) else []


def by_time(run: Gathered) -> list[Evaluation]:
    """The evaluations in the order in which they were made."""
    return sorted(run.evals, key=lambda e: (str(e.about.get("time", "")), e.name))


def evaluation_command(e: Evaluation, name: str) -> str:
    """What was typed; where the record does not say, what would have to be: settings that differ from the evaluator's YAML."""
    words = ["sslcli", "eval", e.kind, f"run={name}"]
    if isinstance(given := e.about.get("overrides"), list):
        return shlex.join([*words, *(str(o) for o in given)])
    for key, usual in (("labels", "all"), ("seeds", "1")):
        if e.protocol.get(key) is not None and str(e.protocol[key]) != usual:
            words.append(f"{key}={e.protocol[key]}")
    path = registry.choices("evaluator").get(e.kind)
    default = registry.describe(path, "evaluator") if path else {}
    for key, value in mapping(e.about.get("evaluator")).items():
        if key not in ("_target_", "summary", "labels", "seeds") and key in default and default[key] != value:
            words.append(f"evaluator.{key}={typed(value)}")
    return shlex.join([*words, f"dataset={e.dataset}"] if e.dataset else words)


def typed(value: Any) -> str:
    """As on a command line; JSON is what Hydra reads."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "").replace(" ", "")


def lacking(run: Gathered) -> set[str]:
    """Requirements of evaluators that this run's method or backbone does not meet."""
    from sslcli import builders
    from sslcli.config import instantiate
    from sslcli.errors import SslError
    from sslcli.methods.base import Method

    found = set()
    method, backbone = (mapping(run.config.get(part)) for part in ("method", "backbone"))
    try:
        if "_target_" in method and all(t.reconstruct is Method.reconstruct for t in builders.classes(method)):
            found.add("reconstruction")
        if "_target_" in backbone and not hasattr(instantiate.resolve("backbone", backbone["_target_"]), "patchify"):
            found.add("tokens")
    except SslError:  # code of the run that is not here: its words are offered, and refused with the reason
        pass
    return found


def missing(run: Gathered, atlas: Atlas | None, name: str) -> Html | None:
    """What this page could hold besides, and what to type for it."""
    have = {e.kind for e in run.evals}
    rows = []
    if not run.trained:
        rows.append(("the encoder, and with it the map and all evaluations", f"sslcli resume {shlex.quote(name)}"))
    else:
        unmet = lacking(run)
        for info in evaluator_infos().values():
            if info.name not in have and not info.needs & unmet:
                more = ["dataset=NAME"] if "dataset" in info.needs else []
                words = ["sslcli", "eval", info.name, f"run={name}", *more]
                rows.append((info.summary or info.name, shlex.join(words)))
    notes = run.notes + (atlas.notes if atlas else [])
    if not rows and not notes:
        return None
    return section(
        "missing",
        "Not on this page",
        el("ul", *(el("li", results.sentence(n), ".") for n in notes), class_="notes") if notes else None,
        el(
            "div",
            *(el("div", el("p", results.sentence(what), "."), command(line), class_="wanted") for what, line in rows),
        )
        if rows
        else None,
    )


def environment(run: Gathered) -> Html:
    import yaml

    status = {k: v for k, v in run.status.items() if k not in ("online", "heartbeat")}
    text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else ""
    parts = [el("details", el("summary", "Environment"), el("div", results.tree(status), class_="inside"))]
    if text:
        pre = el("pre", el("code", text), tabindex=0, role="region", aria_label="configuration")
        parts.append(el("details", el("summary", "Configuration, resolved"), pre))
    found = section("environment", "Environment and configuration", *parts)
    assert found is not None
    return found
