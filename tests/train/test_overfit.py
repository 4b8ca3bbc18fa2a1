"""Every net can learn: four pictures by heart, with the one loop that trains them all."""

import numpy as np
import pytest
import torch

from cxr_tutorial.data import cache, load_synthetic
from cxr_tutorial.data.batches import NO_AUGMENTATION
from cxr_tutorial.evaluate import evaluate
from cxr_tutorial.nets import NETS, build_segmentor
from cxr_tutorial.train import Recipe, fit_segmentor

SIZE = 64


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    examples = load_synthetic(4, seed=7, size=SIZE)
    return examples, cache(examples, SIZE, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize("net", sorted(set(NETS) - {"ppaunet"}))
def test_four_pictures_are_learnt_by_heart(net, four):
    examples, data = four
    torch.manual_seed(0)
    recipe = Recipe(augmentation=NO_AUGMENTATION, learning_rate=1e-2, weight_decay=0.0)
    fit = fit_segmentor(build_segmentor(net, "tiny"), data, steps=150, recipe=recipe, progress=False)
    dice = [row["dice"] for row in evaluate(fit.model, examples, size=SIZE)]
    assert np.mean(dice) > 0.99
