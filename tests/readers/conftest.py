"""Files as the surveys' data models describe them, a few pixels long where the format allows it; and the raw files, where they are."""

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

LAMOST_HEADER = {"TELESCOP": "LAMOST", "OBSID": 103232, "DATA_V": "LAMOST DR8", "RA": 330.909453, "DEC": -0.17471, "DESIG": "LAMOST J220338.26-001028.9",
                 "OBJTYPE": "FS", "FIBERTYP": "F-Std", "OBS_TYPE": "OBJ", "SLIT_MOD": "x2/3", "HELIO": True, "VACUUM": True, "COEFF0": 3.5682,
                 "COEFF1": 0.0001, "CLASS": "STAR", "SUBCLASS": "F4", "Z": 3.402e-05, "Z_ERR": 2.565e-05, "SNRG": 94.11, "SNRR": 118.57}


def as_bytes(*units, checksum=False):
    file = io.BytesIO()
    fits.HDUList(list(units)).writeto(file, checksum=checksum)
    return file.getvalue()


def header(**cards):
    return fits.Header([(key, value) for key, value in cards.items()])


def lamost(layout="image", rows=None, n=40, **cards):
    """A LAMOST LRS file: 5 x n_pix float32, or a table of one row; ``rows`` replaces arrays."""
    cards = {**LAMOST_HEADER, **cards}
    if layout == "pilot":
        cards = {**{k: v for k, v in cards.items() if k not in ("DATA_V", "OBSID", "SNRG", "SNRR")}, "EXTEN0": "Flux Inverse Subcontinuum Andmask Ormask",
                 "SN_G": 71.41}
    wave = 10 ** (3.5682 + 0.0001 * np.arange(n))
    rng = np.random.default_rng(1)
    parts = {"FLUX": rng.normal(600, 10, n), "IVAR": np.full(n, 0.01), "WAVELENGTH": np.ones(n) if layout == "pilot" else wave, "ANDMASK": np.zeros(n),
             "ORMASK": np.zeros(n), **(rows or {})}
    if layout != "table":
        return as_bytes(fits.PrimaryHDU(np.array(list(parts.values()), ">f4"), header(**cards)))
    table = [fits.Column(name, f"{n}E", array=np.asarray(value, ">f4")[None]) for name, value in parts.items()]
    return as_bytes(fits.PrimaryHDU(header=header(**cards)), fits.BinTableHDU.from_columns(table, name="COADD"))


ARMS = {"B": (3600.0, 60), "R": (3640.0, 70), "Z": (3680.0, 40)}  # overlaps as in DESI, on a lattice of 0.8 A


def desi(n=4, masks=None, objtype=("TGT", "TGT", "TGT", "SKY"), targets=(1 << 61, 1 << 60, 1 << 2, 1 << 32), coadd=True, arms=ARMS, sigma=0.9, compressed=False,
         fluxes=None, ivars=None):
    """A DESI coadd (or spectra) file of ``n`` fibres; sigma of the line spread in pixels."""
    rng = np.random.default_rng(2)
    ids = np.arange(n, dtype="i8") + 39633345008634465
    columns = [("TARGETID", "K", ids), ("COADD_FIBERSTATUS" if coadd else "FIBERSTATUS", "J", np.zeros(n, "i4")), ("TARGET_RA", "D", np.linspace(10, 11, n)),
               ("TARGET_DEC", "D", np.linspace(-1, 1, n)), ("OBJTYPE", "3A", np.array(objtype)), ("DESI_TARGET", "K", np.array(targets, "i8"))]
    columns += [] if coadd else [("EXPID", "J", np.arange(n, dtype="i4"))]
    units = [fits.PrimaryHDU(header=header(SPGRP="healpix")),
             fits.BinTableHDU.from_columns([fits.Column(name, form, array=array) for name, form, array in columns], name="FIBERMAP")]
    spread = np.exp(-0.5 * ((np.arange(11) - 5) / sigma) ** 2)
    for arm, (start, m) in arms.items():
        flux = (fluxes or {}).get(arm, rng.normal(1, 0.1, (n, m)))
        ivar = (ivars or {}).get(arm, rng.uniform(50, 150, (n, m)))
        mask = (masks or {}).get(arm, np.zeros((n, m))).astype("i4")
        wave_header, flux_header = header(BUNIT="Angstrom"), header(BUNIT="10**-17 erg/(s cm2 Angstrom)")
        units += [fits.ImageHDU(start + 0.8 * np.arange(m), wave_header, name=f"{arm}_WAVELENGTH"),
                  fits.ImageHDU(flux.astype("f4"), flux_header, name=f"{arm}_FLUX"),
                  fits.ImageHDU(ivar.astype("f4"), header(BUNIT="10**+34 (s2 cm4 Angstrom2) / erg2"), name=f"{arm}_IVAR"),
                  fits.CompImageHDU(mask, name=f"{arm}_MASK", compression_type="GZIP_1") if compressed else fits.ImageHDU(mask, name=f"{arm}_MASK"),
                  fits.ImageHDU(np.broadcast_to((spread / spread.sum())[None, :, None], (n, 11, m)).astype("f4"), name=f"{arm}_RESOLUTION")]
    scores = [fits.Column("TARGETID", "K", array=ids), fits.Column("MEDIAN_COADD_SNR_B", "E", array=np.linspace(3, 9, n))]
    units.append(fits.BinTableHDU.from_columns(scores, name="SCORES"))
    return as_bytes(*units, checksum=True)


def sdss(mask=None, n=50, **summary):
    """An SDSS spec-lite file: COADD and SPECOBJ."""
    rng = np.random.default_rng(3)
    arrays = {"flux": rng.normal(20, 1, n), "loglam": 3.5797 + 1e-4 * np.arange(n), "ivar": rng.uniform(1, 3, n), "wdisp": np.full(n, 1.1), "sky": np.ones(n)}
    columns = [fits.Column(name, "E", array=array) for name, array in arrays.items()]
    columns[3:3] = [fits.Column(name, "J", array=np.zeros(n, "i4") if mask is None else mask) for name in ("and_mask", "or_mask")]
    values = {"PLUG_RA": ("D", 150.1), "PLUG_DEC": ("D", 2.2), "CLASS": ("6A", "STAR"), "SUBCLASS": ("21A", "F5 (10647)"), "Z": ("E", -1.2e-4), "Z_ERR": ("E", 9e-6),
              "ZWARNING": ("J", 0), "THING_ID": ("J", 12345), "SN_MEDIAN": ("5E", [5, 20, 30, 28, 15]), "SN_MEDIAN_ALL": ("E", 25.0),
              "ELODIE_TEFF": ("E", 6431.0), "ELODIE_LOGG": ("E", 4.1), "ELODIE_FEH": ("E", -0.3)}
    values.update({name.upper(): (values[name.upper()][0], value) for name, value in summary.items()})
    specobj = [fits.Column(name, form, array=np.array([value])) for name, (form, value) in values.items()]
    primary = header(TELESCOP="SDSS 2.5-M", PLATEID=266, MJD=51602, FIBERID=3, VERS2D="v5_13_0", VACUUM=True, BUNIT="1E-17 erg/cm^2/s/Ang")
    return as_bytes(fits.PrimaryHDU(header=primary), fits.BinTableHDU.from_columns(columns, name="COADD"), fits.BinTableHDU.from_columns(specobj, name="SPECOBJ"))


def mastar(wave, flux, ivar, mask, disp, ids, heliov, **more):
    """A MaStar goodspec file, one row a visit."""
    n = len(wave)
    n_rows = len(flux)
    columns = [fits.Column("MANGAID", "25A", array=np.array(ids)), fits.Column("OBJRA", "D", array=np.full(n_rows, 33.0)),
               fits.Column("OBJDEC", "D", array=np.full(n_rows, 4.0)), fits.Column("HELIOV", "E", array=np.array(heliov)),
               fits.Column("MJDQUAL", "J", array=np.zeros(n_rows, "i4")), fits.Column("S2N", "E", array=np.full(n_rows, 99.0)),
               *(fits.Column(name.upper(), "E", array=np.array(value)) for name, value in more.items())]
    for name, array, form in (("WAVE", np.tile(wave, (n_rows, 1)), "D"), ("FLUX", flux, "E"), ("IVAR", ivar, "E"), ("MASK", mask, "J"), ("DISP", disp, "E")):
        columns.append(fits.Column(name, f"{n}{form}", array=array))
    return as_bytes(fits.PrimaryHDU(), fits.BinTableHDU.from_columns(columns, name="GOODVISITS"))


def apogee(kind="apStar", mask=None, visits=2, error=None, param=(4800.0, 2.5, 0.2, -0.4, 0.1, 0.2, 0.15), **columns):
    """An apStar or aspcapStar file of 8575 pixels with the gaps between the detectors."""
    rng = np.random.default_rng(4)
    n, rows = 8575, (visits + 2 if visits > 1 else 1) if kind == "apStar" else 1
    flux, sigma = rng.normal(1, 0.01, (rows, n)), np.full((rows, n), 0.01)
    for first, end in ((0, 200), (3300, 3550), (6150, 6300), (8400, n)):
        flux[:, first:end], sigma[:, first:end] = 0, 1e10
    sigma = sigma if error is None else error
    third = (np.zeros((rows, n), "i4") if mask is None else np.broadcast_to(mask, (rows, n)).astype("i4")) if kind == "apStar" else flux * 0.99
    grid = {"CRVAL1": 4.179, "CDELT1": 6e-6, "CRPIX1": 1, "CTYPE1": "LOG-LINEAR", "DC-FLAG": 1}
    arrays = [flux.astype("f4"), sigma.astype("f4"), third if kind == "apStar" else third.astype("f4")]
    if kind != "apStar" or visits == 1:
        arrays = [array[0] for array in arrays]
    primary = header(OBJID="2M00000002+7417074", RA=0.0001, DEC=74.285395, SNR=210.0, VHELIO=-12.5, STARFLAG=0, SFILE1="apVisit-r12-1.fits")
    primary.add_history("APOGEE Reduction Pipeline")
    bunit = "Flux (10^-17 erg/s/cm^2/Ang)"
    units = [fits.PrimaryHDU(header=primary), *(fits.ImageHDU(array, header(**grid, BUNIT=bunit)) for array in arrays)]
    if kind == "aspcapStar":
        table = [fits.Column("APOGEE_ID", "18A", array=np.array(["2M00000002+7417074"])), fits.Column("PARAM", f"{len(param)}E", array=np.array([param])),
                 fits.Column("ASPCAPFLAG", "K", array=np.array([0])), *(fits.Column(name.upper(), "E", array=np.array([v])) for name, v in columns.items())]
        units.append(fits.BinTableHDU.from_columns(table))
    return as_bytes(*units)


def xp_sampled(n=2, size=343, **columns):
    """A Gaia XP sampled file in CSV, arrays as text."""
    rng = np.random.default_rng(5)
    cell = lambda scale: "(" + ", ".join(f"{v:.7E}" for v in rng.uniform(1, 2, size) * scale) + ")"                     # noqa: E731
    rows = [{"source_id": i, "ra": 10.0 + i, "dec": -3.0, "flux": cell(1e-16), "flux_error": cell(1e-18), **columns} for i in range(1, n + 1)]
    return "".join([",".join(rows[0]) + "\n", *(",".join(f'"{v}"' if isinstance(v, str) else str(v) for v in row.values()) + "\n" for row in rows)]).encode()


def xp_continuous():
    """A table of one source of the Gaia XP continuous product, arrays as they are."""
    rng = np.random.default_rng(6)
    source = Table({"source_id": np.array([7]), "ra": [10.0], "dec": [-3.0]})
    for band in ("bp", "rp"):
        for name, size, scale in (("coefficients", 55, 100.0), ("coefficient_errors", 55, 0.1), ("coefficient_correlations", 1485, 0.01)):
            source[f"{band}_{name}"] = (scale * rng.uniform(0.1, 1, (1, size))).round(4)
    return source


def as_text(source):
    """A table as the archive's CSV: arrays as "(1.0, 2.0)"."""
    cell = lambda value: '"(' + ",".join(map(str, value)) + ')"' if np.ndim(value) else str(value)                       # noqa: E731
    return "".join(",".join(line) + "\n" for line in [source.colnames, *([cell(value) for value in row] for row in source.iterrows())]).encode()


def plain_csv(n=30):
    rows = [f"{500 + 0.1 * i:.1f},{1 + 0.01 * i:.4f},0.0500" for i in range(n)]
    return ("lambda,f,err\n" + "\n".join(rows) + "\n").encode()


def plain_npz(**changes):
    file = io.BytesIO()
    np.savez_compressed(file, **{"w": np.linspace(5000, 5010, 20), "f": np.ones((3, 20)), "e": np.full((3, 20), 0.1), "t": np.array([5000.0, 5500, np.nan]),
                                 "id": np.array(["a", "b", "a"]), **changes})
    return file.getvalue()


STATED = {"survey": "mine", "medium": "air", "frame": "heliocentric", "resolution": 2000.0, "normalization": "none"}
CSV = {**STATED, "columns": {"wave": ("lambda", "nm"), "flux": ("f", "1e-17 erg / (s cm2 Angstrom)"), "sigma": ("err", "1e-17 erg / (s cm2 Angstrom)")}}
NPZ = {**STATED, "columns": {"wave": ("w", "Angstrom"), "flux": ("f", ""), "sigma": ("e", "")}, "labels": {"star": ("id", None), "teff": ("t", "K")}}


@pytest.fixture(scope="session")
def build():
    """The builders of this module: ``build.lamost(...)`` gives a file's bytes."""
    from types import SimpleNamespace
    return SimpleNamespace(lamost=lamost, desi=desi, sdss=sdss, mastar=mastar, apogee=apogee, xp_sampled=xp_sampled, plain_csv=plain_csv, plain_npz=plain_npz,
                           STATED=STATED, CSV=CSV, NPZ=NPZ, ARMS=ARMS)


@pytest.fixture(scope="session")
def every_format():
    """name -> (bytes, keywords of read) of one sound file of each format that the kit reads without GaiaXPy."""
    n = 60
    wave = 10 ** (3.56 + 1e-4 * np.arange(n))
    library = mastar(wave, np.ones((2, n)), np.ones((2, n)), np.zeros((2, n), "i4"), np.full((2, n), 1.2), ["7-1", "7-2"], [10.0, -20.0])
    table = Table.read(xp_sampled().decode(), format="ascii.csv")
    for name in ("flux", "flux_error"):
        table[name] = np.array([np.fromstring(cell.strip("()"), sep=",") for cell in table[name]])
    written = {}
    for product, source in (("xp", table), ("xp continuous", xp_continuous())):
        for name, kind in (("votable", "votable"), ("ecsv", "ascii.ecsv"), ("fits", "fits")):
            file = io.BytesIO() if name != "ecsv" else io.StringIO()
            source.write(file, format=kind)
            written[f"{product} {name}"] = (file.getvalue() if isinstance(file, io.BytesIO) else file.getvalue().encode(), {})
    return {"lamost image": (lamost(), {}), "lamost image, gzipped": (gzip.compress(lamost(), mtime=0), {}), "lamost table": (lamost("table"), {}),
            "lamost pilot": (lamost("pilot"), {}), "desi": (desi(), {"objects": "all"}), "sdss": (sdss(), {}), "mastar": (library, {}), "apStar": (apogee(), {}),
            "aspcapStar": (apogee("aspcapStar"), {}), "xp csv": (xp_sampled(), {}), "xp continuous csv": (as_text(xp_continuous()), {}),
            **written, "csv": (plain_csv(), CSV), "npz": (plain_npz(), NPZ)}


@pytest.fixture
def put(tmp_path):
    """``put(content, name)`` writes a file and gives its path."""
    def write(content, name="file.fits"):
        path = tmp_path / name
        path.write_bytes(content)
        return path
    return write


@pytest.fixture(scope="session")
def raw():
    """``raw(name)``: the path of one of the surveys' own files, or a skip by name."""
    def find(name):
        folder = os.environ.get("SPECTRAKIT_DATA")
        path = Path(folder or ".") / "raw" / name
        if not folder or not path.is_file():
            pytest.skip(f"needs raw/{name} under SPECTRAKIT_DATA")
        return path
    return find
