"""Weights that the authors of SpecCLIP released, read into the networks of this package, and kept in a safe format with what they have to know.

>>> convert("specclip_pr.ckpt", "specclip_pr.safetensors")
>>> model, inputs = load_converted("specclip_pr.safetensors")

The released files are pickles, which can hold any program. They are read with ``weights_only=True``; whatever is neither a tensor nor a plain
container (Lightning stores whole modules among the settings) becomes an inert placeholder and is dropped. Nothing of it is imported or run.

The released attention scales its logits twice (``TransformerConfig.double_scaled``). A network that scales once takes the same weights without an
error and computes something else; here it is refused.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from dataclasses import asdict, replace

import torch
from torch import Tensor, nn

from ..errors import DataFileError, MismatchError
from ..weights import load_tensors, save_tensors
from . import alignment, spectrum_transformer, xp_autoencoder
from .alignment import Alignment
from .spectrum_transformer import SpectrumTransformer, TransformerConfig
from .xp_autoencoder import AutoencoderConfig, XPAutoencoder

# What the released weights expect of their spectra; none of it is in their files.
_LRS = {"n_pix": 1462, "log10_start": 3.602, "log10_step": 1e-4, "medium": "vacuum", "frame": "heliocentric",
        "normalization": "flux over an upper envelope of degree 5 fitted to 3700-5700 A", "resampling": "linear in log10 of the wavelength"}
_XP = {"n_pix": 343, "start": 3360.0, "step": 20.0, "medium": "vacuum", "frame": "heliocentric",
       "normalization": "flux over flux at 5500 A", "resampling": "linear in the wavelength"}
INPUTS = {"lrs": {"lrs": _LRS}, "xp_transformer": {"xp": _XP}, "xp": {"xp": _XP}} | dict.fromkeys(("base", "pr", "split"), {"lrs": _LRS, "xp": _XP})


# Released names and ours: `*` is a number; .weight, .bias and the like follow on both sides.
def _under(released: str, ours: str, rules: dict[str, str]) -> dict[str, str]:
    return {released + a: ours + b for a, b in rules.items()}


_BLOCK = {"ln1": "norm1", "ln2": "norm2", "mlp.0": "up", "mlp.2": "down",
          **_under("attention.", "attention.", {"q_proj": "q", "kv_proj": "kv", "out_proj": "out"})}
TRANSFORMER = {"data_embed": "embedding", "position_embed.weight": "position", "final_layernorm": "norm", "head": "restore",
               **_under("blocks.*.", "blocks.*.", _BLOCK)}
_MLP = {"norm": "norm", "mlp.0": "up", "mlp.3": "down"}
AUTOENCODER = {"input_proj": "enter", "bottleneck_down": "down", "bottleneck_norm": "norm", "bottleneck_up": "up", "output_proj": "leave",
               **_under("encoder_blocks.*.", "encoder.*.", _MLP), **_under("decoder_blocks.*.", "decoder.*.", _MLP)}
_ATTENTION = {"query": "query", "multihead_attn.q": "attention.q", "multihead_attn.kv": "attention.kv", "multihead_attn.out_proj": "attention.out",
              "layernorm": "norm"}
_PERCEPTRON = {"projection": "project", **_under("feature_mlp.", "", {"0": "widen", "1": "norm_wide", "3": "narrow", "4": "norm"})}
_WIDENED = {"mlp.encoder": "mlp.up", "mlp.decoder": "mlp.down"}
_DECODER = {f"decoder.{4 * k}": f"linears.{k}" for k in range(4)} | {f"decoder.{4 * k + 2}": f"norms.{k}" for k in range(3)}
_JOINED = {"shared_proj": "shared", "private_proj": "private", "final_layer.0": "hidden", "final_layer.2": "out"}


def _aligned() -> dict[str, str]:
    rules = {"logit_scale": "log_scale", **_under("lamost_lrs_encoder.backbone.", "lrs.", TRANSFORMER),
             **_under("gaia_xp_encoder.backbone.", "xp.", AUTOENCODER), **_under("lamost_lrs_encoder.cross_attention.", "shared.lrs.", _ATTENTION)}
    for part, ours in (("", "shared"), ("shared_", "shared"), ("private_", "private")):
        rules |= _under(f"lamost_lrs_encoder.{part}attention.", f"{ours}.lrs.", _ATTENTION) | _under(f"lamost_lrs_encoder.{part}", f"{ours}.lrs.", _WIDENED)
        rules |= _under(f"gaia_xp_encoder.{part}", f"{ours}.xp.", _PERCEPTRON | _WIDENED)
    for survey, ours in (("lamost_lrs", "lrs"), ("gaia_xp", "xp")):
        rules |= _under(f"{survey}_decoder.", f"restorers.{ours}.", _DECODER | _JOINED) | _under(f"{survey}_cross_decoder.", f"predictors.{ours}.", _DECODER)
    return rules


ALIGNED = _aligned()


class _Placeholder:
    """Stands for every object of a released file that is neither numbers nor a container; takes whatever it is given and keeps nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, state):
        pass


class _Mapping:
    """Stands for the dictionaries of other packages, which torch fills entry by entry."""

    def __new__(cls, *_, **__):
        return OrderedDict()


def read_released(path) -> tuple[dict[str, Tensor], dict]:
    """The tensors of a checkpoint by their released names, and its settings.

    Raises
    ------
    DataFileError
        Missing, damaged, without tensors, with NaN, or holding something that even a placeholder cannot stand for.
    """
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with torch.serialization.safe_globals([(_Mapping if name.lower().endswith("dict") else _Placeholder, name) for name in foreign]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        tensors = dict(content.get("state_dict", content))
    except (OSError, ValueError, RuntimeError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise DataFileError(f"{path} cannot be read as a checkpoint ({str(error).splitlines()[0]}). Fetch it again; if it is whole, save its state_dict alone "
                            "where you trust it.") from error
    others = [k for k, v in tensors.items() if not isinstance(v, Tensor)]
    if others or not tensors:
        raise DataFileError(f"{path} holds no state_dict: {', '.join(others[:3]) or 'nothing'} found where tensors were expected.")
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise DataFileError(f"{path} holds NaN or infinite numbers in {', '.join(bad[:3])}: it must not be used. Fetch it again.")
    return tensors, content.get("hyper_parameters", {})


def load_released(model: SpectrumTransformer | XPAutoencoder | Alignment, tensors: dict[str, Tensor]) -> None:
    """Copy tensors with their released names into ``model``, which has the sizes they were trained with.

    Raises
    ------
    MismatchError
        A name that is not a released one, a weight of the model without a tensor, another shape; or an encoder that scales its attention once or
        standardises with n instead of n - 1.
    """
    rules = {SpectrumTransformer: TRANSFORMER, XPAutoencoder: AUTOENCODER, Alignment: ALIGNED}[type(model)]
    for encoder in (m for m in model.modules() if isinstance(m, SpectrumTransformer)):
        if not (encoder.config.double_scaled and encoder.config.ddof == 1):
            raise MismatchError("The released weights were trained with attention scaled twice and the standard deviation over n - 1. "
                                "Build the model with double_scaled=True, ddof=1.")
    state, separated = model.state_dict(), _separated(tensors)
    ours = {name: _our_name(name, rules) for name in separated}
    unknown = [name for name in separated if ours[name] not in state]
    named = {ours[name]: tensor for name, tensor in separated.items()}
    named |= {k: state[k] for k in ("lrs_mean", "lrs_std", "xp_mean", "xp_std") if k in state}  # the released targets have no scaling
    missing = [k for k in state if k not in named]
    if unknown or missing:
        raise MismatchError(f"The released weights do not fit the model: no place for {_some(unknown)}; nothing for {_some(missing)}.")
    for name, tensor in state.items():
        if named[name].shape != tensor.shape:
            raise MismatchError(f"{name} is {tuple(named[name].shape)} among the released weights; the model needs {tuple(tensor.shape)}.")
    model.load_state_dict(named)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") if names else "none"


_LEAF = r"((?:\.(?:weight|bias|running_mean|running_var|num_batches_tracked))?)"


def _our_name(name: str, rules: dict[str, str]) -> str:
    for pattern, ours in rules.items():
        if match := re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)") + _LEAF, name):
            *numbers, leaf = match.groups()
            for number in numbers:
                ours = ours.replace("*", number, 1)
            return ours + leaf
    return ""


def _separated(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With q and kv taken out of the joint tensors of torch's MultiheadAttention, and the query (1, 1, d) as a vector."""
    parts = {}
    for name, tensor in tensors.items():
        stem, _, leaf = name.rpartition(".")
        if leaf in ("in_proj_weight", "in_proj_bias"):
            kind, d = leaf.removeprefix("in_proj_"), len(tensor) // 3
            parts |= {f"{stem}.q.{kind}": tensor[:d], f"{stem}.kv.{kind}": tensor[d:]}
        elif leaf == "q_proj_weight":
            parts[f"{stem}.q.weight"] = tensor
        elif leaf == "k_proj_weight" and f"{stem}.v_proj_weight" in tensors:
            parts[f"{stem}.kv.weight"] = torch.cat([tensor, tensors[f"{stem}.v_proj_weight"]])
        elif leaf != "v_proj_weight" or f"{stem}.k_proj_weight" not in tensors:
            parts[name] = tensor.flatten() if leaf == "query" else tensor
    return parts


def kind_of(tensors: dict[str, Tensor]) -> str:
    """Which released model this is: ``"lrs"``, ``"xp_transformer"``, ``"xp"`` (autoencoder), ``"base"``, ``"pr"`` or ``"split"``.

    Raises
    ------
    MismatchError
        None of them.
    """
    if "data_embed.weight" in tensors:
        return "lrs" if tensors["data_embed.weight"].shape[1] == 21 else "xp_transformer"
    if "input_proj.weight" in tensors:
        return "xp"
    if "lamost_lrs_encoder.backbone.data_embed.weight" not in tensors:
        raise MismatchError(f"No released model has these names: {_some(sorted(tensors))}. Expected data_embed.weight, input_proj.weight or lamost_lrs_encoder.*.")
    if "lamost_lrs_encoder.shared_attention.query" in tensors:
        return "split"
    return "pr" if "lamost_lrs_decoder.decoder.0.weight" in tensors else "base"


def released_network(kind: str) -> SpectrumTransformer | XPAutoencoder | Alignment:
    """An untrained network as the released code builds it, of ``paper`` size."""
    as_released = {"double_scaled": True, "published_chunks": True}
    lrs, xp = replace(spectrum_transformer.PRESETS["paper"], **as_released), xp_autoencoder.PRESETS["paper"]
    if kind == "xp":
        return XPAutoencoder(xp, 0)
    if kind in ("lrs", "xp_transformer"):
        return SpectrumTransformer(lrs if kind == "lrs" else replace(spectrum_transformer.XP_PRESETS["paper"], **as_released), 0)
    return Alignment(SpectrumTransformer(lrs, 0), XPAutoencoder(xp, 0), replace(alignment.PRESETS["paper"], variant=kind), 0)


def convert(source, target) -> None:
    """Read a released checkpoint, and write it as safetensors with its sizes and the grid and normalisation of its spectra.

    Raises
    ------
    DataFileError
        The checkpoint cannot be read.
    MismatchError
        It is none of the released models, or not of their sizes.
    """
    tensors, settings = read_released(source)
    kind = kind_of(tensors)
    model = released_network(kind)
    if isinstance(model, SpectrumTransformer) and settings.get("num_heads", model.config.n_head) != model.config.n_head:
        raise MismatchError(f"{source} was trained with {settings['num_heads']} attention heads; the released model has {model.config.n_head}.")
    load_released(model, tensors)
    save_converted(target, kind, model)


def save_converted(path, kind: str, model: SpectrumTransformer | XPAutoencoder | Alignment) -> None:
    """Weights, sizes and ``INPUTS[kind]`` in one safetensors file."""
    card = model.card() if isinstance(model, Alignment) else asdict(model.config)
    save_tensors(path, dict(model.state_dict()), {"kind": "released", "model": kind, "card": card, "inputs": INPUTS[kind]})


def load_converted(path) -> tuple[nn.Module, dict]:
    """The model in a file that ``convert`` wrote, and for ``"lrs"`` and ``"xp"`` what its spectra have to be.

    Raises
    ------
    DataFileError
        Missing, truncated or corrupted file.
    MismatchError
        It holds something else.
    """
    tensors, meta = load_tensors(path)
    if meta.get("kind") != "released":
        raise MismatchError(f"{path} holds {meta.get('kind', 'something')!r}, not converted released weights.")
    if "alignment" in meta["card"]:
        model = Alignment.from_card(meta["card"])
    elif "d_latent" in meta["card"]:
        model = XPAutoencoder(AutoencoderConfig(**meta["card"]), 0)
    else:
        model = SpectrumTransformer(TransformerConfig(**meta["card"]), 0)
    model.load_state_dict(tensors)
    return model.eval(), meta["inputs"]
