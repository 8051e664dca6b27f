import logging

import msgspec
import numpy as np
import pytest
from image_kinds import RGB, kinds
from PIL import Image, features

from jaxlt.data.augment.crops import NUM_TRIES, resized_crop_box
from jaxlt.data.sources import decoding
from jaxlt.data.sources.decoding import decode
from jaxlt.data.sources.folder import FileImages
from jaxlt.errors import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.runs.model_description import ModelDescription

KINDS = kinds()
GOOD = [name for name, (_, pixels) in KINDS.items() if pixels is not None]
BAD = [name for name in KINDS if name not in GOOD]
SIZE = 16


def fitted(pixels, mode="RGB"):
    image = Image.fromarray(pixels).convert(mode)
    return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)).reshape(SIZE, SIZE, -1)


def predictor(channels):
    values = {"model": "mlp", "num_classes": 2, "classifier": "linear", "precision": "float32"}
    values |= {"image_shape": (SIZE, SIZE, channels), "class_names": ("a", "b")}
    statistics = {"mean": (0.5,) * channels, "std": (0.5,) * channels}
    return Predictor(msgspec.convert(values | statistics, ModelDescription), {})


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    for name, (content, _) in KINDS.items():
        (root / name).write_bytes(content)
    return root


@pytest.fixture(scope="module")
def trained(directory):
    """The set as training reads it, and the numbers that it can read."""
    images = FileImages(
        [str(directory / name) for name in KINDS], np.zeros(len(KINDS)), SIZE, "stretch"
    )
    return images, images.readable(np.arange(len(KINDS)))


@pytest.fixture(scope="module")
def pixels(trained):
    images, readable = trained
    return dict(zip(np.array(list(KINDS))[readable].tolist(), images.load(readable), strict=True))


def test_there_are_enough_kinds():
    assert len(GOOD) >= 40
    assert len(BAD) >= 10


@pytest.mark.parametrize("name", GOOD)
def test_training_and_prediction_see_the_pixels_of_the_file(directory, pixels, name):
    content, expected = KINDS[name]
    np.testing.assert_array_equal(decode(content), expected)
    np.testing.assert_array_equal(pixels[name], fitted(expected))
    (color,), (gray,) = (predictor(n).read_files([directory / name]) for n in (3, 1))
    np.testing.assert_array_equal(color, fitted(expected))
    np.testing.assert_array_equal(gray, fitted(expected, "L"))


@pytest.mark.parametrize("name", BAD)
def test_training_and_prediction_refuse_a_file_for_the_same_reason(directory, trained, name):
    images, _ = trained
    (found,) = images.undecodable(np.array([list(KINDS).index(name)]))
    path, _, reason = found.partition(" cannot be decoded: ")
    assert path == str(directory / name)
    assert reason.isprintable()
    assert reason
    with pytest.raises(UsageError) as refusal:
        predictor(3).read_files([directory / name])
    assert str(refusal.value) == f"image {path} must be a file that can be decoded: {reason}"


def test_orientation_is_looked_for_once_however_many_segments_there_are(monkeypatch):
    plain, calls = KINDS["rgb.jpg"][0], []
    monkeypatch.setattr(decoding, "_is_turned", lambda contents: bool(calls.append(contents)))
    many = plain[:2] + b"\xff\xe1\x00\x04ab" * 50 + plain[2:]
    np.testing.assert_array_equal(decode(many), KINDS["rgb.jpg"][1])
    assert calls == [many]


def damaged(count):
    random = np.random.default_rng(0)
    whole = [content for content, _ in KINDS.values() if len(content) > 20]
    for _ in range(count):
        content = bytearray(whole[random.integers(len(whole))])
        for place in random.integers(20, len(content), 3):
            content[place] = random.integers(256)
        yield bytes(content[: random.integers(20, 2 * len(content))])


@pytest.mark.filterwarnings("ignore")
def test_damage_is_refused_by_both_or_by_none(tmp_path):
    """Alike also where a damaged file happens to be an image still."""
    contents, expected = list(damaged(300)), {}
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for number, content in enumerate(contents):
        paths[number].write_bytes(content)
        try:
            expected[number] = fitted(decode(content))
        except ValueError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 (it need not be raised)
    assert 50 < len(expected) < 250
    images = FileImages(list(map(str, paths)), np.zeros(len(paths)), SIZE, "stretch")
    readable = images.readable(np.arange(len(paths)))
    assert readable.tolist() == list(expected)
    np.testing.assert_array_equal(images.load(readable), list(expected.values()))


def test_what_is_refused_says_why():
    reasons = {}
    for name in BAD:
        with pytest.raises(ValueError, match=r".") as refusal:
            decode(KINDS[name][0])
        reasons[name] = str(refusal.value)
    assert reasons["empty.png"] == "it is empty"
    assert reasons["float.tif"] == "pixels must have 8 or 16 bits a channel, got mode F"
    for name in ("text.png", "page.jpg", "vector.png"):
        assert reasons[name].startswith("it is no image of ")


def test_crops_are_cut_out_of_what_is_read_whole(directory):
    names = [name for name in GOOD if name.startswith(("turned", "rgb", "palette", "cmyk", "two"))]
    made = FileImages(
        [str(directory / name) for name in names], np.zeros(len(names)), SIZE, "stretch"
    )
    random = np.random.default_rng(0)
    tries, places = random.random((len(names), NUM_TRIES, 2)), random.random((len(names), 2))
    found = made.read_crops(np.arange(len(names)), tries, places).numpy().astype(int)
    for number, name in enumerate(names):
        expected = KINDS[name][1]
        height, width, _ = expected.shape
        box = resized_crop_box(height, width, tries[number], places[number])
        top, left, height, width = box.numpy().tolist()
        crop = fitted(np.ascontiguousarray(expected[top : top + height, left : left + width]))
        difference = np.abs(found[number] - crop)
        # The colors of a part of a JPEG differ at its borders.
        if name.endswith((".jpg", ".jfif", ".mpo")):
            assert difference.mean() <= 3, name
        else:
            assert difference.max() == 0, name


def test_nothing_is_warned_of(directory, caplog, recwarn):
    caplog.set_level(logging.WARNING)
    for name in set(GOOD) - {"exif-broken.jpg"}:
        decode(KINDS[name][0])
    assert (caplog.messages, [str(one.message) for one in recwarn.list]) == ([], [])


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.avif", quality=100, subsampling="4:4:4")
    found = FileImages([str(tmp_path / "a.avif")], np.zeros(1), SIZE, "stretch").load(np.array([0]))
    assert np.abs(found[0].astype(int) - fitted(RGB)).max() <= 3
    np.testing.assert_array_equal(found, predictor(3).read_files([tmp_path / "a.avif"]))
