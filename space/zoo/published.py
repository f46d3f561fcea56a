"""Published figures of the zoo's networks: top-1, top-5, milliseconds on a Pixel 1, each sourced.

Top-1 and top-5 are in % of ImageNet's validation images, after the full schedule of the source;
recipes differ by points. Milliseconds are of TFLite in float32, batch 1, one thread on a big core.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Published", "published"]


@dataclass(frozen=True)
class Published:
    """What a source says of a network at width 1 and its own resolution.

    Args:
        top1, top5: In %; None where the source says none.
        pixel1_ms: Latency on a Pixel 1, ms; None likewise.
        source: Of the accuracy.
    """

    top1: float
    top5: float | None
    pixel1_ms: float | None
    source: str


_SOURCES = {
    "tv": "torchvision, weights IMAGENET1K_V1",
    "mnas": "Tan et al., MnasNet, and its official code",
    "v1": "Howard et al., MobileNets; Pixel 1 from Tan et al., MnasNet",
    "v2": "Sandler et al., MobileNetV2; Pixel 1 from Tan et al., MnasNet",
    "v3": "Howard et al., MobileNetV3, official checkpoints",
    "lite": "EfficientNet-Lite, official checkpoints",
    "amoeba": "Real et al., AmoebaNet; Pixel 1 from Tan et al., MnasNet",
    "nasnet": "Zoph et al., NASNet; Pixel 1 from Tan et al., MnasNet",
    "ofa": "Cai et al., Once-for-all, its code's list of specialised networks",
    "proxyless": "Cai et al., ProxylessNAS",
    "single": "Stamoulis et al., Single-Path NAS",
}
# Name, top-1, top-5, ms on a Pixel 1, source; others than those above are weights of timm.
_TABLE = """
alexnet 56.522 79.066 - tv
densenet-121 74.434 91.972 - tv
densenet-169 75.600 92.806 - tv
efficientnet-b0 77.692 93.532 - tv
efficientnet-b1 78.642 94.186 - tv
efficientnet-b2 80.608 95.310 - tv
efficientnet-b3 82.008 96.054 - tv
efficientnet-edge-s 78.100 93.928 - efficientnet_es.ra_in1k
efficientnet-edge-m 79.256 94.794 - efficientnet_em.ra2_in1k
efficientnet-edge-l 81.308 95.538 - efficientnet_el.ra_in1k
efficientnet-lite0 75.1 - - lite
efficientnet-lite1 76.7 - - lite
efficientnet-lite2 77.6 - - lite
efficientnet-lite3 79.8 - - lite
efficientnet-lite4 81.5 - - lite
fbnet-c 75.120 92.384 - fbnetc_100.rmsp_in1k
ghostnet 73.958 91.542 - ghostnet_100.in1k
googlenet 69.778 89.530 - tv
hrnet-w18-small-v1 73.934 91.178 - hrnet_w18_small.gluon_in1k
hrnet-w18-small-v2 78.202 93.906 - hrnet_w18_small_v2.gluon_in1k
inception-v3 77.294 93.450 - tv
mixnet-s 76.000 92.796 - mixnet_s.ft_in1k
mnasnet-a1 75.2 92.5 78 mnas
mnasnet-b1 74.5 - 77 mnas
mnasnet-small 66.0 - 23.2 mnas
mobilenet-v1 70.6 89.5 113 v1
mobilenet-v2 72.0 91.0 75 v2
mobilenet-v3-large 75.2 - 51.2 v3
mobilenet-v3-small 67.5 - 15.8 v3
mobilenet-v3-large-minimalistic 72.3 - 44.1 v3
mobilenet-v3-small-minimalistic 61.9 - 12.2 v3
mobilenet-v4-conv-small 73.756 91.430 - mobilenetv4_conv_small.e2400_r224_in1k
mobilenet-v4-conv-medium 79.092 94.788 - mobilenetv4_conv_medium.e500_r224_in1k
amoebanet-a-mobile 74.5 92.0 190 amoeba
nasnet-a-mobile 74.0 91.3 183 nasnet
ofa-cpu-11 72.0 90.4 - ofa
ofa-cpu-15 74.6 92.0 - ofa
ofa-note8-22 70.4 89.3 - ofa
ofa-note8-31 72.8 90.8 - ofa
proxylessnas-cpu 75.3 - 116 proxyless
proxylessnas-gpu 75.1 - 124 proxyless
proxylessnas-mobile 74.6 92.2 78 proxyless
regnet-x-1.6gf 77.040 93.440 - tv
regnet-x-800mf 75.212 92.348 - tv
regnet-x-600mf 73.904 91.640 - regnetx_006.pycls_in1k
regnet-y-400mf 74.046 91.716 - tv
regnet-y-600mf 75.274 92.532 - regnety_006.pycls_in1k
regnet-y-800mf 76.420 93.136 - tv
regnet-y-800mf-paper 76.334 93.060 - regnety_008.pycls_in1k
regnet-y-1.6gf 77.950 93.966 - tv
resnet-18 69.758 89.078 - tv
resnet-34 73.314 91.420 - tv
resnet-50 76.130 92.862 - tv
resnext-50 77.618 93.698 - tv
shufflenet-v2 69.362 88.316 - tv
shufflenet-v2-x0.5 60.552 81.746 - tv
shufflenet-v2-x1.5 72.996 91.086 - tv
shufflenet-v2-x2 76.230 93.006 - tv
single-path-nas 74.96 - 79 single
squeezenet-1.0 58.092 80.420 - tv
squeezenet-1.1 58.178 80.624 - tv
wide-resnet-50-2 78.468 94.086 - tv
"""


def published(name: str) -> Published | None:
    """What is published of a network of the zoo, at width 1 and its own resolution; or None.

    >>> published("mnasnet-a1").pixel1_ms
    78.0
    """
    for line in _TABLE.split("\n"):
        words = line.split()
        if words and words[0] == name:
            top1, top5, ms = (None if w == "-" else float(w) for w in words[1:4])
            assert top1 is not None
            source = _SOURCES.get(words[4], f"timm, results-imagenet.csv, {words[4]}")
            return Published(top1, top5, ms, source)
    return None
