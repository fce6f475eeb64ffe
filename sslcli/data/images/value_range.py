"""The range of values of a data set of deep images: found on training images, said, the same for every part."""

from __future__ import annotations

from typing import Any

from sslcli.console import plural
from sslcli.data.folders.contents import FileList
from sslcli.data.images import bit_depth, decode
from sslcli.data.images.headers import FileLoader, Headers
from sslcli.data.images.parallel import parallel_map
from sslcli.rng import derive, order

SAMPLED = 256  # training images
SHARE_OUTSIDE = 0.01  # of the values of a part: more is said


def find_range(
    wish: Any, headers: Headers, parts: dict[str, FileList], max_pixels: int, load: FileLoader, notes: list[str]
) -> Any:
    """`dataset.range` as a decoder takes it: two numbers where a range is found on training images (a fixed sample)."""
    deep = [h for h in headers.good.values() if h.deep]
    if not deep:
        if wish not in ("auto", None):
            notes.append("dataset.range has no effect: every image that was looked at has 8 bits a value")
        return wish
    said = f"{plural(len(deep), 'image')} of over 8 bits a value"
    said += "" if headers.complete else f" (of {len(headers.good):,} looked at)"
    if isinstance(wish, (list, tuple)):
        notes.append(f"{said}: {wish[0]:g}..{wish[1]:g} became bytes 0..255 (dataset.range)")
        return [float(v) for v in wish]
    if wish is None:
        notes.append(
            f"warning: {said}: 16 bits are read as 0..65535 and floats each image by itself (dataset.range=null, the rule of "
            "earlier versions; dataset.range=auto finds one range)"
        )
        return wish
    if wish.startswith("image_"):
        notes.append(
            f"warning: {said}: each is scaled by itself (dataset.range={wish}); brightness between images is lost"
        )
        return wish
    values = _values(headers, parts, max_pixels, load, notes)
    if values is None:
        notes.append(
            f"{said}, none of them for training could be looked at: read as 0..65535 (dataset.range=[lo,hi] says otherwise)"
        )
        return "auto"
    low, high, how = bit_depth.fit_range(wish, values)
    unsure = "percentile" in how and wish != "percentile"
    notes.append(
        ("warning: " if unsure else "")
        + f"{said}, {values.low:g}..{values.high:g} in training images: {low:g}..{high:g} became bytes 0..255, {how} "
        f"(dataset.range=[{low:g},{high:g}] says the same, or another)"
    )
    return [low, high]


def _values(
    headers: Headers, parts: dict[str, FileList], max_pixels: int, load: FileLoader, notes: list[str]
) -> bit_depth.Values | None:
    """Of a fixed sample of the deep images that training reads; None where there are none."""
    for part in ("train", "unlabelled"):
        files = parts.get(part)
        paths = [p for p in files.paths if (h := headers.good.get(p)) and h.deep] if files else []
        chosen = [paths[i] for i in order(derive(0, "range"), 0, len(paths))[:SAMPLED].tolist()] if paths else []

        def one(i: int, chosen: list[str] = chosen) -> bit_depth.Values | None:
            try:
                return bit_depth.Values.of(decode.deep_values(load(chosen[i]), max_pixels))
            except decode.BadImage:
                return None  # counted when it is read

        found = [v for v in parallel_map(one, len(chosen), "looking for the range of values") if v is not None]
        if len({v.whole for v in found}) > 1:
            notes.append("warning: some images hold whole numbers, others floats: one range hardly suits both")
        if found:
            return bit_depth.Values.pooled(found)
    return None
