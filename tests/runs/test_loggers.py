"""Where else numbers go. The adapters are tried with packages that only remember, and with the real ones where they are."""

from __future__ import annotations

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslcli.errors import MachineError, RequestError
from sslcli.runs import loggers
from sslcli.runs.run import Run
from tests.conftest import SMOKE


class Recorder:
    """Stands in for a package's objects: any method may be called, and is remembered."""

    def __init__(self, told: list[tuple[str, tuple[Any, ...], dict[str, Any]]], fails: str = ""):
        self.told, self.fails = told, fails

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*args: Any, **given: Any) -> Any:
            self.told.append((name, args, given))
            if name == self.fails:
                raise ConnectionError("the server is gone\nand more")
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"), experiment_id="7")

        return call


@pytest.fixture
def wandb(monkeypatch):
    """A package `wandb` that only remembers."""
    told: list[Any] = []
    package: Any = types.ModuleType("wandb")
    package.told, package.fails = told, ""

    def init(**given):
        told.append(("init", (), given))
        run = Recorder(told, package.fails)
        run.url, run.offline, run.summary = "https://wandb.example/x", False, Recorder(told, package.fails)
        return run

    package.init = init
    package.Image = lambda path: f"image of {Path(path).name}"
    package.Settings = lambda **given: types.SimpleNamespace(base_url="https://api.wandb.example", **given)
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    for name in ("WANDB_MODE", "WANDB_BASE_URL", "NETRC", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return package


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "run")
    made.path.mkdir()
    return made


def calls(told: list[Any], name: str) -> list[Any]:
    return [(args, given) for n, args, given in told if n == name]


def test_wandb_receives_run_and_metrics(wandb, run):
    cfg = {"method": {"width": 3}, "dataset": {"password": "hush"}}
    with loggers.attached(run, {"log_every": 5, "wandb": {"project": "p"}}, cfg, 0):
        run.log(10, 0.5, 1.0, {"train/loss": 1.5, "train/bad": math.nan})
        run.sink.result("probe", {"top1": 0.9}, {"confusion": run.path / "c.png"}, 10)
    ((_, given),) = calls(wandb.told, "init")
    assert given["project"] == "p"
    assert given["resume"] == "allow"
    assert given["settings"].disable_git  # what the configuration of a repository names would be run
    assert given["name"] == "run"
    assert given["dir"] == str(run.path)
    assert given["config"] == {"method": {"width": 3}, "dataset": {"password": "***"}}
    assert calls(wandb.told, "log")[0] == (({"train/loss": 1.5},), {"step": 10})
    assert calls(wandb.told, "update") == [(({"eval/probe/top1": 0.9},), {})]
    assert calls(wandb.told, "log")[1] == (({"eval/probe/confusion": "image of c.png"},), {})
    assert len(calls(wandb.told, "finish")) == 1
    assert run.sink is None
    assert len(run.metrics) == 1


def test_wandb_resume_has_same_id(wandb, run):
    for _ in range(2):
        with loggers.attached(run, {"wandb": {}}, {}, 0):
            pass
    first, second = (given["id"] for _, given in calls(wandb.told, "init"))
    assert first == second == json.loads((run.path / "loggers.json").read_text())["wandb"]["id"]


@pytest.mark.parametrize("fails", ["log", "finish"])
def test_wandb_failure_reported_once(wandb, run, capsys, fails):
    wandb.fails = fails
    with loggers.attached(run, {"wandb": {}}, {}, 0):
        for step in (1, 2, 3):
            run.log(step, 0.0, 0.0, {"a": 1.0})
    said = capsys.readouterr().err
    assert said.count("warning: logger=wandb") == 1
    assert "ConnectionError: the server is gone" in said
    assert len(run.metrics) == 3
    assert len(calls(wandb.told, "log")) == (1 if fails == "log" else 3)


def test_wandb_error_hides_api_key(wandb, run, capsys, monkeypatch):
    def init(**given):
        raise RuntimeError(f"401 for key {'k' * 40}")

    monkeypatch.setattr(wandb, "init", init)
    with loggers.attached(run, {"wandb": {}}, {}, 0):
        run.log(1, 0.0, 0.0, {"a": 1.0})
    said = capsys.readouterr().err
    assert "left out" in said
    assert "kkkk" not in said


def test_wandb_does_not_prompt_for_key(wandb, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    node = {"wandb": {}}
    loggers.Loggers(node).check()
    monkeypatch.delenv("WANDB_API_KEY")
    with pytest.raises(MachineError, match="no API key") as error:
        loggers.Loggers(node).check()
    assert "WANDB_MODE=offline" in error.value.hint
    monkeypatch.setenv("WANDB_MODE", "offline")
    loggers.Loggers(node).check()
    monkeypatch.delenv("WANDB_MODE")
    (tmp_path / ".netrc").write_text("machine api.wandb.example login user password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    loggers.Loggers(node).check()
    (tmp_path / ".netrc").write_text("machine elsewhere login user password secret\n")
    with pytest.raises(MachineError):
        loggers.Loggers(node).check()


def test_pretrain_missing_logger_package(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    result = cli("pretrain", "logger=wandb", *SMOKE)
    assert result.code == 3
    assert "pip install 'sslcli[wandb]'" in result.err
    assert not Path("runs").exists()


def test_wandb_pretrain_and_eval(cli, wandb):
    """Through the door: the trainer's numbers, then the probe's, under one name; two loggers at once."""
    result = cli("pretrain", "logger=[jsonl,wandb]", "logger.wandb.project=mine", "logger.log_every=2", *SMOKE)
    assert result.code == 0, result.err
    assert "https://wandb.example/x" in result.err
    assert [given["step"] for _, given in calls(wandb.told, "log")] == [2, 4]
    assert cli("eval", "probe", "logger=wandb", "logger.wandb.project=mine").code == 0
    ids = {given["id"] for _, given in calls(wandb.told, "init")}
    assert len(ids) == 1
    assert calls(wandb.told, "init")[1][1]["project"] == "mine"
    (told,) = calls(wandb.told, "update")
    assert "eval/probe/top1" in told[0][0]
    assert calls(wandb.told, "log")[-1][0][0] == {"eval/probe/confusion": "image of probe_confusion.png"}


def test_select_logs_results_of_each_run(cli, wandb):
    """The logger that is asked for, and not the one of a run; nothing twice, and nothing of checkpoints."""
    first = Path(cli("pretrain", "logger=wandb", *SMOKE, "train.save_every=2").last)
    second = Path(cli("pretrain", *SMOKE, "seed=1").last)
    quick = ["evaluator.groups=20", "evaluator.views=2", "evaluator.points=100", "device=cpu", "device.threads=1"]
    wandb.told.clear()
    assert cli("select", str(first), str(second), *quick).code == 0
    assert wandb.told == []
    assert cli("select", str(first), str(second), *quick, "logger=wandb", "seed=2").code == 0
    told, _ = calls(wandb.told, "update")
    numbers = Run(first).evals["quality"]["numbers"]
    assert told[0][0] == {f"eval/quality/{k}": v for k, v in numbers.items() if math.isfinite(v)}
    wandb.told.clear()
    assert cli("select", str(first), str(second), *quick, "logger=wandb", "seed=2").code == 0
    assert wandb.told == []
    assert cli("select", str(first), str(second), *quick, "seed=1", "logger=wandb").code == 0
    assert [given["name"] for _, given in calls(wandb.told, "init")] == [first.name, second.name]
    wandb.told.clear()
    refused = cli("select", str(first), *quick, "logger=wandb")
    assert (refused.code, "results of runs" in refused.err) == (2, True)
    assert cli("select", str(first), *quick).code == 0
    assert wandb.told == []


def test_select_missing_logger_package(cli, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    result = cli("select", "latest", "logger=wandb")
    assert result.code == 3
    assert "pip install 'sslcli[wandb]'" in result.err


def test_pretrain_failing_logger(cli, wandb):
    wandb.fails = "log"
    result = cli("pretrain", "logger=wandb", *SMOKE)
    assert result.code == 0
    assert "left out" in result.err
    (run,) = (p for p in Path("runs").iterdir() if not p.is_symlink())
    assert Run(run).status["status"] == "done"


def test_mlflow_receives_run_and_metrics(run, monkeypatch):
    told: list[Any] = []
    package: Any = types.ModuleType("mlflow")
    entities: Any = types.ModuleType("mlflow.entities")
    package.MlflowClient = lambda uri: told.append(("uri", (uri,), {})) or Recorder(told)
    entities.Metric = lambda *a: a
    entities.Param = lambda *a: a
    monkeypatch.setitem(sys.modules, "mlflow", package)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT"):
        monkeypatch.setenv(name, "1")
    node = {"mlflow": {"uri": "http://x", "experiment": "e"}}
    many = {f"key{i}": i for i in range(130)}
    for _ in range(2):
        with loggers.attached(run, node, {"a": {"b": 1}, **many}, 0):
            run.log(10, 0.5, 1.0, {"train/loss": 1.5})
            run.sink.result("probe", {"top1": 0.9}, {"confusion": run.path / "c.png"}, 10)
    assert len(calls(told, "create_run")) == 1
    batches = [given for _, given in calls(told, "log_batch")]
    assert [len(b["params"]) for b in batches if "params" in b] == [100, 31]
    assert batches[0]["params"][0] == ("a.b", "1")
    names = [(m[0], m[1], m[3]) for b in batches if "metrics" in b for m in b["metrics"]]
    assert names == [("train/loss", 1.5, 10), ("eval/probe/top1", 0.9, 10)] * 2
    assert calls(told, "log_artifact")[0][0] == ("r1", str(run.path / "c.png"), "eval/probe")
    assert len(calls(told, "set_terminated")) == 2


@pytest.mark.parametrize(
    ("node", "message", "hint"),
    [
        ({"wandbb": {}}, "no logger `wandbb`", "wandb"),
        ({"log_evry": 3}, "no logger `log_evry`", "log_every"),
        ({"wandb": {"projekt": "x"}}, "projekt", "--cfg job"),
    ],
)
def test_loggers_reject_invalid_config(node, message, hint):
    with pytest.raises(RequestError, match=message) as error:
        loggers.Loggers(node)
    assert hint in error.value.hint


def test_logger_yaml_files():
    folder = Path(__file__).parents[2] / "configs" / "logger"
    for path in folder.glob("*.yaml"):
        node = yaml.safe_load(path.read_text())
        assert node.pop("log_every") == 50
        assert list(loggers.Loggers(node).each) == ([] if path.stem == "jsonl" else [path.stem])


# the real ones -----------------------------------------------------------------------------------------------------------


def real(cli, name: str, *more: str) -> Path:
    """A run with a logger, gone on with, and measured."""
    words = [f"logger={name}", "logger.log_every=2", *more]
    result = cli("pretrain", *words, *SMOKE)
    assert result.code == 0, result.err
    assert "left out" not in result.err, result.err
    for again in (cli("resume", "latest", "train.steps=8"), cli("eval", "probe")):
        assert again.code == 0, again.err
        assert "left out" not in again.err, again.err
    (run,) = (p for p in Path("runs").iterdir() if not p.is_symlink())
    return run


def quiet_import(name: str) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip(name)


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_round_trip(cli):
    quiet_import("tensorboard")
    run = real(cli, "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == [2, 4, 6, 8]
    losses = [m["train/loss"] for m in Run(run).metrics if "train/loss" in m]
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx(losses)
    (top1,) = events.Scalars("eval/probe/top1")
    assert top1.step == 8
    assert top1.value == pytest.approx(Run(run).evals["probe"]["numbers"]["top1"])
    assert events.Images("eval/probe/confusion")


@pytest.mark.filterwarnings("ignore")
def test_mlflow_round_trip(cli, monkeypatch, tmp_path):
    quiet_import("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    uri = (tmp_path / "store").as_uri()
    run = real(cli, "mlflow", f"logger.mlflow.uri={uri}")
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    there = client.get_run(json.loads((run / "loggers.json").read_text())["mlflow"]["run_id"])
    assert [m.step for m in client.get_metric_history(there.info.run_id, "train/loss")] == [2, 4, 6, 8]
    assert there.data.metrics["eval/probe/top1"] == pytest.approx(Run(run).evals["probe"]["numbers"]["top1"])
    assert there.data.params["train.batch_size"] == "32"
    assert there.info.status == "FINISHED"
    assert [f.path for f in client.list_artifacts(there.info.run_id, "eval/probe")] == [
        "eval/probe/probe_confusion.png"
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_writes_files(cli, monkeypatch):
    quiet_import("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = real(cli, "wandb")
    own = json.loads((run / "loggers.json").read_text())["wandb"]["id"]
    files = list((run / "wandb").glob(f"offline-run-*-{own}/run-{own}.wandb"))
    assert len(files) == 3  # begun, gone on with, measured
