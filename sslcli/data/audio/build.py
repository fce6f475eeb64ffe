"""Make a data set of audio files: settings, splits, clips in memory or in files, normalization, and notes on what
was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from sslcli.console import escape, plural
from sslcli.data.audio.clips import AudioFiles, Decoder
from sslcli.data.audio.headers import (
    ONE_CHANNEL,
    Headers,
    cancelled_note,
    describe_headers,
    find_cancelled,
    read_headers,
)
from sslcli.data.audio.mel import MAX_RATE, MelSettings
from sslcli.data.audio.preprocessor import CHANNELS, MAX_FRAMES, AudioPreprocessor
from sslcli.data.audio.statistics import band_statistics
from sslcli.data.dataset import Dataset
from sslcli.data.files.label_text import class_warnings
from sslcli.data.fingerprint import fingerprint
from sslcli.data.folders.contents import FileList, FolderContents
from sslcli.data.folders.headers import resident_budget
from sslcli.data.folders.nouns import reword
from sslcli.data.folders.split_folders import check_splits
from sslcli.data.images.options import check_bad_fraction, check_resident
from sslcli.data.loading import bad_samples
from sslcli.data.sources.folder_splits import encode_classes, hold_out, select_splits
from sslcli.data.subset import check_pretrain_on, pretrain_source
from sslcli.errors import DataError, RequestError

AUTO_RATE, AUTO_SECONDS = 16_000, 5.0  # the most that auto chooses
FIRST_CHANNEL = "dataset.channels=first reads the first channel, of all clips"
MULTIPLE = 16  # of frames in a view, so that patches fit


@dataclass(frozen=True)
class AudioOptions:
    """What the user chose, see `sslcli.data.audio.audio_folder.audio_folder`. RequestError for values that are
    none."""

    rate: int | str = "auto"
    seconds: float | str = "auto"
    channels: str = "mean"
    n_fft: int | str = "auto"
    hop: int | str = "auto"
    bands: int = 64
    f_min: float = 50.0
    f_max: float | str = "auto"
    mel: str = "htk"
    norm: str = "slaney"
    log_epsilon: float = 1e-6
    loudness: str = "keep"
    label: str | None = "auto"
    holdout: float | str = "auto"
    split_seed: int = 0
    pretrain_on: str = "all"
    resident: bool | str = "auto"
    max_bad_fraction: float = 0.01
    splits: object = "auto"

    def __post_init__(self) -> None:
        check_pretrain_on(self.pretrain_on)
        check_resident(self.resident)
        check_bad_fraction(self.max_bad_fraction)
        check_splits(self.splits)
        if self.channels not in CHANNELS:
            raise RequestError(
                f"dataset.channels: expected {' or '.join(CHANNELS)}, got {escape(str(self.channels))}",
                "dataset.channels=mean",
            )
        for key, low, high in (("rate", 100, MAX_RATE), ("n_fft", 16, 1 << 16), ("hop", 1, 1 << 16)):
            value = getattr(self, key)
            if value != "auto" and (not isinstance(value, int) or not low <= value <= high):
                raise RequestError(
                    f"dataset.{key}: expected auto or an integer from {low:,} to {high:,}, got {value}",
                    f"dataset.{key}=auto",
                )
        for key in ("seconds", "f_max"):
            value = getattr(self, key)
            if value != "auto" and (isinstance(value, str) or not 0 < value < math.inf):
                raise RequestError(
                    f"dataset.{key}: expected auto or a positive number, got {value}", f"dataset.{key}=auto"
                )

    def settings(self, headers: Headers) -> MelSettings:
        """The settings of the spectrogram, for files with these headers. RequestError for those that do not fit
        together."""
        rate = min(headers.common_rate(), AUTO_RATE) if isinstance(self.rate, str) else self.rate
        n_fft = max(16, 1 << round(math.log2(0.064 * rate))) if isinstance(self.n_fft, str) else self.n_fft
        hop = max(1, round(0.01 * rate)) if isinstance(self.hop, str) else self.hop
        f_max = rate / 2 if isinstance(self.f_max, str) else float(self.f_max)
        try:
            return MelSettings(
                rate,
                n_fft,
                hop,
                self.bands,
                float(self.f_min),
                f_max,
                self.mel,
                self.norm,
                float(self.log_epsilon),
                self.loudness,
            )
        except ValueError as error:
            text = str(error).replace("scale:", "mel:", 1) if str(error).startswith("scale") else str(error)
            raise RequestError(f"dataset.{text}") from None

    def frames(self, settings: MelSettings, headers: Headers) -> int:
        """The number of frames of a view."""
        seconds = min(headers.quantile(0.95), AUTO_SECONDS) if isinstance(self.seconds, str) else self.seconds
        frames = max(1, math.ceil(seconds * settings.rate / settings.hop / MULTIPLE)) * MULTIPLE
        if frames > MAX_FRAMES:
            raise RequestError(
                f"dataset.seconds={seconds:g} are {frames:,} frames, more than {MAX_FRAMES:,}",
                "a larger dataset.hop, or fewer seconds",
            )
        return frames


def build_dataset(
    name: str, contents: FolderContents, options: AudioOptions, notes: list[str], like: AudioPreprocessor | None = None
) -> Dataset:
    """A data set of audio files. `like`: the preprocessor to use instead of one that is fitted. RequestError,
    DataError."""
    found: list[str] = []
    parts = select_splits(contents, options.label, options.holdout, found)
    splits, files = list(parts), list(parts.values())  # before a held-out split is made
    total = sum(map(len, files)) + len(contents.missing)
    headers = read_headers(files, options.resident is True)
    if not headers.good:
        raise _unreadable_error(headers, files)
    bad = contents.missing | _by_name(headers.bad, files)
    bad_samples.check_limit(bad, total, options.max_bad_fraction)
    mel = options.settings(headers) if like is None else like.mel
    decoder = Decoder(mel.rate, options.channels) if like is None else like.decoder
    describe_headers(headers, mel.rate, decoder.channels, notes)
    several = [path for path, header in headers.good.items() if header.channels > 1 and decoder.channels == "mean"]
    if cancelled := _names(find_cancelled(several), files):
        notes.append(cancelled_note(cancelled, FIRST_CHANNEL if like is None else ONE_CHANNEL))

    labels = [c for kind, f in parts.items() if kind != "unlabelled" for c in f.classes if c is not None]
    classes = contents.order(labels)
    split = hold_out(parts, classes, options.holdout, options.split_seed, found)
    notes += [reword(note, "clip") for note in found]
    notes += class_warnings(classes, len(labels))
    sources = {
        kind: AudioFiles(f, encode_classes(f, classes), decoder, options.max_bad_fraction)
        for kind, f in parts.items()
        if f
    }
    _set_groups(sources, parts)
    resident = options.resident is True or (
        options.resident == "auto" and headers.complete and headers.bytes_at(mel.rate) <= resident_budget()
    )
    if resident:
        for source in sources.values():
            source.decode_all()
            bad |= {source.name_of(i): reason for i, reason in source.bad.items()}
    if bad:
        bad_samples.check_limit(bad, total, options.max_bad_fraction)
        notes += bad_samples.unreadable_notes(bad, contents.missing, None if resident else headers.sampled)
    train = sources["train"]
    if len(train.bad) == len(train):
        raise DataError(f"no clip of {escape(contents.root)} is left to train on", bad_samples.INSPECT_HINT)
    if like is None:
        mean, std = band_statistics(train, mel)
        like = AudioPreprocessor(mel, options.frames(mel, headers), decoder.channels, mean, std)
    _describe(like, headers, notes)
    return Dataset(
        name=name,
        modality="audio",
        shape=like.shape,
        train=train,
        test=sources.get("test"),
        classes=classes,
        unlabelled=pretrain_source(train, sources.get("unlabelled"), options.pretrain_on, notes),
        values=like.values,
        preprocessor=like,
        fingerprint=_fingerprint(files, splits if contents.split_in_fingerprint else ()),
        split=split,
        notes=notes,
        details={**contents.details, "rate": mel.rate, "resident": resident, "bad": bad, "lost": len(contents.missing),
                 **headers.summary(), "root": contents.root},
    )  # fmt: skip


def _describe(preprocessor: AudioPreprocessor, headers: Headers, notes: list[str]) -> None:
    mel, frames = preprocessor.mel, preprocessor.frames
    seconds = mel.samples(frames) / mel.rate
    longer = sum(s > seconds + mel.hop / mel.rate for s in headers.seconds()) / len(headers.good)
    rest = f"; {longer:.0%} of the clips are longer" if longer >= 0.01 else ""
    notes.append(
        f"a view is {seconds:.3g} s at {mel.rate:,} samples per second: {mel.describe()}, {frames} frames{rest}"
    )
    if empty := mel.empty_bands():
        notes.append(
            f"warning: {plural(empty, 'band')} of {mel.bands} hold no frequency of a window of {mel.n_fft} samples: "
            f"fewer dataset.bands, or dataset.n_fft={2 * mel.n_fft}"
        )


def _set_groups(sources: Mapping[str, AudioFiles], parts: Mapping[str, FileList]) -> None:
    names = sorted({g for files in parts.values() for g in files.groups or ()})
    index = {name: i for i, name in enumerate(names)}
    for kind, source in sources.items():
        if (groups := parts[kind].groups) is not None:
            source.groups = torch.tensor([index[g] for g in groups])


def _by_name(bad: dict[str, str], files: Sequence[FileList]) -> dict[str, str]:
    return dict(zip(_names(list(bad), files), bad.values(), strict=True))


def _names(paths: Sequence[str], files: Sequence[FileList]) -> list[str]:
    names = {p: n for part in files for p, n in zip(part.paths, part.names, strict=True)} if paths else {}
    return [names[path] for path in paths]


def _unreadable_error(headers: Headers, files: Sequence[FileList]) -> DataError:
    examples = bad_samples.format_examples(_by_name(headers.bad, files))
    return DataError(f"none of {plural(len(headers.bad), 'file')} can be read: {examples}", bad_samples.INSPECT_HINT)


def _fingerprint(files: Sequence[FileList], splits: Sequence[str]) -> str:
    """Of the names and sizes of the files, and of the split of each where `splits` are given."""
    rows: list[tuple[Any, ...]] = [
        (name.encode("utf-8", "surrogateescape"), str(size).encode(), *([splits[i].encode()] if splits else []))
        for i, part in enumerate(files)
        for name, size in zip(part.names, part.sizes, strict=True)
    ]
    return fingerprint(len(rows), (value for row in sorted(rows) for value in row))
