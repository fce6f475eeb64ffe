"""On a CUDA device: what a processor computes, a GPU computes; whole runs and every evaluator on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sslcli.config import registry
from sslcli.methods.base import Batch, Method
from sslcli.runs import checkpoint
from tests.conftest import killed_when_saved
from tests.faults.test_guards import events, poison_data, poison_gradient
from tests.methods.test_method_contract import batch, build, every_cell

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

TINY = [
    "dataset=digits",
    "device=cuda",
    "train.steps=12",
    "train.batch_size=64",
    "train.eval_every=0",
    "logger.log_every=1",
]


def doubled(view: torch.Tensor) -> torch.Tensor:
    """Numbers in float64; ids stay."""
    return view.double() if view.is_floating_point() else view


def without_dropout(method: Method) -> Method:
    """Its random numbers are those of the device."""
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return method


def moved(data: Batch) -> Batch:
    """On the GPU, in float64."""
    labels = data.__dict__.get("labels")
    views = [doubled(v).cuda() for v in data.views]
    return Batch(views, data.kinds, data.draw.to("cuda"), None if labels is None else labels.cuda())


def loss_and_gradients(method: Method, data: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss = method(data)["loss"]
    loss.backward()
    gradients = {name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None}
    return loss.detach().cpu(), gradients


@every_cell
def test_loss_and_gradients_are_those_of_the_processor(name, modality):
    data = batch(name, modality)
    here = Batch([doubled(v) for v in data.views], data.kinds, data.draw, data.__dict__.get("labels"))
    loss, gradients = loss_and_gradients(without_dropout(build(name, modality)).double(), here)
    there, theirs = loss_and_gradients(without_dropout(build(name, modality)).double().cuda(), moved(data))
    # some methods draw or sum in float32 whatever the network's precision
    torch.testing.assert_close(there, loss, rtol=1e-4, atol=1e-6)
    assert set(gradients) == set(theirs)
    for key, gradient in gradients.items():
        torch.testing.assert_close(theirs[key].double(), gradient.double(), rtol=1e-3, atol=1e-5, msg=key)


def lines(run: Path, key: str) -> list[float]:
    return [line[key] for t in (run / "metrics.jsonl").read_text().splitlines() if key in (line := json.loads(t))]


@pytest.mark.parametrize("method", ["simclr", "moco_v2", "byol", "swav", "dino", "mae", "vae"])
def test_the_first_step_is_that_of_the_processor(cli, method):
    """Views, batch and weights: in float32 the first loss differs by rounding alone."""
    first = []
    for device in ("cpu", "cuda"):
        words = [*TINY, f"device={device}", "device.precision=fp32", "train.steps=1"]
        result = cli("pretrain", f"method={method}", *words)
        assert result.code == 0, result.err
        first.append(lines(Path(result.last), "train/loss")[0])
    assert first[1] == pytest.approx(first[0], rel=5e-3)  # products in TF32


@pytest.mark.parametrize("method", ["simclr", "byol", "moco_v2", "dino", "mae"])
def test_compiled_is_as_written(cli, method):
    losses = []
    for compiled in ("false", "true"):
        result = cli("pretrain", f"method={method}", *TINY, f"device.compile={compiled}", "train.eval_every=1")
        assert result.code == 0, result.err
        losses.append(lines(Path(result.last), "train/loss"))
    assert losses[1] == pytest.approx(losses[0], rel=0.03)  # bf16


def test_goes_on_where_it_was_stopped(cli):
    whole = Path(cli("pretrain", "method=moco_v2", *TINY).last)
    with killed_when_saved(7):
        cli("pretrain", "method=moco_v2", *TINY, "train.save_every=1")
    result = cli("resume", "latest")
    assert result.code == 0, result.err
    assert "resuming at step 7" in result.err
    assert lines(Path(result.last), "train/loss") == pytest.approx(lines(whole, "train/loss"), rel=0.03)


@pytest.mark.parametrize(("poison", "what"), [(poison_data, "loss"), (poison_gradient, "gradient")])
@pytest.mark.parametrize("words", [["method=moco_v2"], ["method=byol", "optimizer=lars", "optimizer.lr=0.3"]])
def test_nonfinite_step_leaves_no_trace(cli, monkeypatch, words, poison, what):
    poison(monkeypatch, range(4, 5))
    result = cli("pretrain", *words, *TINY, "train.save_every=1", "train.keep=100")
    assert result.code == 0, result.err
    run = Path(result.last)
    (event,) = events(run, "non-finite")
    assert (event["step"], event["what"]) == (4, what)
    by_step = {int(p.name[5:]): checkpoint.load(p)[0] for p in checkpoint.existing(run / "checkpoints")}
    for name, group in by_step[4].items():
        for key, value in group.items():
            assert torch.equal(value, by_step[5][name][key]), f"{name} {key}"
    assert any(not torch.equal(v, by_step[6]["model"][k]) for k, v in by_step[5]["model"].items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of a method that reconstructs and of one that does not."""
    from sslcli.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("measured"))
        for method in ("simclr", "autoencoder"):
            patch.setattr("sys.argv", ["sslcli", "pretrain", f"method={method}", *TINY])
            assert main(["pretrain", f"method={method}", *TINY]) == 0
        return {path.name.split("_")[2]: path.absolute() for path in Path("runs").glob("2*")}


@pytest.mark.parametrize("evaluator", sorted(set(registry.choices("evaluator")) - {"online", "transfer", "attentive"}))
def test_evaluators(cli, runs, evaluator):
    """Where nothing is trained at random, the numbers of the processor."""
    run = runs["autoencoder" if evaluator == "reconstruct" else "simclr"]
    both = []
    for device in ("cuda", "cpu") if evaluator in ("knn", "probe", "retrieval") else ("cuda",):
        result = cli("eval", evaluator, "--json", f"run={run}", f"device={device}", "device.precision=fp32")
        assert result.code == 0, result.err
        both.append(json.loads(result.out)["numbers"])
    for key, value in both[0].items():
        if isinstance(value, float):
            assert value == pytest.approx(both[-1][key], abs=0.03, rel=0.03), key
