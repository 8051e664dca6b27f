"""A program's own field that holds a part: a flag for the part, and the part's flags."""

import dataclasses

import pytest

from experiments import flags, parsing
from jaxlt.errors import UsageError
from jaxlt.recipes.network import AnyNetwork, Clip, ImageNetResNet, RandomEncoder, Small, ViT
from jaxlt.recipes.sources import AnySource


@dataclasses.dataclass(frozen=True)
class Arguments:
    source: AnySource
    """Data."""
    network: AnyNetwork = dataclasses.field(default_factory=Small)
    """Network."""


def parsed(*words):
    return parsing.parse(flags.blank(Arguments), ["--source", "digits", *words])


def test_a_part_is_chosen_and_its_fields_are_flags():
    assert parsed().network == Small()
    assert parsed("--network", "mlp").network == Small(architecture="mlp")
    adapted = parsed("--network", "random:tiny", "--network.adaptation.kinds", "adaptformer")
    assert adapted.network.adaptation.kinds == ("adaptformer",)
    shorter = parsed("--network.precision", "bfloat16", "--network", "clip:here").network
    assert shorter == Clip(snapshot="here", precision="bfloat16")


def test_a_networks_name_may_be_followed_by_its_weights():
    network = parsed("--network", "resnet50:weights/resnet50.pth").network
    assert network == ImageNetResNet(architecture="resnet50", weights="weights/resnet50.pth")
    small = parsed("--network", "resnet32:a:b").network
    assert small == Small(architecture="resnet32", weights="a:b")
    with pytest.raises(UsageError, match="--network must be resnet50:WEIGHTS, got resnet50:"):
        parsed("--network", "resnet50:")
    with pytest.raises(UsageError, match=r"--network must be one of .*, got tiny:weights"):
        parsed("--network", "tiny:weights")
    assert parsed("--network", "vit:here").network == ViT(snapshot="here")


def test_a_part_without_default_must_be_given():
    with pytest.raises(UsageError, match="--source must be given"):
        parsing.parse(flags.blank(Arguments), [])


def test_a_flag_of_a_part_that_is_not_chosen_is_refused():
    with pytest.raises(UsageError, match=r"--network\.remat must belong to the chosen part"):
        parsed("--network.remat")


def test_help_shows_the_chosen_part_alone():
    names = {flag.name for flag in flags.flags_of(parsed("--network", "mlp"))}
    assert {"network", "network.precision", "source"} <= names
    assert "network.remat" not in names


def test_a_word_alone_names_a_part():
    assert parsing.chosen_part("networks", AnyNetwork, None, ["random:vit_b16"]) == (
        RandomEncoder(size="vit_b16")
    )
    with pytest.raises(UsageError, match=r"--networks must be one of small.* got mpl"):
        parsing.chosen_part("networks", AnyNetwork, None, ["mpl"])
