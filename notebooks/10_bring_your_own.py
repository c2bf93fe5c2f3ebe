# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 10 Bring your own: from a file to labels that you can defend
#
# | | |
# |---|---|
# | **Question** | You have a file with a spectrum. What labels may you write down, with which errors, and how would you notice that you may not? |
# | **You will** | read a survey's file by hand and by the kit; skip each step of the preparation once and see what it costs; hear three witnesses; write a report that says where every number comes from; show the kit stars that it cannot know, and galaxies, and measure how well it notices |
# | **You need** | notebooks 00 and 01 |
# | **Time** | 45 minutes to read, about 2 minutes to run on 2 cores, about 1.5 GB of memory |
# | **Data** | a LAMOST file, real MILES stars and LAMOST galaxies when `SPECTRAKIT_DATA` names a folder that has them; otherwise files that the notebook makes. It says which. |

# %% tags=["parameters"]
profile = "full"                  # "ci" does the same with fewer stars
device = "cpu"

# %%
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from astropy.io import fits
from astropy.table import Table

import spectrakit as sk
from spectrakit.surveys import get_survey

sk.plots.use_style()
quick = profile == "ci"
assert profile in ("full", "ci") and device in ("cpu", "cuda"), "profile is full or ci, device is cpu or cuda"
folder = Path(tempfile.mkdtemp())
data = Path(os.environ.get("SPECTRAKIT_DATA", "nowhere"))
C = 299792.458                    # km/s

# %% [markdown]
# ## 1. A file
#
# The survey's own file where there is one; otherwise we make one, as LAMOST's data model describes it: five rows (flux, inverse variance, wavelength, two masks) and a header. A star of known labels
# that recedes with 60 km/s, a badly subtracted night-sky line at 5578.9 Å (vacuum) that the survey has flagged, a few dead pixels.

# %%
def observed(stars, velocity):
    """Rest-frame spectra as a survey delivers them: moved by a velocity (km/s), with a remnant of the sky's 5578.9 A line, flagged in bit 3 (BRIGHTSKY)."""
    moved = replace(stars, frame="heliocentric").to_rest(1 / (1 + velocity / C) - 1)
    sky = np.abs(moved.wave - 5578.9) < 4
    flux = np.where(moved.mask, 0, moved.flux) + 2.5 * sky * np.exp(-0.5 * ((moved.wave - 5578.9) / 1.5) ** 2)
    return replace(moved, flux=flux, ivar=np.where(moved.mask, 0, moved.ivar), frame="heliocentric"), np.where(sky, 1 << 3, 0)


def lamost_file(path, star, velocity):
    seen, bits = observed(star, velocity)
    bits[200:204] |= 1 << 0                                       # BADCCD
    rows = np.stack([seen.flux[0], seen.ivar[0], seen.wave, bits, bits]).astype(">f4")
    cards = {"TELESCOP": "LAMOST", "DATA_V": "MADE HERE", "OBSID": 1, "DESIG": "LAMOST J000000.00+000000.0", "RA": 0.0, "DEC": 0.0, "OBJTYPE": "Star",
             "FIBERTYP": "Obj", "OBS_TYPE": "OBJ", "SLIT_MOD": "x2/3", "HELIO": True, "VACUUM": True, "COEFF0": 3.5977, "COEFF1": 1e-4, "CLASS": "STAR",
             "SUBCLASS": "G2", "Z": velocity / C, "Z_ERR": 1e-5, "SNRG": 60.0}
    cards["COEFF0"] = round(float(np.log10(seen.wave[0])), 4)
    fits.PrimaryHDU(rows, fits.Header(list(cards.items()))).writeto(path)
    return path


path, real = data / "raw" / "spec-55859-F5902_sp03-232.fits.gz", True
if not path.is_file():
    made = sk.simulate(replace(get_survey("lamost_lrs"), snr=(60.0, 60.0)), 1, seed=1, labels=np.array([[5900.0, 4.2, -0.4, 0.1, 0.0]]))
    path, real = lamost_file(folder / "spec-made-here.fits", made, 60.0), False
print("a REAL LAMOST file:" if real else "a file MADE HERE, SPECTRAKIT_DATA names none:", path.name)

# %% [markdown]
# By hand first. Wavelengths are not in most files as numbers that one could trust: the header says how to compute them. What is unusable the survey says in *bits*, each with a name; and a flux of
# exactly zero is no flux.

# %%
with fits.open(path) as hdus:
    header, rows = hdus[0].header, hdus[0].data.astype("f8")
flux, ivar, stored, andmask, _ = rows
wave = 10 ** (header["COEFF0"] + header["COEFF1"] * np.arange(flux.size))
bits = {"BADCCD": 0, "BADPROFILE": 1, "NOSKY": 2, "BRIGHTSKY": 3, "BADCENTER": 4, "NODATA": 5}
reasons = {name: int((andmask.astype(int) >> bit & 1).sum()) for name, bit in bits.items()}
reasons |= {"flux is 0": int((flux == 0).sum()), "ivar <= 0": int((ivar <= 0).sum())}
mask = (andmask != 0) | (flux == 0) | (ivar <= 0)
print(f"{flux.size} pixels, {wave[0]:.1f}-{wave[-1]:.1f} A, vacuum: {header['VACUUM']}, heliocentric: {header['HELIO']}, class {header['CLASS']} {header['SUBCLASS']}")
print("unusable for a reason:", {name: n for name, n in reasons.items() if n}, " altogether:", mask.sum())

# %% [markdown]
# Now the kit. One function reads everything, and what a file is it decides by the content. Whatever it says has to be what we found:

# %%
star = sk.read(path)
assert np.allclose(star.wave, wave, rtol=1e-12) and np.array_equal(star.mask[0], mask)
assert np.array_equal(star.flux[0][~mask], flux[~mask]) and np.array_equal(star.ivar[0][~mask], ivar[~mask])
assert star.labels["z"][0] == header["Z"] and star.medium == ("vacuum" if header["VACUUM"] else "air") and star.frame == "heliocentric"
print(star)
for key in ("origin", "sha256", "units", "masked"):
    print(f"{key}: {star.provenance[key]}")
print(f"the catalogue's velocity: {C * star.labels['z'][0]:+.1f} km/s, still in the spectrum; class: {star.labels['object_class'][0]}")

# %% [markdown]
# **Takeaway.** No number without its meaning: medium, frame, unit of flux (LAMOST has none, it is relative), resolution, reasons for the mask, and the hash of the very file. The rest of this notebook uses
# each of them.
#
# A table of your own knows nothing of all this, and the kit does not guess. We write the same spectrum as a CSV, in nm, and read it back:

# %%
good = ~mask
csv = folder / "mine.csv"
Table({"lambda": wave[good] / 10, "f": flux[good], "err": ivar[good] ** -0.5}).write(csv, format="ascii.csv")
said = dict(columns={"wave": ("lambda", "nm"), "flux": ("f", ""), "sigma": ("err", "")}, survey="mine", medium="vacuum", frame="heliocentric", resolution=1800.0,
            normalization="none")
mine = sk.read(csv, **said)
assert np.allclose(mine.wave, wave[good]) and np.allclose(mine.flux[0], flux[good]) and np.allclose(mine.ivar[0], ivar[good])

# %% [markdown]
# And now files that are not what they seem: a login page that was saved as FITS, a download that broke off, a galaxy.

# %%
page, cut, galaxy = folder / "page.fits", folder / "cut.fits", folder / "galaxy.fits"
page.write_text("<!DOCTYPE html><html><body>Please log in</body></html>")
cut.write_bytes(path.read_bytes()[:-20000])
header["CLASS"] = "GALAXY"
fits.PrimaryHDU(rows.astype(">f4"), header).writeto(galaxy)
refused = {}
for name, asked in (("nothing stated", lambda: sk.read(csv)), ("a login page", lambda: sk.read(page)), ("a download that broke off", lambda: sk.read(cut)),
                    ("a galaxy", lambda: sk.read(galaxy)), ("a galaxy, insisted on",
                    lambda: sk.load_model("small").predict(sk.read(galaxy, objects="all").to_rest(0.0), "feh"))):
    try:
        asked()
    except ValueError as error:
        refused[name] = str(error)
        print(f"{name}: {error}"[:150] + " ...")
assert len(refused) == 5

# %% [markdown]
# **Takeaway.** A spectrum that is refused costs a minute, one that is misread costs a paper. The last line is the one to remember: a network would answer to the galaxy too, with three digits. The file's own word
# stops it here. Where a file says nothing (section 6), something else has to.
#
# ## 2. Rest frame, continuum, grid
#
# The model was pretrained on rest-frame spectra divided by a polynomial, on one grid of 1462 pixels. The star's velocity first. A pixel of the rest frame at $\lambda$ was observed at $\lambda (1 + z)$. Then the
# continuum: a polynomial of degree five, fitted with weights that count the noise *and* the lines (10 % of the flux), so that precise pixels inside lines do not pull it down:

# %%
def continuum_by_hand(wave, flux, ivar, mask):
    t = 2 * (wave - 3960) / (5640 - 3960) - 1
    basis, used, level = np.polynomial.legendre.legvander(t, 5), ~mask, np.full(wave.size, flux[~mask].mean())
    for last in (False, False, False, True):
        sigma = np.sqrt(1 / np.where(used, ivar, 1) + (0.1 * level) ** 2)
        weight = used / sigma
        fit = basis @ np.linalg.lstsq(basis * weight[:, None], flux * weight, rcond=None)[0]
        if last:
            return fit
        level = np.maximum(fit, 0.05 * flux[~mask].mean())
        used = used & (flux - level <= 4 * sigma)                                                     # emission and cosmic rays are left out
    return fit


z = float(star.labels["z"][0])
rest = star.to_rest(z)
near = (rest.wave > 4200) & (rest.wave < 5400) & ~rest.mask[0]
straight = np.interp(rest.wave * (1 + z), star.wave[~mask], star.flux[0][~mask])
assert np.abs(straight - rest.flux[0])[near].max() < 0.2 * np.std(rest.flux[0][near])                # linear here, cubic there
inside = (rest.wave >= 3960) & (rest.wave <= 5640)
part = [np.where(rest.mask[0], 0, array)[inside].astype("f8") for array in (rest.flux[0], rest.ivar[0])]
continuum = continuum_by_hand(rest.wave[inside], *part, rest.mask[0][inside] | (part[1] <= 0))
spectrum = sk.normalize(rest)
by_hand = np.interp(spectrum.wave, rest.wave[inside], part[0] / continuum)
assert np.allclose(by_hand[~spectrum.mask[0]], spectrum.flux[0][~spectrum.mask[0]], atol=2e-3)

# %% [markdown]
# What went in and what came out. Look at the dashed line: does it run along the top of the lines, or below it? (Our recipe follows the mean level, not the upper envelope; section 3 shows what happens if one is taken for the other.)

# %%
fig, axes = plt.subplots(2, 1, figsize=(10, 5))
shown = (star.wave > 3960) & (star.wave < 5640)
axes[0].plot(star.wave[shown], star.flux[0][shown], color="0.7", lw=0.8, label="as delivered (0 under the mask)")
axes[0].plot(star.wave[shown], np.where(mask, np.nan, star.flux[0])[shown], color=sk.plots.BLUE, lw=0.8, label="usable")
axes[0].plot(rest.wave[inside], continuum, "--", color=sk.plots.RED, lw=1.4, label="continuum by hand")
axes[0].set(xlabel="wavelength in vacuum, heliocentric [Å]", ylabel="flux [arbitrary]", ylim=(0, None), title=f"{path.name}: {'real' if real else 'made here'}")
axes[0].legend(fontsize=8, ncols=3, loc="lower right")
axes[1].plot(spectrum.wave, np.where(spectrum.mask[0], np.nan, spectrum.flux[0]), color=sk.plots.BLUE, lw=0.8)
for i, (line, at) in enumerate(sk.plots.LINES.items()):
    axes[1].text(at, 1.14 + 0.08 * (i % 2), line, ha="center", fontsize=8, color=sk.plots.GREY)
_ = axes[1].set(xlabel="wavelength in vacuum, rest frame [Å]", ylabel="flux / continuum", ylim=(0.3, 1.3), title="What the model reads: 1462 pixels", xlim=(3990, 5610))

# %% [markdown]
# ## 3. What if a step is skipped?
#
# The kit refuses what it can see: a frame that is not rest, air wavelengths in a vacuum grid, another normalisation, another sharpness. What it cannot see is a *wrong statement*. We make one at a time, on
# stars of known labels: computed models that the networks never saw, moved by 60 km/s, with the sky's remnant.
#
# **Predict first.** Six mistakes: velocity left in; air taken for vacuum; the sky line not masked; the published upper-envelope continuum taken for ours; a sharpness of R = 900 stated as 1800; errors forgotten
# (all pixels alike). Three witnesses: the networks `small` and `small_flux`, and the physical fit, which has a velocity, a continuum and errors of its own. Which mistake ruins whom?

# %%
n = 3 if quick else 40
truth = sk.simulate(replace(get_survey("lamost_lrs"), snr=(50.0, 50.0)), n, seed=5, models="held_out")
seen, sky_bits = observed(truth, 60.0)
flagged = replace(seen, mask=seen.mask | (sky_bits != 0))
back = lambda stars: sk.normalize(stars.to_rest(60.0 / C))                                                       # noqa: E731
dull = replace(sk.degrade(flagged.to_rest(60.0 / C), 900), resolution=flagged.resolution)
skipped = {
    "nothing skipped": back(flagged),
    "velocity left in": sk.normalize(replace(flagged, frame="rest")),
    "air taken for vacuum": sk.normalize(flagged.to_rest((1 + 60.0 / C) * 1.00028 - 1)),             # the refraction of air: the line of 5000.0 A is found at 4998.6
    "sky line not masked": back(seen),
    "another continuum": replace(sk.normalize(flagged.to_rest(60.0 / C), "specclip"), normalization="robust"),
    "R = 900, stated 1800": sk.normalize(dull),
    "errors forgotten": back(replace(flagged, ivar=np.where(flagged.mask, 0, 2500.0)))}

# %% [markdown]
# All witnesses now read all seven versions of the same stars. What is printed is the median *change* of a label against "nothing skipped"; the last line has the usual error of each witness, to compare the changes with. "Errors forgotten" is the control
# for the networks: they are not given errors at all, so nothing may change.

# %%
from spectrakit.models.physical import PhysicalFit

networks = {name: sk.load_model(name).to(device) for name in ("small", "small_flux")}
fitted = PhysicalFit(n_starts=2).fit_labels(sk.concatenate(*skipped.values()))
shift = {}
for k, (name, stars) in enumerate(skipped.items()):
    for label in ("teff", "feh"):
        for witness, model in networks.items():
            shift[name, witness, label] = model.predict(stars, label)[0]
        shift[name, "physical", label] = np.array(fitted[label])[k * n:(k + 1) * n]
witnesses = (*networks, "physical")
print(f"{'median change over ' + str(n) + ' stars':28s}" + "".join(f"{w:>22s}" for w in witnesses))
change = {}
for name in list(skipped)[1:]:
    for witness in witnesses:
        change[name, witness] = [float(np.median(shift[name, witness, x] - shift["nothing skipped", witness, x])) for x in ("teff", "feh")]
    print(f"{name:28s}" + "".join(f"{'{:+5.0f} K {:+.2f} dex'.format(*change[name, w]):>22s}" for w in witnesses))
spread = {w: float(np.std(shift["nothing skipped", w, "feh"] - truth.label("feh"))) for w in witnesses}
print(f"{'rms error when all is right':28s}" + "".join(f"{spread[w]:>18.2f} dex" for w in witnesses))
assert max(abs(x) for w in witnesses for x in change["errors forgotten", w]) < 15 and abs(change["velocity left in", "physical"][1]) < 0.02
assert abs(change["another continuum", "small_flux"][1]) > 0.15 and all(change["R = 900, stated 1800", w][1] < -0.05 for w in witnesses)

# %% [markdown]
# A median hides who is hit. The same with bars that hold 68 % of the stars: a long bar far from zero is a mistake that shifts some stars and not others, which no correction of the mean takes out.

# %%
fig, ax = plt.subplots(figsize=(8, 3.6))
names = list(skipped)[1:]
for k, (witness, color, marker) in enumerate(zip(witnesses, (sk.plots.RED, sk.plots.ORANGE, sk.plots.BLUE), "os^", strict=True)):
    rows_of = np.arange(len(names)) + 0.2 * (k - 1)
    values = np.array([shift[name, witness, "feh"] - shift["nothing skipped", witness, "feh"] for name in names])
    low, middle, high = np.percentile(values, [16, 50, 84], axis=1)
    ax.errorbar(middle, rows_of, xerr=[middle - low, high - middle], fmt=marker, color=color, ms=5, capsize=2, label=witness)
ax.axvline(0, color=sk.plots.GREY, lw=0.8)
ax.axvspan(-0.1, 0.1, color="0.93", zorder=0)
ax.set_yticks(range(len(names)), names)
ax.invert_yaxis()
ax.set(xlabel="change of [Fe/H] [dex]; grey: as large as the usual error", title=f"One step skipped, {n} stars: median and 68 % of the stars")
_ = ax.legend(fontsize=8, loc="best")

# %% [markdown]
# **Takeaway.** The networks were told what a spectrum looks like and believe it; the physical fit solves for velocity and continuum and is not impressed. Only a wrong sharpness fools all three, in the same
# direction: shallower lines are less metal. And *forgetting the errors* changes no label at all: the networks do not read them. It changes what you believe of the labels, which is worse.
#
# None of these mistakes left a trace in the networks' own errors: `small` says the same sigma for every star. So the errors of one witness do not warn of a mistake. A *disagreement* can.
#
# ## 4. Three witnesses
#
# `small` reads tokens, `small_flux` the pixels themselves; both learned from the same simulated stars. The physical fit learned from nobody, but the library it fits made those stars.
#
# **Predict first.** Their errors on one star: do they go together, and whose most? And is a difference of two networks twice as large as their sigmas a reason to worry?

# %%
from spectrakit.witnesses import library_spectra, measure

try:
    stars, measured = sk.read("miles"), True
    stars = stars[stars.labelled("teff", "logg", "feh")]
    stars = stars[(stars.label("teff") > 4200) & (stars.label("teff") < 7000)]
    stars = stars[sk.experiments.in_hull(stars)]
except ValueError as missing:
    print(str(missing)[:120], "...")
    stars, measured = sk.simulate("miles", 300, seed=8, models="held_out"), False
stars = sk.normalize(stars[np.random.default_rng(0).permutation(len(stars))[:5 if quick else 100]])
table, against = measure(stars, networks)
miss = {w: np.asarray(table[f"feh_{w}"]) - stars.label("feh") for w in witnesses}
sigma = {w: np.asarray(table[f"feh_{w}_sigma"]) for w in witnesses}
print(f"{len(stars)} {'REAL MILES stars, labels of the literature' if measured else 'SIMULATED stars, computed models unseen by all'}")
for w in witnesses:
    print(f"[Fe/H] by {w:11s} {sk.metrics.score(stars.label('feh'), np.asarray(table[f'feh_{w}']), n_boot=200)}\n"
          f"{'':22s}typical sigma as stated {np.median(sigma[w]):.3f} dex; error / sigma has a spread of {np.std(miss[w] / sigma[w]):.2f}, should be 1")
together = np.corrcoef([miss[w] for w in witnesses])
fig, axes = plt.subplots(1, 3, figsize=(10, 3.5), sharex=True, sharey=True)
for k, (ax, (i, j)) in enumerate(zip(axes, ((0, 1), (0, 2), (1, 2)), strict=True)):
    ax.plot([-0.5, 0.5], [-0.5, 0.5], color=sk.plots.GREY, lw=0.8, ls=":")
    ax.plot(miss[witnesses[i]], miss[witnesses[j]], "o", ms=4, color=(sk.plots.RED, sk.plots.BLUE, sk.plots.ORANGE)[k], alpha=0.6, mew=0)
    ax.set(xlabel=f"error of {witnesses[i]} [dex]", ylabel=f"error of {witnesses[j]} [dex]", title=f"correlation {together[i, j]:.2f}", xlim=(-0.55, 0.55), ylim=(-0.55, 0.55))
_ = fig.suptitle(f"Errors of [Fe/H], {len(stars)} {'real' if measured else 'simulated'} stars: on the dotted line both err alike", fontsize=10)
assert quick or not measured or together.min() > 0.5

# %% [markdown]
# **Takeaway.** The three err together: they share a library, and on real stars also the error of the literature. So agreement is a *necessary* test, and a weak one: three witnesses who went to the same school can agree on
# something wrong. Disagreement, on the other hand, always means that somebody is. The kit takes the largest difference in four labels, in units of the two sigmas, and objects above 4: with a dozen comparisons
# a star, and sigmas that are means over all S/N, 2 would be met too often:

# %%
pairs = [np.abs(table[f"{x}_{a}"] - table[f"{x}_{b}"]) / np.hypot(table[f"{x}_{a}_sigma"], table[f"{x}_{b}_sigma"])
         for x in ("teff", "logg", "feh", "alpha_fe") for a, b in (("small", "small_flux"), ("small", "physical"), ("small_flux", "physical"))]
apart = np.max([np.asarray(pair) for pair in pairs], axis=0)
assert np.allclose(apart, table["apart"])
print({f"apart > {limit}": f"{np.mean(apart > limit):.0%}" for limit in (1, 2, 3, 4)}, f"of {len(stars)} stars that are as they should be")

# %% [markdown]
# ## 5. The report
#
# Now the file of section 1. `sk.report` prepares, asks all witnesses, and holds against each star what can be held against it; `write` leaves a folder that can be handed on: labels with units (ECSV), figure (PNG, PDF), a page
# of text (Markdown), and the provenance (JSON) with the hashes of file, weights and library, versions, and what to cite.

# %%
report = sk.report(rest, networks)
row = report.table[0]
for label, unit, digits in (("teff", "K", 0), ("logg", "dex", 2), ("feh", "dex", 2), ("alpha_fe", "dex", 2)):
    print(f"{label:9s}" + "".join(f"{w:>14s} {row[f'{label}_{w}']:8.{digits}f} +- {row[f'{label}_{w}_sigma']:.{digits}f}" for w in witnesses), unit)
print(f"S/N {row['snr']:.0f}, distance {row['distance']:.1f}, chi2 {row['chi2']:.2f}, apart {row['apart']:.1f}; flags: {row['flags'] or 'none'}")
written = report.write(folder / "report")
print("written:", *sorted(file.name for file in written.iterdir()))
print("to cite:", *[line.split("{")[1].split(",")[0] for line in report.provenance["cite"].splitlines() if line.startswith("@")])
assert row["feh_small"] == networks["small"].predict(spectrum, "feh")[0][0]
assert report.provenance["spectra"]["sha256"] == __import__("hashlib").sha256(path.read_bytes()).hexdigest()
_ = report.figure()

# %% [markdown]
# **Takeaway.** Three numbers for each label, not one mean: what to make of them is your decision, and the reader's. The hash of the file in the report is that of the bytes on your disk (the last line but one proves it), so who
# doubts a number can repeat it.
#
# ## 6. What to distrust
#
# A network answers to everything. Four numbers may give away a spectrum that it should not have been asked about:
#
# * **S/N** below the least that pretraining had;
# * the **distance** of its embedding from those of pretraining spectra: $d^2 = (z - m)^T S^{-1} (z - m)$, with mean and covariance of 400 of them;
# * **chi-square** of the physical fit, against noise and stated model error: above 2, the library cannot be brought to look like it;
# * the **disagreement** of section 4.
#
# The distance written out, and its limit: 99 % of pretraining spectra lie within it, counted on spectra that the covariance has not seen.

# %%
small = networks["small"]
far, limit = sk.novelty.distance(small, stars)
known = sk.novelty.Pretrained.of(small)
for i in range(3):
    off = small.embed(stars[i])[0].astype("f8") - known.mean
    squared = sum(off[a] * known.precision[a, b] * off[b] for a in range(len(off)) for b in range(len(off)))
    assert np.isclose(squared**0.5, far[i])
print(f"limit {limit:.1f}; {len(stars)} stars of section 4: median {np.median(far):.1f}, {np.mean(far > limit):.0%} outside")

# %% [markdown]
# Who should not be asked about? With real data: hot stars and M stars of MILES, the galaxies that LAMOST found among its targets, read as if nobody had said what they are. Without: caricatures of them. And in both cases spectra of
# nothing but noise.

# %%
def caricature(kind, n, seed):
    """n spectra on the LAMOST grid, S/N 60, of what is not in the library: "hot", "cool", "galaxy", "noise"."""
    rng, base = np.random.default_rng(seed), get_survey("lamost_lrs")
    stars = sk.simulate(replace(base, snr=(1e4, 1e4)), n, seed=seed, labels=np.tile([4600.0, 2.5, -0.1, 0.0, 0.0], (n, 1)))
    w = stars.wave
    if kind == "galaxy":                                          # old stars with a spread of 200 km/s, and glowing gas
        stars = sk.degrade(stars, 600)
        flux = stars.flux * (1 + sum(h * np.exp(-0.5 * ((w - at) / 4) ** 2) for h, at in ((0.4, 4862.7), (0.5, 4960.3), (1.5, 5008.2))))
    elif kind == "hot":                                           # hydrogen and helium, no metals
        lines = [(0.55, at, 12) for at in (3971.2, 4102.9, 4341.7, 4862.7)] + [(0.15, at, 2) for at in (4027.3, 4389.2, 4472.7, 4923.3, 5017.1)]
        flux = (w / 4800) ** -3.0 * np.prod([1 - d / (1 + ((w - at) / s) ** 2) for d, at, s in lines], axis=0) * np.ones((n, 1))
    elif kind == "cool":                                          # bands of TiO, degraded to the red
        bands = [(0.5, 4762), (0.6, 4956), (0.65, 5168), (0.5, 5450)]
        flux = (w / 4800) ** 3.0 * np.prod([1 - d * (w > at) * np.exp(-(w - at) / 90) for d, at in bands], axis=0) * stars.flux
    else:
        flux = np.ones(stars.flux.shape)
    flux = flux * (1 + 0.1 * rng.standard_normal((n, 1)) * np.linspace(-1, 1, w.size))
    noise = flux.mean(1, keepdims=True) / 60
    return replace(stars, flux=flux + noise * rng.standard_normal(flux.shape), ivar=np.broadcast_to(noise**-2.0, flux.shape).copy(), resolution=base.resolution(w))


# %% [markdown]
# The real ones, or these; then everything through the same `measure` as the good stars. The table has the share of each group that each objection holds for. Its first row is the control: stars that nobody should object to.

# %%
unlabelled = lambda s: replace(s, labels=Table({"star": np.asarray(s.labels["star"]).astype(str)}))               # noqa: E731
m = 1 if quick else 24
if measured:
    miles, lamost = sk.read("miles"), sk.read("lamost_lrs")
    teff, whole = np.asarray(miles.labels["teff"]), sk.coverage(miles) >= 0.9
    galaxies = lamost[np.asarray(lamost.labels["object_class"]) == "galaxy"]
    groups = {"hot stars": miles[(teff > 8500) & whole][:m], "M stars": miles[(teff < 3800) & whole][:m],
              "galaxies": galaxies.to_rest(np.asarray(galaxies.labels["z"]))[:m]}
else:
    groups = {"hot stars": caricature("hot", m, 1), "M stars": caricature("cool", m, 2), "galaxies": caricature("galaxy", m, 3)}
groups = {name: sk.normalize(unlabelled(group)) for name, group in {**groups, "noise": caricature("noise", min(m, 8), 4)}.items()}
found = {"as they should be": (table, against)}
for kind in dict.fromkeys((group.survey, group.noise) for group in groups.values()):                               # a fit has its start-up costs: one for all of a kind
    alike = {name: group for name, group in groups.items() if (group.survey, group.noise) == kind}
    rows_of, signs = measure(sk.concatenate(*alike.values()), networks)
    ends = np.cumsum([0] + [len(group) for group in alike.values()])
    for name, a, b in zip(alike, ends, ends[1:], strict=False):
        found[name] = rows_of[a:b], {reason: held[a:b] for reason, held in signs.items()}
print(f"{'share flagged':22s}{'n':>4s}" + "".join(f"{reason:>28s}" for reason in against) + f"{'any':>8s}")
for name, (rows_of, signs) in found.items():
    print(f"{name:22s}{len(rows_of):4d}" + "".join(f"{np.mean(held):28.0%}" for held in signs.values()) + f"{np.mean(np.any(list(signs.values()), axis=0)):8.0%}")

# %% [markdown]
# **Predict first.** To nothing but noise the physical fit does not object. Why does it like it? And which labels does `small` give to noise, with what error?

# %%
for name, (rows_of, _) in found.items():
    print(f"{name:20s} median: {np.median(rows_of['teff_small']):5.0f} K, log g {np.median(rows_of['logg_small']):.1f}, [Fe/H] {np.median(rows_of['feh_small']):+.1f} +- "
          f"{np.median(rows_of['feh_small_sigma']):.2f}   distance {np.median(rows_of['distance']):5.1f}   chi2 {np.median(rows_of['chi2']):6.2f}   apart {np.median(rows_of['apart']):4.1f}")
fig, axes = plt.subplots(1, 2, figsize=(10, 4))
for (name, (rows_of, _)), color, marker in zip(found.items(), (sk.plots.GREY, sk.plots.BLUE, sk.plots.RED, sk.plots.ORANGE, "black"), "osD^x", strict=True):
    axes[0].plot(rows_of["distance"], rows_of["chi2"], marker, ms=5, color=color, alpha=0.7, label=name)
    axes[1].plot(rows_of["snr"], rows_of["apart"], marker, ms=5, color=color, alpha=0.7)
axes[0].axvline(limit, color=sk.plots.GREY, ls=":", lw=1)
axes[0].axhline(2, color=sk.plots.GREY, ls=":", lw=1)
axes[0].set(yscale="log", xlabel="distance from the pretraining spectra", ylabel="chi-square of the physical fit", title="dotted: the limits")
axes[1].axhline(4, color=sk.plots.GREY, ls=":", lw=1)
axes[1].axvline(15, color=sk.plots.GREY, ls=":", lw=1)
axes[1].set(xscale="log", yscale="log", xlabel="S/N per pixel", ylabel="disagreement of witnesses [sigma]", title="dotted: the limits")
_ = fig.legend(fontsize=8, ncols=5, loc="outside lower center")

# %% [markdown]
# How good is each number at telling who should not have been asked? Count pairs, one from outside and one from inside: in which share of them has the outsider the larger number? That share is the *area under the ROC curve*;
# 0.5 is a coin, and a coin is the control.

# %%
from sklearn.metrics import roc_auc_score, roc_curve

outside = np.concatenate([np.full(len(rows_of), name != "as they should be") for name, (rows_of, _) in found.items()])
column = lambda key: np.concatenate([np.asarray(rows_of[key]) for rows_of, _ in found.values()])                  # noqa: E731
numbers = {"distance": column("distance"), "chi-square": column("chi2"), "disagreement": column("apart"), "1 / (S/N)": 1 / column("snr"),
           "a coin": np.random.default_rng(0).random(len(outside))}         # the coin is the control
auc = {}
for name, x in numbers.items():
    auc[name] = np.mean([(a > b) + 0.5 * (a == b) for a in x[outside] for b in x[~outside]])
    assert np.isclose(auc[name], roc_auc_score(outside, x))
rng = np.random.default_rng(1)
fig, ax = plt.subplots(figsize=(5.6, 4.2))
for (name, x), color, style in zip(numbers.items(), (sk.plots.RED, sk.plots.BLUE, sk.plots.ORANGE, sk.plots.GREEN, sk.plots.GREY), ("-", "--", "-.", ":", (0, (1, 3))), strict=True):
    a, b = x[outside], x[~outside]
    draws = [np.mean(rng.choice(a, len(a))[:, None] > rng.choice(b, len(b))) for _ in range(200)]
    false, true, _ = roc_curve(outside, x)
    ax.plot(false, true, ls=style, color=color, lw=1.6, label=f"{name}: {auc[name]:.2f} ({np.percentile(draws, 16):.2f}-{np.percentile(draws, 84):.2f})")
ax.set(xlabel="share of good stars objected to", ylabel="share of outsiders noticed", title=f"{(~outside).sum()} good, {outside.sum()} outsiders; area, 68 % interval")
_ = ax.legend(fontsize=8, loc="lower right")
any_flag = np.concatenate([np.any(list(signs.values()), axis=0) for _, signs in found.values()])
print(f"any flag: {any_flag[outside].mean():.0%} of {outside.sum()} outsiders noticed, {any_flag[~outside].mean():.0%} of {(~outside).sum()} good stars objected to")
assert auc["distance"] > 0.8 and any_flag[outside].mean() > 0.8 and auc["distance"] > auc["a coin"] + 0.2

# %% [markdown]
# **Takeaway.** No single number does it. The distance *ranks* best, but its limit lets some pass: it was set by pretraining spectra, which are wilder than good stars are. Chi-square sees hot and M stars at once and *likes* noise,
# and faint galaxies too where they are real, because errors as large as theirs excuse everything. The witnesses, asked about what they do not know, fall out with each other. Together they notice most. Read the first row of the table as
# well: each limit objects to some good stars, and a star at the edge of the library is flagged though nothing need be wrong with it.
#
# A cut in S/N alone, which is what most catalogues come with, is hardly better than the coin: it knows nothing of what the object is.
#
# ## 7. Many spectra
#
# A thousand stars fit in memory, a million do not. The store writes sets one after the other and reads any rows, in any order, each with its checksum:

# %%
sets = (sk.normalize(sk.simulate("lamost_lrs", 64, seed=k)) for k in range(4))                                    # in real life: sk.read(path) for path in paths
many = sk.store.Store(sk.store.write(folder / "many.arrow", sets))
print(many)
feh = np.concatenate([networks["small_flux"].predict(part, "feh")[0] for part in many.sets(100)])
print(f"{len(feh)} labels in pieces of 100; scatter {np.std(feh - many.labels['feh']):.2f} dex")
assert np.allclose(networks["small_flux"].predict(many[[200, 3, 77]], "feh")[0], feh[[200, 3, 77]], atol=1e-4)
content = bytearray((folder / "many.arrow").read_bytes())
content[len(content) // 2] ^= 1                                   # one bit, as a bad cable does it
(folder / "damaged.arrow").write_bytes(content)
try:
    sk.store.Store(folder / "damaged.arrow")[:]
except ValueError as error:
    print("one flipped bit:", str(error).replace(str(folder) + os.sep, "")[:90], "...")
else:
    raise AssertionError("a flipped bit went unnoticed")

# %% [markdown]
# ## 8. From a name: manifests, citations, catalogues
#
# Published sets have a *manifest*: origin, licence, hash of every file, what the columns mean, what to cite. `sk.read("miles")` looks for the data on your disk, else fetches it, file by file, each compared with its hash. Without network it
# says what is missing:

# %%
print({name: sk.manifests.load(name).kind for name in sk.manifests.names()})
print("to cite for MILES and STELIB together:", sk.cite("miles", "stelib").count("@"), "entries, shared ones once")
before = {name: os.environ.get(name) for name in ("SPECTRAKIT_OFFLINE", "SPECTRAKIT_CACHE")}
os.environ.update(SPECTRAKIT_OFFLINE="1", SPECTRAKIT_CACHE=str(folder / "cache"))
try:
    sk.fetch("miles", sk.manifests.load("miles").public()[0]["file"])
except ValueError as error:
    print(str(error).replace(str(folder), "<folder>"))
finally:
    for name, value in before.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})

# %% [markdown]
# Labels come from one catalogue, spectra from another: they are joined by position. The rule of the kit: a spectrum gets labels only if *exactly one* row can be meant, and whatever is dropped is counted, with its reason.
#
# **Predict first.** 300 spectra and a catalogue, made up: 40 spectra are not in it; 15 rows are there twice, 3 arcsec apart or less; 20 spectra are of galaxies; 5 have no position. With a radius of 1 arcsec, how many spectra get labels? And with 5?

# %%
rng = np.random.default_rng(2)
base = sk.simulate("desi", 300, seed=3)
ra, dec = rng.uniform(150, 152, 300), rng.uniform(1, 3, 300)
labels = Table({"star": np.arange(300).astype(str), "ra": ra, "dec": dec, "object_class": np.where(np.arange(300) < 20, "galaxy", "star")})
labels["ra"][20:25] = np.nan
spectra = replace(base, labels=labels)
listed = np.arange(300) < 260
catalogue = Table({"ra": ra[listed] + rng.normal(0, 0.1, 260) / 3600, "dec": dec[listed] + rng.normal(0, 0.1, 260) / 3600, "fe_h": rng.normal(-0.3, 0.3, 260)})
for i in range(100, 115):
    catalogue.add_row((ra[i], dec[i] + 0.2 * (i - 99) / 3600, 0.0))
for radius in (1, 5):
    match = sk.crossmatch.by_position(spectra, catalogue, {"feh": ("fe_h", "dex")}, radius=radius, scale="made up")
    print(f"{radius} arcsec: {len(match.stars)} labelled; dropped: {match.dropped}")
    assert len(match.stars) + sum(match.dropped.values()) == 300

# %% [markdown]
# **Takeaway.** A larger radius gives *fewer* labels here, because more rows become ambiguous, and none is guessed. `docs/crossmatch.md` has the recipe of the DESI-APOGEE set of the LoRA study, step by step.
#
# ## 9. Try it
#
# One function: choose a spectrum from a gallery (my file, a good star, a hot star, an M star, a galaxy, noise: 0 to 5), lower its S/N, watch labels and objections. The bars are the four numbers over their limits; whatever passes the line is a flag.

# %%
def worse(one, snr, seed=0):
    """The spectrum with noise added, to this S/N per pixel; as it is when it has no more."""
    own, level = (np.median(x[0][~one.mask[0]]) for x in (one.flux * np.sqrt(one.ivar), one.flux))
    more = level * np.sqrt(max(snr**-2.0 - own**-2.0, 0))
    flux = one.flux + more * np.random.default_rng(seed).standard_normal(one.flux.shape)
    return replace(one, flux=flux, ivar=np.where(one.mask, 0, 1 / (1 / np.where(one.mask, 1, one.ivar) + more**2)))


def show(star=4, snr=60):
    name, one = list(gallery)[star], worse(list(gallery.values())[star], snr)
    (row,), signs = measure(one, networks)
    over = library_spectra(np.array([[row[f"{x}_physical"] for x in ("teff", "logg", "feh", "alpha_fe", "c_fe")]]), one)
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), width_ratios=(2, 1))
    axes[0].plot(one.wave, np.where(one.mask[0], np.nan, one.flux[0]), color="0.6", lw=0.7, label=name)
    axes[0].plot(over.wave, over.flux[0], "--", color=sk.plots.RED, lw=0.9, label="library, physical fit")
    axes[0].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", ylim=(0, 1.7),
                title="[Fe/H]: " + ", ".join(f"{w} {row[f'feh_{w}']:+.2f}" for w in witnesses))
    axes[0].legend(fontsize=8, ncols=2, loc="upper right")
    bars = {"15 / (S/N)": 15 / row["snr"], "distance / limit": row["distance"] / limit, "chi-square / 2": row["chi2"] / 2, "disagreement / 4": row["apart"] / 4}
    axes[1].barh(list(bars), np.minimum(list(bars.values()), 4), color=[sk.plots.RED if x > 1 else sk.plots.BLUE for x in bars.values()], hatch=["//" if x > 1 else "" for x in bars.values()],
                 edgecolor="white")
    axes[1].axvline(1, color="black", lw=1)
    axes[1].invert_yaxis()
    axes[1].set(xlim=(0, 4), xlabel="number / its limit (hatched: above)", title="\n".join(reason for reason, held in signs.items() if held[0]) or "no flag")
    axes[1].title.set_fontsize(8)
    plt.show()


gallery = {"my file": spectrum, "a good star": stars[0], **{name: group[int(np.argmax(found[name][0]["snr"]))] for name, group in groups.items()}}        # the best of each
show()

# %% [markdown]
# As code, without the picture: `sk.report(worse(gallery["galaxies"], 60)).table["flags"]`.
#
# The same with two controls, where a kernel is running. Down to which S/N does the galaxy give itself away, and by what? What happens to [Fe/H] of your own file?

# %% tags=["nbval-ignore-output"]
import ipywidgets

_ = ipywidgets.interact(show, star=ipywidgets.IntSlider(4, 0, len(gallery) - 1, continuous_update=False), snr=ipywidgets.IntSlider(60, 5, 100, description="S/N", continuous_update=False))

# %% [markdown]
# ## 10. Exercises
#
# Put your lines in place of `return None`, below the check, and run the cell: it says whether you are done, or gives a hint. Solutions are folded away at the very end.
#
# **Exercise 1** (easy, 5 minutes). Count, for each bit of a mask, the pixels that have it set.

# %%
from spectrakit.exercises import told


def check_bits(function):
    words = np.random.default_rng(0).integers(0, 64, 500)
    right = np.array([(words & 1 << k > 0).sum() for k in range(6)])
    told(1, function(words, (0, 1, 2, 3, 4, 5)), (6,), (
        (lambda x: np.array_equal(x, [(words == k).sum() for k in range(6)]), "You compare the whole word with the bit's number. A word can have several bits set."),
        (lambda x: np.array_equal(x, [(words & k > 0).sum() for k in range(6)]), "Bit k is the number 2^k, not k."),
        (lambda x: np.array_equal(x, [(words & 1 << k).sum() for k in range(6)]), "You add up the values 2^k. Count the pixels that have the bit."),
        (lambda x: not np.array_equal(x, right), "Shift the word by k places to the right, and look at the last bit.")))


def count_bits(mask, bits):
    """How many of the whole numbers in mask (n,) have each of these bits set: (len(bits),)."""
    return None


check_bits(count_bits)

# %% [markdown]
# **Exercise 2** (medium, 15 minutes). A colleague's table does not say whether its wavelengths are in air or in vacuum. The star is at rest. Decide from the spectrum: in air, all wavelengths are shorter by a factor 1.00028.

# %%
test_stars = sk.normalize(sk.simulate("lamost_lrs", 40, seed=9, models="held_out"))
is_vacuum = np.random.default_rng(1).random(40) < 0.5
test_waves = np.where(is_vacuum[:, None], test_stars.wave, test_stars.wave / 1.00028)


def check_medium(function):
    answer = [function(w, f) for w, f in zip(test_waves, test_stars.flux, strict=True)]
    told(2, None if answer[0] is None else np.array(answer, float), (40,), (
        (lambda x: len(np.unique(x)) == 1, "The answer is the same for all. Half of them are in air."),
        (lambda x: np.mean(x == is_vacuum) < 0.3, "It is the other way round: in air wavelengths are shorter."),
        (lambda x: np.mean(x == is_vacuum) < 0.9, f"{np.mean(np.array(answer, float) == is_vacuum):.0%} are right. One line is not enough at low S/N, nor a line that not all stars have.")))


def in_vacuum(wave, flux):
    """True if the wavelengths (n_pix,) of this normalised rest-frame spectrum (n_pix,) are in vacuum, False if in air."""
    return None


check_medium(in_vacuum)

# %% [markdown]
# **Exercise 3** (medium, 15 minutes). The area under the ROC curve without a loop over pairs and without a matrix of them, for numbers that may be equal: a million good stars and as many outsiders have to be no problem.

# %%
def check_area(function):
    a, b = np.random.default_rng(2).integers(0, 6, 80).astype(float), np.random.default_rng(3).integers(2, 8, 50).astype(float)
    right, loop = roc_auc_score(np.repeat([0, 1], (80, 50)), np.concatenate([a, b])), np.mean(b[:, None] > a)
    told(3, function(a, b), (), (
        (lambda x: np.isclose(x, 1 - right), "That is the share of pairs in which the good star has the larger number."),
        (lambda x: np.isclose(x, loop), "Pairs with equal numbers count one half."),
        (lambda x: x > 1, "It is a share: divide by the number of pairs."),
        (lambda x: not np.isclose(x, right), f"For these numbers it is {right:.4f}.")))


def area_under(inside, outside):
    """Share of pairs in which the outsider has the larger number, equal ones counting one half; a single number."""
    return None


check_area(area_under)

# %% [markdown]
# **Exercise 4** (hard, 25 minutes). The limits of section 6 were chosen one by one. Choose three together, from the numbers of good stars, such that 5 % of fresh good stars are flagged by *any* of them, and each limit alone flags as many as each other.

# %%
def check_limits(function):
    draw = lambda n, seed: np.exp(np.random.default_rng(seed).multivariate_normal(np.zeros(3), 0.6 + 0.4 * np.eye(3), n) * [0.3, 0.5, 0.8])   # noqa: E731
    fresh, single, answer = draw(20000, 5), np.quantile(draw(4000, 4), 0.95, axis=0), function(draw(4000, 4), 0.05)
    broken = 0.0 if answer is None else np.mean((fresh > answer).any(1))
    told(4, answer, (3,), (
        (lambda x: np.allclose(x, single, rtol=0.01), f"Each limit by itself objects to 5 %, all three together to {np.mean((fresh > single).any(1)):.0%}."),
        (lambda x: broken > 0.056, f"The promise is broken: {broken:.1%} of fresh good stars are flagged."),
        (lambda x: broken < 0.044, "The promise is kept with room to spare, and the flags see less than they could. The three numbers go together: dividing 5 % by three is too careful."),
        (lambda x: np.ptp(np.mean(fresh > x, axis=0)) > 0.01, "The three do not share the false alarms evenly.")))


def joint_limits(good, rate):
    """Limits (3,) for the columns of good (n, 3) so that a share ``rate`` of good stars exceeds at least one."""
    return None


check_limits(joint_limits)

# %% tags=["key-figures"]
print(f"file: {'real LAMOST' if real else 'made here'}; [Fe/H] " + ", ".join(f"{w} {row[f'feh_{w}']:+.2f} +- {row[f'feh_{w}_sigma']:.2f}" for w in witnesses))
for name in names:
    print(f"skipped, {name}: " + ", ".join(f"{w} {change[name, w][1]:+.2f} dex" for w in witnesses))
for w in witnesses:
    print(f"error / sigma of [Fe/H], {w}, {len(stars)} {'real' if measured else 'simulated'} stars: spread {np.std(miss[w] / sigma[w]):.2f}")
print("outsiders, area under ROC: " + ", ".join(f"{name} {value:.2f}" for name, value in auc.items()))
print(f"any flag: {any_flag[outside].mean():.2f} of {outside.sum()} outsiders, {any_flag[~outside].mean():.2f} of {(~outside).sum()} good stars")

# %% [markdown]
# ## What was shown, and what not
#
# * A file is read by hand and by the kit with the same result, to the pixel; what it does not say of itself has to be stated, and what is no star is refused by every way to a label.
# * A wrong statement passes unnoticed through a network. Velocity, medium, sky and continuum are no matter to the physical fit, which solves for them; sharpness fools everybody.
# * The formal errors are too small on real stars, those of the physical fit most: they do not know how wrong the library is, nor the literature.
# * Distance, chi-square, disagreement and S/N each have a blind spot, and not the same one.
# * *Not* shown: that the flags notice what they were not tried on. Binaries, fast rotation, emission in a solar-type star, carbon stars, a wrong velocity of 20 km/s pass. The outsiders here are drastic; the set is small, its intervals are
#   those of these objects, and the limits of chi-square and disagreement were chosen after a look at a few like them: this was no blind test.
#
# **Common misreadings.** "No flag, so the label is right": no flag says that four tests found nothing. "The chi-square is one, so the model is right": look at the noise spectrum. "All three agree within the errors": they share a
# library. "sigma is 0.09 dex": it is the scatter on simulated stars. "The survey says it is a star": its pipeline says so, and for DESI it says what the fibre was *targeted* as.
#
# **Next.** `docs/readers.md` lists every format and what is not in its files, `docs/store.md` the store, `docs/crossmatch.md` the catalogues. Notebook 04 adapts the model to your survey with the labels you have.
#
# **References.** LAMOST: Luo et al. 2015, RAA 15, 1095; Zhao et al. 2012, RAA 12, 723. MILES: Sánchez-Blázquez et al. 2006, MNRAS 371, 703; Falcón-Barroso et al. 2011, A&A 532, A95; Cenarro et al. 2007, MNRAS 374, 664. Mahalanobis distance of
# embeddings: Lee et al. 2018, arXiv:1807.03888. Shrunk covariance: Ledoit & Wolf 2004, J. Multivariate Anal. 88, 365. ROC: Fawcett 2006, Pattern Recognit. Lett. 27, 861. Air and vacuum: Ciddor 1996, Applied Optics 35, 1566. FITS: Pence et al. 2010, A&A 524,
# A42. The few-label study: Zhao et al. 2025, arXiv:2507.20972.

# %% [markdown] tags=["solutions"]
# ## Solutions
#
# <details><summary>Exercise 1</summary>
#
# ```python
# def count_bits(mask, bits):
#     return np.array([(mask >> bit & 1).sum() for bit in bits])
# ```
#
# </details>
#
# <details><summary>Exercise 2</summary>
#
# ```python
# def in_vacuum(wave, flux):
#     lines = np.array([4102.89, 4227.92, 4341.68, 4384.78, 4862.68, 5168.8, 5174.1, 5185.0, 5270.8, 5329.5])
#     return np.interp(lines, wave, flux).mean() < np.interp(lines / 1.00028, wave, flux).mean()
# ```
#
# The lines are where the flux is low: at their wavelengths in vacuum, or at those in air.
#
# </details>
#
# <details><summary>Exercise 3</summary>
#
# ```python
# def area_under(inside, outside):
#     from scipy.stats import rankdata
#     n, m = len(inside), len(outside)
#     return (rankdata(np.concatenate([inside, outside]))[n:].sum() - m * (m + 1) / 2) / (n * m)
# ```
#
# The rank of an outsider among all counts whom it beats: the test of Mann, Whitney and Wilcoxon.
#
# </details>
#
# <details><summary>Exercise 4</summary>
#
# ```python
# def joint_limits(good, rate):
#     rank = np.argsort(np.argsort(good, axis=0), axis=0) / len(good)
#     return np.quantile(good, np.quantile(rank.max(1), 1 - rate), axis=0)
# ```
#
# A star is flagged when the *largest* of its three ranks passes; the quantile of that largest rank is the level for all three.
#
# </details>
