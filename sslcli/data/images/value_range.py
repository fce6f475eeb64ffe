"""The value range of a data set of images of more than 8 bits, fitted on training images and used for every split."""

from __future__ import annotations

from typing import Any

from sslcli.console import plural
from sslcli.data.files.parallel import parallel_map
from sslcli.data.folders.contents import FileList
from sslcli.data.images import bit_depth, decode
from sslcli.data.images.headers import FileLoader, Headers
from sslcli.rng import derive, order

SAMPLED = 256  # training images


def find_range(
    rule: Any, headers: Headers, parts: dict[str, FileList], max_pixels: int, load: FileLoader, notes: list[str]
) -> Any:
    """`dataset.range` as a decoder takes it: [lo, hi] where a range is fitted on a fixed sample of the training images."""
    deep = [h for h in headers.good.values() if h.deep]
    if not deep:
        if rule not in ("auto", None):
            notes.append("dataset.range has no effect: all sampled images have 8 bits per value")
        return rule
    subject = f"{plural(len(deep), 'image')} of more than 8 bits per value"
    subject += "" if headers.complete else f" (of {len(headers.good):,} sampled)"
    if isinstance(rule, (list, tuple)):
        notes.append(f"{subject}: {rule[0]:g}..{rule[1]:g} scaled to 0..255 (dataset.range)")
        return [float(v) for v in rule]
    if rule is None:
        notes.append(
            f"warning: {subject}: 16-bit values are scaled from 0..65535, and each image of floats separately (dataset.range=null, "
            "the rule of earlier versions; dataset.range=auto fits one range)"
        )
        return rule
    if rule.startswith("image_"):
        notes.append(
            f"warning: {subject}: each is scaled separately (dataset.range={rule}); differences in brightness are lost"
        )
        return rule
    values = _values(headers, parts, max_pixels, load, notes)
    if values is None:
        notes.append(
            f"{subject}, none of them a readable training image: scaled from 0..65535 (or set dataset.range=[lo,hi])"
        )
        return "auto"
    low, high, how = bit_depth.fit_range(rule, values)
    unsure = "percentile" in how and rule != "percentile"
    notes.append(
        ("warning: " if unsure else "")
        + f"{subject}, {values.low:g}..{values.high:g} in training images: {low:g}..{high:g} scaled to 0..255, {how} "
        f"(set dataset.range=[{low:g},{high:g}] to fix this range)"
    )
    return [low, high]


def _values(
    headers: Headers, parts: dict[str, FileList], max_pixels: int, load: FileLoader, notes: list[str]
) -> bit_depth.Values | None:
    """The values of a fixed sample of training images of more than 8 bits; None where there are none."""
    for part in ("train", "unlabelled"):
        files = parts.get(part)
        paths = [p for p in files.paths if (h := headers.good.get(p)) and h.deep] if files else []
        sample = [paths[i] for i in order(derive(0, "range"), 0, len(paths))[:SAMPLED].tolist()] if paths else []

        def one(i: int, sample: list[str] = sample) -> bit_depth.Values | None:
            try:
                return bit_depth.Values.of(decode.deep_values(load(sample[i]), max_pixels))
            except decode.BadImage:
                return None  # counted when samples are loaded

        values = [v for v in parallel_map(one, len(sample), "fitting the value range") if v is not None]
        if len({v.integer for v in values}) > 1:
            notes.append("warning: some images hold integers, others floats: one value range hardly suits both")
        if values:
            return bit_depth.Values.pooled(values)
    return None
