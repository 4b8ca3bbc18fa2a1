"""The game: whose slope reaches whom, which labels are read, that it resumes, and what its parts do."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cxr_tutorial.data.cached import cache
from cxr_tutorial.data.synthetic import load_synthetic
from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import Discriminator, build_segmentor
from cxr_tutorial.train import (
    GAMES,
    MASK_VIEWS,
    Game,
    Recipe,
    fit_appaunet,
    fit_classifier,
    fit_cross_pseudo,
    fit_mean_teacher,
)
from cxr_tutorial.train.adversarial import first_stream

PLAY = Game(adversarial=0.1, adversarial_unlabelled=0.1, warmup=0.0, ramp=0.0, unlabelled_batch_size=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    whole = cache(load_synthetic()[:24], 32, tmp_path_factory.mktemp("cache"))
    return whole.reveal(masks=whole.ids[:8], labels=whole.ids[:16])


def nets(seed: int = 0):
    torch.manual_seed(seed)
    return build_segmentor("ppaunet", (4, 8, 16)), Discriminator(widths=(4, 8))


def play(data, game=PLAY, pair=None, **options):
    S, D = pair or nets()
    options = {"steps": 3, "recipe": Recipe(batch_size=2)} | options
    return fit_appaunet(S, D, data, game=game, progress=False, **options)


class Killed(Exception):
    pass


def kill_at(last: int):
    """What ends a training after so many steps, with its checkpoint written."""

    def look(step, models):
        if step == last:
            raise Killed
        return {}

    return look


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_pictures_with_all_some_and_no_labels_train_together(data):
    known = list(zip(data.has_mask.tolist(), (data.labels >= 0).tolist(), strict=True))
    assert set(known) == {(True, True), (False, True), (False, False)}
    fit = play(data)
    assert {"seg", "side", "con", "adv", "cls", "pred", "cp", "total", "d_total"} <= set(fit.history[0])
    assert all(np.isfinite(list(row.values())).all() for row in fit.history)


def test_the_slope_of_l_s_never_reaches_d_nor_that_of_l_d_s(data):
    """Each network moves as far as its own objective takes it, and no further."""
    assert all(p.requires_grad for p in play(data, steps=1).discriminator.parameters())
    # D does not move if its own terms weigh nothing, however loud the adversarial term is
    still = replace(PLAY, cls=0.0, real=0.0, pred=0.0, cp=0.0, adversarial=10.0, weight_decay=0.0)
    S, D = nets()
    before = {name: value.clone() for name, value in D.named_parameters()}
    play(data, still, (S, D), steps=2)
    assert all(torch.equal(before[name], value) for name, value in D.named_parameters())
    # S is the same whether D learns or not, as long as it does not listen
    deaf = replace(PLAY, adversarial=0.0, adversarial_unlabelled=0.0)
    assert same(play(data, deaf).model, play(data, replace(deaf, learning_rate=0.1)).model)
    assert not same(play(data, deaf).discriminator, play(data, replace(deaf, learning_rate=0.1)).discriminator)


def test_labels_that_are_hidden_are_never_read(data):
    dirty = data.coverage.copy()
    dirty[np.flatnonzero(~data.has_mask)] = 255
    one, two = play(data), play(replace(data, coverage=dirty))
    assert same(one.model, two.model)
    assert same(one.discriminator, two.discriminator)


def test_a_resumed_game_ends_bit_for_bit_like_an_undisturbed_one(data, tmp_path):
    file = tmp_path / "checkpoint.pt"
    options = {"steps": 4, "checkpoint": file, "checkpoint_seconds": 0, "log_every": 1}
    with pytest.raises(Killed):
        play(data, on_log=kill_at(2), **options)
    resumed, whole = play(data, **options), play(data, steps=4)
    assert same(resumed.model, whole.model)
    assert same(resumed.discriminator, whole.discriminator)
    with pytest.raises(InputError, match="another run: game"):
        play(data, replace(PLAY, cp=0.5), **options)


@pytest.mark.parametrize("masks", MASK_VIEWS)
@pytest.mark.parametrize("form", ["non-saturating", "saturating", "class"])
def test_every_view_and_form_moves_s(data, masks, form):
    deaf = play(data, replace(PLAY, masks=masks, adversarial=0.0, adversarial_unlabelled=0.0), steps=1)
    heard = play(data, replace(PLAY, masks=masks, form=form, feature_matching=1.0), steps=1)
    assert not same(deaf.model, heard.model)
    assert heard.history[0]["slope_adv"] > 0
    assert heard.history[0]["fm"] > 0


def test_the_three_named_games_and_a_stream_of_synthetic_pictures(data):
    for game in GAMES.values():
        D = Discriminator(**{"widths": (4, 8), **game.discriminator})
        fit_appaunet(nets()[0], D, data, steps=1, game=game, recipe=Recipe(batch_size=2), progress=False)
    third = cache(load_synthetic(8, seed=9), 32)
    fit = play(data, synthetic=(third, 2))
    assert not same(fit.model, play(data).model)


def test_what_the_user_froze_in_d_stays_frozen(data):
    S, D = nets()
    D.first.weight.requires_grad_(False)
    before, head = D.first.weight.clone(), D.head.weight.clone()
    play(data, pair=(S, D))
    assert torch.equal(D.first.weight, before)
    assert [name for name, weight in D.named_parameters() if not weight.requires_grad] == ["first.weight"]
    assert not torch.equal(D.head.weight, head)


@pytest.mark.parametrize(
    ("size", "label", "message"), [(16, 0, r"the synthetic pictures are \(16, 16\)"), (32, 2, "the data has class 2")]
)
def test_a_stream_of_synthetic_pictures_must_fit_d_and_the_others(data, tmp_path, size, label, message):
    more = cache(load_synthetic()[:4], size, tmp_path)
    more = replace(more, labels=np.full_like(more.labels, label))
    with pytest.raises(InputError, match=message):
        play(data, synthetic=(more, 2))


def test_the_first_stream_is_whole_or_at_least_with_a_mask(data):
    assert first_stream(data).tolist() == data.has_mask.tolist()
    few = data.reveal(labels=data.ids[:3])
    assert first_stream(few).sum() == 3
    assert first_stream(data.reveal(labels=())).tolist() == data.has_mask.tolist()


def test_all_masks_and_no_second_stream(data, tmp_path):
    whole = cache(load_synthetic()[:8], 32, tmp_path)
    fit = play(whole)
    assert "con" not in fit.history[-1]


def test_what_cannot_be_played_is_named(data):
    with pytest.raises(InputError, match="adversarial must be a number >= 0, got -1"):
        Game(adversarial=-1)
    with pytest.raises(InputError, match="unknown view 'fuzzy'"):
        Game(masks="fuzzy")
    with pytest.raises(InputError, match="unknown form 'hinge'"):
        Game(form="hinge")
    with pytest.raises(InputError, match="class 1, but D knows 1 classes"):
        fit_appaunet(nets()[0], Discriminator(1, widths=(4, 8)), data, steps=1, progress=False)
    with pytest.raises(InputError, match="with a mask"):
        play(data.reveal(masks=(), labels=()))


def test_the_baselines_train_and_repeat(data):
    recipe, game = Recipe(batch_size=2), replace(PLAY, consistency=1.0)
    options = {"steps": 2, "recipe": recipe, "game": game, "progress": False}
    assert same(fit_mean_teacher(nets()[0], data, **options).model, fit_mean_teacher(nets()[0], data, **options).model)
    pairs = [fit_cross_pseudo(nets()[0], nets(1)[0], data, **options).model for _ in range(2)]
    assert same(*pairs)
    classifiers = [fit_classifier(nets()[1], data, **options).model for _ in range(2)]
    assert same(*classifiers)
    with pytest.raises(InputError, match="shows no class label"):
        fit_classifier(nets()[1], data.reveal(labels=()), **options)


def test_a_classifier_sees_the_masks_that_its_segmentor_draws_and_leaves_it_alone(data):
    options = {"steps": 2, "recipe": Recipe(batch_size=2), "game": PLAY, "progress": False}
    S = nets()[0].eval()
    before = {name: value.clone() for name, value in S.state_dict().items()}
    blank = fit_classifier(nets()[1], data, **options)
    masked = fit_classifier(nets()[1], data, segmentor=S, **options)
    assert not same(blank.model, masked.model)
    assert all(torch.equal(value, before[name]) for name, value in S.state_dict().items())


def test_a_classifier_with_its_own_masks_sees_those_of_the_data(data):
    few, marked = data, data.select(data.ids[:8])
    options = {"steps": 2, "recipe": Recipe(batch_size=2), "game": PLAY, "progress": False}
    blank = fit_classifier(nets()[1], marked, **options)
    own = fit_classifier(nets()[1], marked, own_masks=True, **options)
    assert not same(blank.model, own.model)
    empty = replace(marked, coverage=np.zeros_like(marked.coverage))
    assert same(blank.model, fit_classifier(nets()[1], empty, own_masks=True, **options).model)
    with pytest.raises(InputError, match="all show their mask"):
        fit_classifier(nets()[1], few, own_masks=True, **options)
    with pytest.raises(InputError, match="no segmentor"):
        fit_classifier(nets()[1], marked, own_masks=True, segmentor=nets()[0], **options)


def test_without_unlabelled_pictures_the_consistency_of_the_mean_teacher_is_idle(data):
    """Removing the second stream, or its weight, gives the supervised gradient: the terms are there for a reason."""
    recipe = Recipe(batch_size=2)
    heard = fit_mean_teacher(nets()[0], data, steps=2, recipe=recipe, game=PLAY, progress=False)
    off = fit_mean_teacher(nets()[0], data, steps=2, recipe=recipe, game=replace(PLAY, consistency=0.0), progress=False)
    assert heard.history[-1]["con"] > 0
    assert off.history[-1]["con"] == 0
    assert not same(heard.model, off.model)


def test_a_game_with_dropout_resumes_bit_for_bit_and_so_do_its_slopes(data, tmp_path):
    def pair():
        S, _ = nets()
        return S, Discriminator(widths=(4, 8), dropout=0.5)

    options = {"steps": 5, "checkpoint": tmp_path / "checkpoint.pt", "checkpoint_seconds": 0, "log_every": 1}
    with pytest.raises(Killed):
        play(data, pair=pair(), on_log=kill_at(3), **options)
    other_draws = pair()
    torch.manual_seed(8)  # another process
    resumed = play(data, pair=other_draws, **options)
    whole = play(data, pair=pair(), steps=5)
    assert same(resumed.discriminator, whole.discriminator)
    assert same(resumed.model, whole.model)
    assert [row["slope_adv"] for row in resumed.history] == [row["slope_adv"] for row in whole.history]
    assert resumed.history[-1]["slope_adv"] > 0


def test_a_checkpoint_of_other_networks_is_refused(data, tmp_path):
    options = {"steps": 1, "checkpoint": tmp_path / "checkpoint.pt", "recipe": Recipe(batch_size=2), "progress": False}
    fit_classifier(nets()[1], data, **options)
    for other, game in ((Discriminator(widths=(4, 12)), None), (nets()[1], Game(learning_rate=1e-4))):
        with pytest.raises(InputError, match="another run: learners"):
            fit_classifier(other, data, game=game, **options)
    with pytest.raises(InputError, match="another run: shown"):
        fit_classifier(nets()[1], data, segmentor=nets()[0], **options)
    drawn = options | {"checkpoint": tmp_path / "drawn.pt"}
    fit_classifier(nets()[1], data, segmentor=nets()[0], **drawn)
    fit_classifier(nets()[1], data, segmentor=nets()[0], **drawn)  # the same S
    with pytest.raises(InputError, match="another run: shown"):
        fit_classifier(nets()[1], data, segmentor=nets(1)[0], **drawn)
    with pytest.raises(InputError, match="another run"):
        fit_appaunet(*nets(), data, **options)


def test_a_classifier_is_shown_the_view_of_masks_that_it_is_asked_with(data):
    options = {"steps": 2, "recipe": Recipe(batch_size=2), "progress": False}
    S, marked = nets()[0].eval(), data.select(data.ids[:8])
    for some, shown in ((data, {"segmentor": S}), (marked, {"own_masks": True})):
        soft, blurred = (
            fit_classifier(nets()[1], some, game=replace(PLAY, masks=masks), **shown, **options).model
            for masks in ("soft", "blurred")
        )
        assert not same(soft, blurred)


def test_a_classifier_logs_the_rate_of_d_and_refuses_classes_that_it_has_not(data):
    options = {"steps": 1, "progress": False, "game": Game(learning_rate=1e-3)}
    fits = [fit_classifier(nets()[1], data, recipe=Recipe(batch_size=2, learning_rate=r), **options) for r in (1, 9)]
    assert fits[0].history[0]["learning_rate"] == fits[1].history[0]["learning_rate"] <= 1e-3
    with pytest.raises(InputError, match="D knows 1 classes"):
        fit_classifier(Discriminator(1, widths=(4, 8)), data, **options)


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        (Recipe, {"batch_size": 0}, "batch_size must be a whole number >= 1"),
        (Recipe, {"learning_rate": -1.0}, "learning_rate must be a number >= 0"),
        (Recipe, {"seed": -1}, "seed must be a whole number >= 0"),
        (Recipe, {"seed": 1.5}, "seed must be a whole number >= 0"),
        (Recipe, {"seed": 2**63}, "seed must be below"),
        (Recipe, {"compile": "no"}, "compile is True or False"),
        (Recipe, {"side_weight": "abc"}, "side_weight is a number >= 0 or several"),
        (Recipe, {"warmup": 1.0}, "must be below 1"),
        (Recipe, {"loss_options": {"reduction": "none"}}, "one number for a batch"),
        (Recipe, {"loss": "hinge"}, "no loss 'hinge'"),
        (Recipe, {"precision": "64-true"}, "unknown precision '64-true'"),
        (Game, {"learning_rate": -1.0}, "learning_rate must be a number >= 0"),
        (Game, {"confidence": 1.0}, "confidence is a probability"),
        (Game, {"confidence": 1.5}, "confidence is a probability"),
        (Game, {"unlabelled_batch_size": 1.5}, "unlabelled_batch_size must be a whole number"),
        (Game, {"betas": (2.0, 3.0)}, "betas are two numbers"),
        (Game, {"cp": True}, "cp must be a number >= 0"),
    ],
)
def test_impossible_settings_are_refused_when_they_are_made(kind, bad, message):
    with pytest.raises(InputError, match=message):
        kind(**bad)


def test_d_computes_in_the_precision_of_the_training_also_while_s_learns_from_it(data):
    S, D = nets()
    computed = {True: set(), False: set()}  # by whether D learns
    D.first.register_forward_hook(lambda layer, seen, out: computed[D.training].add(out.dtype))
    recipe = Recipe(batch_size=2, precision="bf16-mixed", accelerator="cpu")
    half = play(data, replace(PLAY, feature_matching=0.1), (S, D), recipe=recipe).history[-1]
    assert computed == {True: {torch.bfloat16}, False: {torch.bfloat16}}
    plain = play(data, replace(PLAY, feature_matching=0.1), recipe=replace(recipe, precision="32-true")).history[-1]
    assert half["adv"] == pytest.approx(plain["adv"], rel=0.02)
    assert half["fm"] == pytest.approx(plain["fm"], rel=0.1)
