"""The folder of a pack in the making: shards, and a journal of what is flushed, so that it can be gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from sslcli.data import pack, talk
from sslcli.data.talk import count, shown
from sslcli.errors import DataError, RequestError, RunInUseError

JOURNAL = "journal"
SHARD_BYTES = 512 << 20
ENTRY, ENTRY_BYTES = 256, 64 << 20  # samples, or bytes, between two entries of the journal

Made = tuple[bytes, int, int]  # content, height, width


class Writer:
    """The folder in the making, and its journal: a line for the request, then one for each flushed stretch of samples.

    position: how many samples are dealt with. bad: name -> reason of those left out.
    """

    def __init__(self, part: Path, identity: dict[str, Any]):
        self.part, self.identity = part, identity
        self.records: list[list[int]] = []  # position, shard, offset, length, crc, height, width
        self.sealed: list[dict[str, Any]] = []  # bytes and sha256 of each whole shard
        self.bad: dict[str, str] = {}
        self.position = 0
        self.whole = False  # only the renaming is left
        self.hash, self.end = hashlib.sha256(), 0  # of the shard in the making
        self._shard: BinaryIO | None = None
        self._mark()

    @property
    def written(self) -> int:
        return sum(s["bytes"] for s in self.sealed) + self.end

    def _mark(self) -> None:
        """All that is here now is in the journal."""
        self.noted = (len(self.records), len(self.sealed), len(self.bad), self.position, self.written)

    def __enter__(self) -> Writer:
        self.journal = open(self.part / JOURNAL, "a+b")
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
                f"another process writes {shown(str(self.part))}", "wait for it, or stop that process"
            ) from None

    # ------------------------------------------------------------------------------------------------------ the journal

    def _recover(self) -> None:
        """What an earlier attempt at the same left behind is taken over; anything else is thrown away."""
        with contextlib.suppress(RequestError, DataError):
            self.whole = pack.read_manifest(self.part)["of"] == self.identity
        if self.whole:
            return
        self.journal.seek(0)
        whole = 0
        for line in self.journal:
            try:
                entry = json.loads(line)
            except ValueError:
                break  # torn
            if not line.endswith(b"\n") or (whole == 0 and entry != {"of": self.identity}):
                break
            if whole:
                self._take(entry)
            whole += len(line)
        if not (whole and self._reopen()):
            self._start_over()
            return
        self.journal.truncate(whole)
        if self.position:
            talk.say(f"going on behind the {count(self.position, 'image')} that are packed")

    def _take(self, entry: dict[str, Any]) -> None:
        self.records += entry["records"]
        self.sealed += entry["sealed"]
        self.bad |= entry["bad"]
        self.position = entry["position"]

    def _reopen(self) -> bool:
        """The unfinished shard, cut behind its last noted sample and hashed again; False where it does not fit."""
        for i, about in enumerate(self.sealed):
            path = self.part / pack.shard_name(i)
            if not path.is_file() or path.stat().st_size != about["bytes"]:
                return False
        ours = [r for r in self.records if r[1] == len(self.sealed)]
        path = self.part / pack.shard_name(len(self.sealed))
        if not ours:
            path.unlink(missing_ok=True)
            self._mark()
            return True
        if not path.is_file():
            return False
        self._shard = open(path, "r+b")  # noqa: SIM115 - closed in __exit__
        for _, _, _, length, crc, _, _ in ours:
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

    def _append(self, entry: dict[str, Any]) -> None:
        self.journal.write(json.dumps(entry).encode() + b"\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def note(self) -> None:
        """Flushes the samples, then says so in the journal."""
        if self._shard is not None:
            self._shard.flush()
            os.fsync(self._shard.fileno())
        records, sealed, bad, position, _ = self.noted
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

    def add(self, made: Made | str, name: str) -> None:
        """The next sample, or why there is none."""
        if isinstance(made, str):
            self.bad[name] = made
        else:
            self._write(*made)
        self.position += 1
        if self.position - self.noted[3] >= ENTRY or self.written - self.noted[4] >= ENTRY_BYTES:
            self.note()

    def _write(self, content: bytes, height: int, width: int) -> None:
        if self.end and self.end + len(content) > SHARD_BYTES:
            self.seal()
        if self._shard is None:
            self._shard = open(self.part / pack.shard_name(len(self.sealed)), "wb")  # noqa: SIM115
        self._shard.write(content)
        self.hash.update(content)
        crc = zlib.crc32(content)
        self.records.append([self.position, len(self.sealed), self.end, len(content), crc, height, width])
        self.end += len(content)

    def seal(self) -> None:
        """The shard in the making is whole."""
        if self._shard is None:
            return
        self._shard.flush()
        os.fsync(self._shard.fileno())
        self._shard.close()
        self._shard = None
        self.sealed.append({"bytes": self.end, "sha256": self.hash.hexdigest()})
        self.hash, self.end = hashlib.sha256(), 0
