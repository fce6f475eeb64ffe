"""Rules for `train.batch_size`, the global batch of one optimizer step."""

from __future__ import annotations

from sslcli.errors import RequestError


def check_batch_size(batch_size: int, accumulate: int, world_size: int = 1, samples: int | None = None) -> None:
    """RequestError unless `batch_size` splits into `accumulate` micro-batches on each of `world_size` processes and is at most
    `samples`, the size of the training split (None: not known yet)."""
    parts = accumulate * world_size
    if batch_size < 1 or accumulate < 1:
        raise RequestError(f"train.batch_size={batch_size}, train.accumulate={accumulate}: expected at least 1")
    if batch_size % parts:
        processes = f" x {world_size} processes" if world_size > 1 else ""
        raise RequestError(
            f"train.batch_size={batch_size} is not divisible by train.accumulate={accumulate}{processes}",
            f"train.batch_size={max(1, round(batch_size / parts)) * parts}; it is the global batch of one optimizer step",
        )
    if samples is not None and batch_size > samples:
        raise RequestError(
            f"train.batch_size={batch_size} is larger than the training split ({samples:,} samples)",
            f"train.batch_size=auto, or {_multiple(_half(samples), parts)}",
        )


def auto_batch_size(samples: int, usual: int, parts: int = 1) -> int:
    """The value of `train.batch_size=auto`: a multiple of `parts` (micro-batches times processes).

    It is `usual`, that of the kind of data; for fewer samples the largest power of two of which two fit into an epoch."""
    return _multiple(usual if samples >= usual else _half(samples), parts)


def _half(samples: int) -> int:
    """The largest power of two that is at most half of `samples`, and at least 2."""
    return max(2, 1 << max(0, samples.bit_length() - 2))


def _multiple(size: int, parts: int) -> int:
    return max(1, size // parts) * parts
