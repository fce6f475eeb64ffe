"""A `Dataset` of image files: from a folder, a list file or tar shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch

from sslcli.console import escape, plural
from sslcli.data.dataset import Dataset
from sslcli.data.files.label_text import class_warnings
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.images.duplicates import warn_duplicates
from sslcli.data.images.encoded import Decoder
from sslcli.data.images.headers import (
    FileLoader,
    Headers,
    check_cache_memory,
    describe_headers,
    fits_memory,
    read_headers,
)
from sslcli.data.images.options import ImageOptions
from sslcli.data.images.value_range import find_range
from sslcli.data.loading import bad_samples
from sslcli.data.sources.folder_splits import encode_classes, hold_out, select_splits
from sslcli.data.sources.image_files import ImageFiles
from sslcli.data.stats import dark_notes, image_stats
from sslcli.data.subset import pretrain_source
from sslcli.errors import DataError
from sslcli.nn.values import Continuous


def build_dataset(
    contents: FolderContents,
    options: ImageOptions,
    notes: list[str],
    source: Callable[..., ImageFiles] = ImageFiles,
    load: FileLoader = str,
) -> Dataset:
    """A `Dataset` of image files.

    `load` converts a path in `contents` to what `decode.load` takes; `source` is called with the FileList of a split, its
    labels, a Decoder and the tolerated fraction of unreadable images. Raises DataError where too many are unreadable.
    """
    parts = select_splits(contents, options.label, options.holdout, notes)
    splits, files = list(parts), list(parts.values())  # before a held-out split is made
    total = sum(map(len, files)) + len(contents.missing)
    headers = read_headers(files, options.resident, options.max_pixels, load)
    if not headers.good:
        raise _unreadable_error(headers, files)
    bad = contents.missing | _by_name(headers.bad, files)
    bad_samples.check_limit(bad, total, options.max_bad_fraction)
    channels = int(options.channels) if options.channels != "auto" else headers.channels
    describe_headers(headers, notes)
    if options.cache is not None:
        notes.append(check_cache_memory(options.cache, total, channels, options.resident))
    resident = options.cache is not None or fits_memory(options.resident, headers, channels)

    labels = [c for kind, f in parts.items() if kind != "unlabelled" for c in f.classes if c is not None]
    classes = contents.order(labels)
    split = hold_out(parts, classes, options.holdout, options.split_seed, notes)
    notes += class_warnings(classes, len(labels))
    if len(classes) == 1:
        notes.append(f"only one class ({escape(classes[0])}): supervised evaluations are not possible")
    warn_duplicates(parts["train"], parts.get("test"), load, notes)

    side = options.image_size or _view_size(options, headers, notes)
    # of a file: a crop of a tenth of the area is then about as sharp as in ImageNet
    need = options.cache if resident else 2 * side
    value_range = find_range(options.range, headers, parts, options.max_pixels, load, notes)
    decoder = Decoder(channels, need, value_range, options.max_pixels)
    sources = {
        kind: source(f, encode_classes(f, classes), decoder, options.max_bad_fraction) for kind, f in parts.items() if f
    }
    _set_groups(sources, parts)
    if resident:
        bad |= _decode_all(sources, headers.size, options.cache)
    if bad:
        bad_samples.check_limit(bad, total, options.max_bad_fraction)
        notes += bad_samples.unreadable_notes(bad, contents.missing, None if resident else headers.sampled)
    train = sources["train"]
    if len(train.bad) == len(train):
        raise DataError(f"no image of {escape(contents.root)} is left to train on", bad_samples.INSPECT_HINT)
    mean, std = image_stats(train)
    if len(mean) != channels:
        mean, std = (0.5,) * channels, (0.25,) * channels  # none of the sampled images is readable
    notes += dark_notes(mean, std)
    return Dataset(
        name=options.name,
        modality="image",
        shape=(channels, side, side),
        train=train,
        test=sources.get("test"),
        classes=classes,
        unlabelled=pretrain_source(train, sources.get("unlabelled"), options.pretrain_on, notes),
        values=Continuous(mean, std),
        fingerprint=_fingerprint(files, splits if contents.split_in_fingerprint else ()),
        split=split,
        notes=notes,
        details={
            **contents.details,
            "channels": channels,
            "range": value_range if any(h.deep for h in headers.good.values()) else None,
            "resident": resident,
            "bad": bad,
            "lost": len(contents.missing),
            **headers.summary(),
            "root": contents.root,
        },
    )


def _decode_all(sources: Mapping[str, ImageFiles], size: tuple[int, int] | None, cache: int | None) -> dict[str, str]:
    """Decode all images into memory, in their own `size` or as squares. Returns name -> reason of the unreadable ones."""
    bad: dict[str, str] = {}
    for source in sources.values():
        if cache is not None:
            source.decode_all(cache, cache, resize=True)
        elif size is not None:
            source.decode_all(*size)
        bad |= {source.name_of(i): reason for i, reason in source.bad.items()}
    return bad


def _set_groups(sources: Mapping[str, ImageFiles], parts: Mapping[str, FileList]) -> None:
    """Set the group ids of the samples, where the files have groups."""
    names = sorted({g for files in parts.values() for g in files.groups or ()})
    index = {name: i for i, name in enumerate(names)}
    for kind, source in sources.items():
        if (groups := parts[kind].groups) is not None:
            source.groups = torch.tensor([index[g] for g in groups])


def _view_size(options: ImageOptions, headers: Headers, notes: list[str]) -> int:
    """The side of a view where `dataset.image_size` is null."""
    max_size = options.max_size
    if options.cache is not None:
        return min(options.cache, max_size)
    if headers.size:
        return min(*headers.size, max_size)
    smaller = sum(min(h.width, h.height) < max_size for h in headers.good.values())
    if smaller > len(headers.good) / 2:
        size = "96 (or 64)" if max_size > 96 else f"{max_size // 2}"
        notes.append(f"most images are smaller than {max_size}: dataset.image_size={size} would be faster")
    return max_size


def _by_name(bad: dict[str, str], files: Sequence[FileList]) -> dict[str, str]:
    names = {p: n for part in files for p, n in zip(part.paths, part.names, strict=True) if p in bad}
    return {names[p]: reason for p, reason in bad.items()}


def _unreadable_error(headers: Headers, files: Sequence[FileList]) -> DataError:
    examples = bad_samples.format_examples(_by_name(headers.bad, files))
    return DataError(
        f"none of {plural(len(headers.bad), 'sampled image')} can be read: {examples}", bad_samples.INSPECT_HINT
    )


def _fingerprint(files: Sequence[FileList], splits: Sequence[str]) -> str:
    """The fingerprint of the names and sizes of the files (reading the contents of a million files takes too long), and of
    the split of each file where `splits` are given."""
    entries = sorted(
        (name.encode("utf-8", "surrogateescape"), size, splits[i] if splits else "")
        for i, part in enumerate(files)
        for name, size in zip(part.names, part.sizes, strict=True)
    )
    parts = (
        part for name, size, kind in entries for part in (name, str(size).encode(), kind.encode())[: 2 + bool(splits)]
    )
    return fingerprint(len(entries), parts)
