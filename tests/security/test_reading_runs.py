"""Reading a run or data from anyone runs nothing of theirs and connects to nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from sslcli.backbones.timm_model import TimmModel
from sslcli.backbones.torchvision_model import TorchvisionModel
from sslcli.errors import RequestError
from sslcli.runs.environment import head_commit
from tests.conftest import SMOKE
from tests.security.conftest import edit


@pytest.fixture
def mlflow(monkeypatch) -> list[str | None]:
    """A package `mlflow` that notes which servers it is pointed at."""
    servers: list[str | None] = []

    class Client:
        def __init__(self, uri: str | None):
            servers.append(uri)

        def __getattr__(self, name: str) -> Any:
            made = types.SimpleNamespace(info=types.SimpleNamespace(run_id="1"), experiment_id="2")
            return lambda *args, **given: made

    for name, entries in {
        "mlflow": {"MlflowClient": Client},
        "mlflow.entities": {"Param": tuple, "Metric": tuple},
    }.items():
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        vars(sys.modules[name]).update(entries)
    sys.modules["mlflow.entities"].Param = sys.modules["mlflow.entities"].Metric = lambda *a: a  # type: ignore[attr-defined]
    return servers


EVIL = "http://collector.example:5000"


def test_eval_sends_nothing_to_the_server_of_a_run(cli, run, mlflow, offline):
    edit(run, "logger", mlflow={"uri": EVIL}, wandb={"project": "x"})
    result = cli("eval", "knn", f"run={run}")
    assert result.code == 0, result
    assert "logger=mlflow sends these results there" in result.err
    assert mlflow == offline == []
    assert cli("eval", "knn", f"run={run}", "logger=mlflow", "logger.mlflow.uri=http://mine").code == 0
    assert mlflow == ["http://mine"]


def test_resume_asks_for_the_server_of_a_run(cli, run, mlflow, monkeypatch):
    edit(run, "logger", mlflow={"uri": EVIL})
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    refused = cli("resume", str(run))
    assert refused.code == 2, refused
    assert f"logger.mlflow.uri={EVIL}" in refused.err
    assert mlflow == []
    assert cli("resume", str(run), f"logger.mlflow.uri={EVIL}").code == 0
    assert mlflow == [EVIL]


def test_eval_downloads_nothing_for_a_run(cli, run, tmp_path, offline):
    choices = Path(__file__).parents[2] / "configs" / "dataset" / "cifar10.yaml"
    node = yaml.safe_load(choices.read_text())
    edit(run, "dataset", **{**node, "download": True, "path": str(tmp_path / "data")})
    result = cli("eval", "knn", f"run={run}")
    assert result.code in (2, 7), result
    assert offline == []
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("group", ["dataset", "method", "backbone", "optimizer", "schedule", "evaluator"])
def test_config_of_a_run_names_an_unpickling_function(group, cli, run, tmp_path):
    pytest.importorskip("timm")
    import torch

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/owned",)

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    attack = {"checkpoint_path": str(tmp_path / "evil.pt"), "weights_only": False}
    edit(run, group, _target_="timm.models.load_state_dict", **attack)
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "status": "interrupted"}))
    assert cli("resume", str(run)).code == 2
    if group in ("dataset", "backbone"):
        info = json.loads((run / "encoder.json").read_text())
        info["backbone"] = {"_target_": "timm.models.load_state_dict", **attack}
        (run / "encoder.json").write_text(json.dumps(info))
        assert cli("eval", "knn", f"run={run}").code == 2
    assert not (tmp_path / "owned").exists()


NAMES = ["hf-hub:timm/resnet18", "hf_hub:a/b", "local-dir:/etc", "resnet18.a1_in1k:x", "a/resnet18", "resnet18.x/../y"]


@pytest.mark.parametrize("name", NAMES)
def test_backbone_names_of_a_hub_or_folder_are_refused(name, offline):
    pytest.importorskip("timm")
    with pytest.raises(RequestError, match="no model named"):
        TimmModel((3, 32, 32), name)
    with pytest.raises(RequestError, match="no classifier named"):
        TorchvisionModel((3, 32, 32), name)
    assert offline == []


# ------------------------------------------------------------------------------------------------ git


@pytest.fixture
def repository(tmp_path):
    if shutil.which("git") is None:
        pytest.skip("no git here")

    def git(*words: str, cwd: Path = tmp_path) -> str:
        name = ["-c", "user.email=a@b.c", "-c", "user.name=x"]
        return subprocess.run(
            ["git", *name, *words], cwd=cwd, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    return git


def test_commands_of_a_git_config_are_not_run(cli, repository, tmp_path):
    commit = repository("rev-parse", "HEAD")
    (tmp_path / "f").write_text("x")
    repository("add", "f")
    repository("config", "core.fsmonitor", f"touch {tmp_path}/owned; false #")
    result = cli("pretrain", *SMOKE, "train.steps=1")
    assert result.code == 0, result
    assert json.loads((Path(result.last) / "status.json").read_text())["git"] == commit
    assert not (tmp_path / "owned").exists()


def test_commit_is_what_git_says(repository, tmp_path):
    commit = repository("rev-parse", "HEAD")
    (tmp_path / "below").mkdir()
    assert head_commit(tmp_path / "below") == commit
    repository("pack-refs", "--all")
    assert head_commit(tmp_path) == commit
    repository("worktree", "add", "-q", "-b", "side", "tree")
    repository("commit", "-q", "--allow-empty", "-m", "y", cwd=tmp_path / "tree")
    assert head_commit(tmp_path / "tree") == repository("rev-parse", "HEAD", cwd=tmp_path / "tree") != commit
    repository("checkout", "-q", "--detach")
    assert head_commit(tmp_path) == commit


@pytest.mark.parametrize(
    "head", ["ref: refs/../../secret", "secret", "ref: refs/heads/x", "ref: /etc/passwd", "\0" * 5000]
)
def test_a_git_folder_that_lies_tells_nothing(head, tmp_path):
    (tmp_path / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "secret").write_text("not a commit")
    (tmp_path / ".git" / "refs" / "heads" / "x").symlink_to(tmp_path / "secret")
    (tmp_path / ".git" / "HEAD").write_text(head)
    assert head_commit(tmp_path) is None


def test_a_fifo_in_a_git_folder_is_not_waited_for(tmp_path):
    (tmp_path / ".git").mkdir()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    assert head_commit(tmp_path) is None
    shutil.rmtree(tmp_path / ".git")
    os.mkfifo(tmp_path / ".git")
    assert head_commit(tmp_path) is None
