"""Latents from seeds: the same wherever they are looked at from."""

from __future__ import annotations

import pytest
import torch

from srflow_plugin.sampling import latents
from srflow_plugin.sampling.latents import Latents

SHAPES = [(6, 40, 56), (12, 20, 28), (48, 10, 14)]  # of 20 x 28


def test_a_window_shows_what_the_whole_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "BLOCK", 8)
    for cache in (0, 2**28):
        monkeypatch.setattr(latents, "MAX_CACHE", cache)
        drawn = Latents(SHAPES, (20, 28), [5], 2, range(2))
        whole = drawn.window((slice(0, 20), slice(0, 28)))
        assert [level.shape for level in whole] == [(4, *shape) for shape in SHAPES]
        for rows, columns in (
            (slice(6, 10), slice(0, 28)),
            (slice(18, 20), slice(24, 28)),
            (slice(2, 18), slice(6, 8)),
        ):
            for level, part, (_, height, _) in zip(whole, drawn.window((rows, columns)), SHAPES, strict=True):
                share = height / 20
                there = slice(int(rows.start * share), int(rows.stop * share))
                across = slice(int(columns.start * share), int(columns.stop * share))
                assert torch.equal(part, level[:, :, there, across])


def test_blocks_differ_and_are_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "BLOCK", 8)
    (level,) = Latents([(16, 64, 64)], (64, 64), [0], 1, range(1)).window((slice(0, 64), slice(0, 64)))
    blocks = level[0].unflatten(1, (8, 8)).unflatten(3, (8, 8)).permute(1, 3, 0, 2, 4).flatten(2).flatten(0, 1)
    correlations = torch.corrcoef(blocks) - torch.eye(64)
    assert correlations.abs().max() < 5 / 1024**0.5
    assert abs(float(level.mean())) < 0.02 and abs(float(level.std()) - 1) < 0.02


def test_a_sample_is_the_same_among_others_and_alone() -> None:
    area = slice(0, 20), slice(0, 28)
    many, alone = (Latents(SHAPES, (20, 28), [3], 1, samples).window(area) for samples in (range(5), [3]))
    for of_many, of_one in zip(many, alone, strict=True):
        assert torch.equal(of_many[3:4], of_one)


def test_small_images_have_the_latents_of_one_generator() -> None:
    generator = torch.Generator().manual_seed(11)
    expected = [[torch.randn(1, *shape, generator=generator) for shape in SHAPES] for _ in range(2)]
    drawn = Latents(SHAPES, (20, 28), [11], 1, range(2)).window((slice(0, 20), slice(0, 28)))
    for level, of_level in enumerate(zip(*expected, strict=True)):
        assert torch.equal(drawn[level], torch.cat(of_level))


def test_each_image_may_have_a_seed_of_its_own() -> None:
    area = slice(0, 20), slice(0, 28)
    both = Latents(SHAPES, (20, 28), [1, 2], 2, range(3)).window(area)
    for number, seed in enumerate((1, 2)):
        for level, own in zip(both, Latents(SHAPES, (20, 28), [seed], 1, range(3)).window(area), strict=True):
            assert torch.equal(level[number::2], own)
