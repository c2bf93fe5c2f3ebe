"""What models that answer requests are trained on."""

from __future__ import annotations

from torch import Tensor, nn

from ..models.request_transformer import RequestTransformer, gaussian_loss
from ..models.tokens import PADDING, Tokens
from ..training import global_mean


class RequestLoss(nn.Module):
    """Minus the log density of everything asked for (``gaussian_loss``), a mean; of fluxes and labels apart where there are both.

    Its input is a context and its requests, each ``Tokens`` laid out one part after the other, so that ``training.train`` can share the rows out.
    """

    def __init__(self, network: RequestTransformer):
        super().__init__()
        self.network = network

    def forward(self, *parts: Tensor) -> dict[str, Tensor]:
        """``{"values": mean}``; with wavelengths ``{"labels": mean, "flux": a third of the mean}``: labels are few, and what is wanted most."""
        context, requests = Tokens(*parts[:len(parts) // 2]), Tokens(*parts[len(parts) // 2:])
        mean, log_variance = self.network(context, requests)
        target = self.network.standardize(requests)
        loss = gaussian_loss(target.value, mean, log_variance, target.error)
        asked = requests.identity != PADDING
        if requests.wave is None:
            return {"values": global_mean(loss[asked])}
        flux = requests.wave > 0
        return {"labels": global_mean(loss[asked & ~flux]), "flux": global_mean(loss[asked & flux]) / 3}
