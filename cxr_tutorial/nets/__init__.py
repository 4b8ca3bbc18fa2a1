"""The networks: blocks and the segmentor (floor 1)."""

from cxr_tutorial.nets.blocks import AttentionGate, ConvBlock, ProgressiveHead, PyramidInput
from cxr_tutorial.nets.segmentor import NETS, WIDTHS, Segmentor, SegmentorOutput, build_segmentor

__all__ = [
    "NETS",
    "WIDTHS",
    "AttentionGate",
    "ConvBlock",
    "ProgressiveHead",
    "PyramidInput",
    "Segmentor",
    "SegmentorOutput",
    "build_segmentor",
]
