"""Tables of many recipes and seeds beside published numbers: `python -m experiments.table`."""
