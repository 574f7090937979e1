"""Decode image files to RGB, and check all files before a run starts.

Every method sees these pixels: eight bits per channel, upright, opaque.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import struct
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import PIL
from PIL import Image, ImageOps, PngImagePlugin

from mlbench.files import HEIF, picture_endings, read_checked, write_checked
from mlbench.text import shorten
from mlbench.types import DataError, Decoder

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_PIXELS = 89_478_485
"""Larger images are refused after reading the header: 256 MiB of RGB, above which Pillow
suspects a decompression bomb."""

REMEDY = "replace it with an intact copy or remove it from the data set's lists"
IGNORE = f"{REMEDY}, or go on without such files, on a board of their own: --set allow_missing=true"
LISTED = 20
"""Number of bad files that an error lists."""
MISSING = "the file is missing"

HEIC = "HEIC needs a decoder: pip install pillow-heif; or convert it to JPEG"

_LOG = logging.getLogger(__name__)

picture_endings()  # lets Pillow read HEIC where pillow-heif is installed
# What surrounds the pixels neither stops a run nor clutters its output.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 1 << 28
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


# -------------------------------------------------------------------------------------- one image
def decode(file: Path) -> Image.Image:
    """Decode an image to RGB: EXIF orientation applied, transparency on white.

    Sixteen-bit grey keeps its upper eight bits; of an animation the first frame is taken. An
    unreadable EXIF block is ignored, as in browsers.

    Raises:
        DataError: the file is missing, damaged, not an image, larger than ``MAX_PIXELS``, or its
            pixels have no defined white; the message names file, reason and remedy.
    """
    try:
        return _read(file)
    except Exception as error:  # Pillow's readers raise almost anything on damaged bytes
        raise DataError(f"{file}: {_reason(file, error)}; {REMEDY}") from error


def _read(file: Path) -> Image.Image:
    with Image.open(file) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise Image.DecompressionBombError
        deep = image.mode.startswith("I") or ";16" in str(image.tile)
        rgb = to_rgb(image)
        if deep and max(high for _, high in rgb.getextrema()) < 16:  # type: ignore[misc]
            _warn_of_depth(file.parent)
        return rgb


@functools.cache
def _warn_of_depth(folder: Path) -> None:
    """Warn once per folder of 12-bit values in 16 bits, as some cameras and scanners write them."""
    _LOG.warning(
        "%s: values of 16-bit images use 12 bits or less, so that they are decoded nearly black; "
        "multiply them by 16, or save 8 bits",
        folder,
    )


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image as ``decode`` does; rotate it upright in place.

    Raises:
        Exception: of any type: the image is damaged, or the white of its pixels is not defined.
    """
    image.load()
    with suppress(Exception):  # a damaged EXIF block does not affect the pixels
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I"):  # sixteen-bit grey, which Pillow would clip at 255
        grey_HW = np.asarray(image)
        if grey_HW.min() < 0 or grey_HW.max() > 0xFFFF:
            raise ValueError("its pixels are integers beyond 16 bits, whose white is not defined")
        return Image.fromarray((grey_HW // 256).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose white is not defined")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _reason(file: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"the image has more than {MAX_PIXELS:,} pixels"
    if isinstance(error, PIL.UnidentifiedImageError):
        if file.stat().st_size == 0:
            return "the file is empty (0 bytes)"
        if file.suffix.lower() in HEIF:
            return HEIC
        return "the file is not an image of a known format"
    if isinstance(error, OSError) and error.strerror is not None:
        return f"the file cannot be read ({error.strerror})"
    return f"the image cannot be decoded ({error or type(error).__name__})"


# ------------------------------------------------------------------------------ one as a tensor
def load(file: Path, decoder: Decoder = "turbo") -> Tensor:
    """Decode an image as ``decode`` does: uint8 [3, H, W], a pixel's three values side by side.

    ``turbo`` reads upright JPEGs in grey or colour with libjpeg-turbo through torchvision, which
    holds no interpreter lock and gives Pillow's pixels; Pillow reads all other files. ``nvjpeg``
    works on batches (``decode_on``) and is ``turbo`` here.

    Raises:
        DataError: as ``decode``.
    """
    import torch

    data = None if decoder == "pillow" else plain_jpeg(file)
    if data is not None:
        import torchvision.io  # noqa: F401 - registers the operator

        with suppress(RuntimeError):  # a damaged file, whose fault Pillow names
            # What is behind torchvision.io.decode_jpeg, which warns that torchcodec follows it.
            image: Tensor = torch.ops.image.decode_jpeg(torch.from_numpy(data), _RGB, False)
            return image
    return as_tensor(decode(file))


def as_tensor(image: Image.Image) -> Tensor:
    """An RGB image of Pillow in the form of ``load``."""
    import torch

    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def decode_on(device: torch.device, jpegs: Sequence[np.ndarray]) -> list[Tensor]:
    """Decode results of ``plain_jpeg`` together on a CUDA device with nvJPEG.

    nvJPEG writes at once, even over memory that kernels in the caller's stream have yet to read
    (github.com/pytorch/vision/pull/9606). So the images are allocated on a stream that runs none.

    Raises:
        RuntimeError: a file is damaged.
    """
    import torch
    import torchvision.io  # noqa: F401 - registers the operators

    data = [torch.from_numpy(jpeg) for jpeg in jpegs]
    if not data:
        return []
    caller, own = torch.cuda.current_stream(device), _decoding_stream(device)
    with _DECODING, torch.cuda.stream(own):
        images = torch.ops.image.decode_jpegs_cuda(data, _AS_STORED, device)
        own.synchronize()
    for image in images:
        image.record_stream(caller)  # its memory is not reused while it is read
    return [image.expand(3, -1, -1) for image in images]  # grey has one channel


_DECODING = Lock()


@functools.cache
def _decoding_stream(device: torch.device) -> torch.cuda.Stream:
    import torch

    # Torch gives out 32 streams per device and priority in turns; no other code uses this one.
    return torch.cuda.Stream(device, priority=-1)


_AS_STORED, _RGB = 0, 3
"""torchvision's numbers of the reading modes UNCHANGED and RGB."""


def plain_jpeg(file: Path) -> np.ndarray | None:
    """The bytes of a JPEG whose samples can be used as they are; None for any other file.

    Such a file has eight bits, one or three channels, at most ``MAX_PIXELS``, and is upright.
    """
    try:
        data = np.fromfile(file, np.uint8)
        return data if _is_plain(data.data) else None
    except (OSError, IndexError, struct.error):  # missing, or its header is truncated
        return None


def _is_plain(data: memoryview) -> bool:
    """Read the segments up to the frame header (ITU-T T.81, B.2.2)."""
    if bytes(data[:2]) != b"\xff\xd8":
        return False
    at = 2
    while True:
        start, marker, length = struct.unpack_from(">BBH", data, at)
        if start != 0xFF or marker in (0xD9, 0xDA, 0xFF):  # no frame that is read here
            return False
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            bits, height, width, channels = struct.unpack_from(">BHHB", data, at + 4)
            return bits == 8 and channels in (1, 3) and 0 < height * width <= MAX_PIXELS
        if marker == 0xE1 and _is_turned(bytes(data[at + 4 : at + 2 + length])):
            return False
        at += 2 + length


def _is_turned(block: bytes) -> bool:
    """True if an EXIF or XMP block may ask to rotate or mirror the image."""
    if not block.startswith(b"Exif\0\0"):
        return b"Orientation" in block
    exif = Image.Exif()
    with suppress(Exception):  # as in _read
        exif.load(block)
    return bool(exif.get(0x0112, 1) != 1)


# -------------------------------------------------------------------------------------- all files
def problems(
    files: Sequence[Path],
    cache: Path,
    workers: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[Path, str]:
    """Decode every file once, so that a bad file stops a run at its start and not hours later.

    A small file under ``cache`` remembers good files by folder, name, size and modification time.
    If it cannot be written, a warning is logged.

    Args:
        files: the images of a run.
        cache: a folder to write to; created if missing.
        workers: decoding threads; 0 counts as 1.
        progress: called with (files done, all files).

    Returns:
        Unusable file -> what is wrong with it; ``MISSING`` if it does not exist.
    """
    # Which version of Pillow decodes them decides what is readable.
    those = "\n".join([PIL.__version__, *sorted({os.fspath(file) for file in files})])
    memory = cache / f"decoded-{hashlib.sha256(os.fsencode(those)).hexdigest()[:16]}.checked"
    marks = read_checked(memory) or b""
    known = {marks[i : i + _WIDTH] for i in range(0, len(marks), _WIDTH)}
    fingerprints = _fingerprints(files)
    todo = [file for file, mark in fingerprints.items() if mark not in known]
    good = known.intersection(fingerprints.values())
    bad: dict[Path, str] = {}
    first = len(fingerprints) - len(todo) + 1
    try:
        with ThreadPoolExecutor(max(1, workers)) as pool:
            found = zip(todo, pool.map(_problem, todo), strict=True)
            for done, (file, problem) in enumerate(found, first):
                mark = fingerprints[file]
                if problem is not None:
                    bad[file] = problem
                elif mark is not None:
                    good.add(mark)
                progress(done, len(fingerprints))
    finally:  # also after Ctrl-C, so that no file is decoded twice
        try:
            if good != known:
                write_checked(memory, b"".join(sorted(good)))
        except OSError as error:
            again = "the next run decodes every image again"
            _LOG.warning("cannot write %s (%s); %s", memory, error, again)
    return bad


def unusable(bad: Mapping[Path, str], files: Collection[Path], remedy: str = REMEDY) -> DataError:
    """Make the error for unusable files: their number, and what is wrong with the first."""
    lines = [f"{file}: {reason}" for file, reason in bad.items() if reason != MISSING]
    if missing := [file for file, reason in bad.items() if reason == MISSING]:
        others = f", as are {len(missing) - 1:,} others" if len(missing) > 1 else ""
        lines.insert(0, f"{missing[0]}: {MISSING}{others}")
    return DataError(
        f"{len(bad)} of {len(set(files))} image files cannot be used; for each: {remedy}\n  "
        + shorten(lines, LISTED, "\n  ")
    )


def _problem(file: Path) -> str | None:
    try:
        _read(file)
    except Exception as error:  # see decode
        return _reason(file, error)
    return None


# ------------------------------------------------------------------------ memory of good files
_WIDTH = 16


def _fingerprints(files: Iterable[Path]) -> dict[Path, bytes | None]:
    """File -> 16 bytes, None for a missing file; each folder is resolved once."""
    resolve = functools.cache(Path.resolve)
    marks: dict[Path, bytes | None] = dict.fromkeys(files)
    for file in marks:
        with suppress(OSError):
            stat = file.stat()
            text = f"{resolve(file.parent)}\0{file.name}\0{stat.st_size}\0{stat.st_mtime_ns}"
            marks[file] = hashlib.sha256(os.fsencode(text)).digest()[:_WIDTH]
    return marks
