"""The eight networks: shapes, plainness, gradients."""

import pytest
import torch
from torch import nn

from cxr_tutorial.errors import InputError
from cxr_tutorial.nets import NETS, AttentionGate, Segmentor, build_segmentor

SEVERAL = sorted(set(NETS) - {"ppaunet"})


def plain_unet(image: torch.Tensor, net: Segmentor) -> torch.Tensor:
    """A U-Net written out by hand, with the weights of `net`."""
    skips, x = [], image
    for k, block in enumerate(net.encoder):
        x = block(x if k == 0 else nn.functional.max_pool2d(x, 2))
        skips.append(x)
    for k in reversed(range(len(net.decoder))):
        x = net.decoder[k](torch.cat([skips[k], net.up[k](x)], dim=1))
    return net.heads[0](x)


def test_without_flags_it_is_a_plain_unet():
    net = build_segmentor("unet", "tiny").eval()
    image = torch.randn(2, 1, 32, 48)
    torch.testing.assert_close(net(image).logits, plain_unet(image, net))
    assert not any(isinstance(module, AttentionGate) for module in net.modules())
    assert len(net.inputs) == 0
    assert len(net.heads) == 1


@pytest.mark.parametrize("net", SEVERAL)
@pytest.mark.parametrize("size", [(16, 16), (17, 16), (65, 49), (255, 193)])
def test_any_size_comes_back_as_it_went_in(net, size):
    output = build_segmentor(net, "small").eval()(torch.randn(1, 1, *size), return_attention=True)
    assert output.logits.shape == (1, 1, *size)
    assert bool(output.side_logits) == NETS[net]["progressive"]
    assert bool(output.attention) == NETS[net]["attention"]
    for m, side in enumerate(output.side_logits, start=1):
        assert side.shape[-2:] == tuple(-(-length // 2**m) for length in size)
    assert all(a.min() >= 0 and a.max() <= 1 for a in output.attention)


@pytest.mark.parametrize("net", SEVERAL)
@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_gradients_reach_every_parameter(net, norm):
    model = build_segmentor(net, "tiny", norm=norm, out_channels=2)
    output = model(torch.randn(2, 1, 32, 32))
    assert output.logits.shape == (2, 2, 32, 32)
    output.logits.square().mean().backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or ((p.grad == 0).all() and "bias" not in name)
    ]
    assert without == []


def test_progressive_prediction_is_the_running_sum_of_levels():
    net = build_segmentor("gunet", "tiny").eval()
    image = torch.randn(1, 1, 32, 32)
    before = net(image)
    with torch.no_grad():
        net.heads[-1].bias += 1.0  # the coarsest level says 1 more everywhere, so every finer one does
    after = net(image)
    torch.testing.assert_close(after.logits, before.logits + 1)
    for side, was in zip(after.side_logits, before.side_logits, strict=True):
        torch.testing.assert_close(side, was + 1)


def test_concatenated_predictions_enter_the_finer_block():
    net = build_segmentor("gunet", "tiny", rule="concat").eval()
    plain = build_segmentor("unet", "tiny")
    extra = [a.shape[1] - b.shape[1] for a, b in zip(first_convs(net), first_convs(plain), strict=True)]
    assert extra == [1, 1, 0]  # fine to coarse: the coarsest decoder block has nothing before it
    image = torch.randn(1, 1, 32, 32)
    before = net(image)
    with torch.no_grad():
        net.heads[-1].bias += 1.0
    after = net(image)
    torch.testing.assert_close(after.side_logits[-1], before.side_logits[-1] + 1)
    assert not torch.allclose(after.logits, before.logits)  # it hears of it, but it is no sum


def first_convs(net: Segmentor) -> list[torch.Tensor]:
    return [block[0].weight for block in net.decoder]


@pytest.mark.parametrize("net", SEVERAL)
def test_padding_neither_moves_nor_stretches(net):
    """A picture whose edge is repeated by hand up to the next multiple gives the same logits, cropped."""
    model = build_segmentor(net, "tiny").eval()
    image = torch.randn(1, 1, 30, 21)
    by_hand = nn.functional.pad(image, (0, 3, 0, 2), mode="replicate")
    torch.testing.assert_close(model(image).logits, model(by_hand).logits[..., :30, :21])


def test_pictures_of_a_batch_do_not_meet_in_evaluation():
    model = build_segmentor("pgaunet", "tiny").eval()
    images = torch.randn(3, 1, 32, 32)
    one_by_one = torch.cat([model(image[None]).logits for image in images])
    torch.testing.assert_close(model(images).logits, one_by_one, atol=1e-5, rtol=1e-5)


def test_gate_follows_the_formula_of_oktay():
    gate = AttentionGate(4, 6).eval()
    x, g = torch.randn(1, 4, 8, 8), torch.randn(1, 6, 4, 4)
    _, a = gate(x, g)
    w_x = torch.einsum("oikl,nihkwl->nohw", gate.w_x.weight, x.reshape(1, 4, 4, 2, 4, 2))
    w_g = torch.einsum("oi,nihw->nohw", gate.w_g.weight[..., 0, 0], g) + gate.w_g.bias.view(1, -1, 1, 1)
    q = torch.einsum("oi,nihw->nohw", gate.psi.weight[..., 0, 0], (w_x + w_g).relu()) + gate.psi.bias
    by_hand = torch.sigmoid(nn.functional.interpolate(q, scale_factor=2, mode="bilinear"))
    torch.testing.assert_close(a, by_hand)


@pytest.mark.parametrize("bad", [torch.zeros(1, 1, 15, 20), torch.zeros(1, 2, 32, 32), torch.zeros(1, 32, 32)])
def test_impossible_images_are_named(bad):
    with pytest.raises(InputError, match=r"H, W >= 16, got"):
        Segmentor("tiny")(bad)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_segmentor("resunet"), "unknown net 'resunet': choose one of"),
        (lambda: Segmentor("huge"), "unknown widths 'huge'"),
        (lambda: Segmentor((8,)), "2 to 5 positive numbers"),
        (lambda: Segmentor("tiny", norm="layer"), "unknown norm 'layer'"),
        (lambda: Segmentor("tiny", rule="product"), "unknown progressive rule 'product': choose one of sum, concat"),
    ],
)
def test_unknown_choices_list_the_known(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_groups_are_normalised_whatever_the_widths():
    assert Segmentor((12, 20), norm="group")(torch.zeros(1, 1, 16, 16)).logits.shape == (1, 1, 16, 16)
