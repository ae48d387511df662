"""Windows cover an image, each place once, and know their surroundings."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.flow.windows import cut, enlarged, windows, with_margin


@pytest.mark.parametrize(
    ("height", "width", "side", "margin"), [(7, 5, 3, 2), (4, 9, 4, 4), (1, 1, 8, 3), (6, 6, 2, 0)]
)
def test_every_place_is_kept_once_with_its_margin(height: int, width: int, side: int, margin: int) -> None:
    image = torch.arange(height * width).view(1, 1, height, width)
    kept = torch.full_like(image, -1)
    for window in windows(height, width, side, margin):
        assert (cut(kept, window.inner) == -1).all()
        cut(kept, window.inner).copy_(cut(cut(image, window.outer), window.inner_in_outer))
        for outer, inner, length in zip(window.outer, window.inner, (height, width), strict=True):
            assert inner.stop - inner.start <= side
            assert (outer.start, outer.stop) == (max(0, inner.start - margin), min(length, inner.stop + margin))
    assert torch.equal(kept, image)


def test_what_is_computed_ends_at_multiples() -> None:
    outer, inner, inner_in_outer = with_margin(slice(5, 7), 20, 2, multiple=4)
    assert (outer, inner, inner_in_outer) == (slice(0, 12), slice(5, 7), slice(5, 7))


def test_a_window_in_a_larger_image() -> None:
    area = slice(2, 6), slice(4, 8)
    assert enlarged(area, 4) == (slice(8, 24), slice(16, 32))
    assert enlarged(area, 1, 2) == (slice(1, 3), slice(2, 4))
