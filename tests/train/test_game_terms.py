"""The terms of the game, by hand and by their properties."""

import math

import pytest
import torch
from torch.nn import functional as F

from cxr_tutorial.errors import InputError
from cxr_tutorial.train.objectives import adversarial_loss, consistency_loss, discriminator_terms, log_real

ALL = {"cls": 1.0, "real": 1.0, "pred": 1.0, "cp": 1.0}


def drawn(n: int = 5, classes: int = 2) -> torch.Tensor:
    return torch.randn(n, classes + 1, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def test_log_real_is_the_log_of_what_the_extra_class_leaves():
    logits = drawn()
    torch.testing.assert_close(log_real(logits), torch.log1p(-logits.softmax(1)[:, -1]))
    assert log_real(torch.tensor([[0.0, 0.0, 1000.0]])).isfinite().all()


def test_the_three_forms_by_hand():
    logits = torch.log(torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64))
    z = torch.tensor([1])
    assert adversarial_loss(logits, z).item() == pytest.approx(-math.log(0.5))
    assert adversarial_loss(logits, z, "saturating").item() == pytest.approx(math.log(0.5))
    assert adversarial_loss(logits, z, "class").item() == pytest.approx(-math.log(0.3))
    assert adversarial_loss(logits, torch.tensor([-1]), "class").item() == pytest.approx(-math.log(0.5))
    with pytest.raises(InputError, match="unknown form 'hinge'"):
        adversarial_loss(logits, z, "hinge")


def test_both_forms_push_the_extra_class_down_and_only_one_keeps_pushing_when_d_is_sure():
    sure = torch.tensor([[0.0, 0.0, 12.0]], dtype=torch.float64, requires_grad=True)
    slopes = {}
    for form in ("non-saturating", "saturating"):
        [slope] = torch.autograd.grad(adversarial_loss(sure, torch.tensor([0]), form).sum(), sure)
        slopes[form] = slope[0, -1].item()
    assert slopes["non-saturating"] == pytest.approx(1, abs=1e-3)
    assert 0 < slopes["saturating"] < 1e-3


def test_d_terms_by_hand():
    real, predicted = drawn(3), drawn(5)
    real_label, label = torch.tensor([0, -1, 1]), torch.tensor([0, -1, 1, -1, 1])
    terms = discriminator_terms(real, predicted, real_label, label, ALL)
    p, q = real.softmax(1), predicted.softmax(1)
    assert terms["cls"].item() == pytest.approx(-(p[0, 0].log() + p[2, 1].log()).item() / 2)
    assert terms["real"].item() == pytest.approx(-(1 - p[1, 2]).log().item())
    assert terms["pred"].item() == pytest.approx(-q[:, 2].log().mean().item())
    kept = q[:, :2] / (1 - q[:, 2:])
    assert terms["cp"].item() == pytest.approx(-(kept[0, 0].log() + kept[2, 1].log() + kept[4, 1].log()).item() / 3)
    assert terms["total"].item() == pytest.approx(sum(terms[name].item() for name in ALL))


def test_a_class_that_is_not_known_changes_nothing():
    real, predicted = drawn(3), drawn(5)
    hidden = torch.tensor([0, -1, -1])
    with_nan = real.clone()
    terms = discriminator_terms(with_nan, predicted, hidden, torch.full((5,), -1), ALL)
    assert terms["cp"] == 0
    alone = F.cross_entropy(real[:1], hidden[:1])
    torch.testing.assert_close(terms["cls"], alone)


def test_only_judged_pairs_are_called_predicted():
    real, predicted, z = drawn(3), drawn(5), torch.full((5,), -1)
    judged = torch.tensor([True, False, True, False, False])
    terms = discriminator_terms(real, predicted, z[:3], z, ALL, judged)
    assert terms["pred"].item() == pytest.approx(-predicted.softmax(1)[judged, 2].log().mean().item())


def test_no_pairs_of_a_kind_is_zero_and_finite():
    terms = discriminator_terms(drawn(3)[:0], drawn(5), torch.zeros(0, dtype=torch.int64), torch.full((5,), -1), ALL)
    assert terms["cls"] == terms["real"] == terms["cp"] == 0
    assert terms["total"].isfinite()


def test_swapping_the_batch_or_renaming_the_classes_changes_no_term():
    real, predicted = drawn(4), drawn(4)
    z = torch.tensor([0, 1, -1, 1])
    before = discriminator_terms(real, predicted, z, z, ALL)
    order = torch.tensor([2, 0, 3, 1])
    swapped = discriminator_terms(real[order], predicted[order], z[order], z[order], ALL)
    named = torch.tensor([1, 0, 2])
    renamed = torch.where(z >= 0, 1 - z, z)
    other = discriminator_terms(real[:, named], predicted[:, named], renamed, renamed, ALL)
    for name in before:
        torch.testing.assert_close(before[name], swapped[name])
        torch.testing.assert_close(before[name], other[name])


def test_consistency_is_cross_entropy_with_the_teacher_where_it_is_sure():
    student, teacher = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4) * 3
    p = teacher.sigmoid()
    pixels = F.binary_cross_entropy(student.sigmoid(), p, reduction="none")
    torch.testing.assert_close(consistency_loss(student, teacher), pixels.flatten(1).mean(1))
    sure = ((p > 0.9) | (p < 0.1)).float()
    torch.testing.assert_close(consistency_loss(student, teacher, 0.9), (pixels * sure).flatten(1).mean(1))
    student.requires_grad_(), teacher.requires_grad_()
    consistency_loss(student, teacher).sum().backward()
    assert teacher.grad is None
    with pytest.raises(InputError, match="confidence"):
        consistency_loss(student, teacher, 1.0)
