"""Files of a classifier in a run folder, in classifier/probe/ or classifier/finetune/, by the evaluator:

    classifier.safetensors   `head.weight`, `head.bias`; `reference.features`, `.mean`, `.scale`, `.distances`; and `backbone.*`
                             where the whole backbone was fine-tuned
    classifier.json          classes, temperature, number of neighbors, protocol; the SHA-256 of the tensors, of the encoder and of
                             the preprocessor

A new result of the evaluator replaces its classifier. The folder may come from an untrusted source.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sslcli.classifier.model import Classifier, Evaluator
from sslcli.classifier.reference import Reference
from sslcli.config import typecheck
from sslcli.errors import RequestError, StorageError, TrainingError
from sslcli.runs import Record, checkpoint
from sslcli.runs.encoder import build_backbone, read_info, values_of
from sslcli.runs.files import PHYSICAL_MEMORY, make_folder, path_of, read_file, read_json, replace_file, write_json
from sslcli.runs.find import run_command
from sslcli.runs.safetensors_file import corrupt_safetensors, safetensors

FOLDER = "classifier"
TENSORS, INFO = "classifier.safetensors", "classifier.json"
FORMAT = 1
EVALUATORS: tuple[Evaluator, ...] = ("probe", "finetune")
REFERENCE = ("features", "mean", "scale", "distances")  # tensors of it
SCHEMA: dict[str, Any] = {
    "format": int,
    "evaluator": str,
    "classes": list[str],
    "temperature": float,
    "neighbors": int,
    "protocol": dict,
    "encoder": dict[str, str],  # sha256
    "preprocessor": dict[str, str],  # kind and sha256
    "sha256": str,
    "time": str,
}


def write_classifier(run: Path, classifier: Classifier, about: Record) -> Path:
    """Writes the files of a classifier into a run folder, and returns their folder. `about`: further keys of classifier.json.
    StorageError."""
    name = f"{FOLDER}/{classifier.evaluator}"
    assert classifier.reference is not None
    encoder = read_info(run)
    tensors = {
        "head.weight": classifier.weight,
        "head.bias": classifier.bias,
        **{f"reference.{key}": getattr(classifier.reference, key) for key in REFERENCE},
    }
    if classifier.backbone is not None:
        tensors |= {f"backbone.{key}": value for key, value in classifier.backbone.state_dict().items()}
    try:
        folder = make_folder(run, name)
        with contextlib.suppress(FileNotFoundError):  # a kill in between leaves no classifier, not one that is two
            path_of(run, f"{name}/{INFO}").unlink()
    except OSError as e:
        raise StorageError(f"cannot write {run / name}: {e.strerror or e}") from None
    written = replace_file(run, f"{name}/{TENSORS}", safetensors(tensors))
    content = {
        "format": FORMAT,
        "evaluator": classifier.evaluator,
        "classes": list(classifier.classes),
        "temperature": classifier.temperature,
        "neighbors": classifier.reference.neighbors,
        "protocol": classifier.protocol,
        "encoder": {"sha256": encoder["sha256"]},
        "preprocessor": encoder.get("preprocessor", {}),
        **about,
        "sha256": written["sha256"],
    }
    write_json(run, f"{name}/{INFO}", content)
    return folder


def kept_classifiers(run: Path) -> dict[Evaluator, Record]:
    """The classifier.json of each evaluator that kept a classifier, the newest first."""
    found = {e: read_json(run, f"{FOLDER}/{e}/{INFO}") for e in EVALUATORS}
    return dict(
        sorted(((e, i) for e, i in found.items() if i), key=lambda item: str(item[1].get("time")), reverse=True)
    )


def check_evaluator(evaluator: str) -> None:
    if evaluator and evaluator not in EVALUATORS:
        raise RequestError(f"from={evaluator}: expected {' or '.join(EVALUATORS)}", f"from={EVALUATORS[0]}")


def find_classifier(run: Path, evaluator: str = "") -> Evaluator:
    """The given evaluator, or that of the newest classifier. RequestError where it kept none."""
    check_evaluator(evaluator)
    kept = kept_classifiers(run)
    for name in kept:
        if name == (evaluator or name):
            return name
    of = f" of eval {evaluator}" if evaluator else ""
    there = f"; from={next(iter(kept))} is there" if kept else ""
    hint = f"{run_command(run, 'eval', evaluator or 'probe', f'run={run}')} keeps one; labels=FILE.csv gives it labels{there}"
    raise RequestError(f"{run} has no classifier{of}", hint)


def load_classifier(run: Path, evaluator: str = "") -> Classifier:
    """The classifier of a run, see `find_classifier`.

    Raises:
        RequestError: there is none, or the encoder was trained further since it was fitted.
        TrainingError: its files are damaged.
    """
    name = find_classifier(run, evaluator)
    hint = run_command(run, "eval", name, f"run={run}") + " writes it again"
    folder, encoder = run / FOLDER / name, read_info(run)
    info = _checked_info(read_json(run, f"{FOLDER}/{name}/{INFO}"), name, folder, hint)
    same = info["preprocessor"].get("sha256") == encoder.get("preprocessor", {}).get("sha256")
    if info["encoder"].get("sha256") != encoder["sha256"] or not same:
        raise RequestError(f"{folder} was fitted to another encoder than the run has now", hint)
    tensors = _read_tensors(run, f"{FOLDER}/{name}/{TENSORS}", info["sha256"], hint)
    weights = {key.removeprefix("backbone."): t for key, t in tensors.items() if key.startswith("backbone.")}
    backbone = None
    if name == "finetune":
        backbone = _build(weights, encoder, folder, hint)
    try:
        return Classifier(
            name,
            tensors["head.weight"],
            tensors["head.bias"],
            tuple(info["classes"]),
            _reference(tensors, info["neighbors"]),
            info["temperature"],
            backbone,
            info["protocol"],
        )
    except (KeyError, ValueError, AssertionError):
        raise TrainingError(f"{folder / TENSORS} has not the tensors of a classifier", hint) from None


def _checked_info(info: Record, name: str, folder: Path, hint: str) -> Record:
    if isinstance(info.get("format"), int) and info["format"] > FORMAT:
        raise RequestError(
            f"{folder / INFO} has the format {info['format']}; this version reads up to format {FORMAT}",
            "upgrade sslcli",
        )
    right = all(typecheck.matches_type(info.get(key), kind) for key, kind in SCHEMA.items())
    if not right or info["evaluator"] != name or not 0 < info["temperature"] < math.inf or info["neighbors"] < 1:
        raise TrainingError(f"{folder / INFO} does not describe a classifier", hint)
    return info


def _read_tensors(run: Path, file: str, sha256: str, hint: str) -> dict[str, Tensor]:
    from safetensors.torch import load

    try:
        content = read_file(run, file, PHYSICAL_MEMORY)
    except OSError as e:
        raise TrainingError(f"{run / file} cannot be read: {e.strerror or e}", hint) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise TrainingError(f"{run / file} does not match the SHA-256 in {INFO}", hint)
    with corrupt_safetensors(run / file, hint):
        return load(content)


def _reference(tensors: Mapping[str, Tensor], neighbors: int) -> Reference:
    """KeyError or ValueError for tensors of other sizes than a reference has."""
    features, mean, scale, distances = (tensors[f"reference.{key}"] for key in REFERENCE)
    rows, dim = features.shape
    if (mean.shape, scale.shape, distances.shape) != ((dim,), (dim,), (rows,)) or neighbors > rows:
        raise ValueError((features.shape, mean.shape, scale.shape, distances.shape, neighbors))
    return Reference(features, mean, scale, distances, neighbors)


def _build(weights: dict[str, Tensor], encoder: Record, folder: Path, hint: str) -> nn.Module:
    backbone = build_backbone(encoder["backbone"], tuple(encoder["input_shape"]), values_of(encoder))
    checkpoint.load_strictly(backbone, weights, str(folder / TENSORS), hint)
    return backbone.eval()
