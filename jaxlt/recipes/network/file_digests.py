"""What is known of networks by the files they begin with."""

from jaxlt.files.directory import expanded
from jaxlt.files.foreign_files import file_digest, joint_digest
from jaxlt.recipes.network.network import Network


def file_digests(part: Network, name: str) -> dict[str, str]:
    """Returns what the file in a field holds, see `Network.contents`; none without a file.

    Of a directory of weights, or an index, it is what the digests of its files make.
    """
    place = getattr(part, name)
    if place is None:
        return {}
    path = expanded(place)
    if not (path.is_dir() or path.name.endswith(".index.json")):
        return {name: f"sha256:{file_digest(name, path)}"}
    from jaxlt.models.clip.snapshot import weights_of
    from jaxlt.models.weights.torch_files import files_of_weights

    files = files_of_weights(weights_of(path) if path.is_dir() else path)
    return {name: joint_digest(name, files)}
