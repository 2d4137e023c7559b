"""Reading and writing images: every kind of file a user may bring."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srq_hw.errors import InputError
from srq_hw.evaluate.images import list_images, read_rgb, write_png


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(11).integers(0, 256, shape, dtype=np.uint8)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def raw_png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            png_chunk(b"IHDR", header),
            png_chunk(b"IDAT", zlib.compress(rows)),
            png_chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_rgb_is_read_as_stored(tmp_path: Path, suffix: str) -> None:
    pixels = noise(9, 13, 3)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    got = read_rgb(tmp_path / f"a.{suffix}")
    assert got.dtype == np.uint8
    assert np.array_equal(got, pixels)


def test_jpeg_is_read(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 24, 3), 90, dtype=np.uint8)).save(tmp_path / "a.jpg", quality=95)
    assert read_rgb(str(tmp_path / "a.jpg")).tolist() == np.full((16, 24, 3), 90).tolist()


def test_grey_is_replicated(tmp_path: Path) -> None:
    pixels = noise(8, 10)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.stack([pixels] * 3, axis=2))


def test_black_and_white_becomes_0_and_255(tmp_path: Path) -> None:
    bits = noise(8, 10) > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), np.stack([bits * np.uint8(255)] * 3, axis=2))


def test_palette_is_looked_up(tmp_path: Path) -> None:
    index = (noise(8, 10) % 4).astype(np.uint8)
    colours = np.array([(0, 0, 0), (255, 10, 0), (3, 255, 7), (9, 8, 200)], dtype=np.uint8)
    image = Image.frombytes("P", (10, 8), index.tobytes())
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), colours[index])


def test_opaque_alpha_is_dropped(tmp_path: Path) -> None:
    pixels = noise(8, 10, 4)
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_rgb(tmp_path / "a.png"), pixels[..., :3])


def test_transparent_pixel_is_refused(tmp_path: Path) -> None:
    pixels = noise(8, 10, 4)
    pixels[..., 3] = 255
    pixels[2, 3, 3] = 254
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png: 1 transparent pixels; .*flatten"):
        read_rgb(tmp_path / "a.png")


def test_transparent_palette_entry_is_refused(tmp_path: Path) -> None:
    image = Image.frombytes("P", (10, 8), bytes(80))
    image.putpalette(bytes((1, 2, 3, 4, 5, 6)))
    image.save(tmp_path / "a.png", transparency=0)
    with pytest.raises(InputError, match="80 transparent pixels"):
        read_rgb(tmp_path / "a.png")


def test_16_bit_rgb_is_refused_and_not_cut_to_8_bits(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(raw_png(8, 8, 16, 2, (b"\0" + bytes(48)) * 8))
    with Image.open(tmp_path / "deep.png") as image:
        assert image.mode == "RGB"  # Pillow alone would not tell
    with pytest.raises(InputError, match=r"deep\.png: 16 bits per channel; .*8-bit"):
        read_rgb(tmp_path / "deep.png")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_refused(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(noise(8, 8).astype(np.uint16) * 257).save(tmp_path / f"a.{suffix}")
    with pytest.raises(InputError, match="16 bits per channel"):
        read_rgb(tmp_path / f"a.{suffix}")


def test_colour_space_of_print_is_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (16, 16)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match="colour mode CMYK; allowed are RGB"):
        read_rgb(tmp_path / "a.tif")


def test_foreign_format_and_several_frames_are_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(8, 8, 3)), Image.fromarray(noise(8, 8, 3)[::-1])]
    frames[0].save(tmp_path / "a.gif")
    with pytest.raises(InputError, match="a GIF file; allowed are PNG"):
        read_rgb(tmp_path / "a.gif")
    frames[0].save(tmp_path / "a.tif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="2 frames; one is allowed"):
        read_rgb(tmp_path / "a.tif")


def test_small_image_is_refused_and_the_smallest_is_read(tmp_path: Path) -> None:
    write_png(tmp_path / "ok.png", noise(8, 8, 3))
    assert read_rgb(tmp_path / "ok.png").shape == (8, 8, 3)
    write_png(tmp_path / "small.png", noise(7, 30, 3))
    with pytest.raises(InputError, match=r"small\.png: 30x7 pixels; at least 8x8"):
        read_rgb(tmp_path / "small.png")


@pytest.mark.parametrize(("width", "height"), [(10_001, 10_000), (40_000, 40_000)])
def test_huge_image_is_refused_before_it_is_decoded(tmp_path: Path, width: int, height: int) -> None:
    (tmp_path / "huge.png").write_bytes(raw_png(width, height, 8, 2, b""))
    with pytest.raises(InputError, match=r"huge\.png: .*allowed.*tiles"):
        read_rgb(tmp_path / "huge.png")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match=r"text\.png: not an image; allowed are PNG"):
        read_rgb(tmp_path / "text.png")
    with pytest.raises(InputError, match="does not exist"):
        read_rgb(tmp_path / "absent.png")
    with pytest.raises(InputError, match="is a folder"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_image_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(InputError, match="damaged or cut short"):
        read_rgb(path)


def test_every_cut_of_a_png_ends_in_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_png(path, noise(8, 8, 3))
    whole = path.read_bytes()
    end_of_pixels = whole.index(b"IEND") - 8
    for length in range(0, end_of_pixels - 4, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.png"):
            read_rgb(path)


def test_write_png_round_trip_leaves_nothing_beside(tmp_path: Path) -> None:
    for pixels in (noise(8, 9, 3), noise(12, 8)):
        write_png(tmp_path / "a.png", pixels)
        assert np.array_equal(read_rgb(tmp_path / "a.png"), pixels if pixels.ndim == 3 else np.stack([pixels] * 3, 2))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_write_png_refuses(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; create it"):
        write_png(tmp_path / "none" / "a.png", noise(8, 8, 3))
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_png(tmp_path / "folder.png", noise(8, 8, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]
    with pytest.raises(ValueError, match="write_png wants"):
        write_png(tmp_path / "a.png", noise(8, 8, 4))
    with pytest.raises(ValueError, match="write_png wants"):
        write_png(tmp_path / "a.png", np.zeros((8, 8, 3)))


def test_list_images(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    assert [p.name for p in list_images(tmp_path)] == ["a.jpg", "b.PNG"]
    with pytest.raises(InputError, match=r"folder.png: holds no image .*; put images there or give another folder"):
        list_images(tmp_path / "folder.png")
    with pytest.raises(InputError, match=r"^--data .*folder.png: holds no image"):
        list_images(tmp_path / "folder.png", "--data")
    with pytest.raises(InputError, match="not a folder"):
        list_images(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_damaged_bytes_give_an_image_or_an_input_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(12, 14, 3)).save(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(17)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for position in rng.integers(0, min(len(whole), 200), 3):
            damaged[position] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_rgb(path).dtype == np.uint8
        except InputError:
            refused += 1
    assert refused > 0
