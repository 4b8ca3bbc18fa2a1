"""The segmentor outside the training loop: compiled, in low precision, exported, on disk."""

import numpy as np
import pytest
import torch
from torch.export import Dim

from cxr_tutorial.nets import NETS, Discriminator, build_segmentor
from cxr_tutorial.train import load_discriminator, load_weights, save_weights

SEVERAL = sorted(set(NETS) - {"ppaunet"})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_about_the_same_mask_and_finite_gradients(dtype):
    torch.manual_seed(0)
    model = build_segmentor("pgaunet", "tiny")
    image = torch.randn(2, 1, 48, 64)
    exact = model(image).logits
    with torch.autocast("cpu", dtype):
        logits = model(image).logits
    assert logits.dtype == torch.float32
    assert (logits - exact).abs().max() < 0.1 * exact.abs().max()
    logits.square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_convolutions_run_in_the_fast_memory_order(tmp_path):
    S, D = build_segmentor("pgaunet", "tiny").eval(), Discriminator(widths=(4, 8)).eval()
    save_weights(tmp_path / "S.safetensors", S)
    save_weights(tmp_path / "D.safetensors", D)
    image, orders = torch.randn(2, 1, 32, 32), []

    def look(_module, _inputs, out):
        orders.append(out.shape[1] > 1 and out.is_contiguous(memory_format=torch.channels_last))

    for net in (S, load_weights(tmp_path / "S.safetensors"), D, load_discriminator(tmp_path / "D.safetensors")):
        wide = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.out_channels > 1]
        for module in wide:
            module.register_forward_hook(look)
        net(*([image] if hasattr(net, "heads") else [image, image]))
        assert len(orders) >= len(wide)
    assert all(orders)


@pytest.mark.parametrize("net", SEVERAL)
def test_memory_order_does_not_change_the_result(net):
    model = build_segmentor(net, "tiny").train()
    image = torch.randn(2, 1, 33, 47)
    last = model(image).logits
    plain = model.to(memory_format=torch.contiguous_format)(image).logits
    torch.testing.assert_close(last, plain, atol=1e-4, rtol=1e-4)


def test_compiled_it_gives_the_same():
    model = build_segmentor("pgaunet", "tiny").eval()
    image = torch.randn(1, 1, 32, 32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(image).logits, model(image).logits)
    model.train()
    compiled(image).logits.mean().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("net", ["unet", "pgaunet"])
def test_onnx_agrees_at_sizes_it_was_not_exported_at(net, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = build_segmentor(net, "tiny").eval()
    sizes = {"image": {0: Dim("n"), 2: 8 * Dim("rows", min=2), 3: 8 * Dim("columns", min=2)}}
    program = torch.onnx.export(model, (torch.randn(2, 1, 64, 48),), dynamo=True, dynamic_shapes=sizes, verbose=False)
    program.save(tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for shape in ((2, 1, 64, 48), (1, 1, 40, 96)):
        image = torch.randn(shape)
        logits = session.run(None, {"image": image.numpy()})[0]
        np.testing.assert_allclose(logits, model(image).logits.detach(), atol=1e-4)


@pytest.mark.parametrize("net", SEVERAL)
@pytest.mark.parametrize("rule", ["sum", "concat"])
def test_weights_come_back_from_disk(net, rule, tmp_path):
    model = build_segmentor(net, "tiny", rule=rule, norm="group", out_channels=2).eval()
    save_weights(tmp_path / "net.safetensors", model)
    again = load_weights(tmp_path / "net.safetensors")
    image = torch.randn(1, 1, 32, 32)
    assert again.options == model.options
    assert torch.equal(again(image).logits, model(image).logits)
