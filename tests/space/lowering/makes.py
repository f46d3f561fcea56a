"""Operators of every make that blocks have, and the networks that quick tests lower."""

from __future__ import annotations

from phonenas.space import Operator

__all__ = ["FEW", "MAKES"]

#: Networks of the zoo; the others are slow.
FEW = ("mnasnet-a1", "mobilenet-v3-small", "mobilenet-v4-conv-small", "fbnet-c")
#: By their keys: activations, gates, kernels ahead and none, middles, fused forms, heads.
MAKES = [
    Operator.parse(key)
    for act in ("", "_relu6", "_hswish", "_swish")
    for key in (
        f"stem_k3_s2{act}_8x8x3_8",
        f"conv_k3_s2_se3{act}_8x8x8_12",
        f"proj_k1_s1_se3{act}_7x7x8_12",
        f"dsconv_k7_s1_hse3{act}_skip_7x7x8_8",
        f"mbconvm20_k5_s2_se3{act}_8x8x8_12",
        f"mbconv1_k3_s1{act}_7x7x8_8",
        f"mbconvm5_k3_s1_hse3{act}_skip_7x7x8_8",
        f"mbconv4_a3_k5_s2{act}_8x8x8_12",
        f"mbconv4_a5_k0_s2_se3{act}_8x8x8_12",
        f"mbconv4_a3_k3_s1{act}_pool_7x7x8_12",
        f"mbconv2_k0_s1{act}_skip_7x7x8_8",
        f"fused4_k3_s2_hse3{act}_8x8x8_12",
        f"fusedm12_k5_s1{act}_skip_7x7x8_8",
        f"edge4_k3_s2_se3{act}_8x8x8_12",
        f"edgem12_k3_s1{act}_skip_7x7x8_8",
        f"head16_hidden12{act}_4x4x8_10",
        f"head16_hiddennorm12{act}_4x4x8_10",
        f"head16_hiddenplain12{act}_4x4x8_10",
    )
]
