"""Training: what is minimised and how (floor 2)."""

from cxr_tutorial.train.checkpoint import load_weights, save_weights
from cxr_tutorial.train.objectives import segmentation_terms
from cxr_tutorial.train.supervised import Budget, Fit, Recipe, fit_segmentor

__all__ = ["Budget", "Fit", "Recipe", "fit_segmentor", "load_weights", "save_weights", "segmentation_terms"]
