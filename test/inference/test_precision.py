"""What auto means where: stand-ins for the machine."""

from __future__ import annotations

import logging

import pytest
import torch

from bevformer_ros.inference import precision
from bevformer_ros.inference.precision import resolve_device, resolve_precision


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """A machine without a GPU, of which nothing is known from an earlier test."""
    cached = (precision._cpu_gains_from_bfloat16, precision._warn)
    for function in cached:
        function.cache_clear()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield
    for function in cached:
        function.cache_clear()


def cpu(monkeypatch, *, kernels, seconds):
    """kernels: whether oneDNN has some for bfloat16. seconds: of the probe, by type."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: kernels)
    monkeypatch.setattr(precision, "_probe", lambda dtype: seconds[dtype])


def gpus(monkeypatch, *capabilities):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index or 0])


FAST = {torch.bfloat16: 0.5, torch.float32: 1.0}
SLOW = {torch.bfloat16: 3.3, torch.float32: 1.0}


@pytest.mark.parametrize(
    ("kernels", "seconds", "expected"),
    [
        (False, FAST, "float32"),  # AVX2: no kernels, however fast the probe would be
        (True, SLOW, "float32"),  # AVX-512 without the units
        (True, {torch.bfloat16: 0.95, torch.float32: 1.0}, "float32"),  # not worth its rounding
        (True, FAST, "bfloat16"),
    ],
)
def test_on_a_cpu(monkeypatch, kernels, seconds, expected):
    cpu(monkeypatch, kernels=kernels, seconds=seconds)
    assert resolve_precision("auto", resolve_device("auto")) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_on_a_gpu(monkeypatch, capability, expected):
    gpus(monkeypatch, capability)
    assert resolve_device("auto") == "cuda"
    assert resolve_precision("auto", "cuda") == expected


def test_the_gpu_that_is_named_counts(monkeypatch):
    gpus(monkeypatch, (9, 0), (7, 5))
    assert resolve_precision("auto", resolve_device("cuda:1")) == "float16"


@pytest.mark.parametrize("choice", ["bfloat16", "float16"])
def test_a_slow_choice_is_obeyed_with_one_warning(monkeypatch, caplog, choice):
    cpu(monkeypatch, kernels=True, seconds=SLOW)
    with caplog.at_level(logging.WARNING):
        assert [resolve_precision(choice, "cpu") for _ in range(2)] == [choice, choice]
    (record,) = caplog.records
    assert record.message == f"{choice} is slow on this cpu; float32 is the fastest here"


@pytest.mark.parametrize("choice", ["float32", "bfloat16"])
def test_a_good_choice_needs_no_warning(monkeypatch, caplog, choice):
    cpu(monkeypatch, kernels=True, seconds=FAST)
    assert resolve_precision(choice, "cpu") == choice
    assert not caplog.records


@pytest.mark.parametrize(
    ("device", "complaint"),
    [
        ("", "expected auto, cpu, cuda or cuda:N"),
        ("gpu", "expected auto, cpu, cuda or cuda:N"),
        ("cpu:1", "expected auto, cpu, cuda or cuda:N"),
        ("cuda:x", "expected auto, cpu, cuda or cuda:N"),
        ("cuda", "torch can use no GPU"),
    ],
)
def test_a_device_that_is_not_there(device, complaint):
    with pytest.raises(ValueError, match=complaint):
        resolve_device(device)


def test_no_such_precision():
    with pytest.raises(ValueError, match="precision is 'float8', expected one of auto, float32, bfloat16, float16"):
        resolve_precision("float8", "cpu")


def test_the_probe_measures_and_leaves_the_random_numbers_alone():
    state = torch.get_rng_state()
    assert 0 < precision._probe(torch.float32) < 5
    assert torch.equal(torch.get_rng_state(), state)
