"""How the metrics of a run were obtained: the protocol card, the environment and the configuration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.report.html.elements import definition_list, section
from sslcli.report.html.markup import Html, el
from sslcli.report.metric_text import label_budget
from sslcli.report.run_contents import RunContents, mapping, number

if TYPE_CHECKING:
    from sslcli.report.model_figures import ModelFigures


def protocol_section(run: RunContents, atlas: ModelFigures | None) -> Html | None:
    rows = [(k, v) for k, v in card(run, atlas) if v]
    pairs = [el("div", el("dt", k), el("dd", v)) for k, v in rows]
    return section("protocol", "Protocol", el("dl", *pairs, class_="card")) if pairs else None


def card(run: RunContents, atlas: ModelFigures | None) -> Iterator[tuple[str, str]]:
    """Rows of the protocol card: data, splits, labels, seeds, plan, device, versions."""
    status, cfg = run.status, run.config
    yield "data", next(iter(run.screen.get("data", [])), run.choice("dataset"))
    yield "splits", splits(run, atlas)
    used = sorted({label_budget(e) for e in run.evals if label_budget(e)})
    yield "labels", f"{'; '.join(used)}; {run.labels_seen()} in pretraining" if used else ""
    draws = sorted({int(s) for e in run.evals if (s := number(e.about.get("draws"))) is not None})
    drawn = f", draws of labels from {', '.join(map(str, draws))}" if draws else ""
    yield "seeds", f"training {cfg['seed']}{drawn}" if "seed" in cfg else ""
    yield "measured at", measured_at(run)
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


def measured_at(run: RunContents) -> str:
    """The epoch of the evaluated weights; evaluations of other weights than the run has now are named with their step."""
    outdated = [f"{e.name} at {e.step}" for e in run.evals if e.outdated]
    if not outdated:
        return last_epoch(run)
    rest = f"; the others at {last_epoch(run)}" if len(outdated) < len(run.evals) else ""
    now = "" if rest else f"; now the run is at {last_epoch(run)}"
    return f"{', '.join(outdated)}, with other weights than the run has now{rest}{now}"


def last_epoch(run: RunContents) -> str:
    epoch = next((e for m in reversed(run.metrics) if (e := number(m.get("epoch"))) is not None), None)
    step = number(run.encoder.get("step"))
    parts = [f"epoch {epoch:.4g}{', the last' if run.state == 'done' else ''}"] if epoch is not None else []
    return ", ".join(parts + ([f"step {step:,.0f}"] if step is not None else []))


def splits(run: RunContents, atlas: ModelFigures | None) -> str:
    sizes: dict[str, float] = dict(atlas.sizes) if atlas else {}
    for e in run.evals:
        if not sizes and not e.dataset:
            sizes = {k: n for k, v in mapping(e.protocol.get("splits")).items() if (n := number(v)) is not None}
    counts = ", ".join(f"{n:,.0f} {k}" for k, n in sizes.items())
    data = mapping(run.config.get("dataset"))
    if data.get("holdout") is None:
        return counts
    rule = next((str(e.protocol["division"]) for e in run.evals if "division" in e.protocol), "")
    held = (
        rule or f"where there is no test split: dataset.holdout={data['holdout']}, split seed {data.get('split_seed')}"
    )
    return f"{counts}; {held}" if counts else held


def environment_section(run: RunContents) -> Html:
    import yaml

    status = {k: v for k, v in run.status.items() if k not in ("online", "heartbeat")}
    text = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True) if run.config else ""
    parts = [el("details", el("summary", "Environment"), el("div", definition_list(status), class_="inside"))]
    if text:
        pre = el("pre", el("code", text), tabindex=0, role="region", aria_label="configuration")
        parts.append(el("details", el("summary", "Configuration, resolved"), pre))
    environment = section("environment", "Environment and configuration", *parts)
    assert environment is not None
    return environment
