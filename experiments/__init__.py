"""The experiments of the papers: `python -m experiments.NAME`."""

from experiments import endings as endings
