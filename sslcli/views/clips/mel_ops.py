"""Ops on normalized log-mel spectrograms (B, 1, F, T): mixing, resized crops, masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.data.audio.mel import LogMel, to_hz, to_mel
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.audio.statistics import middle, wave
from sslcli.data.dataset import Dataset, Source
from sslcli.errors import BadSample
from sslcli.rng import Draw, derive, order
from sslcli.views.clips.wave_ops import AudioOp, Gain, Noise, Shift, Window
from sslcli.views.op import Op, Params, between, constant, interval, number
from sslcli.views.signals.spans import Spans

POOL = 512  # clips that are mixed into others


class MelOp(AudioOp):
    """An op that knows how spectrograms are normalized."""

    domain = "mel"

    def mean(self, device: torch.device) -> Tensor:
        """(F, 1)"""
        return constant(self.preprocessor.mean, device)[:, None]

    def std(self, device: torch.device) -> Tensor:
        """(F, 1)"""
        return constant(self.preprocessor.std, device)[:, None]

    def silence(self, device: torch.device) -> Tensor:
        """(F, 1): normalized log-mel of no sound."""
        return (self.preprocessor.mel.log_floor - self.mean(device)) / self.std(device)


class Mix(MelOp):
    """Mix with another clip, whose power is at most a share `share`: log((1 - a) exp(x) + a exp(z)), a uniform in
    0..share (log-mixup-exp of Niizumi et al., "BYOL for Audio", IJCNN 2021, eq. (2)).

    z is one of at most 512 training clips, a fixed random sample, instead of one of the views before: so the view of
    a clip does not depend on the batches before it. x and z are powers of the spectrogram, not normalized ones."""

    name = "mix"

    def __init__(self, share: float = 0.4, p: float = 1.0):
        self.share = number("share", share, 0.0, 1.0)
        self.p = p
        self.source: Source | None = None
        self.frames = 0
        self._pool: dict[torch.device, Tensor] = {}

    def bind(self, shape: tuple[int, ...]) -> str | None:
        self.frames = shape[-1]
        return None

    def attach(self, dataset: Dataset, preprocessor: AudioPreprocessor) -> None:
        super().attach(dataset, preprocessor)
        self.source = dataset.pretrain

    def uniforms(self) -> dict[str, int]:
        return {"share": 1, "other": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        return {"share": u["share"][:, 0].double() * self.share, "other": u["other"][:, 0].double()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        pool, mean, std = self.pool(x.device), self.mean(x.device), self.std(x.device)
        z = pool[(params["other"] * len(pool)).long().clamp(max=len(pool) - 1)][:, None]
        a = params["share"].to(x.dtype).view(-1, 1, 1, 1)
        return (torch.logaddexp(torch.log1p(-a) + (x * std + mean), torch.log(a) + z) - mean) / std

    def pool(self, device: torch.device) -> Tensor:
        """(m, F, T): log-mel spectrograms, not normalized, of the middle of training clips."""
        if device not in self._pool:
            self._pool[device] = self._read().to(device)
        return self._pool[device]

    def _read(self) -> Tensor:
        assert self.source is not None
        mel = self.preprocessor.mel
        log_mel, samples, out = LogMel(mel), mel.samples(self.frames), []
        for i in order(derive(0, "mix"), 0, len(self.source))[:POOL].tolist():
            if i in self.source.bad:
                continue
            try:
                part = middle(self.source.read(i), samples)
            except BadSample:
                continue  # counted when samples are loaded
            out.append(log_mel(wave(torch.nn.functional.pad(part, (0, samples - len(part))))[None])[0])
        return torch.stack(out) if out else torch.full((1, mel.bands, self.frames), mel.log_floor)


class ResizeCrop(MelOp):
    """A random part of the spectrogram, resized linearly to its full size: other pitches and speeds (Niizumi et al.,
    "BYOL for Audio", IJCNN 2021, Sec. II-B).

    `bands`, `time`: ranges of the part's height and width, as fractions. `room`: the part is cut from an area that
    is this much wider than the spectrogram, in which there is silence before and after it; a part that is higher
    than F is cut to F. Deviations: silence in place of zeros, which are loud, and linear interpolation in place of
    bicubic."""

    name = "resize_crop"

    def __init__(
        self,
        bands: float | Sequence[float] = (0.6, 1.5),
        time: float | Sequence[float] = (0.6, 1.5),
        room: float = 1.5,
        p: float = 1.0,
    ):
        self.bands, self.time = interval("bands", bands, 0.05, 20.0), interval("time", time, 0.05, 20.0)
        self.room = number("room", room, 1.0, 20.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"bands": 2, "time": 2}

    def params(self, u: dict[str, Tensor]) -> Params:
        """The height and the width as fractions, and where the part begins, 0..1 of the room for it."""
        bands, time = u["bands"].double(), u["time"].double()
        return {
            "height": between(bands[:, 0], *self.bands),
            "width": between(time[:, 0], *self.time),
            "top": bands[:, 1],
            "left": time[:, 1],
        }

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        rows = _weights(x.shape[2], x.shape[2], params["height"], params["top"]).to(x.dtype)
        columns = _weights(x.shape[3], int(self.room * x.shape[3]), params["width"], params["left"]).to(x.dtype)
        silence = self.silence(x.device)
        return (rows @ (x - silence)[:, 0] @ columns.transpose(1, 2))[:, None] + silence


class FrequencyWarp(MelOp):
    """Vocal tract length perturbation (Jaitly & Hinton, ICML 2013 workshop on deep learning for audio, Sec. 2): the frequencies of
    a clip divided by a `factor`, a range, as if the speaker's vocal tract were so much longer. What is said stays the same.

    The spectrum at f moves to f / factor, below 3/5 of the highest frequency (4,800 of 8,000 Hz in the paper), and linearly from
    there so that the highest frequency stays. Deviation: the bands of the log-mel spectrogram are interpolated linearly, in place
    of moving the filters over the Fourier transform."""

    name = "frequency_warp"

    def __init__(self, factor: float | Sequence[float] = (0.8, 1.25), p: float = 1.0):
        self.factor = interval("factor", factor, 0.1, 10.0)
        self.p = p

    def uniforms(self) -> dict[str, int]:
        return {"factor": 1}

    def params(self, u: dict[str, Tensor]) -> Params:
        low, high = (math.log(v) for v in self.factor)
        return {"factor": between(u["factor"][:, 0].double(), low, high).exp()}

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        mean, std = self.mean(x.device), self.std(x.device)
        rows = self.weights(params["factor"]).to(x.dtype)
        floor = self.preprocessor.mel.log_floor
        power = (rows @ (x[:, 0] * std + mean - floor))[:, None] + floor
        return (power - mean) / std

    def weights(self, factor: Tensor) -> Tensor:
        """(B, F, F): how much of each band each band of the output takes, for factors (B,)."""
        mel = self.preprocessor.mel
        ends = to_mel(torch.tensor([mel.f_min, mel.f_max], dtype=torch.float64, device=factor.device), mel.scale)
        step = (ends[1] - ends[0]) / (mel.bands + 1)
        bands = torch.arange(mel.bands, dtype=torch.float64, device=factor.device)
        hz = to_hz(ends[0] + step * (bands + 1), mel.scale)
        source = to_mel(warped(hz, factor[:, None], mel.f_max), mel.scale)
        at = ((source - ends[0]) / step - 1).clamp(0, mel.bands - 1)
        return (1 - (at[:, :, None] - bands).abs()).clamp(min=0)


def warped(hz: Tensor, factor: Tensor, highest: float) -> Tensor:
    """The frequencies from which `FrequencyWarp` takes those of its output: hz * factor, with a bend so that `highest` stays."""
    bend = 0.6 * highest * factor.clamp(max=1) / factor  # of the output
    end = highest - bend
    return torch.where(hz <= bend, hz * factor, highest - (highest - bend * factor) / end * (highest - hz))


def _weights(size: int, area: int, fraction: Tensor, place: Tensor) -> Tensor:
    """(B, size, size): how much of each of `size` places, in the middle of an area of `area` places, an output
    takes; nothing beyond them. The part has a `fraction` (B,) of `size`, and begins at `place` (B,) 0..1 of the
    room."""
    part = (fraction * size).floor().clamp(1, area)
    start = (place * (area - part + 1)).floor() - (area - size) // 2
    steps = torch.arange(size, dtype=torch.float64, device=fraction.device)
    at = start[:, None] + steps * ((part - 1) / max(1, size - 1))[:, None]
    return (1 - (at[:, :, None] - steps).abs()).clamp(min=0)


class _Stripes(Spans, MelOp):
    """Set `spans` stripes across one axis, each of up to a fraction `ratio` of it, to the mean of the spectrogram
    (Park et al., "SpecAugment", Interspeech 2019)."""

    axis: int

    def apply(self, x: Tensor, params: Params, draw: Draw) -> Tensor:
        size = x.shape[self.axis]
        hidden = self.hidden(params, size, torch.full((len(x),), size, device=x.device))
        where = hidden[:, None, None] if self.axis == 3 else hidden[:, None, :, None]
        return torch.where(where, x.mean(dim=(2, 3), keepdim=True), x)


class TimeMask(_Stripes):
    __doc__ = _Stripes.__doc__
    name = "time_mask"
    axis = 3


class BandMask(_Stripes):
    __doc__ = _Stripes.__doc__
    name = "band_mask"
    axis = 2


OPS: dict[str, type[Op]] = {
    op.name: op for op in (Window, Gain, Shift, Noise, Mix, ResizeCrop, FrequencyWarp, TimeMask, BandMask)
}
