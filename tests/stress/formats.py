"""Image files of every kind and every oddity through ``srflow upscale``: what comes out, or the line that came.

    python -m tests.stress.formats [--seed S] [--cases N]

Makes the files, runs the command, and prints a table: file, exit code, what came (mode, depth, size, ICC, EXIF) or the
line. A result that is silent and wrong is marked, and the exit code is 1: a picture whose colours are not those of the
file: made small again it is farther from them than 40 dB and than bicubic enlargement, with no line that says so.

With ``--cases`` that many are made at random instead: files of odd kinds, damaged files, and folders of both, which are
enlarged twice and must end with all that can be read done and all else named. Only what is wrong is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import random
import struct
import sys
import tempfile
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

from srflow_plugin.cli.main import srflow_command
from srflow_plugin.errors import UserError
from srflow_plugin.images.files import PNG_START, chunk
from srflow_plugin.images.photographs import bled
from srflow_plugin.images.resize import bicubic_downscale, bicubic_upscale
from srflow_plugin.images.rows import read_photograph
from srflow_plugin.images.tensors import to_pixels, to_tensor

HEIGHT, WIDTH = 22, 30
LEAST = 40.0  # dB between the file and its enlargement, made small again, or what bicubic enlargement has
Made = tuple[str, Callable[[Path], Any], np.ndarray | None]  # name, how to write it, its colours if a picture must come


def colours(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Make a smooth picture, uint8 RGB."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + phase) * np.cos(y / (4 + phase)) for phase in (0, 1, 2)]
    picture: np.ndarray = (127.5 + 100 * np.dstack(waves)).round().astype(np.uint8)
    return picture


RGB = colours()
GREY = np.dstack([RGB[..., 1]] * 3)
ALPHA = np.zeros((HEIGHT, WIDTH), np.uint8)
ALPHA[6:16, 8:22] = 255


def pillow(mode: str = "RGB", **settings: Any) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(RGB).convert(mode).save(path, **settings)


def exif(**tags: Any) -> bytes:
    made = Image.Exif()
    made[0x010F] = "a camera"
    for tag, value in tags.items():
        made[int(tag[1:], 16)] = value
    return made.tobytes()


def broken_exif() -> bytes:
    """Write a number where a text belongs, and a text where a number does."""
    entries = struct.pack("<HHII", 0x0112, 2, 4, 0x00333333) + struct.pack("<HHII", 0x829A, 2, 4, 0x00414141)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + entries + bytes(4)


def with_alpha(path: Path, mode: str = "RGBA") -> None:
    hidden = np.where(ALPHA[..., None] > 0, RGB, 0)
    Image.fromarray(np.dstack([hidden, ALPHA])).convert(mode).save(path)


def frames(path: Path, kind: str) -> None:
    first = Image.fromarray(RGB)
    first.save(path, kind, save_all=True, append_images=[first.rotate(180), first.rotate(90)])


def header(width: int, height: int) -> Callable[[Path], int]:
    """Make a PNG file of a few bytes that says to be of any size."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = PNG_START + start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return lambda path: path.write_bytes(data)


def then(how: Callable[[Path], Any], change: Callable[[bytes], bytes]) -> Callable[[Path], int]:
    def write(path: Path) -> int:
        how(path)
        return path.write_bytes(change(path.read_bytes()))

    return write


def deep(*channels: int) -> np.ndarray:
    return np.dstack([RGB, ALPHA])[..., list(channels)].astype(np.uint16) * 257 + 3


def cases() -> Iterator[Made]:
    """List files: name, writer, colours."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    palette = np.asarray(Image.fromarray(RGB).quantize(64).convert("RGB"))
    yield "rgb.png", pillow(), RGB
    yield "grey.png", pillow("L"), None
    yield "black_and_white.png", pillow("1"), None
    yield "palette.png", lambda path: Image.fromarray(RGB).quantize(64).save(path), palette
    yield "palette_16_colours.png", lambda path: Image.fromarray(RGB).quantize(16).save(path), None
    yield "alpha.png", with_alpha, None
    yield "grey_alpha.png", lambda path: with_alpha(path, "LA"), None
    yield "trns_rgb.png", pillow(transparency=(1, 2, 3)), RGB
    yield "trns_grey.png", pillow("L", transparency=7), None
    yield "trns_palette.png", lambda path: Image.fromarray(RGB).quantize(64).save(path, transparency=3), None
    yield "all_transparent.png", lambda path: Image.fromarray(np.dstack([RGB, 0 * ALPHA])).save(path), RGB
    yield "16_bit_grey.png", lambda path: cv2.imwrite(str(path), deep(1)), None
    yield "16_bit_rgb.png", lambda path: cv2.imwrite(str(path), deep(2, 1, 0)), RGB
    yield "16_bit_alpha.png", lambda path: cv2.imwrite(str(path), deep(2, 1, 0, 3)), None
    yield "interlaced.png", lambda path: path.write_bytes(interlaced()), RGB
    yield "icc_exif.png", pillow(icc_profile=profile, exif=exif()), RGB
    yield "turned.png", pillow(exif=exif(t0112=6)), np.rot90(RGB, -1)
    yield "turned_16_bit.png", deep_turned, np.rot90(RGB, -1)
    yield "exif_of_wrong_types.jpg", pillow(exif=broken_exif(), quality=100, subsampling=0), RGB
    yield "exif_cut.jpg", pillow(exif=exif()[:20], quality=100, subsampling=0), RGB
    yield "animated.png", lambda path: frames(path, "PNG"), RGB
    yield "animated.gif", lambda path: frames(path, "GIF"), None
    yield "animated.webp", lambda path: frames(path, "WEBP"), None
    yield "pages.tif", lambda path: frames(path, "TIFF"), RGB
    yield "rgb.jpg", pillow(quality=100, subsampling=0), RGB
    yield "grey.jpg", pillow("L", quality=100), None
    yield "cmyk.jpg", pillow("CMYK", quality=100), None
    yield "progressive.jpg", pillow(quality=100, subsampling=0, progressive=True), RGB
    yield "bytes_behind.jpg", then(pillow(quality=100, subsampling=0), lambda data: data + b"a film" * 999), RGB
    yield "bytes_behind.png", then(pillow(), lambda data: data + b"a film" * 999), RGB
    yield "named_otherwise.png", lambda path: Image.fromarray(RGB).save(path, "BMP"), RGB
    yield "rgb.jfif", lambda path: Image.fromarray(RGB).save(path, "JPEG", quality=100, subsampling=0), RGB
    yield "rgb.bmp", pillow(), RGB
    yield "rgb.gif", pillow("P"), None
    yield "rgb.webp", pillow(lossless=True), RGB
    yield "alpha.webp", lambda path: Image.fromarray(np.dstack([RGB, ALPHA])).save(path, lossless=True), None
    yield "rgb.ppm", pillow(), RGB
    yield "rgb.tga", pillow(), RGB
    yield "rgb.tif", pillow(compression="tiff_lzw"), RGB
    yield "jpeg_inside.tif", pillow(compression="jpeg", quality=100), None
    yield "16_bit_rgb.tif", lambda path: cv2.imwrite(str(path), deep(2, 1, 0)), RGB
    yield "cmyk.tif", pillow("CMYK"), None
    yield "lab.tif", lambda path: Image.fromarray(RGB).convert("RGB").convert("LAB").save(path), None
    yield "float_to_1.tif", lambda path: Image.fromarray((GREY[..., 0] / 255).astype(np.float32)).save(path), GREY
    yield "float_to_255.tif", lambda path: Image.fromarray(GREY[..., 0].astype(np.float32)).save(path), None
    yield "float_nan.tif", lambda path: Image.fromarray(np.full((9, 9), np.nan, np.float32)).save(path), None
    yield "float_rgb.tif", lambda path: cv2.imwrite(str(path), RGB.astype(np.float32) / 255), None
    yield "32_bit.tif", lambda path: Image.fromarray(GREY[..., 0].astype(np.int32)).save(path), None
    yield "one_pixel.png", lambda path: Image.fromarray(RGB[:1, :1]).save(path), RGB[:1, :1]
    yield "one_row.png", lambda path: Image.fromarray(RGB[:1]).save(path), RGB[:1]
    yield "one_column.jpg", lambda path: Image.fromarray(RGB[:, :1]).save(path, quality=100, subsampling=0), RGB[:, :1]
    yield "gigapixel_header.png", header(60_000, 60_000), None
    yield "large_header.png", header(20_000, 20_000), None
    yield "no_rows.png", header(10, 0), None
    yield "truncated.png", then(pillow(), lambda data: data[: len(data) // 2]), None
    yield "truncated.jpg", then(pillow(), lambda data: data[: len(data) // 2]), None
    yield "truncated.tif", then(pillow(), lambda data: data[: len(data) // 2]), None
    yield "truncated.webp", then(pillow(), lambda data: data[: len(data) // 2]), None
    yield "damaged.png", then(pillow(), lambda data: data[:300] + bytes(40) + data[340:]), None
    yield "empty.png", lambda path: path.write_bytes(b""), None
    yield "text.png", lambda path: path.write_text("<html>not found</html>"), None
    yield "lfs.jpg", lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), None
    yield "._rgb.png", lambda path: path.write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X"), None
    yield "テスト é.png", pillow(), RGB
    yield "a b 'c' \"d\" %20.png", pillow(), RGB


def deep_turned(path: Path) -> None:
    from srflow_plugin.images.photographs import from_array
    from srflow_plugin.images.writing import write_photograph

    write_photograph(path, from_array(deep(0, 1, 2), exif=exif(t0112=6)))


def interlaced() -> bytes:
    """Write an interlaced PNG file (Adam7), which Pillow reads and does not write."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b""
    for top, left, down, right in passes:
        part = RGB[top::down, left::right]
        if part.size:
            lines += b"".join(b"\0" + row.tobytes() for row in part)
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 1))
    return PNG_START + start + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def upscale(path: Path, output: Path, *options: str) -> tuple[int, str, bool]:
    """Run the command: its exit code, its lines, and if it ended in a traceback."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            how = ["--temperature", "0", "--network", "photo"]  # named, so that each line is about a fault
            code = srflow_command(["upscale", str(path), "-o", str(output), *how, *options])
    except SystemExit as error:
        return int(error.code or 0), told.getvalue().strip(), False
    except BaseException:
        return 1, traceback.format_exc(), True
    return code, told.getvalue().strip(), False


def fault_of(path: Path, made: Path, expected: np.ndarray | None) -> str:
    """Say what is wrong with a picture that came without a word."""
    picture, source = read_photograph(made), read_photograph(path)
    if expected is None:
        expected = (255 * bled(source)).round().astype(np.uint8)
    pixels = (255 * picture.rgb).round().astype(np.uint8)
    if pixels.shape[:2] != (4 * expected.shape[0], 4 * expected.shape[1]):
        return f"of another size: {pixels.shape[:2]}"
    if min(expected.shape[:2]) < 4:
        return ""
    least = min(LEAST, lr_psnr(bicubic_pixels(expected), expected, source.alpha))
    found = lr_psnr(pixels, expected, source.alpha)
    return "" if found >= least else f"LR-PSNR {found:.1f} dB, of bicubic {least:.1f}"


def lr_psnr(picture: np.ndarray, small: np.ndarray, alpha: np.ndarray | None) -> float:
    """Compare a picture, made small, with the LR image that it is of, where that can be seen; in dB."""
    error = np.square(bicubic_downscale(picture, 4).astype(float) - small)
    error = error if alpha is None else error[alpha > 0]
    return float(10 * np.log10(255**2 / max(float(error.mean()) if error.size else 0.0, 1e-9)))


def bicubic_pixels(small: np.ndarray) -> np.ndarray:
    """Enlarge uint8 RGB bicubically."""
    return to_pixels(bicubic_upscale(to_tensor(small), 4)[0])


def told_of(made: Path) -> str:
    """Say what an output is."""
    with Image.open(made) as image:
        kept = [name for name, there in (("ICC", image.info.get("icc_profile")), ("EXIF", image.getexif())) if there]
        bits = made.read_bytes()[24]
        return " ".join([image.mode, f"{bits} bit", f"{image.width}x{image.height}", *kept])


def run_one(
    name: str, write: Callable[[Path], Any], expected: np.ndarray | None, folder: Path
) -> tuple[str, str, bool]:
    """Make a file and enlarge it: exit code, what came, and if that is a fault."""
    path, output = folder / name, folder / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write(path)
    code, lines, is_traceback = upscale(path, output)
    line = lines.splitlines()[-1].replace(str(folder) + os.sep, "") if lines else ""
    made = list(output.glob("*")) if output.exists() else []
    if is_traceback:
        return str(code), f"TRACEBACK {line}", True
    if code:
        return str(code), line, bool(made) or not line
    came = told_of(made[0])
    fault = fault_of(path, made[0], expected)
    is_told = bool(line)
    return "0", came + (f"; {line}" if line else "") + (f" **{fault}**" if fault else ""), bool(fault) and not is_told


def odd(choice: random.Random) -> Made:
    """Make a file that is whole, of a kind, size, form and options at random."""
    height, width = choice.randrange(1, 40), choice.randrange(1, 40)
    picture = Image.fromarray(colours(height, width))
    mode = choice.choice(["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "YCbCr"])
    if mode in ("RGBA", "LA"):
        holes = Image.fromarray(np.random.default_rng(height).integers(0, 256, (height, width), np.uint8))
        picture.putalpha(holes)
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    endings = {"CMYK": ["jpg", "tif"], "YCbCr": ["jpg", "tif"], "I;16": ["png", "tif"]}.get(
        mode, ["png", "png", "tif", "webp", "gif", "bmp"] + (["jpg"] if mode in ("RGB", "L") else [])
    )
    ending = choice.choice(endings)
    settings: dict[str, Any] = {}
    if choice.random() < 0.4:
        settings["exif"] = choice.choice([exif(t0112=choice.randrange(0, 10)), broken_exif(), choice.randbytes(30)])
    if choice.random() < 0.2:
        settings["icc_profile"] = choice.randbytes(choice.randrange(1, 300))
    if ending == "png" and mode in ("L", "P") and choice.random() < 0.3:
        settings["transparency"] = choice.randrange(256)

    def write(path: Path) -> None:
        image = picture if picture.mode == mode else picture.convert(mode)
        try:
            image.save(path, **settings)
        except Exception:  # not every format takes everything
            picture.convert("RGB").save(path, "PNG")

    return f"{mode}.{ending}".replace(";", ""), write, None


def damaged(choice: random.Random) -> Made:
    """Damage one of the files at random."""
    usable = [case for case in cases() if "header" not in case[0] and not case[0].startswith(".")]
    name, write, _ = choice.choice(usable)

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(choice.choice([1, 1, 1, 2, 20])):
            place = choice.randrange(len(changed) + 1)
            way = choice.random()
            if way < 0.7 and changed:
                changed[place - 1] = choice.randrange(256)
            elif way < 0.85:
                del changed[place : place + choice.randrange(1, 40)]
            else:
                changed[place:place] = choice.randbytes(choice.randrange(1, 40))
        return bytes(changed)

    return name, then(write, change), None


def run_folder(choice: random.Random, folder: Path) -> tuple[str, str, bool]:
    """Make a folder of good and bad files, enlarge it twice: all good ones are done, all bad ones named."""
    good, bad = [], []
    for number in range(choice.randrange(1, 6)):
        name, write, _ = odd(choice) if choice.random() < 0.6 else damaged(choice)
        path = folder / "in" / choice.choice(["", "sub", "sub/deep ü"]) / f"{number} {name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read_photograph(path)
            good.append(path)
        except UserError:
            bad.append(path)
    (folder / "in" / "._0.png").write_bytes(b"")
    (folder / "in" / "notes.txt").write_text("notes")
    code, lines, is_traceback = upscale(folder / "in", folder / "out", "--recursive")
    made = set((folder / "out").rglob("*.png")) if (folder / "out").exists() else set()
    expected = {folder / "out" / path.relative_to(folder / "in").with_suffix(".png") for path in good}
    is_alone = len(good) + len(bad) == 1
    right = [0 if not bad else 2 if is_alone else 1, expected, True]
    named = all(str(path) in lines for path in bad)
    again, second, _ = upscale(folder / "in", folder / "out", "--recursive")
    is_fault = is_traceback or [code, made, named] != right or again != code
    is_fault |= bool(good) and not is_alone and f"{len(good)} of {len(good) + len(bad)} are there" not in second
    return str(code), lines.replace("\n", " / ") + " // " + second.replace("\n", " / "), is_fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    faults = refused = 0
    if not args.cases:
        sys.stdout.write("| file | exit code | output, or line |\n|---|---|---|\n")
    number = 0
    for name, code, what, is_fault in results(args.cases, args.seed):
        number += 1
        faults += is_fault
        refused += code != "0"
        if is_fault or not args.cases:
            sys.stdout.write(f"| {name} | {code} | {what} |\n")
            sys.stdout.flush()
    told = f"{refused} refused with a line, {faults} wrong in silence or with a traceback"
    sys.stdout.write(f"\n{number} files or folders: {told}\n")
    return int(faults > 0)


def results(number: int, seed: int) -> Iterator[tuple[str, str, str, bool]]:
    """Go through the table, or so many cases at random: name, exit code, what came, and if that is a fault."""
    for case in () if number else cases():
        with tempfile.TemporaryDirectory() as folder:
            yield (case[0], *run_one(*case, Path(folder)))
    for case_number in range(number):
        choice = random.Random(f"{seed} {case_number}")
        with tempfile.TemporaryDirectory() as folder:
            if case_number % 10 == 0:
                yield (f"a folder (case {case_number})", *run_folder(choice, Path(folder)))
            else:
                case = odd(choice) if case_number % 10 < 6 else damaged(choice)
                yield (f"{case[0]} (case {case_number})", *run_one(*case, Path(folder)))


if __name__ == "__main__":
    raise SystemExit(main())
