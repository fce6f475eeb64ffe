"""`sslcli embed`: the features of all samples, in a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sslcli import __version__, console
from sslcli.data.loading.bad_samples import format_examples
from sslcli.errors import DataError, RequestError, listing
from sslcli.inference.embeddings.formats import FORMATS, import_parquet, write
from sslcli.inference.embeddings.reader import read_meta
from sslcli.inference.embeddings.rows import EmbeddedRows
from sslcli.inference.embeddings.staging import Staging
from sslcli.inference.features import ROWS
from sslcli.inference.inputs import Inputs
from sslcli.inference.session import Session
from sslcli.runs import Record


@dataclass(frozen=True)
class Embedded:
    """What was written. resumed: the samples of an earlier command. complete: whether the file was there already."""

    samples: int
    shape: tuple[int, ...]  # of one vector
    unreadable: dict[str, str]  # path or id -> reason
    resumed: int = 0
    complete: bool = False


def check_out(out: Path) -> None:
    """RequestError for another ending, MachineError where its format requires a package that is missing."""
    if out.suffix.lower() not in FORMATS:
        raise RequestError(f"out={out}: expected a file {', '.join(FORMATS)}", f"out={out.with_suffix('.npz').name}")
    if out.suffix.lower() == ".parquet":
        import_parquet()


def describe(session: Session, inputs: Inputs, pool: str | None) -> Record:
    """What identifies the embeddings: encoder, preprocessor, samples and settings."""
    encoder, extractor = session.encoder, session.extractor
    return {
        "format": 1,
        "encoder": {
            "spec": encoder.spec,
            "sha256": encoder.sha256,
            **{key: encoder.info.get(key) for key in ("method", "dataset", "step", "dim", "modality")},
        },
        "preprocessor": encoder.preprocessor.sha256,
        "samples": {
            "dataset": inputs.dataset.name,
            "fingerprint": inputs.fingerprint,
            "split": inputs.request.split,
            **({"id": inputs.dataset.id} if inputs.dataset.id is not None else {}),
        },
        "settings": {
            "pool": pool,
            "precision": extractor.precision,
            "device": extractor.device.type,
            "channels_last": extractor.channels_last,
            "block": ROWS,
        },
    }


def identity(meta: Record) -> Record:
    """What must be equal for a file to be the one that a command would write: the encoder by its weights, wherever it is."""
    rest = {key: meta.get(key) for key in ("preprocessor", "samples", "settings")}
    return {"sha256": meta["encoder"].get("sha256"), **rest}


def embed(session: Session, inputs: Inputs, out: Path, pool: str | None = None) -> Embedded:
    """Computes the features of all samples and writes them; an interrupted command is continued, with the same bytes.

    Raises:
        RequestError: `out` is a file of another encoder, of other samples or settings, or of another program.
        DataError: no sample can be read.
        StorageError: the file cannot be written; what is finished stays for the next command.
    """
    meta = describe(session, inputs, pool)
    if (known := _existing(out, identity(meta))) is not None:
        return known
    staging = Staging(out, identity(meta))
    try:
        resumed = min(len(inputs), staging.next * ROWS)
        if resumed:
            console.say(f"continuing after {resumed:,} of {len(inputs):,} samples")
        for block in session.blocks(inputs, staging.next):
            staging.add(block)
        kept, vectors = staging.finish(len(inputs))
        unreadable = {**inputs.unreadable, **{inputs.ids[i]: why for i, why in sorted(staging.unreadable.items())}}
        if not len(kept):
            staging.remove()
            raise DataError(f"no sample can be read: {format_examples(unreadable)}")
        rows = EmbeddedRows(inputs, kept, vectors, {**meta, "unreadable": unreadable, "sslcli": __version__})
        write(out, rows)
        staging.remove()
        return Embedded(len(kept), tuple(vectors.shape[1:]), unreadable, resumed)
    finally:
        staging.close()


def _existing(out: Path, wanted: Record) -> Embedded | None:
    """The file that a command would write, where it is there already."""
    if not os.path.lexists(out):
        return None
    from sslcli.inference.embeddings.reader import read_embeddings

    meta = read_meta(out) if out.is_file() else None
    if meta is None:
        raise RequestError(f"out={out} exists, and holds no embeddings of sslcli", "another out=")
    here = identity(meta)
    if here != wanted:
        names = {"sha256": "encoder", "preprocessor": "preprocessor", "samples": "samples", "settings": "settings"}
        other = [names[key] for key in wanted if here.get(key) != wanted[key]]
        raise RequestError(f"out={out} exists, with other embeddings: {listing(other)} differ", "another out=")
    found = read_embeddings(out)
    return Embedded(len(found), tuple(found.vectors.shape[1:]), dict(meta.get("unreadable", {})), len(found), True)
