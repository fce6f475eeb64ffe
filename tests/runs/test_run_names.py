"""Names of runs: what a `next` line names is found, and a mistyped name leads to no run of other data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sslcli.errors import RequestError
from sslcli.runs.find import all_runs, find, short_name
from tests.conftest import SMOKE


def made(path: str, created: str = "2026-01-01") -> Path:
    folder = Path(path)
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(json.dumps({"status": "done", "created": created}))
    return folder


@pytest.fixture(autouse=True)
def there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def next_words(err: str) -> list[str]:
    import shlex

    (line,) = [line for line in err.splitlines() if line.startswith("next  ")]
    return shlex.split(line)[2:]


@pytest.mark.parametrize(
    "folder",
    ["runs/a_simsiam_convnet_digits", "runs/sweep/S/0_x", "runs/mine/0_x", "runs/mine/S/0_x", "else where/0_x"],
)
def test_find_short_name(tmp_path, folder):
    made(folder)
    made("runs/other")
    assert find(short_name(Path(folder))).resolve() == (tmp_path / folder).resolve()


def test_next_line_unusual_run_names(cli, tmp_path):
    """What a `next` line says leads to this run, as a word and as the value of a key."""
    run = tmp_path / cli("pretrain", *SMOKE, "hydra.run.dir=runs/first").last
    (tmp_path / "runs" / "latest").unlink()
    made("runs/newer", "2999-01-01")
    for name in ("none", "latest", "-x", "null", "true", "nan", "a=1,b=2", "[0] {x}", "it's", "123"):
        run = run.rename(tmp_path / "runs" / name)
        words = next_words(cli("resume", f"runs/{name}").err)
        assert words[:2] == ["eval", "probe"]
        assert cli("resume", words[2].removeprefix("run=")).last == f"runs/{name}"
        assert cli("eval", "knn", *words[2:], "device=cpu", "evaluator.baselines=false").code == 0
        assert (run / "eval" / "knn.json").is_file(), name
        (run / "eval" / "knn.json").unlink()


def test_short_name_shadowed_by_local_run(tmp_path):
    made("twin")
    assert find(short_name(made("runs/twin"))) == Path("runs/twin")


def test_next_line_encoder_named_null(cli):
    cli("pretrain", *SMOKE)
    words = next_words(cli("export", "latest", "out=null").err)
    dry = cli(*words, *SMOKE, "--dry-run")
    assert "init ./null: all weights of the backbone" in dry.err


def test_eval_run_none_beside_run_named_none(cli):
    made("runs/none")
    assert "run=runs/none" in cli("eval", "knn", "run=none", "--dry-run").err


def test_all_runs_of_every_depth(cli, tmp_path):
    for i, folder in enumerate(["runs/a", "runs/mine/b", "runs/sweep/S/0_c"]):
        made(folder, f"2026-01-0{i + 1}")
    (tmp_path / "runs" / "latest").symlink_to("a")
    made("runs/a/eval/checkpoints/x")  # inside a run there is none
    assert [str(p) for p in all_runs()] == ["runs/a", "runs/mine/b", "runs/sweep/S/0_c"]
    assert find("latest") == Path("runs/sweep/S/0_c")
    assert [line.split()[0] for line in cli("runs").out.splitlines()[1:]] == ["a", "mine/b", "sweep/S/0_c"]


def test_find_ambiguous_name_in_two_sweeps():
    made("runs/sweep/A/0_simsiam_convnet_digits")
    second = made("runs/sweep/B/0_simsiam_convnet_digits")
    with pytest.raises(RequestError, match="fits 2 runs: sweep/A/0_simsiam_convnet_digits, sweep/B/0_simsiam"):
        find("0_simsiam")
    assert find("sweep/B/0") == second
    assert find("B/0") == second


def test_find_suggests_no_run_of_other_data():
    made("runs/2026-01-01_10-00-00-000000_simsiam_convnet_digits")
    with pytest.raises(RequestError) as e:
        find("2026-01-01_10-00-00-000001_simsiam_convnet_photos")
    assert "did you mean" not in (e.value.hint or "")
    with pytest.raises(RequestError) as e:
        find("2026-01-01_10-00-00-000001_simsiam_convnet_digits")
    assert "digits`" in (e.value.hint or "")


def test_next_line_unlabelled_run(cli):
    np.save("x.npy", np.random.default_rng(0).integers(0, 255, (64, 8, 8, 1), dtype=np.uint8))
    trained = cli("pretrain", *SMOKE, "dataset=arrays", "dataset.path=x.npy")
    words = next_words(trained.err)
    assert words[:2] == ["eval", "quality"]
    assert cli(*words, "evaluator.baselines=false", "device=cpu").code == 0
    assert next_words(cli("resume", "latest").err) == words


def test_next_line_sweeps_and_external_runs(cli, tmp_path):
    swept = cli("pretrain", "-m", *SMOKE, "seed=0", "hydra.sweep.dir=runs/my sweep", "hydra.sweep.subdir=a b")
    assert next_words(swept.err) == ["eval", "probe", "run=my sweep/a b"]
    away = cli("pretrain", *SMOKE, f"hydra.run.dir={tmp_path}/away")
    assert next_words(away.err) == ["eval", "probe", f"run={tmp_path}/away"]
    for words in (next_words(swept.err), next_words(away.err)):
        assert cli(*words, "--dry-run").code == 0
    assert away.last in ("away", str(tmp_path / "away"))


def test_interrupted_start_writes_no_encoder(cli, monkeypatch):
    from sslcli.training.loop.trainer import Trainer

    class Ended(BaseException):
        pass

    def step(self, *args):
        assert list(self.run.path.glob("checkpoints/step-0000000000"))
        assert not list(self.run.path.glob("encoder.*"))
        raise Ended

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(Ended):
            cli("pretrain", *SMOKE)
    refused = cli("eval", "knn")
    assert refused.code == 4
    assert "has no encoder yet" in refused.err
    assert cli("resume", "latest").code == 0
    assert len(list(Path("runs").glob("2*/encoder.*"))) == 2


def test_select_latest_is_newest_run(cli, tmp_path):
    cli("pretrain", *SMOKE)
    cli("export", "latest", "out=latest")
    assert cli("select", "latest", "evaluator.samples=100").code == 0


def test_resume_unknown_key_suggestion(cli):
    cli("pretrain", *SMOKE)
    refused = cli("resume", "latest", "train.stepz=3")
    assert (refused.code, "did you mean `train.steps`?" in refused.err) == (2, True)
