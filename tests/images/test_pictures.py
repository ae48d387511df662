"""Pictures for people: sizes, places and colours."""

from __future__ import annotations

import numpy as np
import pytest

from srflow_plugin.images.pictures import (
    GAP,
    SHEET_WIDTH,
    TITLE_HEIGHT,
    VIRIDIS,
    WHITE,
    comparison_grid,
    contact_sheet,
    heat_map,
    resized,
    spread,
    stacked,
)
from tests.helpers import noise_image


def test_a_row_shows_each_image_under_its_title() -> None:
    small, large = noise_image(4, 6), noise_image(16, 24, seed=1)
    grid = comparison_grid([("LR", small), ("a sample", large)], 16)
    assert grid.shape == (TITLE_HEIGHT + 16, 24 + GAP + 24, 3) and grid.dtype == np.uint8
    assert np.array_equal(grid[TITLE_HEIGHT:, :24], small.repeat(4, axis=0).repeat(4, axis=1))
    assert np.array_equal(grid[TITLE_HEIGHT:, 24 + GAP :], large)
    titles = grid[:TITLE_HEIGHT]
    assert (titles[:, :24] != WHITE).any() and (titles[:, 24 + GAP :] != WHITE).any()  # something is written
    assert (grid[:, 24 : 24 + GAP] == WHITE).all()


def test_colours_are_rgb() -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    assert (comparison_grid([("", red)], 8)[TITLE_HEIGHT:] == (255, 0, 0)).all()
    ramp = heat_map(np.linspace(0, 1, 1001).reshape(1, -1), "")
    assert np.abs(ramp[0, 0].astype(int) - VIRIDIS[0]).max() <= 1
    assert np.abs(ramp[0, 500].astype(int) - VIRIDIS[4]).max() <= 1
    assert np.abs(ramp[0, -1].astype(int) - VIRIDIS[-1]).max() <= 1


def test_a_sheet_breaks_into_rows_as_wide_as_a_screen() -> None:
    images = [(f"{number}", noise_image(10, 400, number)) for number in range(8)]
    sheet = contact_sheet(images, 10)
    in_a_row = 4  # 6 would fit, but then the second row would be shorter
    assert sheet.shape == (2 * (TITLE_HEIGHT + 10) + GAP, in_a_row * 400 + (in_a_row - 1) * GAP, 3)
    assert sheet.shape[1] <= SHEET_WIDTH
    assert np.array_equal(sheet[TITLE_HEIGHT : TITLE_HEIGHT + 10, :400], images[0][1])
    second_row = sheet[2 * TITLE_HEIGHT + 10 + GAP :]
    assert np.array_equal(second_row[:, :400], images[4][1])


def test_one_image_wider_than_a_screen_is_a_row_of_its_own() -> None:
    sheet = contact_sheet([("a", noise_image(4, SHEET_WIDTH + 8)), ("b", noise_image(4, 4))], 4)
    assert sheet.shape[0] == 2 * (TITLE_HEIGHT + 4) + GAP


def test_pictures_below_each_other_are_flush_left_on_white() -> None:
    wide, narrow = noise_image(3, 9), noise_image(2, 4, seed=1)
    both = stacked([narrow, wide])
    assert both.shape == (3 + GAP + 2, 9, 3)
    assert np.array_equal(both[:2, :4], narrow) and np.array_equal(both[2 + GAP :], wide)
    assert (both[:2, 4:] == WHITE).all() and (both[2 : 2 + GAP] == WHITE).all()


def test_a_map_is_scaled_between_percentiles_and_leaves_white_what_is_no_number() -> None:
    values = np.random.default_rng(0).random((40, 50))
    plain = heat_map(values, "bits")
    assert plain.shape[1] == 50 and plain.shape[0] > 40
    spoilt = values.copy()
    spoilt[3, 4], spoilt[5, 6] = np.nan, np.inf
    picture = heat_map(spoilt, "bits")
    assert (picture[3, 4] == WHITE).all() and (picture[5, 6] == WHITE).all()
    outlier = values.copy()
    outlier[0, 0] = 1e6  # one pixel does not make the rest dark
    assert np.abs(heat_map(outlier, "bits")[1:40].astype(int) - plain[1:40]).mean() < 2
    for constant in (np.full((3, 4), 7.0), np.full((3, 4), np.nan)):
        assert heat_map(constant, "").shape[1] == 4


@pytest.mark.parametrize(("height", "width"), [(4, 6), (8, 12), (5, 9), (2, 3), (1, 1)])
def test_resizing_takes_pixels_as_they_are(height: int, width: int) -> None:
    image = noise_image(4, 6)
    small = resized(image, height, width)
    assert small.shape == (height, width, 3)
    assert {tuple(pixel) for pixel in small.reshape(-1, 3)} <= {tuple(pixel) for pixel in image.reshape(-1, 3)}


def test_spread_is_in_grey_levels() -> None:
    samples = [noise_image(3, 4, seed) for seed in range(5)]
    expected = np.stack(samples).astype(float).std(axis=0, ddof=1).mean(axis=2) / 0.9399856  # c4(5)
    assert spread(samples).shape == (3, 4) and spread(samples) == pytest.approx(expected)


@pytest.mark.parametrize("number", [2, 3, 5, 10, 50])
def test_the_number_of_samples_does_not_change_their_spread(number: int) -> None:
    samples = list(np.random.default_rng(number).normal(128, 10, (number, 200, 200, 1)))
    assert spread(samples).mean() == pytest.approx(10, abs=0.1)
