"""Write a pack (`pack.py`) of a data set of image files.

Everything is written into `NAME.part`, which is renamed when it is complete. A journal there records the progress: run again
after an interruption, the same command resumes after the last flushed entry. Several threads decode, and one writes the
samples in order, so the bytes of a pack do not depend on interruptions.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
from PIL import Image

from sslcli.config.modalities import description
from sslcli.console import escape, human_bytes, plural
from sslcli.data import notify
from sslcli.data.dataset import Dataset
from sslcli.data.files.parallel import decoder_threads
from sslcli.data.fingerprint import fingerprint
from sslcli.data.images import decode
from sslcli.data.loading import bad_samples
from sslcli.data.sources.image_files import ImageFiles
from sslcli.data.sources.pack_files.journal import JOURNAL, PackedSample, PackWriter
from sslcli.data.sources.pack_files.manifest import (
    FORMAT,
    INDEX,
    MANIFEST,
    NAMES,
    RECORD,
    manifest_hash,
    read_manifest,
    shard_name,
)
from sslcli.data.sources.pack_files.reader import Pack, PackSource, make_decoder
from sslcli.data.stats import image_stats
from sslcli.data.subset import unlabelled_only
from sslcli.errors import DataError, RequestError, StorageError
from sslcli.rng import derive, order
from sslcli.runs import Record
from sslcli.runs.files import make_folder, sync_folder, write_file
from sslcli.runtime.thread_pool import ordered_map

SAMPLED = 256  # headers read to estimate the size


def write_pack(dataset: Dataset, out: Path, form: str = "jpeg", size: int | None = None, quality: int = 90) -> bool:
    """Write the pack `out`; False where it exists already, with the same samples and settings.

    `form`: jpeg (the files unchanged, or re-encoded where they are resized) or raw (pixels). `size`: larger images are
    resized to this short side. Raises RequestError where `out` is another pack, StorageError where it cannot be written,
    DataError where too many files are unreadable, RunInUseError where another process is writing it.
    """
    task = PackTask(dataset, form, size, quality)
    if out.exists():
        if read_manifest(out)["of"] == task.identity():
            return False
        raise RequestError(
            f"{escape(str(out))} is a pack of other images, or with other settings",
            "choose another out=, or remove it first",
        )
    part = out.with_name(out.name + ".part")
    try:
        make_folder(part.parent, part.name)
        with PackWriter(part, task.identity(), len(task.all)) as writer:
            if not writer.complete:
                task.require_space(part, writer.written)
                task.run(writer)
                _finish(writer, task)
            (part / JOURNAL).unlink()
        os.rename(part, out)
        sync_folder(out.absolute().parent)
    except OSError as error:
        hint = "free some space, then run the same command again to resume"
        raise StorageError(f"cannot write {escape(str(part))}: {error.strerror or error}", hint) from error
    return True


def _refuse(dataset: Dataset) -> NoReturn:
    """RequestError for a data set that does not consist of image files: what to do instead."""
    kind = description(dataset.modality)["summary"]
    images = dataset.modality == "image"
    is_resident = all(s is None or s.resident is not None for s in (dataset.train, dataset.test, dataset.unlabelled))
    raise RequestError(
        f"{dataset.name} cannot be packed: a pack holds image files, and "
        + ("its images are no files" if images else f"these are {kind}"),
        f"train on it as it is: its {len(dataset.train):,} training samples are in memory, where a pack would not be faster"
        if is_resident
        else "sslcli data pack dataset=image_folder dataset.path=PHOTOS out=photos.pack",
    )


class PackTask:
    """The samples of a pack, and how each is encoded."""

    def __init__(self, dataset: Dataset, form: str, size: int | None, quality: int):
        splits = {"train": dataset.train, "test": dataset.test, "unlabelled": unlabelled_only(dataset)}
        self.sources: dict[str, ImageFiles] = {}
        for split, source in splits.items():
            if source is not None:
                if not isinstance(source, ImageFiles):
                    _refuse(dataset)
                self.sources[split] = source
        self.dataset, self.form, self.size, self.quality = dataset, form, size, quality
        self.decoder = self.sources["train"].decoder
        if self.decoder.channels == 4 and form == "jpeg" and size is not None:
            raise RequestError(
                "JPEG does not support 4 channels: images with transparency cannot be re-encoded", "format=raw"
            )
        self.all = [(split, i) for split, source in self.sources.items() for i in range(len(source))]
        self.files = len(self.all) + dataset.details.get("lost", 0)

    def identity(self) -> Record:
        """Identifies the samples and settings: equal for two packs with the same contents."""
        h = hashlib.sha256()
        for split, source in self.sources.items():
            labels = [-1] * len(source) if source.labels is None else source.labels.tolist()
            h.update(f"{split} {len(source)} ".encode())
            for name, label, length in zip(source.names or (), labels, source.sizes, strict=True):
                h.update(f"{label} {length} ".encode() + os.fsencode(name) + b"\0")
        return {"files": self.dataset.fingerprint, "samples": h.hexdigest(), **self.settings()}

    def settings(self) -> Record:
        d = self.decoder
        encoded = self.form == "jpeg" and self.size is not None
        return {
            "format": self.form,
            "size": self.size,
            "quality": self.quality if encoded else None,
            "channels": d.channels,
            "range": list(d.value_range) if isinstance(d.value_range, (list, tuple)) else d.value_range,
            "max_pixels": d.max_pixels,
        }

    def encode(self, position: int) -> PackedSample | str:
        """Encode a sample, or return the reason why it cannot be read."""
        split, i = self.all[position]
        try:
            return self._encode(self.sources[split].content(i))
        except decode.BadImage as error:
            return error.message

    def _encode(self, content: bytes) -> PackedSample:
        head = decode.read_header(content, self.decoder.max_pixels)
        short = min(head.width, head.height)
        shrink = self.size is not None and short > self.size
        need = (2 * self.size if self.size else self.decoder.need) if shrink or self.form == "jpeg" else None
        d = self.decoder
        image = decode.load(content, d.channels, need, d.value_range, d.max_pixels)
        if shrink:
            assert self.size is not None
            wide, high = (max(self.size, round(side * self.size / short)) for side in (head.width, head.height))
            image = image.resize((wide, high), Image.Resampling.BICUBIC)
        if self.form == "raw":
            return image.tobytes(), image.height, image.width
        if not shrink:
            return content, head.height, head.width  # unchanged; decoding it above proved that it is readable
        out = io.BytesIO()
        image.save(out, "JPEG", quality=self.quality)
        return out.getvalue(), image.height, image.width

    def estimate_bytes(self) -> int:
        """The estimated size of the samples in the pack."""
        files = sum(sum(s.sizes) for s in self.sources.values())
        if self.form == "jpeg" and self.size is None:
            return files
        sizes = []
        for position in order(derive(0, "pack"), 0, len(self.all))[:SAMPLED].tolist():
            split, i = self.all[position]
            try:
                head = decode.read_header(self.sources[split].file(i), self.decoder.max_pixels)
            except decode.BadImage:
                continue
            scale = min(1.0, self.size / min(head.width, head.height)) if self.size else 1.0
            sizes.append(head.width * head.height * scale * scale)
        pixels = sum(sizes) / max(1, len(sizes)) * len(self.all)
        return int(pixels * self.decoder.channels) if self.form == "raw" else min(files, int(pixels * 0.4))

    def require_space(self, folder: Path, written: int) -> None:
        """Log the estimated size. Raises StorageError where it exceeds the free space."""
        names = sum(len(n) for s in self.sources.values() for n in s.names or ())
        required = self.estimate_bytes() + len(self.all) * RECORD.itemsize + names
        free = shutil.disk_usage(folder).free
        notify.log(f"{plural(len(self.all), 'image')}, about {human_bytes(required)}; {human_bytes(free)} free")
        if free < 1.05 * (required - written):
            raise StorageError(
                f"about {human_bytes(max(0, required - written))} are required, but {human_bytes(free)} are free",
                "free some space, choose another out=, or size=256",
            )

    def run(self, writer: PackWriter) -> None:
        """Encode and write the remaining samples. Raises DataError where too many cannot be read."""
        done, limit = writer.position, self.dataset.train.max_bad_fraction
        missing = self.missing()
        for sample in ordered_map(self.encode, range(done, len(self.all)), decoder_threads()):
            split, i = self.all[writer.position]
            name = self.sources[split].name_of(i)
            writer.add(sample, name)
            if isinstance(sample, str):
                bad_samples.check_limit(missing | writer.bad, self.files, limit)
            notify.show_progress("packing", writer.position, len(self.all))
        writer.flush()
        bad_samples.check_limit(missing | writer.bad, self.files, limit)

    def missing(self) -> dict[str, str]:
        """Listed files that are absent or empty."""
        listed = {n for s in self.sources.values() for n in s.names or ()}
        return {n: reason for n, reason in self.dataset.details.get("bad", {}).items() if n not in listed}


def _finish(writer: PackWriter, task: PackTask) -> None:
    """Write the index, the names and the manifest."""
    writer.seal()
    files = {shard_name(i): about for i, about in enumerate(writer.sealed)}
    index, names, splits = _index(writer, task)
    files[INDEX] = write_file(writer.part / INDEX, [index.tobytes()])
    files[NAMES] = write_file(writer.part / NAMES, [names])
    manifest = _manifest(writer, task, splits, files)
    train = PackSource(Pack(writer.part, manifest), "train", make_decoder(manifest))
    manifest["mean"], manifest["std"] = (list(v) for v in image_stats(train))
    manifest["sha256"] = manifest_hash(manifest)
    write_file(writer.part / MANIFEST, [json.dumps(manifest, indent=1).encode() + b"\n"])
    sync_folder(writer.part)


def _index(writer: PackWriter, task: PackTask) -> tuple[np.ndarray, bytes, dict[str, list[int]]]:
    index = np.zeros(len(writer.records), RECORD)
    names, splits = bytearray(), dict[str, list[int]]()
    labels = {k: None if s.labels is None else s.labels.tolist() for k, s in task.sources.items()}
    for row, (position, *place) in enumerate(writer.records):
        split, i = task.all[position]
        names += os.fsencode(task.sources[split].name_of(i))
        of = labels[split]
        splits.setdefault(split, [row, 0])[1] += 1
        index[row] = (*place[1:3], len(names), -1 if of is None else of[i], place[0], *place[3:])
    if "train" not in splits:
        raise DataError("no image is left to train on", bad_samples.INSPECT_HINT)
    return index, bytes(names), splits


def _manifest(writer: PackWriter, task: PackTask, splits: dict[str, list[int]], files: Record) -> Record:
    left_out = task.missing() | writer.bad
    same = task.form == "jpeg" and task.size is None and not writer.bad
    side = task.dataset.shape[1]
    return {
        "format": FORMAT,
        "of": writer.identity,
        "settings": task.settings(),
        "splits": splits,
        "classes": list(task.dataset.classes),
        "side": min(side, task.size) if task.size else side,
        # the same images have the same fingerprint, in files or in a pack
        "fingerprint": task.dataset.fingerprint
        if same
        else fingerprint(len(writer.records), (files[k]["sha256"].encode() for k in (INDEX, NAMES))),
        "notes": [
            n for n in task.dataset.notes if "unreadable sample" not in n and not n.startswith("pretraining reads")
        ],
        "left_out": dict(sorted(left_out.items())),
        "files": files,
    }
