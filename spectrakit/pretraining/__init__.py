"""Pretraining on simulated spectra: what it is fed, its stages for one spectrum, for pairs and for tokens, and heads on features that are frozen."""

from .heads import fit_heads, head_loss
from .pairs import PairConfig, PairPool, pretrain_pair
from .pixels import SpectraTokens, pretrain_spectra_fm
from .requests import RequestLoss
from .spectra import LabelLoss, MaskedLoss, pretrain, pretrain_flux
from .stars import StarTable, StarTokens, pretrain_stars, simulate_stars
from .streams import Stream

__all__ = ["LabelLoss", "MaskedLoss", "PairConfig", "PairPool", "RequestLoss", "SpectraTokens", "StarTable", "StarTokens", "Stream", "fit_heads", "head_loss",
           "pretrain", "pretrain_flux", "pretrain_pair", "pretrain_spectra_fm", "pretrain_stars", "simulate_stars"]
