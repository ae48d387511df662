"""Files and names that somebody has made to do harm: cases of `python -m tests.stress.fuzz --kinds hostile`."""

from __future__ import annotations

import io
import json
import os
import random
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from srflow_plugin.cli.main import basicsr_command, srflow_command
from srflow_plugin.images.files import PNG_START, chunk
from tests.stress.archives import hostile_archive

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
SUFFIXES = [".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".PNG", ".gif", ".ppm", ".tga"]


def png(*, width: int = 16, height: int = 16, colour: int = 2, bits: int = 8, middle: bytes = b"", end: bytes = b"",
        pixels: bytes | None = None, interlaced: int = 0) -> bytes:  # fmt: skip
    """Make a PNG file with whatever between its parts."""
    line = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] * width * bits // 8
    if pixels is None:
        pixels = zlib.compress(bytes((1 + line) * height))
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))
    return PNG_START + start + middle + chunk(b"IDAT", pixels) + end + chunk(b"IEND", b"")


def lying(kind: bytes, length: int) -> bytes:
    """Make a part of a PNG file that says to be longer than the file."""
    return struct.pack(">I4s", length, kind) + b"abc"


def saved(kind: str, size: tuple[int, int] = (16, 16), **settings: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8)).save(file, kind, **settings)
    return file.getvalue()


def resized(kind: str, width: int, height: int) -> bytes:
    """Change the size in the header of a small file."""
    data = bytearray(saved(kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", min(height, 65535), min(width, 65535))
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "GIF":
        data[6:10] = struct.pack("<HH", min(width, 65535), min(height, 65535))
    elif kind == "PPM":
        data[:] = b"P6 %d %d 255\n" % (width, height) + data[-768:]
    elif kind == "TGA":
        data[12:16] = struct.pack("<HH", min(width, 65535), min(height, 65535))
    elif kind == "WEBP":
        vp8x = (
            b"VP8X"
            + struct.pack("<I", 10)
            + bytes(4)
            + struct.pack("<I", width - 1)[:3]
            + struct.pack("<I", height - 1)[:3]
        )
        data[:] = b"RIFF" + struct.pack("<I", len(data) - 8 + 18) + b"WEBP" + vp8x + data[12:]
    return bytes(data)


def tiff(*tags: tuple[int, int, int, int], behind: bytes = bytes(768)) -> bytes:
    """Make a TIFF file with these tags (tag, type, count, value) in place of, or beside, the usual ones."""
    usual = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8),
             (277, 3, 1, 1), (278, 4, 1, 16), (279, 4, 1, 256)]  # fmt: skip
    entries = {tag[0]: tag for tag in [*usual, *tags]}
    body = b"".join(struct.pack("<HHII", *entries[tag]) for tag in sorted(entries))
    offset = 8 + len(behind)
    return b"II*\0" + struct.pack("<I", offset) + behind + struct.pack("<H", len(entries)) + body + bytes(4)


def bomb(kind: bytes, start: bytes, size: int = 2**27) -> bytes:
    return chunk(kind, start + zlib.compress(bytes(size), 9))


def crafted(rng: random.Random) -> bytes:
    """Make an image file that asks for more than it holds."""
    large = rng.choice([9_400, 20_000, 30_000, 65_535, 2**20, 2**31 - 1])
    small = rng.choice([1, 16, large])
    most = rng.choice([2**20, 2**30, 0x7FFFFFFF, 0xFFFFFFF0])
    kind = rng.choice([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf", b"acTL", b"fdAT", b"PLTE", b"tRNS", b"quUx"])
    makers: list[Callable[[], bytes]] = [
        lambda: png(middle=lying(kind, most)),
        lambda: png(end=lying(kind, most)),
        lambda: png(middle=lying(kind, most), bits=16),
        lambda: png(end=lying(kind, most), bits=16, colour=6),
        lambda: png(width=large, height=small, pixels=zlib.compress(bytes(5000)), interlaced=rng.randrange(2)),
        lambda: png(width=small, height=large, pixels=zlib.compress(bytes(5000)), bits=16, colour=rng.choice([2, 6])),
        lambda: png(width=6000, height=6000, colour=rng.choice([0, 2, 6]), interlaced=rng.randrange(2),
                    pixels=zlib.compress(bytes(2**22), 9)),
        lambda: png(middle=bomb(b"iCCP", b"a\0\0")),
        lambda: png(middle=bomb(b"zTXt", b"a\0\0")),
        lambda: png(middle=bomb(b"iTXt", b"a\0\1\0\0\0")),
        lambda: png(middle=chunk(b"tEXt", b"a\0" + bytes(2**21))),
        lambda: png(middle=chunk(b"eXIf", b"II*\0\x08\0\0\0" + bytes([255] * 200))),
        lambda: png(pixels=zlib.compress(bytes(2**26), 9)),
        lambda: png()[: rng.randrange(8, 60)],
        lambda: resized(rng.choice(["JPEG", "BMP", "GIF", "PPM", "TGA", "WEBP"]), min(large, 2**24), min(small, 2**24)),
        lambda: resized(rng.choice(["JPEG", "GIF", "TGA"]), 65_535, 65_535),
        lambda: resized("BMP", rng.choice([-5, 0, 16]), rng.choice([0, -(2**31), 2**31 - 1, -20_000])),
        lambda: tiff((256, 4, 1, large), (257, 4, 1, small)),
        lambda: tiff((278, 4, 1, 2**32 - 1)),
        lambda: tiff((279, 4, 1, most), (273, 4, 1, most)),
        lambda: tiff((273, 4, most, 8), (279, 4, most, 8)),
        lambda: tiff((322, 4, 1, most), (323, 4, 1, most), (324, 4, 1, 8), (325, 4, 1, 99)),
        lambda: tiff((34675, 7, most, 8)),
        lambda: tiff((258, 3, 1, rng.choice([0, 1, 7, 32, 65_535])), (277, 3, 1, rng.choice([0, 3, 65_535]))),
        lambda: tiff((259, 3, 1, rng.choice([2, 3, 4, 5, 6, 7, 8, 32_773, 34_712, 34_925, 50_001]))),
        lambda: tiff((330, 4, most, 8), (34665, 4, 1, rng.choice([8, 784, 2**32 - 1]))),
        lambda: saved("JPEG", exif=b"Exif\0\0" + rng.randbytes(300)),
        lambda: saved("JPEG")[:100] + b"\xff\xe2\xff\xff" * 50,
    ]  # fmt: skip
    return rng.choice(makers)()


def not_pictures() -> dict[str, bytes]:
    """Make a file of every kind that Pillow, or a program that it starts, would take for something to be drawn."""
    start = struct.pack("<IIIIIIII", 0xC6D3D0C5, 32, len(POSTSCRIPT), 0, 0, 0, 0, 0xFFFF)
    wmf = b"\xd7\xcd\xc6\x9a\0\0" + struct.pack("<hhhhHI", 0, 0, 16, 16, 72, 0) + b"\0\0\x01\0\x09\0" + bytes(40)
    emf = b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(60)
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000)
    return {
        "eps": POSTSCRIPT,
        "eps with a preview": start + POSTSCRIPT,
        "ps": POSTSCRIPT.replace(b" EPSF-3.0", b""),
        "eps behind ends of lines": b"\r\n" + POSTSCRIPT,
        "eps with other ends": POSTSCRIPT.replace(b"\n", b"\r"),
        "pdf": b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF",
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "wmf": wmf,
        "emf": emf,
        "fpx": ole,
        "mic": ole,
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(300),
        "grib": b"GRIB" + bytes(3) + b"\1" + bytes(300),
        "bufr": b"BUFR" + bytes(300),
        "mpeg": b"\0\0\1\xb3" + bytes(300),
        "iptc": b"\x1c\x02\x78\0\x05hello" + bytes(300),
        "xpm": b'/* XPM */\nstatic char *a[] = {"1 1 1 1", "a c #000000", "a"};',
        "xbm": b"#define a_width 8\n#define a_height 1\nstatic char a_bits[] = {0xff};\n",
        "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 16, 16, 8, 3) + bytes(300),
        "icns": b"icns" + struct.pack(">I", 300) + bytes(300),
        "jp2": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(300),
        "heic": b"\0\0\0\x18ftypheic" + bytes(300),
        "pcd": bytes(2048) + b"PCD_" + bytes(3000),
        "office": b"PK\x03\x04" + bytes(300),
        "script": b"#!/bin/sh\ntouch ../executed\n",
    }


SPECIAL = ["fifo", "zero", "loop", "dangling", "folder", "huge", "huge webp", "socket"]


def special(path: Path, rng: random.Random, how: str) -> None:
    """Make what is no file, or has no end."""
    if how == "fifo":
        os.mkfifo(path)
    elif how == "zero":
        path.symlink_to(rng.choice(["/dev/zero", "/dev/random", "/dev/stdin", "/dev/tty"]))
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "dangling":
        path.symlink_to("nowhere.png")
    elif how == "folder":
        path.mkdir()
    elif how == "socket":
        import socket

        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.write_bytes(b"RIFF\xff\xff\xff\xffWEBPVP8 " if "webp" in how else png())
        os.truncate(path, 2**33)


def hostile_image(rng: random.Random) -> int:
    """A picture that is crafted, is none, or is no file, through every command that reads one."""
    folder = Path(rng.choice(["images/train", "small"]))
    path = folder / f"1{rng.choice(SUFFIXES)}"
    (folder / "1.png").unlink()
    what = rng.random()
    if what < 0.6:
        path.write_bytes(crafted(rng))
    elif what < 0.8:
        path.write_bytes(rng.choice(list(not_pictures().values())))
    else:
        special(path, rng, rng.choice(SPECIAL))
    return read_by_any(folder, path, rng)


def read_by_any(folder: Path, path: Path, rng: random.Random) -> int:
    """Hand a file, or its folder, to a command that reads pictures."""
    command = rng.randrange(5)
    if command == 0:
        return srflow_command(["upscale", str(path), "-o", "out", "--temperature", "0", "--checkpoint", "net.pth"])
    if command == 1:
        return srflow_command(["prepare", str(folder), "-o", "out/x", *rng.choice([[], ["--crop-size", "8"]])])
    if command == 2:
        return srflow_command(["encode", str(path), "-o", "out.safetensors", "--checkpoint", "net.pth"])
    if command == 3:
        methods = ["--bicubic", "--workers", "1", "--device", "cpu"]
        return srflow_command(["benchmark", "-o", "table", "--set", "S", str(folder), str(folder), *methods])
    folders = ["datasets:train:dataroot_gt=images/train", "datasets:train:dataroot_lq=small"]
    entries = [*folders, "datasets:train:io_backend:type=disk", "datasets:train:gt_size=16"]
    return basicsr_command(["train", "-opt", "tiny.yml", "--force_yml", *entries])


UGLY = [
    "\n",
    "\r",
    "\x1b[2J\x1b[31m",
    "\x9b",
    "\x07",
    "\u202e",
    "\u2066",
    "\u2028",
    "\x85",
    "\x7f",
    "\u200b",
    "|",
    "\\",
    "a" * 300,
]
UGLY += [
    "\nsrflow: error: forged",
    "\n2026-01-01 00:00:00,000 INFO: forged",
    "'",
    '"',
    " ",
    ".",
    "%s%n",
    "$(touch ../executed)",
]
NAMES = [
    "name",
    "val.suffix",
    "datasets.train.name",
    "datasets.val.name",
    "logger.keep_best",
    "model_type",
    "network_g.type",
    "train.nll_opt.type",
    "datasets.train.type",
    "path.pretrain_network_g",
    "path.resume_state",
    "datasets.train.dataroot_gt",
    "datasets.val.dataroot_lq",
    "datasets.train.meta_info_file",
    "path.experiments_root",
    "train.optim_g.type",
    "val.metrics.psnr.type",
    "datasets.val.filename_tmpl",
]


def quoted(text: str) -> str:
    """Write a text as YAML, whatever it holds."""
    return json.dumps(text)


def billion(depth: int, width: int, leaf: str) -> str:
    lines = [f"x0: &x0 {leaf}"]
    lines += [f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * width)}]" for n in range(1, depth)]
    return "\n".join(lines)


def hostile_option_file(rng: random.Random) -> int:
    """An option file that is valid but for something that asks for much, or says one thing and means another."""
    text = Path("tiny.yml").read_text()
    number = rng.choice(
        [
            "9" * 5000,
            "9" * 400,
            "9" * 19,
            "-" + "9" * 30,
            "0b_",
            "0x" + "f" * 999,
            "1" + ":59" * 999,
            "1e400",
            "2001-99-99",
            "!!int ''",
            "!!float a",
            "!!timestamp 2001-99-99",
            "!!binary 'a'",
            ".nan",
            ".inf",
        ]
    )
    key = rng.choice(
        [
            "total_iter",
            "lr",
            "gt_size",
            "num_steps",
            "temperature",
            "manual_seed",
            "val_freq",
            "print_freq",
            "num_worker_per_gpu",
            "batch_size_per_gpu",
            "num_block",
            "num_feat",
            "scale",
            "num_gpu",
        ]
    )
    alias = f"*x{rng.choice([3, 7])}"
    bomb = billion(8, 9, rng.choice(["[a]", "a" * 200, "{a: b}"])) + "\n"
    value = rng.choice(
        [
            number,
            alias,
            "[" * 500 + "]" * 500,
            "{a: " * 300 + "1" + "}" * 300,
            "&self [*self]",
            "!!set {a, b}",
            "!!python/object/apply:os.system ['touch ../executed']",
            "!!omap [a: 1]",
            quoted(rng.choice(UGLY)),
            "'" + "a" * 10**5 + "'",
            "2147483648",
            "100000000",
            "[" + "1, " * 20_000 + "1]",
        ]
    )
    line = re.search(rf"^ *{key}: *(.*)$", text, re.MULTILINE)
    how = rng.randrange(6)
    if how == 0 and line:
        text = text.replace(line[0], line[0].replace(f": {line[1]}", f": {value}"))
        text = bomb + text if "*x" in value else text
    elif how == 1 and line:
        text = text.replace(line[0], f"{line[0]}\n{line[0]}")
    elif how == 2:
        where = rng.choice(["logger", "path", "train", "val", "network_g"])
        odd = rng.choice(
            [
                "api_key: s3cr3t",
                f"wandb: {{project: a, api_key: s3cr3t, x: {alias}}}",
                f"wandb: {alias}",
                "5: 5",
                f"{quoted(rng.choice(UGLY))}: 1",
                "? [a, b]\n  : c",
                "<<: *x1",
                "evil_key: ../made",
            ]
        )
        text = bomb + text.replace(f"\n{where}:\n", f"\n{where}:\n  {odd}\n")
    elif how == 3:
        text += rng.choice(
            [
                "\0",
                "\x1b",
                "\ufffe",
                "\n---\na: b\n",
                "\n%YAML 9.9\n",
                "\n" + "- " * 5000,
                "\n" + "? " * 5000,
                "\n'" + "a" * 2**21 + "'",
                "\n&" + "a" * 5000 + " b",
                "\n!" + "a" * 5000 + " b",
            ]
        )
    elif how == 4:
        special_file = rng.choice(
            [
                "meta_info_file: /dev/zero",
                "meta_info_file: fifo",
                "meta_info_file: huge",
                "filename_tmpl: '{:>1500000000}'",
                "filename_tmpl: '{1}'",
                "filename_tmpl: '{.x}'",
                "filename_tmpl: '{0!r:>99999999}'",
                "filename_tmpl: '{}{}'",
            ]
        )
        os.mkfifo("fifo")
        Path("huge").write_text("0.png\n")
        os.truncate("huge", 2**33)
        text = text.replace("    dataroot_lq:", f"    {special_file}\n    dataroot_lq:")
    Path("tiny.yml").write_text(text)
    if how == 5:
        Path("tiny.yml").unlink()
        special(Path("tiny.yml"), rng, rng.choice(SPECIAL))
    command = rng.choice(["train", "test", "check"])
    return basicsr_command([command, *(["tiny.yml"] if command == "check" else ["-opt", "tiny.yml"])])


def hostile_name(rng: random.Random) -> int:
    """A name that a terminal would obey, or that looks like a line of ours: of a file, an option, a tensor."""
    ugly = "".join(rng.choices(UGLY, k=rng.choice([1, 1, 2])))
    name = f"a{ugly}b"[:250].replace("/", "_").rstrip(". ") or "a"
    how = rng.randrange(8)
    if how == 0:
        where = rng.choice([*NAMES, "val.metrics"])
        value = (
            f"{{{quoted(name)}: {{type: calculate_psnr, crop_border: 4}}}}" if where == "val.metrics" else quoted(name)
        )
        return basicsr_command([rng.choice(["train", "test"]), "-opt", "tiny.yml", "--force_yml", f"{where}={value}"])
    if how == 1:
        path = Path(f"{name[:150]}.yml")
        Path("tiny.yml").rename(path)
        return basicsr_command(["train", "-opt", str(path), "--force_yml", "val=none"])
    if how == 2:
        state = torch.load("net.pth", weights_only=True)["params"]
        torch.save({"params": {f"{key}{ugly}": value for key, value in state.items()}}, "net.pth")
        return srflow_command(["convert", "net.pth", "out.pth"])
    if how == 3:
        Path("net.pth").rename(f"{name[:150]}.pth")
        folders = ["images/train", "images/train"]
        return srflow_command(
            ["benchmark", "-o", "table", "--set", name, *folders, "--checkpoint", f"{name[:150]}.pth"]
        )
    if how == 4:
        return srflow_command([rng.choice(["upscale", "prepare", "decode", "convert"]), name, "-o", f"out{name[:90]}"])
    folder = Path(rng.choice(["images/train", "small"]))
    path = (folder / "1.png").rename(folder / f"{name[:200]}{rng.choice(SUFFIXES)}")
    if rng.random() < 0.3:
        path.write_bytes(b"text")
    return read_by_any(folder, path, rng)


def traps(folder: Path) -> None:
    """Put programs first in PATH that leave a trace outside the working folder."""
    programs = folder / "work" / "programs"
    programs.mkdir()
    for name in ("gs", "gswin64c", "gswin32c", "djpeg", "convert", "magick", "inkscape", "ppmtogif", "ppmquant"):
        (programs / name).write_text(f"#!/bin/sh\ntouch {folder}/executed\n")
        (programs / name).chmod(0o755)
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ['PATH']}"


def is_obeyed(output: str) -> bool:
    """Say if a terminal would obey something of an output or a log, or a line of it is forged; bars move the cursor."""
    without_bars = output.replace("\x1b[A", "")
    if re.search(r"^(srflow: error: forged|2026-01-01 00:00:00,000 INFO: forged)", output, re.MULTILINE):
        return True
    return any(not letter.isprintable() and letter not in "\n\r\t" for letter in without_bars)


HOSTILE: dict[str, Callable[[random.Random], int]] = {
    "image": hostile_image,
    "option file": hostile_option_file,
    "name": hostile_name,
    "archive": hostile_archive,
}
