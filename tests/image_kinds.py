"""Images of many formats, modes, depths and orientations, with the pixels that must be seen."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

_TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


def kinds() -> dict[str, tuple[bytes, np.ndarray | None]]:
    """Returns for each name of a file its bytes and its pixels (H, W, 3), None where refused."""
    makers = (_jpeg(), _png(), _bmp(), _gif(), _webp(), _tiff(), _others())
    return {name: (content, pixels) for made in makers for name, content, pixels in made}


def picture(seed: int = 0, shape: tuple[int, int] = (18, 28)) -> np.ndarray:
    """Returns an image in which no side is like another."""
    grid = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC))


RGB = picture()
GRAY = picture(1)[..., 0]
ALPHA = np.tile(np.arange(28, dtype=np.uint8) * 9, (18, 1))
DEEP = GRAY.astype(np.uint16) * 256 + 77
_Made = Iterator[tuple[str, bytes, np.ndarray | None]]


def _saved(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, kind, **options)
    return file.getvalue()


def _by_hand(content: bytes) -> np.ndarray:
    """What Pillow's decoder makes of a file whose pixels are not known before: a lossy one."""
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return np.asarray(Image.frombytes(image.mode, image.size, image.tobytes()).convert("RGB"))


def _three(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., np.newaxis], 3, axis=2)


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _palette_image() -> tuple[Image.Image, np.ndarray]:
    """Returns a palette image whose indices say nothing of its colors, and the colors."""
    table = np.random.default_rng(5).integers(0, 256, (16, 3), np.uint8)
    indices = (np.arange(18 * 28).reshape(18, 28) * 7 % 16).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(table.tobytes())
    return image, table[indices]


def _jpeg() -> _Made:
    images = {"rgb": Image.fromarray(RGB), "gray": Image.fromarray(GRAY)}
    images["cmyk"] = images["rgb"].convert("CMYK")
    for name, image in images.items():
        for how in ({}, {"progressive": True}):
            content = _saved(image, "JPEG", quality=92, **how)
            yield f"{name}{'-progressive' if how else ''}.jpg", content, _by_hand(content)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        content = _saved(RGB, "JPEG", quality=75, subsampling=subsampling, optimize=True)
        yield f"{subsampling.replace(':', '')}.JPEG", content, _by_hand(content)
    plain = _saved(RGB, "JPEG", quality=92)
    pixels = _by_hand(plain)
    yield "jpeg.png", plain, pixels
    yield "stored-as-rgb.jpg", (content := _saved(RGB, "JPEG", keep_rgb=True)), _by_hand(content)
    yield "profile.jpg", _saved(RGB, "JPEG", quality=92, icc_profile=b"x" * 70_000), pixels
    yield "comment.jpe", _saved(RGB, "JPEG", quality=92, comment=b"\xff\xe1 none"), pixels
    for orientation, turned in _TURNS.items():
        content = _saved(RGB, "JPEG", quality=92, exif=_exif(orientation))
        yield f"turned-{orientation}.jpg", content, turned(pixels)
    for name in ("gray", "cmyk"):
        content = _saved(images[name], "JPEG", quality=92, exif=_exif(6), progressive=True)
        yield f"{name}-turned.jfif", content, _TURNS[6](_by_hand(content))
    yield "turned-0.jpg", _saved(RGB, "JPEG", quality=92, exif=_exif(0)), pixels
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation="8"></x:xmpmeta>'
    segment = b"\xff\xe1" + struct.pack(">H", 2 + len(xmp)) + xmp
    yield "turned-by-xmp.jpg", plain[:2] + segment + plain[2:], _TURNS[8](pixels)
    broken = b"\xff\xe1" + struct.pack(">H", 14) + b"Exif\0\0MM\0*\xff\xff"
    yield "exif-broken.jpg", plain[:2] + broken + plain[2:], pixels
    yield "fill-bytes.jpg", plain[:2] + b"\xff\xff\xff" + plain[2:], pixels
    second = [Image.fromarray(GRAY).convert("RGB")]
    content = _saved(RGB, "MPO", quality=92, save_all=True, append_images=second)
    yield "two.mpo", content, pixels
    for name, length in (("cut", len(plain) // 2), ("head", 30), ("two-bytes", 2)):
        yield f"{name}.jpg", plain[:length], None
    yield "cut-turned.jpg", _saved(RGB, "JPEG", exif=_exif(6))[:500], None


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _raw_png(
    rows: bytes, depth: int, color: int, *chunks: bytes, size=(28, 18), interlaced: int = 0
) -> bytes:
    """Writes a PNG file of filtered rows; color 0 is gray, 2 RGB, 4 with alpha, 6 RGB with it."""
    header = struct.pack(">IIBBBBB", *size, depth, color, 0, 0, interlaced)
    parts = (_chunk(b"IHDR", header), *chunks, _chunk(b"IDAT", zlib.compress(rows)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + _chunk(b"IEND", b"")


def _rows(array: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in array)


def _packed(values: np.ndarray, bits: int) -> np.ndarray:
    """Packs values of a few bits into bytes, the first in the upper bits."""
    each = np.unpackbits(values[..., np.newaxis], axis=-1)[..., -bits:]
    return np.packbits(each.reshape(len(values), -1), axis=1)


def _png() -> _Made:
    yield "rgb.png", _saved(RGB, "PNG"), RGB
    yield "gray.PNG", _saved(GRAY, "PNG"), _three(GRAY)
    yield "png.jpg", _saved(RGB, "PNG"), RGB
    yield "rgba.png", _saved(np.dstack([RGB, ALPHA]), "PNG"), RGB
    yield "la.png", _saved(np.dstack([GRAY, ALPHA]), "PNG"), _three(GRAY)
    yield "16-bit.png", _saved(DEEP, "PNG"), _three(GRAY)
    deep = (RGB.astype(np.uint16) * 256 + 99).astype(">u2")
    yield "48-bit.png", _raw_png(_rows(deep), 16, 2), RGB
    wide = np.dstack([deep, ALPHA.astype(">u2") * 256]).astype(">u2")
    yield "64-bit.png", _raw_png(_rows(wide), 16, 6), RGB
    wide = np.dstack([DEEP, DEEP[::-1]]).astype(">u2")
    yield "16-bit-alpha.png", _raw_png(_rows(wide), 16, 4), _three(GRAY)
    for bits in (1, 2, 4):
        values = GRAY >> (8 - bits)
        content = _raw_png(_rows(_packed(values, bits)), bits, 0)
        yield f"{bits}-bit.png", content, _three(values * (255 // (2**bits - 1)))
    image, colors = _palette_image()
    yield "palette.png", _saved(image, "PNG"), colors
    yield "palette-8.png", _saved(image, "PNG", bits=8), colors
    yield "palette-clear.png", _saved(image, "PNG", transparency=3), colors
    yield "palette-alpha.png", _saved(image, "PNG", transparency=bytes(range(0, 160, 10))), colors
    yield "rgb-clear.png", _saved(RGB, "PNG", transparency=tuple(map(int, RGB[0, 0]))), RGB
    yield "gray-clear.png", _saved(GRAY, "PNG", transparency=int(GRAY[0, 0])), _three(GRAY)
    gamma = _chunk(b"gAMA", struct.pack(">I", 100_000))
    yield "gamma.png", _raw_png(_rows(RGB), 8, 2, gamma), RGB
    yield "profile.png", _saved(RGB, "PNG", icc_profile=b"no profile"), RGB
    for orientation in (3, 6):
        content = _saved(RGB, "PNG", exif=_exif(orientation))
        yield f"turned-{orientation}.png", content, _TURNS[orientation](RGB)
    starts = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
    passes = [RGB[y::high, x::wide] for y, x, high, wide in (*starts, (1, 0, 2, 1))]
    yield "interlaced.png", _raw_png(b"".join(map(_rows, passes)), 8, 2, interlaced=1), RGB
    frames = [Image.fromarray(RGB[::-1])]
    yield "animated.apng", _saved(RGB, "PNG", save_all=True, append_images=frames), RGB
    whole = _saved(picture(2), "PNG")
    yield "cut.png", whole[: len(whole) // 2], None
    yield "checksum.png", whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], None


def _raw_bmp(rows: np.ndarray, bits: int, table: bytes = b"", compression: int = 0) -> bytes:
    """Writes a BMP file of 28 by 18 pixels, of rows from the lowest up, or of compressed bytes."""
    body = rows.tobytes()
    if rows.ndim > 1:
        body = b"".join(row.tobytes() + bytes(-row.nbytes % 4) for row in rows[::-1])
    start = 14 + 40 + len(table)
    head = struct.pack("<IiiHHIIiiII", 40, 28, 18, 1, bits, compression, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + table + body


def _bmp() -> _Made:
    yield "rgb.bmp", _saved(RGB, "BMP"), RGB
    yield "gray.bmp", _saved(GRAY, "BMP"), _three(GRAY)
    yield (
        "1-bit.bmp",
        _saved(Image.fromarray(GRAY > 128), "BMP"),
        _three((GRAY > 128) * np.uint8(255)),
    )
    image, colors = _palette_image()
    yield "palette.bmp", _saved(image, "BMP"), colors
    indices = np.asarray(image)
    table = np.pad(np.reshape(image.getpalette() or [], (-1, 3))[:16, ::-1], ((0, 0), (0, 1)))
    table = table.astype(np.uint8).tobytes()
    yield "4-bit.bmp", _raw_bmp(_packed(indices, 4), 4, table), colors
    runs = b"".join(
        b"".join(bytes([1, value]) for value in row) + b"\0\0" for row in indices[::-1].tolist()
    )
    full = table + bytes(4 * 240)
    yield "runs.bmp", _raw_bmp(np.frombuffer(runs + b"\0\1", np.uint8), 8, full, 1), colors
    five = (RGB >> 3).astype(np.uint16)
    packed = (five[..., 0] << 10 | five[..., 1] << 5 | five[..., 2]).astype("<u2")
    # Five bits are stretched to 0..255.
    yield "16-bit.bmp", _raw_bmp(packed, 16), (five * 255 // 31).astype(np.uint8)
    yield "32-bit.bmp", _raw_bmp(np.dstack([RGB[..., ::-1], ALPHA]), 32), RGB
    yield "rgba.bmp", _saved(np.dstack([RGB, ALPHA]), "BMP"), RGB
    yield "device.dib", _saved(RGB, "DIB"), RGB
    yield "cut.bmp", _saved(RGB, "BMP")[:500], None


def _gif() -> _Made:
    image, colors = _palette_image()
    yield "palette.gif", _saved(image, "GIF"), colors
    yield "gray.gif", _saved(GRAY, "GIF"), _three(GRAY)
    yield "clear.gif", _saved(image, "GIF", transparency=3), colors
    yield "rows.gif", _saved(image, "GIF", interlace=True), colors
    yield (
        "animated.gif",
        _saved(image, "GIF", save_all=True, append_images=[image.rotate(180)]),
        colors,
    )
    yield "cut.gif", _saved(image, "GIF")[:120], None


def _webp() -> _Made:
    yield "rgb.webp", _saved(RGB, "WEBP", lossless=True), RGB
    yield "lossy.webp", (content := _saved(RGB, "WEBP", quality=60)), _by_hand(content)
    rgba = np.dstack([RGB, ALPHA])
    yield "rgba.webp", _saved(rgba, "WEBP", lossless=True, exact=True), RGB
    frames = [Image.fromarray(RGB[::-1])]
    animated = _saved(RGB, "WEBP", lossless=True, save_all=True, append_images=frames)
    yield "animated.webp", animated, RGB
    yield "turned.webp", _saved(RGB, "WEBP", lossless=True, exif=_exif(8)), _TURNS[8](RGB)
    yield "cut.webp", _saved(RGB, "WEBP", lossless=True)[:200], None


def _raw_tiff(array: np.ndarray, photometric: int, sample_format: int = 1) -> bytes:
    """Writes an uncompressed TIFF file, little-endian, of (H, W) or (H, W, C)."""
    height, width, channels = array.shape if array.ndim == 3 else (*array.shape, 1)
    bits = array.dtype.itemsize * 8
    tags = [
        (256, width), (257, height), (259, 1), (262, photometric), (273, 8), (277, channels),
        (278, height), (279, array.nbytes), (284, 1), (339, sample_format),
    ]  # fmt: skip
    body = array.tobytes()
    place = 8 + len(body)
    each = struct.pack(f"<{channels}H", *[bits] * channels)
    entries = {tag: struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags}
    inline = each.ljust(4, b"\0") if channels < 3 else struct.pack("<I", place)
    entries[258] = struct.pack("<HHI", 258, 3, channels) + inline
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries))
    start = place + len(each) + len(each) % 2
    head = struct.pack("<2sHI", b"II", 42, start)
    return head + body + each.ljust(start - place, b"\0") + directory + bytes(4)


def _tiff() -> _Made:
    yield "rgb.tif", _saved(RGB, "TIFF"), RGB
    yield "gray.TIFF", _saved(GRAY, "TIFF"), _three(GRAY)
    yield "rgba.tif", _saved(np.dstack([RGB, ALPHA]), "TIFF"), RGB
    yield "la.tif", _saved(np.dstack([GRAY, ALPHA]), "TIFF"), _three(GRAY)
    one = GRAY > 128
    yield "1-bit.tif", _saved(Image.fromarray(one), "TIFF"), _three(one * np.uint8(255))
    yield (
        "fax.tif",
        _saved(Image.fromarray(one), "TIFF", compression="group4"),
        _three(one * np.uint8(255)),
    )
    image, colors = _palette_image()
    yield "palette.tif", _saved(image, "TIFF"), colors
    cmyk = Image.fromarray(RGB).convert("CMYK")
    yield "cmyk.tif", _saved(cmyk, "TIFF"), np.asarray(cmyk.convert("RGB"))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"{compression}.tif", _saved(RGB, "TIFF", compression=compression), RGB
    content = _saved(RGB, "TIFF", compression="jpeg", quality=90)
    yield "jpeg.tif", content, _by_hand(content)
    yield "16-bit.tif", _saved(DEEP, "TIFF"), _three(GRAY)
    big = Image.frombytes("I;16B", (28, 18), DEEP.astype(">u2").tobytes())
    yield "16-bit-big.tif", _saved(big, "TIFF"), _three(GRAY)
    yield "48-bit.tif", _raw_tiff((RGB.astype(np.uint16) * 256 + 99).astype("<u2"), 2), RGB
    yield "white-is-zero.tif", _raw_tiff(255 - GRAY, 0), _three(GRAY)
    for orientation in (2, 6):
        content = _saved(RGB, "TIFF", exif=_exif(orientation))
        yield f"turned-{orientation}.tif", content, _TURNS[orientation](RGB)
    pages = [Image.fromarray(RGB[::-1])]
    yield "pages.tif", _saved(RGB, "TIFF", save_all=True, append_images=pages), RGB
    yield "float.tif", _saved((GRAY / 255).astype(np.float32), "TIFF"), None
    yield "32-bit.tif", _saved(DEEP.astype(np.int32) * 999, "TIFF"), None
    yield "signed.tif", _raw_tiff(DEEP.astype("<i2"), 1, sample_format=2), None
    yield "cut.tif", _saved(RGB, "TIFF")[:300], None


def _others() -> _Made:
    yield "rgb.ppm", _saved(RGB, "PPM"), RGB
    yield "gray.pgm", _saved(GRAY, "PPM"), _three(GRAY)
    yield "deep.pgm", b"P5 28 18 65535\n" + DEEP.astype(">u2").tobytes(), _three(GRAY)
    yield (
        "1-bit.pbm",
        _saved(Image.fromarray(GRAY > 128), "PPM"),
        _three((GRAY > 128) * np.uint8(255)),
    )
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name, content in (("empty", b""), ("text", b"no image"), ("pointer", pointer)):
        yield f"{name}.png", content, None
    yield "page.jpg", b"<!DOCTYPE html><html></html>", None
    yield "vector.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", None
