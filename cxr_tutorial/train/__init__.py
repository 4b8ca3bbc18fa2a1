"""Training: what is minimised and how (floor 2)."""

from cxr_tutorial.train.adversarial import GAMES, MASK_VIEWS, Game, GameFit, fit_appaunet
from cxr_tutorial.train.baselines import fit_classifier, fit_cross_pseudo, fit_mean_teacher
from cxr_tutorial.train.checkpoint import load_discriminator, load_weights, save_weights
from cxr_tutorial.train.loop import Fit
from cxr_tutorial.train.monitor import diagnose
from cxr_tutorial.train.objectives import segmentation_terms
from cxr_tutorial.train.recipe import Budget, Recipe
from cxr_tutorial.train.supervised import fit_segmentor

__all__ = [
    "GAMES",
    "MASK_VIEWS",
    "Budget",
    "Fit",
    "Game",
    "GameFit",
    "Recipe",
    "diagnose",
    "fit_appaunet",
    "fit_classifier",
    "fit_cross_pseudo",
    "fit_mean_teacher",
    "fit_segmentor",
    "load_discriminator",
    "load_weights",
    "save_weights",
    "segmentation_terms",
]
