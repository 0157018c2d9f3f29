import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from deltavae.data import Dataset, Split, pixels


def colours(n: int = 4, h: int = 6, w: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 3, h, w), np.uint8)


def png16(path: Path) -> None:
    """A 1×1 RGB PNG with 16 bits per channel, which Pillow itself cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = zlib.compress(b"\0" + bytes(range(6)))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def test_grey_is_pillows_luma_for_many_colours():
    images = np.random.default_rng(1).integers(0, 256, (3, 3, 128, 128), np.uint8)
    expected = [np.asarray(Image.fromarray(x.transpose(1, 2, 0)).convert("L")) for x in images]
    assert np.array_equal(pixels.to_grey(images)[:, 0], expected)


def test_grey_in_chunks_covers_every_image():
    images = np.zeros((8200, 3, 1, 1), np.uint8)
    images[:, :] = (np.arange(8200) % 256)[:, None, None, None]
    assert np.array_equal(pixels.to_grey(images), images[:, :1])


def test_box_filter_is_the_mean_of_blocks():
    images = colours(50, 6, 12)  # 2×4 pixels to one
    mean = images.reshape(50, 3, 3, 2, 3, 4).mean((3, 5))
    assert np.array_equal(pixels.resize(images, 3), np.rint(mean))


def test_upsampling_by_a_whole_factor_repeats_pixels():
    images = np.ascontiguousarray(colours()[:, :, :4, :4])
    assert np.array_equal(pixels.resize(images, 8), images.repeat(2, 2).repeat(2, 3))


def test_decoding_is_exact_and_finds_grey_by_content():
    image = colours(1)[0]
    assert np.array_equal(pixels.decode(Image.fromarray(image.transpose(1, 2, 0))), image)
    assert np.array_equal(pixels.decode(Image.fromarray(image[0])), image[:1])
    disguised = np.repeat(image[:1], 3, axis=0)
    assert np.array_equal(pixels.decode(Image.fromarray(disguised.transpose(1, 2, 0))), image[:1])
    bilevel = Image.fromarray(image[0]).convert("1")
    assert set(pixels.decode(bilevel).ravel().tolist()) == {0, 255}
    palette = Image.fromarray(image.transpose(1, 2, 0)).quantize(8)
    assert np.array_equal(
        pixels.decode(palette), np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    )


def test_transparency_is_laid_over_white():
    rgba = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    rgba.putpixel((1, 0), (10, 20, 30, 0))
    assert pixels.decode(rgba)[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_orientation_in_the_metadata_is_applied(tmp_path):
    image = Image.fromarray(colours(1)[0].transpose(1, 2, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    image.save(tmp_path / "a.png", exif=exif)
    turned = np.rot90(colours(1)[0], k=-1, axes=(1, 2))
    assert np.array_equal(pixels.read(tmp_path / "a.png"), turned)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".webp"])
def test_lossless_files_round_trip(tmp_path, suffix):
    image = colours(1)[0]
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / f"a{suffix}", **options)
    assert np.array_equal(pixels.read(tmp_path / f"a{suffix}"), image)


def test_warnings_of_pillow_do_not_leak(tmp_path, monkeypatch):
    Image.fromarray(colours(1)[0][0]).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)  # 48 pixels: a warning, not yet an error
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels.read(tmp_path / "a.png").shape == (1, 6, 8)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match=r"a\.png cannot be read as an image: .*decompression"):
        pixels.read(tmp_path / "a.png")


def test_damaged_files_are_named(tmp_path):
    Image.fromarray(colours(1, 64, 64)[0].transpose(1, 2, 0)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    damaged = {
        "text.png": b"no image at all",
        "empty.png": b"",
        "cut.png": content[: len(content) // 2],
        "flipped.png": content[:60] + bytes(200) + content[260:],
    }
    for name, data in damaged.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name} cannot be read as an image: ") as error:
            pixels.read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_more_than_eight_bits_is_an_error(tmp_path):
    Image.fromarray(np.full((2, 2), 40_000, np.uint16)).save(tmp_path / "grey16.png")
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(tmp_path / "float.tif")
    png16(tmp_path / "colour16.png")
    for name in ("grey16.png", "float.tif", "colour16.png"):
        with pytest.raises(ValueError, match=rf"{name} .* must have 8 bits per channel"):
            pixels.read(tmp_path / name)


def test_stack_spreads_grey_among_colours_and_resizes():
    colour, grey = colours(2, 4, 4)[0], colours(2, 4, 4)[1, :1]
    images, notes = pixels.stack([("a", colour), ("b", grey)], 2)
    assert np.array_equal(images[0], colour)
    assert np.array_equal(images[1], np.repeat(grey, 3, axis=0))
    assert notes == ()
    images, notes = pixels.stack([("a", colour), ("b", grey)], 2, grey=True, size=2)
    assert images.shape == (2, 1, 2, 2)
    assert np.array_equal(images[0], pixels.resize(pixels.to_grey(colour[None]), 2)[0])
    assert notes == (pixels.GREY_NOTE, pixels.resize_note(2))


def test_stack_names_what_does_not_fit():
    with pytest.raises(ValueError, match=r"need size \(--size\): a is 8×6, b is 5×4$"):
        pixels.stack([("a", colours()[0]), ("b", colours(1, 4, 5)[0])], 2)
    with pytest.raises(ValueError, match="at least 1 image is needed, got none"):
        pixels.stack([], 0)


class Watched(np.ndarray):
    """Images that keep count of how many of them were looked at together."""

    seen: ClassVar[list[int]] = []

    def max(self, *args, **kwargs):
        self.seen.append(len(self))
        return super().max(*args, **kwargs)


def test_highest_value_is_sought_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(pixels, "_CHUNK", 4)
    images = np.zeros((10, 1, 2, 2), np.uint8).view(Watched)
    for place in range(10):
        images[:] = 0
        images[place, 0, 1, 0] = 3
        Watched.seen.clear()
        assert pixels.highest(images) == 3
        assert Watched.seen == [4, 4, 2]
    Watched.seen.clear()
    Dataset("toy", Split(images), Split(images), levels=4)
    assert max(Watched.seen) == 4


def test_levels_are_reduced_without_a_wide_copy(monkeypatch):
    monkeypatch.setattr(pixels, "_CHUNK", 16)
    images = np.random.default_rng(0).integers(0, 256, (1000, 1, 16, 16), np.uint8)
    tracemalloc.start()
    reduced = pixels.reduce_levels(images, 256, 5)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(reduced, images.astype(int) * 5 // 256)
    assert peak < 1.5 * images.nbytes  # an index takes eight bytes
