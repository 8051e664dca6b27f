import itertools
import logging

import numpy as np
import pytest
from PIL import Image

from jaxlt.data.augment.crops import NUM_TRIES, resized_crop_box
from jaxlt.data.pipelines.draws import DrawStream, ImageAugmentation
from jaxlt.data.pipelines.tf_pipeline import TfDataPipeline, evaluation_batches
from jaxlt.data.sampling.samplers import InstanceBalancedSampler
from jaxlt.data.sources.folder import FileImages
from jaxlt.data.sources.unreadable import successors
from jaxlt.devices.backends import import_tensorflow
from jaxlt.errors import UsageError

STATISTICS = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}
LABELS = np.array([0, 0, 0, 1, 1, 2])


def picture(shape=(90, 120), seed=0):
    """A picture with edges and colors, smooth enough to survive JPEG."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(grid).resize(shape[::-1], Image.Resampling.BICUBIC)


@pytest.fixture
def paths(tmp_path):
    """Six JPEG files of mixed sizes."""
    made = [tmp_path / f"{number}.jpg" for number in range(6)]
    for number, path in enumerate(made):
        picture((60 + 7 * number, 90 - 9 * number), number).save(path, quality=92)
    return made


def images(paths, size=32, resize="stretch"):
    return FileImages(list(map(str, paths)), LABELS, size, resize)


def drawn(count):
    random = np.random.default_rng(0)
    return random.random((count, NUM_TRIES, 2)), random.random((count, 2))


def batches(made, steps=3, unreadable="error", augmentation=None, start=0):
    indices = np.arange(len(made.labels))
    chosen = augmentation or ImageAugmentation("resized_crop_flip", color_jitter=0.4)
    stream = DrawStream(indices, InstanceBalancedSampler(len(indices), 0), 6, 0, chosen)
    pipeline = TfDataPipeline(made, stream, **STATISTICS, unreadable=unreadable)
    chunks = list(pipeline.chunks(start, steps, 1))
    pixels = np.concatenate([chunk.payload.images[0] for chunk in chunks])
    return pixels, np.concatenate([chunk.labels[0] for chunk in chunks]), pipeline


def color_spaces(tmp_path):
    rgb = picture()
    cases = {"rgb": rgb, "gray": rgb.convert("L"), "cmyk": rgb.convert("CMYK")}
    for name, image in cases.items():
        image.save(tmp_path / f"{name}.jpg", quality=95)
    rgb.save(tmp_path / "png.JPEG", "PNG")
    rgb.save(tmp_path / "progressive.jpg", quality=95, progressive=True)
    return [tmp_path / f"{name}.jpg" for name in (*cases, "progressive")] + [tmp_path / "png.JPEG"]


def test_gray_cmyk_progressive_and_misnamed_files_are_read_as_pillow_reads_them(tmp_path):
    paths = color_spaces(tmp_path)
    made = FileImages(list(map(str, paths)), np.zeros(5, int), 48, "stretch")
    found = made.load(np.arange(5)).astype(int)
    for pixels, path in zip(found, paths, strict=True):
        image = Image.open(path).convert("RGB").resize((48, 48), Image.Resampling.BILINEAR)
        assert np.abs(pixels - np.asarray(image, int)).max() <= 2, path.name
    assert (found[1] == found[1][..., :1]).all()


def test_crops_are_pillows(tmp_path):
    """Decoding a part of a JPEG file differs from decoding it all at the part's borders alone."""
    tf = import_tensorflow()
    paths = color_spaces(tmp_path)
    made = FileImages(list(map(str, paths)), np.zeros(5, int), 40, "stretch")
    for seed in range(6):
        random = np.random.default_rng(seed)
        tries, places = random.random((5, NUM_TRIES, 2)), random.random((5, 2))
        found = made.read_crops(np.arange(5), tries, places).numpy().astype(int)
        for number, path in enumerate(paths):
            image = Image.open(path).convert("RGB")
            boxes = map(tf.constant, (image.height, image.width, tries[number], places[number]))
            top, left, rows, columns = resized_crop_box(*boxes).numpy().tolist()
            part = image.crop((left, top, left + columns, top + rows))
            expected = np.asarray(part.resize((40, 40), Image.Resampling.BILINEAR), int)
            difference = np.abs(found[number] - expected)
            assert difference.max() <= 12, path.name
            assert difference[1:-1, 1:-1].mean() < 1, path.name


@pytest.mark.parametrize("resize", ["stretch", "center_crop"])
def test_five_crops_are_cut_out_of_the_whole_file(tmp_path, resize):
    paths = [tmp_path / name for name in ("wide.jpg", "wide.png", "high.png")]
    for path in paths:
        picture((60, 90) if path.stem == "wide" else (87, 50)).save(path)
    made = FileImages(list(map(str, paths)), np.arange(3), 32, resize)
    crops = made.five_crops(5)
    assert (crops.image_shape, made.image_shape) == ((160, 32, 3), (32, 32, 3))
    assert crops.labels is made.labels
    for tall, path in zip(crops.load(np.arange(3)).astype(int), paths, strict=True):
        # 37 by 55.5 or by 64.38; the middle of the 23 pixels too many, 11.5, is rounded to 12.
        width, height = (55, 37) if path.stem == "wide" else (37, 64)
        whole = Image.open(path).convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        right, bottom = width - 32, height - 32
        middle = (12, 2) if path.stem == "wide" else (2, 16)
        corners = [(0, 0), (right, 0), (0, bottom), (right, bottom), middle]
        expected = np.concatenate(
            [np.asarray(whole.crop((x, y, x + 32, y + 32)), int) for x, y in corners]
        )
        assert np.abs(tall - expected).max() <= (2 if path.suffix == ".jpg" else 0)
    np.testing.assert_array_equal(made.load(np.arange(3)), made.read(np.arange(3)))
    assert (crops.load(np.arange(3))[:, -32:] != made.load(np.arange(3))).any()


def test_batches_are_a_function_of_seed_and_step(paths):
    pixels, labels, _ = batches(images(paths), steps=4)
    later, later_labels, _ = batches(images(paths), steps=4, start=2)
    np.testing.assert_array_equal(later, pixels[12:])
    np.testing.assert_array_equal(later_labels, labels[12:])
    assert (pixels[:6] != pixels[6:12]).any()


def test_a_bad_image_is_named_without_a_look_at_the_others(paths):
    made = images(paths)
    paths[4].write_bytes(paths[4].read_bytes()[:300])
    with pytest.raises(
        UsageError, match=r"^image must be decodable, got .*4\.jpg cannot be decoded: "
    ):
        batches(made)
    stream = evaluation_batches(made, batch_size=2, **STATISTICS)
    next(stream)
    next(stream)
    with pytest.raises(
        UsageError, match=r"^image must be decodable, got .*4\.jpg cannot be decoded: "
    ):
        next(stream)


@pytest.mark.parametrize("shift", ["none", "resized_crop_flip"])
def test_a_skipped_image_is_replaced_by_the_next_of_its_class(paths, shift, caplog):
    augmentation = ImageAugmentation(shift)
    whole, labels, _ = batches(images(paths), augmentation=augmentation, unreadable="skip")
    for number in (2, 3):
        paths[number].write_bytes(b"\xff\xd8\xff damaged")
    made = images(paths)
    with caplog.at_level(logging.WARNING):
        found, found_labels, pipeline = batches(made, augmentation=augmentation, unreadable="skip")
    np.testing.assert_array_equal(found_labels, labels)
    stream = InstanceBalancedSampler(6, 0)(np.arange(18))
    damaged = np.isin(stream, (2, 3))
    np.testing.assert_array_equal(found[~damaged], whole[~damaged])
    assert pipeline._skips.count == 6
    assert [record.getMessage() for record in caplog.records] == [
        f"image {paths[number]} cannot be decoded and is skipped: {total} unreadable images so far"
        for total, number in enumerate(sorted((2, 3), key=list(stream).index), start=1)
    ]
    if shift == "none":
        substitute = {2: 0, 3: 4}
        expected = made.load(np.array([substitute.get(x, x) for x in stream.tolist()]))
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_class_without_a_readable_image_is_an_error(paths):
    made = images(paths)
    paths[5].write_bytes(b"nothing")
    with pytest.raises(
        UsageError, match=r"^image must be decodable, got .*5\.jpg cannot be decoded: "
    ):
        batches(made, unreadable="skip")


@pytest.mark.parametrize("bad", [0, 1, 3])
@pytest.mark.parametrize("five", [False, True])
def test_evaluation_leaves_skipped_images_out(paths, bad, five):
    made = images(paths).five_crops(4) if five else images(paths)
    whole = made.load(np.arange(6))
    paths[bad].write_bytes(b"nothing")
    stream = list(evaluation_batches(made, batch_size=4, **STATISTICS, unreadable="skip"))
    labels = list(itertools.chain.from_iterable(batch.labels.tolist() for batch in stream))
    kept = np.array([number for number in range(6) if number != bad])
    assert labels == [LABELS[i] if i in kept else -1 for i in range(8)]
    pixels = np.concatenate([np.asarray(batch.images) for batch in stream])
    assert (pixels[[bad, 6, 7]] == 0).all()
    np.testing.assert_allclose(pixels[kept], whole[kept], atol=1e-3)


def test_successors_walk_through_the_images_of_a_class_in_the_split():
    labels = np.array([1, 0, 1, 1, 0, 2, 1])
    indices = np.array([6, 0, 3, 1, 5])
    assert successors(labels, indices).tolist() == [3, 1, 2, 6, 4, 5, 0]
