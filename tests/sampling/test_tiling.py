"""Tiles show the whole image, and as much of it at once as the memory takes."""

from __future__ import annotations

import os

import pytest
import torch

from srflow_plugin.sampling import tiling
from tests.helpers import image_pair, small_network


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_tiles_with_all_their_surroundings_are_the_whole_image(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The small network reaches less far than this overlap, so not one digit may differ, at any seam.
    monkeypatch.setattr(tiling, "OVERLAP", 64)
    network = small_network(scale, num_block=1, feature_blocks=(0,), num_steps=1, scale_floor=0.3).double()
    _, lq = image_pair(scale, 75, 9, batch=1, dtype=torch.float64)
    whole, tiled = (network.sample(lq, 0.8, num_samples=2, seed=0, tile=tile) for tile in (None, 5))
    assert tiled.shape == whole.shape == (2, 1, 3, 75 * scale, 9 * scale)
    torch.testing.assert_close(tiled, whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.sample(lq, 0.8, 2, seed=0, tile="auto"), whole, rtol=1e-9, atol=1e-9)


def test_memory_at_hand_decides_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    lq = torch.zeros(1, 1, 1, 1).expand(1, 3, 10**5, 10**5)  # takes no memory

    def side(lq: torch.Tensor, num_samples: int, pages: int) -> int:
        monkeypatch.setattr(os, "sysconf", {"SC_AVPHYS_PAGES": pages, "SC_PAGE_SIZE": 4096}.__getitem__)
        found = tiling.tile_side("auto", lq, num_samples)
        assert found is not None
        return found

    little, some, much = (side(lq, 1, pages) for pages in (1, 2**20, 2**24))
    assert little == tiling.MIN_SIDE < some < much
    assert side(lq.expand(8, 3, *lq.shape[2:]), 1, 2**24) < side(lq, 8, 2**24) < much
    assert tiling.BYTES_PER_LQ_PIXEL * (some + 2 * tiling.OVERLAP) ** 2 < 2**32
    assert tiling.tile_side("auto", lq[..., :some, :some], 1) is None  # the whole image fits


@pytest.mark.parametrize(("tile", "side"), [(None, None), (7, 7), (12, None), (20, None)])
def test_an_image_that_is_one_tile_is_not_cut(tile: int | None, side: int | None) -> None:
    assert tiling.tile_side(tile, torch.zeros(1, 3, 5, 12), 1) == side
