"""The table of sizes: at paper size the published numbers, and what may be shipped."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from spectrakit.models.counts import NETWORKS, SIZES, count, parameter_counts, table

PUBLISHED = {
    "LRS transformer": 42_677_013, "XP transformer": 42_802_947, "XP autoencoder": 42_846_129,
    "LRS head (cross-attention)": 7_087_104, "XP head (perceptron)": 7_100_568,
    "aligned pair, base": 99_710_814, "aligned pair, pr": 168_293_752, "aligned pair, split": 126_229_506,
    "label head on embeddings": 1_348_353, "label head on fluxes": 2_059_009,
    "SpectraFM": 8_024_066, "transformer for stars": 8_845_529,             # SpectraFM without the rows that the published code never reads
}


@pytest.fixture(scope="module")
def counts():
    return parameter_counts()


def test_paper_size_is_the_published_one(counts):
    assert {name: row["paper"] for name, row in counts.items()} == PUBLISHED


def test_parts_add_up(counts):
    for size in SIZES:
        row = {name: by_size[size] for name, by_size in counts.items()}
        parts = ("LRS transformer", "XP autoencoder", "LRS head (cross-attention)", "XP head (perceptron)")
        assert row["aligned pair, base"] == sum(row[part] for part in parts)
    assert counts["aligned pair, pr"]["paper"] - counts["aligned pair, base"]["paper"] == 2 * (8_537_431 + 25_754_038)
    backbones = counts["LRS transformer"]["paper"] + counts["XP autoencoder"]["paper"]
    decoders = 13_954_790 + 971_033 + 12_451_254 + 3_856_727
    assert counts["aligned pair, split"]["paper"] == backbones + 4_465_664 + 5_006_896 + decoders


def test_small_models_can_be_shipped(counts):
    """LRS at most 3 million; autoencoder, heads and decoders less than 3 million together."""
    assert counts["LRS transformer"]["small"] <= 3_000_000
    for variant in ("base", "pr", "split"):
        assert counts[f"aligned pair, {variant}"]["small"] - counts["LRS transformer"]["small"] < 3_000_000


def test_real_networks_have_the_counted_sizes(counts):
    """Built in memory, at the sizes where that is cheap."""
    for name, make in NETWORKS.items():
        with torch.random.fork_rng(devices=[]):
            assert sum(p.numel() for p in make("tiny").parameters()) == counts[name]["tiny"]


def test_frozen_parameters_count_and_buffers_do_not():
    norm = nn.BatchNorm1d(3).requires_grad_(False)
    assert count(norm) == 6


def test_table_is_printed():
    lines = table().splitlines()
    assert lines[0].split() == list(SIZES)
    assert len(lines) == 1 + len(PUBLISHED)
    for line, (name, published) in zip(lines[1:], PUBLISHED.items(), strict=True):
        assert line.startswith(name)
        assert line[28:].split()[0] == f"{published:,}"
    done = subprocess.run([sys.executable, "-m", "spectrakit.models.counts"], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == lines, done.stderr
