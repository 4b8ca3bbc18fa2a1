"""Chest X-rays: the three real sets, any folder, and what a training needs of them (floor 1)."""

from cxr_tutorial.data.batches import Augmentation, Batches
from cxr_tutorial.data.cached import CachedSet, cache
from cxr_tutorial.data.example import Entry, Example, Examples, Finding
from cxr_tutorial.data.folder import load_folder
from cxr_tutorial.data.jsrt import load_jsrt
from cxr_tutorial.data.montgomery import load_montgomery
from cxr_tutorial.data.shenzhen import load_shenzhen
from cxr_tutorial.data.synthetic import load_synthetic

__all__ = [
    "Augmentation",
    "Batches",
    "CachedSet",
    "Entry",
    "Example",
    "Examples",
    "Finding",
    "cache",
    "load_folder",
    "load_jsrt",
    "load_montgomery",
    "load_shenzhen",
    "load_synthetic",
]
