"""A pack: the images of a data set in a few large, memory-mapped files. `pack_files/writer.py` writes it.

    photos.pack/
      manifest.json     splits, classes, settings, size and SHA-256 of every file, and its own SHA-256
      index.bin         a RECORD for each sample: location, CRC-32, label, size; the splits are concatenated
      names.bin         the names of the samples, concatenated
      shard-00000.bin   the samples, concatenated: encoded images, or uint8 pixels (H, W, C)

Opening a pack verifies the checksums of the manifest, the index and the names, and the lengths of the shards: a truncated or
exchanged file is detected at once, whatever the size of the pack. The CRC-32 of an encoded image is verified at each
reading (microseconds beside a decoding; a flipped bit in a JPEG would otherwise change the image without an error). Raw
pixels are not verified, as that would read a whole image for a crop: `sslcli data inspect --strict` verifies them, and the
SHA-256 of every shard.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.console import plural
from sslcli.data.dataset import Dataset
from sslcli.data.folders.headers import resident_budget
from sslcli.data.folders.paths import require_folder
from sslcli.data.images.headers import check_cache_memory
from sslcli.data.images.options import MAX_SIZE, check_bad_fraction, check_cache, check_resident, check_size
from sslcli.data.sources.pack_files.reader import Pack, PackSource, make_decoder
from sslcli.data.stats import image_stats
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.errors import RequestError
from sslcli.nn.values import Continuous

EXPECTED = "a pack (sslcli data pack makes one)"


def pack(
    path: str | None = None,
    name: str = "pack",
    image_size: int | None = None,
    resident: bool | str = "auto",
    max_bad_fraction: float = 0.01,
    pretrain_on: str = "unlabelled",
    max_size: int = MAX_SIZE,
    cache: int | None = None,
) -> Dataset:
    """The data set that was packed: the same samples, labels, names and splits.

    `image_size`: side of a view; null is that of the packed data set, or the packed size where that is smaller, at most
    `max_size`.
    `resident`: keep all images decoded in memory: auto (one size, at most 2 GiB and half of the free memory), true, false.
    `pretrain_on`, `cache`: as for `image_folder`.

    Raises RequestError for values and for a path that is not a pack, DataError for a corrupt pack.
    """
    check_size(image_size)
    check_pretrain_on(pretrain_on)
    check_size(max_size, "max_size")
    check_resident(resident)
    check_cache(cache, resident)
    check_bad_fraction(max_bad_fraction)
    opened = Pack.open(Path(require_folder(path, EXPECTED)))
    manifest = opened.manifest
    settings = manifest["settings"]
    channels, side = settings["channels"], image_size or min(manifest["side"] if cache is None else cache, max_size)
    notes = _notes(manifest)
    if cache is not None:
        notes.append(check_cache_memory(cache, len(opened.index), channels, resident))
    keep = cache is not None or _fits_memory(opened, resident, channels)
    decoder = replace(make_decoder(manifest), need=cache if keep else 2 * side)
    sources = {split: PackSource(opened, split, decoder, max_bad_fraction) for split in manifest["splits"]}
    mean, std = manifest["mean"], manifest["std"]
    bad: dict[str, str] = {}
    if keep:
        for source in sources.values():
            if cache is not None:
                source.decode_all(cache, cache, resize=True)
            else:
                source.decode_all(int(opened.index["width"][0]), int(opened.index["height"][0]))
            bad |= {source.name_of(i): reason for i, reason in source.bad.items()}
        mean, std = image_stats(sources["train"])
    return Dataset(
        name=name,
        modality="image",
        shape=(channels, side, side),
        train=sources["train"],
        test=sources.get("test"),
        classes=tuple(manifest["classes"]),
        unlabelled=pretrain_source(sources["train"], sources.get("unlabelled"), pretrain_on, notes),
        values=Continuous(tuple(mean), tuple(std)),
        fingerprint=manifest["fingerprint"],
        notes=notes,
        details={
            "layout": "pack",
            "channels": channels,
            "range": settings["range"] if isinstance(settings["range"], list) else None,
            "resident": keep,
            "bad": bad,
            "left_out": len(manifest["left_out"]),
            "left_out_names": manifest["left_out"],
            "formats": {settings["format"]: len(opened.index)},
        },
    )


def _fits_memory(opened: Pack, resident: bool | str, channels: int) -> bool:
    """Resolve `dataset.resident`, as `images.headers.fits_memory` does for files."""
    if resident is False:
        return False
    index = opened.index
    one_size = len(np.unique(index["width"])) == len(np.unique(index["height"])) == 1
    if not one_size:
        if resident is True:
            sizes = Counter(zip(index["width"][:1000].tolist(), index["height"][:1000].tolist(), strict=True))
            raise RequestError(
                "dataset.resident=true requires images of one size, but the pack has several, such as "
                + ", ".join(f"{w}x{h}" for (w, h), _ in sizes.most_common(3)),
                "dataset.resident=auto",
            )
        return False
    return (
        resident is True
        or int(index["width"][0]) * int(index["height"][0]) * channels * len(index) <= resident_budget()
    )


def _notes(manifest: dict[str, Any]) -> list[str]:
    s = manifest["settings"]
    how = "raw pixels" if s["format"] == "raw" else "encoded"
    how += f", short side at most {s['size']}" if s["size"] else ", in the original size"
    total = sum(n for _, n in manifest["splits"].values())
    notes = [f"pack of {plural(total, 'image')}, {how}", *manifest["notes"]]
    if manifest["left_out"]:
        notes.append(f"{plural(len(manifest['left_out']), 'unreadable file')} left out when it was written")
    return notes
