"""A pack: the images of a data set in a few large files, read by memory map. `pack_writer.py` writes it.

    photos.pack/
      manifest.json     what it is: splits, classes, settings, size and SHA-256 of every file, and its own
      index.bin         a RECORD for each sample: where it lies, its CRC-32, label, size; splits one after the other
      names.bin         the samples' names, one after the other
      shard-00000.bin   the samples: encoded images, or uint8 pixels (H, W, C), one after the other

Opening compares the manifest, the index and the names with their sums, and the shards with their lengths: a cut or
swapped file is refused at once, whatever the size of the pack. An encoded image is compared with its CRC-32 at each
reading (some microseconds beside a decoding; a flipped bit in a JPEG would else be another picture, and no error). Raw
pixels are not (it would read all of an image of which a crop is wanted): `sslcli data inspect --strict` compares them,
and every shard with its SHA-256.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.folders.paths import require_folder
from sslcli.data.images.headers import resident_budget
from sslcli.data.images.options import MAX_SIZE, check_size
from sslcli.data.sources.pack_files.reader import Pack, PackSource, make_decoder
from sslcli.data.stats import image_stats
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.errors import RequestError

EXPECTED = "a pack (sslcli data pack makes one)"


def pack(
    path: str | None = None,
    name: str = "pack",
    image_size: int | None = None,
    resident: bool | str = "auto",
    max_bad_fraction: float = 0.01,
    pretrain_on: str = "unlabelled",
    max_size: int = MAX_SIZE,
) -> Dataset:
    """A pack as the Dataset it was made of: the same samples, labels, names and splits.

    `image_size`: side of a view; null is that of the data set it was made of, or the packed size where that is less, at most
    `max_size`.
    `resident`: keep all decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `pretrain_on`: as for `image_folder`.

    Raises RequestError for a path that is no pack and for values, DataError for a damaged pack.
    """
    check_size(image_size)
    check_pretrain_on(pretrain_on)
    check_size(max_size, "max_size")
    if resident not in ("auto", True, False):
        raise RequestError(f"dataset.resident is {resident}, but must be auto, true or false", "dataset.resident=auto")
    if not 0 <= max_bad_fraction <= 1:
        raise RequestError(f"dataset.max_bad_fraction is {max_bad_fraction}, but must lie in 0..1")
    opened = Pack.open(Path(require_folder(path, EXPECTED)))
    manifest = opened.manifest
    settings = manifest["settings"]
    channels, side = settings["channels"], image_size or min(manifest["side"], max_size)
    keep = _fits_memory(opened, resident, channels)
    decoder = replace(make_decoder(manifest), need=None if keep else 2 * side)
    sources = {split: PackSource(opened, split, decoder, max_bad_fraction) for split in manifest["splits"]}
    mean, std = manifest["mean"], manifest["std"]
    bad: dict[str, str] = {}
    if keep:
        for source in sources.values():
            source.decode_all(int(opened.index["width"][0]), int(opened.index["height"][0]))
            bad |= {source.name_of(i): reason for i, reason in source.bad.items()}
        mean, std = image_stats(sources["train"])
    notes = _notes(manifest)
    return Dataset(
        name=name,
        modality="image",
        shape=(channels, side, side),
        train=sources["train"],
        test=sources.get("test"),
        classes=tuple(manifest["classes"]),
        unlabelled=pretrain_source(sources["train"], sources.get("unlabelled"), pretrain_on, notes),
        mean=tuple(mean),
        std=tuple(std),
        fingerprint=manifest["fingerprint"],
        notes=notes,
        details={
            "layout": "pack",
            "channels": channels,
            "range": settings["range"] if isinstance(settings["range"], list) else None,
            "resident": keep,
            "bad": bad,
            "left_out": len(manifest["left_out"]),
            "formats": {settings["format"]: len(opened.index)},
        },
    )


def _fits_memory(opened: Pack, wish: bool | str, channels: int) -> bool:
    """`dataset.resident` decided, as for files."""
    if wish is False:
        return False
    index = opened.index
    one_size = len(np.unique(index["width"])) == len(np.unique(index["height"])) == 1
    if not one_size:
        if wish is True:
            some = Counter(zip(index["width"][:1000].tolist(), index["height"][:1000].tolist(), strict=True))
            raise RequestError(
                "dataset.resident=true wants images of one size, and the pack has several, such as "
                + ", ".join(f"{w}x{h}" for (w, h), _ in some.most_common(3)),
                "dataset.resident=auto",
            )
        return False
    return wish is True or int(index["width"][0]) * int(index["height"][0]) * channels * len(index) <= resident_budget()


def _notes(manifest: dict[str, Any]) -> list[str]:
    s = manifest["settings"]
    how = "raw pixels" if s["format"] == "raw" else "encoded"
    how += f", short side at most {s['size']}" if s["size"] else ", in their own size"
    total = sum(n for _, n in manifest["splits"].values())
    notes = [f"pack of {plural(total, 'image')}, {how}", *manifest["notes"]]
    if manifest["left_out"]:
        notes.append(f"{plural(len(manifest['left_out']), 'unreadable file')} left out when it was made")
    return notes
