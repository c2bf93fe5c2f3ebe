"""Names and files -> SpectraSet. The readers are the only place that knows a file format."""

from __future__ import annotations

import os
from pathlib import Path

from .. import manifests
from ..errors import DataFileError
from ..spectra import SpectraSet
from . import archive, native

FORMATS = {".safetensors": native.read}


def read(source: str | os.PathLike) -> SpectraSet:
    """Spectra by name or from a file.

    Parameters
    ----------
    source : the name of a manifest (``"miles"``, ``"stelib"``, ``"lamost_lrs"``), whose file is looked for in the folder that the environment
        variable ``SPECTRAKIT_DATA`` names; or the path of a file that ``SpectraSet.write`` made (``.safetensors``).

    Returns
    -------
    SpectraSet with flux (n, n_pix), wavelengths in Angstrom, and labels with their units; medium, frame, resolution and the origin of
    the errors are those that the manifest declares.

    Raises
    ------
    DataFileError
        Unknown name or format; the file is missing, truncated, or not the one that the manifest describes.
    """
    if isinstance(source, str) and source in manifests.names():
        return archive.read(manifests.load(source))
    path = Path(source)
    if path.suffix in FORMATS:
        return FORMATS[path.suffix](path)
    raise DataFileError(f"Cannot read {str(source)!r}: it is neither a data set ({', '.join(manifests.names())}) nor a file in a known format "
                        f"({', '.join(FORMATS)}). Other arrays become a SpectraSet through SpectraSet(...) or SpectraSet.from_specutils.")
