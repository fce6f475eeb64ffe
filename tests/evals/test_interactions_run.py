"""Evaluators, predictions, embeddings, pages and reports of small runs on histories of users."""

from __future__ import annotations

import contextlib
import csv
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Result

SMALL = [
    "dataset=sessions",
    "dataset.users=120",
    "dataset.items=18",
    "dataset.max_length=10",
    "device=cpu",
    "device.threads=1",
]
TINY = ["backbone.width=16", "train.epochs=3", "train.batch_size=32"]
OPTIONS = {  # of evaluators
    "recommend": "evaluator.max_users=40",
    "probe": "labels=4/class",
    "knn": "",
    "finetune": "labels=4/class evaluator.epochs=1 evaluator.min_steps=3",
    "labels": "evaluator.amounts=[2] evaluator.seeds=1 evaluator.supervised=false",
    "anomaly": "evaluator.scores=[knn]",
    "cluster": "evaluator.k_max=3",
    "retrieval": "",
    "quality": "",
    "robustness": "evaluator.max_samples=8 evaluator.baselines=false",
    "explain": "evaluator.samples=4",
    "attentive": "evaluator.epochs=1 evaluator.min_steps=3 evaluator.lr=0.001 evaluator.baselines=false",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run of sasrec, then one of bert4rec."""
    from sslcli.cli import main

    folder = tmp_path_factory.mktemp("interactions")
    with contextlib.chdir(folder):
        for method in ("sasrec", "bert4rec"):
            assert main(["pretrain", f"method={method}", *SMALL, *TINY]) == 0
    return folder


@pytest.fixture
def trained(made, cli, tmp_path) -> Callable[..., Result]:
    """The command line in a copy of that folder."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cli


def run_of(method: str, tmp_path: Path) -> str:
    return str(next((tmp_path / "runs").glob(f"*_{method}_*")))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_recommendation_reports_the_items_that_are_held_out(cli):
    data = ["run=none", "dataset.holdout=0", "backbone=sasrec", "augmentation=interactions", *SMALL, *TINY[:1]]
    result = cli("eval", "recommend", *data, "evaluator.max_users=20", "evaluator.baselines=false")
    assert result.code == 0, result.err
    assert "no samples are held out" not in result.err
    assert "sessions: 120 users; the last item of each user is the test" in result.err
    result = cli("eval", "quality", *data, "evaluator.points=20")
    assert result.err.count("no samples are held out: all 120 are evaluated") == 1
    assert "120 train, 0 test" in result.err


def test_evaluators_and_report(trained, tmp_path):
    run = f"run={run_of('sasrec', tmp_path)}"
    for name, options in OPTIONS.items():
        result = trained("eval", name, run, *shlex.split(options))
        assert result.code == 0, (name, result.err)
    report = trained("runs", "report", run_of("sasrec", tmp_path))
    assert report.code == 0, report.err
    page = (tmp_path / report.last).read_text(encoding="utf-8")
    assert "gardener 1" in page
    assert "last items" in page  # the table of recommendations


def test_bert4rec_reconstructs_and_fills(trained, tmp_path):
    run = f"run={run_of('bert4rec', tmp_path)}"
    for name, metric in (("reconstruct", "error_rate"), ("fill", "accuracy"), ("recommend", "ndcg@10")):
        result = trained("eval", name, run, "--json")
        assert result.code == 0, (name, result.err)
        assert metric in json.loads(result.out)["numbers"], name
    refused = trained("eval", "fill", run, "text=cook [MASK]")
    assert refused.code == 2


def test_next_items_of_users_in_files(trained, tmp_path):
    rows = [
        ("zoe", "cook 1", 1),
        ("zoe", "coffee", 2),
        ("zoe", "cook 3", 3),
        ("=amy", "reader 1", 1),
        ("kim", "coffee", 1),
    ]
    (tmp_path / "new.csv").write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    (tmp_path / "more.csv").write_text("user,item,time\nbob,cook 2,1\n")
    run = run_of("sasrec", tmp_path)
    result = trained("predict", run, "new.csv", "more.csv", "k=3", "out=next.csv")
    assert result.code == 0, result.err
    assert "2 events of 1 item that the encoder does not know" in result.err
    assert "1 user without an item that the encoder knows left out: kim" in result.err
    found = rows_of(tmp_path / "next.csv")
    assert [(r["user"], r["rank"]) for r in found] == [(u, str(i)) for u in ("zoe", "'=amy", "bob") for i in (1, 2, 3)]
    assert not {r["item"] for r in found if r["user"] == "zoe"} & {"cook 1", "cook 3"}
    kept = trained("predict", run, "new.csv", "k=18", "seen=keep", "--json")
    parsed = [json.loads(line) for line in kept.out.splitlines()]
    assert len({row["item"] for row in parsed if row["user"] == "zoe"}) == 18
    assert sum(row["score"] for row in parsed if row["user"] == "zoe") == pytest.approx(1, abs=1e-4)
    best = [row["score"] for row in parsed if row["user"] == "zoe"]
    assert best == sorted(best, reverse=True)


def test_next_items_of_the_run(trained, tmp_path):
    run = run_of("bert4rec", tmp_path)
    result = trained("predict", run, "k=2", "out=all.csv")
    assert result.code == 0, result.err
    assert len(rows_of(tmp_path / "all.csv")) == 240
    assert trained("predict", run, "k=2", "split=test", "out=test.csv").code == 0
    assert len(rows_of(tmp_path / "test.csv")) == 48


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["k=0"], "positive integer"),
        (["seen=all"], "seen=all"),
        (["threshold=0.5"], "from=probe"),
        (["from=probe"], "no classifier of eval probe"),
        (["none.csv"], "no file none.csv"),
    ],
)
def test_bad_predictions_are_refused(trained, tmp_path, words, message):
    result = trained("predict", run_of("sasrec", tmp_path), *words)
    assert result.code == 2, result.err
    assert message in result.err


def test_items_and_histories_are_embedded(trained, tmp_path):
    from safetensors.torch import load_file

    run = run_of("sasrec", tmp_path)
    assert trained("embed", run, "pool=items", "out=items.npz").code == 0
    items = np.load(tmp_path / "items.npz", allow_pickle=False)
    weights = load_file(Path(run) / "encoder.safetensors")["embeddings.word_embeddings.weight"].numpy()
    assert items["id"].tolist()[:2] == ["cook 1", "cook 2"]
    assert set(items["path"].tolist()) == {""}
    assert "title" not in items
    assert np.array_equal(items["vector"], weights[2:])
    assert trained("search", "items.npz", "cook 1", "k=2").code == 0
    assert trained("embed", run, "out=users.npz").code == 0
    users = np.load(tmp_path / "users.npz", allow_pickle=False)
    assert users["vector"].shape == (120, 16)
    part, _, name = str(users["id"][0]).partition("/")
    assert f"did you mean {part}/{name}?" in trained("search", "users.npz", name).err
    assert trained("embed", run, "new.csv", "pool=items", "out=x.npz").code == 2
    wrong = trained("embed", cli_run(trained), "pool=items", "out=y.npz")
    assert wrong.code == 2
    assert "pool=items: the backbone ConvNet has no tokens" in wrong.err


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_items_are_searched_and_shown_by_titles(cli, tmp_path, ending):
    rows = [(f"u{u}", f"i{(u + t) % 6}", t) for u in range(12) for t in range(4)]
    (tmp_path / "events.csv").write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    titles = {"i0": "Green tea", "i1": "<b>Black tea", "i2": "Cup", "i3": "cup"}
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"{i},{t}\n" for i, t in titles.items()))
    data = ["dataset=interactions", "dataset.path=events.csv", "dataset.items=items.csv", "dataset.max_length=4"]
    run = cli("pretrain", "method=sasrec", *data, *SMALL[-2:], TINY[0], "train.steps=1", "train.batch_size=8").last
    assert cli("embed", run, "pool=items", f"out=items{ending}").code == 0
    by_id, by_title = (cli("search", f"items{ending}", query, "k=5", "--json") for query in ("i0", "green TEA"))
    assert by_id.code == by_title.code == 0
    assert by_id.out == by_title.out
    (query,) = json.loads(by_id.out)["queries"]
    assert (query["query"], query["title"]) == ("i0", "Green tea")
    assert {n["id"]: n["title"] for n in query["neighbors"]} | {"i0": "Green tea"} == {**titles, "i4": "", "i5": ""}
    result = cli("search", f"items{ending}", "i0", "k=5", "page=near.html", *SMALL[-2:])
    assert [line.split()[0] for line in result.out.splitlines()] == ["query", *["i0:"] * 5]
    assert "<b>Black tea" in result.out
    page = (tmp_path / "near.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;Black tea" in page
    assert "i0: Green tea" in page
    for query, message in (("CUP", "2 samples have the title CUP"), ("Green te", "there is no item Green te")):
        refused = cli("search", f"items{ending}", query)
        assert refused.code == 2
        assert message in refused.err
    assert "did you mean Green tea?" in refused.err
    assert cli("search", f"items{ending}", "events.csv").code == 2  # histories are no items


def cli_run(cli: Callable[..., Result]) -> str:
    """A run on images."""
    return cli(
        "pretrain", "experiment=smoke", "device=cpu", "device.threads=1", "backbone.width=8", "train.steps=1"
    ).last


def test_export_reads_back(trained, tmp_path):
    from sslcli import api

    run = run_of("sasrec", tmp_path)
    result = trained("export", run, "format=sslcli", "out=model")
    assert result.code == 0, result.err
    histories = [["cook 1", "cook 2", "reader 1"], ["gardener 4"], []]
    first, second = (api.load(where).embed(histories) for where in (run, tmp_path / "model"))
    assert np.array_equal(first, second)
    assert not np.array_equal(first[0], first[1])


def test_audit_pick_and_preview(trained, tmp_path):
    assert trained("data", "audit", *SMALL[:4], "out=audit.csv").code == 0
    assert trained("data", "preview", *SMALL[:4], "method=simclr", "out=views.png").code == 0
    picked = trained("pick", run_of("sasrec", tmp_path), "n=4", "page=pick.html", "out=pick.csv")
    assert picked.code == 0, picked.err
    assert len(rows_of(tmp_path / "pick.csv")) == 4


def test_cl4srec_and_resume(cli, tmp_path):
    """Both objectives on one backbone; a resumed run is bit-identical to one that was not interrupted."""
    from safetensors.torch import load_file

    words = ["experiment=cl4srec", *SMALL, *TINY]
    whole = cli("pretrain", *words)
    assert whole.code == 0, whole.err
    part = cli("pretrain", *words, "train.epochs=2", "schedule=constant")
    again = cli("pretrain", *words, "schedule=constant")
    resumed = cli("resume", part.last, "train.epochs=3")
    assert resumed.code == 0, resumed.err
    a, b = (load_file(Path(r.last) / "encoder.safetensors") for r in (again, resumed))
    assert all((a[key] == b[key]).all() for key in a)
    result = cli("eval", "recommend", f"run={whole.last}", "--json", "evaluator.max_users=20")
    assert "own scores" in json.loads(result.out)["protocol"]["scores"]
