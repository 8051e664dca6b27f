"""Means and deviations of pixels that were published, by which images are normalized."""

from jaxlt.errors import UsageError

# Those of Kang et al., "Decoupling representation and classifier for long-tailed recognition",
# ICLR 2020, and of the code after it. Places-LT is normalized by ImageNet's. CLIP's are those of
# the code of Radford et al., "Learning transferable visual models from natural language
# supervision", ICML 2021, which its weights were trained with. CIFAR-10's and CIFAR-100's are
# those of all code of the long-tailed literature.
_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inaturalist2018": ((0.466, 0.471, 0.380), (0.195, 0.194, 0.192)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


def published_statistics(
    name: str, num_channels: int, spec: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation per channel by the name of a `Normalization`, or "cifar".

    A `UsageError` says that the images of the source `spec` have not 3 channels.
    """
    if num_channels != 3:
        raise UsageError(
            f"images must have 3 channels for normalization {name}, got {num_channels} in {spec}"
        )
    return _STATISTICS[name]
