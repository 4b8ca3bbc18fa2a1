"""What this machine does best."""

import pytest
import torch

from cxr_tutorial.machine import best_precision, keep_freed_memory
from cxr_tutorial.train import Recipe


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_bf16_is_taken_on_a_cpu_that_computes_in_it(monkeypatch, native, expected):
    monkeypatch.setattr(
        torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "amx_bf16": False}, raising=False
    )
    assert best_precision("cpu") == expected
    assert Recipe(accelerator="cpu").resolved().precision == expected


def test_a_torch_that_does_not_know_the_cpu_takes_fp32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert best_precision("cpu") == "32-true"


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed")])
def test_bf16_is_taken_on_a_gpu_from_ampere_on(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert best_precision("auto") == expected


def test_a_chosen_precision_stays():
    assert Recipe(precision="32-true").resolved() == Recipe(precision="32-true")


def test_half_precision_on_a_cpu_is_what_lightning_makes_of_it():
    from cxr_tutorial.train.devices import start_fabric

    recipe = Recipe(accelerator="cpu", precision="16-mixed").resolved()
    assert recipe.precision == start_fabric("cpu", 1, "16-mixed")._precision.precision == "bf16-mixed"
    assert Recipe(accelerator="cuda", precision="16-mixed").resolved().precision == "16-mixed"


def test_keeping_freed_memory_is_harmless_anywhere(monkeypatch):
    keep_freed_memory()
    monkeypatch.setattr("sys.platform", "darwin")
    keep_freed_memory()
