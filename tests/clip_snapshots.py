"""Snapshots of tiny CLIP networks: the golden one, with changes, and a tokenizer's files."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parent / "golden" / "models"
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
MERGES = [("p", "h"), ("ph", "o"), ("t", "o</w>"), ("pho", "to</w>"), ("o", "f</w>"), ("c", "a")]


def write_golden_snapshot(directory, *, config=None, tensors=None):
    """Writes the golden network; functions change its config and its tensors in place."""
    values = json.loads((GOLDEN / "clip_config.json").read_text())
    arrays = load_file(GOLDEN / "clip.safetensors")
    for change, what in ((config, values), (tensors, arrays)):
        if change is not None:
            change(what)
    directory.mkdir(exist_ok=True, parents=True)
    (directory / "config.json").write_text(json.dumps(values))
    save_file(arrays, directory / "model.safetensors")
    return directory


def vocabulary():
    """Letters, digits and signs alone and as ends of words, the merges' results, begin and end."""
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    letters += ["Ã", "©", "Ġ", "Ċ"]  # bytes of "é", a blank and a new line, as BPE writes them
    merged = [first + second for first, second in MERGES]
    names = [*letters, *(f"{letter}</w>" for letter in letters), *merged, BEGIN, END]
    return {name: number for number, name in enumerate(names)}


def write_vocabulary(directory):
    (directory / "vocab.json").write_text(json.dumps(vocabulary()))
    lines = ["#version: 0.2", *(f"{first} {second}" for first, second in MERGES)]
    (directory / "merges.txt").write_text("\n".join(lines) + "\n")


def write_speaking_snapshot(directory):
    """Writes the golden network with embeddings for a whole vocabulary, and its tokenizer."""
    known, name = vocabulary(), "text_model.embeddings.token_embedding.weight"

    def enlarge(tensors):
        width = tensors[name].shape[1]
        rng = np.random.default_rng(0)
        tensors[name] = rng.normal(size=(len(known), width)).astype(np.float32)

    def tell(config):
        config["text_config"].update(vocab_size=len(known), eos_token_id=known[END])

    write_golden_snapshot(directory, config=tell, tensors=enlarge)
    write_vocabulary(directory)
    return directory
