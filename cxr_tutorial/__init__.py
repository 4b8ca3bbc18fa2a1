"""Semi-supervised multi-task learning with chest X-rays: the package that the book builds.

>>> import cxr_tutorial as cxr
>>> cxr.build_segmentor("unet", "tiny").progressive
False
"""

from cxr_tutorial import evaluate, losses, metrics
from cxr_tutorial.data import (
    Augmentation,
    Batches,
    CachedSet,
    Entry,
    Example,
    Examples,
    Finding,
    cache,
    load_folder,
    load_jsrt,
    load_montgomery,
    load_shenzhen,
    load_synthetic,
)
from cxr_tutorial.data.splits import label_budget, patient_split, public_folds, public_split
from cxr_tutorial.errors import InputError
from cxr_tutorial.losses import LOSSES, get_loss
from cxr_tutorial.nets import NETS, Segmentor, build_segmentor, summarize_segmentor
from cxr_tutorial.results import load_records
from cxr_tutorial.train import Recipe, fit_segmentor, load_weights, save_weights

__version__ = "0.1.0"

__all__ = [
    "LOSSES",
    "NETS",
    "Augmentation",
    "Batches",
    "CachedSet",
    "Entry",
    "Example",
    "Examples",
    "Finding",
    "InputError",
    "Recipe",
    "Segmentor",
    "build_segmentor",
    "cache",
    "evaluate",
    "fit_segmentor",
    "get_loss",
    "label_budget",
    "load_folder",
    "load_jsrt",
    "load_montgomery",
    "load_records",
    "load_shenzhen",
    "load_synthetic",
    "load_weights",
    "losses",
    "metrics",
    "patient_split",
    "public_folds",
    "public_split",
    "save_weights",
    "summarize_segmentor",
]
