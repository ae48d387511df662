"""A painted part of a picture, drawn anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import srflow_plugin
from srflow_plugin import SRFlowNet, bicubic_downscale
from srflow_plugin.applications import redraw as module
from srflow_plugin.applications.redraw import draw_again, read_mask, redraw, redraw_photograph
from srflow_plugin.applications.upscale import find_network
from srflow_plugin.demo.session import example
from srflow_plugin.errors import UserError
from srflow_plugin.images.photographs import from_array
from srflow_plugin.images.tensors import to_tensor
from srflow_plugin.sampling.field import Field
from tests.helpers import noise_image

HEIGHT, WIDTH = 9, 11  # of the LR image, odd


@pytest.fixture(scope="module")
def network() -> SRFlowNet:
    return find_network(4, None, "cpu")  # one of random weights explodes at tau = 0


@pytest.fixture(scope="module")
def pair() -> tuple[Tensor, Tensor]:
    return pair_of(photograph()[: 4 * HEIGHT, : 4 * WIDTH])


def photograph(height: int = 256, width: int = 256) -> np.ndarray:
    """Repeat a photograph to a size: uint8 RGB."""
    cat = np.asarray(example("cat"))
    return np.tile(cat, (-(-height // 256), -(-width // 256), 1))[:height, :width]


def pair_of(picture: np.ndarray) -> tuple[Tensor, Tensor]:
    return to_tensor(picture), to_tensor(bicubic_downscale(picture, 4))


def mask_of(*places: tuple[Any, Any], height: int = 4 * HEIGHT, width: int = 4 * WIDTH) -> Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    for rows, columns in places:
        mask[rows, columns] = True
    return mask


MASKS = {
    "inside": mask_of((slice(8, 20), slice(9, 30))),
    "at a corner": mask_of((slice(20, None), slice(30, None))),
    "a column": mask_of((slice(None), slice(7, 9))),
    "one pixel": mask_of((13, 17)),
    "the last pixel": mask_of((-1, -1)),
    "several": mask_of((slice(0, 3), slice(0, 3)), (slice(20, 28), slice(30, 40)), (35, 0)),
    "everything": mask_of((slice(None), slice(None))),
    "as floats": mask_of((slice(8, 20), slice(9, 30))).float() * 0.7,
    "of the LR image's size": mask_of((slice(2, 5), slice(4, 7)), height=HEIGHT, width=WIDTH),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_only_what_is_painted_changes(network: SRFlowNet, pair: tuple[Tensor, Tensor], mask: Tensor) -> None:
    image, lq = pair
    before = image.clone()
    drawn = redraw(network, image, lq, mask, 0.5, seed=1)
    painted = mask >= 0.5 if mask.is_floating_point() else mask
    if painted.shape != image.shape[2:]:
        painted = painted.repeat_interleave(4, 0).repeat_interleave(4, 1)
    assert torch.equal(image, before) and torch.equal(drawn[:, :, ~painted], image[:, :, ~painted])
    assert (drawn != image).any(1)[0][painted].float().mean() > 0.9
    assert drawn.isfinite().all() and drawn.min() >= 0 and drawn.max() <= 1
    assert torch.equal(drawn, redraw(network, image, lq, mask, 0.5, seed=1))
    assert not torch.equal(drawn, redraw(network, image, lq, mask, 0.5, seed=2))


def test_the_latents_that_are_there_times_a_factor(network: SRFlowNet, pair: tuple[Tensor, Tensor]) -> None:
    image, lq = pair
    everything = MASKS["everything"]
    torch.testing.assert_close(redraw(network, image, lq, everything, factor=1), image, rtol=0, atol=1e-4)
    latents, _ = network.encode(image, lq)
    calmer = network.decode([0.5 * latent for latent in latents], lq).clamp(0, 1)
    torch.testing.assert_close(redraw(network, image, lq, everything, factor=0.5), calmer, rtol=0, atol=1e-4)
    one = redraw(network, image, lq, MASKS["inside"], factor=0.5, seed=1)
    assert torch.equal(one, redraw(network, image, lq, MASKS["inside"], factor=0.5, seed=2))


def test_only_windows_around_the_mask_are_computed(network: SRFlowNet, monkeypatch: pytest.MonkeyPatch) -> None:
    image, lq = pair_of(photograph(600, 800))
    mask = mask_of((300, 400), (303, 420), (10, 10), height=600, width=800)
    sizes, encode = [], network.encode

    def noted(gt: Tensor, lq: Tensor, features: Any) -> Any:
        sizes.append(tuple(lq.shape[2:]))
        return encode(gt, lq, features)

    monkeypatch.setattr(network, "encode", noted)
    redraw(network, image, lq, mask, 0.5)
    rim = 2 * Field.overlap
    step = 2 ** len(network.flow.levels) // network.scale  # LR pixels that are one in the deepest level
    corner, height, width = (-(-side // step) * step for side in (3 + Field.overlap, 1 + rim, 6 + rim))
    assert sizes == [(corner, corner), (height, width)]


def test_large_regions_in_windows_are_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    network = find_network(4, None, "cpu")
    image, lq = pair_of(photograph())
    mask = mask_of((slice(0, 190), slice(30, 256)), height=256, width=256)
    whole = redraw(network, image, lq, mask, 0.8, seed=3)
    monkeypatch.setattr(module, "SIDE", 21)
    windows = redraw(network, image, lq, mask, 0.8, seed=3)
    assert not torch.equal(windows, whole)
    assert (windows - whole).abs().max() < 0.02


def steps(image: Tensor, mask: Tensor) -> float:
    """Mean difference between the pixels on the two sides of the mask's border."""
    sides = []
    for dim in (2, 3):
        border = mask.int().diff(dim=dim - 2) != 0
        sides.append(image.diff(dim=dim).abs().mean(1)[0][border])
    return float(torch.cat(sides).mean())


def test_the_seam_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    network = find_network(4, None, "cpu")
    _, lq = pair_of(photograph())
    sample = network.sample(lq, 0.8, seed=0, resample=0.8)[0].clamp(0, 1)
    mask = mask_of((slice(70, 180), slice(60, 190)), height=256, width=256)
    ratio = steps(redraw(network, sample, lq, mask, seed=1), mask) / steps(sample, mask)
    assert ratio < 1.05
    monkeypatch.setattr(module, "FADE", 1e6)
    monkeypatch.setattr(module, "FEATHER", 0.25)
    monkeypatch.setattr(module, "_feathered", lambda painted, width: painted.float())
    assert steps(redraw(network, sample, lq, mask, seed=1), mask) / steps(sample, mask) > 1.2  # an edge would be seen


def test_explosions_are_drawn_again_and_else_the_picture_stays(
    network: SRFlowNet, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image, lq = pair
    mask, decode = MASKS["inside"], network.decode

    def hot(latents: list[Tensor], *given: Any) -> Tensor:
        return decode(latents, *given) + (torch.inf if latents[0].abs().max() > 2 else 0)

    monkeypatch.setattr(network, "decode", hot)
    result = draw_again(network, image, lq, mask, 3.0, seed=1)
    assert result.kept == 0 and (result.image != image).any(1)[0][mask].float().mean() > 0.9
    monkeypatch.setattr(network, "decode", lambda *given: decode(*given) * torch.nan)
    assert torch.equal(redraw(network, image, lq, mask, seed=1), image)  # never black
    line = capsys.readouterr().err
    assert line.startswith(f"{int(mask.sum())} painted pixels stay as they were") and line.count("\n") == 1


def test_pictures_that_cannot_be_encoded(
    network: SRFlowNet, pair: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda *given: ([z * torch.inf for z in encode(*given)[0]], None))
    with pytest.raises(UserError, match="cannot encode the picture"):
        redraw(network, *pair, MASKS["inside"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": mask_of()}, "nothing is painted"),
        ({"mask": mask_of().float() + 0.4}, "nothing is painted"),
        ({"mask": torch.ones(36, 43)}, "the mask has 43x36 pixels; the picture has 44x36, its LR image 11x9"),
        ({"mask": torch.ones(1, 36, 44)}, "the mask has 44x36x1 pixels"),
        ({"temperature": -0.1}, "must be 0 or more, not -0.1"),
        ({"temperature": float("nan")}, "must be 0 or more, not nan"),
        ({"factor": float("inf")}, "must be 0 or more, not 0.8 and inf"),
        ({"lq": torch.rand(1, 3, 9, 10)}, "44x36 and 10x9 pixels; the network is of scale 4"),
        ({"image": torch.rand(2, 3, 36, 44)}, "one image at a time"),
        ({"image": torch.rand(1, 3, 36, 44) + 0.5}, "must lie in 0 ... 1"),
        ({"image": torch.rand(1, 3, 36, 44) / 0}, "must lie in 0 ... 1"),
    ],
)
def test_what_cannot_be_drawn(
    network: SRFlowNet, pair: tuple[Tensor, Tensor], changes: dict[str, Any], message: str
) -> None:
    arguments = {"image": pair[0], "lq": pair[1], "mask": MASKS["inside"], **changes}
    with pytest.raises(UserError, match=message):
        srflow_plugin.redraw(network, **arguments)


CAT = photograph(38, 45)
KINDS = {
    "colour": CAT,
    "grey": CAT[..., 0],
    "16 bit": CAT.astype(np.uint16) * 257 - 3,
    "16 bit grey": CAT[..., 0].astype(np.uint16) * 255 + 7,
    "alpha": np.dstack([CAT, noise_image(38, 45)[..., 0]]),
    "grey with alpha": np.dstack([CAT[..., 0], noise_image(38, 45)[..., 0]]),
}


@pytest.mark.parametrize("pixels", KINDS.values(), ids=KINDS)
def test_photographs_keep_their_kind_and_all_other_pixels(network: SRFlowNet, pixels: np.ndarray) -> None:
    before = from_array(pixels, b"profile", b"exif")
    mask = np.zeros((38, 45), bool)
    mask[4:20, 30:] = True  # the last column makes no whole LR pixel
    drawn, changed, notes = redraw_photograph(network, before, mask, temperature=0.4, seed=1)
    after = drawn.quantised()
    assert after.dtype == pixels.dtype and after.shape == pixels.shape
    assert (drawn.icc_profile, drawn.exif, drawn.is_grey) == (b"profile", b"exif", before.is_grey)
    assert np.array_equal(after[~mask], pixels[~mask]) and np.array_equal(after[:, 44:], pixels[:, 44:])
    assert changed == (np.atleast_3d(after) != np.atleast_3d(pixels)).any(2).sum() > 100
    assert notes == ["16 painted pixels stay: they lie beyond the last whole 4x4 pixels"]
    if before.alpha is not None:
        assert np.array_equal(after[..., -1], pixels[..., -1])


def test_photographs_that_cannot_be_drawn(network: SRFlowNet) -> None:
    cat = from_array(CAT)
    last = np.zeros((38, 45), bool)
    last[37] = True
    with pytest.raises(UserError, match="only the last rows or columns are painted"):
        redraw_photograph(network, cat, last)
    with pytest.raises(UserError, match="smaller than 4 pixels"):
        redraw_photograph(network, from_array(noise_image(3, 45)), last)
    with pytest.raises(UserError, match="44x36 and 11x8 pixels"):
        redraw_photograph(network, cat, ~last, from_array(noise_image(8, 11)))


def test_masks_as_people_have_them(tmp_path: Any) -> None:
    painted = np.zeros((6, 8), bool)
    painted[2:4, 3:7] = True
    white, black = np.uint8(255) * painted, np.zeros((6, 8), np.uint8)
    masks = {
        "grey": Image.fromarray(white),
        "bit": Image.fromarray(painted),
        "colour": Image.fromarray(np.dstack([white] * 3)),
        "16 bit": Image.fromarray(np.uint16(65535) * painted),
        "palette": Image.fromarray(np.dstack([white] * 3)).quantize(2),
        "black on transparent": Image.fromarray(np.dstack([black] * 3 + [white])),
        "white, with an opaque alpha": Image.fromarray(np.dstack([white] * 3 + [black + 255])),
    }
    for name, mask in masks.items():
        mask.save(tmp_path / "mask.png")
        assert np.array_equal(read_mask(tmp_path / "mask.png"), painted), name
    Image.fromarray(painted.astype(np.uint8)).save(tmp_path / "labels.png")
    with pytest.raises(UserError, match="nothing is painted; its lightest pixel is 0% white"):
        read_mask(tmp_path / "labels.png")
