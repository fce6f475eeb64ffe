"""Views of audio: log-mel spectrograms (1, F, T) float32, normalized by band, of clips of any lengths.

Raw samples are int16 waves at one rate. Padding is silence: zeros of the wave, never of the normalized spectrogram,
where 0 is the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslcli.data.audio.preprocessor import AudioPreprocessor
from sslcli.data.dataset import Dataset, Preprocessor
from sslcli.data.user_files.audio import read_audio_files
from sslcli.data.user_files.samples import UserFiles
from sslcli.views.clips.mel_ops import OPS
from sslcli.views.clips.view import AudioView, preprocessor_of
from sslcli.views.grid import GridModality
from sslcli.views.op import Op
from sslcli.views.preview.base import Preview
from sslcli.views.preview.spectrogram import Spectrogram


class AudioModality(GridModality):
    """Clips of audio."""

    noun = ("clip", "clips")
    ops = OPS
    unit = "standard deviations of the band"
    raw_limit = 32  # places on an axis

    def view(self, ops: list[Op], dataset: Dataset) -> AudioView:
        return AudioView(ops, dataset)

    def describe(self, shape: tuple[int, ...]) -> str:
        return f"log-mel spectrogram of {shape[1]} bands x {shape[2]} frames"

    def read_files(self, paths: Sequence[str], preprocessor: Preprocessor, notes: list[str]) -> UserFiles:
        assert isinstance(preprocessor, AudioPreprocessor), preprocessor
        return read_audio_files(paths, preprocessor, notes)

    def preview(self, x: Tensor, dataset: Dataset) -> list[Preview]:
        known = preprocessor_of(dataset)
        mean, std = (torch.tensor(v)[:, None] for v in (known.mean, known.std))
        levels = x.detach().float().cpu()[:, 0] * std + mean
        seconds = known.mel.samples(x.shape[-1]) / known.mel.rate
        return [Spectrogram(each, seconds) for each in levels]
