"""The PyTorch peer: networks of the same size, and the same step from the same weights."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.benchmark.cases import CASES, CaseName, make_problem
from jaxlt import UsageError
from jaxlt.models import CifarResNet
from jaxlt.recipes import Small
from jaxlt.training import make_state_fn, make_train_step

torch = pytest.importorskip("torch", reason="PyTorch is no dependency")

from experiments.benchmark import torch_steps  # noqa: E402
from experiments.benchmark.torch_steps import Trainer, build_steps  # noqa: E402

WITH_PEER: list[CaseName] = [case for case in CASES if case != "cc_sam_all"]


class ResNet8(Small, frozen=True, tag="resnet8"):
    """The smallest network of its family, which compiles in a tenth of ResNet-32's time."""

    @property
    def label(self):
        return "resnet8"

    def build(self, num_classes, *_, **__):
        return CifarResNet(num_classes=num_classes, blocks=(1, 1, 1))


def problem_of(model, **fields):
    network = ResNet8() if model == "resnet8" else Small(architecture=model)
    settings = {"batch_size": 12, "num_classes": 10, "image_size": 8, "tail_share": None}
    return make_problem(network, **{**settings, **fields})


def dense(name, layer):
    return {f"{name}.weight": layer["kernel"].T, f"{name}.bias": layer["bias"]}


def norm(name, layer):
    return {f"{name}.weight": layer["scale"], f"{name}.bias": layer["bias"]}


def convolution(name, layer):
    return {f"{name}.weight": layer["kernel"].transpose(3, 2, 0, 1)}


def mlp_tensors(params):
    # PyTorch flattens (channels, height, width), Flax (height, width, channels).
    kernel = params["Dense_0"]["kernel"].reshape(8, 8, 3, -1).transpose(2, 0, 1, 3)
    hidden = {"kernel": kernel.reshape(8 * 8 * 3, -1), "bias": params["Dense_0"]["bias"]}
    return dense("features.1", hidden)


def resnet_tensors(params):
    tensors = convolution("features.0", params["conv1"]) | norm("features.1", params["bn1"])
    for index, name in enumerate(sorted(name for name in params if name.startswith("layer"))):
        block = f"features.{index + 3}"
        for part in ("1", "2"):
            tensors |= convolution(f"{block}.conv{part}", params[name][f"conv{part}"])
            tensors |= norm(f"{block}.bn{part}", params[name][f"bn{part}"])
    return tensors


def vit_tensors(params):
    patches = params["patch_embedding"]
    tensors = {
        "features.embedding.weight": patches["kernel"].reshape(4, 4, 3, -1).transpose(3, 2, 0, 1),
        "features.embedding.bias": patches["bias"],
        "features.positions": params["position_embedding"],
        **norm("features.norm", params["norm"]),
    }
    for index, name in enumerate(sorted(name for name in params if name.startswith("block"))):
        block, attention = params[name], params[name]["attention"]
        parts = [attention[part] for part in ("query", "key", "value")]
        peer = f"features.blocks.{index}"
        kernel = np.concatenate([part["kernel"].reshape(64, 64) for part in parts], axis=1)
        tensors[f"{peer}.self_attn.in_proj_weight"] = kernel.T
        bias = np.concatenate([part["bias"].reshape(64) for part in parts])
        tensors[f"{peer}.self_attn.in_proj_bias"] = bias
        out = {"kernel": attention["out"]["kernel"].reshape(64, 64)}
        tensors |= dense(f"{peer}.self_attn.out_proj", out | {"bias": attention["out"]["bias"]})
        for part in ("1", "2"):
            tensors |= dense(f"{peer}.linear{part}", block[f"mlp{part}"])
            tensors |= norm(f"{peer}.norm{part}", block[f"norm{part}"])
    return tensors


def tensors_of(problem, params):
    """Our parameters under the peer's names, in PyTorch's order of axes."""
    backbones = {"mlp": mlp_tensors, "resnet8": resnet_tensors, "small_vit": vit_tensors}
    params = jax.tree.map(np.asarray, params)
    arrays = backbones[problem.network.label](params) | dense("classifier", params["classifier"])
    return {name: torch.tensor(np.ascontiguousarray(array)) for name, array in arrays.items()}


def peers_network(problem):
    if problem.network.label == "resnet8":
        return torch_steps.PeerNetwork(torch_steps.cifar_resnet(1), 64, 10)
    return torch_steps.create_network(problem.network.label, 10, problem.images.shape[1])


def our_step(problem, stage):
    """Returns our parameters before and after a step, and its loss."""
    counts = problem.class_counts
    model = problem.network.build(len(counts), problem.image_shape)
    phase = len(stage.method.phases(stage.clock(sum(counts))))
    optimizer = stage.build_optimizer(counts, phase=phase)
    step = make_train_step(model, optimizer, stage.build_loss(counts), len(counts))
    state = make_state_fn(model, optimizer, problem.image_shape)(0)
    images, labels = jnp.asarray(problem.images), jnp.asarray(problem.labels)
    after, loss = jax.jit(step)(state, images, labels)
    return state.params, after.params, loss


def peers_step(problem, stage, tensors=None):
    """Returns the peer after a step from our parameters, or its own, and the step's loss."""
    torch.manual_seed(0)
    network = peers_network(problem)
    if tensors is not None:
        missing = network.load_state_dict(tensors, strict=False).missing_keys
        assert not set(missing) & {name for name, _ in network.named_parameters()}
    trainer = Trainer(network, problem, stage)
    images = torch.from_numpy(problem.images).permute(0, 3, 1, 2)
    loss = trainer.step(images, torch.from_numpy(problem.labels).long())
    return network, loss


# Every method on the quickest network, and each other network with a step of several passes.
@pytest.mark.parametrize(
    ("model", "case"),
    [
        *(("mlp", case) for case in WITH_PEER),
        ("resnet8", "sam"),
        ("resnet8", "imb_sam"),
        ("small_vit", "sse_sam_stage1"),
    ],
)
def test_one_step_from_the_same_weights(model, case):
    problem = problem_of(model)
    assert_same_step(problem, problem.stage(case))


def test_cc_sams_radius_where_no_bound_hides_it():
    problem = problem_of("mlp")
    stage = problem.stage("cc_sam")
    unbounded = {"max_relative_radius": None, "radius_scale": 0.1, "flat_ratio": 1.0}
    assert_same_step(problem, stage.replace(method=stage.method.replace(**unbounded)))


def assert_same_step(problem, stage):
    before, after, expected_loss = our_step(problem, stage)
    network, loss = peers_step(problem, stage, tensors_of(problem, before))
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)
    state = network.state_dict()
    for name, tensor in tensors_of(problem, after).items():
        np.testing.assert_allclose(state[name], tensor, atol=1e-5, rtol=1e-4, err_msg=name)


def test_methods_differ_by_more_than_that_tolerance():
    problem = problem_of("mlp")
    after = {}
    for case in WITH_PEER:
        network, _ = peers_step(problem, problem.stage(case))
        after[case] = torch.cat([parameter.flatten() for parameter in network.parameters()])
    del after["sse_sam_stage2"]  # the same function as ImbSAM
    for first, second in itertools.combinations(after.values(), 2):
        assert (first - second).abs().max() > 4e-4


def test_resnet32_has_as_many_parameters_as_ours():
    own = jax.eval_shape(
        lambda: (
            Small(architecture="resnet32")
            .build(100, (32, 32, 3))
            .init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
        )
    )
    peer = torch_steps.create_network("resnet32", num_classes=100, image_size=32)
    number = sum(parameter.numel() for parameter in peer.parameters())
    # 464,154 with 10 classes, as published.
    assert number == optax.tree.size(own["params"]) == 464154 + 90 * (64 + 1)


@pytest.mark.parametrize("tail_share", [0.0, 1.0])
@pytest.mark.parametrize("case", ["imb_sam", "sse_sam_stage1"])
@pytest.mark.parametrize("model", ["resnet8", "small_vit"])
def test_a_group_without_image(model, case, tail_share):
    problem = problem_of(model, tail_share=tail_share)
    network, loss = peers_step(problem, problem.stage(case))
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_running_statistics_are_those_of_the_clean_pass():
    problem = problem_of("resnet8")
    stages = problem.stage("sgd"), problem.stage("sam")
    networks = [peers_step(problem, stage)[0] for stage in stages]
    sgd, sam = (network.state_dict()["features.1.running_mean"] for network in networks)
    torch.testing.assert_close(sam, sgd, rtol=0, atol=0)


def test_bfloat16_rounds_the_backbone_alone():
    problem = problem_of("mlp")
    network = problem.network.replace(precision="bfloat16")
    short = dataclasses.replace(problem, network=network)
    (_, loss), (_, rounded) = (peers_step(p, p.stage("sam")) for p in (problem, short))
    assert loss != rounded
    assert loss == pytest.approx(float(rounded), rel=1e-2)


def test_cases_without_a_peer_are_left_out():
    steps = build_steps(problem_of("mlp"), ("sgd", "cc_sam_all"))
    assert list(steps) == ["sgd"]
    steps["sgd"]()


def test_a_network_without_a_peer():
    with pytest.raises(UsageError, match=r"network must be .* got small_conv"):
        torch_steps.create_network("small_conv", 10, 8)
