"""Names, files and objects -> SpectraSet. The readers are the only place that knows a file format."""

from __future__ import annotations

import os
from pathlib import Path

from .. import manifests
from ..errors import DataFileError
from ..spectra import SpectraSet

BRIDGE = ("labels", "survey", "medium", "frame", "resolution", "normalization")


def read(source, *, objects: str = "stars", **stated) -> SpectraSet:
    """Spectra by name, from a file, or from an object of another package. What a file is is decided by its content, never by its name alone.

    Parameters
    ----------
    source : one of

        - the name of a manifest of spectra (``"miles"``, ``"stelib"``, ``"lamost_lrs"``, ``"gaia_xp"``), whose file is looked for in the folder that the
          environment variable ``SPECTRAKIT_DATA`` names; where it is not, MILES and STELIB are fetched from their public origin, file by file, and kept;
        - the path of a file, gzipped or not: LAMOST LRS, DESI coadd or spectra, SDSS spec, MaStar goodspec, APOGEE apStar or aspcapStar, Gaia XP
          continuous or sampled (CSV, ECSV, FITS, VOTable), plain CSV or npz, or what ``SpectraSet.write`` made (``.safetensors``);
        - what SPARCL's ``client.retrieve`` returned, or a ``specutils.Spectrum``.
    objects : ``"stars"`` refuses a file that holds galaxies, quasars, sky or what its survey could not classify; ``"all"`` keeps them, marked in
        ``labels["object_class"]`` and without stellar labels.
    stated : for a plain table: ``columns``, ``survey``, ``medium``, ``frame``, ``resolution``, ``normalization`` and perhaps ``labels``, see
        ``readers.tables.read``. For a ``Spectrum``: the keywords of ``SpectraSet.from_specutils``. Other files state these themselves.

    Returns
    -------
    SpectraSet with flux (n, n_pix), wavelengths in Angstrom, and labels with their units and, as ``description``, where they come from;
    ``provenance`` has origin, data-model page, SHA-256, the unit of flux, and how many pixels were masked for which reason.

    Raises
    ------
    DataFileError
        Unknown name or format; a file that is missing, damaged, or not the one that the manifest describes; the network is forbidden
        (``SPECTRAKIT_OFFLINE``) or not there; something is not stated.
    SpectrumError
        Objects that are no stars.
    """
    if objects not in ("stars", "all"):
        raise DataFileError(f'objects is {objects!r}; expected "stars" or "all".')
    if isinstance(source, str) and source in manifests.names():
        _none_stated(stated, f"the data set {source!r}")
        from . import archive
        return archive.read(manifests.load(source))
    from . import identify
    if isinstance(source, (str, os.PathLike)):
        name, spectra = Path(source).name, _file(source, stated)
    else:
        name, spectra = type(source).__name__, _object(source, stated)
    return identify.stars_only(spectra, name) if objects == "stars" else spectra


def _file(source, stated):
    from . import identify
    path = Path(source)
    if not path.exists() and not path.suffix:
        raise DataFileError(f"Cannot read {str(source)!r}: it is neither a data set ({', '.join(manifests.names())}) nor a file. Check name and path.")
    return identify.read(path, stated)


def _object(source, stated):
    from . import identify, sparcl
    if sparcl.is_results(source):
        _none_stated(stated, "a SPARCL result")
        return sparcl.read(source)
    if hasattr(source, "spectral_axis") and hasattr(source, "uncertainty"):
        if set(stated) != set(BRIDGE):
            raise DataFileError(f"A Spectrum needs the keywords {', '.join(BRIDGE)}, since it does not know them; given: {', '.join(stated) or 'none'}.")
        return SpectraSet.from_specutils(source, **stated)
    raise DataFileError(f"Cannot read a {type(source).__name__}; expected a name, a path, SPARCL results, or a specutils.Spectrum. Files can be: "
                        f"{', '.join(identify.FORMATS)}. Other arrays become a SpectraSet through SpectraSet(...).")


def _none_stated(stated, what):
    if stated:
        raise DataFileError(f"{what} states units, medium and frame itself; leave out {', '.join(stated)}.")
