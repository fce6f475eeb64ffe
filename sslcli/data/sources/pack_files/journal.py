"""The folder of an unfinished pack: shards, and a journal of flushed samples from which writing resumes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from sslcli.config import typecheck
from sslcli.console import escape, plural
from sslcli.data import notify
from sslcli.data.sources.pack_files.manifest import FILE_SCHEMA, read_manifest, shard_name
from sslcli.errors import DataError, RequestError, RunInUseError
from sslcli.runs import Record
from sslcli.runs.files import MAX_JSON, open_file, parse, size_of

JOURNAL = "journal"
SHARD_BYTES = 512 << 20
ENTRY_SAMPLES, ENTRY_BYTES = 256, 64 << 20  # samples or bytes between two entries of the journal

ENTRY_SCHEMA: dict[str, Any] = {
    "position": int,
    "records": list[list[int]],
    "sealed": list[dict[str, Any]],
    "bad": dict[str, str],
}

PackedSample = tuple[bytes, int, int]  # content, height, width


class PackWriter:
    """Writes the samples of a pack, with a journal: a line that identifies the task, then one for each flushed run of samples.

    position: number of samples processed. bad: name -> reason of those left out.
    """

    def __init__(self, part: Path, identity: Record, total: int):
        self.part, self.identity, self.total = part, identity, total
        self.records: list[list[int]] = []  # position, shard, offset, length, crc, height, width
        self.sealed: list[Record] = []  # bytes and sha256 of each complete shard
        self.bad: dict[str, str] = {}
        self.position = 0
        self.complete = False  # only the renaming is left
        self.hash, self.end = hashlib.sha256(), 0  # of the current shard
        self._shard: BinaryIO | None = None
        self._mark()

    @property
    def written(self) -> int:
        return sum(s["bytes"] for s in self.sealed) + self.end

    def _mark(self) -> None:
        """Remember that everything up to here is in the journal."""
        self.flushed = (len(self.records), len(self.sealed), len(self.bad), self.position, self.written)

    def __enter__(self) -> PackWriter:
        self.journal = os.fdopen(open_file(self.part, JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND), "a+b")
        try:
            self._lock()
            self._recover()
        except BaseException:
            self.journal.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for file in (self._shard, self.journal):
            if file is not None:
                file.close()

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.lockf(self.journal.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunInUseError(
                f"another process is writing {escape(str(self.part))}", "wait for it, or stop that process"
            ) from None

    # ------------------------------------------------------------------------------------------------------ the journal

    def _recover(self) -> None:
        """Resume from the files of an earlier attempt at the same task; delete those of another task."""
        with contextlib.suppress(RequestError, DataError):
            self.complete = read_manifest(self.part)["of"] == self.identity
        if self.complete:
            return
        self.journal.seek(0)
        valid = 0  # bytes of complete entries
        while line := self.journal.readline(MAX_JSON):
            entry = parse(line)
            if not line.endswith(b"\n") or (valid == 0 and entry != {"of": self.identity}):
                break
            if valid and not self._replay(entry):
                break
            valid += len(line)
        if not (valid and self._reopen()):
            self._start_over()
            return
        self.journal.truncate(valid)
        if self.position:
            notify.log(f"resuming after {plural(self.position, 'packed image')}")

    def _replay(self, entry: Record) -> bool:
        """Apply an entry of the journal; False where it is invalid."""
        if not all(typecheck.matches_type(entry.get(key), kind) for key, kind in ENTRY_SCHEMA.items()):
            return False
        records, sealed, position = entry["records"], entry["sealed"], entry["position"]
        if not (
            self.position < position <= self.total
            and all(len(r) == 7 and min(r) >= 0 and r[0] < position for r in records)
            and all(typecheck.matches_type(s.get(key), kind) for s in sealed for key, kind in FILE_SCHEMA.items())
        ):
            return False
        self.records += entry["records"]
        self.sealed += entry["sealed"]
        self.bad |= entry["bad"]
        self.position = position
        return True

    def _reopen(self) -> bool:
        """Truncate the current shard after its last flushed sample and hash it; False where the shards do not match the journal."""
        for i, about in enumerate(self.sealed):
            if size_of(self.part, shard_name(i)) != about["bytes"]:
                return False
        current = [r for r in self.records if r[1] == len(self.sealed)]
        name = shard_name(len(self.sealed))
        if not current:
            (self.part / name).unlink(missing_ok=True)
            self._mark()
            return True
        if (size_of(self.part, name) or 0) < sum(length for _, _, _, length, *_ in current):
            return False
        self._shard = os.fdopen(open_file(self.part, name, os.O_RDWR), "r+b")
        for _, _, _, length, crc, _, _ in current:
            content = self._shard.read(length)
            if zlib.crc32(content) != crc:
                return False
            self.hash.update(content)
            self.end += length
        self._shard.truncate(self.end)
        self._mark()
        return True

    def _start_over(self) -> None:
        if self._shard is not None:
            self._shard.close()
        for path in self.part.iterdir():
            if path.name != JOURNAL:
                path.unlink()
        self.journal.truncate(0)
        self.records, self.sealed, self.bad, self.position, self._shard = [], [], {}, 0, None
        self.hash, self.end = hashlib.sha256(), 0
        self._mark()
        self._append({"of": self.identity})

    def _append(self, entry: Record) -> None:
        self.journal.write(json.dumps(entry).encode() + b"\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def flush(self) -> None:
        """Flush the samples to disk, then append an entry to the journal."""
        if self._shard is not None:
            self._shard.flush()
            os.fsync(self._shard.fileno())
        records, sealed, bad, position, _ = self.flushed
        if self.position > position:
            self._append(
                {
                    "position": self.position,
                    "records": self.records[records:],
                    "sealed": self.sealed[sealed:],
                    "bad": dict(list(self.bad.items())[bad:]),
                }
            )
        self._mark()

    # ------------------------------------------------------------------------------------------------------ the samples

    def add(self, sample: PackedSample | str, name: str) -> None:
        """Add the next sample, or the reason why it is left out."""
        if isinstance(sample, str):
            self.bad[name] = sample
        else:
            self._write(*sample)
        self.position += 1
        if self.position - self.flushed[3] >= ENTRY_SAMPLES or self.written - self.flushed[4] >= ENTRY_BYTES:
            self.flush()

    def _write(self, content: bytes, height: int, width: int) -> None:
        if self.end and self.end + len(content) > SHARD_BYTES:
            self.seal()
        if self._shard is None:
            name = shard_name(len(self.sealed))
            self._shard = os.fdopen(open_file(self.part, name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb")
        self._shard.write(content)
        self.hash.update(content)
        crc = zlib.crc32(content)
        self.records.append([self.position, len(self.sealed), self.end, len(content), crc, height, width])
        self.end += len(content)

    def seal(self) -> None:
        """Complete the current shard."""
        if self._shard is None:
            return
        self._shard.flush()
        os.fsync(self._shard.fileno())
        self._shard.close()
        self._shard = None
        self.sealed.append({"bytes": self.end, "sha256": self.hash.hexdigest()})
        self.hash, self.end = hashlib.sha256(), 0
