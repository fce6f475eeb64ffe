"""Commands that are printed about a run work when they are pasted into a shell.

1. An override as Hydra records it survives the shell and the command line.
2. The command that starts a new run from the weights of another has its method, data and backbone.
3. Code of a --config-dir: every command names the folder, and a run folder alone makes no code importable.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from sslcli.cli.arguments import quote_path
from sslcli.config import instantiate, registry
from sslcli.config.overrides import as_typed
from sslcli.errors import command
from sslcli.report.write import write_report
from sslcli.runs.find import config_dirs, find, restart_command
from sslcli.runs.listing import next_step
from sslcli.runs.run import Run
from tests.conftest import SMOKE, killed_when_saved

METHOD = """
from sslcli.methods.simclr import SimCLR


class Mine(SimCLR):
    pass
"""


@pytest.mark.parametrize(
    ("recorded", "typed"),
    [
        (r"dataset.path=my\ imgs", "dataset.path=my imgs"),
        (r"init=a\,b\(1\)", "init=a,b(1)"),
        ("dataset.path='a,b'", "dataset.path='a,b'"),
        (r"dataset.name=a\ b", r"dataset.name=a\ b"),
        (r"+dataset.path=a\=b", "+dataset.path=a=b"),
        ("seed=1", "seed=1"),
    ],
)
def test_recorded_override_as_typed(recorded, typed):
    assert as_typed(recorded) == typed


@pytest.mark.parametrize(
    ("modality", "classes", "evaluator"),
    [("interactions", 0, "recommend"), ("interactions", 2, "probe"), ("image", 0, "quality"), ("image", 2, "probe")],
)
def test_next_step_is_an_evaluator_of_the_data(tmp_path, modality, classes, evaluator):
    (tmp_path / "encoder.json").write_text(json.dumps({"modality": modality, "facts": {"classes": classes}}))
    (tmp_path / "config.yaml").write_text("method: {_target_: sslcli.methods.simclr.SimCLR}")
    assert f"eval {evaluator} run=" in next_step(Run(tmp_path))


def read_by_hydra(override: str) -> object:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(quote_path(override, multirun=False)).value()


def test_excluded_samples_of_any_file_name():
    *_, word = shlex.split(command("pretrain", "dataset.exclude=my audit, 1.csv"))
    assert str(read_by_hydra(word)) == "my audit, 1.csv"


@pytest.mark.parametrize("name", ["my imgs", "a,b", "a=b", "a(1)", "it's"])
def test_path_of_a_sweep_survives_shell_and_hydra(name):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    swept = OverridesParser.create().parse_override(
        "dataset.path=" + repr(name).replace('"it\'s"', r"'it\'s'") + ",other"
    )
    recorded = f"dataset.path={next(iter(swept.sweep_string_iterator()))}"
    (word,) = shlex.split(shlex.join([as_typed(recorded)]))
    assert str(read_by_hydra(word)) == name


def hint_of(text: str, word: str) -> list[str]:
    """The words after `sslcli` of the command `word` in an error."""
    found = re.search(rf"sslcli ({word} .*)", text)
    assert found, text
    return shlex.split(found[1])


def test_hint_of_a_refused_change_starts_the_same_run(cli, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "my data.npz", x=rng.random((40, 1, 8, 8)).astype(np.float32))
    words = ["method=mae", "dataset=arrays", "dataset.path=my data.npz", "backbone=vit_tiny", "train.batch_size=8"]
    short = ["train.steps=2", "device=cpu", "device.threads=1", "evaluator=online", "train.save_every=1"]
    with killed_when_saved(1):
        cli("pretrain", *words, *short)
    refused = cli("resume", "latest", "train.batch_size=4")
    assert refused.code == 2
    again = hint_of(refused.err, "pretrain")
    assert again == ["pretrain", "init=latest", *words[:-1], *short, "train.batch_size=4"]
    started = cli(*again, "--dry-run")
    assert started.code == 0, started.err


def test_restart_after_init_names_the_backbone(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(
        "- method=simclr\n- init=timm:x\n- resume=auto\n- backbone.width=4\n"
    )
    backbone = registry.describe(registry.choices("backbone")["convnet"], "backbone") | {"width": 8}
    (tmp_path / "encoder.json").write_text(json.dumps({"backbone": backbone}))
    words = shlex.split(restart_command(tmp_path, "r", "method=byol"))
    assert words[:4] == ["sslcli", "pretrain", "init=r", "backbone=convnet"]
    assert "backbone.width=8" in words
    assert words[-1] == "method=byol"
    assert not {"method=simclr", "init=timm:x", "resume=auto", "backbone.width=4"} & set(words)


def test_export_names_method_data_and_backbone(cli):
    assert cli("pretrain", *SMOKE, "method=byol").code == 0
    exported = cli("export", "latest", "out=enc")
    again = hint_of(exported.err, "pretrain")
    assert again == ["pretrain", "init=enc", *SMOKE, "method=byol"]
    started = cli(*again, "--dry-run")
    assert started.code == 0, started.err


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A method in a folder with a space; trusted in this test alone."""
    folder = tmp_path / "mine pkg"
    (folder / "method").mkdir(parents=True)
    (folder / "own_simclr.py").write_text(METHOD)
    shipped = yaml.safe_load((registry.config_dir() / "method" / "simclr.yaml").read_text())
    shipped["method"]["_target_"] = "own_simclr.Mine"
    (folder / "method" / "mine.yaml").write_text("# @package _global_\n" + yaml.safe_dump(shipped))
    monkeypatch.setattr(instantiate, "_folders", [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    return folder


def test_commands_name_the_config_dir(cli, folder, monkeypatch):
    given = ("--config-dir", "mine pkg")
    with killed_when_saved(2):
        cli("pretrain", *SMOKE, *given, "method=mine", "train.save_every=1")
    run = find("latest")
    assert config_dirs(run) == ["mine pkg"]
    page = re.sub(r"<[^>]*>", "\n", write_report(run).read_text()).replace("&#x27;", "'").replace("&#39;", "'")
    assert "method=mine train.save_every=1 --config-dir 'mine pkg'" in page
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps(status | {"status": "interrupted"}))
    shown = cli("runs", "show", "latest")
    assert hint_of(shown.err, "resume") == ["resume", run.name, *given]

    monkeypatch.setattr(instantiate, "_folders", [])  # as a new process
    sys.modules.pop("own_simclr", None)
    refused = cli("resume", "latest")
    assert refused.code == 2
    assert "own_simclr.Mine is not allowed" in refused.err
    assert "own_simclr" not in sys.modules  # the run folder alone makes nothing importable
    again = hint_of(refused.err, "resume")
    assert again == ["resume", "latest", *given]
    assert cli(*again).code == 0


def test_no_command_names_a_folder_of_code_in_the_run_itself(tmp_path, monkeypatch):
    """It would be executed when the command is pasted, and a run may come from anyone."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "given"
    (run / "code").mkdir(parents=True)
    (tmp_path / "link").symlink_to(run / "code")
    (tmp_path / "mine").mkdir()
    recorded = [run / "code", run, tmp_path / "link", tmp_path / "mine"]
    (run / "status.json").write_text(json.dumps({"status": "done", "config_dirs": [str(f) for f in recorded]}))
    assert config_dirs(run) == ["mine"]
