"""Flags from the fields of parts: what they choose, what they say, and what they refuse."""

import dataclasses
import sys
from pathlib import Path

import pytest

from experiments import cifar_lt, clip_lt, flags, flags_help, parsing, predict, recipe_program
from experiments.recipe_arguments import Arguments
from jaxlt import UsageError
from jaxlt.recipes.data import Balanced, Exponential
from jaxlt.recipes.in_words import need
from jaxlt.recipes.losses import LDAM, CrossEntropy, PaperAdversary
from jaxlt.recipes.methods import CCSAM, SAM, SGD, FocalSAM
from jaxlt.recipes.named import BENCHMARKS, RECIPES
from jaxlt.recipes.network import Clip, CosineLayer, ImageNetResNet, RandomEncoder, Small
from jaxlt.recipes.optimizer import MultiStep
from jaxlt.recipes.part import annotations
from jaxlt.recipes.policies import AutoAugment, RandAugment
from jaxlt.recipes.recorded import write_recipe
from jaxlt.recipes.sources import IDX, TFDS, Digits
from jaxlt.recipes.stage import NearestClassMean, Stage, TauNorm

ORDER = annotations(Exponential)["class_order"]


def parsed(*words, recipe="sgd_cifar10"):
    return parsing.parse(Arguments(recipe, options=RECIPES[recipe]), words)


def options(*words, **fields):
    return parsed(*words, **fields).options


def refusal(*words, **fields):
    with pytest.raises(UsageError) as caught:
        parsed(*words, **fields)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestHelp:
    def test_is_short_for_every_named_recipe(self):
        for benchmark, recipes in BENCHMARKS.items():
            for name, recipe in recipes.items():
                arguments = Arguments(name, options=recipe)
                text = flags_help.render(arguments, f"experiments.{benchmark}", "word " * 40)
                lines = text.splitlines()
                assert len(lines) <= 150, name
                assert max(map(len, lines)) <= 120, name

    @pytest.mark.parametrize("program", [cifar_lt, clip_lt])
    def test_begins_with_what_is_to_be_done_and_where(self, program, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["program", "--help"])
        with pytest.raises(SystemExit) as stop:
            program.main()
        assert stop.value.code == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 150
        names = [line.split()[0] for line in lines if line.startswith("  --")]
        assert names[:3] == ["--recipe", "--list", "--workdir"]

    def test_tells_of_every_flag_what_holds_and_what_it_may_be(self):
        arguments = Arguments("x", options=RECIPES["mislas_cifar10"])
        text = flags_help.render(arguments, "experiments.cifar_lt", "")
        flat = " ".join(text.split())
        for flag in flags.flags_of(arguments):
            assert f"--{flag.name} " in flat
        assert "Peak learning rate. [0.1]" in flat
        assert "sgd, sam, imb_sam, sse_sam, focal_sam, cc_sam," in flat
        assert "dataset, imagenet, inaturalist2018, clip, half. Mean" in flat
        assert "--then.0.sampler.consecutive [4]" in flat

    def test_is_of_the_parts_that_the_flags_choose(self, monkeypatch, capsys):
        words = ["--recipe", "sgd_digits", "--method", "focal_sam", "--then", "tau_norm", "--help"]
        monkeypatch.setattr(sys, "argv", ["program", *words])
        with pytest.raises(SystemExit):
            cifar_lt.main()
        text = capsys.readouterr().out
        assert "--method.sharpness-weight X" in text
        assert "--then.0.tau [0.5]" in text
        assert "[sgd_digits]" in text

    def test_tells_of_flags_that_a_program_inherits(self):
        @dataclasses.dataclass(frozen=True)
        class Shared:
            points: int = 3
            """Points on a line."""

        @dataclasses.dataclass(frozen=True)
        class Own(Shared):
            reach: float = 1.0
            """Ends of the line."""

        text = flags_help.render(Own(), "program", "")
        assert "Points on a line. [3]" in text
        assert "Ends of the line. [1.0]" in text

    def test_names_the_words_in_front_of_all_flags(self):
        usage, *lines = flags_help.render(predict.Arguments(), "experiments.predict", "").split(
            "\n"
        )
        assert usage == "usage: python3 -m experiments.predict RUN IMAGE... [flags]"
        assert any(line.startswith("  RUN IMAGE...  ") for line in lines)


class TestChoosingParts:
    def test_a_part_is_chosen_by_its_name_and_its_fields_follow(self):
        recipe = options("--method", "focal_sam", "--method.rho", "0.3", "--method.gamma=2")
        assert recipe.first.method == FocalSAM(rho=0.3, gamma=2.0)
        # Whatever the order.
        assert options("--method.rho", "0.3", "--method", "sam").first.method == SAM(rho=0.3)

    def test_the_part_that_is_there_keeps_its_numbers(self):
        own = RECIPES["focal_sam_cifar100"].first.method
        found = options("--method", "focal_sam", recipe="focal_sam_cifar100").first.method
        assert found == own != FocalSAM()
        assert options("--method.rho", "1", recipe="focal_sam_cifar100").first.method == (
            own.replace(rho=1.0)
        )
        # Of another part the fields that the two share a base for.
        other = options("--method", "sam", recipe="focal_sam_cifar100").first.method
        assert isinstance(own, FocalSAM)
        assert other == SAM(rho=own.rho)
        assert options("--loss", "ldam", recipe="vs_cifar10").first.loss == LDAM()

    def test_another_network_keeps_the_classifier(self):
        recipe = RECIPES["ldam_drw_cifar10"]
        assert recipe.network.classifier == CosineLayer()
        for words, network in (
            ("resnet20", Small(architecture="resnet20", classifier=CosineLayer())),
            ("resnet50", ImageNetResNet(architecture="resnet50", classifier=CosineLayer())),
            ("random:tiny", RandomEncoder(size="tiny", classifier=CosineLayer())),
            ("clip:some/where", Clip(snapshot="some/where", classifier=CosineLayer())),
        ):
            assert options("--network", words, recipe="ldam_drw_cifar10").network == network
        linear = options("--network", "resnet20", "--network.classifier", "linear")
        assert linear.network == Small(architecture="resnet20")

    def test_a_source_is_named_with_its_place(self):
        assert options("--data.source", "idx:DIR").data.source == IDX(directory="DIR")
        assert options("--data.source=tfds:a,b,c").data.source == TFDS(dataset="a,b,c")
        assert options("--data.source", "digits").data.source == Digits()
        with_field = options("--data.source", "idx:a", "--data.source.directory", "b")
        assert with_field.data.source == IDX(directory="b")

    def test_a_profile_keeps_what_all_but_native_have(self):
        order = ("--data.profile.class-order", *"9876543210")
        profile = options("--data.profile", "balanced", *order).data.profile
        assert profile == Balanced(class_order=tuple(range(10))[::-1])

    def test_parts_within_parts(self):
        optimizer = options(
            *("--optimizer.schedule", "multistep", "--optimizer.schedule.factors", "0.1", "0.01")
        ).first.optimizer
        assert optimizer.schedule == MultiStep(factors=(0.1, 0.01))
        policy = ("--augmentation.policy", "randaugment", "--augmentation.policy.ops", "3")
        assert options(*policy).first.augmentation.policy == RandAugment(ops=3)
        balms = RECIPES["balanced_softmax_cifar10_if200"]
        assert balms.first.augmentation.policy == AutoAugment()
        none = options("--augmentation.policy", "none", recipe="balanced_softmax_cifar10_if200")
        assert none.first.augmentation.policy is None

    def test_what_must_fit_together_may_be_changed_together(self):
        recipe = options("--adversary", "paper", "--trainable", "classifier")
        assert recipe.first.adversary == PaperAdversary()
        words = ("--then", "tau_norm", "--network.classifier", "linear", "--loss", "focal")
        assert options(*words, recipe="ldam_drw_cifar10").stages[1:] == (TauNorm(),)
        # And what then does not fit is refused, though no plain value was given.
        assert refusal("--then", "tau_norm", recipe="ldam_drw_cifar10") == (
            "network.classifier must be linear for tau_norm, got cosine"
        )
        assert refusal("--adversary", "paper") == (
            "trainable must be classifier with an adversary, got all"
        )


class TestStages:
    def test_later_stages_are_named(self):
        assert options("--then", "tau_norm").stages[1:] == (TauNorm(),)
        recipe = options("--then", "tau_norm", "--then.0.tau", "0.7")
        assert recipe.stages[1:] == (TauNorm(tau=0.7),)
        assert recipe.first == RECIPES["sgd_cifar10"].first
        two = options("--then", "train", "ncm", "--then.0.trainable", "classifier")
        assert two.stages[1:] == (Stage(trainable="classifier"), NearestClassMean())
        assert options("--then", "none", recipe="mislas_cifar10").stages[1:] == ()

    def test_a_later_stages_fields_follow_its_number(self):
        before = RECIPES["mislas_cifar10"].stages
        found = options("--then.0.epochs", "3", recipe="mislas_cifar10").stages
        assert found == (before[0], before[1].replace(epochs=3))
        method = ("--then.0.method", "cc_sam", "--then.0.method.flat-ratio", "0.5")
        found = options(*method, recipe="mislas_cifar10").stages
        assert found[1].method == CCSAM(flat_ratio=0.5)
        assert found[0].method == SGD()

    def test_a_misspelled_flag_of_a_later_stage_gets_the_nearest(self):
        assert "such as --then.0.epochs" in refusal("--then.0.epoch", "3", recipe="mislas_cifar10")

    def test_a_stage_that_is_not_there_has_no_flags(self):
        assert "--then.0.epochs" in refusal("--then.0.epochs", "3")
        assert "--then.1.epochs" in refusal("--then.1.epochs", "3", recipe="mislas_cifar10")
        message = refusal("--then", "taunorm")
        assert message == (
            "--then must be some of train, tau_norm, ncm, none, got taunorm; "
            "the nearest is tau_norm"
        )


class TestValues:
    def test_lists_and_ranges(self):
        assert parsed("--seeds", "0-2").seeds == (0, 1, 2)
        assert parsed("--seeds", "0", "5-7").seeds == (0, 5, 6, 7)
        assert parsed("--seed", "3").seeds == (3,)
        assert parsed("--rhos", "0.1", "1").rhos == (0.1, 1.0)
        assert "numbers and ranges such as 0-7, got a" in refusal("--seeds", "a")
        assert "numbers and ranges such as 0-7, got 3-1" in refusal("--seeds", "3-1")
        assert "numbers and ranges such as 0-7" in refusal("--seeds", "0-99999999999999")

    def test_yes_and_no(self):
        assert parsed().resume
        assert not parsed("--no-resume").resume
        assert not parsed("--resume", "false").resume
        assert parsed("--check-images", "--seeds", "1").check_images
        assert options("--optimizer.nesterov").first.optimizer.nesterov
        assert not options("--no-optimizer.nesterov").first.optimizer.nesterov
        assert refusal("--check-images", "maybe") == (
            "--check-images must be true or false, got maybe"
        )
        assert refusal("--no-resume", "5") == ("--resume must be true or false, got --no-resume 5")
        assert "got --no-seeds" in refusal("--no-seeds")
        assert "got --no-epochs" in refusal("--no-epochs")

    def test_none_where_a_value_may_be_missing(self):
        recipe = RECIPES["focal_sam_imagenet_lt"]
        assert recipe.data.image_size == 224
        for word in ("none", "None"):
            found = options("--data.image-size", word, recipe="focal_sam_imagenet_lt")
            assert found.data.image_size is None
        assert parsed("--workdir", "none").workdir is None
        assert parsed("--rhos", "none").rhos == ()
        assert options("--reweighting", "none", recipe="ldam_drw_cifar10").first.reweighting is None
        assert refusal("--epochs", "none") == (
            "--epochs must be an integer of at least 1, got none"
        )

    def test_negative_numbers_and_exponents_are_values(self):
        assert options("--optimizer.lr", "1e-3").first.optimizer.lr == 1e-3
        assert refusal("--optimizer.lr", "-1") == "--optimizer.lr must be at least 0, got -1"
        assert (
            refusal("--optimizer.lr", "-.5e-3") == "--optimizer.lr must be at least 0, got -.5e-3"
        )
        assert refusal("--optimizer.lr=-1") == "--optimizer.lr must be at least 0, got -1"
        assert "got -ab" in refusal("--optimizer.lr", "-ab")

    @pytest.mark.parametrize("word", [".8", "1.", "1.e-3", "+1", "+.5E+1", "00.5", "1e-3", "7"])
    def test_a_number_in_any_form_of_pythons(self, word):
        assert options("--optimizer.lr", word).first.optimizer.lr == float(word)
        assert parsed("--rhos", "1", word).rhos == (1.0, float(word))

    def test_an_equals_sign(self):
        assert options("--epochs=7").first.epochs == 7
        assert options("--data.source=idx:a=b").data.source == IDX(directory="a=b")
        assert parsed("--workdir=a b").workdir == Path("a b")
        assert parsed("--list=").list == ""

    def test_names_with_either_line(self):
        assert options("--batch_size", "7") == options("--batch-size", "7")

    def test_the_last_of_two_counts(self):
        assert options("--epochs", "7", "--epochs", "8").first.epochs == 8
        assert options("--method", "sam", "--method", "cc_sam").first.method == CCSAM()

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("--epochs",), "--epochs must be an integer of at least 1, got nothing"),
            (("--epochs", "3", "4"), "--epochs must be an integer of at least 1, got 3 4"),
            (("--epochs", "3.5"), "--epochs must be an integer of at least 1, got 3.5"),
            (("--epochs", "9" * 30), f"epochs must be at most 2147483647, got {'9' * 30}"),
            (("--optimizer.lr", "big"), "--optimizer.lr must be a number, at least 0, got big"),
            (("--optimizer.lr", "nan"), "--optimizer.lr must be at least 0, got nan"),
            (("--optimizer.lr", "inf"), "lr must be finite, got inf"),
            (
                ("--data.profile.class-order", "0", "-1"),
                f"--data.profile.class-order must be {need(ORDER)}, got 0 -1",
            ),
            (("word",), "arguments must be flags such as --workdir, got word"),
            (("-epochs", "3"), "flags must begin with --, got -epochs; give --epochs"),
            (("--seeds", "0", "-lr", "3"), "flags must begin with --, got -lr; give --lr"),
            (("--measure-every", "-1"), "measure_every must be at least 0, got -1"),
        ],
    )
    def test_a_value_that_cannot_be(self, words, message):
        assert refusal(*words) == message


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "needles"),
        [
            (("--epoch", "3"), ("--epochs", "got --epoch")),
            (("--batchsize", "3"), ("--batch-size",)),
            (("--lr", "3"), ("--optimizer.lr", "got --lr")),
            (("--rho", "0.1", "--method", "sam"), ("such as --method.rho, got",)),
            (("--rho", "0.1"), ("--method sam --method.rho or", "got --rho")),
            (("--tail-threshold", "3"), ("--method imb_sam --method.tail-threshold or",)),
            (("--hlep",), ("such as --help", "got --hlep")),
            (("--workdir",), ("--workdir must be a path, or none, got nothing",)),
            (("--then", "ncm", "--then.0.epochs", "3"), ("got --then ncm", "it is of train")),
            (("--optimizer.l", "3"), ("--optimizer.lr",)),
            (("--method", "focalsam"), ("got focalsam", "the nearest is focal_sam")),
            (("--network", "resnet33"), ("got resnet33", "resnet32", "resnet34")),
            (("--data.source", "digit"), ("got digit", "nearest is digits")),
            (("--trainable", "clasifier"), ("got clasifier", "the nearest is classifier")),
            (("--pipeline", "devise"), ("got devise", "the nearest is device")),
            (("--data.source", "idx"), ("--data.source must be idx:DIRECTORY, got idx",)),
            (("--data.source", "idx:"), ("--data.source must be idx:DIRECTORY, got idx:",)),
            (("--data.source", "digits:x"), ("--data.source must be", "got digits:x")),
            (("--method",), ("--method must be one of sgd,", "got nothing")),
            (("--method", "sam", "sgd"), ("--method must be one of", "got sam sgd")),
            (("--network", "random:huge"), ("tiny, vit_b32", "got huge")),
        ],
    )
    def test_the_nearest_is_named(self, words, needles):
        message = refusal(*words)
        for needle in needles:
            assert needle in message

    def test_a_flag_of_a_part_that_is_not_chosen_names_the_part(self):
        assert refusal("--method.gamma", "2", recipe="sam_cifar10") == (
            "--method.gamma must belong to the chosen part, got --method sam: it is of focal_sam; "
            "give --method focal_sam as well"
        )
        assert "it is of sam, imb_sam, focal_sam, " in refusal("--method.rho", "2")
        assert "--reweighting class_balanced" in refusal("--reweighting.epoch", "2")
        assert "--then.0.loss ldam" in refusal(
            "--then.0.loss.max-margin", "1", recipe="crt_cifar10"
        )
        assert "it is of clip" in refusal("--network.snapshot", "a")

    def test_what_does_not_go_together_is_refused_in_a_line(self):
        assert refusal("--trainable", "scale") == (
            "learn_scale must be true where the scale is trained, got false"
        )


class TestRecipeFiles:
    def arguments(self, monkeypatch, *words):
        monkeypatch.setattr(sys, "argv", ["cifar_lt", *map(str, words)])
        return recipe_program._arguments("cifar_lt", "sgd_cifar10", "")

    @pytest.mark.parametrize("name", ["mislas_cifar100", "sam_rho_steps_cifar10", "ncm_digits"])
    def test_a_file_is_a_recipe_which_flags_change(self, name, tmp_path, monkeypatch):
        file = tmp_path / "mine.json"
        file.write_text(write_recipe(RECIPES[name]))
        assert self.arguments(monkeypatch, "--recipe", file).options == RECIPES[name]
        changed = self.arguments(monkeypatch, f"--recipe={file}", "--optimizer.lr", "0.5")
        own = RECIPES[name].first.optimizer
        assert changed.options == RECIPES[name].with_first(optimizer=own.replace(lr=0.5))
        run = tmp_path / "run"
        run.mkdir()
        file.rename(file := run / "recipe.json")
        assert self.arguments(monkeypatch, "--recipe", run).options == RECIPES[name]
        # A run in a directory that is called as a named recipe does not take its place.
        (tmp_path / "sgd_cifar10").symlink_to(run)
        monkeypatch.chdir(tmp_path)
        assert self.arguments(monkeypatch, "--recipe=sgd_cifar10").options == RECIPES["sgd_cifar10"]
        twice = self.arguments(monkeypatch, "--recipe", "sgd_cifar10", "--recipe", file)
        assert (twice.options, twice.recipe) == (RECIPES[name], str(file))

    def test_a_run_s_file_is_called_by_its_directory(self):
        assert recipe_program.label("runs/mine/recipe.json") == "mine"
        assert recipe_program.label("runs/rho0.3-seed0") == "rho0.3-seed0"
        assert recipe_program.label("mine.json") == recipe_program.label("mine") == "mine"

    def test_a_file_that_holds_none_is_refused(self, tmp_path, monkeypatch):
        file = tmp_path / "mine.json"
        with pytest.raises(UsageError, match=r"must be a named one, got .*mine\.json"):
            self.arguments(monkeypatch, "--recipe", file)
        file.write_text('{"format": 2, "recipe": {"color": 1}}')
        with pytest.raises(UsageError, match="unknown field `color`"):
            self.arguments(monkeypatch, "--recipe", file)

    def test_a_name_that_is_none_is_refused_with_the_nearest(self, monkeypatch):
        with pytest.raises(
            UsageError, match=r"such as .*focal_sam_cifar100.*, got focalsam_cifar10"
        ):
            self.arguments(monkeypatch, "--recipe", "focalsam_cifar100")
        with pytest.raises(UsageError, match=r"^--recipe must be a text, got nothing"):
            self.arguments(monkeypatch, "--recipe")


class TestDataclasses:
    def test_a_flag_without_default_must_be_given(self):
        @dataclasses.dataclass(frozen=True)
        class Needs:
            place: Path
            number: int = 3

        assert parsing.parse(flags.blank(Needs), ["--place", "a"]) == Needs(Path("a"))
        with pytest.raises(UsageError, match=r"^--place must be given, got nothing"):
            parsing.parse(flags.blank(Needs), ["--number", "1"])
        with pytest.raises(UsageError, match=r"^flags must be those of --help.*, got --0.number"):
            parsing.parse(flags.blank(Needs), ["--0.number", "1"])


@pytest.mark.parametrize(
    "name", ["mislas_cifar100", "focal_sam_clip_imagenet_lt", "sam_rho_steps_cifar10"]
)
def test_every_flag_takes_what_help_shows_and_changes_nothing(name):
    arguments = Arguments(name, options=RECIPES[name])
    words = []
    for flag in flags.flags_of(arguments):
        shown = flags_help._value(flag)
        words += [
            f"--{flag.name}",
            *(shown.split(" ") if isinstance(flag.value, tuple) else [shown]),
        ]
    assert parsing.parse(arguments, words) == arguments


def test_defaults_of_a_chosen_part_are_its_own():
    assert (
        options("--loss", "cross_entropy", recipe="ldam_drw_cifar10").first.loss == CrossEntropy()
    )
    assert options("--data.profile", "exponential").data.profile == Exponential()
