"""The contract of methods, tested for every YAML in configs/method, including new ones."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from sslcli.backbones.convnet import ConvNet
from sslcli.backbones.tcn import TCN
from sslcli.backbones.vit import ViT
from sslcli.config import compose, modalities
from sslcli.errors import RequestError
from sslcli.methods.base import Batch, DataInfo, Encoder, Method
from sslcli.rng import Draw

FOLDER = Path(__file__).parents[2] / "configs" / "method"
HOUSE_KEYS = {"_target_", "plan", "family", "source", "summary", "requires", "needs"}
NAMES = sorted(p.stem for p in FOLDER.glob("*.yaml"))
SHAPES = {"image": (2, 9, 9), "series": (2, 21)}  # odd on purpose
LOCAL = {"image": (2, 5, 5), "series": (2, 11)}  # of the smaller views of a multi-crop plan
B = 6
FACTS = DataInfo(samples=200, classes=3, steps_per_epoch=5)


@functools.cache
def recipe(name: str) -> dict[str, Any]:
    whole = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return compose.expand_tasks(whole)["method"]


def target(name: str) -> type[Method]:
    module, _, word = recipe(name)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), word)


def pairs() -> list[tuple[str, str]]:
    """Each method with each of its modalities."""
    return [
        (name, modality)
        for name in NAMES
        for modality in SHAPES
        if target(name).requires <= modalities.provides(modality)
    ]


every_method = pytest.mark.parametrize("name", NAMES)
every_pair = pytest.mark.parametrize(("name", "modality"), pairs())


def needs_tokens(name: str) -> bool:
    return "positions" in target(name).requires


def backbone(modality: str, tokens: bool) -> nn.Module:
    shape = SHAPES[modality]
    if tokens:
        return ViT(shape, width=16, depth=2, heads=2)
    return ConvNet(shape, width=4) if modality == "image" else TCN(shape, width=8, depth=2)


def keys(name: str) -> dict[str, Any]:
    return {k: v for k, v in recipe(name).items() if k not in HOUSE_KEYS}


def build(name: str, modality: str, seed: int = 0, tokens: bool | None = None) -> Method:
    torch.manual_seed(seed)
    return made(name, modality, backbone(modality, needs_tokens(name) if tokens is None else tokens))


def made(name: str, modality: str, network: nn.Module) -> Method:
    kind = target(name)
    given: dict[str, Any] = {}
    for argument, parameter in inspect.signature(kind, eval_str=True).parameters.items():
        if parameter.annotation is DataInfo:
            given[argument] = FACTS
        if parameter.annotation is Encoder:
            given[argument] = Encoder(backbone(modality, tokens=False))
        if parameter.annotation == dict[str, Method]:
            given[argument] = {task: made(task, modality, network) for task in recipe(name)["tasks"]}
    method = kind(network, **{**keys(name), **given})
    method.plan = recipe(name)["plan"]
    return method


class Unlabelled(Batch):
    """A batch that raises an error when its labels are read."""

    @property
    def labels(self) -> Tensor:
        raise AssertionError("a method looked at the labels")

    @labels.setter
    def labels(self, value: Tensor | None) -> None:
        assert value is None


def batch(name: str, modality: str, n: int = B, padded: bool = False) -> Batch:
    """A batch of `n` samples; each view is the sample plus a little noise."""
    generator = torch.Generator().manual_seed(5)
    kinds = [k for k, count in recipe(name)["plan"].items() for _ in range(count)]
    sample = torch.randn(n, *SHAPES[modality], generator=generator)
    cut = {"local": tuple(slice(s) for s in LOCAL[modality][1:])}
    parts = [sample[:, :, *cut.get(kind, ())] for kind in kinds]
    views = [part + 0.2 * torch.randn(part.shape, generator=generator) for part in parts]
    if padded:
        for view in views:
            view[0, :, 5:] = float("nan")
    draw = Draw(3, 0, torch.arange(100, 100 + n))
    if target(name).uses_labels:
        return Batch(views, kinds, draw, torch.arange(n) % FACTS.classes)
    return Unlabelled(views, kinds, draw)


def train(method: Method, data: Batch, steps: int, lr: float = 3e-3) -> float:
    """The loss after `steps` steps of Adam (learning rate 0: the same steps without updates)."""
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=lr)
    for step in range(steps):
        loss = method(data)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step((step + 1) / steps)
    with torch.no_grad():
        return method(data)["loss"].item()


@every_method
def test_yaml_and_signature_agree(name):
    mine = recipe(name)
    assert {"_target_", "plan", "summary", "family", "source"} <= set(mine)
    assert target(name).__module__.rpartition(".")[2] == name, "the file has the public name"
    parameters = list(inspect.signature(target(name), eval_str=True).parameters.values())[1:]  # without backbone
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters), "no *args, no **kwargs"
    asked = {p.name: p.default for p in parameters if p.annotation not in (DataInfo, dict[str, Method])}
    written = {k: v for k, v in keys(name).items() if k not in ("tasks", "settings")}
    assert {k: "???" if v is inspect.Parameter.empty else v for k, v in asked.items()} == written


@every_method
def test_yaml_states_needs(name):
    """`sslcli list methods` reads it from the YAML, without importing the method."""
    mine, kind = recipe(name), target(name)
    assert set(mine.get("requires", ["views"])) == kind.requires
    assert kind.requires <= set(modalities.WORDS)
    parameters = inspect.signature(kind, eval_str=True).parameters.values()
    needs = {
        "labels": kind.uses_labels,
        "a trained run": any(p.annotation is Encoder for p in parameters),
    }
    assert mine.get("needs", []) == [word for word, true in needs.items() if true]


@every_pair
def test_loss_is_finite_scalar_and_metrics_detached(name, modality):
    out = build(name, modality)(batch(name, modality))
    for key, value in out.items():
        assert value.shape == (), key
        assert torch.isfinite(value), key
        assert value.requires_grad == (key == "loss"), key
    assert out["loss"] >= target(name).min_loss
    if recipe(name)["plan"].get("global", 0) > 1:
        assert 0.05 < out["spread"] < 1.5


@every_pair
def test_gradients_reach_trainable_parameters_only(name, modality):
    method = build(name, modality)
    method(batch(name, modality))["loss"].backward()
    learned = {k: p for k, p in method.named_parameters() if p.requires_grad}
    without = [k for k, p in learned.items() if p.grad is None]
    assert not without, f"no gradient, so DistributedDataParallel would wait for ever: {without}"
    assert all(torch.isfinite(p.grad).all() for p in learned.values())
    for key, p in learned.items():
        if key.startswith("backbone.") and p.ndim > 1:
            assert p.grad.abs().max() > 0, key
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)


@every_pair
def test_twenty_steps_lower_the_loss(name, modality):
    if target(name).adversarial:
        pytest.skip("two players: nothing need fall")
    data = batch(name, modality)
    still, moved = (train(build(name, modality), data, 20, lr) for lr in (0.0, 3e-3))
    assert moved < still - 0.005 * abs(still)  # the same batches and queues, only the weights did not move


@every_pair
def test_same_seed_gives_same_bits(name, modality):
    first, second = build(name, modality, seed=1), build(name, modality, seed=1)
    assert train(first, batch(name, modality), 3) == train(second, batch(name, modality), 3)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@every_method
def test_state_dict_round_trip_continues(name):
    first, second = build(name, "image", seed=1), build(name, "image", seed=2)
    data = batch(name, "image")
    train(first, data, 3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert train(first, data, 2) == train(second, data, 2)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@every_pair
def test_smallest_batch(name, modality):
    method = build(name, modality)
    out = method(batch(name, modality, n=target(name).min_batch))
    assert torch.isfinite(out["loss"])


@every_method
@pytest.mark.parametrize("tokens", [True, False])
def test_padding_of_series_is_ignored(name, tokens):
    if not target(name).requires <= modalities.provides("series"):
        pytest.skip("not for series")
    if needs_tokens(name) and not tokens:
        pytest.skip("needs tokens")
    method = build(name, "series", tokens=tokens)
    out = method(batch(name, "series", padded=True))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@every_method
def test_loss_is_float32_under_autocast(name):
    method, data = build(name, "image"), batch(name, "image")
    plain = copy.deepcopy(method)(data)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        low = method(data)["loss"]
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(plain.item(), rel=0.1, abs=0.05)


@every_method
def test_teachers_change_only_after_step(name):
    method, data = build(name, "image"), batch(name, "image")
    frozen = {k: p for k, p in method.named_parameters() if not p.requires_grad and not k.startswith("backbone.")}
    before = {k: p.clone() for k, p in frozen.items()}
    loss = method(data)["loss"]
    loss.backward()
    with torch.no_grad():
        for p in (p for p in method.parameters() if p.requires_grad):
            p.add_(0.1)  # not a step: a last layer may stand still at first (DINO)
    assert all(torch.equal(before[k], p) for k, p in frozen.items())
    method.after_step(0.0)
    given = {id(p) for m in method.modules() if isinstance(m, Encoder) for p in m.parameters()}  # of another run
    assert all(torch.equal(before[k], p) for k, p in frozen.items() if id(p) in given)
    weights = [k for k, p in frozen.items() if p.ndim > 1 and "pos_embed" not in k and id(p) not in given]
    assert all(not torch.equal(before[k], frozen[k]) for k in weights)


@every_method
def test_wrong_plan_is_rejected(name):
    data = batch(name, "image")
    stray = "weak" if "global" in data.kinds else "global"
    labels = data.labels if target(name).uses_labels else None
    more = Batch([*data.views, data.views[0]], [*data.kinds, stray], data.draw, labels)
    with pytest.raises(RequestError, match=r"exactly|at least") as caught:
        build(name, "image")(more)
    assert "method.plan" in (caught.value.hint or "")


@every_method
def test_eval_backbone_belongs_to_method(name):
    method, data = build(name, "image"), batch(name, "image")
    network = method.eval_backbone
    assert network in set(method.modules())
    assert network(data.views[0]).shape == (B, network.dim)
    assert all(isinstance(v, str) for v in method.describe().values())


@every_pair
def test_figures_have_shape_of_input(name, modality):
    data = batch(name, modality)
    for columns in build(name, modality).eval().figures(data).values():
        assert all(p.shape == data.views[0].shape and torch.isfinite(p).all() for p in columns.values())


@every_pair
@pytest.mark.parametrize("padded", [False, True])
def test_reconstruction_has_shape_of_view(name, modality, padded):
    if padded and modality == "image":
        pytest.skip("pictures have no padding")
    method, data = build(name, modality).eval(), batch(name, modality, padded=padded)
    with torch.no_grad():
        found = method.reconstruct(data)
    if found is None:
        return
    x = next(v for v in data.views if torch.equal(found.source.nan_to_num(9.0), v.nan_to_num(9.0)))
    for part in (found.predicted, found.hidden, found.mean, found.std):
        assert part is None or part.shape == x.shape
    assert torch.isfinite(found.predicted).all()
    judged = ~x.isnan() if found.hidden is None else ~x.isnan() & found.hidden
    assert torch.equal(~found.error().isnan(), judged)


@every_method
def test_fixed_lr_names_submodules(name):
    method = build(name, "image")
    for part in target(name).fixed_lr:
        assert any(p.requires_grad for p in method.get_submodule(part).parameters())
