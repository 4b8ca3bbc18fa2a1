"""The networks: blocks and the segmentor (floor 1)."""

from cxr_tutorial.nets.blocks import AttentionGate, ConvBlock, ProgressiveHead, PyramidInput
from cxr_tutorial.nets.discriminator import JOINS, POOLS, Discriminator
from cxr_tutorial.nets.segmentor import NETS, RULES, WIDTHS, Segmentor, SegmentorOutput, build_segmentor
from cxr_tutorial.nets.summary import Level, Summary, summarize_segmentor

__all__ = [
    "JOINS",
    "NETS",
    "POOLS",
    "RULES",
    "WIDTHS",
    "AttentionGate",
    "ConvBlock",
    "Discriminator",
    "Level",
    "ProgressiveHead",
    "PyramidInput",
    "Segmentor",
    "SegmentorOutput",
    "Summary",
    "build_segmentor",
    "summarize_segmentor",
]
