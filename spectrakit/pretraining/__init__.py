"""Pretraining on simulated spectra: what it is fed, its stages for one spectrum and for pairs, and heads on features that are frozen."""

from .heads import fit_heads, head_loss
from .pairs import PairConfig, PairPool, pretrain_pair
from .spectra import LabelLoss, MaskedLoss, pretrain, pretrain_flux
from .streams import Stream

__all__ = ["LabelLoss", "MaskedLoss", "PairConfig", "PairPool", "Stream", "fit_heads", "head_loss", "pretrain", "pretrain_flux", "pretrain_pair"]
