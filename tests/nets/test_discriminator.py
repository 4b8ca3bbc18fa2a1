"""The discriminator: shapes, the extra class, joins, and what it refuses."""

import pytest
import torch

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import JOINS, POOLS, Discriminator


def pair(n: int = 3, side: int = 32):
    torch.manual_seed(0)
    return torch.randn(n, 1, side, side), (torch.rand(n, 1, side, side) > 0.5).float()


@pytest.mark.parametrize("join", JOINS)
@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_every_option_gives_one_logit_more_than_classes_and_a_slope_everywhere(join, norm, spectral_norm):
    D = Discriminator(3, widths=(8, 16), join=join, norm=norm, spectral_norm=spectral_norm)
    logits = D(*pair())
    assert logits.shape == (3, 4)
    logits.square().sum().backward()
    idle = [name for name, p in D.named_parameters() if p.grad is None]
    assert not idle


def test_the_extra_class_is_the_last():
    D = Discriminator(2).eval()
    assert torch.equal(D(*pair())[:, Discriminator.PREDICTED], D(*pair())[:, 2])


def test_joined_by_mask_alone_the_picture_is_not_read():
    image, mask = pair()
    D = Discriminator(join="mask").eval()
    assert torch.equal(D(image, mask), D(torch.full_like(image, torch.nan), mask))
    for join in ("concat", "product", "sum"):
        other = Discriminator(join=join).eval()
        assert not torch.equal(other(image, mask), other(image + 1, mask))
        assert not torch.equal(other(image, mask), other(image, 1 - mask))


def test_joined_by_product_the_picture_counts_inside_the_mask_only():
    image, mask = pair()
    D = Discriminator(join="product").eval()
    assert torch.equal(D(image, mask), D(torch.where(mask > 0, image, 7.0), mask))
    assert not torch.equal(D(image, mask), D(image + 1, mask))


@torch.no_grad()
def test_the_features_are_what_the_pool_takes_over_the_last_level():
    image, mask = pair()
    nets = {pool: Discriminator(widths=(8, 16), pool=pool).eval() for pool in POOLS}
    last = nets["mean"].trunk(nets["mean"].first(torch.cat([image, mask], 1)))
    for net in nets.values():
        net.load_state_dict(nets["mean"].state_dict() | {k: v for k, v in net.state_dict().items() if "head" in k})
    expected = {"mean": last.mean((2, 3)), "max": last.flatten(2).max(2).values}
    expected["both"] = torch.cat([expected["mean"], expected["max"]], 1)
    for pool, net in nets.items():
        torch.testing.assert_close(net.features(image, mask), expected[pool])
        assert net(image, mask).shape == (3, 3)


def test_sum_is_one_convolution_of_both_written_as_two():
    """A convolution of stacked channels is the sum of two: what `sum` and `concat` differ in is the start alone."""
    image, mask = pair()
    one, two = Discriminator(join="concat").eval(), Discriminator(join="sum").eval()
    two.load_state_dict(one.state_dict() | {k: v for k, v in two.state_dict().items() if k.startswith("first")})
    with torch.no_grad():
        two.first_of_image.weight.copy_(one.first.weight[:, :1])
        two.first_of_image.bias.zero_()
        two.first.weight.copy_(one.first.weight[:, 1:])
        two.first.bias.copy_(one.first.bias)
    torch.testing.assert_close(one(image, mask), two(image, mask))


def test_without_batch_statistics_no_pair_sees_another():
    image, mask = pair(4)
    D = Discriminator(norm="group").train()
    torch.testing.assert_close(D(image, mask)[:2], D(image[:2], mask[:2]))


def test_its_options_build_it_again():
    D = Discriminator(4, widths=(8, 12), depth=1, join="sum", norm="none", spectral_norm=True, dropout=0.1)
    again = Discriminator(**D.options)
    again.load_state_dict(D.state_dict())
    assert torch.equal(D.eval()(*pair()), again.eval()(*pair()))


@pytest.mark.parametrize(
    "bad",
    [
        {"join": "difference"},
        {"join": "product", "mask_channels": 2},
        {"num_classes": 0},
        {"widths": ()},
        {"depth": 3},
        {"norm": "x"},
    ],
)
def test_what_cannot_be_built_is_named(bad):
    with pytest.raises(InputError):
        Discriminator(**bad)


def test_pictures_and_masks_must_fit():
    image, mask = pair()
    with pytest.raises(InputError, match=r"of one size.*\(3, 1, 32, 32\) and \(3, 1, 16, 16\)"):
        Discriminator()(image, mask[..., ::2, ::2])
    with pytest.raises(InputError, match=r"pictures of 1 channels.*\(3, 3, 32, 32\)"):
        Discriminator()(image.expand(-1, 3, -1, -1), mask)
    with pytest.raises(InputError, match="at least 16 pixels"):
        Discriminator()(image[..., :8, :8], mask[..., :8, :8])
