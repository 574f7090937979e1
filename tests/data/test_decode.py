import logging
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from mlbench.data import decode as module
from mlbench.data.decode import MAX_PIXELS, decode, load, plain_jpeg, problems, unusable
from mlbench.types import DataError


def gradient(width=40, height=30):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([x * 6, y * 8, x + y], -1).astype(np.uint8))


def saved(folder, image, name="a.png", **options):
    file = folder / name
    image.save(file, **options)
    return file


def pixel(file, x=0, y=0):
    image = decode(file)
    assert image.mode == "RGB"
    return tuple(np.asarray(image)[y, x].tolist())


# ----------------------------------------------------------------------------------- what is read
def test_rgb_keeps_its_pixels(tmp_path):
    assert np.array_equal(np.asarray(decode(saved(tmp_path, gradient()))), np.asarray(gradient()))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_common_mode_becomes_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    source = gradient().convert(mode)
    image = decode(saved(tmp_path, source, f"a.{suffix}"))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    wanted = np.asarray(source.convert("RGB"), np.int16)
    assert np.abs(np.asarray(image, np.int16) - wanted).max() <= 1


def test_cmyk_jpeg_has_the_right_colours(tmp_path):
    file = saved(tmp_path, Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "a.jpg")
    red, green, blue = pixel(file)
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, suffix):
    levels = np.array([[0, 0x1234, 0x8000, 0xFFFF]], np.uint16).repeat(2, 0)
    file = saved(tmp_path, Image.fromarray(levels), f"a.{suffix}")
    assert [pixel(file, x)[0] for x in range(4)] == [0, 0x12, 0x80, 0xFF]


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_defined_white_are_refused(tmp_path, mode):
    file = saved(tmp_path, Image.new(mode, (4, 4), 70_000), "a.tif")
    with pytest.raises(DataError, match="white is not defined"):
        decode(file)


@pytest.mark.parametrize(
    ("mode", "colour"), [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("RGBA", (0, 0, 255, 0))]
)
def test_transparent_is_white(tmp_path, mode, colour):
    assert pixel(saved(tmp_path, Image.new(mode, (4, 4), colour))) == (255, 255, 255)


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"])
def test_a_palette_may_have_transparent_entries(tmp_path, transparency):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1])
    file = saved(tmp_path, image, transparency=transparency)
    assert (pixel(file, 0), pixel(file, 1)) == ((255, 0, 0), (255, 255, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    marked = Image.new("RGB", (32, 16), "black")
    marked.paste((255, 255, 255), (0, 0, 8, 8))  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(tmp_path, marked, "a.jpg", exif=exif, quality=95)
    image = np.asarray(decode(file))[..., 0] > 128
    # where EXIF says that the stored top left corner is seen: (bottom?, right?)
    bottom, right = {
        1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0),
        5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0),
    }[orientation]  # fmt: skip
    assert image.shape == ((16, 32) if orientation < 5 else (32, 16))
    assert image[-bottom, -right]
    assert image.sum() == pytest.approx(64, abs=8)


# -------------------------------------------------------------------------------- what is refused
def spoiled(file, start, stop, content=b""):
    """A file that has other bytes in one place."""
    whole = bytearray(file.read_bytes())
    whole[start:stop] = content
    file.write_bytes(whole)
    return file


def empty(folder):
    return spoiled(saved(folder, gradient(), "empty.jpg"), 0, None)


def text(folder):
    return spoiled(saved(folder, gradient(), "text.jpg"), 0, None, b"<html>404 not found</html>")


def truncated(folder):
    return spoiled(saved(folder, gradient(), "truncated.jpg"), -200, None)


def huge(side):
    """Makes a file whose header says a size in pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    header += struct.pack(">I", zlib.crc32(header))
    return lambda folder: spoiled(saved(folder, gradient(), "huge.png"), 12, 33, header)


BAD = [
    (empty, "empty"),
    (text, "not an image"),
    (truncated, "truncated"),
    (lambda folder: spoiled(saved(folder, gradient()), 60, 90, bytes(30)), "cannot be decoded"),
    (lambda folder: folder / "absent.jpg", "missing"),
    (lambda folder: folder, "irectory|ermission"),
    (huge(60_000), f"{MAX_PIXELS:,} pixels"),
    (huge(10_000), f"{MAX_PIXELS:,} pixels"),
]


def cut(folder, part, name, **options):
    """A picture of noise, of which a part of the bytes is left."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    file = saved(folder, Image.fromarray(noise), name, **options)
    return spoiled(file, int(part * file.stat().st_size), None)


@given(part=st.floats(0, 0.95), suffix=st.sampled_from(["jpg", "png", "bmp", "gif", "webp"]))
@settings(max_examples=60)
def test_wherever_a_file_is_cut_it_is_refused(tmp_path_factory, part, suffix):
    with pytest.raises(DataError):
        decode(cut(tmp_path_factory.mktemp("cut"), part, f"a.{suffix}"))


# ------------------------------------------------------------------------------------ as a tensor
JPEGS = {
    "plain": {},
    "progressive": {"progressive": True},
    "full colour": {"subsampling": 0},
    "half colour": {"subsampling": 1},
    "restart markers": {"restart_marker_rows": 1},
    "comment": {"comment": b"a comment"},
}


def differences(file):
    """Grey levels between the two decoders."""
    ours, pillows = load(file), load(file, "pillow")
    assert ours.dtype == torch.uint8 and ours.shape == pillows.shape
    assert np.array_equal(pillows.permute(1, 2, 0), np.asarray(decode(file)))
    return (ours.int() - pillows.int()).abs().max()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (17, 33), (160, 121)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", JPEGS)
def test_turbo_gives_the_pixels_of_pillow(tmp_path, name, mode, size):
    file = saved(tmp_path, gradient(*size).convert(mode), "a.jpg", **JPEGS[name])
    assert plain_jpeg(file) is not None
    assert differences(file) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("block", ["exif", "xmp"])
def test_turbo_leaves_turned_jpegs_to_pillow(tmp_path, orientation, block):
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<x:xmpmeta tiff:Orientation="{orientation}"/>'.encode()
    how = {"exif": exif} if block == "exif" else {"xmp": xmp}
    file = saved(tmp_path, gradient(), "a.jpg", **how)
    assert differences(file) <= 1
    assert block == "xmp" or (plain_jpeg(file) is None) == (orientation != 1)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's; the pixels are whole
@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"])
def test_a_damaged_exif_block_turns_nothing(tmp_path, exif):
    assert differences(saved(tmp_path, gradient(), "a.jpg", exif=exif)) <= 1


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "I;16", "CMYK"])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg", "webp", "gif", "bmp"])
def test_what_turbo_cannot_read_is_pillows(tmp_path, mode, suffix):
    image = Image.new(mode, (9, 5)) if mode == "I;16" else gradient(9, 5).convert(mode)
    try:
        file = saved(tmp_path, image, f"a.{suffix}")
    except (OSError, KeyError, ValueError):
        pytest.skip("the format has no such mode")
    if suffix != "jpg" or mode == "CMYK":
        assert plain_jpeg(file) is None
    assert differences(file) <= 1


@pytest.mark.parametrize(("make", "reason"), BAD)
def test_a_bad_file_is_named_by_either_decoder(tmp_path, make, reason):
    file = make(tmp_path)
    for decoder in ("turbo", "pillow"):
        with pytest.raises(DataError, match=reason) as error:
            load(file, decoder)
        assert str(file) in str(error.value) and "replace it" in str(error.value)


@given(part=st.floats(0, 1), progressive=st.booleans())
@settings(max_examples=60)
def test_a_cut_jpeg_is_good_for_both_decoders_or_for_neither(tmp_path_factory, part, progressive):
    folder = tmp_path_factory.mktemp("cut")
    file = cut(folder, part, "a.jpg", progressive=progressive)
    if problems([file], folder / "cache", 1):
        with pytest.raises(DataError):
            load(file)
    else:
        assert differences(file) <= 1


def test_turbo_gives_the_pixels_of_pillow_on_photographs(real_data):
    files = sorted((real_data / "coco-mini").rglob("*.jpg"))[::40]
    assert len(files) > 50
    assert max(differences(file) for file in files) <= 1


# ------------------------------------------------------------------------------- verify all files
@pytest.fixture
def good(tmp_path):
    return [saved(tmp_path, gradient(8 + i), f"good{i}.png") for i in range(5)]


@pytest.fixture
def decoded(monkeypatch):
    """The files that were opened, in any order."""
    opened = []
    read = module._read

    def spy(file):
        opened.append(file)
        return read(file)

    monkeypatch.setattr(module, "_read", spy)
    return opened


def verify(files, *arguments):
    """Check files as a run does."""
    if bad := problems(files, *arguments):
        raise unusable(bad, files)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_verify_lists_every_bad_file_once(tmp_path, good, workers):
    bad = [empty(tmp_path), text(tmp_path), truncated(tmp_path), tmp_path / "absent.jpg"]
    with pytest.raises(DataError, match="4 of 9 image files") as error:
        verify([*good, *bad], tmp_path / "cache", workers)
    assert all(str(error.value).count(str(file)) == 1 for file in bad)
    assert not any(str(file) in str(error.value) for file in good)


def test_a_second_run_decodes_only_what_changed(tmp_path, good, decoded):
    cache = tmp_path / "cache"
    verify(good, cache, 2)
    assert sorted(decoded) == good
    decoded.clear()
    verify(good, cache, 2)
    assert decoded == []
    saved(tmp_path, gradient(99), good[2].name)
    verify(good, cache, 2)
    assert decoded == [good[2]]
    good[1].unlink()
    with pytest.raises(DataError, match="missing"):
        verify(good, cache, 1)


def test_good_files_are_remembered_though_others_are_bad(tmp_path, good, decoded):
    files = [*good, empty(tmp_path)]
    for expected in (files, files[-1:]):
        decoded.clear()
        with pytest.raises(DataError):
            verify(files, tmp_path / "cache", 1)
        assert decoded == expected


def test_a_damaged_memory_is_ignored_with_a_log_line(tmp_path, good, decoded, caplog):
    verify(good, tmp_path / "cache", 1)
    (memory,) = (tmp_path / "cache").iterdir()
    spoiled(memory, -1, None, bytes([memory.read_bytes()[-1] ^ 1]))
    for expected in (good, []):
        decoded.clear()
        with caplog.at_level(logging.WARNING):
            verify(good, tmp_path / "cache", 1)
        assert decoded == expected and "damaged" in caplog.text


def test_without_a_place_to_remember_it_still_verifies(tmp_path, good, caplog):
    blocked = tmp_path / "cache"
    blocked.write_text("a file where the folder should be")
    verify(good, blocked, 1)
    assert "cannot write" in caplog.text
    with pytest.raises(DataError):
        verify([*good, tmp_path / "absent.jpg"], blocked, 1)


# ------------------------------------------------------------------------- legal but surprising
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_much_text_and_a_broken_exif_block_are_no_hindrance(tmp_path):
    info = PngImagePlugin.PngInfo()
    info.add_text("notes", "x" * 3_000_000, zip=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "text.png", pnginfo=info)
    broken = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01"
    Image.new("RGB", (8, 8), "red").save(tmp_path / "exif.jpg", exif=broken)
    for name in ("text.png", "exif.jpg"):
        assert np.asarray(decode(tmp_path / name))[0, 0, 0] > 250
    code = "import sys, pathlib, mlbench.data.decode as d; d.decode(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "exif.jpg")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == ""


@pytest.mark.parametrize(("top", "told"), [(4095, True), (65535, False)])
def test_twelve_bits_in_sixteen_are_told_once(tmp_path, caplog, top, told):
    for name in "ab":
        ramp = np.linspace(0, top, 64).astype(np.uint16).reshape(8, 8)
        Image.fromarray(ramp).save(tmp_path / f"{name}.png")
        decode(tmp_path / f"{name}.png")
    assert caplog.text.count("decoded nearly black; multiply them by 16") == told


def test_heic_without_its_decoder_says_how_to_get_one(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(DataError, match="pip install pillow-heif"):
        decode(tmp_path / "a.heic")
