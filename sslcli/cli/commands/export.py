"""sslcli export RUN [checkpoint=STEP|best|last] [format=NAME] out=FOLDER: export the encoder of a run or of a checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sslcli import console
from sslcli.cli.arguments import Request, read_options, run_argument
from sslcli.cli.command_table import COMMANDS
from sslcli.errors import RequestError, TrainingError, listing, target

if TYPE_CHECKING:
    from torch import Tensor

    from sslcli.formats.export import ExportFormat, TrainedModel
    from sslcli.runs.run import Run


def main(request: Request) -> int:
    name = run_argument(request, COMMANDS["export"])
    options = read_options(request.overrides, COMMANDS["export"].options, "export")
    out = target(options.get("out", ""), "out=FOLDER, a new one")

    from sslcli.formats.export import export
    from sslcli.formats.registry import export_format
    from sslcli.formats.towers import check_tower, tower_model
    from sslcli.runs.find import find
    from sslcli.runs.run import Run

    form = export_format(options.get("format", "sslcli"))
    check_folder(out, form)
    run, head, tower = Run.open(find(name)), options.get("head", "none"), options.get("tower")
    check_head(head, options.get("checkpoint", "last"), form)
    if tower is not None:
        check_tower(tower, head, form)
    precision = options.get("precision", "fp32")
    if precision not in form.tolerance:
        raise RequestError(
            f"precision={precision}: format={form.name} has {', '.join(form.tolerance)}",
            f"format=onnx precision={precision}" if precision in ("fp16", "int8") else "precision=fp32",
        )
    model = load_model(run, options.get("checkpoint", "last"), form, head, with_method=tower is not None)
    if tower is not None:
        model = tower_model(model, tower, held_out_captions(run) if tower == "text" else None)
    model = replace(model, precision=precision)
    exported = export(model, form, out)
    parameters = console.human_count(sum(p.numel() for p in model.backbone.parameters()))
    about = f"step {model.info['step']:,}; {type(model.backbone).__name__}, dim {model.info['dim']}, {parameters} parameters"
    console.say(f"saved {out}/{form.files[0]} ({about})")
    for note in exported.notes:
        console.say(f"note  {note}")
    console.say(f"check read back: the largest difference is {exported.difference:.1e}")
    for word, step in zip(("next", "or"), form.next_steps(str(out), model), strict=False):
        console.say(f"{word:5} {step}")
    if console.flag(console.JSON):
        record = {"encoder": str(out), "run": str(model.run.path), "step": model.info["step"], "format": form.name}
        console.out_json({**record, "difference": exported.difference, **exported.scores})
    else:
        console.out(out)
    return 0


def check_folder(out: Path, form: ExportFormat) -> None:
    """RequestError unless the folder is new, empty, or holds files of this format only."""
    if out.exists() and not out.is_dir():
        raise RequestError(f"out={out} is a file", "out=FOLDER, a new one")
    own = {name.partition("/")[0] for name in form.files}
    if out.is_dir() and (other := sorted({p.name for p in out.iterdir()} - own)):
        raise RequestError(f"out={out} is a folder with other files: {listing(other, 3)}", "out=FOLDER, a new one")


def check_head(head: str, which: str, form: ExportFormat) -> None:
    """RequestError where a classifier cannot be exported."""
    if head not in ("none", "probe", "finetune"):
        raise RequestError(f"head={head}: expected none, probe or finetune", "head=probe")
    if head != "none" and not form.runtime:
        raise RequestError(f"format={form.name} has no classifier", "format=timm, torch_export or onnx")
    if head != "none" and which != "last":
        raise RequestError(
            f"head={head} belongs to the last weights, not to checkpoint={which}", "leave checkpoint out"
        )


def load_model(run: Run, which: str, form: ExportFormat, head: str = "none", with_method: bool = False) -> TrainedModel:
    """The verified encoder, on the CPU, and the method with its heads if the format has them, or `with_method`. `which`: a step,
    `best`, or `last` (the run's encoder). `head`: the evaluator whose classifier is on top."""
    from sslcli.builders import load_checkpoint_method
    from sslcli.classifier.files import load_classifier
    from sslcli.data import preprocess
    from sslcli.formats.export import TrainedModel
    from sslcli.runs import checkpoint
    from sslcli.runs.encoder import load_encoder
    from sslcli.runs.run import require_done

    if which == "last":
        require_done(run)
        backbone, info = load_encoder(run.path)
        method = None
        saved = [p for p in checkpoint.existing(run.path / "checkpoints") if checkpoint.step_of(p) == info["step"]]
        if (form.heads or with_method) and saved and checkpoint.verify(saved[-1]) is None:
            method, info = load_checkpoint_method(run, saved[-1])
            backbone = method.eval_backbone
    else:
        method, info = load_checkpoint_method(run, checkpoint_folder(run, which))
        backbone = method.eval_backbone
    preprocessor = preprocess.of_encoder(run.path, info)
    classifier = load_classifier(run.path, head) if head != "none" else None
    samples = labels = None
    if form.runtime:
        samples, labels = held_out_samples(run, () if classifier is None else classifier.classes)
    return TrainedModel(backbone.eval(), method, info, preprocessor, run, samples, labels, classifier)


def held_out_samples(run: Run, classes: tuple[str, ...], count: int = 256) -> tuple[Tensor | None, Tensor | None]:
    """Clean views (n, *shape) of test samples of a run, or of training samples without a test split, and their labels (n,) among
    `classes`, -1 for others. None for what cannot be read, or is not there."""
    import torch

    from sslcli.builders import load_dataset
    from sslcli.data.record import read_record
    from sslcli.errors import SslError
    from sslcli.evals.base.embedding import clean_batches

    try:
        dataset = load_dataset(run.valid_config, read_record(run), download=False)
        source = dataset.test or dataset.train
        ids = torch.linspace(0, len(source) - 1, min(count, len(source))).long()
        ids, x = next(iter(clean_batches(source, dataset, torch.device("cpu"), 0, count, ids)))
    except SslError:
        return None, None
    if source.labels is None or not classes:
        return x, None
    places = {name: place for place, name in enumerate(classes)}
    names = [str(dataset.classes[i]) if i >= 0 else None for i in source.labels[ids].tolist()]
    return x, torch.tensor([-1 if name is None else places.get(name, -1) for name in names])


def held_out_captions(run: Run, count: int = 256) -> Tensor | None:
    """Captions (n, L) int64 of test samples of a run, or of training samples without a test split; None for what cannot be read."""
    import torch

    from sslcli.builders import load_dataset
    from sslcli.data.image_text.preprocessor import PairsPreprocessor
    from sslcli.data.record import read_record
    from sslcli.errors import SslError
    from sslcli.views.image_text.captions import views_of

    try:
        dataset = load_dataset(run.valid_config, read_record(run), download=False)
    except SslError:
        return None
    captions, own = (dataset.test or dataset.train).captions, dataset.preprocessor
    if captions is None or not isinstance(own, PairsPreprocessor):
        return None
    texts = len(captions.texts)
    return views_of(captions, torch.linspace(0, texts - 1, min(count, texts)).long(), own.captions)


def checkpoint_folder(run: Run, which: str) -> Path:
    """The folder of a valid checkpoint: a step, or `best`. RequestError where there is none, TrainingError where it is corrupt."""
    from sslcli.runs import checkpoint

    steps = {checkpoint.step_of(p): p for p in reversed(checkpoint.existing(run.path / "checkpoints"))}
    if not steps:
        raise RequestError(f"{run.path} has no checkpoint", "leave out checkpoint= for its last weights")
    if which == "best":
        from sslcli.cli.commands.select import best_step

        which = str(best_step(run))
    number = which.removeprefix("step-")
    path = steps.get(int(number)) if number.isdecimal() else None
    if path is None:
        choices = listing([*map(str, steps), "best", "last"], 20)
        raise RequestError(f"checkpoint={which}: {run.path} has no such checkpoint", f"one of {choices}")
    if (reason := checkpoint.verify(path)) is not None:
        raise TrainingError(f"{path} is corrupt: {reason}", f"available: {listing(map(str, steps), 20)}")
    return path
