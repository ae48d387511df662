"""Tiles show the whole image, and as much of it at once as the memory takes."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.sampling import tiling
from srflow_plugin.sampling.field import Field
from tests.helpers import image_pair, small_network


@pytest.mark.slow
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_tiles_with_all_their_surroundings_are_the_whole_image(scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # The small network reaches less far than this overlap, so not one digit may differ, at any seam.
    monkeypatch.setattr(Field, "overlap", 64)
    network = small_network(scale, num_block=1, feature_blocks=(0,), num_steps=1, scale_floor=0.3).double()
    _, lq = image_pair(scale, 75, 9, batch=1, dtype=torch.float64)
    whole, tiled = (network.sample(lq, 0.8, num_samples=2, seed=0, tile=tile) for tile in (None, 5))
    assert tiled.shape == whole.shape == (2, 1, 3, 75 * scale, 9 * scale)
    torch.testing.assert_close(tiled, whole, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(network.sample(lq, 0.8, 2, seed=0, tile="auto"), whole, rtol=1e-9, atol=1e-9)


def test_memory_at_hand_decides_on_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    def side(free: int | None, images: int = 1, num_samples: int = 1, width: int = 10**4, scale: int = 4) -> int:
        monkeypatch.setattr(tiling, "available_bytes", lambda device: free)
        found = tiling.tile_side("auto", (images, 3, 10**4, width), num_samples, scale)
        assert found is not None
        return found

    little, some, much = (side(free) for free in (1, 2**32, 2**35))
    assert little == tiling.MIN_SIDE < some < much == tiling.MAX_SIDE
    assert side(2**34, images=8) < side(2**34, num_samples=8) < side(2**34)
    assert side(2**32, width=10**5) < some and side(2**32, scale=8) < some  # a row of tiles is kept, too
    row = 3 * 4 * 16 * some * 10**4
    assert tiling.BYTES_PER_LQ_PIXEL * (some + 2 * Field.overlap) ** 2 + row < 2**32 * tiling.SHARE_OF_MEMORY
    assert tiling.tile_side("auto", (1, 3, some, some), 1, 4) is None  # the whole image fits
    assert side(None) == tiling.UNKNOWN_SIDE


@pytest.mark.parametrize(("tile", "side"), [(None, None), (7, 7), (12, None), (20, None)])
def test_an_image_that_is_one_tile_is_not_cut(tile: int | None, side: int | None) -> None:
    assert tiling.tile_side(tile, (1, 3, 5, 12), 1, 4) == side
