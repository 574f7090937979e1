"""The command ``mlbench``."""


def main() -> None:
    """Run the command line."""
