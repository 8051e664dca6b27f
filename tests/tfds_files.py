"""Data sets written as tensorflow-datasets itself would: sharded, shuffled, with metadata."""

from typing import Any


def write(
    tfds,
    directory,
    name,
    features,
    *,
    splits,
    keys=("image", "label"),
    version="1.0.0",
    file_format=None,
):
    """Writes a data set; `splits` maps each split's name to a list of its examples."""

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)

    members = {
        "__module__": __name__,
        "VERSION": tfds.core.Version(version),
        "_info": info,
        "_split_generators": lambda self, _: {
            split: enumerate(examples) for split, examples in splits.items()
        },
        "_generate_examples": lambda self: None,
    }
    base: Any = tfds.core.GeneratorBasedBuilder
    builder = type(base)(name, (base,), members, skip_registration=True)
    builder(data_dir=str(directory), file_format=file_format).download_and_prepare()


def write_known(tfds, directory, name, class_name, splits, file_format=None):
    """Writes a stand-in for a set that tensorflow-datasets knows, with its features."""
    known = tfds.builder(name, data_dir=str(directory))
    write(
        tfds,
        directory,
        class_name,
        known.info.features,
        splits=splits,
        keys=known.info.supervised_keys,
        version=str(known.version),
        file_format=file_format,
    )
