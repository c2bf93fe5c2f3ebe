"""The multilayer perceptron that reads labels off an embedding, or off the flux itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import MismatchError


class LabelHead(nn.Module):
    """Linear - BatchNorm - ReLU - Dropout for each hidden size, then Linear; SpecCLIP's downstream MLP ("ParamRegressor").

    Inputs are standardised and outputs de-standardised inside, with stored means and standard deviations (``set_scaling``; buffers, saved
    with the weights): features go in and labels come out in their own units. With the standard sizes it has 1,348,353 parameters on 768
    features and 2,059,009 on 1462.

    Parameters
    ----------
    n_in, n_out : features in, labels out.
    hidden : sizes of the hidden layers.
    dropout : probability, in training mode only.

    Source: Zhao et al. 2026, SpecCLIP (arXiv:2507.01939). The layers ``linears.0`` ... are plain ``nn.Linear``: LoRA finds them by name.
    """

    def __init__(self, n_in: int, hidden: Sequence[int] = (1024, 512, 64), n_out: int = 1, dropout: float = 0.1):
        super().__init__()
        sizes = [n_in, *hidden]
        self.linears = nn.ModuleList([*(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:], strict=False)), nn.Linear(sizes[-1], n_out)])
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in hidden)
        self.dropout = nn.Dropout(dropout)
        self.frozen = False
        for name, size in (("x", n_in), ("y", n_out)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))

    def set_scaling(self, features: Float[Tensor, "n n_in"], labels: Float[Tensor, "n n_out"]) -> None:
        """Store mean and standard deviation of the training features and labels; a constant one keeps the scale 1.

        Raises
        ------
        MismatchError
            The sizes are not this head's.
        """
        for name, array in (("x", features), ("y", labels)):
            mean, std = getattr(self, f"{name}_mean"), getattr(self, f"{name}_std")
            if array.shape[1] != mean.numel():
                raise MismatchError(f"{array.shape[1]} {'features' if name == 'x' else 'labels'} given; this head has {mean.numel()}.")
            new = array.std(dim=0, correction=0)
            mean.copy_(array.mean(dim=0))
            std.copy_(torch.where(new > 1e-6 * array.abs().amax(dim=0), new, 1.0))  # rounding makes a constant float32 column not quite 0

    def freeze_statistics(self) -> None:
        """From now on BatchNorm uses its stored statistics, in ``.train()`` too: with few labels those of a batch would be noise."""
        self.frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> LabelHead:
        """Training mode; after ``freeze_statistics`` it leaves BatchNorm in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.norms.eval()
        return self

    def forward(self, x: Float[Tensor, "n n_in"]) -> Float[Tensor, "n n_out"]:
        """Labels in their own units."""
        x = (x - self.x_mean) / self.x_std
        for linear, norm in zip(self.linears, self.norms, strict=False):
            x = self.dropout(torch.relu(norm(linear(x))))
        return self.linears[-1](x) * self.y_std + self.y_mean
