"""Fits on disk: each member's adapters in peft's own format, so that others read them without this package, and one JSON for the rest."""

from __future__ import annotations

import json
import os
import shutil
from copy import copy
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from ..errors import DataFileError, MismatchError
from ..models.aligned import AlignedModel
from ..models.foundation import FoundationModel
from ..weights import digest, load_tensors, save_tensors
from .adapters import insert, load, state, trainable
from .fit import Fit
from .frozen import Frozen
from .placements import Placement

FORMAT, NAME, WEIGHTS = 1, "fit.json", "adapter_model.safetensors"


def save_fit(fit: Fit, folder) -> None:
    """See ``Fit.save``. Everything is written beside ``folder`` and then moved; a crash leaves the old fit or none, never half a new one.

    Raises
    ------
    DataFileError
        ``folder`` exists and holds something else than a fit.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / NAME).is_file():
        raise DataFileError(f"{folder.name} exists and is no saved fit (it has no {NAME}); give the name of a new folder.")
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    for k, values in enumerate(fit.states):
        _save_member(fit, values, fresh / f"member{k}")
    about = {"format": FORMAT, "label": fit.label, "placements": [p if isinstance(p, str) else asdict(p) for p in fit.placement], "steps": fit.steps,
             "residual_sigma": fit.residual_sigma, "budget": fit.budget, "history": fit.history, "members": len(fit.states), "model": _model(fit.model, fit.label)}
    (fresh / NAME).write_text(json.dumps(about, indent=1))
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_fit(folder, model: FoundationModel | AlignedModel) -> Fit:
    """A fit that ``Fit.save`` has written, on the ``model`` it was made from.

    Raises
    ------
    DataFileError
        No such fit, a file of it missing, or one of a newer format.
    MismatchError
        It was made from another model.
    """
    folder = Path(folder)
    if not (folder / NAME).is_file():
        raise DataFileError(f"There is no {NAME} in {folder.name}; expected a folder written by fit.save(folder).")
    about = json.loads((folder / NAME).read_text())
    if about["format"] != FORMAT:
        raise DataFileError(f"{folder.name} has format {about['format']}, this version reads {FORMAT}: update spectrakit.")
    model.require_label(about["label"])
    if about["model"] != _model(model, about["label"]):
        raise MismatchError(f"{folder.name} was made from another model than this one: the weights under the adapters differ. Load that model first.")
    placement = tuple(p if isinstance(p, str) else Placement(**{**p, "targets": tuple(p["targets"]), "part": tuple(p["part"])}) for p in about["placements"])
    network = insert(model.network(about["label"]), placement, seed=0)
    states = [_load_member(network, folder / f"member{k}") for k in range(about["members"])]
    return Fit(model, about["label"], placement, network, states, about["residual_sigma"], about["steps"], about["budget"], about["history"], Frozen(model))


def _save_member(fit: Fit, values: dict[str, Tensor], folder: Path) -> None:
    if not fit.placements:
        return save_tensors(folder / WEIGHTS, values, {"kind": "fit"})
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file
    load(fit.network, values)
    for name, config in fit.network.peft_config.items():
        (folder / name).mkdir(parents=True)
        weights = get_peft_model_state_dict(fit.network, adapter_name=name)
        save_file({k: v.detach().contiguous().cpu() for k, v in weights.items()}, folder / name / WEIGHTS, metadata={"format": "pt"})
        config = copy(config)
        config.inference_mode = True                                             # as peft writes it: who loads it wants to predict
        config.save_pretrained(folder / name)


def _load_member(network, folder: Path) -> dict[str, Tensor]:
    if not hasattr(network, "peft_config"):
        return load_tensors(folder / WEIGHTS)[0]
    from peft import set_peft_model_state_dict
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    for name in network.peft_config:
        try:
            found = set_peft_model_state_dict(network, load_file(folder / name / WEIGHTS), adapter_name=name)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise DataFileError(f"{folder.name}/{name} cannot be read ({error}): it is missing, truncated, or not written by fit.save. Train again.") from error
        absent = [key for key in trainable(network) if name in key.split(".") and key in found.missing_keys]
        if absent or found.unexpected_keys:
            raise DataFileError(f"{folder.name}/{name} does not hold this adapter: missing {absent[:2]}, unknown {list(found.unexpected_keys)[:2]}. Train again.")
    return state(network)


def _model(model: FoundationModel | AlignedModel, label: str) -> str:
    """Which weights the adapters were made for."""
    return digest(dict(model.network(label).state_dict()), label)
