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
    text = json.dumps({"format": FORMAT, **meta})
    data = save({k: v.detach().contiguous() for k, v in tensors.items()}, metadata={"spectrakit": text, "sha256": digest(tensors, text)})
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
        text, said = header["spectrakit"], header["sha256"]
        meta = json.loads(text)
        version = meta["format"]
    except (SafetensorError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise DataFileError(f"{path.name} cannot be read ({error}): it is truncated, corrupted, or not written by this package. "
                            "Fetch it again, or reinstall.") from error
    if version != FORMAT:
        raise DataFileError(f"{path.name} has format {version}, this version reads {FORMAT}: update spectrakit.")
    if said != digest(tensors, text):
        raise DataFileError(f"{path.name} has changed since it was written (it hashes to {digest(tensors, text)[:12]}, it says {said[:12]}): "
                            "the file is corrupted. Fetch it again, or reinstall.")
    bad = [k for k, v in tensors.items() if v.is_floating_point() and not torch.isfinite(v).all()]
    if bad:
        raise DataFileError(f"{path.name} holds NaN or infinite numbers in {', '.join(bad)}: it must not be used. Train it again.")
    return tensors, meta


def digest(tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 over the description, then names, shapes and bytes in the order of the names."""
    h = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        h.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        h.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()
