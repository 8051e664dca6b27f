import hashlib
import json

import numpy as np
import pytest
from clip_snapshots import BEGIN, END, MERGES, vocabulary, write_vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlt.errors import UsageError
from jaxlt.models.clip.config import TextConfig
from jaxlt.models.clip.prompts import IMAGENET_TEMPLATES, PromptTokenizer, class_prompts

TEXTS = [
    "a photo of a cat.",
    "",
    "A  Photo\tof\nIT's 42 café!?",
    "photo of photo of photo of photo of photo of photo of a cat",
    f"what {END} and {BEGIN} do",
    "日本",
    "cafe\N{COMBINING ACUTE ACCENT}",
]
TOKENS = vocabulary()


def _config(length=12, **changes):
    sizes = {"vocab_size": len(TOKENS), "eos_token_id": TOKENS[END], **changes}
    return TextConfig(max_position_embeddings=length, **sizes)


@pytest.fixture(scope="module")
def vocabulary_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(directory)
    return directory


@pytest.fixture(scope="module")
def huggingface():
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTokenizerFast(vocab=vocabulary(), merges=MERGES)


def test_tokens_by_hand(vocabulary_directory):
    tokens = PromptTokenizer(vocabulary_directory, _config(8))(
        ["A photo_of", "to a photo of to to"]
    )
    begin, end = TOKENS[BEGIN], TOKENS[END]
    a, photo, of, to = (TOKENS[name] for name in ("a</w>", "photo</w>", "of</w>", "to</w>"))
    assert tokens.dtype == np.int32
    assert tokens.tolist() == [
        [begin, a, photo, TOKENS["_</w>"], of, end, end, end],
        [begin, to, a, photo, of, to, to, end],
    ]
    longer = PromptTokenizer(vocabulary_directory, _config(6))(["to a photo of to to"])
    assert longer.tolist() == [[begin, to, a, photo, of, end]]


@pytest.mark.parametrize("length", [3, 12, 77])
@pytest.mark.parametrize("saved", [False, True])
def test_tokens_are_hugging_faces(tmp_path, vocabulary_directory, huggingface, length, saved):
    directory = vocabulary_directory
    if saved:
        directory = tmp_path
        # As after a use in which padding and truncation were set, which the file then says.
        huggingface(TEXTS, padding="max_length", truncation=True, max_length=5)
        huggingface.save_pretrained(directory)
        assert json.loads((directory / "tokenizer.json").read_text())["truncation"] is not None
    expected = huggingface(TEXTS, padding="max_length", truncation=True, max_length=length)
    tokens = PromptTokenizer(directory, _config(length))(TEXTS)
    assert tokens.tolist() == expected["input_ids"]


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=40))
def test_any_text_gets_hugging_faces_tokens(vocabulary_directory, huggingface, text):
    expected = huggingface([text], padding="max_length", truncation=True, max_length=12)
    tokens = PromptTokenizer(vocabulary_directory, _config())([text])
    assert tokens.tolist() == expected["input_ids"]


def _without_ends(directory):
    pytest.importorskip("tokenizers").Tokenizer.from_str(
        json.dumps({"model": {"type": "BPE", "vocab": TOKENS, "merges": []}})
    ).save(str(directory / "tokenizer.json"))


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (lambda _: None, r"must have tokenizer\.json, or vocab\.json and merges\.txt"),
        (lambda d: (d / "vocab.json").write_text("{}"), r"must have tokenizer\.json, or"),
        (lambda d: (d / "tokenizer.json").write_text("{"), "must be whole: "),
        (_without_ends, rf"must make .*{len(TOKENS) - 1}\) of an empty text, got \[\]"),
    ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path, write, expected):
    write(tmp_path)
    with pytest.raises(UsageError, match=expected) as error:
        PromptTokenizer(tmp_path, _config())
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"eos_token_id": 5}, "must have 5 for "),
        (
            {"vocab_size": len(TOKENS) - 1},
            f"must have {TOKENS[END]} for .* below {len(TOKENS) - 1}, ",
        ),
    ],
)
def test_a_tokenizer_of_another_network_is_refused(vocabulary_directory, changes, expected):
    with pytest.raises(UsageError, match=expected):
        PromptTokenizer(vocabulary_directory, _config(**changes))


def test_old_checkpoints_wrong_end_is_taken_for_the_greatest_token(vocabulary_directory):
    tokens = PromptTokenizer(vocabulary_directory, _config(eos_token_id=2))(["a"])
    assert tokens.argmax() == tokens.tolist()[0].index(TOKENS[END])


def test_class_names_are_put_into_the_template():
    assert class_prompts(["great_white_shark", "{x}"]) == (
        "a photo of a great white shark.",
        "a photo of a {x}.",
    )
    assert class_prompts(["cat"], "itap of my {}!") == ("itap of my cat!",)
    for template in ("a photo.", "{} and {}"):
        with pytest.raises(UsageError, match=r"prompt must have one \{\} .* got"):
            class_prompts(["cat"], template)


def test_the_templates_are_openais_eighty():
    """The digest is of the list in OpenAI's notebook on prompts for ImageNet, sorted."""
    assert len(IMAGENET_TEMPLATES) == 80
    digest = hashlib.sha256("\n".join(sorted(IMAGENET_TEMPLATES)).encode()).hexdigest()
    assert digest == "a8a4822f2921936e2ef07cf2e7a5df69be9532aab2f3f4880156bb03563e2467"
