"""README.md of an exported folder: what the encoder is, how it was trained, and its results with their protocol."""

from __future__ import annotations

import re

import sslcli
from sslcli.console import human_count
from sslcli.formats.export import TrainedModel
from sslcli.formats.huggingface.heads import Heads
from sslcli.runs import Record, records

USAGE = {
    "hf": """from transformers import AutoTokenizer, {architecture}

tokenizer = AutoTokenizer.from_pretrained("FOLDER")
model = {architecture}.from_pretrained("FOLDER").eval()
out = model(**tokenizer(["a text"], return_tensors="pt", truncation=True))""",
    "sentence_transformers": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer("FOLDER")
vectors = model.encode(["a text", "another one"])""",
}


def card(model: TrainedModel, heads: Heads, form: str) -> str:
    """The text of README.md. Names come from a run, which may be of others: characters of Markdown in them are escaped."""
    sentences = form == "sentence_transformers"
    task = "sentence-similarity" if sentences else "feature-extraction" if heads.predictions is None else "fill-mask"
    tags = ["sslcli", "bert", *(["sentence-transformers"] if sentences else [])]
    head = [
        "---",
        f"library_name: {'sentence-transformers' if sentences else 'transformers'}",
        f"pipeline_tag: {task}",
        f"tags: [{', '.join(tags)}]",
        "---",
    ]
    body = [
        "",
        f"# {plain(model.run.path.resolve().name)}",
        "",
        f"A BERT encoder of text, pretrained without labels by sslcli {sslcli.__version__}.",
        "",
        *table(["", ""], description(model, heads)),
        "",
        "## Use",
        "",
        "```python",
        USAGE[form].format(architecture=heads.architecture),
        "```",
        "",
        "## Evaluation",
        "",
        *evaluation(model),
        "",
    ]
    return "\n".join(head + body)


def description(model: TrainedModel, heads: Heads) -> list[list[str]]:
    backbone, info, cfg = model.backbone, model.info, model.run.valid_config
    parameters = human_count(sum(p.numel() for p in backbone.parameters()))
    data = model.run.status.get("data")
    samples = records.numbers(data, "samples") if isinstance(data, dict) else {}
    counts = ", ".join(f"{int(n):,} {name}" for name, n in samples.items())
    optimizer = cfg["optimizer"]
    per = f" for a batch of {batch}" if (batch := optimizer.get("lr_batch")) else ""
    training = (
        f"{info['step']:,} steps, batch {cfg['train']['batch_size']}, {str(optimizer['_target_']).rpartition('.')[2]}, "
        f"learning rate {optimizer['lr']}{per}, weight decay {optimizer['weight_decay']}, seed {cfg['seed']}"
    )
    method = str(info.get("method", "")).split(".")[-2:][0]  # the module of its class
    return [
        ["method", plain(method)],
        ["network", f"{len(backbone.layers)} blocks, width {backbone.dim}, {parameters} parameters"],  # type: ignore[arg-type]
        ["heads", plain(heads.describe())],
        ["features", "the mean over tokens" if backbone.pool == "mean" else "the first token"],
        ["tokenizer", plain(model.preprocessor.tokenizer.describe())],  # type: ignore[attr-defined]
        ["longest input", f"{model.preprocessor.shape[0]} tokens{windows(model)}"],
        ["data", plain(f"{info['dataset']}{f' ({counts})' if counts else ''}")],
        ["training", plain(training)],
        *([["initial weights", plain(str(cfg["init"]))]] if cfg.get("init") else []),
    ]


def windows(model: TrainedModel) -> str:
    """How sslcli reads longer texts, where that is not by their start alone."""
    count = getattr(model.preprocessor, "windows", 1)
    return (
        f"; evaluations of sslcli average the features of up to {count} such windows of a longer text"
        if count > 1
        else ""
    )


def evaluation(model: TrainedModel) -> list[str]:
    """Rows of the results that the run has for the exported step."""
    rows = []
    for name, record in model.run.evals.items():
        if record.get("step") != model.info["step"]:
            continue
        intervals = record.get("intervals", {})
        for metric, value in records.numbers(record, "numbers").items():
            low, high = (intervals.get(f"{metric}_ci95") or [None, None])[:2]
            interval = f"{low:.3f} to {high:.3f}" if isinstance(low, float) and isinstance(high, float) else ""
            rows.append([plain(name), plain(metric), f"{value:.4g}", interval, *protocol(record)])
    if not rows:
        return ["The run has no results for these weights."]
    head = ["evaluator", "metric", "value", "95 % interval", "data", "labels", "seeds"]
    note = (
        "Metrics that begin with `raw.`, `untrained.`, `scratch.`, or the name of a model or a rule (`popularity.`, `markov.`, "
        "`item_knn.`), are baselines under the same protocol."
    )
    return [*table(head, rows), "", note]


def protocol(record: Record) -> list[str]:
    known = record.get("protocol") or {}
    return [plain(str(value)) for value in (record.get("dataset", ""), known.get("labels", ""), known.get("seeds", ""))]


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def plain(text: str) -> str:
    """Text with the characters of Markdown and HTML escaped, on one line."""
    one = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"([\\`*_{}\[\]<>#|~!$&])", r"\\\1", one)
