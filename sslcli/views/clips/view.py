"""One view of clips: a window of each, ops on waves, the normalized log-mel spectrogram, ops on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.data.audio.clips import FULL_SCALE, Clip, cut
from sslcli.data.audio.mel import LogMel
from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.dataset import Dataset
from sslcli.data.storage import Ragged, RaggedBatch
from sslcli.errors import RequestError
from sslcli.rng import Draw
from sslcli.views.clips.wave_ops import AudioOp, Window
from sslcli.views.op import Op, OpRandoms, constant, parts


class AudioView:
    """Clips of any lengths, int16 -> (B, 1, F, T) float32. What a clip is too short for is silence."""

    def __init__(self, ops: list[Op], dataset: Dataset):
        self.preprocessor = preprocessor_of(dataset)
        self.values = dataset.values
        self.shape = tuple(dataset.shape)
        self.ops = ops
        by_domain: dict[str, list[Op]] = {"window": [], "wave": [], "mel": []}
        for op in ops:
            assert isinstance(op, AudioOp), op
            if op.domain == "wave" and by_domain["mel"]:
                later = by_domain["mel"][0].name
                raise RequestError(
                    f"augmentation: {op.name} changes the wave: it must come before {later}, which changes its spectrogram"
                )
            op.attach(dataset, self.preprocessor)
            by_domain[op.domain].append(op)
            self.shape = op.out_shape(self.shape)
        self.window = next((op for op in by_domain["window"] if isinstance(op, Window)), None)
        self.wave_ops, self.mel_ops = by_domain["wave"], by_domain["mel"]
        self.samples = self.preprocessor.mel.samples(self.shape[-1])
        self.log_mel = LogMel(self.preprocessor.mel)

    def resident(self, raw: RaggedBatch | Tensor, draw: Draw) -> Tensor:
        """Clips -> (B, *shape)."""
        if isinstance(raw, Tensor):
            ends = torch.arange(len(raw) + 1, device=raw.device) * raw.shape[1]
            raw = RaggedBatch(Ragged(raw.flatten(), ends), torch.arange(len(raw), device=raw.device))
        randoms = OpRandoms(self.ops, draw, raw.device)
        return self._finish(raw.gather(self._start(raw.lengths, randoms), self.samples), randoms)

    def frame(self, samples: Sequence[Clip], draw: Draw) -> Tensor:
        """The windows of clips that are read one at a time, (B, n) int16."""
        lengths = torch.tensor([len(clip) for clip in samples])
        starts = self._start(lengths, OpRandoms(self.ops, draw, torch.device("cpu"))).tolist()
        return torch.stack([cut(clip, start, self.samples) for clip, start in zip(samples, starts, strict=True)])

    def finish(self, frame: Tensor, draw: Draw) -> Tensor:
        """The output of `frame` -> (B, *shape)."""
        return self._finish(frame, OpRandoms(self.ops, draw, frame.device))

    def _start(self, lengths: Tensor, randoms: OpRandoms) -> Tensor:
        """The first sample of each view; of a clean one, the middle of a longer clip, or the start of a shorter
        one."""
        if self.window is None:
            return (lengths - self.samples).clamp(min=0) // 2
        params, _ = randoms.params(self.window)
        return self.window.start(lengths, self.samples, params)

    def _finish(self, windows: Tensor, randoms: OpRandoms) -> Tensor:
        device = windows.device
        mean, std = (constant(v, device)[:, None] for v in (self.preprocessor.mean, self.preprocessor.std))
        shift, scale = (constant(v, device) for v in (self.values.mean, self.values.std))
        out = torch.empty(len(windows), *self.shape, device=device)
        for part in parts(len(windows), 4 * self.samples, device):
            x = windows[part].to(torch.float32) / FULL_SCALE
            x = randoms.run(self.wave_ops, x, part)
            x = ((self.log_mel(x) - mean) / std)[:, None]
            x = randoms.run(self.mel_ops, x, part)
            out[part] = (x - shift) / scale
        return out


def preprocessor_of(dataset: Dataset) -> AudioPreprocessor:
    assert isinstance(dataset.preprocessor, AudioPreprocessor), dataset.preprocessor
    return dataset.preprocessor
