"""ResNets without a classifier, with a stem for small images. Own code, because torchvision takes longer to import than torch."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from sslcli.backbones.base import Backbone
from sslcli.errors import RequestError


class Conv(nn.Conv2d):
    """A convolution without bias, padded to keep the size at stride 1; initialized for a following batch norm and ReLU."""

    def __init__(self, i: int, o: int, size: int, stride: int = 1):
        super().__init__(i, o, size, stride, padding=size // 2, bias=False)

    def reset_parameters(self) -> None:
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


class Block(nn.Module):
    """relu(shortcut(x) + branch(x)); the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, i: int, o: int, stride: int):
        super().__init__()
        self.downsample = None if stride == 1 and i == o else nn.Sequential(Conv(i, o, 1, stride), nn.BatchNorm2d(o))

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no branch")

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(self.branch(x).add_(shortcut), inplace=True)


class Basic(Block):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, i: int, width: int, stride: int):
        super().__init__(i, width, stride)
        self.conv1, self.bn1 = Conv(i, width, 3, stride), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = Conv(width, width, 3), nn.BatchNorm2d(width)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return self.bn2(self.conv2(x))


class Bottleneck(Block):
    """1x1 to `width`, 3x3 with the stride (torchvision's choice; the paper has it in the first), 1x1 to 4 x `width`."""

    expansion = 4

    def __init__(self, i: int, width: int, stride: int):
        super().__init__(i, 4 * width, stride)
        self.conv1, self.bn1 = Conv(i, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = Conv(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = Conv(width, 4 * width, 1), nn.BatchNorm2d(4 * width)

    def branch(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.relu(self.bn2(self.conv2(x)), inplace=True)
        return self.bn3(self.conv3(x))


DEPTHS: dict[int, tuple[type[Basic] | type[Bottleneck], tuple[int, ...]]] = {  # blocks of the four stages
    18: (Basic, (2, 2, 2, 2)),
    34: (Basic, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(Backbone):
    """He et al., "Deep Residual Learning", CVPR 2016. Parameter names and initialization are torchvision's; there is no `fc`.

    `stem`: `imagenet` is torchvision's (7x7 stride 2, max-pool); `small` is a 3x3 convolution of stride 1 without max-pool, as in
    SimCLR's appendix B.9 for CIFAR-10; `auto` is `small` when the longer side is at most 64. `zero_init_residual`: the last norm of
    each branch is initialized with zero (Goyal et al. 2017), so that blocks are the identity initially.
    """

    accepts: ClassVar = {"continuous": (3,)}

    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module

    def __init__(
        self, input_shape: tuple[int, ...], depth: int = 18, stem: str = "auto", zero_init_residual: bool = False
    ):
        super().__init__(input_shape)
        if depth not in DEPTHS:
            raise RequestError(f"no ResNet of depth {depth}", f"backbone.depth is one of {', '.join(map(str, DEPTHS))}")
        if stem not in ("auto", "small", "imagenet"):
            raise RequestError(f"backbone.stem: expected auto, small or imagenet, got {stem!r}", "backbone.stem=auto")
        block, blocks = DEPTHS[depth]
        self.stem = ("small" if max(input_shape[1:]) <= 64 else "imagenet") if stem == "auto" else stem
        small = self.stem == "small"
        self.conv1 = Conv(input_shape[0], 64, *((3, 1) if small else (7, 2)))
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, stride=2, padding=1)
        widths = [64 * block.expansion * 2**stage for stage in range(4)]
        for stage, (i, o) in enumerate(pairwise([64, *widths])):
            first = block(i, o // block.expansion, 2 if stage else 1)
            rest = (block(o, o // block.expansion, 1) for _ in range(blocks[stage] - 1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(first, *rest))
        self.dim = widths[-1]
        if zero_init_residual:
            for module in self.modules():
                if isinstance(module, Basic | Bottleneck):
                    nn.init.zeros_((module.bn2 if isinstance(module, Basic) else module.bn3).weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean(dim=(2, 3))
