"""Numbers of codecs that cannot be run here, as their papers print them."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A codec, its bits/dim on some sets as printed, and what it needs or who says so."""

    codec: str
    numbers: tuple[str, ...]
    needs: str


#: (second): quoted from another paper's table; (bytes): worked out from published sizes of files.
PHOTOGRAPHS_HEAD = ("Kodak", "DIV2K validation", "CLIC professional")
PHOTOGRAPHS = (
    Published("FLIF", ("2.90", "2.91", "2.72"), ""),
    Published("GraLIC", ("2.803 (bytes)", "", ""), "closed program, one CPU thread"),
    Published("BMF", ("2.711 (bytes)", "", ""), "closed program, one CPU thread"),
    Published("EMMA", ("2.604 (bytes)", "", "2.397 (bytes; CLIC2021)"), "closed program, one CPU thread"),
    Published("L3C", ("3.26", "3.09", "2.94"), "GPU"),
    Published("LC-FDNet", ("2.98 (second)", "", ""), "GPU"),
    Published("DLPR", ("2.86", "2.55", "2.38"), "GPU, 22 M parameters"),
    Published("ArIB-BPS", ("2.78 (second)", "2.55", ""), "GPU, 147 M parameters"),
    Published("P2-LLM 8B", ("2.83", "2.51", "2.35"), "8 × A800"),
    Published("HPAC", ("2.73 (second)", "", ""), "677 K parameters; fine-tuned to each picture 2.52"),
    Published("CALLIC", ("2.54 (second)", "", ""), "fine-tuned to each picture"),
)
PHOTOGRAPHS_SOURCES = (
    "arXiv 2411.12448; CALLIC, AAAI-25, Table 1; arXiv 2511.10991; WangXuan95/Image-Compression-Benchmark. "
    "(second): quoted from another paper's table. (bytes): worked out from published sizes of files."
)
CIFAR_HEAD = ("CIFAR-10",)
CIFAR = (
    Published("PixelCNN (likelihood)", ("3.14",), "van den Oord et al. 2016"),
    Published("Row LSTM (likelihood)", ("3.07",), "van den Oord et al. 2016"),
    Published("Diagonal BiLSTM (likelihood)", ("3.00",), "van den Oord et al. 2016"),
    Published("Gated PixelCNN (likelihood)", ("3.03",), "van den Oord et al. 2016, NIPS"),
    Published("PixelCNN++ (likelihood)", ("2.92",), "Salimans et al. 2017"),
    Published("PixelSNAIL (likelihood)", ("2.85",), "Chen et al. 2018"),
    Published("ARDM, one picture alone", ("2.71",), "Hoogeboom et al. 2022"),
    Published("NeLLoC, one picture alone", ("3.25",), ""),
    Published("IDF++, one picture alone", ("3.26",), ""),
    Published("IDF, one picture alone", ("3.34",), ""),
    Published("FLIF, one picture alone", ("4.19",), ""),
    Published("HiLLoC, one picture alone", ("4.19",), ""),
)
CIFAR_SOURCES = "As the codecs' own papers print them; these models were trained on CIFAR-10."
