"""sslcli as a process: imports, exit codes after signals, a closed pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    "argv", [["--help"], ["list", "methods"], ["runs"], ["pretrain", "--help"], ["completion", "query", "sslcli pre"]]
)
def test_fast_commands_import_no_torch(argv, tmp_path):
    code = (
        "import sys; from sslcli.cli import main; c = main(sys.argv[1:]);"
        "heavy = {'torch', 'hydra', 'omegaconf', 'numpy', 'sklearn', 'rich'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(c)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


def test_run_imports_no_compiler(tmp_path):
    """The import of each takes a second or more, half of the time to the first step."""
    code = (
        "import sys; from sslcli.cli import main; c = main(['pretrain', *sys.argv[1:]]);"
        "heavy = {'torch._dynamo', 'sympy', 'torchvision', 'sklearn', 'scipy', 'matplotlib', 'pandas', 'timm'} & set(sys.modules);"
        "assert not heavy, heavy; sys.exit(c)"
    )
    arguments = [
        "dataset=digits",
        "backbone=resnet18",
        "device=cpu",
        "train.epochs=null",
        "train.steps=1",
        "train.batch_size=4",
    ]
    arguments += ["train.eval_every=0"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_python_m_with_closed_pipe(tmp_path):
    done = subprocess.run([sys.executable, "-m", "sslcli", "--version"], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("sslcli ")
    for arguments in ("pretrain --help", "eval knn run=none evaluator.baselines=false device=cpu device.threads=1 -q"):
        piped = subprocess.run(
            f"{sys.executable} -m sslcli {arguments} | true",
            shell=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        assert piped.stderr == ""


@pytest.mark.parametrize("argv", [["data", "inspect"], ["runs"], ["list", "methods"], ["eval", "knn"]], ids=" ".join)
def test_sigterm_in_any_command(cli, monkeypatch, argv):
    def stopped(request_argv):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("sslcli.cli.entry_point.dispatch", stopped)
    result = cli(*argv)
    assert result.code == 75
    assert "error: stopped by SIGTERM" in result.err


@pytest.mark.slow
def test_ctrl_c_saves_the_run(cli, tmp_path):
    words = ["pretrain", "train.epochs=100000", "device=cpu", "device.threads=1", "backbone.width=8"]
    child = subprocess.Popen(
        [sys.executable, "-m", "sslcli", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("runs/2*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out == ""
    assert "hint: sslcli resume" in err
    assert "Traceback" not in err
    (run,) = tmp_path.glob("runs/2*")
    assert json.loads((run / "status.json").read_text())["status"] == "interrupted"
    evaluated = cli("eval", "knn", "-q", "device=cpu", "device.threads=1")
    assert evaluated.code == 0, evaluated.err  # an interrupted run can be evaluated
