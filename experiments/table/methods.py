"""Methods compared on the same images: the plan of their table, and their numbers by class."""

from collections.abc import Sequence
from pathlib import Path

from experiments.command_line import check_distinct
from experiments.table.plan import Cell, Plan, chosen
from experiments.table.results import finished_runs
from jaxlt.files.directory import write_json
from jaxlt.recipes.methods import CCSAM, SAM, SGD, SSESAM, FocalSAM, ImbSAM, Method
from jaxlt.recipes.named import vary
from jaxlt.recipes.part import part_name
from jaxlt.recipes.recipe import Recipe


def six_methods(rho: float, tail_threshold: int) -> tuple[Method, ...]:
    """Returns SGD and the five sharpness-aware methods; classes of fewer images are the tail."""
    return (
        SGD(),
        SAM(rho=rho),
        ImbSAM(rho=rho, tail_threshold=tail_threshold),
        SSESAM(head_rho=0.05, tail_rho=0.1, tail_threshold=tail_threshold),
        FocalSAM(rho=0.1, gamma=2.0, sharpness_weight=0.9),
        CCSAM(max_relative_radius=0.01),
    )


def plan_methods(title: str, base: Recipe, methods: Sequence[Method], names: Sequence[str]) -> Plan:
    """Lays out a comparison: a row for each method that `names` keeps, all else as in `base`."""
    check_distinct("method", names)
    some = chosen("method", {part_name(method): method for method in methods}, names)
    cells = [Cell(one.label, "", name, vary(base, method=one)) for name, one in some.items()]
    return Plan(title, tuple(cells), by_group=True, compares_methods=True)


def write_by_class(plan: Plan, directory: Path, seeds: Sequence[int]) -> list[str]:
    """Writes the results of finished runs and their accuracy by class; returns the files' names."""
    from experiments.table.pictures import draw_by_class

    counts: list[int] = []
    by_name, by_label = {}, {}
    for cell in plan.cells:
        if runs := list(finished_runs(directory, cell.name, cell.recipe, seeds).values()):
            counts = [run.class_counts.tolist() for run in runs][-1]
            by_name[cell.name] = by_label[cell.row] = [run.read_result() or {} for run in runs]
    write_json(directory / "results.json", {"class_counts": counts, "runs": by_name})
    draw_by_class(counts, by_label, directory / "accuracy_by_class.png")
    return ["results.json", "accuracy_by_class.png"]
