"""Encoder, projection and one head in a row, which can be entered at any of the three: what lies before the first trained one is computed once."""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..models.heads import LabelHead
from ..models.pixels import Pixels
from ..models.projection import CrossAttentionHead
from ..models.spectrum_transformer import SpectrumTransformer

PARTS = ("encoder", "projection", "head")


class LabelNetwork(nn.Module):
    """Flux (n, n_pix) -> label (n,). BatchNorm keeps its statistics, whatever mode it is put in.

    Parameters
    ----------
    encoder, head : without ``projection`` the head reads the mean over the tokens, as in a ``FoundationModel``.
    projection : of an ``AlignedModel``'s LRS side; the head reads the embedding it makes of the tokens.
    """

    def __init__(self, encoder: SpectrumTransformer | Pixels, head: LabelHead, projection: CrossAttentionHead | None = None):
        super().__init__()
        self.encoder, self.projection, self.head = encoder, projection, head
        self.residual = None                                                     # a network whose answer, in units of y_std, is added to the head's
        head.freeze_statistics()

    def forward(self, flux: Float[Tensor, "n n_pix"], mask: Bool[Tensor, "n n_pix"]) -> Float[Tensor, " n"]:
        return self.run(flux, mask)[0]

    def run(self, *inputs: Tensor, first: int = 0, last: int = 3) -> tuple[Tensor, ...]:
        """The stages ``first`` to before ``last``; what one returns is what the next takes.

        0, encoder: flux and mask -> embedding (n, d_model), or for a projection tokens (n, n_tok, d_model) and which of them are hidden.
        1, projection: -> embedding (n, d); nothing to do without one. 2, head: -> label (n,).
        """
        for stage in (self._encode, self._project, self._read)[first:last]:
            inputs = stage(*inputs)
        return inputs

    def _encode(self, flux, mask):
        if self.projection is None:
            return (self.encoder(flux, mask),)
        hidden = self.encoder.masked_tokens(mask)
        return self.encoder.encode(self.encoder.tokenize(flux, hidden), hidden), hidden

    def _project(self, *features):
        return features if self.projection is None else (self.projection(*features),)

    def _read(self, embedding):
        value = self.head(embedding)[:, 0]
        if self.residual is not None:
            value = value + self.residual((embedding - self.head.x_mean) / self.head.x_std)[:, 0] * self.head.y_std[0]
        return (value,)


def first_stage(names: Iterable[str]) -> int:
    """The first stage that one of these weights or modules belongs to; those before it are as they were."""
    parts = {part for name in names for part in name.split(".")}
    return next((stage for stage, part in enumerate(PARTS) if part in parts), 2)
