"""What the parts of the game do, on synthetic pictures: take one away and the result moves the way it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_tutorial.data.batches import NO_AUGMENTATION, cache
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.evaluate import evaluate_classes, summarize_classes
from cxr_tutorial.nets import Discriminator, build_segmentor
from cxr_tutorial.train import Game, Recipe, fit_appaunet

SIZE = 48
QUIET = Game(adversarial=0.0, adversarial_unlabelled=0.0, consistency=0.0, warmup=0.0, ramp=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return cache(load_synthetic(160, seed=5), SIZE, tmp_path_factory.mktemp("cache"))


def play(data, game, steps, **of_d):
    torch.manual_seed(0)
    S, D = build_segmentor("unet", (4, 8, 16)), Discriminator(**{"widths": (8, 16, 32)} | of_d)
    recipe = Recipe(batch_size=4, augmentation=NO_AUGMENTATION, ema=0.9)
    return fit_appaunet(S, D, data, steps=steps, recipe=recipe, game=game, progress=False)


def test_s_that_listens_to_d_is_called_real_more_often(data):
    """With the adversarial weight at 0 D wins; with a large one S moves its masks to where D calls them real."""
    few = data.reveal(masks=data.ids[:16], labels=())
    called = {}
    for weight in (0.0, 1.0):
        game = replace(QUIET, adversarial=weight, adversarial_unlabelled=weight, cls=0.0, cp=0.0, masks="binary")
        history = play(few, game, 100, norm="group").history
        called[weight] = np.mean([row["q_pred"] - row["q_real"] for row in history[-30:]])
    assert called[1.0] < called[0.0] - 0.15, called


def test_pictures_without_a_mask_teach_the_class_and_shuffled_classes_teach_none(data):
    masks = data.ids[:8]
    test = load_synthetic(80, seed=6)
    whole = data.reveal(masks=masks)
    order = np.random.default_rng(0).permutation(len(data))
    sets = {
        "all": whole,
        "without the second stream": whole.select(masks),
        "shuffled": replace(whole, labels=whole.labels[order]),
    }
    auc = {}
    for name, some in sets.items():
        fit = play(some, replace(QUIET, unlabelled_batch_size=16, learning_rate=5e-3), 150)
        rows = evaluate_classes(fit.discriminator, test, size=SIZE, segmentor=fit.model)
        auc[name] = summarize_classes(rows)["auc"]["mean"]
    assert auc["all"] > auc["without the second stream"] + 0.03, auc
    assert auc["all"] > auc["shuffled"] + 0.1, auc
