"""The contract of methods: every YAML in configs/method on every modality in configs/modality that provides what it requires.

A cell is a method on a modality. The samples are random ones of the modality's `example`; backbones are the modality's own, small.
A new method or modality is tested without a line here. What is tested: losses are finite and fall in ten steps, gradients reach
what is trained, results are a function of the seed, missing values are ignored, reconstructions have the shape of the view.
"""

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

from sslcli.config import compose, modalities, registry
from sslcli.errors import RequestError
from sslcli.methods.base import Batch, DataInfo, Encoder, Method, Tower
from sslcli.nn.values import Tokens, Values
from sslcli.nn.values_json import values_from_json
from sslcli.rng import Draw
from sslcli.runs.encoder import build_backbone

FOLDER = Path(__file__).parents[2] / "configs" / "method"
HOUSE_KEYS = {"_target_", "plan", "family", "source", "summary", "requires", "needs"}
NAMES = sorted(p.stem for p in FOLDER.glob("*.yaml"))
SMALL = {"width": 16, "depth": 2, "heads": 2, "blocks": 1}  # of backbones
SMALL_KEYS = {"width": 8, "prototypes": 64}  # of methods: a decoder, and the last layer of a head
LONGER: dict[Any, tuple[int, float]] = {  # steps, learning rate, where ten of 6e-3 do not lower the loss
    "clustering_head": (100, 1e-2),  # while assignments leave their start
    "moco_v2": (60, 1e-2),  # while the queue fills
    "ressl": (60, 3e-2),
    # larger rates are too large for a post-norm transformer with causal attention
    ("ressl", "interactions"): (60, 3e-3),
    ("instance_discrimination", "interactions"): (20, 3e-3),
    ("w_mse", "interactions"): (20, 3e-3),
}
B = 6
FACTS = DataInfo(samples=200, classes=3, steps_per_epoch=5)


@functools.cache
def recipe(name: str) -> dict[str, Any]:
    whole = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return compose.expand_method(whole)["method"]


@functools.cache
def target(name: str) -> type[Method]:
    module, _, word = recipe(name)["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), word)


NODES = {name: registry.describe(FOLDER / f"{name}.yaml", "method") for name in NAMES}


@functools.cache
def runs_on(name: str) -> list[str]:
    """The modalities on which a method runs."""
    needed = modalities.requires(NODES[name], NODES)
    return [m for m in modalities.modalities() if needed <= modalities.provides(m)]


def distinct(name: str) -> list[str]:
    """The modalities on which a method runs, without those that differ in nothing that is tested here: the views and backbones of
    pairs are those of images."""
    inputs = ("example", "backbone", "token_backbone")
    found: dict[str, str] = {}
    for modality in runs_on(name):
        found.setdefault(repr([modalities.description(modality)[key] for key in inputs]), modality)
    return list(found.values())


CELLS = [(name, modality) for name in NAMES for modality in distinct(name)]
every_method = pytest.mark.parametrize("name", NAMES)
every_cell = pytest.mark.parametrize(("name", "modality"), CELLS)


def example(modality: str) -> dict[str, Any]:
    return modalities.description(modality)["example"]


def values(modality: str) -> Values:
    return values_from_json(example(modality)["values"])


def needs_tokens(name: str) -> bool:
    return "positions" in target(name).requires


def needs_frames(name: str) -> bool:
    return "time" in target(name).requires


def backbone(modality: str, tokens: bool, name: str | None = None) -> nn.Module:
    """The modality's own backbone, or the one of this name."""
    name = name or modalities.description(modality)["token_backbone" if tokens else "backbone"]
    node = registry.describe(registry.choices("backbone")[name], "backbone")
    node |= {key: value for key, value in SMALL.items() if key in node}
    return build_backbone(node, tuple(example(modality)["shape"]), values(modality))


def recipe_backbone(name: str) -> str:
    """The backbone that a method's YAML chooses."""
    defaults = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["defaults"]
    return next(entry["override /backbone"] for entry in defaults if "override /backbone" in entry)


def keys(name: str) -> dict[str, Any]:
    return {k: v for k, v in recipe(name).items() if k not in HOUSE_KEYS}


def build(name: str, modality: str | None = None, seed: int = 0, tokens: bool | None = None) -> Method:
    """A method on a modality, or on the first that it runs on."""
    torch.manual_seed(seed)
    modality = modality or runs_on(name)[0]
    own = recipe_backbone(name) if needs_frames(name) else None  # the modality's own may not be causal
    return made(name, modality, backbone(modality, needs_tokens(name) if tokens is None else tokens, own))


def made(name: str, modality: str, network: nn.Module) -> Method:
    kind = target(name)
    given: dict[str, Any] = {}
    for argument, parameter in inspect.signature(kind, eval_str=True).parameters.items():
        if parameter.annotation is DataInfo:
            given[argument] = FACTS
        if parameter.annotation is Encoder:
            given[argument] = Encoder(backbone(modality, tokens=False), values(modality).conversion(values(modality)))
        if parameter.annotation is Tower:
            given[argument] = Tower(backbone("text", tokens=True))
        if parameter.annotation == dict[str, Method]:
            given[argument] = {task: made(task, modality, network) for task in recipe(name)["tasks"]}
    small = {key: value for key, value in SMALL_KEYS.items() if key in keys(name)}
    method = kind(network, **{**keys(name), **small, **given})
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


def batch(name: str, modality: str | None = None, n: int = B, padded: bool = False) -> Batch:
    """A batch of `n` samples; each view is the sample plus a little noise."""
    modality = modality or runs_on(name)[0]
    generator, of = torch.Generator().manual_seed(5), values(modality)
    kinds = [k for k, count in recipe(name)["plan"].items() for _ in range(count)]
    sample = of.random(n, tuple(example(modality)["shape"]), generator)
    local = (slice(None), *map(slice, example(modality).get("local", sample.shape[1:])))
    parts = [sample[local] if kind == "local" else sample for kind in kinds]
    views = [of.add_noise(part, 0.2 * torch.randn(part.shape, generator=generator)) for part in parts]
    views = [two_segments(view, of) if kind == "pair" else view for view, kind in zip(views, kinds, strict=True)]
    if padded:
        views = [of.remove(view, missing(view)) for view in views]
    draw = Draw(3, 0, torch.arange(100, 100 + n))
    captions = (
        values("text").random(n, tuple(example("text")["shape"]), generator) if target(name).uses_captions else None
    )
    if target(name).uses_labels:
        return Batch(views, kinds, draw, torch.arange(n) % FACTS.classes, captions)
    return Unlabelled(views, kinds, draw, None, captions)


def two_segments(view: Tensor, of: Values) -> Tensor:
    """Sequences of tokens as pairs [CLS] A [SEP] B [SEP]; the first segments have different lengths."""
    assert isinstance(of, Tokens)
    rows = torch.arange(len(view))
    view[:, 0], view[:, -1], view[rows, 2 + rows % 2] = of.start, of.separator, of.separator
    return view


def missing(view: Tensor) -> Tensor:
    """The tail of the first half of the samples."""
    where = torch.zeros(view.shape, dtype=torch.bool)
    where[: len(view) // 2, ..., 5:] = True
    return where


def train(method: Method, data: Batch, steps: int, lr: float = 3e-3) -> list[float]:
    """The losses of `steps` steps of Adam, and after them."""
    torch.manual_seed(7)  # of dropout
    optimizer = torch.optim.Adam([p for p in method.parameters() if p.requires_grad], lr=lr, fused=True)
    losses = []
    for step in range(steps):
        loss = method(data)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step((step + 1) / steps)
        losses.append(loss.item())
    with torch.no_grad():
        return [*losses, method(data)["loss"].item()]


def loss_without_updates(method: Method, data: Batch, steps: int) -> float:
    """The loss after the same steps with a learning rate of 0."""
    torch.manual_seed(7)
    for step in range(steps):
        method(data)  # with gradients enabled, as while training: queues and centers follow
        method.after_step((step + 1) / steps)
    with torch.no_grad():
        return method(data)["loss"].item()


# Keys that came later, with another value than that of earlier runs, which is the default of the argument.
LATER = {name: {"norm": False} for name in ("simclr", "dcl", "supcon")}


@every_method
def test_yaml_and_signature_agree(name):
    mine = recipe(name)
    assert {"_target_", "plan", "summary", "family", "source"} <= set(mine)
    assert target(name).__module__.rpartition(".")[2] == name, "the file has the public name"
    parameters = list(inspect.signature(target(name), eval_str=True).parameters.values())[1:]  # without backbone
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters), "no *args, no **kwargs"
    asked = {p.name: p.default for p in parameters if p.annotation not in (DataInfo, Tower, dict[str, Method])}
    written = {k: v for k, v in keys(name).items() if k not in ("tasks", "settings", "tower")} | LATER.get(name, {})
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


@every_cell
def test_loss_is_finite_scalar_and_metrics_detached(name, modality):
    out = build(name, modality)(batch(name, modality))
    for key, value in out.items():
        assert value.shape == (), key
        assert torch.isfinite(value), key
        assert value.requires_grad == (key == "loss"), key
    assert out["loss"] >= target(name).min_loss
    if recipe(name)["plan"].get("global", 0) > 1:
        assert 0.05 < out["spread"] < 1.5


@every_cell
def test_gradients_reach_trainable_parameters_only(name, modality):
    method = build(name, modality)
    data = batch(name, modality, n=16, padded=example(modality)["missing"])  # a missing value may have an embedding
    method(data)["loss"].backward()
    learned = {k: p for k, p in method.named_parameters() if p.requires_grad}
    without = [k for k, p in learned.items() if p.grad is None]
    assert not without, f"no gradient, so DistributedDataParallel would wait for ever: {without}"
    assert all(torch.isfinite(p.grad).all() for p in learned.values())
    for key, p in learned.items():
        if key.startswith("backbone.") and p.ndim > 1:
            assert p.grad.abs().max() > 0, key
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)


@every_cell
def test_ten_steps_lower_the_loss(name, modality):
    data, method = batch(name, modality), build(name, modality)
    steps, lr = LONGER.get((name, modality), LONGER.get(name, (10, 6e-3)))
    losses = train(method, data, steps, lr)
    assert torch.tensor(losses).isfinite().all()
    assert len(set(losses)) > 1
    if not method.adversarial:  # of two players none need fall
        still = loss_without_updates(build(name, modality), data, steps)  # the same batches and queues, other weights
        assert losses[-1] < still - 0.005 * abs(still)


@every_cell
def test_same_seed_gives_same_bits(name, modality):
    first, second = build(name, modality, seed=1), build(name, modality, seed=1)
    assert train(first, batch(name, modality), 2) == train(second, batch(name, modality), 2)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@every_method
def test_state_dict_round_trip_continues(name):
    first, second = build(name, seed=1), build(name, seed=2)
    data = batch(name)
    train(first, data, 3)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert train(first, data, 2) == train(second, data, 2)
    for (key, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


@every_cell
def test_smallest_batch(name, modality):
    method = build(name, modality)
    fewest = 2 if len(example(modality)["shape"]) == 1 else 1  # batch norm of vectors needs two
    out = method(batch(name, modality, n=max(fewest, target(name).min_batch)))
    assert torch.isfinite(out["loss"])


@pytest.mark.parametrize("tokens", [True, False])
@pytest.mark.parametrize(("name", "modality"), [cell for cell in CELLS if example(cell[1])["missing"]])
def test_missing_values_are_ignored(name, modality, tokens):
    if (needs_tokens(name) and not tokens) or (needs_frames(name) and tokens):
        pytest.skip("needs other features")
    method = build(name, modality, tokens=tokens)
    out = method(batch(name, modality, padded=True))
    out["loss"].backward()
    assert torch.isfinite(out["loss"])
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@every_method
def test_loss_is_float32_under_autocast(name):
    method, data = build(name), batch(name, n=16)  # whitening of fewer samples amplifies rounding
    plain = copy.deepcopy(method)(data)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        low = method(data)["loss"]
    assert low.dtype == torch.float32
    assert low.item() == pytest.approx(plain.item(), rel=0.1, abs=0.05)


@every_method
def test_teachers_change_only_after_step(name):
    method, data = build(name), batch(name)
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
    data = batch(name)
    stray = "weak" if "global" in data.kinds else "global"
    labels = data.labels if target(name).uses_labels else None
    more = Batch([*data.views, data.views[0]], [*data.kinds, stray], data.draw, labels, data.captions)
    with pytest.raises(RequestError, match=r"exactly|at least") as caught:
        build(name)(more)
    assert "method.plan" in (caught.value.hint or "")


@every_method
def test_eval_backbone_belongs_to_method(name):
    method, data = build(name), batch(name)
    network = method.eval_backbone
    assert network in set(method.modules())
    assert network(data.views[0]).shape == (B, network.dim)
    assert all(isinstance(v, str) for v in method.describe().values())


@every_cell
def test_figures_have_shape_of_input(name, modality):
    data = batch(name, modality)
    for columns in build(name, modality).eval().figures(data).values():
        assert all(p.shape == data.views[0].shape and torch.isfinite(p).all() for p in columns.values())


@pytest.mark.parametrize("padded", [False, True])
@every_cell
def test_reconstruction_has_shape_of_view(name, modality, padded):
    if padded and not example(modality)["missing"]:
        pytest.skip("no value can be missing")
    method, data, of = build(name, modality).eval(), batch(name, modality, padded=padded), values(modality)
    with torch.no_grad():
        result = method.reconstruct(data)
    if result is None:
        return
    assert result.values == of
    x = next(v for v in data.views if torch.equal(of.complete(result.source), of.complete(v)))
    for part in (result.predicted, result.hidden, result.mean, result.std):
        assert part is None or part.shape == x.shape
    assert torch.isfinite(result.predicted).all()
    judged = of.present(x) if result.hidden is None else of.present(x) & result.hidden
    assert torch.equal(~result.error().isnan(), judged)
    *_, drawn = result.columns().values()
    assert not of.present(drawn)[of.after_end(result.source).expand_as(drawn)].any()


@every_method
def test_fixed_lr_names_submodules(name):
    method = build(name)
    for part in target(name).fixed_lr:
        assert any(p.requires_grad for p in method.get_submodule(part).parameters())
