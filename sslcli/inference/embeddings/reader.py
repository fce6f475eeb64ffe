"""Read files of embeddings. They may come from anyone: nothing in them is executed, and what is wrong is a DataError."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from sslcli.console import escape
from sslcli.errors import DataError, RequestError
from sslcli.inference.embeddings.formats import FORMATS, KEY, beside, import_parquet
from sslcli.inference.inputs import ITEMS
from sslcli.runs import Record
from sslcli.runs.files import parse

HINT = "sslcli embed RUN ... out=E.npz writes one"


@dataclass(frozen=True)
class Embeddings:
    """n embedded samples: vectors (n, dim) or (n, tokens, dim) float32, ids, paths, labels and titles (None without any) of each,
    and what identifies the encoder and the settings, see `embed.py`."""

    ids: Sequence[str] | np.ndarray
    paths: Sequence[str] | np.ndarray
    labels: Sequence[Any] | np.ndarray | None
    vectors: np.ndarray
    meta: Record
    titles: Sequence[str] | np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def read_embeddings(path: Path) -> Embeddings:
    """A file that `sslcli embed` wrote. RequestError where there is none, DataError where it is damaged or of another program."""
    if not path.is_file():
        raise RequestError(f"there is no file {escape(str(path))}", HINT)
    if path.suffix.lower() not in READERS:
        raise RequestError(f"{escape(str(path))}: expected a file {', '.join(FORMATS)}", HINT)
    try:
        found = READERS[path.suffix.lower()](path)
        counts = [len(c) for c in (found.ids, found.paths, found.vectors, found.labels, found.titles) if c is not None]
        if (
            len(set(counts)) != 1
            or found.vectors.dtype != np.float32
            or not isinstance(found.meta.get("encoder"), dict)
        ):
            raise ValueError("its columns do not fit together")
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{escape(str(path))} holds no embeddings of sslcli: {error}", HINT) from None
    if found.meta.get("settings", {}).get("pool") == ITEMS and found.titles is None:  # as earlier versions wrote titles
        titled = list(found.paths) != list(found.ids)
        return replace(found, paths=[""] * len(found), titles=found.paths if titled else None)
    return found


def read_meta(path: Path) -> Record | None:
    """What identifies the embeddings in a file; None where it is no such file."""
    try:
        return read_embeddings(path).meta
    except DataError:
        return None


# --------------------------------------------------------------------------------------------------------------------- npz


def _read_npz(path: Path) -> Embeddings:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    arrays = {name: _map_entry(path, info) for name, info in entries.items()}
    meta = parse(str(arrays["meta"][()]))
    return Embeddings(arrays["id"], arrays["path"], arrays.get("label"), arrays["vector"], meta, arrays.get("title"))


def _map_entry(path: Path, info: zipfile.ZipInfo) -> np.ndarray:
    """An array of a ZIP file without compression, mapped. ValueError for another one."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"its entry {info.filename} is compressed")
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        head = file.read(30)
        if head[:4] != b"PK\x03\x04":
            raise ValueError(f"its entry {info.filename} is damaged")
        file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
        return _map_array(path, file, info.header_offset + info.file_size + 1_000_000)


def _map_array(path: Path, file: Any, limit: int | None = None) -> np.ndarray:
    """The array of the .npy format that begins at the position of `file`, mapped."""
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array of version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ValueError("an array of another layout or of objects")
    start, size = file.tell(), int(np.prod(shape)) * dtype.itemsize
    if size == 0:
        return np.empty(shape, dtype)
    if start + size > Path(path).stat().st_size:
        raise ValueError("it is cut off")
    flat = np.memmap(path, np.uint8, "r", start, (size,))
    return flat.view(dtype).reshape(shape)


# ---------------------------------------------------------------------------------------------------- npy and safetensors


def _read_npy(path: Path) -> Embeddings:
    with open(path, "rb") as file:
        vectors = _map_array(path, file)
    return _with_csv(path, vectors, parse(beside(path, ".json").read_bytes()))


def _read_safetensors(path: Path) -> Embeddings:
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > 100 << 20:
            raise ValueError("its header is too large")
        head = json.loads(file.read(size))
    about = head["vector"]
    if about["dtype"] != "F32":
        raise ValueError(f"its vectors are {about['dtype']}")
    shape = tuple(map(int, about["shape"]))
    vectors = np.memmap(path, "<f4", "r", 8 + size + int(about["data_offsets"][0]), shape)
    return _with_csv(path, vectors, parse(head["__metadata__"][KEY]))


def _with_csv(path: Path, vectors: np.ndarray, meta: Record) -> Embeddings:
    with open(beside(path, ".csv"), encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(header, ())
    return Embeddings(columns["id"], columns["path"], columns.get("label"), vectors, meta, columns.get("title"))


# ----------------------------------------------------------------------------------------------------------------- parquet


def _read_parquet(path: Path) -> Embeddings:
    pa, parquet = import_parquet()
    try:
        table = parquet.read_table(path)
        shape, vectors = [len(table)], table["vector"].combine_chunks()
        while pa.types.is_fixed_size_list(vectors.type):
            shape.append(vectors.type.list_size)
            vectors = vectors.flatten()
        meta = parse((table.schema.metadata or {}).get(KEY.encode(), b"{}"))
        ids, paths = (table[name].to_pylist() for name in ("id", "path"))
        labels, titles = (
            table[name].to_pylist() if name in table.column_names else None for name in ("label", "title")
        )
        return Embeddings(ids, paths, labels, np.asarray(vectors).reshape(shape), meta, titles)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from None


READERS: dict[str, Callable[[Path], Embeddings]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".parquet": _read_parquet,
    ".safetensors": _read_safetensors,
}
