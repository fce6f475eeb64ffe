"""torchvision's ResNets without their classifier, with a stem for small images."""

from __future__ import annotations

from torch import Tensor, nn

from sslcli.backbones.base import Backbone, expect_shape
from sslcli.errors import RequestError

BLOCKS = {18: "resnet18", 34: "resnet34", 50: "resnet50", 101: "resnet101", 152: "resnet152"}


class ResNet(Backbone):
    """He et al., "Deep Residual Learning", CVPR 2016. The parameters keep torchvision's names, `fc` is left out.

    `stem`: `imagenet` is torchvision's (7x7 stride 2, max-pool); `small` is a 3x3 convolution of stride 1 and padding 1
    without max-pool, as SimCLR's appendix B.9 for CIFAR-10; `auto` is `small` when the longer side is at most 64.
    """

    def __init__(
        self, input_shape: tuple[int, ...], depth: int = 18, stem: str = "auto", zero_init_residual: bool = False
    ):
        expect_shape(f"resnet{depth}", input_shape, 3)
        super().__init__(input_shape)
        if depth not in BLOCKS:
            raise RequestError(f"no ResNet of depth {depth}", f"backbone.depth is one of {', '.join(map(str, BLOCKS))}")
        if stem not in ("auto", "small", "imagenet"):
            raise RequestError(f"backbone.stem={stem} is not known", "type backbone.stem=auto, small or imagenet")
        import torchvision

        net = torchvision.models.get_model(BLOCKS[depth], weights=None, zero_init_residual=zero_init_residual)
        channels = input_shape[0]
        self.stem = ("small" if max(input_shape[1:]) <= 64 else "imagenet") if stem == "auto" else stem
        if self.stem == "small":
            net.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
            net.maxpool = nn.Identity()
        elif channels != 3:
            net.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
        if net.conv1.in_channels != 3 or self.stem == "small":
            nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
        self.dim = net.fc.in_features
        for name, child in net.named_children():
            if name != "fc":
                self.add_module(name, child)

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x.flatten(1)
