"""The pieces a segmentor is made of: convolution block, pyramid input, progressive head, attention gate (floor 1)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from cxr_tutorial.errors import InputError


class BatchNorm2d(nn.BatchNorm2d):
    r"""Batch normalisation, in training on a CPU faster than torch's own for few channels.

    $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}\, w + b$$

    In `channels_last` order torch works through C values at a time; with eight or fewer, two cores get in each other's
    way. Here several pixels make one row of about 256 values: eight channels of 128 x 128 pixels take half the time,
    sixteen would take twice as long. Figures, state and gradients are torch's, in bf16 up to the rounding of products
    before they are summed; there are no gradients of gradients.
    Everywhere else (evaluation, a GPU, plain order, fp16, more channels) it is torch's own.

    >>> x = torch.rand(2, 8, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> bool(torch.allclose(BatchNorm2d(8)(x), nn.BatchNorm2d(8)(x), atol=1e-5))
    True
    """

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W) -> (N, C, H, W)
        if not self._takes(x):
            return super().forward(x)
        out, mean, var = _BatchNorm.apply(x, self.weight, self.bias, self.eps)
        pixels = x.numel() // x.shape[1]
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[arg-type, union-attr]
            self.running_var.lerp_(var * (pixels / max(1, pixels - 1)), self.momentum)  # type: ignore[arg-type, union-attr]
        return out

    def _takes(self, x: Tensor) -> bool:
        usual = self.training and self.affine and self.track_running_stats and self.momentum is not None
        fits = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16) and x.shape[1] <= 8
        return (
            usual
            and fits
            and x.dim() == 4
            and x.is_contiguous(memory_format=torch.channels_last)
            and not torch.compiler.is_compiling()
        )


class _BatchNorm(torch.autograd.Function):
    """What `BatchNorm2d` computes; a row holds the channels of several neighbouring pixels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        rows = _rows(x)
        mean = _channel_mean(rows, x)
        centred = rows - _tiled(mean, rows)
        rest = mean - mean.to(x.dtype)  # what bf16 cannot hold of the mean, and `centred` still has in it
        var = _channel_mean(centred * centred, x) - rest * rest
        inv_std = (var + eps).rsqrt()
        scale = weight * inv_std
        out = torch.empty_like(x)
        torch.addcmul(_tiled(bias - rest * scale, rows), centred, _tiled(scale, rows), out=_rows(out))
        ctx.save_for_backward(centred, rest, weight, inv_std)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        centred, rest, weight, inv_std = ctx.saved_tensors
        grad = grad.contiguous(memory_format=torch.channels_last)
        rows, pixels = _rows(grad), grad.numel() // grad.shape[1]
        bias_slope = _channel_mean(rows, grad)
        weight_slope = (_channel_mean(rows * centred, grad) - rest * bias_slope) * inv_std
        scale = weight * inv_std
        tilt = -scale * inv_std * weight_slope
        out = torch.empty_like(grad)
        torch.addcmul(_tiled(-scale * bias_slope - rest * tilt, rows), rows, _tiled(scale, rows), out=_rows(out))
        _rows(out).addcmul_(centred, _tiled(tilt, rows))
        return out, weight_slope * pixels, bias_slope * pixels, None


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) in channels_last order as (R, k C): rows of k pixels, about 256 values."""
    n, c, h, w = x.shape
    return x.permute(0, 2, 3, 1).reshape(-1, c * math.gcd(n * h * w, max(1, 256 // c)))


def _tiled(values: Tensor, rows: Tensor) -> Tensor:
    """(C,) values once for every pixel of a row."""
    return values.to(rows.dtype).repeat(rows.shape[1] // len(values))


def _channel_mean(rows: Tensor, x: Tensor) -> Tensor:
    """(C,) means over all pixels of `x`, in fp32."""
    channels = x.shape[1]
    return rows.sum(0, dtype=torch.float32).view(-1, channels).sum(0) * (channels / x.numel())


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
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

    $$u_k = \mathrm{ReLU}(W_k * x_k + b_k), \qquad x_{k+1} = \mathrm{AvgPool}_2(x_k), \quad x_1 = x$$

    Introduced in chapter 6.

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
    stride 2, so the sum is made on the gate's grid; `q` is resized to the grid of `x` before the sigmoid.

    Parameters
    ----------
    skip_channels, gate_channels : of `x` and `g`.
    inner_channels : of the sum; default half of the skip's.
    norm : of the output, see `norm_layer`.

    Introduced in chapter 5.

    Source: Oktay et al. 2018, arXiv 1804.03999, and its reference code. That code enlarges `a` after the sigmoid,
    uses the skip's full width inside, and puts one more convolution around its gates: there ours is a choice (d).
    MONAI's `AttentionBlock` takes the gate already enlarged and normalises inside; `tests/nets/test_blocks.py`
    shows where the two agree.

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


class ProgressiveHead(nn.Conv2d):
    r"""One level's prediction, made on top of the coarser level's.

    $$\hat a_m = a_m + \mathrm{Up}_2(\hat a_{m+1}), \qquad a_m = W_m * h_m + b_m$$

    `h_m` is the decoder's feature at level m, `W_m` a 1x1 convolution, `Up_2` bilinear. Without a coarser
    prediction it is the 1x1 convolution alone. The sum is made in the weights' precision, also under autocast.

    Introduced in chapter 7.

    Source: the paper names the idea ("progressive", abstract), not the rule; the running sum is that of P-HNN
    (Harrison et al. 2017, arXiv 1706.03702).

    >>> head = ProgressiveHead(8, 1)
    >>> head(torch.zeros(2, 8, 32, 32), torch.zeros(2, 1, 16, 16)).shape
    torch.Size([2, 1, 32, 32])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 1)

    def forward(self, feature: Tensor, coarser: Tensor | None = None) -> Tensor:
        logits = super().forward(feature).to(self.weight.dtype)
        if coarser is None:
            return logits
        return logits + F.interpolate(coarser, scale_factor=2.0, mode="bilinear", align_corners=False)
