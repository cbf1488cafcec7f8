"""Products of training are in the type that the device is fast at, unless a run says which."""

from __future__ import annotations

from collections.abc import Iterator

import llvmlite.binding
import pytest

torch = pytest.importorskip("torch")

from pixzip.nets.fused import is_fused  # noqa: E402
from pixzip.nets.precision import fastest_type, product_type  # noqa: E402


@pytest.fixture(autouse=True)
def asked_anew() -> Iterator[None]:
    fastest_type.cache_clear()
    yield
    fastest_type.cache_clear()


@pytest.mark.parametrize(
    ("features", "library", "dtype"),
    [
        ({"avx512bf16": True}, True, torch.bfloat16),
        ({"avx512bf16": True}, False, torch.float32),  # a build of torch for another system
        ({"avx512f": True, "avx512bf16": False}, True, torch.float32),
        ({}, True, torch.float32),
    ],
)
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    features: dict[str, bool], library: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llvmlite.binding, "get_host_cpu_features", lambda: features)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: library)
    assert product_type("auto") is fastest_type() is dtype
    assert (product_type("bfloat16"), product_type("float32")) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_is_asked_for_instructions(supported: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", asked)
    assert product_type("auto", "cuda") is dtype


def test_the_compiled_passes_are_for_both_types_on_a_processor() -> None:
    assert is_fused(torch.zeros(1)) and is_fused(torch.zeros(1, dtype=torch.bfloat16))
    assert not is_fused(torch.zeros(1, dtype=torch.float64)) and not is_fused(torch.zeros(1, device="meta"))
