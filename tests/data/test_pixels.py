import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from sgm.data.pixels import UnsuitableImage, read_pixels

ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png(pixels, bits=16, key=None, interlaced=False, orientation=1):
    """A PNG of these (height, width, channels), unfiltered; written by hand, since Pillow writes no deep colour."""
    height, width, channels = pixels.shape
    passes = ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = [row for top, left, down, right in passes for row in pixels[top::down, left::right]]
    if bits < 8:
        packed = [np.packbits(np.unpackbits(row.astype(np.uint8), axis=1)[:, -bits:]).tobytes() for row in rows]
    else:
        packed = [row.astype(f">u{bits // 8}").tobytes() for row in rows]
    header = struct.pack(">IIBBBBB", width, height, bits, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, interlaced)
    exif = b"MM\0*\0\0\0\x08" + struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    chunks = {b"IHDR": header, b"eXIf": exif}
    if key is not None:
        chunks[b"tRNS"] = np.asarray(key, ">u2").tobytes()
    chunks |= {b"IDAT": zlib.compress(b"".join(b"\0" + row for row in packed)), b"IEND": b""}
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def read(encoded, size=(1, 2), channels=3, levels=256, background="white"):
    return read_pixels(encoded, size, channels, levels, background)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_read_to_the_last(channels, interlaced):
    pixels = np.random.default_rng(channels).integers(1, 65536, (9, 7, channels))
    read_again = read(png(pixels, interlaced=interlaced), (9, 7), channels, 65536)
    assert read_again.dtype == np.uint16
    np.testing.assert_array_equal(read_again, pixels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_turned_upright(channels):
    pixels = np.random.default_rng(channels).integers(1, 65536, (3, 5, channels))
    encoded = png(pixels, orientation=6)  # upright is a quarter turn clockwise from it
    np.testing.assert_array_equal(read(encoded, (5, 3), channels, 65536), np.rot90(pixels, k=-1))


def test_eight_bits_span_the_same_range():
    pixels = np.arange(256).reshape(16, 16, 1)
    np.testing.assert_array_equal(read(png(pixels, bits=8), (16, 16), 1, 65536), 257 * pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_key_of_sixteen_bits_is_compared_in_full(channels):
    pixels = np.full((1, 2, channels), 4660)
    pixels[0, 1, -1] += 1  # the same high byte
    x = read(png(pixels, key=[4660] * channels), channels=channels, levels=65536)
    np.testing.assert_array_equal(x, [[[65535] * channels, pixels[0, 1]]])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits(bits):
    pixels = np.asarray([[[0], [1]]])
    top = 2**bits - 1
    x = read(png(pixels, bits=bits, key=[1]), channels=2, background="black")
    np.testing.assert_array_equal(x, [[[0, 255], [0, 0]]])
    x = read(png(pixels, bits=bits, key=[0]), channels=1)
    np.testing.assert_array_equal(x, [[[255], [255 // top]]])


def transparent(mode):
    """Two pixels: red, or its grey, and a green, or its grey, that is hidden."""
    colours = PIL.Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    colours.putpixel((1, 0), (0, 200, 0, 0))
    if mode == "P":
        palette = PIL.Image.new("P", (2, 1))
        palette.putpalette([200, 0, 0, 0, 200, 0])
        palette.putpixel((1, 0), 1)
        return encode(palette, transparency=1)
    if mode == "RGB":
        return encode(colours.convert("RGB"), transparency=(0, 200, 0))
    return encode(colours.convert(mode))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
@pytest.mark.parametrize(("background", "shade"), [("white", (255, 255, 255)), ("#0080ff", (0, 128, 255))])
def test_transparent_pixels_show_the_background(mode, background, shade):
    red = (60, 60, 60) if mode == "LA" else (200, 0, 0)
    encoded = transparent(mode)
    np.testing.assert_array_equal(read(encoded, background=background), [[red, shade]])
    luma = round(0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2])
    np.testing.assert_array_equal(read(encoded, channels=1, background=background), [[[60], [luma]]])
    kept = [[(*red, 255), (*shade, 0)]]
    np.testing.assert_array_equal(read(encoded, channels=4, background=background), kept)
    np.testing.assert_array_equal(read(encoded, channels=2, background=background), [[[60, 255], [luma, 0]]])


def test_half_transparent_pixels_are_mixed():
    encoded = encode(PIL.Image.new("RGBA", (2, 1), (0, 100, 255, 51)))  # a fifth
    np.testing.assert_array_equal(read(encoded)[0, 0], [204, 224, 255])
    np.testing.assert_array_equal(read(encoded, channels=4)[0, 0], [0, 100, 255, 51])


def test_the_hidden_colour_stays_hidden_when_resized():
    picture = PIL.Image.new("RGBA", (64, 64), (0, 255, 0, 0))
    picture.paste((255, 0, 0, 255), (0, 0, 30, 64))
    small = read(encode(picture), (8, 8), 4).astype(int)
    assert 0 < small[4, 3, 3] < 255  # the edge falls within this pixel
    np.testing.assert_array_equal(small[:, :4, :3], np.broadcast_to([255, 0, 0], (8, 4, 3)))
    laid = read(encode(picture), (8, 8), 3, background="black")
    assert not laid[..., 1:].any()


def test_opaque_files_get_an_opaque_alpha():
    encoded = encode(PIL.Image.new("L", (2, 1), 7))
    np.testing.assert_array_equal(read(encoded, channels=4)[0, 0], [7, 7, 7, 255])
    np.testing.assert_array_equal(read(encoded, channels=2, levels=65536)[0, 0], [7 * 257, 65535])


@pytest.mark.parametrize("size", [(2, 4), (4, 2), (3, 5)])
def test_the_centre_of_the_aspect_is_kept(size):
    pixels = np.random.default_rng(0).integers(64, 192, (3, 5, 3))
    height, width = size
    scale = min(3 / height, 5 / width)
    x = read(png(np.kron(pixels, np.ones((4, 4, 1), int)), bits=8), size)
    assert x.shape == (*size, 3)
    picture = PIL.Image.fromarray(np.kron(pixels, np.ones((4, 4, 1))).astype(np.uint8))
    box = np.asarray([5 - scale * width, 3 - scale * height, 5 + scale * width, 3 + scale * height]) * 2
    expected = picture.resize((width, height), PIL.Image.Resampling.LANCZOS, box=tuple(box))
    np.testing.assert_allclose(x.astype(int), np.asarray(expected).astype(int), atol=1)  # Pillow rounds in between


def small(kind, size=(2, 1)):
    """A grey of 80 in RGB."""
    try:
        return encode(PIL.Image.new("RGB", size, (80, 80, 80)), kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow has no {kind}")


def patched(kind, *changes):
    """A file whose header says another depth."""
    encoded = small(kind)
    for old, new in changes:
        assert encoded.count(old) == 1
        encoded = encoded.replace(old, new)
    return encoded


DEEP = {
    "TIFF of 16": lambda: patched("TIFF", (b"\x08\0\x08\0\x08\0", b"\x10\0\x10\0\x10\0")),
    "AVIF of 10": lambda: patched(
        "AVIF",
        (b"av1C\x81\x00\x0c", b"av1C\x81\x00\x4c"),
        (b"pixi\0\0\0\0\x03\x08\x08\x08", b"pixi\0\0\0\0\x03\x0a\x0a\x0a"),
    ),
    "JPEG2000 of 12": lambda: patched("JPEG2000", (b"\0\x03\x07\x01\x01", b"\0\x03\x0b\x01\x01")),
    "PPM of 16": lambda: b"P6 2 1 65535\n" + bytes(12),
    "TIFF of 32": lambda: encode(PIL.Image.new("F", (2, 1)), "TIFF"),
}


@pytest.mark.parametrize("levels", [256, 65536])
@pytest.mark.parametrize("kind", DEEP)
def test_depths_that_pillow_would_cut_are_refused(kind, levels):
    message = f"it is a {kind} bits a channel, .*: store it as PNG of 8 or 16 bits"
    with pytest.raises(UnsuitableImage, match=message):
        read(DEEP[kind](), levels=levels)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_never_cut_to_eight(channels):
    with pytest.raises(UnsuitableImage, match=r"it has 16 bits a channel, but levels is 256, .*: pass levels=65536"):
        read(png(np.ones((1, 2, channels), int)), channels=channels)


def test_grey_tiff_of_sixteen_bits():
    pixels = np.asarray([[300, 65535]], np.uint16)
    np.testing.assert_array_equal(
        read(encode(PIL.Image.fromarray(pixels), "TIFF"), channels=1, levels=65536)[..., 0], pixels
    )


def test_other_formats_and_several_pages_are_refused():
    with pytest.raises(UnsuitableImage, match="its format is SGI, whose depth is not known here: store it as PNG"):
        read(encode(PIL.Image.new("RGB", (2, 1)), "SGI"))
    page = PIL.Image.new("L", (2, 1))
    with pytest.raises(UnsuitableImage, match=r"it is a TIFF of several pages, .*: store each by itself"):
        read(encode(page, "TIFF", save_all=True, append_images=[page]))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"])
def test_formats_of_eight_bits_are_read(kind):
    np.testing.assert_allclose(read(small(kind, (16, 16)), (4, 4)).astype(int), 80, atol=2)
