"""Non-finite losses and gradients, and collapse: detected within a step or two checks, without effect on the state."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sslcli import optim
from sslcli.data.loading.loader import Loader
from sslcli.methods.base import Method
from sslcli.runs import checkpoint
from sslcli.runs.run import Run
from sslcli.training.loop import trainer

WORDS = [
    "dataset=digits",
    "backbone.width=4",
    "device=cpu",
    "device.threads=1",
    "train.steps=20",
    "train.batch_size=32",
    "train.eval_every=0",
    "train.save_every=1",
    "train.keep=100",
    "logger.log_every=1",
]


def newest_run() -> Path:
    return sorted(Path("runs").glob("2*"))[-1]


def poison_data(patch: pytest.MonkeyPatch, steps: range) -> None:
    """Set a pixel of the first view to NaN in these steps."""
    batches = Loader._batches

    def poisoned(self, step):
        made = batches(self, step)
        while True:
            batch = next(made)
            if step in steps:
                batch.views[0].view(-1)[5] = float("nan")
            step += 1
            yield batch

    patch.setattr(Loader, "_batches", poisoned)


def poison_gradient(patch: pytest.MonkeyPatch, steps: range) -> None:
    """Make the gradient NaN while the loss is finite: the square root of zero."""
    call, at = Method.__call__, [0]

    def poisoned(self, batch):
        out = call(self, batch)
        if self.training and torch.is_grad_enabled():
            if at[0] in steps:
                weight = next(p for p in self.parameters() if p.requires_grad)
                out = out | {"loss": out["loss"] + (weight * 0).sum().sqrt()}
            at[0] += 1
        return out

    patch.setattr(Method, "__call__", poisoned)


def events(run: Path, kind: str) -> list[dict]:
    return [e for t in (run / "events.jsonl").read_text().splitlines() if (e := json.loads(t))["event"] == kind]


@pytest.mark.parametrize(("poison", "what"), [(poison_data, "loss"), (poison_gradient, "gradient")])
@pytest.mark.parametrize("bad", [4, 0])
@pytest.mark.parametrize(
    "words",
    [
        ["method=moco_v2"],
        ["method=byol"],
        ["method=moco_v2", "+optimizer.fused=true", "train.clip=1"],  # the last three check as on a GPU
        ["method=byol", "optimizer=adamw", "optimizer.lr=1e-3", "+optimizer.fused=true"],
        ["method=byol", "optimizer=lars", "optimizer.lr=0.3"],
    ],
)
def test_nonfinite_step_leaves_no_trace(cli, monkeypatch, words, bad, poison, what):
    """A skipped step changes neither weights, teacher, optimizer state, batch statistics nor queue."""
    if len(words) > 1:
        monkeypatch.setattr(trainer, "can_defer_check", lambda setup, _: optim.supports_found_inf(setup.optimizer))
    poison(monkeypatch, range(bad, bad + 1))
    result = cli("pretrain", *words, *WORDS)
    assert result.code == 0, result.err
    run = Path(result.last)
    (event,) = events(run, "non-finite")
    assert (event["step"], event["what"]) == (bad, what)
    by_step = {int(p.name[5:]): checkpoint.load(p) for p in checkpoint.existing(run / "checkpoints")}
    assert set(by_step) == set(range(21))
    before, after = by_step[bad][0], by_step[bad + 1][0]
    for name, group in before.items():
        assert set(group) == set(after[name])
        for key, value in group.items():
            assert torch.equal(value, after[name][key]), f"{name} {key}"
    next_one = by_step[bad + 2][0]["model"]
    assert any(not torch.equal(v, next_one[k]) for k, v in after["model"].items())  # training continues
    if "method=moco_v2" in words:
        assert int(by_step[20][0]["model"]["queue.head"]) == 19 * 32
    assert all(bool(torch.isfinite(v).all()) for g in by_step[20][0].values() for v in g.values())
    assert by_step[20][1]["skipped"] == 1
    assert by_step[20][1]["skipped_in_a_row"] == 0


@pytest.mark.parametrize(("poison", "what"), [(poison_data, "loss"), (poison_gradient, "gradient")])
def test_six_nonfinite_steps_in_a_row_end_run(cli, monkeypatch, poison, what):
    poison(monkeypatch, range(7, 100))
    result = cli("pretrain", "method=byol", *WORDS)
    assert result.code == 4
    assert f"the {what} is not finite at step 12 (6 steps skipped" in result.err
    run = newest_run()
    assert [e["step"] for e in events(run, "non-finite")] == [7, 8, 9, 10, 11, 12]
    assert Run(run).status["status"] == "failed"
    found = checkpoint.load_newest(run / "checkpoints")
    assert found is not None
    assert all(bool(torch.isfinite(v).all()) for g in found[0].values() for v in g.values())
    dumps = sorted((run / "debug").iterdir())
    assert [d.name for d in dumps] == ["nonfinite-0000000007", "nonfinite-0000000012"]  # the first and the last
    report = json.loads((dumps[0] / "report.json").read_text())
    assert report["step"] == 7
    assert report["seed"] == 0
    assert len(report["samples"][0]) == 32
    assert report["config"]["train"]["batch_size"] == 32
    bad = [name for name, layer in report["layers"].items() if layer["gradient"] and layer["gradient"]["nonfinite"]]
    assert bad
    assert all(layer["weight"]["nonfinite"] == 0 for layer in report["layers"].values())
    assert (report["loss"] == "nan") == (what == "loss")


def test_nonfinite_weights_are_never_saved(cli, monkeypatch):
    """A last step with non-finite weights exits with 4, and the previous checkpoint stays the newest."""
    step = torch.optim.SGD.step
    counted = [0]

    def broken(self, *args):
        result = step(self, *args)
        counted[0] += 1
        if counted[0] == 20:
            with torch.no_grad():
                self.param_groups[0]["params"][0].mul_(float("inf"))
        return result

    monkeypatch.setattr(torch.optim.SGD, "step", broken)
    result = cli("pretrain", "method=simsiam", *WORDS)
    assert result.code == 4
    assert "the weights are not finite at step 20: no checkpoint of them" in result.err
    found = checkpoint.load_newest(newest_run() / "checkpoints")
    assert found is not None
    assert found[1]["step"] == 19


def own_method(name: str, body: str) -> list[str]:
    folder = Path("mine/method")
    folder.mkdir(parents=True)
    Path(f"mine/{name}.py").write_text(
        "from sslcli.methods.base import Method\nfrom sslcli.nn.stats import spread\n\n\n"
        f"class Own(Method):\n    def forward(self, batch):\n{body}"
    )
    (folder / f"{name}.yaml").write_text(
        f"# @package _global_\nmethod:\n  _target_: {name}.Own\n  summary: x\n  family: x\n  source: x\n"
        "  plan: {global: 2}\n"
    )
    return ["--config-dir", "mine", f"method={name}"]


def test_constant_output_is_reported_at_second_check(cli):
    """Constant from the first step on: there is no grace period for what cannot be a slow start."""
    words = own_method(
        "constant",
        "        a = self.backbone(batch.views[0]) * 0 + 1\n"
        "        return {'loss': a.square().mean(), 'spread': spread(a)}\n",
    )
    result = cli("pretrain", *words, *WORDS, "train.steps=100", "train.save_every=5m")
    assert "the embeddings are collapsing: spread 0.000 at step 2 " in result.err, result.err
    assert result.err.count("the embeddings are collapsing") == 1
    stopped = cli("pretrain", *words, *WORDS, "train.steps=100", "train.on_collapse=stop")
    assert stopped.code == 4
