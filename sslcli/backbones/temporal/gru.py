"""Recurrent network of gated recurrent units (GRU) over the frames of a series or spectrogram."""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.backbones.temporal.frames import FrameBackbone, stride_of


class GRU(FrameBackbone):
    """A linear embedding of each frame, then layers of GRUs with residual connections (Cho et al., EMNLP 2014, arXiv:1406.1078).

    The layers are those of autoregressive predictive coding (Chung & Glass, ICASSP 2020, arXiv:1910.12607), which has 3 of width
    512 and no embedding. Missing values are 0, the mean of a normalized channel; frames without any are not pooled. Because the
    network is causal, padding after the end of a series changes none of its features.

    `center`: subtract from each channel its mean over the sample, which for speech removes what differs between voices and
    microphones (cepstral mean normalization; Atal, JASA 1974). The mean is of all frames: past, future and hidden ones. What
    is the same from the start to the end of a sample, such as the pitch of a steady tone, is then lost.
    `stride`: time steps of a frame; `auto`: 1, 2, 4, ..., for at most 96 frames.
    """

    causal = True

    def __init__(
        self,
        input_shape: tuple[int, ...],
        width: int = 128,
        depth: int = 2,
        stride: int | str = "auto",
        dropout: float = 0.0,
        pool: str = "mean",
        center: bool = False,
    ):
        super().__init__(input_shape, pool)
        self.center = center
        self.stride = stride_of(stride, self.input_shape[-1])
        self.embed = nn.Linear(self.frame_size, width)
        self.layers = nn.ModuleList(nn.GRU(width, width, batch_first=True) for _ in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.set_width(width)

    def steps(self, x: Tensor) -> Tensor:
        x = super().steps(x)
        return x - x.nanmean(dim=2, keepdim=True) if self.center else x

    def frames(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        h = self.embed(self.frame_values(x).nan_to_num())  # (B, N, width)
        if hidden is not None:
            h = h.masked_fill(hidden[:, :, None], 0.0)
        for layer in self.layers:
            h = h + self.dropout(layer(h)[0])
        return h
