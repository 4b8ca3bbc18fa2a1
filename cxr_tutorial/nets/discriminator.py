"""The discriminator D: it reads a picture and a mask, and names the disease or "predicted" (floor 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets.blocks import norm_layer

JOINS = ("concat", "product", "sum", "mask")
POOLS = ("mean", "max", "both")


class Discriminator(nn.Module):
    r"""Names the class of a pair (picture, mask): one of K diseases, or "the mask is predicted".

    $$D(x, m) \in \mathbb{R}^{K+1}, \qquad q = \mathrm{softmax}(D(x, m))$$

    $q_k$ is the probability of real class k < K, $q_K$ that the mask is predicted.

    A conv-net: per level a 4x4 convolution of stride 2 and, if `depth` is 2, a 3x3 convolution, each with normalisation
    and LeakyReLU(.2); then the mean over all pixels gives the features f, and one linear layer the logits.

    Parameters
    ----------
    num_classes : K, the real classes. The logits have one more, the last: `Discriminator.PREDICTED`.
    widths : channels per level.
    depth : convolutions per level, 1 or 2.
    join : how picture and mask meet. `"concat"`: as channels of one input; `"product"`: the picture inside the mask,
        x m, and the mask as channels (Luc et al. 2016, arXiv 1611.08408), for one mask; `"sum"`: each has a first
        convolution, and these are added; `"mask"`: the picture is not looked at.
    norm : `"none"`, `"batch"`, `"instance"` or `"group"`.
    spectral_norm : bound each layer's slope (Miyato et al. 2018).
    dropout : share of the features f that training sets to 0.
    pool : what is taken over all pixels: `"mean"`, `"max"`, which a small finding cannot drown in, or `"both"`.
    image_channels, mask_channels : of picture and mask.

    Notes
    -----
    The paper says "a conv-net" and draws picture and mask joined by a plus sign; what the plus does, depth, widths and
    normalisation are not known. The stride-2 trunk is that of Hung et al. 2018 (arXiv 1802.07934).

    Introduced in chapter 8.

    >>> D = Discriminator(num_classes=2)
    >>> logits = D(torch.zeros(4, 1, 64, 64), torch.zeros(4, 1, 64, 64))
    >>> logits.shape, logits[:, Discriminator.PREDICTED].shape
    (torch.Size([4, 3]), torch.Size([4]))
    """

    PREDICTED: ClassVar[int] = -1

    def __init__(
        self,
        num_classes: int = 2,
        widths: Sequence[int] = (16, 32, 64, 128),
        depth: int = 2,
        join: str = "concat",
        norm: str = "batch",
        spectral_norm: bool = False,
        dropout: float = 0.0,
        pool: str = "mean",
        image_channels: int = 1,
        mask_channels: int = 1,
    ) -> None:
        super().__init__()
        if join not in JOINS:
            raise InputError(f"unknown join {join!r}: choose one of {', '.join(JOINS)}")
        if pool not in POOLS:
            raise InputError(f"unknown pool {pool!r}: choose one of {', '.join(POOLS)}")
        if num_classes < 1 or not widths or min(widths) < 1 or depth not in (1, 2):
            raise InputError(
                f"a discriminator needs at least one class, positive widths and depth 1 or 2, got {num_classes}, "
                f"{tuple(widths)}, {depth}"
            )
        if join == "product" and mask_channels != 1:
            raise InputError(f"join 'product' multiplies the picture by one mask, got mask_channels {mask_channels}")
        self.num_classes, self.widths, self.depth, self.join = num_classes, tuple(widths), depth, join
        self.norm, self.spectral_norm, self.dropout, self.pool = norm, spectral_norm, dropout, pool
        self.image_channels, self.mask_channels = image_channels, mask_channels

        def conv(inner: int, outer: int, kernel: int, stride: int) -> nn.Module:
            layer = nn.Conv2d(inner, outer, kernel, stride, padding=1)
            return nn.utils.parametrizations.spectral_norm(layer) if spectral_norm else layer

        def after(channels: int) -> list[nn.Module]:
            normed = [] if norm == "none" else [norm_layer(norm, channels)]
            return [*normed, nn.LeakyReLU(0.2, inplace=True)]

        stacked = image_channels * (join in ("concat", "product")) + mask_channels
        self.first = conv(stacked, widths[0], 4, 2)
        self.first_of_image = conv(image_channels, widths[0], 4, 2) if join == "sum" else None
        trunk = after(widths[0])
        for k, width in enumerate(widths):
            if k:
                trunk += [conv(widths[k - 1], width, 4, 2), *after(width)]
            if depth == 2:
                trunk += [conv(width, width, 3, 1), *after(width)]
        self.trunk = nn.Sequential(*trunk)
        self.head = nn.Linear(widths[-1] * (2 if pool == "both" else 1), num_classes + 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that build this discriminator again."""
        names = ("num_classes", "widths", "depth", "join", "norm", "spectral_norm", "dropout", "pool")
        return {name: getattr(self, name) for name in (*names, "image_channels", "mask_channels")}

    def features(self, image: Tensor, mask: Tensor) -> Tensor:
        """f(x, m), (N, widths[-1]): the mean over all pixels of the last level; twice as many if `pool` is `"both"`."""
        smallest = 2 ** len(self.widths)
        fits = image.dim() == mask.dim() == 4 and image.shape[-2:] == mask.shape[-2:] and len(image) == len(mask)
        fits = fits and (image.shape[1], mask.shape[1]) == (self.image_channels, self.mask_channels)
        if not fits or min(image.shape[-2:]) < smallest:
            raise InputError(
                f"expected N pictures of {self.image_channels} channels and N masks of {self.mask_channels}, of one "
                f"size, at least {smallest} pixels a side, got {tuple(image.shape)} and {tuple(mask.shape)}"
            )
        if self.join == "product":
            image = image * mask
        x = self.first(torch.cat([image, mask], dim=1) if self.join in ("concat", "product") else mask)
        if self.first_of_image is not None:
            x = x + self.first_of_image(image)
        last = self.trunk(x)  # (N, widths[-1], h, w)
        pooled = {"mean": last.mean, "max": last.amax}
        return torch.cat([take(dim=(2, 3)) for name, take in pooled.items() if self.pool in (name, "both")], dim=1)

    def classify(self, features: Tensor) -> Tensor:
        """The logits of features f, (N, K + 1)."""
        return self.head(nn.functional.dropout(features, self.dropout, self.training)).float()

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:  # (N, C, H, W), (N, M, H, W) -> (N, K + 1)
        return self.classify(self.features(image, mask))
