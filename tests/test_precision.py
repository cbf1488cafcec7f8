"""Products of training are in the type that the device is fast at, unless a run says which."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pixzip.nets.fused import on_cpu  # noqa: E402
from pixzip.nets.precision import fastest_products, products  # noqa: E402


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    supported: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert products("auto") is fastest_products() is dtype
    assert (products("bfloat16"), products("float32")) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(("supported", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_is_asked_for_instructions(supported: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(including_emulation: bool = True) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", asked)
    assert products("auto", "cuda") is dtype


def test_the_compiled_passes_are_for_both_types_on_a_processor() -> None:
    assert on_cpu(torch.zeros(1)) and on_cpu(torch.zeros(1, dtype=torch.bfloat16))
    assert not on_cpu(torch.zeros(1, dtype=torch.float64)) and not on_cpu(torch.zeros(1, device="meta"))
