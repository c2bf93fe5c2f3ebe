"""Files of numbers: safetensors with a JSON description inside, written to a temporary name and moved, checked when read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from torch import Tensor

from .errors import DataFileError

FORMAT = 1


def save_tensors(path, tensors: dict[str, Tensor], meta: dict) -> None:
    """Write tensors and their JSON-able description; a crash leaves the old file, never half a new one."""
    from safetensors.torch import save
    meta = {"format": FORMAT, **meta}
    data = save({k: v.detach().contiguous() for k, v in tensors.items()}, metadata={"spectrakit": json.dumps(meta), "sha256": digest(tensors)})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def load_tensors(path) -> tuple[dict[str, Tensor], dict]:
    """The tensors and their description.

    Raises
    ------
    DataFileError
        The file is missing, not safetensors, truncated, changed since it was written, of a newer format, or holds NaN.
    """
    from safetensors import SafetensorError, safe_open
    path = Path(str(path))
    if not path.is_file():
        raise DataFileError(f"There is no file {path.name} in {path.parent.name}/; expected a safetensors file. Check the name, or reinstall.")
    try:
        with safe_open(path, "pt") as f:
            header, tensors = f.metadata() or {}, {k: f.get_tensor(k) for k in f.keys()}
        meta = json.loads(header["spectrakit"])
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise DataFileError(f"{path.name} cannot be read ({error}): it is truncated, corrupted, or not written by this package. "
                            "Fetch it again, or reinstall.") from error
    if meta["format"] > FORMAT:
        raise DataFileError(f"{path.name} has format {meta['format']}, this version reads up to {FORMAT}: update spectrakit.")
    if header["sha256"] != digest(tensors):
        raise DataFileError(f"{path.name} has changed since it was written (its numbers hash to {digest(tensors)[:12]}, it says "
                            f"{header['sha256'][:12]}): the file is corrupted. Fetch it again, or reinstall.")
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise DataFileError(f"{path.name} holds NaN or infinite numbers in {', '.join(bad)}: it must not be used. Train it again.")
    return tensors, meta


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes, in the order of the names."""
    h = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        h.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        h.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()
