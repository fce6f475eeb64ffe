"""Write embeddings to .npz, .npy, .parquet or .safetensors. Equal rows give equal bytes; memory does not grow with their number.

| ending | vectors | id, path, title, label | what identifies them |
|---|---|---|---|
| .npz | entry `vector` | entries `id`, `path`, `title`, `label` | entry `meta`, JSON |
| .parquet | column `vector` | columns `id`, `path`, `title`, `label` | metadata `sslcli` of the schema, JSON |
| .safetensors | tensor `vector` | FILE.safetensors.csv | metadata `sslcli`, JSON |
| .npy | the array | FILE.npy.csv | FILE.npy.json |
"""

from __future__ import annotations

import contextlib
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from sslcli.data.files.csv_text import csv_lines
from sslcli.errors import MachineError
from sslcli.inference.embeddings.rows import EmbeddedRows
from sslcli.runs.files import replace_file, replacing, sync_folder, write_file
from sslcli.runs.safetensors_file import safetensors

KEY = "sslcli"  # of the metadata of formats that have some
PADDING = 0xD935  # the id of a field of a ZIP entry that aligns it, as of Android's zipalign
EPOCH = (1980, 1, 1, 0, 0, 0)  # of the entries of a ZIP file, so that equal rows give equal bytes


def write(out: Path, rows: EmbeddedRows) -> None:
    """Writes a file by its ending, and the files beside it, each whole or not at all. StorageError."""
    FORMATS[out.suffix.lower()](out, rows)
    sync_folder(out.absolute().parent)


def beside(out: Path, ending: str) -> Path:
    """FILE.npy.csv of FILE.npy."""
    return out.with_name(f"{out.name}{ending}")


def meta_text(rows: EmbeddedRows) -> str:
    return json.dumps(rows.meta, indent=2, ensure_ascii=True, default=str)


# --------------------------------------------------------------------------------------------------------------------- npz


def _write_npz(out: Path, rows: EmbeddedRows) -> None:
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with _entry(archive, "vector") as file:
            _write_vectors(file, rows)
        for column in rows.columns:
            with _entry(archive, column) as file:
                _write_column(file, rows, column)
        with _entry(archive, "meta") as file:
            np.lib.format.write_array(file, np.array(meta_text(rows)), allow_pickle=False)


@contextlib.contextmanager
def _entry(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    info = zipfile.ZipInfo(f"{name}.npy", EPOCH)
    assert archive.fp is not None
    before = archive.fp.tell() + 30 + len(info.filename) + 20  # the header of an entry, with sizes of 64 bits
    padding = 4 + -(before + 4) % 64  # arrays begin at multiples of 64 bytes, so that they can be mapped
    info.extra = PADDING.to_bytes(2, "little") + (padding - 4).to_bytes(2, "little") + bytes(padding - 4)
    with archive.open(info, "w", force_zip64=True) as file:
        yield file


def _write_header(file: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_vectors(file: Any, rows: EmbeddedRows) -> None:
    _write_header(file, np.dtype("<f4"), rows.vectors.shape)
    for part in rows.chunks():
        file.write(np.ascontiguousarray(rows.vectors[part], "<f4").tobytes())


def _write_column(file: Any, rows: EmbeddedRows, column: str) -> None:
    """Text of the width of the longest, or float64. A missing label is "" or NaN."""
    if column == "label" and rows.values():
        dtype, missing = np.dtype("<f8"), np.nan
        parts = ([missing if v is None else v for v in rows.texts(column, part)] for part in rows.chunks())
    else:
        lengths = (len(str(text or "")) for part in rows.chunks() for text in rows.texts(column, part))
        dtype = np.dtype(f"<U{max(1, max(lengths, default=1))}")
        parts = ([text or "" for text in rows.texts(column, part)] for part in rows.chunks())
    _write_header(file, dtype, (len(rows),))
    for cells in parts:
        file.write(np.array(cells, dtype).tobytes())


# ---------------------------------------------------------------------------------------------------- npy and safetensors


def _write_npy(out: Path, rows: EmbeddedRows) -> None:
    _write_csv(out, rows)
    replace_file(out.parent, beside(out, ".json").name, meta_text(rows) + "\n")
    with replacing(out) as temporary, open(temporary, "wb") as file:
        _write_vectors(file, rows)


def _write_safetensors(out: Path, rows: EmbeddedRows) -> None:
    _write_csv(out, rows)
    vectors = {"vector": torch.from_numpy(rows.vectors)}
    with replacing(out) as temporary:
        write_file(temporary, safetensors(vectors, {KEY: meta_text(rows)}))


def _write_csv(out: Path, rows: EmbeddedRows) -> None:
    parts = ([rows.columns], *(rows.cells(part) for part in rows.chunks()))
    with replacing(beside(out, ".csv")) as temporary:
        write_file(temporary, (csv_lines(part).encode("utf-8", "backslashreplace") for part in parts))


# ----------------------------------------------------------------------------------------------------------------- parquet


def _write_parquet(out: Path, rows: EmbeddedRows) -> None:
    pa, parquet = import_parquet()
    kind = pa.float32()
    for size in reversed(rows.vectors.shape[1:]):
        kind = pa.list_(kind, size)
    types = {"label": pa.float64() if rows.values() else pa.string()}
    fields = [pa.field(name, types.get(name, pa.string())) for name in rows.columns]
    schema = pa.schema([*fields, pa.field("vector", kind)], metadata={KEY: meta_text(rows)})
    with replacing(out) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for part in rows.chunks():
            vectors = pa.array(np.ascontiguousarray(rows.vectors[part]).reshape(-1))
            for size in reversed(rows.vectors.shape[1:]):
                vectors = pa.FixedSizeListArray.from_arrays(vectors, size)
            columns = [pa.array(_plain(rows.texts(f.name, part)), f.type) for f in fields]
            writer.write_table(pa.Table.from_arrays([*columns, vectors], schema=schema))


def _plain(cells: list[str | float | None]) -> list[str | float | None]:
    """Parquet holds valid UTF-8 alone: undecodable bytes of file names are escaped."""
    return [c.encode("utf-8", "backslashreplace").decode() if isinstance(c, str) else c for c in cells]


def import_parquet() -> tuple[Any, Any]:
    """pyarrow and its module for Parquet. MachineError."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MachineError(".parquet requires pyarrow", "pip install 'sslcli[table]', or out=FILE.npz") from None
    return pyarrow, parquet


FORMATS: dict[str, Callable[[Path, EmbeddedRows], None]] = {
    ".npz": _write_npz,
    ".npy": _write_npy,
    ".parquet": _write_parquet,
    ".safetensors": _write_safetensors,
}
