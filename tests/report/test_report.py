"""Reports: what a run folder holds comes out whole, escaped, in one file that asks nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sslcli.errors import RequestError
from sslcli.report.html import charts
from sslcli.report.html.markup import Html, data, el, text
from sslcli.report.run_contents import group_by_metric, read_run
from sslcli.report.write import write_report
from tests.conftest import SMOKE
from tests.report.html_page import Page

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\u202e"


def picture(colour: str = "red", size: tuple[int, int] = (40, 20)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


def evaluation(**changes: Any) -> dict[str, Any]:
    found = {
        "numbers": {
            "top1": 0.953,
            "top1_std": 0.012,
            "raw.top1": 0.61,
            "untrained.top1": 0.5,
            "untrained.top1_std": 0.03,
        },
        "protocol": {"labels": "10/class", "seeds": 3, "splits": {"train": 90, "test": 10}, "notes": ["a note on it"]},
        "artefacts": {"confusion.png": "which class is taken for which"},
        "evaluator": {"_target_": "sslcli.evals.probe.probe"},
        "step": 40,
        "draws": 0,
        "time": "2026-01-01T00:00:00",
    }
    return found | changes


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A run without an encoder, as an interruption leaves it."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "runs" / "2026-01-01_simclr"
    (path / "eval").mkdir(parents=True)
    (path / "status.json").write_text(json.dumps({"status": "interrupted", "step": 40, "seconds": 12.0, "git": "abc"}))
    (path / "config.yaml").write_text(
        "method: {_target_: sslcli.methods.simclr.SimCLR}\ndataset: {name: digits}\nseed: 3\n"
    )
    lines = [
        {"step": s, "epoch": s / 10, "train/loss": 5 - s / 20, "train/lr": 0.1, "train/spread": 0.9}
        for s in (10, 20, 30)
    ]
    lines += [{"step": 40, "epoch": 4.0, "eval/rankme": 12.5, "eval/knn/top1": 0.75}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "events.jsonl").write_text('{"time": "2026-01-01T00:00:00", "event": "resumed", "step": 20}\n')
    (path / "eval" / "probe.json").write_text(json.dumps(evaluation()))
    (path / "eval" / "probe_confusion.png").write_bytes(picture())
    return path


def page_of(path: Path) -> tuple[str, Page]:
    source = write_report(path).read_text(encoding="utf-8")
    page = Page(source)
    assert len(set(page.ids)) == len(page.ids), sorted(i for i in page.ids if page.ids.count(i) > 1)
    return source, page


# ------------------------------------------------------------------------------------------------------------- gathering


def test_group_by_metric_baselines():
    found = group_by_metric(
        {"top1": 0.9, "top1_std": 0.1, "raw.top1": 0.5, "recall.5": 0.4, "bad": None, "nan": float("nan")}
    )
    assert found == {"top1": {"": (0.9, 0.1), "raw": (0.5, None)}, "recall.5": {"": (0.4, None)}}


def test_models_of_the_field_are_baselines(folder):
    record = evaluation(
        numbers={"top1": 0.5, "tfidf.top1": 0.7, "probe.top1": 0.6},
        protocol={"baselines": {"tfidf": {"note": "TF-IDF"}}},
        intervals={"tfidf.top1_ci95": [0.6, 0.8]},
    )
    (folder / "eval" / "finetune.json").write_text(json.dumps(record))
    (e,) = [e for e in read_run(folder).evals if e.name == "finetune"]
    assert e.baselines == ["tfidf"]
    assert e.numbers["top1"]["tfidf"] == (0.7, None)
    assert e.interval("top1", "tfidf") == (0.6, 0.8)
    assert "" in e.numbers["probe.top1"]


def test_report_shows_tables_of_text(folder):
    """Text is escaped; of a table with more than a page holds, or a cell that is none, there is a part."""
    word = "w" * 100_000
    rows = [
        "a heading",
        [EVIL, 0.25, {"words": [["good", 0.95], [EVIL, 0.0], ["x", "heavy"], 3]}],
        [word, None, {"words": "no list"}],
        7,
        *[["שלום עולם", 3, "🎉\x00\u202e"]] * 500,
    ]
    record = evaluation(
        artefacts={"sentences.csv": EVIL, "broken.csv": "broken", "confusion.png": "a drawing of the same"},
        tables={
            "sentences.csv": {"columns": ["text", "p", EVIL], "rows": rows},
            "broken.csv": {"rows": 3},
            "confusion.png": 3,
        },
    )
    (folder / "eval" / "probe.json").write_text(json.dumps(record))
    source, page = page_of(folder)
    assert "<script>alert" not in source
    assert "\u202e" not in source
    assert '<span class="heat-9">good</span> <span class="heat-0">' in source
    assert "<span>x</span>" in source
    assert word[:1201] not in source
    assert "(98,800 more characters)" in source
    assert page.text.count("שלום") == 396
    assert "and 104 more rows" in page.text
    assert "a drawing of the same" not in page.text  # the table stands for the drawing


def test_report_invalid_metric_lines(folder):
    with open(folder / "metrics.jsonl", "a") as f:
        f.write(
            '[1, 2]\nnot json\n{"step": "x", "train/loss": 1}\n'
            '{"step": 50, "train/loss": null, "train/lr": 1e999}\n{"step": 60, "tr'
        )
    run = read_run(folder)
    assert run.curve("train/loss") == [(10, 4.5), (20, 4.0), (30, 3.5)]
    assert run.curve("train/lr") == [(10, 0.1), (20, 0.1), (30, 0.1)]
    assert "2 lines of metrics.jsonl cannot be read" in run.notes


def test_report_minimal_folder(tmp_path):
    (tmp_path / "status.json").write_text("{}")
    _, page = page_of(tmp_path)
    assert "status.json cannot be read" in page.text.lower() or "status" in page.text
    assert "h1" in [t for t, _ in page.tags]


@pytest.mark.parametrize(
    "broken", ["status.json", "config.yaml", "metrics.jsonl", "events.jsonl", "eval/probe.json", "encoder.json"]
)
@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"a": ', "\x00\xff", '{"numbers": [], "protocol": 3, "artefacts": 1, "step": {}}']
)
def test_report_broken_file(folder, broken, content):
    (folder / broken).write_text(content, encoding="latin-1")
    if broken == "status.json" and not content:
        (folder / broken).write_text("{}")
    _, page = page_of(folder)
    assert "SimCLR on digits" in page.text or broken == "config.yaml"


def test_report_opens_no_file_outside_run(folder, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(picture("blue"))
    (folder / "eval" / "probe_linked.png").symlink_to(secret)
    artefacts = {"linked.png": "a link", "../../secret.png": "a way out", str(secret): "an absolute one"}
    (folder / "eval" / "probe.json").write_text(json.dumps(evaluation(artefacts=artefacts)))
    source, page = page_of(folder)
    assert base64.b64encode(picture("blue")).decode() not in source
    assert "probe_linked.png is no regular file" in page.text.lower()


def test_report_invalid_image_is_named(folder):
    (folder / "eval" / "probe_confusion.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\x00" * 50)
    _, page = page_of(folder)
    assert "probe_confusion.png is not an image that can be shown" in page.text
    assert not [a for t, a in page.tags if t == "img"]


# ------------------------------------------------------------------------------------------------------------------ page


def test_report_shows_run_contents(folder):
    _, page = page_of(folder)
    for words in (
        "SimCLR on digits",
        "This run was interrupted.",
        "sslcli resume 2026-01-01_simclr",
        "0.953",
        "± 0.012",
        "untrained 0.500 · raw inputs 0.610",
        "0.9530 ± 0.0120",
        "a note on it",
        "10 labels a class, 3 draws",
        "Which class is taken for which.",
        "RankMe",
        "75.0 %",
    ):
        assert words in page.text, words
    (img,) = [a for t, a in page.tags if t == "img"]
    assert img["alt"] == "Which class is taken for which"
    assert (img["width"], img["height"]) == ("40", "20")
    image = Image.open(io.BytesIO(base64.b64decode((img["src"] or "").partition(",")[2])))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_labels_saved_bound(folder):
    for bound, said in ((1.0, "&gt; 3.2 ×"), (0.0, ">3.2 ×")):
        saved = evaluation(numbers={"top1@10": 0.9, "labels_saved": 3.2, "labels_saved_is_bound": bound})
        (folder / "eval" / "labels.json").write_text(json.dumps(saved))
        source, _ = page_of(folder)
        assert said in source
        assert "is bound" not in source


def test_main_metric_with_evaluator_prefix(folder):
    """Of transfer: its probe among the tiles and the bars, beside the baselines, with the labels it was given."""
    kinds = ("", "untrained.", "raw.")
    numbers = {f"{k}{m}.top1": 0.9 - 0.1 * i for i, k in enumerate(kinds) for m in ("probe", "knn")}
    protocol = {
        "labels": "1/class",
        "seeds": 2,
        "from": "digits",
        "probe": {"solver": {"tolerance": 1e-6}},
        "notes": [],
    }
    record = evaluation(numbers={**numbers, "probe.top1_std": 0.02}, protocol=protocol, artefacts={})
    (folder / "eval" / "transfer@mine.json").write_text(json.dumps(record))
    _, page = page_of(folder)
    for words in (
        "Transfer, on mine, 1 label a class, top-1 accuracy of the linear probe 0.900 ± 0.020 untrained 0.800 · raw inputs 0.700",
        "Transfer, on mine, 1 label a class top-1 accuracy of the linear probe, 2 draws this run 0.900 ± 0.020",
        "top-1 accuracy of the k-NN classifier 0.9000 0.8000 0.7000",
        "probe solver tolerance 1e-06",
        "labels 1 label a class, 2 draws; 10 labels a class, 3 draws",
    ):
        assert words in page.text, words


def test_commands_repeat_overrides_of_evaluations(folder):
    typed = ["dataset=arrays", "dataset.path='a b.npz'", "dataset.holdout=0.3"]
    (folder / "eval" / "transfer@mine.json").write_text(json.dumps(evaluation(overrides=typed)))
    _, page = page_of(folder)
    run = "run=2026-01-01_simclr"
    assert f"sslcli eval probe {run} labels=10/class seeds=3" in page.text  # its record does not say
    assert (
        f"""sslcli eval transfer {run} dataset=arrays 'dataset.path='"'"'a b.npz'"'"'' dataset.holdout=0.3"""
        in page.text
    )
    assert "overrides" not in page.text


def test_missing_evaluations_have_commands(folder):
    (folder / "encoder.safetensors").write_bytes(b"")
    (folder / "config.yaml").unlink()
    _, page = page_of(folder)
    assert "sslcli eval transfer run=2026-01-01_simclr dataset=NAME" in page.text
    assert "sslcli eval knn run=2026-01-01_simclr" in page.text


@pytest.mark.parametrize(
    ("method", "backbone", "offered"),
    [
        ("sslcli.methods.simclr.SimCLR", "sslcli.backbones.convnet.ConvNet", set()),
        ("sslcli.methods.autoencoder.Autoencoder", "sslcli.backbones.convnet.ConvNet", {"reconstruct"}),
        ("sslcli.methods.dino.DINO", "sslcli.backbones.vit.ViT", {"attentive"}),
        (
            "somebodys.Method",
            "sslcli.backbones.convnet.ConvNet",
            {"reconstruct", "attentive"},
        ),  # whose abilities are not known
    ],
)
def test_unsupported_evaluators_not_offered(folder, method, backbone, offered):
    (folder / "encoder.safetensors").write_bytes(b"")
    parts = {"method": {"_target_": method}, "backbone": {"_target_": backbone}}
    (folder / "config.yaml").write_text(json.dumps(parts))
    _, page = page_of(folder)
    assert "sslcli eval knn run=2026-01-01_simclr" in page.text
    assert {kind for kind in ("reconstruct", "attentive") if f"sslcli eval {kind} run=" in page.text} == offered


def test_headings_and_contents_links_are_valid(folder):
    _, page = page_of(folder)
    levels = [int(t[1]) for t, _ in page.tags if re.fullmatch(r"h[1-6]", t)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    links = [a["href"] or "" for t, a in page.tags if t == "a"]
    assert links[0] == "#content"
    assert all(href.startswith("#") and href[1:] in page.ids for href in links)
    assert {"header", "nav", "main", "footer"} <= {t for t, _ in page.tags}
    assert ("html", {"lang": "en"}) in page.tags


def test_report_makes_no_requests(folder):
    source, page = page_of(folder)
    for tag, attributes in page.tags:
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            value = attributes.get(key) or ""
            assert value.startswith(("data:", "#")) or not value, (tag, key, value[:80])
        assert not any(k.startswith("on") or k == "style" for k in attributes), (tag, attributes)
    style, script = (re.search(rf"<{t}>(.*?)</{t}>", source, re.S) for t in ("style", "script"))
    assert style
    assert script
    assert "url(" not in style[1]
    assert "@import" not in style[1]
    policy = next(a["content"] or "" for t, a in page.tags if t == "meta" and a.get("http-equiv"))
    for kind, found in (("style", style[1]), ("script", script[1])):
        digest = base64.b64encode(hashlib.sha256(found.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def hostile(folder: Path) -> None:
    """Everything that can be named is named badly."""
    name = EVIL.replace("/", "∕")
    config = {
        "method": {"_target_": f"x.{EVIL}", "summary": EVIL, "api_key": "s3cr3t-s3cr3t"},
        "backbone": {"_target_": EVIL},
        "dataset": {"name": EVIL, "path": f"/data/{EVIL}", "holdout": EVIL, "split_seed": EVIL},
        "seed": EVIL,
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    status = {
        "status": EVIL,
        "error": EVIL,
        "step": 3,
        "git": EVIL,
        "packages": {EVIL: EVIL},
        "created": EVIL,
        "argv": [EVIL],
    }
    (folder / "status.json").write_text(
        json.dumps(status | {"config_hash": EVIL, "online": {EVIL: 1.0}, EVIL: {EVIL: [EVIL]}})
    )
    (folder / "encoder.json").write_text(json.dumps({"sha256": EVIL, "step": EVIL}))
    (folder / "log.txt").write_text("".join(f"T {k}: {EVIL}\n" for k in ("what", "data", "plan", "where")))
    (folder / "metrics.jsonl").write_text(
        json.dumps({"step": 1, f"train/{EVIL}": 2.0, "train/loss": 1.0, "epoch": EVIL}) + "\n"
    )
    (folder / "events.jsonl").write_text(json.dumps({"time": EVIL, "event": EVIL, EVIL: EVIL}) + "\n")
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "overrides.yaml").write_text(
        json.dumps([f"dataset.path={EVIL}", "logger.token=s3cr3t-s3cr3t"])
    )
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": {"job": {"config_name": EVIL}}}))
    record = evaluation(
        numbers={"top1": 0.5, f"raw.{EVIL}": 0.1, EVIL: 0.2, f"{EVIL}.top1": 0.3},
        protocol={"labels": EVIL, "seeds": 2, "notes": [EVIL], EVIL: {EVIL: [EVIL]}, "splits": {EVIL: 3}},
        artefacts={"confusion.png": EVIL},
        details={EVIL: EVIL},
        evaluator={"_target_": EVIL, "k": EVIL, EVIL: EVIL},
        dataset=EVIL,
    )
    for title in ("probe", f"probe@{name}", name):
        (folder / "eval" / f"{title}.json").write_text(json.dumps(record))
        (folder / "eval" / f"{title}_confusion.png").write_bytes(picture())
    (folder / "pictures").mkdir()
    (folder / "pictures" / f"{name}.png").write_bytes(picture())


def test_report_escapes_hostile_text(folder):
    hostile(folder)
    source, page = page_of(folder)
    scripts = [a for t, a in page.tags if t == "script"]
    assert all(a == {} or a.get("type") == "application/json" for a in scripts)
    assert sum(a == {} for a in scripts) == 1
    assert all((a.get("src") or "").startswith("data:image/png;") for t, a in page.tags if t == "img")
    assert not [a for _, a in page.tags if any(k.startswith("on") for k in a)]
    assert "<script>alert" not in source
    assert "\u202e" not in source
    assert "s3cr3t" not in source
    assert "<script>alert(1)</script>" in page.text  # it is shown as what it is


def test_report_is_deterministic(folder, tmp_path):
    first, second = write_report(folder, tmp_path / "a.html"), write_report(folder, tmp_path / "b.html")
    assert first.read_bytes() == second.read_bytes()


# -------------------------------------------------------------------------------------------------------------- building


def test_elements_escape_text():
    assert el("p", "<b>", Html("<b>x</b>"), 3, None, ["a", ["&"]]) == "<p>&lt;b&gt;<b>x</b>3a&amp;</p>"
    assert (
        el("a", href="\"'><", hidden=True, title=None, data_x=0)
        == '<a href="&quot;&#x27;&gt;&lt;" hidden data-x="0"></a>'
    )
    assert text("a\x00\ud800\u202eb") == "a\\x00\\ud800\\u202eb"
    assert "</script" not in data("x", ["</script><!--", "\u2028"]).removesuffix("</script>")
    assert json.loads(data("x", ["</script>&"]).partition(">")[2].removesuffix("</script>")) == ["</script>&"]


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (3.1, 5.2, [3, 4, 5, 6]),
        (7, 7, [6, 6.5, 7, 7.5, 8]),
        (-0.2, 0.9, [-0.5, 0, 0.5, 1]),
    ],
)
def test_axis_ticks_are_round_and_cover_range(low, high, wanted):
    ticks = charts.axis_ticks(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    if (low, high) != (7, 7):
        assert ticks == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("low", "high"), [(1e99, -1e99), (-9e99, 9e99), (5e-324, 0.0), (0, 5e-324), (1, 1 + 1e-15), (-1e-7, 1e5)]
)
def test_axis_ticks_any_range(low, high):
    ticks = charts.axis_ticks(*sorted((low, high)))
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))


def test_thin_keeps_points_and_extremes():
    points = [(float(i), float((i * 7919) % 1000)) for i in range(10_000)]
    points[4321] = (4321.0, 5000.0)
    kept = charts.thin(points)
    assert len(kept) <= charts.MOST_POINTS + 2
    assert set(kept) <= set(points)
    assert points[4321] in kept
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert kept == sorted(kept)


@pytest.mark.parametrize(("n", "d"), [(8, 1), (8, 40), (60, 3)])
@pytest.mark.parametrize("collapsed", [False, True])
def test_project_degenerate_features(n, d, collapsed):
    import numpy as np

    from sslcli.report.feature_map.projection import project

    x = (
        np.ones((n, d), dtype=np.float32)
        if collapsed
        else np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    )
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    found = project(x, 0)
    assert [p["name"] for p in found][-1] == "PCA" or "UMAP" in [p["name"] for p in found]
    for p in found:
        assert len(p["points"]) == n
        assert "nan" not in p["note"]
        assert all(0 <= v <= 1000 for point in p["points"] for v in point)


def test_label_positions_do_not_overlap():
    import torch

    from sslcli.report.feature_map.projection import label_positions

    points = [[500, 500]] * 3 + [[5, 990]] * 2
    found = label_positions(points, torch.tensor([0, 1, 2, 3, -1]), ["cat", "dog", "bird", "a long name", "none of it"])
    assert [c for c, _, _ in found] == [0, 1, 2, 3]
    assert sorted(y for _, x, y in found[:3]) == [500, 530, 560]
    assert found[3][1] > 80  # the whole name is inside
    assert label_positions(points, torch.tensor([0] * 5), [str(i) for i in range(100)]) == []


# ---------------------------------------------------------------------------------------------------------------- sweeps


@pytest.fixture
def sweep(folder) -> Path:
    """Two configurations, two seeds, and a job that failed before it had a folder."""
    root = folder.parent / "sweep" / "S"
    (root / "jobs").mkdir(parents=True)
    scores = {("simclr", 0): 0.9, ("simclr", 1): 0.8, ("byol", 0): 0.95, ("byol", 1): 0.85}
    for job, ((method, seed), score) in enumerate(scores.items()):
        path = root / f"{job}_{method}"
        shutil.copytree(folder, path)
        (path / "eval" / "probe.json").write_text(json.dumps(evaluation(numbers={"top1": score})))
        words = [f"method={method}", f"seed={seed}", "train.steps=60"]
        (root / "jobs" / f"{job}.json").write_text(
            json.dumps({"job": job, "overrides": words, "status": "done", "run": str(path)})
        )
    failed = {"job": 4, "overrides": ["method=nope", "seed=0", "train.steps=60"], "status": "failed", "error": EVIL}
    (root / "jobs" / "4.json").write_text(json.dumps(failed))
    return root


def rows_of(source: str, name: str) -> list[str]:
    found = re.search(rf'<section id="{name}".*?</section>', source, re.S)
    assert found
    return [
        re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", r)).strip() for r in re.findall(r"<tr>.*?</tr>", found[0], re.S)
    ][1:]


def test_sweep_page_order_and_seed_means(sweep):
    source, page = page_of(sweep)
    runs = rows_of(source, "runs")
    assert [r.split()[0] for r in runs] == ["2_byol", "0_simclr", "3_byol", "1_simclr", "job"]
    assert "0.9500" in runs[0]
    assert "failed: <script>" not in source
    means = rows_of(source, "seeds")
    assert means[0].startswith("byol 2 0.900 ± 0.071")
    assert means[1].startswith("simclr 2 0.850 ± 0.071")
    links = [a["href"] or "" for t, a in page.tags if t == "a" and not (a["href"] or "").startswith("#")]
    assert sorted(links) == ["0_simclr/report.html", "1_simclr/report.html", "2_byol/report.html", "3_byol/report.html"]
    assert all((sweep / href).is_file() for href in links)
    assert "5 runs over method, seed" in page.text
    assert "steps" in page.text  # what is common to all


def test_sweep_report_rewrites_changed_runs_only(sweep):
    write_report(sweep)
    stamps = {p: p.stat().st_mtime_ns for p in sweep.glob("*/report.html")}
    (sweep / "1_simclr" / "eval" / "knn.json").write_text(json.dumps(evaluation()))
    os.utime(sweep / "1_simclr" / "eval" / "knn.json", (4e9, 4e9))
    write_report(sweep)
    changed = [p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp]
    assert changed == ["1_simclr"]


def test_report_rejects_other_folders(tmp_path):
    with pytest.raises(RequestError, match="neither a run nor a folder of runs"):
        write_report(tmp_path)


# --------------------------------------------------------------------------------------------------------- the whole way


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "a", "b"], "expected key=value"),
        (["report", "out=x.pdf"], "a .html file is written"),
        (["report", "out=nowhere/x.html"], "there is no folder"),
        (["report", "to=x.html"], "unexpected argument 'to=x.html' of sslcli runs report"),
        (["report"], "there is no run"),
    ],
)
def test_report_rejects_bad_arguments(cli, words, said):
    done = cli("runs", *words)
    assert done.code == 2
    assert said in done.err


def test_report_of_trained_run_has_views_and_map(cli):
    done = cli("pretrain", *SMOKE)
    assert done.code == 0, done.err
    run = Path(done.last)
    assert cli("eval", "knn", f"run={run}", "device=cpu").code == 0
    done = cli("runs", "report", "latest")
    assert done.code == 0, done.err
    assert done.out.strip() == str(run / "report.html")
    first = (run / "report.html").read_bytes()
    page = Page(first.decode())
    assert "Map of the features" in page.text
    found = re.search(r'id="map-data">(.*?)</script>', first.decode(), re.S)
    assert found
    map_ = json.loads(found[1])
    n = len(map_["ids"])
    assert n == len(map_["labels"]) == len(map_["near"]) == len(map_["predicted"]) == 360
    assert [p["name"] for p in map_["projections"]][:2] == ["t-SNE", "PCA"]
    for p in map_["projections"]:
        assert len(p["points"]) == n
        assert all(0 <= v <= 1000 for point in p["points"] for v in point)
    assert all(i not in near and len(near) == 5 for i, near in enumerate(map_["near"]))
    uses = [a for t, a in page.tags if t == "use"]
    assert len(uses) == n + len(map_["classes"])
    sprite = next(a for t, a in page.tags if t == "img" and a.get("id") == "map-sprite")
    image = Image.open(io.BytesIO(base64.b64decode((sprite["src"] or "").partition(",")[2])))
    layout = map_["sprite"]
    assert image.size == (layout["columns"] * layout["width"], layout["rows"] * layout["height"])
    assert "as the method saw them" in page.text

    assert cli("runs", "report", "latest", "out=again.html").code == 0
    again = Path("again.html").read_bytes()
    assert again == first
    if READY:
        check_in_a_browser([run / "report.html"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "none in pretraining"),
        (["method=supervised"], "all of them in pretraining"),
        (["train.classes=[0,1,2,3]"], "only to choose the classes in pretraining"),
    ],
)
def test_report_states_pretraining_labels(cli, words, said):
    run = cli("pretrain", *SMOKE, *words).last
    assert cli("eval", "knn", f"run={run}", "device=cpu", "evaluator.baselines=false").code == 0
    _, page = page_of(Path(run))
    assert said in page.text
    assert page.text.count("Supervised pretraining") == (words == ["method=supervised"])


# --------------------------------------------------------------------------------------------------------------- browser


MODULES = Path(os.environ.get("REPORT_NODE_MODULES", "node_modules")).absolute()
READY = (
    shutil.which("chromium")
    and shutil.which("node")
    and all((MODULES / m).is_dir() for m in ("playwright-core", "axe-core"))
)


def check_in_a_browser(pages: list[Path]) -> None:
    """No request, no error, no serious finding of axe, nothing wider than a phone, everything by keyboard."""
    script = Path(__file__).with_name("browser_check.mjs")
    words = ["node", script, shutil.which("chromium") or "", *pages]
    environment = os.environ | {"REPORT_NODE_MODULES": str(MODULES)}
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_report_accessibility_in_browser(sweep, folder):
    if not READY:
        pytest.skip("needs Chromium, node, and REPORT_NODE_MODULES: a folder with playwright-core and axe-core")
    hostile(folder)
    check_in_a_browser([write_report(folder), write_report(sweep)])


def test_report_renders_in_chromium(sweep, folder, tmp_path):
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium")
    hostile(folder)
    pages = [write_report(folder), write_report(sweep)]
    for page in pages:
        shown = dom(chromium, page, tmp_path / "profile")
        assert shown.count("<script>") == 1
        assert "Theme: auto" in shown  # its script ran to the end of its first part
        assert "alert(1)" in shown


QUIET = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


def dom(chromium: str, page: Path, profile: Path) -> str:
    """The page as Chromium has it after its script, without a network."""
    words = [
        chromium,
        *QUIET.split(),
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
        "--dump-dom",
    ]
    done = subprocess.run([*words, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
