"""From records to rows, and from rows to a terminal, Markdown and CSV."""

from mlbench.leaderboard.render import csv, markdown, terminal, write
from mlbench.leaderboard.rows import Row, Table, tables

__all__ = ["Row", "Table", "csv", "markdown", "tables", "terminal", "write"]
