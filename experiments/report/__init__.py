"""One self-contained HTML page for any set of finished runs."""
