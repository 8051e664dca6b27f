"""Fine-tuned vision towers through the program: what trains, what is kept, how the head begins."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from clip_snapshots import write_golden_snapshot, write_speaking_snapshot
from flax.traverse_util import flatten_dict
from jpeg_trees import write_tree
from lanes import soak_but
from small_runs import run_program

from experiments import clip_lt
from experiments.parsing import chosen_part
from jaxlt import UsageError
from jaxlt.evaluation import Predictor
from jaxlt.models.clip.image_encoders import RANDOM
from jaxlt.models.clip.model import ClipModel
from jaxlt.models.clip.prompts import PromptTokenizer
from jaxlt.models.clip.snapshot import load_clip
from jaxlt.recipes.built_recipe import BuiltRecipe, Member, train_members
from jaxlt.recipes.data import Data, Exponential, Native
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM
from jaxlt.recipes.named import RECIPES, vary
from jaxlt.recipes.network import Adaptation, Clip, CosineLayer, RandomEncoder, Small
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import UNMEASURED, Recipe
from jaxlt.recipes.sources import AnySource, Digits
from jaxlt.runs.differences import differences
from jaxlt.training import train
from jaxlt.training.loop.together import bytes_needed

_FASHION = RECIPES["sgd_tiny_fashion"]
TINY = vary(
    _FASHION,
    source=Digits(),
    image_size=None,
    profile=Exponential(imbalance_factor=10.0),
    evaluation=_FASHION.evaluation.replace(epochs=1),
    epochs=2,
    batch_size=64,
)
TOGETHER = dataclasses.replace(UNMEASURED, ensemble="together")


def with_network(**fields):
    return vary(TINY, network=TINY.network.replace(**fields))


def with_snapshot(path, **fields):
    assert isinstance(TINY.network, RandomEncoder)
    network = Clip(
        snapshot=str(path),
        adaptation=TINY.network.adaptation,
        classifier=TINY.network.classifier,
        classifier_init="class_mean",
    )
    return vary(TINY, network=network, **fields)


@pytest.fixture(autouse=True, scope="module")
def two_blocks():
    """Half of the tiny tower compiles in half the time."""
    with pytest.MonkeyPatch.context() as patch:
        half = dataclasses.replace(RANDOM["tiny"], num_hidden_layers=2)
        patch.setitem(RANDOM, "tiny", half)
        yield


METHODS = SGD(), SAM(), ImbSAM(), SSESAM(), FocalSAM(), CCSAM()


def trained(directory, recipe=TINY):
    built, member = BuiltRecipe(recipe, TOGETHER), Member(0, directory)
    return built, train(built.job(member), built.workdir(member))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    experiment, state = trained(directory)
    (result,) = train_members(experiment, [Member(0, directory)], label="run")
    return directory, experiment, state, result


class TestWhatTrains:
    @pytest.mark.parametrize("method", soak_but([FocalSAM()], METHODS), ids=part_name)
    def test_only_the_adaptation_moves(self, tmp_path, method):
        experiment, state = trained(tmp_path, vary(TINY, method=method, epochs=1))
        initial = experiment.job(Member(0, tmp_path)).initial_state
        jax.tree.map(np.testing.assert_array_equal, state.frozen, initial.frozen)
        paths = set(flatten_dict(state.params))
        assert {path for path in paths if "adaptformer" not in path} == {("classifier", "kernel")}
        moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, initial.params)
        assert all(jax.tree.leaves(moved))

    def test_the_optimizer_knows_nothing_of_the_rest(self, run):
        _, _, state, _ = run
        shapes = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.shape]
        assert sorted(shapes) == sorted(
            leaf.shape for leaf in jax.tree.leaves(state.params) if leaf.shape
        )

    def test_checkpoints_hold_what_trained_and_name_the_rest(self, run):
        directory, _, state, _ = run
        newest = max(directory.glob("checkpoints/[0-9]*"), key=lambda path: int(path.name))
        with ocp.PyTreeCheckpointer() as checkpointer:
            saved = checkpointer.restore((newest / "state").absolute())
        assert set(flatten_dict(saved["params"])) == set(flatten_dict(state.params))
        assert not saved.get("frozen")
        record = json.loads((newest / "record" / "metadata").read_text())
        assert len(record["frozen"]) == 32

    def test_resumed_from_any_checkpoint_it_ends_with_the_same_bits(self, run, tmp_path):
        directory, _, state, result = run
        shutil.copytree(directory, tmp_path / "again")
        steps = sorted(int(path.name) for path in directory.glob("checkpoints/[0-9]*"))
        assert len(steps) == 2
        shutil.rmtree(tmp_path / "again" / "checkpoints" / str(steps[-1]))
        (tmp_path / "again" / "result.json").unlink()
        _, resumed = trained(tmp_path / "again")
        for field in ("step", "params", "opt_state", "frozen"):
            same = getattr(resumed, field), getattr(state, field)
            jax.tree.map(np.testing.assert_array_equal, *same)
        again = json.loads((tmp_path / "again" / "result.json").read_text())
        assert again["per_class"] == result["per_class"]

    def test_another_base_is_refused(self, run, tmp_path, monkeypatch):
        directory, experiment, _, _ = run
        shutil.copytree(directory, tmp_path / "again")
        (tmp_path / "again" / "result.json").unlink()
        member = Member(0, tmp_path / "again")
        job = experiment.job(member)
        other = jax.tree.map(lambda leaf: leaf + 1, job.initial_state.frozen)
        changed = dataclasses.replace(job.initial_state, frozen=other)
        with pytest.raises(UsageError, match=r"network must be the one .* with digest .*, got "):
            train(
                dataclasses.replace(job, initial_state=changed),
                experiment.workdir(member),
            )

    @pytest.mark.soak
    def test_a_step_takes_less_memory_than_in_full(self):
        def memory(adaptation):
            recipe = with_network(adaptation=Adaptation(kinds=(adaptation,)))
            job = BuiltRecipe(recipe).job(Member(0, None))
            frozen = sum(leaf.nbytes for leaf in jax.tree.leaves(job.initial_state.frozen))
            return bytes_needed(job), frozen

        (full, none), (adapted, frozen) = memory("full"), memory("adaptformer")
        assert none == 0
        # No gradient, no momentum, and of dense layers no inputs to keep.
        assert full - adapted > 2 * frozen

    @pytest.mark.soak
    def test_members_together_are_what_each_is_alone(self, run, tmp_path):
        _, experiment, _, result = run
        members = [Member(seed, tmp_path / str(seed)) for seed in (0, 1)]
        both = train_members(experiment, members, label="both")
        np.testing.assert_allclose(both[0]["test_loss"], result["test_loss"], rtol=1e-4)
        assert both[0]["test_loss"] != both[1]["test_loss"]

    @pytest.mark.soak
    def test_micro_batches_give_the_batchs_steps(self, run, tmp_path):
        recipe = with_network(micro_batch=24)  # 24, 24 and 16 images
        _, state = trained(tmp_path, recipe)
        expected = run[2].params
        assert any(
            jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), state.params, expected))
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), state.params, expected
        )


def louder(tensors):
    tensors["logit_scale"] = np.array(tensors["logit_scale"] + 1)


class TestPrediction:
    def test_gives_the_evaluations_accuracy(self, run):
        directory, experiment, _, result = run
        images = experiment.source.test
        numbers = np.arange(len(images.labels))
        logits = Predictor.load(directory).logits(images.load(numbers))
        assert (logits.argmax(1) == images.labels).mean() == pytest.approx(result["accuracy"])

    def test_needs_the_base_that_it_was_trained_on(self, tmp_path):
        snapshot = write_golden_snapshot(tmp_path / "snapshot")
        recipe = with_snapshot(snapshot, image_size=16, epochs=1)
        trained(tmp_path / "run", recipe)
        Predictor.load(tmp_path / "run")

        write_golden_snapshot(snapshot, tensors=louder)
        with pytest.raises(UsageError, match="must be the one that the run was trained on"):
            Predictor.load(tmp_path / "run")


def test_a_run_is_known_by_the_snapshots_contents(tmp_path):
    for name in ("here", "there"):
        write_golden_snapshot(tmp_path / name)
    here, there = (with_snapshot(tmp_path / name).identity() for name in ("here", "there"))
    assert here["contents"] == there["contents"]
    assert here["contents"]["snapshot"].startswith("sha256:")
    # Where the snapshot lies is written and not compared.
    assert not differences([here, there])
    write_golden_snapshot(tmp_path / "there", tensors=louder)
    assert differences([here, with_snapshot(tmp_path / "there").identity()])


def test_ensembling_is_the_mean_over_five_crops(run):
    _, _, state, _ = run
    ensembling = TINY.evaluation.replace(test_time_augmentation=4)
    experiment = BuiltRecipe(TINY.replace(evaluation=ensembling))
    built = experiment.stages[0]
    (batch, *_) = experiment._feed.evaluated()
    crops = np.asarray(batch.images)
    assert crops.shape[1:] == (40, 8, 1)
    logits = experiment._logits(built, state, jnp.asarray(crops))
    expected = np.mean(
        [built.logits(state, crops[:, start : start + 8]) for start in range(0, 40, 8)], axis=0
    )
    np.testing.assert_allclose(logits, expected, atol=1e-5)


class TestHead:
    def _tree(self, path):
        return write_tree(path, "inaturalist", (6, 4, 3))

    def _recipe(self, tmp_path, dataset, **fields):
        snapshot = write_speaking_snapshot(tmp_path / "snapshot")
        return Recipe(
            data=Data(
                source=chosen_part("source", AnySource, None, [dataset]),
                profile=Native(),
                image_size=32,
            ),
            network=Clip(
                snapshot=str(snapshot),
                adaptation=Adaptation(kinds=("adaptformer",)),
                classifier=CosineLayer(),
                **{"classifier_init": "text", **fields},
            ),
        )

    def _kernel(self, recipe):
        experiment = BuiltRecipe(recipe)
        weights = recipe.network.initial_weights(experiment.source, experiment._feed)
        return experiment, weights["params"]["classifier"]["kernel"]

    def _column(self, recipe, text):
        """What the text tower makes of one text, by itself."""
        snapshot = load_clip(recipe.network.snapshot, image_size=32)
        tokens = PromptTokenizer(snapshot.directory, snapshot.config.text)([text])
        clip = ClipModel(snapshot.config)
        (feature,) = np.asarray(
            clip.apply({"params": snapshot.params}, tokens, method="text_embeddings")
        )
        column = snapshot.params["visual_projection"]["kernel"] @ (
            feature / np.linalg.norm(feature)
        )
        return column / np.linalg.norm(column)

    @pytest.mark.parametrize("form", soak_but({"lines"}, ["categories", "lines"]))
    def test_rows_are_of_the_names_of_their_classes(self, tmp_path, form):
        """iNaturalist's labels are numbers of categories, whose names are in another order."""
        tree = self._tree(tmp_path / "tree")
        file = tmp_path / ("names.json" if form == "categories" else "names.txt")
        recipe = self._recipe(tmp_path, tree.spec, class_names=str(file))
        without = self._recipe(tmp_path, tree.spec, classifier_init="random")
        numbers = BuiltRecipe(without).source.class_names
        # Sorted by name, class 2 would be the first.
        names = dict(zip(numbers, ("tapir", "ocelot", "cat"), strict=True))
        entries = [{"name": name, "id": int(key)} for key, name in names.items()][::-1]
        if form == "categories":
            file.write_text(json.dumps({"categories": entries}))
        else:
            file.write_text("".join(f"{e['id']} {e['name']}\n" for e in entries))
        _, kernel = self._kernel(recipe)
        for label, number in enumerate(numbers):
            expected = self._column(recipe, f"a photo of a {names[number]}.")
            np.testing.assert_allclose(kernel[:, label], expected, atol=1e-5)

    def test_numbers_without_names_are_refused(self, tmp_path):
        tree = self._tree(tmp_path / "tree")
        with pytest.raises(UsageError, match="class_names must be a file that says what classes"):
            BuiltRecipe(self._recipe(tmp_path, tree.spec))

    def test_class_means_are_of_the_untouched_tower(self, run):
        _, experiment, _, _ = run
        weights = TINY.network.initial_weights(experiment.source, experiment._feed)
        kernel = weights["params"]["classifier"]
        np.testing.assert_allclose(np.linalg.norm(kernel["kernel"], axis=0), 1, atol=1e-5)
        images, split = experiment.source.train, experiment.split
        rows = split.indices[images.labels[split.indices] == 3]
        adaptation = Adaptation(kinds=("linear_probe",))
        plain = BuiltRecipe(with_network(adaptation=adaptation, classifier_init="random"))
        state = plain.job(Member(0, None)).initial_state
        mean, std = np.array(experiment.source.mean), np.array(experiment.source.std)
        pixels = (images.load(rows) / 255 - mean) / std
        features = plain.stages[0].model.apply(
            state.variables(), pixels.astype(np.float32), train=False, method="features"
        )
        expected = np.asarray(features).mean(0)
        expected /= np.linalg.norm(expected)
        np.testing.assert_allclose(kernel["kernel"][:, 3], expected, atol=1e-4)


FLAGS = (
    *(
        "--recipe",
        "focal_sam_tiny_fashion",
        "--data.source",
        "digits",
        "--data.profile.imbalance-factor",
        "10",
    ),
    *(
        "--data.profile.max-per-class",
        "none",
        "--data.profile.class-order",
        "none",
        "--data.image-size",
        "none",
        "--epochs",
        "1",
    ),
)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            ("--network", "random:huge"),
            "--network.size must be one of tiny, vit_b32, vit_b16, vit_l14, got huge",
        ),
        (("--network", "clip:nowhere/at all"), "nowhere/at all must be a directory, or a name"),
        (
            ("--network", "mlp", "--network.adaptation.kinds", "lora"),
            "got --network.adaptation.kinds",
        ),
        (("--data.image-size", "9"), "squares whose side is a multiple of 4"),
        (("--network.adaptation.kinds", "full", "lora"), "adaptation must be full alone"),
        (
            ("--network.adaptation.kinds", "partial", "--network.adaptation.last-blocks", "9"),
            "at most the network's 2 blocks",
        ),
        (
            ("--network.classifier-init", "text"),
            "network must be clip:SNAPSHOT for classifier_init text, got",
        ),
        (
            ("--loss", "ldam"),
            "network.classifier.scale must be 1 with a loss with a scale, got 25.0",
        ),
        (
            ("--network.classifier", "linear", "--network.classifier.scale", "2"),
            "--network.classifier linear: it is of cosine",
        ),
        (
            ("--network.class-names", "names.txt"),
            "class_names must be none without classifier_init text",
        ),
        (("--network.prompt", "a photo"), "prompt must be ensemble or a text with one {}"),
        (
            ("--network.micro-batch", "0"),
            "--network.micro-batch must be an integer of at least 1, or none, got 0",
        ),
        (
            ("--evaluation.test-time-augmentation", "-1"),
            "--evaluation.test-time-augmentation must be an integer of at least 0, or none, got -1",
        ),
        (
            ("--trainable", "classifier"),
            "trainable must be all, see network.adaptation, got classifier",
        ),
    ],
)
def test_mistakes_end_in_one_line(monkeypatch, capsys, tmp_path, flags, expected):
    workdir = tmp_path / "run"
    status, _, lines = run_program(
        monkeypatch, capsys, clip_lt, *FLAGS, *flags, "--workdir", workdir
    )
    assert (status, len(lines)) == (2, 1)
    assert expected in lines[0]
    assert not workdir.exists()


def test_micro_batches_need_images_that_do_not_depend_on_each_other(tmp_path):
    network = Small(architecture="resnet20", micro_batch=8)
    with pytest.raises(UsageError, match=r"network\.micro_batch must be none for resnet20.*got 8"):
        BuiltRecipe(RECIPES["sgd_digits"].replace(network=network))


def test_the_program_trains_without_weights(monkeypatch, capsys, tmp_path):
    flags = (
        "--network",
        "random:tiny",
        "--network.classifier-init",
        "class_mean",
        "--data.source",
        "digits",
    )
    small = ("--data.image-size", "8", "--data.normalization", "dataset", "--epochs", "1")
    status, _, lines = run_program(
        monkeypatch, capsys, clip_lt, *flags, *small, "--workdir", tmp_path / "run"
    )
    assert status == 0
    assert any("frozen parameters" in line for line in lines)
