"""The commands: requests that are refused, exit codes, what goes to stdout and what to stderr."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from sslcli.config import registry
from sslcli.config.checks import parse_duration
from sslcli.errors import RequestError
from tests.conftest import SMOKE


@pytest.mark.parametrize(
    ("argv", "message", "hint"),
    [
        (["pretrian"], "unknown command 'pretrian'", "sslcli pretrain"),
        (["pretrain", "method=simsam"], "no method named `simsam`", "`simsiam`"),
        (["pretrain", "dataset=cifr10"], "no dataset named `cifr10`", "`cifar10`"),
        (["pretrain", "train.epoch=3"], "`train` has no key `epoch`", "train.epochs"),
        (["pretrain", "modle.x=3"], "modle", "sslcli pretrain --help"),
        (["pretrain", "optimizer.lr=abc"], "optimizer.lr: expected a number", ""),
        (["pretrain", "train.epochs=abc"], "train.epochs: expected an integer", ""),
        (["pretrain", "optimizer.lr="], "optimizer.lr has no value", ""),
        (["pretrain", "optimizer.lr=-1"], "expected a positive number", ""),
        (["pretrain", "optimizer.lr=nan"], "expected a positive number", ""),
        (["pretrain", "optimizer.lr=inf"], "expected a positive number", ""),
        (["pretrain", "train.epochs=0"], "training for 0 steps leaves random weights", ""),
        (["pretrain", "train.batch_size=-4"], "at least 1", ""),
        (["pretrain", "method=simclr", "method.temperature=0"], "method.temperature", ""),
        (["pretrain", "device.workers=-1"], "device.workers", ""),
        (["pretrain", "device.type=gpu"], "device.type: expected one of", ""),
        (["pretrain", "train.budget=soon"], "expected a duration", "20m"),
        (["pretrain", "train.batch_size=1"], "needs at least 2", ""),
        (["pretrain", "train.batch_size=5000"], "larger than the training split (1,437 samples)", "train.batch_size="),
        (["pretrain", "method=clip", "dataset=digits", "train.batch_size=5000"], "CLIP requires", "methods for image"),
        (["pretrain", "train.batch_size=9", "train.accumulate=2"], "not divisible", ""),
        (["pretrain", "method.plan={global: 2, local: 2}"], "`method.plan` has no key `local`", ""),
        (
            ["pretrain", "augmentation=symmetric", "augmentation.global.random_resized_crop.size=0.5"],
            "`augmentation.global.random_resized_crop` has no key `size`",
            "`+augmentation.global.random_resized_crop.size=VALUE`",
        ),
        (["pretrain", "method.pred_dmi=3"], "`method` has no key `pred_dmi`", "method.pred_dim"),
        (["pretrain", "+method.foo=3"], "`method.foo` is not an argument of SimSiam", ""),
        (["pretrain", "backbone=vit_tiny", "backbone.patch=3"], "patch", ""),
        (["pretrain", "method=mae", "backbone=convnet"], "needs a backbone with tokens", "vit_tiny"),
        (["pretrain", "dataset.image_size=${nope}"], "`${nope}` refers to no key", ""),
        (["pretrain", "augmentation=[1,2"], "cannot parse", "quote"),
        (["eval", "anomaly", "run=none", "evaluator.normal=né, 2"], "cannot parse", "'evaluator.normal=\"né, 2\"'"),
        (["pretrain", "optimizer=adamw"], "the learning rate 0.5 was set by method=simsiam", "optimizer.lr="),
        (["pretrain", "method=msn", "method.prototype=5"], "no key `prototype`", "did you mean `method.prototypes`?"),
        (["pretrain", "-m", "method=msn,dino", "method.prototype=5"], "no key `prototype`", "`method.prototypes`"),
        (["pretrain", "method=dino", "backbone=vit_micro", "backbone.dept=5"], "no key `dept`", "`backbone.depth`"),
        (["bench", "bench.seconds=1"], "there is no key `bench.seconds`", "did you mean `seconds`?"),
        (["pretrain", "simsiam"], "'simsiam': expected key=value", "did you mean method=simsiam?"),
        (["pretrain", "seed=0,1"], "seed", "-m"),
        (["pretrain", "--dryrun"], "unknown flag '--dryrun'", "--dry-run"),
        (["pretrain", "--config-name", "pipeline"], "unknown flag '--config-name'", ""),
        (["pretrain", "-n", "pipeline"], "unknown flag '-n'", ""),
        (["pretrain", "method=[simsiam]"], "no method named `[simsiam]`", "`simsiam`"),
        (["pretrain", "dataset=[digits]"], "no dataset named `[digits]`", "`digits`"),
        (["pretrain", "train.steps=2", "train.steps=1e3"], "train.steps: expected an integer", ""),
        (["pretrain", "hydra.job_logging.root.level=NONSENSE"], "NONSENSE", "level=INFO"),
        (["pretrain", "dataset.path=photos"], "dataset.path is set", "dataset=image_folder"),
        (["pretrain", "dataset=arrays"], "missing value: dataset.path", "dataset.path="),
        (["eval"], "missing argument: NAME", "probe"),
        (["eval", "prob"], "no evaluator named `prob`", "`probe`"),
        (["eval", "probe"], "there is no run in runs/ yet", "sslcli pretrain"),
        (
            ["eval", "probe", "dataset.windows=1"],
            "requires a data set on the command line",
            "dataset=NAME dataset.path=PATH",
        ),
        (["eval", "probe", "dataset=digits", "dataset.windows=1"], "`dataset` has no key `windows`", "split_seed"),
        (["eval", "probe", "run=nope"], "there is no run `nope`", "sslcli runs"),
        (["resume"], "missing argument: RUN", "sslcli resume RUN"),
        (["resume", "latest", "seed=3"], "there is no run in runs/ yet", "sslcli pretrain"),
        (["list"], "missing argument: KIND", "methods"),
        (["list", "metods"], "unknown argument 'metods'", "sslcli list methods"),
        (["runs", "beest"], "sslcli runs: unknown argument 'beest'", "sslcli runs best"),
        (["runs", "show"], "missing argument: RUN", "sslcli runs show RUN"),
        (["runs", "compare", "a"], "missing argument: RUN", "sslcli runs compare RUN RUN ..."),
        (["runs", "show", "a", "b"], "'b': expected key=value", "sslcli runs show --help"),
        (["runs", "best", "top1", "-n", "0"], "-n 0: expected a positive integer", ""),
        (["resume", "latest", "--dry-run"], "unknown flag '--dry-run' of sslcli resume", ""),
        (["runs", "best", "probe.top1"], "no run has the metric `probe.top1`", "sslcli eval probe"),
        (["data"], "missing argument: SUBCOMMAND", "inspect"),
        (["completion", "bsh"], "unknown argument 'bsh'", "sslcli completion bash"),
        (["pretrain", "~method"], "`method` cannot be removed", "method=NAME"),
        (["pretrain", "~seed"], "`seed` cannot be removed", "seed=VALUE"),
        (["pretrain", "~train.epochs"], "`train.epochs` cannot be removed", "train.epochs=null"),
        (["pretrain", "~"], "has no key", "key=value"),
        (["pretrain", "=simsiam"], "has no key", "key=value"),
        (["pretrain", "seed=1", "method=null"], "'method=null': expected the name of a choice", "GROUP=NAME"),
        (["pretrain", "experiment=smoke", "train=null"], "'train=null': expected the name of a choice", "GROUP=NAME"),
        (["pretrain", "method=simsiam.yaml"], "no method named `simsiam.yaml`", "`simsiam`"),
        (["pretrain", "method=simsiam,byol"], "has several values", "add -m to run each"),
        (["pretrain", "method.temperature=0.1"], "no key `temperature`", "`method` has"),
        (["pretrain", "+train.foo=1"], "`train` has no key `foo`", "`train` has"),
        (["pretrain", "+train.epochs=1"], "the key `train.epochs` exists already", "without the +: train.epochs=1"),
        (["pretrain", "train.lr=1"], "`train` has no key `lr`", "did you mean `optimizer.lr`?"),
        (["pretrain", "evaluator=probe"], "`${labels}` refers to no key", "sslcli eval NAME"),
        (["pretrain", "resume=yes"], "expected auto or null", "sslcli resume RUN"),
        (["pretrain", "train.budget=1h30"], "expected a duration", "1h30m"),
        (["pretrain", "train.save_every=1e3"], "a positive number of steps", "train.save_every=1000"),
        (["pretrain", "--method", "simsiam"], "unknown flag '--method'", "keys have no dashes: method=..."),
        (["pretrain", "--train.epochs=3"], "unknown flag '--train.epochs=3'", "keys have no dashes: train.epochs=3"),
        (["pretrain", "method", "=", "simsiam"], "'method' requires a value", "without spaces"),
        (["--json", "runs"], "--json must follow the command", "sslcli runs --json"),
        (["help", "nope"], "unknown command 'nope'", "pretrain"),
        (["eval", "probe", "knn"], "eval takes one evaluator", "sslcli eval -m probe,knn"),
        (["eval", "probe", "latest"], "'latest': expected key=value", "run=latest"),
        (["pipeline", "stages=probe"], "stages: expected a list", "stages=[probe]"),
        (["runs", "show", "x", "cka=true"], "unexpected argument 'cka=true' of sslcli runs show", "sslcli runs --help"),
        (["export", "latest", "checkpont=3"], "unexpected argument 'checkpont=3' of sslcli export", "checkpoint=...?"),
        (["export"], "missing argument: RUN", "sslcli export RUN out=FOLDER"),
        (["runs", "report", "out="], "out is not given", "out=report.html"),
        (["data", "preview", "out="], "out is not given", "out=views.png"),
        (["data", "preview", "out=."], "not the name of something to write", "out=views.png"),
        (["data", "inspect", "digits"], "'digits': expected key=value", "dataset=digits"),
    ],
)
def test_invalid_request_creates_no_folder(cli, argv, message, hint):
    result = cli(*argv)
    assert result.code == 2, result
    assert message in result.err
    assert result.err.startswith("error: ")
    assert hint in result.err.partition("hint: ")[2], result.err
    assert result.out == ""
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("file", "dataset"),
    [("a.jpg", "image_folder"), ("a.npz", "series"), ("a.npy", "arrays"), ("a.tar", "tar"), ("manifest.json", "pack")],
)
def test_dataset_path_alone_hint(cli, tmp_path, file, dataset):
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / file).touch()
    result = cli("pretrain", "dataset.path=things")
    assert result.code == 2
    assert f"dataset={dataset}" in result.err


def test_json_without_effect_warns(cli):
    assert "--json has no effect on completion" in cli("completion", "bash", "--json").err
    assert "--json" not in cli("list", "methods", "--json").err


def test_durations():
    assert parse_duration("90", "k") == parse_duration("90s", "k") == parse_duration(90, "k") == 90
    assert parse_duration("1h30m", "k") == 5400
    assert parse_duration("0.5d", "k") == 43200
    for wrong in ("", "m", "10 apples", "-5", 0, "-3m", float("nan"), "1h30", "1m 30s"):
        with pytest.raises(RequestError):
            parse_duration(wrong, "k")


def test_cfg_job_creates_no_folder(cli):
    result = cli("pretrain", "--cfg", "job", "method=byol")
    assert result.code == 0
    assert "sslcli.methods.byol.BYOL" in result.out
    assert not Path("runs").exists()


def test_dry_run_creates_no_folder(cli):
    result = cli("pretrain", "--dry-run", *SMOKE)
    assert result.code == 0, result.err
    assert "dry run: loss" in result.err
    assert not Path("runs").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """One finished run, shared by the tests that only read it: (working folder)."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main(["pretrain", "-q", *SMOKE, "train.eval_every=1"]) == 0
    finally:
        os.chdir(before)
        os.environ.pop("SSLCLI_QUIET", None)
    return folder


def test_pretrain_prints_run_folder(cli):
    result = cli("pretrain", *SMOKE)
    assert result.code == 0, result.err
    assert len(result.out.splitlines()) == 1
    run = Path(result.last)
    assert run.is_dir()
    assert run.name.endswith("_simsiam_convnet_digits")
    for name in (
        "config.yaml",
        "status.json",
        "metrics.jsonl",
        "log.txt",
        "encoder.safetensors",
        "encoder.json",
        "checkpoints",
        ".hydra",
    ):
        assert (run / name).exists(), name
    assert (Path("runs") / "latest").resolve() == run.resolve()
    status = json.loads((run / "status.json").read_text())
    assert (status["status"], status["step"]) == ("done", 4)
    for part in ("what", "data", "plan", "where", "run", "lr ", "next  sslcli eval probe"):
        assert part in result.err
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {"train/loss", "train/lr", "train/samples_per_s", "train/data_wait", "train/spread"} <= set(metrics[-1])


def test_eval_prints_and_saves_metrics(cli, finished, monkeypatch):
    monkeypatch.chdir(finished)
    result = cli("eval", "knn")
    assert result.code == 0, result.err
    lines = dict(line.rsplit(" ", 1) for line in result.out.splitlines())
    assert 0 < float(lines["knn.top1"]) <= 1
    assert {"knn.raw.top1", "knn.untrained.top1"} <= set(lines)
    (saved,) = Path("runs").glob("2*/eval/knn.json")
    record = json.loads(saved.read_text())
    assert record["numbers"]["top1"] == pytest.approx(float(lines["knn.top1"]), abs=5e-4)  # printed with its digits
    low, high = record["intervals"]["top1_ci95"]
    assert low < record["numbers"]["top1"] < high
    assert "knn.top1 95 % interval 0." in result.err
    assert {"protocol", "step", "seed", "config_hash"} <= set(record)
    as_json = json.loads(cli("eval", "knn", "--json").out)
    assert as_json["numbers"] == record["numbers"]
    refused = cli("eval", "knn", "backbone=resnet18")
    assert refused.code == 2
    assert "comes from the run" in refused.err


def test_eval_key_without_effect_warns(cli, finished, monkeypatch):
    monkeypatch.chdir(finished)
    small = ["evaluator.groups=20", "evaluator.views=2", "evaluator.points=20"]
    assert "seeds=3 has no effect on quality" in cli("eval", "quality", "seeds=3", *small).err
    curve = cli("eval", "labels", "seeds=3", "evaluator.supervised=false", "evaluator.amounts=[5,10]")
    assert curve.code == 0, curve.err
    assert "no effect" not in curve.err
    record = json.loads((finished / "runs" / "latest" / "eval" / "labels.json").read_text())
    assert record["protocol"]["seeds"] == record["evaluator"]["seeds"] == 3
    given = cli("eval", "labels", "seeds=3", "evaluator.seeds=2", "evaluator.supervised=false", "evaluator.amounts=[5]")
    assert given.code == 0, given.err
    record = json.loads((finished / "runs" / "latest" / "eval" / "labels.json").read_text())
    assert record["protocol"]["seeds"] == 2
    assert "no effect" not in cli("eval", "knn", "seeds=2", "labels=10/class").err


def test_eval_on_another_dataset(cli, finished, monkeypatch, tmp_path):
    """The run was trained on digits, 8 x 8 in gray; the other images are 20 x 20 in color, of two classes."""
    monkeypatch.chdir(finished)
    g = np.random.default_rng(0)
    y = np.arange(60) % 2
    np.savez(
        tmp_path / "other.npz", x=(g.integers(0, 99, (60, 20, 20, 3)) + 150 * y[:, None, None, None]).astype("u1"), y=y
    )
    arguments = ("dataset=arrays", f"dataset.path={tmp_path / 'other.npz'}")
    result = cli("eval", "transfer", *arguments)
    assert result.code == 0, result.err
    (record,) = (json.loads(p.read_text()) for p in Path("runs").glob("2*/eval/transfer@*.json"))
    assert record["numbers"]["probe.top1"] > 0.9
    assert cli("eval", "transfer").code == 2
    assert cli("eval", "knn", "dataset.holdout=0.3").code == 2


def test_resume_refuses_identity_keys(cli, finished, monkeypatch):
    monkeypatch.chdir(finished)
    result = cli("resume", "latest", "seed=3")
    assert result.code == 2
    assert "cannot change when resuming" in result.err
    assert "init=latest" in result.err
    assert "is done" in cli("resume", "latest").err


def test_eval_untrained_backbone(cli):
    result = cli("eval", "knn", "run=none", "backbone.width=8", "device=cpu")
    assert result.code == 0, result.err
    assert "knn.top1" in result.out
    assert list(Path.cwd().iterdir()) == []


def test_runs_list_show_best(cli, finished, monkeypatch):
    monkeypatch.chdir(finished)
    cli("eval", "knn")
    listed = json.loads(cli("runs", "--json").out)["runs"]
    assert len(listed) == 1
    name = Path(listed[0]["run"]).name
    assert name in cli("runs").out
    assert "knn.top1" in cli("runs", "show", name[:15]).out
    assert name in cli("runs", "best", "knn.top1").out
    assert cli("runs", "best", "knn.top").code == 2


def test_list_formats(cli):
    rows = [line.split("\t") for line in cli("list", "methods").out.splitlines()]
    names = [row[0] for row in rows]
    assert {len(row) for row in rows} == {
        5 + len(registry.choices("modality"))
    }  # name, family, ..., needs, source, summary
    assert set(names) >= {"simsiam", "simclr", "moco_v2", "byol", "vicreg", "autoencoder", "mae"}
    choices = json.loads(cli("list", "methods", "--json").out)["choices"]
    assert [c["name"] for c in choices] == names
    assert all(c["summary"] and c["family"] and c["source"] for c in choices)
    listed = {c["name"]: c for c in choices}
    assert listed["rotation"]["modalities"]["image"] == "plain"
    assert listed["rotation"]["modalities"]["series"] == "refused"
    assert listed["multitask"]["requires"] == ["values", "views"]  # of its tasks
    marks = dict(zip(registry.choices("modality"), rows[names.index("rotation")][2:], strict=False))
    assert (marks["image"], marks["series"]) == ("●", "-")
    provided = {row["name"]: row["provides"] for row in json.loads(cli("list", "modalities", "--json").out)["choices"]}
    assert "pixels" in provided["image"]
    for kind in registry.KINDS:
        assert cli("list", kind).code == 0


def test_sweep_prints_run_folders(cli):
    result = cli("pretrain", "-m", "method=simsiam,simclr", "seed=0,1", *SMOKE, "train.steps=1")
    assert result.code == 0, result.err
    folders = [Path(line) for line in result.out.splitlines()]
    assert len(folders) == len(set(folders)) == 4
    assert all((f / "encoder.safetensors").exists() for f in folders)
    assert len(json.loads(cli("runs", "--json").out)["runs"]) == 4


def test_pipeline(cli):
    result = cli("pipeline", *SMOKE, "stages=[knn,quality]")
    assert result.code == 0, result.err
    run = Path(result.last)
    assert {p.stem for p in (run / "eval").glob("*.json")} == {"knn", "quality"}
    assert (run / "report.html").stat().st_size > 10_000
    before = {p.name: p.stat().st_mtime_ns for p in (run / "eval").iterdir()}
    again = cli("pipeline", *SMOKE, "stages=[knn,quality]", "resume=auto", "report=false")
    assert again.err.count("reusing the result") == 2
    assert again.last == result.last
    assert {p.name: p.stat().st_mtime_ns for p in (run / "eval").iterdir()} == before
    assert cli("pipeline", "stages=[nope]").code == 2


@pytest.mark.parametrize(("given", "draws"), [([], (1, 1, 5)), (["seeds=3"], (3, 3, 3)), (["seeds=1"], (1, 1, 1))])
def test_seeds_of_a_pipeline_reach_all_stages(given, draws):
    from sslcli.cli.commands import pipeline
    from sslcli.config import compose

    cfg = compose.compose("pipeline", [*given, "stages=[probe,finetune,labels,quality]"])
    _, evaluators = pipeline.resolve(cfg, cfg.hydra)
    assert tuple(evaluators[name]["seeds"] for name in ("probe", "finetune", "labels")) == draws
    assert "seeds" not in evaluators["quality"]


def test_init_from_run(cli):
    first = Path(cli("pretrain", *SMOKE).last)
    result = cli("pretrain", *SMOKE, f"init={first}", "train.steps=1", "optimizer.lr=1e-9")
    assert result.code == 0, result.err
    from sslcli.runs.encoder import load_encoder

    a, b = (load_encoder(p)[0].state_dict() for p in (first, Path(result.last)))
    for key in a:
        if key.endswith("weight"):
            assert (a[key] - b[key]).abs().max() < 1e-5, key
    refused = cli("pretrain", *SMOKE[:-1], "backbone.width=16", f"init={first}")
    assert refused.code == 2
    assert "of another shape" in refused.err


def test_data_inspect_and_preview(cli):
    shown = cli("data", "inspect")
    assert shown.code == 0, shown.err
    assert "1437" in shown.out.replace(",", "")
    assert shown.err.splitlines()[-1] == "next  sslcli pretrain"
    shown = cli("data", "inspect", "dataset=wine", "dataset.holdout=0.3")
    assert shown.err.splitlines()[-1] == "next  sslcli pretrain dataset=wine dataset.holdout=0.3 method=scarf"
    drawn = cli("data", "preview", "out=sheet.png")
    assert drawn.code == 0, drawn.err
    assert drawn.out == "sheet.png\n"
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    for name, words in {"own": [], "scarf": ["method=scarf"], "simsiam": ["method=simsiam"]}.items():
        assert cli("data", "preview", "dataset=wine", *words, f"out={name}.png").code == 0
    views = {name: Path(f"{name}.png").read_bytes() for name in ("own", "scarf", "simsiam")}
    assert views["own"] == views["scarf"] != views["simsiam"]  # those of the training
    assert cli("data", "preview", "out=nowhere/sheet.png").code == 2
    assert cli("data", "preview", "out=sheet.jpg").code == 2


def test_doctor(cli):
    assert "torch" in cli("doctor").out
    report = json.loads(cli("doctor", "--json").out)
    assert report["problems"] == []
    assert report["packages"]["torch"]
    assert "no problems found" in cli("doctor").out


def test_job_is_composed_once(cli, monkeypatch):
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load, calls = ConfigLoaderImpl._load_configuration_impl, []
    monkeypatch.setattr(ConfigLoaderImpl, "_load_configuration_impl", lambda *a, **k: calls.append(1) or load(*a, **k))
    before = ConfigLoaderImpl.load_configuration
    assert cli("pretrain", *SMOKE).code == 0
    assert len(calls) == 1, "Hydra has changed: see compose.composed_already"
    assert ConfigLoaderImpl.load_configuration is before


def test_hydra_mode_key(cli):
    assert cli("pretrain", *SMOKE, "hydra.mode=RUN").code == 0
    swept = cli("pretrain", *SMOKE, "train.steps=1", "hydra.mode=MULTIRUN")
    assert swept.out.startswith("runs/sweep/"), swept.err
