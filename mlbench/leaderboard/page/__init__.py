"""Boards, runs and methods as pages that open from disk: no server, no network."""

from mlbench.leaderboard.page.catalogue import Catalogue
from mlbench.leaderboard.page.site import write_site

__all__ = ["Catalogue", "write_site"]
