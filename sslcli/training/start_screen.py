"""The start screen of a run: method, data, plan with derived values, device."""

from __future__ import annotations

from pathlib import Path

from sslcli.backbones.convnet import ConvNet
from sslcli.builders import method_classes
from sslcli.config import instantiate, modalities
from sslcli.console import human_count, plural
from sslcli.data.images.options import MAX_SIZE
from sslcli.data.label_warnings import label_notes
from sslcli.data.subset import unlabelled_only
from sslcli.errors import listing
from sslcli.methods.base import Method
from sslcli.training.setup import TrainingSetup
from sslcli.views.modality import modality


def start_screen(setup: TrainingSetup, path: Path | str | None) -> list[tuple[str, str]]:
    """Rows of (label, text). `path`: the run folder; None where there is none."""
    method, optimizer = setup.method, setup.optimizer
    parameters = human_count(sum(p.numel() for p in method.parameters()))
    of_backbone = human_count(sum(p.numel() for p in method.backbone.parameters()))
    backbone = f"{type(method.backbone).__name__} ({of_backbone}, dim {method.backbone.dim})"
    weight_decay = setup.cfg["optimizer"]["weight_decay"]
    notes = (accumulation(setup), small_image_note(setup), unusual_note(setup))
    rows = [
        ("what", f"{type(method).__name__} ({parameters} parameters) on {backbone}"),
        ("data", data_row(setup)),
        *(("", note) for note in (*setup.dataset.notes, *label_notes(setup.dataset), *setup.views.notes)),
        *([("", setup.init_note)] if setup.init_note else []),
        ("plan", plan_row(setup)),
        ("", f"batch {batch_row(setup)}"),
        *(("", note) for note in notes if note),
        ("", f"lr {setup.lr_derivation}, {type(optimizer).__name__}, weight decay {weight_decay:g}"),
        *(("", f"{k} {v}") for k, v in method.describe().items()),
        ("where", setup.runtime.describe()),
    ]
    return rows if path is None else [*rows, ("run", str(path))]


def data_row(setup: TrainingSetup) -> str:
    """`digits: 1,437 train, 360 test, image 1x8x8, 10 classes (not shown to the method)`."""
    dataset = setup.dataset
    sizes = [f"{len(dataset.train):,} train"]
    if (unlabelled := unlabelled_only(dataset)) is not None:
        label = "unlabeled" if setup.cfg["train"].get("classes") is None else "of them pretrained on"
        sizes.append(f"{len(unlabelled):,} {label}")
    if dataset.test is not None:
        sizes.append(f"{len(dataset.test):,} test")
    shown = "shown" if setup.method.uses_labels else "not shown"
    if dataset.task == "value":
        labels = f"a value to predict ({shown} to the method)"
    else:
        labels = f"{len(dataset.classes)} classes ({shown} to the method)" if dataset.classes else "no labels"
    sample = modality(dataset.modality).describe(dataset.shape)
    return f"{dataset.name}: {', '.join(sizes)}, {sample}, {labels}"


def plan_row(setup: TrainingSetup) -> str:
    """`44 steps, 1 epoch; 44 an epoch = 1,437 samples // 32`."""
    per_epoch, batch_size = setup.loader.steps_per_epoch, setup.cfg["train"]["batch_size"]
    if setup.steps == 0:
        return "0 steps: the run keeps the weights of init as they are"
    if setup.steps is None:
        length = f"budget {setup.cfg['train']['budget']}, steps from the measured speed"
    else:
        epochs = f"{setup.steps / per_epoch:.4g}"
        length = f"{plural(setup.steps, 'step')}, {epochs} epoch{'' if epochs == '1' else 's'}"
    return f"{length}; {per_epoch} an epoch = {len(setup.dataset.pretrain):,} samples // {batch_size}"


def batch_row(setup: TrainingSetup) -> str:
    """`256 = 32 x 2 accumulation x 4 devices`."""
    batch_size, accumulate = setup.cfg["train"]["batch_size"], setup.cfg["train"]["accumulate"]
    world_size = setup.loader.world_size
    devices = "1 device" if world_size == 1 else f"{world_size} devices"
    reduced = setup.auto_batch_size and batch_size < modality(setup.dataset.modality).batch_size
    reason = f"; chosen for {len(setup.dataset.pretrain):,} samples" if reduced else ""
    return f"{batch_size} = {batch_size // accumulate // world_size} x {accumulate} accumulation x {devices}{reason}"


def accumulation(setup: TrainingSetup) -> str:
    """What the loss sees of an accumulated batch."""
    batch_size, accumulate = setup.cfg["train"]["batch_size"], setup.cfg["train"]["accumulate"]
    return accumulation_note(method_classes(setup.cfg["method"]), batch_size, batch_size // accumulate)


def unusual_note(setup: TrainingSetup) -> str:
    """Which of the methods is no usual choice for this kind of data; "" where none is."""
    node, modality = setup.cfg["method"], setup.dataset.modality
    names = [str(node["_target_"]).split(".")[-2], *(node["tasks"] if isinstance(node.get("tasks"), dict) else ())]
    unusual = [name for name in names if modalities.is_unusual(name, modality)]
    usual = [name for name in modalities.methods_for(modality) if name not in names]
    if not unusual:
        return ""
    return f"unusual for {modality}: {', '.join(unusual)} (it runs); usual are {listing(usual, 8)}"


def small_image_note(setup: TrainingSetup) -> str:
    """Which defaults were reduced because training runs on a CPU, and how to get those of a GPU; "" where none were."""
    node, side = setup.cfg["dataset"], setup.dataset.shape[-1]
    max_size = node.get("max_size", MAX_SIZE)
    if node.get("image_size") is not None or max_size >= MAX_SIZE or side < max_size:
        return ""
    small = instantiate.resolve("backbone", setup.cfg["backbone"]["_target_"]) is ConvNet
    chosen = f"image size {side}" + (" and a small convolutional network" if small else "")
    on_gpu = f"dataset.image_size={MAX_SIZE}" + (" backbone=resnet18" if small else "")
    return f"{chosen} suit a CPU; the defaults on a GPU: {on_gpu}"


def accumulation_note(methods: list[type[Method]], batch_size: int, micro_batch: int) -> str:
    """What a loss over pairs of samples sees of a batch that is accumulated in micro-batches; "" where nothing changes."""
    if micro_batch == batch_size or not any(m.compares for m in methods):
        return ""
    per_sample = max(m.negatives for m in methods)
    seen, full = per_sample * (micro_batch - 1), per_sample * (batch_size - 1)
    negatives = f": {seen:,} negatives, not {full:,}" if per_sample else ""
    return f"the loss sees {micro_batch:,} samples at a time, not {batch_size:,}{negatives} (train.accumulate)"
