"""Edits through latents and back."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from srflow_plugin.applications.editing import interpolate, restore, transfer_content
from srflow_plugin.applications.latents import normalize_latents
from srflow_plugin.errors import UserError
from tests.helpers import image_pair, small_network

STAND: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-4}


def test_interpolation_ends_at_both_images() -> None:
    network = small_network()
    gt, lq = image_pair(4, 6, 4)
    other = (gt + 0.05).clamp(0, 1)
    images = interpolate(network, gt, other, lq, steps=3)
    assert images.shape == (3, *gt.shape)
    torch.testing.assert_close(images[0], gt, **STAND)
    torch.testing.assert_close(images[2], other, **STAND)
    assert not torch.allclose(images[1], (gt + other) / 2, **STAND)


def test_transferred_content_is_the_image_itself_on_its_own_lr_image_and_another_on_another() -> None:
    network = small_network()
    gt, lq = image_pair(4, 6, 4)
    torch.testing.assert_close(transfer_content(network, gt, lq, lq), gt, **STAND)
    other = 0.5 * lq
    image = transfer_content(network, gt, lq, other)
    latents, _ = network.encode(gt, lq)
    torch.testing.assert_close(image, network.decode(latents, other))
    assert not torch.allclose(image, gt, **STAND)


def test_restoration_decodes_normalised_latents() -> None:
    network = small_network()
    gt, lq = image_pair(4, 8, 8)
    latents, _ = network.encode(gt, lq)
    expected = network.decode(normalize_latents(latents, 0.7, 5), lq)
    torch.testing.assert_close(restore(network, gt, lq, temperature=0.7, window=5), expected)
    with pytest.raises(UserError, match="window must be odd"):
        restore(network, gt, lq, window=4)
