"""A command of a third party: what the head adds to a backbone."""

from typing import Annotated

import typer


def max_mean_size(
    channels: Annotated[int, typer.Argument(help="Channels of the deepest map.")],
    labels: Annotated[int, typer.Argument(help="Number of labels.")],
) -> None:
    """Print how many parameters the head `max_mean` has."""
    from mlbench.contracts.made_up import made_up_context
    from mlbench.types import Level
    from mlbench_max_mean import MaxMean

    head = MaxMean((Level(channels, 32),), made_up_context(labels))
    typer.echo(sum(parameter.numel() for parameter in head.parameters()))
