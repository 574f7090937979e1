"""A head of a third party: mean and maximum of the map side by side, then a linear layer."""

import torch
from torch import Tensor, nn

from mlbench.types import FeatureSpec, HeadOutput, LabelContext


class MaxMean(nn.Module):
    """Mean and maximum pooling, concatenated."""

    def __init__(self, spec: FeatureSpec, labels: LabelContext, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(2 * spec[-1].channels, len(labels))

    def forward(self, features: tuple[Tensor, ...]) -> HeadOutput:
        """One map a level -> logits [B, C]."""
        x_BDHW = features[-1]
        pooled = torch.cat([x_BDHW.mean((2, 3)), x_BDHW.amax((2, 3))], 1)
        return HeadOutput(self.classifier(self.dropout(pooled)))
