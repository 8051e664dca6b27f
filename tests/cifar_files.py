"""CIFAR's published forms, written as their authors' programs would have."""

import io
import struct
import tarfile

import numpy as np

NAMES = {10: ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship")}
NAMES[10] += ("truck",)
NAMES[100] = tuple(f"class_{number:02d}" for number in range(100))
COARSE = tuple(f"coarse_{number:02d}" for number in range(20))
DIRECTORIES = {
    (10, "python"): "cifar-10-batches-py",
    (10, "binary"): "cifar-10-batches-bin",
    (100, "python"): "cifar-100-python",
    (100, "binary"): "cifar-100-binary",
}


def _text(value):
    """A `str` of Python 2."""
    return (
        b"U" + struct.pack("<B", len(value)) + value
        if len(value) < 256
        else b"T" + struct.pack("<i", len(value)) + value
    )


def _integer(value):
    if 0 <= value < 256:
        return b"K" + struct.pack("<B", value)
    return b"J" + struct.pack("<i", value)


def python2_pickle(values):
    """Pickles a dict of texts, integers, lists of them and arrays of bytes as Python 2 does.

    Protocol 2 of cPickle, which calls NumPy by its name of that time; opcodes by hand, as no Python
    of today writes them.
    """

    def one(value):
        if isinstance(value, str):
            return _text(value.encode())
        if isinstance(value, int):
            return _integer(value)
        if isinstance(value, list):
            return b"](" + b"".join(map(one, value)) + b"e"
        assert isinstance(value, np.ndarray)
        assert value.dtype == np.uint8
        shape = b"".join(map(_integer, value.shape))
        shape = b"(" + shape + b"t"
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff"
        dtype += b"\xff\xffK\x00tb"
        state = b"(K\x01" + shape + dtype + b"\x89" + _text(value.tobytes()) + b"tb"
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        return made + state

    items = b"".join(one(name) + one(value) for name, value in values.items())
    return b"\x80\x02}q\x01(" + items + b"u."


def files_of(num_classes, form, train, test, pickled=python2_pickle):
    """Returns the files of a form by name; `train` and `test` are images and labels."""
    parts = {}
    if num_classes == 10:
        for number, share in enumerate(np.array_split(np.arange(len(train[1])), 5), start=1):
            parts[f"data_batch_{number}"] = tuple(one[share] for one in train)
        parts["test_batch"] = test
    else:
        parts = {"train": train, "test": test}
    files = {"readme.html": b"<html>"}
    for name, (images, labels) in parts.items():
        pixels = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        labels = labels.astype(np.uint8)
        if form == "binary":
            coarse = [labels // 5] if num_classes == 100 else []
            records = np.column_stack([*coarse, labels, pixels])
            files[f"{name}.bin"] = records.tobytes()
            continue
        values = {"batch_label": f"{name} of 5", "data": pixels}
        values["labels" if num_classes == 10 else "fine_labels"] = labels.tolist()
        if num_classes == 100:
            values["coarse_labels"] = (labels // 5).tolist()
        values["filenames"] = [f"{number}.png" for number in range(len(labels))]
        files[name] = pickled(values)
    names = list(NAMES[num_classes])
    if form == "binary":
        listed = "batches.meta.txt" if num_classes == 10 else "fine_label_names.txt"
        files[listed] = ("\n".join(names) + "\n\n").encode()
        if num_classes == 100:
            files["coarse_label_names.txt"] = ("\n".join(COARSE) + "\n").encode()
    elif num_classes == 10:
        meta = {"num_cases_per_batch": 10000, "label_names": names, "num_vis": 3072}
        files["batches.meta"] = pickled(meta)
    else:
        files["meta"] = pickled({"fine_label_names": names, "coarse_label_names": list(COARSE)})
    return files


def archive_of(files, directory, mode="w:gz"):
    """Returns a tar archive of files that lie in a directory."""
    content = io.BytesIO()
    with tarfile.open(None, mode, content) as archive:  # pyright: ignore[reportCallIssue]
        folder = tarfile.TarInfo(directory)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, inside in files.items():
            member = tarfile.TarInfo(f"{directory}/{name}")
            member.size = len(inside)
            archive.addfile(member, io.BytesIO(inside))
    return content.getvalue()


def images_of(num_classes, per_class, seed):
    """Noise and shuffled labels, (N, 32, 32, 3) uint8 and (N,)."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(num_classes), per_class))
    return rng.integers(0, 256, (len(labels), 32, 32, 3)).astype(np.uint8), labels
