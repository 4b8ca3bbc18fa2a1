"""The segmentor S: a U-Net and the three ideas that the paper adds to it, each a flag (floor 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets.blocks import AttentionGate, ConvBlock, ProgressiveHead, PyramidInput

#: channels per level; what each costs and draws stands in chapter 7 and, from records, in the README
WIDTHS: dict[str, tuple[int, ...]] = {
    "tiny": (8, 16, 32, 64),
    "small": (8, 16, 32, 64, 128),
    "base": (32, 64, 128, 256, 512),
}

RULES = ("sum", "concat")

NETS: dict[str, dict[str, Any]] = {
    prefix + "unet": {"pyramid": "p" in prefix, "progressive": "g" in prefix, "attention": "a" in prefix}
    for prefix in ("", "p", "g", "a", "pg", "pa", "ga", "pga")
}
NETS["ppaunet"] = NETS["pgaunet"]


class SegmentorOutput(NamedTuple):
    """What a `Segmentor` returns.

    Attributes
    ----------
    logits : (N, C, H, W), the size of the input.
    side_logits : one (N, C, H/2^m, W/2^m) per coarser level, fine to coarse; empty if not progressive.
    attention : one (N, 1, h, w) map in [0, 1] per gate, fine to coarse; None unless asked for.
    """

    logits: Tensor
    side_logits: tuple[Tensor, ...] = ()
    attention: tuple[Tensor, ...] | None = None


class Segmentor(nn.Module):
    r"""Outlines the lungs: $\hat y = \sigma(S(x))$.

    With the three flags off it is a plain U-Net: `len(widths)` levels of two 3x3 convolutions, max pooling
    down, transposed convolution up, skip connections by concatenation. The flags add, each on its own:

    - `pyramid`: the shrunken picture enters every encoder level below the first (`PyramidInput`);
    - `progressive`: every decoder level predicts (`ProgressiveHead`), and a prediction helps the finer one by
      `rule`: `"sum"`, $\hat a_m = a_m + \mathrm{Up}_2(\hat a_{m+1})$, or `"concat"`, where the coarser
      prediction $\mathrm{Up}_2(\sigma(\hat a_{m+1}))$ enters the finer decoder block as more channels;
    - `attention`: an `AttentionGate` on every skip connection but the finest.

    Parameters
    ----------
    widths : channels per level, fine to coarse; or a name in `WIDTHS`.
    pyramid, progressive, attention : the three ideas.
    in_channels, out_channels : of picture and mask (several masks are independent, not exclusive).
    norm : `"batch"`, `"instance"` or `"group"`.
    rule : how progressive predictions build on each other, `"sum"` or `"concat"`.

    Notes
    -----
    Pictures go in as they did in training, which squeezes each to a square of its own size (`data.cached`) and brings
    it to mean 0 and deviation 1 (`data.images.standardize`). The weights do not hold that size.
    `evaluate.predict_logits` does all of it.

    Any H, W >= 16 works: the picture is padded at the bottom and right by repeating its edge, up to a
    multiple of `2 ** (len(widths) - 1)`, and the logits are cropped back. An exported program (ONNX,
    `torch.export`) keeps its example's padding: export without any, and feed multiples of the same number (`16 *
    Dim("rows")` in `dynamic_shapes`). To *save* one of `torch.export` wrap S in a module that returns
    `S(image).logits`, since the output is a named tuple. (Normalisation of a single picture, or by
    `"instance"`, needs several pixels at the deepest level to *train*: with five levels H or W > 16.)

    The weights lie in `channels_last` memory order, the fastest in training and in use: a convolution answers in its
    weights' order.

    Source: the three ideas are the paper's (abstract); that all eight nets are one class with three
    flags, the widths and the summing rule are this project's reading (see the paper-to-code map).

    Introduced in chapter 5.

    >>> S = Segmentor("tiny", pyramid=False, progressive=False, attention=False)
    >>> S(torch.zeros(2, 1, 17, 30)).logits.shape
    torch.Size([2, 1, 17, 30])
    """

    def __init__(
        self,
        widths: Sequence[int] | str = "small",
        pyramid: bool = True,
        progressive: bool = True,
        attention: bool = True,
        in_channels: int = 1,
        out_channels: int = 1,
        norm: str = "batch",
        rule: str = "sum",
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise InputError(f"unknown progressive rule {rule!r}: choose one of {', '.join(RULES)}")
        w = _checked_widths(widths)
        self.widths, self.pyramid, self.progressive, self.attention = w, pyramid, progressive, attention
        self.in_channels, self.out_channels, self.norm, self.rule = in_channels, out_channels, norm, rule
        finer = range(len(w) - 1)  # the levels that have a decoder
        self.encoder = nn.ModuleList(
            ConvBlock(in_channels if k == 0 else w[k - 1] + pyramid * w[k], w[k], norm) for k in range(len(w))
        )
        self.inputs = nn.ModuleList(PyramidInput(in_channels, w[k]) for k in range(1, len(w)) if pyramid)
        self.up = nn.ModuleList(nn.ConvTranspose2d(w[k + 1], w[k], 2, stride=2) for k in finer)
        self.gates = nn.ModuleList(AttentionGate(w[k], w[k + 1], norm=norm) for k in finer[1:] if attention)
        hints = [out_channels * (progressive and rule == "concat" and k < finer[-1]) for k in finer]
        self.decoder = nn.ModuleList(ConvBlock(2 * w[k] + hints[k], w[k], norm) for k in finer)
        self.heads = nn.ModuleList(ProgressiveHead(w[k], out_channels) for k in (finer if progressive else finer[:1]))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def options(self) -> dict[str, Any]:
        """The arguments that build this segmentor again."""
        names = ("widths", "pyramid", "progressive", "attention", "in_channels", "out_channels", "norm", "rule")
        return {name: getattr(self, name) for name in names}

    def forward(self, image: Tensor, return_attention: bool = False) -> SegmentorOutput:
        if image.dim() != 4 or image.shape[1] != self.in_channels or min(image.shape[-2:]) < 16:
            raise InputError(f"expected images (N, {self.in_channels}, H, W) with H, W >= 16, got {tuple(image.shape)}")
        height, width = image.shape[-2:]
        features = self._encode(_padded(image, 2 ** (len(self.widths) - 1)))
        x = features[-1]
        logits: list[Tensor] = []  # coarse to fine
        maps: list[Tensor] = []
        for k in reversed(range(len(self.decoder))):
            skip = features[k]
            if self.attention and k > 0:
                skip, a = self.gates[k - 1](skip, x)
                maps.append(a)
            parts = [skip, self.up[k](x)]
            if self.rule == "concat" and logits:
                parts.append(F.interpolate(logits[-1].sigmoid(), scale_factor=2.0, mode="bilinear"))
            x = self.decoder[k](torch.cat(parts, dim=1))  # (N, w_k, h_k, w_k)
            if k < len(self.heads):
                coarser = logits[-1] if self.rule == "sum" and logits else None
                logits.append(self.heads[k](x, coarser))
        fine_to_coarse = [
            side[..., : -(-height // 2**m), : -(-width // 2**m)] for m, side in enumerate(reversed(logits))
        ]
        return SegmentorOutput(
            fine_to_coarse[0],
            tuple(fine_to_coarse[1:]),
            tuple(reversed(maps)) if return_attention else None,
        )

    def _encode(self, image: Tensor) -> list[Tensor]:
        """The encoder's features, fine to coarse."""
        features = [self.encoder[0](image)]
        for k in range(1, len(self.encoder)):
            x = F.max_pool2d(features[-1], 2)
            if self.pyramid:
                image = F.avg_pool2d(image, 2)
                x = torch.cat([self.inputs[k - 1](image), x], dim=1)
            features.append(self.encoder[k](x))
        return features


def build_segmentor(net: str = "ppaunet", widths: Sequence[int] | str = "small", **options: Any) -> Segmentor:
    """The segmentor called `net`: `unet` and the flags' initials before it (p, g, a).

    Introduced in chapter 6.

    >>> build_segmentor("aunet", "tiny").attention
    True
    """
    if net not in NETS:
        raise InputError(f"unknown net {net!r}: choose one of {', '.join(NETS)}")
    return Segmentor(widths, **NETS[net], **options)


def _checked_widths(widths: Sequence[int] | str) -> tuple[int, ...]:
    if isinstance(widths, str):
        if widths not in WIDTHS:
            raise InputError(f"unknown widths {widths!r}: choose one of {', '.join(WIDTHS)}, or give numbers")
        return WIDTHS[widths]
    if not 2 <= len(widths) <= 5 or min(widths) < 1:
        raise InputError(f"widths must be 2 to 5 positive numbers, got {tuple(widths)}")
    return tuple(widths)


def _padded(image: Tensor, multiple: int) -> Tensor:
    """The image, its bottom and right edge repeated up to a multiple of `multiple`."""
    down, right = (-image.shape[-2]) % multiple, (-image.shape[-1]) % multiple
    return F.pad(image, (0, right, 0, down), mode="replicate") if down or right else image
