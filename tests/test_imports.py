"""What the core needs, and which way imports flow."""

import ast
import collections
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "jaxlt"
# From the bottom up; a module imports from its own layer and from those below.
LAYERS = [
    {"jaxlt.errors"},
    {"jaxlt.batch", "jaxlt.files", "jaxlt.devices"},
    {"jaxlt.losses", "jaxlt.sharpness"},
    {"jaxlt.methods"},
    # What a user imports, the methods and the losses by their own names.
    {"jaxlt"},
    {"jaxlt.data", "jaxlt.models", "jaxlt.analysis", "jaxlt.nnx"},
    {"jaxlt.runs"},
    {"jaxlt.training"},
    {"jaxlt.evaluation"},
    {"jaxlt.recipes"},
    {"experiments"},
]
CORE_PACKAGES = {
    "jaxlt",
    "jaxlt.errors",
    "jaxlt.batch",
    "jaxlt.losses",
    "jaxlt.sharpness",
    "jaxlt.methods",
}
MODULES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "experiments").rglob("*.py")])
HEAVY = "chex flax matplotlib orbax safetensors sklearn tensorflow tensorflow_datasets tqdm"


def relative(path):
    return str(path.relative_to(ROOT))


def package_of(module):
    """`jaxlt.data` for `jaxlt.data.sampling.long_tail`, `jaxlt` for `jaxlt.losses`."""
    names = {name for layer in LAYERS for name in layer}
    parts = module.split(".")
    return next((p for p in (".".join(parts[:2]), parts[0]) if p in names), "")


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path, tree=None):
    """Names of all modules that a file imports, wherever in it."""
    tree = tree or ast.parse(path.read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                package = path.relative_to(ROOT).parent.parts
                base = [*package[: len(package) - node.level + 1], *base]
            # `from jaxlt import data` imports jaxlt.data, `from jaxlt import sam` only jaxlt.
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


CORE = [path for path in MODULES if package_of(module_name(path)) in CORE_PACKAGES]


def run(code):
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_import_of_jaxlt_is_light():
    loaded = run("import sys, jaxlt; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert "jaxlt" in loaded
    assert not set(loaded) & set(HEAVY.split())


def test_core_imports_its_declared_dependencies_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {re.split(r"[<>=~! ;\[]", line)[0] for line in project["dependencies"]}
    known = {"jaxlt", *declared, *sys.stdlib_module_names}
    foreign = {
        relative(path): {name.split(".")[0] for name in imported(path)} - known for path in CORE
    }
    assert {path: names for path, names in foreign.items() if names} == {}


def test_core_works_where_only_its_dependencies_are_installed():
    """Each distribution that jax, jaxtyping and optax do not require is hidden from the process."""
    needed, queue = set(), ["jax", "jaxtyping", "optax"]
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in needed:
            continue
        needed.add(name)
        for requirement in importlib.metadata.requires(name) or []:
            if "extra ==" not in requirement:
                queue.append(re.split(r"[^\w.-]", requirement)[0])
    hidden = {
        module
        for module, distributions in importlib.metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", d).lower() for d in distributions} & needed
    }
    assert {"beartype", "flax", "tensorflow", "chex"} <= hidden
    hidden.discard("jaxlt")
    run(f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())

import jax, jax.numpy as jnp, optax, jaxlt

counts, x, y = (5, 3, 2), jnp.eye(4), jnp.arange(4) % 3
def class_losses_fn(params):
    losses = jaxlt.losses.balanced_softmax(x @ params, y, counts)
    return jaxlt.class_losses(losses, y, 3)

params = jnp.ones((4, 3))
for method in (
    jaxlt.sam(0.1),
    jaxlt.imb_sam(counts, 0.1, tail_threshold=3),
    jaxlt.sse_sam(counts, 0.1, 0.1, tail_threshold=3),
    jaxlt.focal_sam(counts, 0.1, sharpness_weight=0.8, gamma=2.0),
    jaxlt.cc_sam(counts),
    jaxlt.cc_sam(counts, direction="random"),
    jaxlt.gradient_norm_penalty(0.05, 0.1),
    jaxlt.random_perturbation(0.1, seed=0),
):
    tx = optax.chain(method, optax.sgd(0.1))
    gradient = jax.grad(lambda p: class_losses_fn(p).mean())(params)
    updates, _ = tx.update(gradient, tx.init(params), params, class_losses_fn=class_losses_fn)
    assert jnp.isfinite(updates).all() and (updates != 0).any()
""")


def test_imports_flow_downwards():
    layer_of = {"": -1} | {
        package: height for height, layer in enumerate(LAYERS) for package in layer
    }
    upwards = {
        (relative(path), name)
        for path in MODULES
        for name in imported(path)
        if layer_of[package_of(name)] > layer_of[package_of(module_name(path))]
    }
    assert not upwards


def test_no_two_packages_import_each_other():
    edges = {
        (package_of(module_name(path)), package_of(name))
        for path in MODULES
        for name in imported(path)
    }
    assert not {(a, b) for a, b in edges if a != b and (b, a) in edges}


def imports_tensorflow(path):
    """Anywhere, or, where data and backends may, outside functions."""
    tree = ast.parse(path.read_text())
    name = module_name(path)
    if package_of(name) != "jaxlt.data" and name != "jaxlt.devices.backends":
        return "tensorflow" in {name.split(".")[0] for name in imported(path, tree)}
    deferred = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef)) or is_for_type_checkers(block)
        for node in ast.walk(block)
    }
    at_import: list[ast.stmt] = [
        node
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom)) and id(node) not in deferred
    ]
    names = imported(path, ast.Module(body=at_import, type_ignores=[]))
    return bool({name.split(".")[0] for name in names} & {"tensorflow", "tensorflow_datasets"})


def test_tensorflow_is_imported_by_data_and_backends_inside_functions_alone():
    assert [relative(path) for path in MODULES if imports_tensorflow(path)] == []


def is_for_type_checkers(node):
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def test_a_class_name_has_one_meaning():
    """But for `Arguments`, the flags of each program."""
    places = collections.defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(relative(path))
    assert places.pop("Arguments")
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
