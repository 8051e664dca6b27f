"""Hessian spectra by class: `python -m experiments.hessian --checkpoint RUN...`."""

import dataclasses
from typing import Literal

from experiments import command_line
from experiments.examined import Examined
from jaxlt.recipes.part import check


@dataclasses.dataclass(frozen=True)
class Arguments(Examined):
    """Flags of the program."""

    program = "hessian"

    scope: Literal["all", "classifier"] = "all"
    """Parameters that the Hessian is of: all that were trained, or the classifier's."""
    by: Literal["class", "group"] = "class"
    """Spectra of each class's mean loss; or of all images and of many-, medium- and few-shot
    classes."""
    lanczos_steps: int = 100
    """Hessian-vector products for each starting vector, with full re-orthogonalization."""
    vectors: int = 1
    """Random starting vectors, over which densities are averaged."""
    trace_samples: int = 20
    """Hessian-vector products for the estimate of the trace."""
    seed: int = 0
    """Seed of the random vectors, which are the same for all runs."""


def main() -> None:
    """Parses the flags, computes the spectra, prints the table and writes the files."""
    arguments = command_line.parse(
        Arguments,
        "experiments.hessian",
        "Extreme eigenvalues, trace and spectral density of the Hessian of finished runs' losses, "
        "by class: whether rare classes end at saddles.",
    )
    for name in ("lanczos_steps", "vectors", "trace_samples"):
        check(name, getattr(arguments, name), getattr(arguments, name) >= 1, "at least 1")
    from experiments.hessian import spectra
    from experiments.loaded_runs import say_written

    place, analyzed = arguments.load(arguments.scope)
    results = spectra.spectra_of(analyzed, arguments)
    rows = {
        row.label: {
            run: {name: one.measures for name, one in classes.items()}
            for run, classes in row.runs.items()
        }
        for row in results
    }
    arguments.write(place, {"rows": rows})
    table = spectra.format_table(results)
    (place / "table.md").write_text(table + "\n")
    spectra.draw_densities(results, place / "densities.png")
    spectra.draw_eigenvalues(results, place / "eigenvalues.png")
    print(f"\n{table}\n")
    say_written([place], arguments.checkpoint, "flatness")


if __name__ == "__main__":
    command_line.run(main)
