"""What the parts of the game do, on synthetic pictures: take one away and the result moves the way it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_tutorial.data.batches import STRONG_AUGMENTATION, Batches
from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.evaluate import evaluate, summarize
from cxr_tutorial.metrics import auc
from cxr_tutorial.nets import Discriminator, build_segmentor
from cxr_tutorial.train import Game, Recipe, fit_appaunet, fit_mean_teacher, fit_segmentor

SIZE = 48
QUIET = Game(adversarial=0.0, adversarial_unlabelled=0.0, consistency=0.0, warmup=0.0, ramp=0.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return cache(load_synthetic(160, seed=5), SIZE, tmp_path_factory.mktemp("cache"))


def play(data, game, steps, **of_d):
    torch.manual_seed(0)
    S, D = build_segmentor("unet", (4, 8, 16)), Discriminator(**{"widths": (8, 16, 32)} | of_d)
    recipe = Recipe(batch_size=4, ema=0.9)
    return fit_appaunet(S, D, data, steps=steps, recipe=recipe, game=game, progress=False)


def test_s_that_listens_to_d_is_called_real_more_often(data):
    """With the adversarial weight at 0 D wins; with a large one S moves its masks to where D calls them real."""
    few = data.reveal(masks=data.ids[:16], labels=())
    called = {}
    for weight in (0.0, 1.0):
        game = replace(QUIET, adversarial=weight, adversarial_unlabelled=weight, cls=0.0, cp=0.0, masks="binary")
        history = play(few, game, 100).history
        called[weight] = np.mean([row["q_pred"] - row["q_real"] for row in history[-30:]])
    assert called[1.0] < called[0.0] - 0.3, called


def test_pictures_without_a_mask_teach_the_class_and_shuffled_classes_teach_none(data):
    """Class 1 is a bright veil over both lungs; 8 pictures have a mask, 104 others a class, 48 are the test."""
    images, rng = data.images.copy(), np.random.default_rng(0)
    for row in np.flatnonzero(data.labels == 1):
        images[row] = np.minimum(255, images[row].astype(int) + 60 * data.masks[row])
    painted = replace(data, images=images)
    training, test = painted.select(data.ids[:112]), Batches(painted.select(data.ids[112:]), 48).batch(0)
    known = training.reveal(masks=data.ids[:8], labels=data.ids[8:112])
    shuffled = replace(known, labels=np.r_[known.labels[:8], rng.permutation(known.labels[8:])])
    game = replace(QUIET, unlabelled_batch_size=16, pred=0.0, real=0.0)
    found = {}
    for name, some in {"known": known, "shuffled": shuffled}.items():
        fit = play(some, game, 120)
        with torch.inference_mode():
            q = fit.discriminator(test.image, fit.model(test.image).logits.sigmoid())[:, :-1].softmax(1)[:, 1]
        found[name] = auc(test.label.tolist(), q.numpy())
    assert found["known"] > 0.75, found
    assert found["known"] > found["shuffled"] + 0.2, found


@pytest.mark.slow
def test_pictures_without_a_mask_teach_where_lungs_are(tmp_path):
    """Three masks and 237 pictures without: the teacher's masks on these lift Dice on unseen ones."""
    data = cache(load_synthetic(240, seed=5), 64, tmp_path)
    few, test = data.reveal(masks=data.ids[:3], labels=()), load_synthetic(40, seed=6)
    recipe = Recipe(batch_size=4, augmentation=STRONG_AUGMENTATION, ema=0.98)
    dice = {}
    for name, fit in {"with": fit_mean_teacher, "without": fit_segmentor}.items():
        torch.manual_seed(0)
        S = fit(build_segmentor("ppaunet", (8, 16, 32)), few, steps=150, recipe=recipe, progress=False).model
        dice[name] = summarize(evaluate(S, test, size=64))["dice"]["mean"]
    assert dice["with"] > dice["without"] + 0.005, dice
