"""`python3 tests/golden/remake.py CLONES`: runs the programs that made the golden numbers again.

CLONES holds clones of SSE-SAM, Focal-SAM and CC-SAM; README.md beside this file says of which
commits, and what must be installed. Inputs and first parameters are those of the files. What is
printed is how far each new file lies from the one kept; `--write DIRECTORY` keeps the new ones.
"""

# What makes golden numbers is not installed with the tests.
# pyright: reportMissingImports=false

import argparse
import ast
import contextlib
import copy
import io
import json
import shutil
import tempfile
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

GOLDEN = Path(__file__).parent
MODELS = GOLDEN / "models"
INDEX = json.loads((GOLDEN / "mlp_index.json").read_text())
TAIL_BELOW = 20
Arrays = dict[str, np.ndarray]


def taken(file: Path, *names: str, **given: Any) -> Any:
    """Takes functions and classes out of an authors' file, which imports and runs more than these.

    Args:
        file: theirs.
        names: of what is taken.
        given: what these read beside torch and NumPy.
    """
    tree = ast.parse(file.read_text())
    tree.body = [node for node in tree.body if getattr(node, "name", None) in names]
    known = {"torch": torch, "nn": nn, "F": functional, "np": np, "init": nn.init}
    known |= {"Parameter": nn.Parameter, "defaultdict": defaultdict, "deepcopy": copy.deepcopy}
    space = {**known, **given}
    exec(compile(tree, str(file), "exec"), space)
    return types.SimpleNamespace(**{name: space[name] for name in names})


@contextlib.contextmanager
def in_float64():
    """The authors' programs on a CPU, in float64 also where they name the type of a GPU."""
    moved = {nn.Module: nn.Module.cuda, torch.Tensor: torch.Tensor.cuda}
    named = torch.cuda.FloatTensor
    for kind in moved:
        kind.cuda = lambda self, *_: self
    torch.cuda.FloatTensor = torch.DoubleTensor
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        for kind, cuda in moved.items():
            kind.cuda = cuda
        torch.cuda.FloatTensor = named
        torch.set_default_dtype(torch.float32)


# Trajectories: four steps of a small network.


class Network(nn.Module):
    """`logits = tanh(x @ dense1 + bias) @ classifier + bias`, from the parameters of the files."""

    def __init__(self, first: Arrays):
        super().__init__()
        self.dense1 = nn.Linear(*first["dense1.kernel"].shape)
        self.classifier = nn.Linear(*first["classifier.kernel"].shape)
        self.load_state_dict(
            {name.replace("kernel", "weight"): torch.tensor(w.T) for name, w in first.items()}
        )

    def features(self, x):
        return torch.tanh(self.dense1(x))

    def forward(self, x):
        return self.classifier(self.features(x))

    def arrays(self) -> Arrays:
        return {
            name.replace("weight", "kernel"): w.numpy().T.copy()
            for name, w in self.state_dict().items()
        }


class Problem(NamedTuple):
    network: Network
    sgd: torch.optim.Optimizer
    base: dict[str, float]
    counts: list[int]
    tail: torch.Tensor


def losses_of(logits, labels):
    return functional.cross_entropy(logits, labels, reduction="none")


def sgd(problem, clones):
    def step(x, y):
        problem.sgd.zero_grad()
        losses_of(problem.network(x), y).mean().backward()
        problem.sgd.step()

    return step


def by_sse_sam(problem, clones, mode, name, *radii):
    """A step of the authors' training with one of their optimizers."""
    optimizer = getattr(taken(clones / "SSE-SAM" / "ssesam.py", name), name)
    optimizer = optimizer(problem.sgd, problem.network, *radii)
    released = taken(clones / "SSE-SAM" / "utils" / "trainval.py", "forbackward")

    def step(x, y):
        loss = losses_of(problem.network(x), y)
        arguments = (problem.network, losses_of, optimizer, mode, problem.tail, x, y, loss)
        released.forbackward(*arguments)

    return step


def sam(problem, clones, rho):
    return by_sse_sam(problem, clones, "sam", "SAM", rho)


def asam(problem, clones, rho):
    released = taken(clones / "Focal-SAM" / "sam.py", "SAM")
    optimizer = released.SAM(
        problem.network.parameters(), torch.optim.SGD, rho=rho, adaptive=True, **problem.base
    )

    def step(x, y):
        for part in (optimizer.first_step, optimizer.second_step):
            optimizer.zero_grad()
            losses_of(problem.network(x), y).mean().backward()
            part()

    return step


def imb_sam(problem, clones, rho, tail_threshold, group_mean=False):
    """As released, or with losses over the batch's size, as a comment in `forbackward` has it."""
    if group_mean:
        return by_sse_sam(problem, clones, "imbsam", "ImbSAM", rho)
    optimizer = taken(clones / "SSE-SAM" / "ssesam.py", "ImbSAM").ImbSAM
    optimizer = optimizer(problem.sgd, problem.network, rho)

    def step(x, y):
        is_tail = torch.isin(y, problem.tail)
        for images, part in (
            (~is_tail, optimizer.first_step),
            (is_tail, optimizer.second_step),
            (is_tail, optimizer.third_step),
        ):
            (losses_of(problem.network(x), y)[images].sum() / len(y)).backward()
            part()

    return step


def sse_sam(problem, clones, head_rho, tail_rho, tail_threshold):
    return by_sse_sam(problem, clones, "ssesam", "SSESAM", head_rho, tail_rho)


def focal_sam(problem, clones, rho, gamma, sharpness):
    optimizer = taken(clones / "Focal-SAM" / "focal_sam.py", "FocalSAM").FocalSAM
    optimizer = optimizer(problem.network.parameters(), torch.optim.SGD, rho=rho, **problem.base)
    released = taken(clones / "Focal-SAM" / "train_step.py", "focal_sam_step")
    flags = types.SimpleNamespace(prec="fp32", flat_gamma=gamma, sharpness=sharpness)

    def step(x, y):
        released.focal_sam_step(flags, problem.network, losses_of, x, y, optimizer, problem.counts)

    return step


def cc_sam(problem, clones, radius_scale, flat_ratio):
    """An epoch of one batch of the authors' training, without mixup."""
    flags = {"mixup": False, "noise_ratio": radius_scale, "flat_ratio": flat_ratio}
    parts = taken(clones / "CC-SAM" / "utils" / "utils.py", "Averager", "param_count")
    parts.grad_norm = taken(clones / "CC-SAM" / "utils" / "pytorch.py", "grad_norm").grad_norm
    parts.cfg = {"train": flags, "print_inteval": 1}
    released = taken(clones / "CC-SAM" / "train_cifar.py", "train", **vars(parts))

    class Wrapped(nn.Module):
        """Their networks give features too, and lie in a `DataParallel`."""

        def __init__(self):
            super().__init__()
            self.module = problem.network

        def forward(self, x):
            return problem.network.features(x), None, problem.network(x)

    model, logger = Wrapped(), types.SimpleNamespace(info=lambda line: None)

    def step(x, y):
        with contextlib.redirect_stdout(io.StringIO()):
            released.train(0, [(x, y, None)], model, problem.sgd, logger, problem.counts, None)

    return step


def cc_sam_paper(problem, clones, radius_scale, flat_ratio, scope):
    """Equations 7 to 11 of the paper, read literally: one norm over all perturbed parameters."""
    network = problem.network
    moved = list((network if scope == "all" else network.classifier).parameters())
    size = sum(w.numel() for w in moved)

    def norm(tensors):
        return torch.sqrt(sum((w**2).sum() for w in tensors))

    def step(x, y):
        problem.sgd.zero_grad()
        ((1 - flat_ratio) * losses_of(network(x), y).mean()).backward()
        for label in y.unique().tolist():
            of_class = y == label
            gradient = torch.autograd.grad(losses_of(network(x), y)[of_class].mean(), moved)
            rho = torch.sqrt(norm(moved) / (2 * norm(gradient)))
            rho = radius_scale * rho * (size * (problem.counts[label] - 1)) ** -0.25
            eps = [size**0.5 * rho * g / norm(gradient) for g in gradient]
            with torch.no_grad():
                for w, e in zip(moved, eps, strict=True):
                    w += e
            (flat_ratio * losses_of(network(x), y)[of_class].sum() / len(y)).backward()
            with torch.no_grad():
                for w, e in zip(moved, eps, strict=True):
                    w -= e
        problem.sgd.step()

    return step


METHODS = {
    "sgd": sgd,
    "sam": sam,
    "asam": asam,
    "imb_sam": imb_sam,
    "sse_sam": sse_sam,
    "focal_sam": focal_sam,
    "cc_sam": cc_sam,
    "cc_sam_paper": cc_sam_paper,
}


def trajectory(name: str, clones: Path) -> Arrays:
    """Parameters before the first and after each step."""
    data = np.load(GOLDEN / "mlp_problem.npz")
    network = Network({key: w[0] for key, w in np.load(GOLDEN / "mlp_sgd.npz").items()})
    base, counts = INDEX[name]["base_optimizer"], data["class_counts"].tolist()
    tail = torch.tensor([label for label, n in enumerate(counts) if n < TAIL_BELOW])
    problem = Problem(network, torch.optim.SGD(network.parameters(), **base), base, counts, tail)
    step = METHODS[INDEX[name]["method"]](problem, clones, **INDEX[name]["hyperparameters"])
    passed = [network.arrays()]
    for x, y in zip(data["x"], data["y"], strict=True):
        step(torch.tensor(x), torch.tensor(y))
        passed.append(network.arrays())
    return {key: np.stack([one[key] for one in passed]) for key in passed[0]}


# Losses.


def class_balanced(counts: list[int], beta: float) -> torch.Tensor:
    """Weights of `cifar_train_sam.py`'s rule DRW, which a long function there holds."""
    effective = 1.0 - np.power(beta, counts)
    weights = (1.0 - beta) / effective
    return torch.tensor(weights / weights.sum() * len(counts))


def losses(clones: Path) -> Arrays:
    """Losses of each image, and gradients of their sum."""
    kept = np.load(GOLDEN / "losses.npz")
    labels, counts = torch.tensor(kept["labels"]), kept["class_counts"].tolist()
    file = clones / "Focal-SAM" / "losses.py"
    released = taken(file, "focal_loss", "FocalLoss", "LDAMLoss", "VSLoss", "LALoss")
    focal = released.FocalLoss(gamma=2.0)
    weights, each = class_balanced(counts, 0.9999), {"reduction": "none"}
    made = {name: kept[name] for name in ("logits", "labels", "class_counts")}
    made["class_balanced_weights_beta0.9999"] = weights.numpy()
    for name, loss in {
        "cross_entropy": nn.CrossEntropyLoss(**each),
        # Theirs is a mean, here of one image at a time.
        "focal_gamma2": lambda x, y: torch.stack(
            [focal(x[i : i + 1], y[i : i + 1]) for i in range(len(y))]
        ),
        "ldam_m0.5_s30": released.LDAMLoss(counts, 0.5, None, 30, **each),
        "ldam_m0.5_s30_weighted": released.LDAMLoss(counts, 0.5, weights, 30, **each),
        "vector_scaling_gamma0.05_tau0.75": released.VSLoss(counts, 0.05, 0.75, **each),
        "vector_scaling_gamma0.3_tau1": released.VSLoss(counts, 0.3, 1.0, **each),
        "logit_adjusted_tau1": released.LALoss(counts, **each),
    }.items():
        logits = torch.tensor(kept["logits"], requires_grad=True)
        value = loss(logits, labels)
        value.sum().backward()
        assert logits.grad is not None
        made |= {name: value.detach().numpy(), f"{name}.grad": logits.grad.numpy()}
    return made


# Networks, from the weights of the files, in float32.


def cifar_resnet8(name: str, clones: Path) -> Arrays:
    names = ("_weights_init", "NormedLinear", "LambdaLayer", "BasicBlock", "ResNet_s")
    released = taken(clones / "Focal-SAM" / "models" / "resnet_cifar.py", *names)
    network = released.ResNet_s(released.BasicBlock, [1, 1, 1], use_norm=name.endswith("normed"))
    network, images = with_weights(network, name), given(name, "images_nhwc")
    with torch.no_grad():
        return {
            "logits_eval": network.eval()(images).numpy(),
            "logits_train_mode": network.train()(images).numpy(),
        }


def resnet(name: str, clones: Path) -> Arrays:
    from torchvision.models.resnet import Bottleneck, ResNet

    class Narrow(ResNet):
        """Its layers are as wide as the stem, which torchvision makes 64."""

        def _make_layer(self, block, planes, *arguments, **options):
            if planes == 64:
                self.inplanes = 8
            return super()._make_layer(block, planes // 8, *arguments, **options)

    options: dict[str, Any] = {"layers": [1, 2, 1, 1]}
    if name.startswith("resnext"):
        options = {"layers": [1, 1, 2, 1], "groups": 4, "width_per_group": 32}
    network = Narrow(Bottleneck, num_classes=7, **options)
    network.conv1, network.bn1 = nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8)
    network.fc = nn.Linear(256, 7)
    network, seen = with_weights(network, name).eval(), []
    network.fc.register_forward_pre_hook(lambda layer, features: seen.append(*features))
    with torch.no_grad():
        logits = network(given(name, "images_nhwc"))
    return {"features": seen[0].numpy(), "logits": logits.numpy()}


def clip(name: str, clones: Path) -> Arrays:
    from transformers import CLIPModel

    network = snapshot(CLIPModel, name)
    texts = torch.tensor(np.load(MODELS / "clip_io.npz")["input_ids"])
    with torch.no_grad():
        seen = network.vision_model(given(name, "pixel_values_nhwc"))
        words = network.text_model(texts)
        return {
            "last_hidden_state": seen.last_hidden_state.numpy(),
            "class_token_after_post_layernorm": seen.pooler_output.numpy(),
            "image_embeds": network.visual_projection(seen.pooler_output).numpy(),
            "text_embeds": network.text_projection(words.pooler_output).numpy(),
        }


def dinov2(name: str, clones: Path) -> Arrays:
    from transformers import Dinov2Model

    network = snapshot(Dinov2Model, name)
    with torch.no_grad():
        return {
            f"last_hidden_state_{side}": network(
                given(name, f"pixel_values_nhwc_{side}")
            ).last_hidden_state.numpy()
            for side in (12, 20)
        }


def with_weights(network: nn.Module, name: str) -> Any:
    tensors = safetensors.torch.load_file(MODELS / f"{name}.safetensors")
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    assert not unexpected, unexpected
    return network


def snapshot(kind: Any, name: str) -> Any:
    """A network of Hugging Face's, by its own loader, which knows the names of older versions."""
    with tempfile.TemporaryDirectory() as directory:
        for file, kept in {
            "config.json": "_config.json",
            "model.safetensors": ".safetensors",
        }.items():
            shutil.copy(MODELS / f"{name}{kept}", Path(directory) / file)
        return kind.from_pretrained(directory).eval()


def given(name: str, key: str) -> torch.Tensor:
    """The images of a file, channels first."""
    return torch.tensor(np.load(MODELS / f"{name}_io.npz")[key]).permute(0, 3, 1, 2)


NETWORKS = {
    "cifar_resnet8": cifar_resnet8,
    "cifar_resnet8_normed": cifar_resnet8,
    "resnet_bottleneck": resnet,
    "resnext_bottleneck": resnet,
    "clip": clip,
    "dinov2": dinov2,
}


def made_again(clones: Path) -> Iterator[tuple[str, Arrays]]:
    """Yields each file's name and what is in it, but for inputs of networks."""
    with in_float64():
        for name in INDEX:
            yield f"mlp_{name}.npz", trajectory(name, clones)
        yield "losses.npz", losses(clones)
    for name, run in NETWORKS.items():
        yield f"models/{name}_io.npz", run(name, clones)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("clones", type=Path, metavar="CLONES")
    parser.add_argument("--write", type=Path, metavar="DIRECTORY")
    flags = parser.parse_args()
    for file, arrays in made_again(flags.clones):
        kept = dict(np.load(GOLDEN / file))
        gap = max(np.abs(arrays[name] - kept[name]).max() for name in arrays)
        print(f"{file:40} {gap:.1e}")
        if flags.write:
            path = flags.write / file
            path.parent.mkdir(parents=True, exist_ok=True)
            np.savez(path, **{**kept, **arrays})


if __name__ == "__main__":
    main()
