"""Two processes compute what one computes: losses, gradients, weights and views."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from sslcli.config import compose, registry
from sslcli.runtime import processes
from sslcli.training.configuration import resolve
from tests.runtime import training_worker

METHODS = sorted(registry.choices("method"))
TINY = ["experiment=smoke", "device=cpu", "device.threads=1", "train.batch_size=16", "train.eval_every=0"]


def composed(folder: Path, method: str, *words: str) -> dict:
    node = registry.describe(registry.choices("method")[method], "method")
    needs = node.get("needs", [])
    size = [] if "positions" in node.get("requires", []) else ["backbone.width=8"]
    if "a trained run" in needs:
        size.append(f"method.teacher={folder / 'teacher'}")
    if method == "colorization":  # digits are grey
        size += ["dataset=arrays", f"dataset.path={folder / 'coloured.npz'}", "backbone=convnet", "augmentation=weak"]
    if "columns" in node.get("requires", []):
        size.append("dataset=wine")
    if {"vocabulary", "items"} & set(
        node.get("requires", [])
    ):  # masks of dropout depend on the process: none, or hardly any
        rate = 1e-12 if method == "simcse" else 0.0
        size += ["backbone.width=16", "backbone.depth=2", "backbone.heads=2", f"backbone.dropout={rate}"]
        size += ["method.dropout=0.0"] if "dropout" in node else []
    if "frames" in node.get("requires", []):
        size += [
            "dataset=moving",
            "dataset.samples=64",
            "dataset.test_samples=2",
            "dataset.frames=4",
            "dataset.size=16",
        ]
        size.append("method.width=16")
    if "pairs" in node.get("requires", []):
        size += ["dataset=shapes", "dataset.samples=64", "dataset.test_samples=8", "dataset.size=16"]
        size.append("method.tower_settings={width: 16, depth: 1, dropout: 0.0}")
    if "time" in node.get("requires", []):
        size += ["dataset=series", f"dataset.path={folder / 'signals.npz'}"]
        size += ["backbone.depth=2", "backbone.out=8", "backbone.dropout=0"] if method == "ts2vec" else []
    return resolve(compose.compose("pretrain", [f"method={method}", *TINY, *size, *words]))


def composed_of_tones(method: str) -> dict:
    """`method` on generated audio, whose views mix, crop and resize spectrograms."""
    small = ["dataset=tones", "dataset.samples=60", "dataset.bands=16", "dataset.seconds=0.25"]
    small += ["backbone=audio_convnet", "backbone.width=8"]
    return resolve(compose.compose("pretrain", [f"method={method}", *TINY, *small]))


def prepared(folder: Path) -> None:
    """Write what some methods require: color images, series, and a trained run as teacher."""
    import numpy as np

    from sslcli.training.pretrain import pretrain
    from sslcli.training.setup import prepare

    rng = np.random.default_rng(0)
    np.savez(folder / "coloured.npz", x=rng.integers(0, 255, (64, 3, 8, 8), dtype=np.uint8), y=np.arange(64) % 4)
    x = rng.normal(size=(64, 2, 20)).astype(np.float32)
    x[::3, :, 13:] = np.nan  # the processes have different numbers of values
    np.savez(folder / "signals.npz", x=x)
    pretrain(prepare(composed(folder, "simsiam", "train.steps=1")), folder / "teacher")


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> dict[int, dict[str, dict[str, torch.Tensor]]]:
    """Results of one and two processes: {1: {method: tensors}, 2: ...}; some with accumulation."""
    folder, found = tmp_path_factory.mktemp("team"), {}
    prepared(folder)
    cfgs = {m: composed(folder, m) for m in METHODS}
    cfgs["byol, sharded"] = composed(folder, "byol", "optimizer=adamw", "optimizer.lr=1e-3")
    cfgs["mae, sharded"] = copy.deepcopy(cfgs["mae"])
    cfgs["byol, audio"], cfgs["simclr, audio"] = composed_of_tones("byol"), composed_of_tones("simclr")
    cfgs["simsiam in portions"] = composed(folder, "simsiam", "train.accumulate=2")
    for world_size in (1, 2):
        for name, cfg in cfgs.items():
            cfg["train"]["devices"] = world_size
            if world_size > 1 and name.endswith("sharded"):
                cfg["train"]["strategy"] = "fsdp"
        payload = {"cfgs": cfgs, "out": str(folder / f"{world_size}.pt")}
        place = processes.ProcessInfo(0, world_size, 0, world_size)
        threads = torch.get_num_threads()
        with processes.launch(place, torch.device("cpu"), payload, training_worker.work):
            training_worker.work(payload)
        torch.set_num_threads(threads)
        found[world_size] = torch.load(payload["out"], weights_only=True)
    return found


OTHERS = ["simsiam in portions", "byol, sharded", "mae, sharded", "byol, audio", "simclr, audio"]


@pytest.mark.parametrize("method", [*METHODS, *OTHERS])
def test_two_processes_match_one(both, method):
    """Loss, gradient, one optimizer step, and weights, teachers, queues and statistics after a second."""
    one, two = both[1][method], both[2][method]
    assert one.keys() == two.keys()
    assert any("gradient" in k and v.abs().sum() > 0 for k, v in one.items())
    for name, value in one.items():
        tolerance = {"rtol": 1e-12, "atol": 1e-12} if not name.startswith("after") else {"rtol": 1e-9, "atol": 1e-10}
        torch.testing.assert_close(two[name], value, **tolerance, msg=lambda m, n=name: f"{n}: {m}")


def test_views_independent_of_rank():
    """1, 2 and 4 processes: the same samples with the same pixels, in the same order, in every epoch."""
    from sslcli.data.loading.loader import Loader
    from sslcli.training.setup import prepare

    job = prepare(composed(Path(), "simclr", "train.batch_size=64", "train.accumulate=2"))

    def steps(world_size: int) -> list[torch.Tensor]:
        own = [
            Loader(
                job.loader.source, job.views, batch_size=64, seed=0, accumulate=2, rank=r, world_size=world_size
            ).stream(20)
            for r in range(world_size)
        ]
        found = []
        for _ in range(2 * 5):  # micro-batches; step 22 begins another epoch
            parts = [next(s) for s in own]
            found.append(torch.cat([p.ids for p in parts]))
            found += [torch.cat([p.views[v] for p in parts]) for v in range(2)]
        return found

    one = steps(1)
    for world_size in (2, 4):
        assert all(torch.equal(a, b) for a, b in zip(one, steps(world_size), strict=True))


def test_invalid_process_counts(cli):
    assert "train.devices: expected" in cli("pretrain", *TINY, "train.devices=0").err
    odd = cli("pretrain", *TINY, "train.devices=3")
    assert odd.code == 2
    assert "not divisible" in odd.err
    assert not Path("runs").exists()
