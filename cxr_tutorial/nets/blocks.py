"""The pieces a segmentor is made of: convolution block, pyramid input, attention gate (floor 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxr_tutorial.errors import InputError


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation, without the slow path that torch takes on a CPU for few channels.

    In `channels_last` order torch's backward pass is vectorised over channels; with fewer than 16 it is several
    times slower than in plain order, copies there and back included. The figures are the same.

    >>> x = torch.rand(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> y = BatchNorm2d(8)(x)
    >>> bool(torch.allclose(y, nn.BatchNorm2d(8)(x), atol=1e-5)), y.is_contiguous(memory_format=torch.channels_last)
    (True, True)
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if self.training and x.device.type == "cpu" and x.shape[1] < 16 and not x.is_contiguous():
            return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)
        return super().forward(x)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "group": lambda channels: nn.GroupNorm(min(8, channels), channels),
}


def norm_layer(name: str, channels: int) -> nn.Module:
    """The normalisation called `name`: `"batch"`, `"instance"` or `"group"`.

    >>> norm_layer("group", 16).num_groups
    8
    """
    if name not in NORMS:
        raise InputError(f"unknown norm {name!r}: choose one of {', '.join(NORMS)}")
    return NORMS[name](channels)


class ConvBlock(nn.Sequential):
    """Two times 3x3 convolution, normalisation, ReLU: the U-Net's unit at every level.

    >>> ConvBlock(1, 8)(torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, norm: str = "batch") -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            layers += [
                nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                norm_layer(norm, out_channels),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class PyramidInput(nn.Module):
    r"""The picture itself, shrunk, as a second input of an encoder level.

    $$u_k = \mathrm{ReLU}(W_k * x_k), \qquad x_{k+1} = \mathrm{AvgPool}_2(x_k), \quad x_1 = x$$

    Source: the paper names the idea ("receives the image input x at different scales", abstract); the form
    is that of Abraham & Khan 2019 (arXiv 1810.07842).

    >>> PyramidInput(1, 8)(torch.zeros(2, 1, 16, 16)).shape  # x_k is already shrunk
    torch.Size([2, 8, 16, 16])
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)

    def forward(self, small_image: Tensor) -> Tensor:  # (N, in, h, w) -> (N, width, h, w)
        return F.relu(self.conv(small_image))


class AttentionGate(nn.Module):
    r"""Weights each pixel of a skip connection by how much the coarser level asks for it.

    $$q = \psi^T\,\mathrm{ReLU}(W_x x + W_g g + b_g) + b_\psi, \qquad a = \sigma(q), \qquad
    \hat x = \mathrm{BN}(W_o (a \cdot x))$$

    `x` is the skip feature, `g` the gate: the decoder's feature one level coarser. `W_x` has kernel and
    stride 2, so the sum is made on the gate's grid; `a` is resized to the grid of `x`.

    Source: Oktay et al. 2018, arXiv 1804.03999, and the layer details of its reference code.

    >>> gate = AttentionGate(8, 16)
    >>> x_hat, a = gate(torch.zeros(2, 8, 32, 32), torch.zeros(2, 16, 16, 16))
    >>> x_hat.shape, a.shape
    (torch.Size([2, 8, 32, 32]), torch.Size([2, 1, 32, 32]))
    """

    def __init__(
        self, skip_channels: int, gate_channels: int, inner_channels: int | None = None, norm: str = "batch"
    ) -> None:
        super().__init__()
        inner = inner_channels or max(1, skip_channels // 2)
        self.w_x = nn.Conv2d(skip_channels, inner, 2, stride=2, bias=False)
        self.w_g = nn.Conv2d(gate_channels, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)
        self.out = nn.Sequential(nn.Conv2d(skip_channels, skip_channels, 1), norm_layer(norm, skip_channels))

    def forward(self, skip: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        q = self.psi(F.relu(self.w_x(skip) + self.w_g(gate)))  # (N, 1, h/2, w/2)
        a = torch.sigmoid(F.interpolate(q, size=skip.shape[-2:], mode="bilinear", align_corners=False))
        return self.out(a * skip), a
