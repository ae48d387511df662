"""The order of the training data: the same for any number of processes and workers, before and after a resume."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from basicsr.data import build_dataset

from srflow_plugin.data.checked import BadImageError, CheckedImages
from srflow_plugin.options.schema import Section
from srflow_plugin.training.order import Draws, global_batch_size, training_batches
from srflow_plugin.training.seeds import seed_cpu, seed_everything


def draws_of(opt: Section, **arguments: Any) -> Draws:
    return Draws(CheckedImages(build_dataset(opt["datasets"]["train"])), 0, **arguments)


def test_a_draw_is_the_same_whatever_was_drawn_before(tiny_options: Section) -> None:
    draws = draws_of(tiny_options)
    first = [draws[number] for number in range(7)]
    random.seed(5)
    again = draws_of(tiny_options)
    for number in (6, 0, 3):
        assert torch.equal(again[number]["gt"], first[number]["gt"])
    names = [sample["gt_path"] for sample in first]
    assert len(set(names[:3])) == len(set(names[3:6])) == 3  # every image once, then every image once again
    assert not torch.equal(draws_of(tiny_options)[0]["gt"], Draws(draws.images, 1)[0]["gt"])


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 1), (2, 0), (3, 0)])
def test_batches_are_the_same_images_for_any_number_of_processes(
    tiny_options: Section, world_size: int, num_workers: int
) -> None:
    draws = draws_of(tiny_options)
    expected = [draws[number]["gt"] for number in range(12, 24)]
    tiny_options["datasets"]["train"].update(batch_size_per_gpu=6 // world_size, num_worker_per_gpu=num_workers)
    found: list[list[torch.Tensor]] = [[], []]
    for rank in range(world_size):
        opt = {**tiny_options, "dist": True, "rank": rank, "world_size": world_size}
        batches = list(training_batches(draws, opt, first=12, iterations=2))
        assert len(batches) == 2
        for number, batch in enumerate(batches):
            found[number] += list(batch["gt"])
    for number, images in enumerate(found):
        of_batch = expected[6 * number : 6 * number + 6]
        assert all(sum(torch.equal(image, other) for other in of_batch) == 1 for image in images)


def test_seeds_settle_every_generator() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), np.random.rand(), torch.rand(()).item()

    seed_everything(1, 2)
    first = draw()
    assert draw() != first
    seed_everything(1, 2)
    assert draw() == first
    seed_everything(1, 3)
    assert all(new != old for new, old in zip(draw(), first, strict=True))


def test_the_quick_seed_of_a_draw_is_the_same_on_the_cpu() -> None:
    seed_everything(3, 4)
    expected = random.random(), np.random.rand(), torch.rand(()).item()
    seed_everything(5, 6)
    assert seed_cpu(3, 4) == torch.initial_seed()
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_a_batch_has_the_images_of_all_processes(tiny_options: Section) -> None:
    assert global_batch_size(tiny_options) == 2
    assert global_batch_size({**tiny_options, "num_gpu": 3}) == 6  # BasicSR's way: one process for several GPUs
    assert global_batch_size({**tiny_options, "dist": True, "world_size": 4, "num_gpu": 1}) == 8


class Images:
    """Stands in for a data set in which some images are broken."""

    def __init__(self, *broken: int) -> None:
        self.broken = broken
        self.opt = {"name": "images"}

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.broken:
            raise BadImageError(f"{index} is broken")
        return {"index": index, "note": f"{index} is grey" if index == 3 else ""}


def draw_all(*broken: int, skip_bad: bool) -> list[dict[str, Any]]:
    images: Any = Images(*broken)
    draws = Draws(images, 0, skip_bad)
    return [draws[number] for number in range(8)]


def test_the_next_image_takes_the_place_of_a_bad_one() -> None:
    whole, skipped = draw_all(skip_bad=True), draw_all(1, skip_bad=True)
    assert {sample["note"] for sample in whole} == {"", "3 is grey"}
    changed = [number for number, (one, other) in enumerate(zip(whole, skipped, strict=True)) if one != other]
    assert [whole[number]["index"] for number in changed] == [1, 1]
    for number in changed:
        after = whole[number // 4 * 4 + (number + 1) % 4]
        assert skipped[number]["index"] == after["index"]
        assert skipped[number]["note"] == "\n".join(filter(None, ["skipped: 1 is broken", after["note"]]))
    with pytest.raises(BadImageError, match=r"^1 is broken$"):
        draw_all(1, skip_bad=False)
    with pytest.raises(BadImageError, match=r"^images: no image can be used; skipped: . is broken$"):
        draw_all(0, 1, 2, 3, skip_bad=True)
