"""Nothing in the package or its programs loads what could run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted([*(ROOT / "jaxlt").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
MODULES_THAT_RUN = {
    *("pickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "jsonpickle"),
    *("yaml", "torch.serialization"),
}
CALLS_THAT_RUN = {"eval", "exec", "compile", "__import__", "yaml.load", "np.fromfile"}
# By path, what it is allowed and why: nothing so far.
ALLOWED: dict[str, set[str]] = {}


def dangers(source):
    """Names what a module's source imports or calls that could run what a file holds."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name in MODULES_THAT_RUN}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES_THAT_RUN:
            found.add(node.module)
        elif isinstance(node, ast.Call):
            found |= _danger_of_call(node)
    return found


def _danger_of_call(node):
    name = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    if name in CALLS_THAT_RUN:
        return {name}
    if name.endswith((".load", ".loads")) and name.split(".")[0] in ("np", "numpy", "jnp"):
        return set() if keywords.get("allow_pickle") == "False" else {name}
    if name.startswith("torch.") and name.endswith(".load"):
        return set() if keywords.get("weights_only") == "True" else {name}
    return {name} if keywords.get("allow_pickle") == "True" else set()


def test_nothing_that_a_file_holds_can_run():
    found = {str(path.relative_to(ROOT)): dangers(path.read_text()) for path in MODULES}
    assert {path: names for path, names in found.items() if names} == ALLOWED


@pytest.mark.parametrize(
    ("source", "danger"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from joblib import load", "joblib"),
        ("np.load(path)", "np.load"),
        ("np.load(path, allow_pickle=True)", "np.load"),
        ("f(path, allow_pickle=True)", "f"),
        ("torch.load(path)", "torch.load"),
        ("torch.load(path, weights_only=False)", "torch.load"),
        ("eval(text)", "eval"),
    ],
)
def test_dangers_are_seen(source, danger):
    assert dangers(source) == {danger}


@pytest.mark.parametrize(
    "source",
    ["np.load(path, allow_pickle=False)", "torch.load(path, weights_only=True)", "import json"],
)
def test_safe_loading_is_none(source):
    assert not dangers(source)
