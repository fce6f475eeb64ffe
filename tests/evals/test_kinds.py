"""docs/reference/kinds_of_data.md: each evaluator and command on each kind of data, by one small run of each kind."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sslcli.config.modalities import modalities
from sslcli.evals.base.info import evaluator_infos
from tests.conftest import SMOKE, Result
from tests.evals import test_audio_run, test_frames_run, test_interactions_run, test_pairs_run, test_text_run

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "kinds_of_data.md"
SMALL = "backbone.width=16 backbone.depth=1 backbone.heads=2"
SHAPES = "dataset=shapes dataset.samples=116 dataset.test_samples=58 dataset.size=16"
RUNS = {  # a method that reconstructs or predicts hidden tokens, on a backbone with tokens
    "image": f"method=mae dataset=arrays dataset.path=images.npz backbone=vit_micro {SMALL} backbone.patch=2",
    "pairs": f"method=mae {SHAPES} backbone=vit_micro {SMALL} backbone.patch=4",
    "series": f"method=mae dataset=series dataset.path=waves.npz backbone=vit_micro {SMALL} backbone.patch=8",
    "table": f"method=mae dataset=wine backbone=ft_transformer {SMALL}",
    "text": f"method=mlm dataset=text_table dataset.path=films.csv dataset.max_length=24 {SMALL}",
    "audio": f"method=mae dataset=tones dataset.samples=60 backbone=vit_micro {SMALL} backbone.patch=8",
    "interactions": f"method=bert4rec dataset=sessions dataset.users=60 dataset.items=18 {SMALL}",
    "frames": f"method=mae {test_frames_run.DATA} backbone=clip_vit {SMALL} backbone.patch=8",
}
OTHERS = {  # data that a run was not trained on
    "image": "dataset.path=more_images.npz",
    "pairs": "dataset.combinations=unseen",
    "series": "dataset.path=more_waves.npz",
    "table": "dataset.split_seed=1",
    "text": "dataset.path=more_films.csv",
    "audio": "dataset.split_seed=1",
    "interactions": "dataset.split_seed=1",
    "frames": "dataset.test_samples=24",
}
QUICK = {  # settings that make an evaluator quick
    "probe": "labels=2/class",
    "finetune": "labels=2/class evaluator.epochs=1 evaluator.min_steps=3",
    "labels": "evaluator.amounts=[2] evaluator.seeds=1 evaluator.supervised=false",
    "attentive": "labels=2/class evaluator.epochs=1 evaluator.min_steps=3 evaluator.lr=0.001 evaluator.baselines=false",
    "anomaly": "evaluator.scores=[knn]",
    "cluster": "evaluator.k_max=3",
    "quality": "evaluator.samples=40 evaluator.points=20 evaluator.groups=8 evaluator.views=2",
    "robustness": "evaluator.max_samples=8 evaluator.baselines=false",
    "explain": "evaluator.samples=4",
    "reconstruct": "evaluator.max_samples=20",
    "fill": "evaluator.max_samples=20",
    "recommend": "evaluator.max_users=20",
}
ELSEWHERE = {  # evaluators that another test runs on the kind
    "text": set(evaluator_infos()) - {"forecast", "recommend", "zeroshot"},
    "audio": set(test_audio_run.OPTIONS),
    "frames": set(test_frames_run.OPTIONS),
    "interactions": set(test_interactions_run.OPTIONS),
    "pairs": set(test_pairs_run.OPTIONS),
}
assert test_text_run.OPTIONS


def table() -> dict[tuple[str, str], str]:
    """(row, kind) -> cell, of the page."""
    lines = [
        line.strip("|").split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")
    ]
    kinds, out = [cell.strip() for cell in lines[0][1:]], {}
    for head, *cells in lines[2:]:
        for kind, cell in zip(kinds, cells, strict=True):
            for name in re.findall(r"`(?:eval )?(\w+)`", head):
                out[name, kind] = cell.strip()
    return out


CELLS = table()


def test_page_names_every_evaluator_and_kind():
    assert {kind for _, kind in CELLS} == set(modalities()) == set(RUNS)
    assert {name for name, _ in CELLS} >= set(evaluator_infos())
    assert set(CELLS.values()) == {"yes", "–"}


def write(folder: Path, seed: int, prefix: str) -> None:
    """Images, series and texts of three classes."""
    rng, y = np.random.default_rng(seed), np.arange(60) % 3
    waves = np.sin(np.linspace(0, 6, 64) * (1 + y)[:, None, None]) + 0.1 * rng.normal(size=(60, 2, 64))
    np.savez(folder / f"{prefix}waves.npz", x=waves.astype(np.float32), y=y)
    images = rng.integers(0, 100, (60, 3, 8, 8)) + 60 * y[:, None, None, None]
    np.savez(folder / f"{prefix}images.npz", x=images.astype(np.uint8), y=y)
    words = (("good", "fine", "great"), ("bad", "poor", "dull"), ("odd", "long", "loud"))
    lines = [f"a {words[c][rng.integers(3)]} film number {rng.integers(9)},{c}" for c in y.tolist()]
    (folder / f"{prefix}films.csv").write_text("text,label\n" + "\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run of each kind, runs/KIND."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("kinds")
    for seed, prefix in enumerate(("", "more_")):
        write(folder, seed, prefix)
    with contextlib.chdir(folder):
        for kind, words in RUNS.items():
            typed = [w for w in SMOKE if not w.startswith("backbone.")]
            more = ["train.batch_size=16", "train.steps=2", "train.devices=1", f"hydra.run.dir=runs/{kind}"]
            assert main(["pretrain", *shlex.split(words), *typed, *more]) == 0, kind
    return folder


@pytest.fixture
def trained(made, cli, tmp_path) -> Callable[..., Result]:
    """The command line in a copy of that folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cli


def data_of(kind: str) -> list[str]:
    return [word for word in shlex.split(RUNS[kind]) if word.startswith("dataset")]


@pytest.mark.parametrize("kind", RUNS)
def test_evaluators(trained, kind):
    for name in evaluator_infos():
        applies = CELLS[name, kind] == "yes"
        if (applies and name in ELSEWHERE.get(kind, ())) or (kind, name) == ("series", "forecast"):
            continue  # series that are divided in time: tests/evals/test_forecast.py
        if (kind, name) == ("pairs", "zeroshot"):
            continue
        options = shlex.split(QUICK.get(name, ""))
        if name == "transfer":
            options += [*data_of(kind), OTHERS[kind]]
        result = trained("eval", name, f"run=runs/{kind}", *options)
        assert result.code == (0 if applies else 2), (name, result.err)
        assert applies or "hint:" in result.err, (name, result.err)


@pytest.mark.parametrize("kind", RUNS)
def test_commands(trained, tmp_path, kind):
    data = data_of(kind)
    steps = [
        ["runs", "report", f"runs/{kind}"],
        ["embed", f"runs/{kind}", "out=e.npz"],
        ["data", "audit", *data, "out=audit.csv"],
        ["pick", f"runs/{kind}", "n=4", "out=picks.csv"],
        ["export", f"runs/{kind}", "format=sslcli", "out=exported"],
    ]
    for words in steps:
        result = trained(*words)
        assert result.code == 0 or (words[0] == "data" and result.code == 1), (words, result.err)
    with np.load(tmp_path / "e.npz", allow_pickle=False) as file:
        name = file["id"].tolist()[0]
    assert trained("search", "e.npz", name, "k=2").code == 0
    if kind != "interactions":  # whose rows are the next items
        assert trained("eval", "probe", f"run=runs/{kind}", "labels=2/class").code == 0
    predicted = trained("predict", f"runs/{kind}", *data, "out=p.csv")
    assert predicted.code == 0, predicted.err
