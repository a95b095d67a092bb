"""The pixels of one image file: its bit depth, its transparency, its crop.

Pillow opens a 16-bit colour PNG as 8-bit colour and says nothing, so depths are read from the files' own headers, and
the low bytes of such a PNG are fetched by a second pass.
"""

import io

import numpy as np
import PIL.Image
import PIL.ImageColor
import PIL.ImageFile
import PIL.ImageOps
from jaxtyping import Float, UInt

# The depth of formats that always have 8 bits a channel, or fewer; that of others is in their headers.
_EIGHT_BITS = ("BMP", "DIB", "GIF", "ICO", "JPEG", "MPO", "PCX", "TGA", "WEBP")
_LUMA = np.asarray([0.299, 0.587, 0.114], np.float32)  # ITU-R 601
_ORIENTATION = 0x0112  # the tag of EXIF
# In a second pass over a 16-bit PNG: the raw mode that yields the bytes which the first one drops.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


class UnsuitableImage(ValueError):
    """A sound image that has no place in the data set as it is; the message ends with the remedy."""


def read_pixels(
    encoded: bytes, size: tuple[int, int], channels: int, levels: int, background: str
) -> UInt[np.ndarray, "height width channels"]:
    """Decode an image file, and fit it to a size.

    The image is turned upright by its EXIF orientation, laid on the background or given its alpha channel, cropped to
    the centre of the wanted aspect and resized by an antialiasing Lanczos filter. Colour is resized in proportion to
    its alpha, so that the hidden colour of transparent pixels nowhere shows; where alpha is 0 it is the background's.

    Arguments:

    - `encoded`: the file's bytes. Of an animation, the first frame is read.
    - `size`: (height, width) in pixels.
    - `channels`: 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGB and alpha).
    - `levels`: 256 or 65,536; files of 8 bits have their levels times 257 in the latter.
    - `background`: a colour in the words of `PIL.ImageColor`.

    Returns uint8 for 256 levels, uint16 for 65,536.

    Raises UnsuitableImage for an image of more bits than the levels hold, of a depth that is not read, or of several
    pages; whatever Pillow raises for a damaged file.
    """
    with PIL.Image.open(io.BytesIO(encoded)) as image:
        if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
            raise UnsuitableImage("it is a TIFF of several pages, and an example is one image: store each by itself")
        bits = _bits(image, encoded)
        if bits <= 8 and levels == 256 and _is_as_wanted(image, size, channels):
            return np.asarray(image).reshape(*size, channels)
        if bits <= 8:
            colour, alpha = _shallow(image, bits, channels)
        elif bits != 16 or not (image.format == "PNG" or image.mode.startswith("I;16")):
            raise UnsuitableImage(
                f"it is a {image.format} of {bits} bits a channel, and beyond 8 only PNG and grey images of 16 are "
                "read: store it as PNG of 8 or 16 bits"
            )
        elif levels == 256:
            raise UnsuitableImage(
                "it has 16 bits a channel, but levels is 256, which is 8 bits: pass levels=65536, or store it with 8"
            )
        else:
            colour, alpha = _deep(image, encoded)
    shade = np.asarray(PIL.ImageColor.getrgb(background), np.float32) / 255
    if channels in (1, 2):
        colour, shade = _grey(colour), _grey(shade)
    else:
        colour = np.broadcast_to(colour, (*colour.shape[:2], 3))
    if channels in (1, 3):
        return _levels(_fit(colour if alpha is None else alpha * colour + (1 - alpha) * shade, size), levels)
    alpha = np.ones_like(colour[..., :1]) if alpha is None else alpha
    fitted = _fit(np.concatenate([alpha * colour, alpha], axis=-1), size)
    alpha = _levels(fitted[..., -1:], levels)
    visible = np.where(alpha > 0, fitted[..., :-1] / np.where(alpha > 0, fitted[..., -1:], 1), shade)
    return np.concatenate([_levels(visible, levels), alpha], axis=-1)


def _bits(image: PIL.ImageFile.ImageFile, encoded: bytes) -> int:
    """Bits a channel, by the file itself."""
    if image.mode in ("I", "F"):
        return 16 if image.format in ("PNG", "PPM") and image.mode == "I" else 32
    if image.format in _EIGHT_BITS:
        return 8
    if image.format == "PNG":
        return encoded[24]  # in IHDR, which is the first chunk
    if image.format == "TIFF":
        return int(np.max(image.getexif().get(258, 1)))  # BitsPerSample
    if image.format == "PPM":
        arguments = image.tile[0].args
        return arguments[1].bit_length() if isinstance(arguments, tuple) else 8
    if image.format == "JPEG2000":
        return (encoded[encoded.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1  # Ssiz of the first component
    if image.format == "AVIF":
        flags = encoded[encoded.index(b"av1C") + 6]
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    raise UnsuitableImage(f"its format is {image.format}, whose depth is not known here: store it as PNG or JPEG")


def _is_as_wanted(image, size, channels):
    """Whether the stored pixels are the prepared ones, as all that follows would find at ten times the cost."""
    is_opaque, is_upright = "transparency" not in image.info, image.getexif().get(_ORIENTATION, 1) == 1
    return is_opaque and is_upright and image.size == size[::-1] and image.mode == {1: "L", 3: "RGB"}.get(channels)


def _shallow(image, bits, channels):
    """Colour (1 or 3 channels) and alpha in [0, 1] of at most 8 bits; None for alpha that is 1 everywhere."""
    is_opaque = "transparency" not in image.info
    if is_opaque and (image.mode == "L" or (image.mode == "RGB" and channels > 2)):
        unit = np.asarray(PIL.ImageOps.exif_transpose(image), np.float32) / 255
        return (unit[..., None] if image.mode == "L" else unit), None
    if image.format == "PNG" and image.mode == "L" and "transparency" in image.info:
        # Pillow stretches 2 and 4 bits to 8, but not the transparent level.
        image.info["transparency"] *= 255 // (2**bits - 1)
    mode = "LA" if image.mode in ("1", "L", "LA") else "RGBA"
    upright = PIL.ImageOps.exif_transpose(image).convert(mode)
    unit = np.asarray(upright, np.float32) / 255
    return unit[..., :-1], unit[..., -1:]


def _deep(image, encoded):
    """Colour (1 or 3 channels) and alpha in [0, 1] of 16 bits."""
    raw, key = image.tile[0].args, image.info.get("transparency")
    if image.mode.startswith("I;16"):
        values = np.asarray(PIL.ImageOps.exif_transpose(image))[..., None]
    elif raw == "LA;16B":
        # Both bytes of both channels, as if they were four channels.
        first, second = np.split(np.asarray(_raw(encoded, "RGBA"), np.uint16), 2, axis=-1)
        values = np.stack([first[..., 0] * 256 + first[..., 1], second[..., 0] * 256 + second[..., 1]], axis=-1)
    else:
        high = np.asarray(PIL.ImageOps.exif_transpose(image), np.uint16)
        values = high * 256 + np.asarray(_raw(encoded, _LOW_BYTES[raw]))
    unit = values.astype(np.float32) / 65535
    if values.shape[-1] in (2, 4):
        return unit[..., :-1], unit[..., -1:]
    opaque = np.ones_like(values[..., :1], bool) if key is None else np.any(values != key, axis=-1, keepdims=True)
    return unit, opaque.astype(np.float32)


def _raw(encoded, raw):
    """A PNG decoded with another raw mode, upright."""
    image = PIL.Image.open(io.BytesIO(encoded))
    image.tile = [tile._replace(args=raw) for tile in image.tile]
    return PIL.ImageOps.exif_transpose(image)


def _grey(colour):
    return colour if colour.shape[-1] == 1 else (colour @ _LUMA)[..., None]


def _fit(image: Float[np.ndarray, "_ _ k"], size: tuple[int, int]) -> Float[np.ndarray, "height width k"]:
    """The centre of the aspect of `size`, resized to it; in real numbers, so that nothing is rounded twice."""
    planes = (PIL.Image.fromarray(plane) for plane in np.moveaxis(np.ascontiguousarray(image), -1, 0))
    fitted = [PIL.ImageOps.fit(plane, (size[1], size[0]), PIL.Image.Resampling.LANCZOS) for plane in planes]
    return np.stack([np.asarray(plane) for plane in fitted], axis=-1)


def _levels(unit, levels):
    dtype = np.uint8 if levels == 256 else np.uint16
    return np.rint(np.clip(unit, 0, 1) * (levels - 1)).astype(dtype)
