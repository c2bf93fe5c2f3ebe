#!/usr/bin/env python3
"""How far the label scales are apart: for every two catalogues with common stars, the median difference of each label.

    SPECTRAKIT_DATA=FOLDER python benchmarks/label_scales.py

Stars are paired by the normalised name both catalogues carry. APOGEE's Hipparcos stars get theirs from the Hypatia star within 10 arcsec; the LAMOST
catalogues have no names and are paired with the others by position, 3 arcsec. Of a star with several rows the median counts. FGK stars only
(4000-7000 K where a catalogue says so). Difference: second scale less first; its interval: 95 % of 2000 bootstrap samples; scatter: 1.48 times the
median absolute deviation, which holds the errors of both.
"""

from itertools import combinations

import numpy as np
import pandas as pd
from astropy import units as u
from astropy.coordinates import SkyCoord

from spectrakit.readers.local import find

LABELS = {"teff": 1.0, "logg": 0.01, "feh": 0.01, "alpha_fe": 0.01}              # and what counts as the unit of the last digit printed
LEAST = 8                                                                        # common stars below which nothing is said
ALPHA = ("mg", "si", "ca", "ti")


def table(name):
    path = find(name)
    if path is None:
        raise SystemExit(f"{name} was not found: set SPECTRAKIT_DATA to the folder whose real/ holds it.")
    if name.endswith("npz"):
        with np.load(path) as data:
            return pd.DataFrame({key: data[key] for key in ("key", "ra", "dec", "teff", "logg", "feh") if key in data})
    return pd.read_csv(path).rename(columns={"fe_h": "feh", "alpha_m": "alpha_fe"})


def with_alpha(frame, relative_to_iron):
    """alpha_fe: mean of Mg, Si, Ca, Ti over iron, at least two of them."""
    columns = [f"{element}_{'fe' if relative_to_iron else 'h'}" for element in ALPHA]
    mean = frame[columns].mean(axis=1).where(frame[columns].notna().sum(axis=1) >= 2)
    return frame.assign(alpha_fe=mean if relative_to_iron else mean - frame["feh"])


def scales():
    """Label scale -> its stars: one row each, with key or ra and dec, and those of the four labels it has."""
    frames = {"MILES": table("miles.npz"), "STELIB": table("stelib.npz"), "SPOCS II": table("labels_spocs2.csv.gz"),
              "SpecMatch-Emp": table("labels_specmatch_emp.csv.gz"), "Hypatia": with_alpha(table("labels_hypatia.csv.gz"), False),
              "Venn 2004": table("labels_venn04.csv.gz"), "JINAbase": with_alpha(table("labels_jinabase.csv.gz"), True),
              "APOGEE DR12": pd.concat([table("labels_apogee_dr12_hipparcos.csv.gz"), table("labels_apogee_dr12_lamost_dr2.csv.gz")]),
              "LASP DR10": table("labels_lamost_dr10_afg.csv.gz"), "LASP pilot": table("labels_lamost_pilot.csv.gz")}
    apogee = frames["APOGEE DR12"].reset_index(drop=True)
    rows, hypatia_rows = same_place(apogee, frames["Hypatia"], 10.0)
    names = dict(zip(rows, frames["Hypatia"]["key"].iloc[hypatia_rows], strict=True))
    frames["APOGEE DR12"] = apogee.assign(key=[names.get(i, f"APOGEE{i}") for i in range(len(apogee))])
    return {name: tidy(frame) for name, frame in frames.items()}


def tidy(frame):
    """FGK stars, one row each, with NaN for what is missing."""
    labels = [label for label in LABELS if label in frame]
    frame = frame[[c for c in ("key", "ra", "dec") if c in frame] + labels].astype({label: float for label in labels})
    frame[labels] = frame[labels].where(frame[labels] > -9000)
    if "teff" in frame:
        frame = frame[frame["teff"].between(4000, 7000)]
    return frame.groupby("key").median(numeric_only=True).reset_index() if "key" in frame else frame


def same_place(a, b, arcsec):
    """Row numbers in the two tables of stars closer than this; each star of ``a`` with the nearest of ``b``."""
    rows_a, rows_b = (np.flatnonzero(x["ra"].notna() & x["dec"].notna()) for x in (a, b))
    here, there = (SkyCoord(*(x[["ra", "dec"]].to_numpy()[rows].T * u.deg)) for x, rows in ((a, rows_a), (b, rows_b)))
    nearest, distance, _ = here.match_to_catalog_sky(there)
    close = distance < arcsec * u.arcsec
    return rows_a[close], rows_b[nearest[close]]


def common(a, b):
    """Rows of the two tables that are the same star."""
    if "key" in a and "key" in b:
        both = a.reset_index().merge(b.reset_index(), on="key")
        return a.loc[both["index_x"]], b.loc[both["index_y"]]
    if "ra" not in a or "ra" not in b:
        return a.iloc[:0], b.iloc[:0]
    rows = same_place(a, b, 3.0)
    return a.iloc[rows[0]], b.iloc[rows[1]]


def offset(difference, rng):
    """Median, its 95 % interval by bootstrap, 1.48 MAD."""
    samples = np.median(rng.choice(difference, (2000, len(difference))), axis=1)
    return np.median(difference), *np.quantile(samples, [0.025, 0.975]), 1.4826 * np.median(np.abs(difference - np.median(difference)))


def main():
    frames, rng, without = scales(), np.random.default_rng(0), []
    print("| scales (second less first) | label | n | median | 95 % | 1.48 MAD |\n|---|---|---|---|---|---|")
    for first, second in combinations(frames, 2):
        a, b = common(frames[first], frames[second])
        said = 0
        for label, unit in LABELS.items():
            if label not in a or label not in b:
                continue
            difference = b[label].to_numpy() - a[label].to_numpy()
            difference = difference[np.isfinite(difference)]
            if len(difference) >= LEAST:
                median, low, high, scatter = (f"{value:+.0f}" if unit == 1.0 else f"{value:+.2f}" for value in offset(difference, rng))
                print(f"| {f'{first}, {second}' if not said else ''} | {label} | {len(difference)} | {median} | {low} ... {high} | {scatter[1:]} |")
                said += 1
        if not said:
            without.append(f"{first}, {second} ({len(a)})")
    print("\nFewer than eight common stars: " + "; ".join(without))


if __name__ == "__main__":
    main()
