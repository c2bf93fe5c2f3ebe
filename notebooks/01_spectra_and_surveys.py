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
# # 01 Spectra and surveys: one star, many instruments
#
# | | |
# |---|---|
# | **Question** | What does an instrument do to a star's spectrum, what of it can be undone, and how far are simulated spectra from real ones? |
# | **You will** | follow one star through seven instruments; see what resolution, velocity, noise, normalisation and dust each do, one at a time and together; write line spread, continuum fit and Gaia's matrix by hand and prove them equal to the package; put real spectra beside simulated ones; let a classifier find the difference, and ask in which direction it lies |
# | **You need** | notebook 00; what a convolution is |
# | **Time** | 45 minutes to read, about 1 minute to run on 2 cores, about 1 GB of memory |
# | **Data** | simulated; sections 9 and 10 use real MILES stars when `SPECTRAKIT_DATA` names a folder that has them, and says so |

# %% tags=["parameters"]
profile = "full"                  # "ci" does the same with fewer stars
device = "cpu"

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

import spectrakit as sk
from spectrakit.continuum import robust_continuum
from spectrakit.elements import load_elements
from spectrakit.exercises import told
from spectrakit.gaia_xp import extinguish, load_design
from spectrakit.line_spread import FWHM, broaden
from spectrakit.lines import load_lines, name_lines
from spectrakit.simulation import observe
from spectrakit.spectra import label_table, to_vacuum
from spectrakit.surveys import C_KMS, SURVEYS, get_survey

sk.plots.use_style()
quick = profile == "ci"
assert profile in ("full", "ci") and device in ("cpu", "cuda"), "profile is full or ci, device is cpu or cuda"

# %% [markdown]
# ## 1. The star itself
#
# The embedded library turns five labels into a spectrum: an interpolation between computed models of stellar atmospheres. Flux is divided by the
# continuum, so it is 1 where nothing absorbs. Our star: the Sun.
#
# **Predict first.** Beside it a star with a hundredth of its iron. Lines take so many per cent of the Sun's light here: by which factor do they take less of this
# one's, a hundred?

# %%
library = sk.load_library("optical")
sun = np.array([[5777.0, 4.44, 0.0, 0.0, 0.0]])                # teff [K], logg, [Fe/H], [alpha/Fe], [C/Fe]
poor = np.array([[5777.0, 4.44, -2.0, 0.4, 0.0]])
wave = library.wave.numpy()
flux = {name: library.flux(torch.as_tensor(labels))[0].numpy() for name, labels in (("Sun", sun), ("a hundredth of its iron", poor))}
fig, ax = plt.subplots(figsize=(10, 3.2))
for (name, f), color in zip(flux.items(), (sk.plots.GREY, sk.plots.RED), strict=True):
    ax.plot(wave, f, color=color, lw=0.6, label=name)
for i, (line, at) in enumerate(sk.plots.LINES.items()):
    ax.text(at, 1.04 + 0.05 * (i % 2), line, ha="center", fontsize=8, color=sk.plots.GREY)
ax.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", xlim=(wave[0], wave[-1]), ylim=(0, 1.15))
_ = ax.legend(loc="lower right")
taken = {name: 1 - f.mean() for name, f in flux.items()}
ratio = taken["Sun"] / taken["a hundredth of its iron"]
print({name: f"{100 * share:.1f} % of the light" for name, share in taken.items()}, f"ratio {ratio:.1f}")
assert 1 < ratio < 30

# %% [markdown]
# **Takeaway.** Thousands of lines, hardly a pixel without one. At a hundredth of the iron most are gone, but the light they take has shrunk by much less
# than a factor of a hundred: strong lines are *saturated*, and hydrogen has not left at all.
#
# **Who makes which line?** A computation can be asked what no observation can: raise one element by 0.2 dex, leave all else, take the difference. The package has that for reference stars and twelve elements.
#
# **Predict first.** Which of the twelve takes most light from the Sun between 4000 and 5600 Å? And which from a giant of 4300 K in the H band, where APOGEE looks?

# %%
asked = {"the Sun": (load_elements("optical"), (5777, 4.44, 0.0), (5160, 5215)), "a giant, 4300 K": (load_elements("hband"), (4300, 2.0, 0.0), (15735, 15795))}
fig, axes = plt.subplots(2, 2, figsize=(10, 6.6), width_ratios=(3, 1))
share_of = {}
for (name, (elements, labels, window)), (ax, bars) in zip(asked.items(), axes, strict=True):
    response = elements.response[elements.star(*labels)].numpy()                       # (12, n_pix): d flux / d [X/H]
    light = dict(zip(elements.names, -np.minimum(response, 0).sum(1), strict=True))
    share_of[name] = {symbol: light[symbol] / sum(light.values()) for symbol in sorted(light, key=light.get, reverse=True)}
    near = (elements.wave > window[0]) & (elements.wave < window[1])
    for k, symbol in enumerate(list(share_of[name])[:6]):
        ax.plot(elements.wave[near], 10 * response[elements.names.index(symbol)][near] - 4 * k, color=sk.plots.RED if k == 0 else sk.plots.BLUE, lw=0.9)
        ax.text(window[1], -4 * k, f" {symbol}", va="center")
    ax.set(xlim=window, ylim=(-25, 1), xlabel="wavelength in vacuum [Å]", ylabel="change for +0.1 dex\n[% of the continuum], offset")
    name_lines(ax, load_lines(*window))
    bars.barh(list(share_of[name])[::-1], [100 * share for share in list(share_of[name].values())[::-1]], color=sk.plots.GREY)
    bars.set(xlabel="share of all light\nthe twelve take [%]", title=name)
print({name: {symbol: f"{100 * share:.0f} %" for symbol, share in list(shares.items())[:4]} for name, shares in share_of.items()})
assert next(iter(share_of["the Sun"])) == "Fe" and next(iter(share_of["a giant, 4300 K"])) == "C"

# %% [markdown]
# Each line has a name in the atlases: do the computations agree with the names? Of the named lines of the twelve elements we ask which element the flux answers to most, within one resolution element. *Control*: the same 6 Å beside
# the line.

# %%
def owner(elements, star, at, half_width):
    near = (elements.wave - at).abs() < half_width
    return elements.names[int(elements.response[star][:, near].amin(1).argmin())]


agree = {}
for name, star, half_width in (("optical", (5777, 4.44, 0.0), 0.8), ("hband", (4300, 2.0, -1.0), 0.5)):
    elements = load_elements(name)
    lines = [line for line in load_lines(elements.wave[0].item(), elements.wave[-1].item()) if line["species"].split()[0] in elements.names]
    agree[name] = [[owner(elements, elements.star(*star), line["wave"] + beside, half_width) == line["species"].split()[0] for line in lines] for beside in (0, 6)]
    print(f"{name}: {sum(agree[name][0])} of {len(lines)} lines answer most to the element they are named after; beside them {sum(agree[name][1])}")
    print("    not:", ", ".join(line["name"] for line, right in zip(lines, agree[name][0], strict=True) if not right) or "none")
assert all(np.mean(at) > 0.75 and np.mean(at) > np.mean(beside) + 0.3 for at, beside in agree.values())

# %% [markdown]
# **Takeaway.** "A line of X" is a line to which X contributes most, and now and then not even that: at this resolution the lines of Ti II in the Sun are Fe's and CH's as well. In the optical iron and carbon (in CH) are everywhere, in a cool giant's H band carbon is, in CO and CN, also inside the lines of
# others. Oxygen has no line in the optical window at all, and yet moves it: it takes carbon into CO, and CH becomes weaker. So an abundance is read from a line only after all that stands in it has been accounted for, and a network that looks at a magnesium line need not be
# looking at magnesium.
#
# ## 2. Resolution: the line spread
#
# An instrument smears every wavelength over a line spread function, nearly a Gaussian, of width FWHM = wave / R. By hand, as the sum it is:

# %%
def smear_by_hand(flux, ln_wave, sigma, at):
    kernel = np.exp(-0.5 * ((ln_wave[None] - ln_wave[at, None]) / sigma) ** 2)
    return (kernel * flux[None]).sum(1) / kernel.sum(1)


sigma = np.sqrt((1 / 1800) ** 2 - (1 / library.resolution) ** 2) / FWHM      # the library has a width of its own, counted once
at = np.arange(800, 1000)
by_hand = smear_by_hand(flux["Sun"], np.log(wave), sigma, at)
package = broaden(torch.as_tensor(flux["Sun"])[None].double(), 1e-4, torch.tensor([sigma**2]).double(), torch.zeros(1).double())[0].numpy()
assert np.allclose(by_hand, package[at], atol=1e-5)

# %% [markdown]
# **Predict first.** A line is seen at R = 5,000, 1,800 and 700. What happens to its depth? What to its area (the *equivalent width*)?

# %%
near = (wave > 5255) & (wave < 5285)
fig, ax = plt.subplots(figsize=(7, 3.2))
depth, area = {}, {}
for resolution, color, style in ((5000, sk.plots.GREY, "-"), (1800, sk.plots.BLUE, "--"), (700, sk.plots.ORANGE, "-.")):
    variance = ((1 / resolution) ** 2 - (1 / library.resolution) ** 2) / FWHM**2
    f = broaden(torch.as_tensor(flux["Sun"])[None].double(), 1e-4, torch.tensor([variance]).double(), torch.zeros(1).double())[0].numpy()
    depth[resolution], area[resolution] = 1 - f[near].min(), np.trapezoid(1 - f[(wave > 5100) & (wave < 5440)], wave[(wave > 5100) & (wave < 5440)])
    ax.plot(wave[near], f[near], style, color=color, label=f"R = {resolution}: depth {depth[resolution]:.2f}")
ax.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", title="Fe I 5271: shallower, wider, and the same area")
_ = ax.legend(fontsize=8)
assert depth[5000] > depth[1800] > depth[700]
assert abs(area[700] / area[5000] - 1) < 0.01

# %% [markdown]
# The area stays: no absorbed photon is lost. What is lost is the distinction of neighbours: at R = 1800 the line is a *blend*, and the network has to
# learn from blends.
#
# ## 3. One star, all instruments
#
# A survey is a declaration: pixels, medium, line spread, noise, and how it errs. Seven are declared here. This is the Sun as each would deliver it, with noise and without any other fault; at
# the lower right the four optical ones in 35 Å around the magnesium triplet, each at its own wavelengths.
#
# **Predict first.** Which of the four do not have their lines where the others have them, and by how many km/s?

# %%
labels = dict(zip(("teff", "logg", "feh", "alpha_fe", "c_fe"), sun.T, strict=True))
optical, wide = ("desi", "lamost_lrs", "miles", "stelib"), ("desi_full", "gaia_xp", "apogee")
one = {name: sk.simulate(name, 1, seed=1, labels=label_table(**labels, ebv=np.zeros(1), g=np.array([10.0])), strength=0.0) for name in (*optical, *wide)}
fig, axes = plt.subplots(4, 2, figsize=(10, 8.6))
for ax, (name, star) in zip([*axes[:, 0], *axes[:3, 1]], one.items(), strict=True):
    survey, resolution = get_survey(name), star.resolution
    ax.plot(star.wave, np.where(star.mask[0], np.nan, star.flux[0]) / star.flux.mean(), color=sk.plots.BLUE, lw=0.6)
    ax.set_title(f"{name}: {(~star.mask).sum()} pixels, R {resolution.min():.0f}-{resolution.max():.0f}, {survey.medium}", fontsize=9, loc="left")
    ax.set_ylabel("flux / mean")
for k, (name, color) in enumerate(zip(optical, (sk.plots.BLUE, sk.plots.ORANGE, sk.plots.RED, sk.plots.GREEN), strict=True)):
    star = one[name]
    near = (star.wave > 5160) & (star.wave < 5195)
    axes[3, 1].step(star.wave[near], star.flux[0, near] / star.flux[0, near].max() - 0.45 * k, where="mid", color=color)
    axes[3, 1].text(5197, 0.85 - 0.45 * k, name, fontsize=8, color=color)
axes[3, 1].set(xlim=(5160, 5204), ylabel="flux / max. - offset", title="Mg b, as delivered")
for ax in axes[3]:
    ax.set_xlabel("wavelength [Å], air or vacuum as declared")
print("declared:", ", ".join(SURVEYS))

# %% [markdown]
# By hand: air slows light down by the refractive index n, wavelengths shrink by as much. At visible wavelengths n - 1 is about 2.8e-4.

# %%
in_air = np.array([4000.0, 4800.0, 5600.0])
inverse = (1e4 / (in_air * 1.00028)) ** 2                                # (1 / micrometre)^2; dry air of 15 C, Ciddor 1996, Table 1 and equation 1
n_minus_1 = 1e-8 * (5792105 / (238.0185 - inverse) + 167917 / (57.362 - inverse))
by_hand = in_air * (1 + n_minus_1)
assert np.allclose(by_hand, to_vacuum(in_air, "air"), rtol=0, atol=2e-3)
shift = C_KMS * n_minus_1
print({f"{w:.0f} Å": f"{d:.2f} Å = {v:.0f} km/s" for w, d, v in zip(in_air, by_hand - in_air, shift, strict=True)})
assert get_survey("miles").medium == get_survey("stelib").medium == "air" and (80 < shift).all() and (shift < 90).all()

# %% [markdown]
# **Takeaway.** MILES and LAMOST see the same star, in the same range, and no pixel of one is a pixel of the other: another grid, another resolution,
# and more than an Å between air and vacuum. Whoever forgets the last has moved every line by more than 80 km/s. XP and H band share no line with the others, only the star.
#
# ## 4. Velocity
#
# **Predict first.** A star recedes and nobody corrects for it. At which velocity is the disturbance as large as a change of 0.3 dex in [Fe/H]: 20, 100 or
# 300 km/s?

# %%
perfect = replace(get_survey("lamost_lrs"), frame="heliocentric", systematics=get_survey("lamost_lrs").systematics.scaled(0.0), snr=(1e5, 1e5))


def delivered(labels, survey=perfect):
    """Stars (n, 5) through an instrument, raw: nothing but what the survey declares."""
    return observe(lambda rows: sk.load_library(survey.library).opacity(torch.as_tensor(labels[rows])), labels, survey, sk.load_library(survey.library), np.random.default_rng(0),
                   survey.systematics)


def seen(labels, velocity=0.0):
    """Without noise, moved by a velocity (km/s), normalised."""
    return sk.normalize(delivered(labels).to_rest(-velocity / C_KMS))


still, iron_poorer = seen(sun), seen(sun - [[0, 0, 0.3, 0, 0]])
velocities = np.array([0, 10, 20, 30, 50, 100, 300])
moved = np.stack([seen(sun, v).flux[0] - still.flux[0] for v in velocities])
change, less = moved.std(1), iron_poorer.flux[0] - still.flux[0]
less_iron = less.std()
for v, c in zip(velocities, change, strict=True):
    print(f"{v:4d} km/s = {v / C_KMS / (10**1e-4 - 1):4.1f} pixels changes the spectrum by {100 * c:.1f} % rms")
same_as_iron = np.interp(less_iron, change, velocities)
alike = np.corrcoef(moved[3], less)[0, 1]
print(f"0.3 dex less iron changes it by {100 * less_iron:.1f} % rms: as much as {same_as_iron:.0f} km/s.  Correlation of the two changes: {alike:+.2f}")
assert 10 < same_as_iron < 50 and abs(alike) < 0.3

# %% [markdown]
# **Takeaway.** A fraction of a pixel changes the spectrum as much as half of the iron does. *Control*: is it the same change? The correlation says no: a shift makes a line negative on one side and positive on
# the other, iron makes it deeper. That is what saves us, as long as nobody reads the size alone. A network learns to live with what it was shown: the surveys here declare what is left after the
# correction, and pretraining uses more than that.
#
# ## 5. Noise
#
# An `ivar` is one over the variance of a pixel; S/N is flux times its root. Photons come one by one, so that a pixel with a quarter of the light has half the noise, and *half* the S/N. That is what is simulated,
# and it is checked by hand, for the Sun of section 3.
#
# What is a metal-poor star's spectrum worth? We count the pixels whose absorption stands out of the noise by more than three sigma.
#
# **Predict first.** From S/N 100 to S/N 10: is that ten times fewer such pixels? At which [Fe/H] does either star run out of them?

# %%
clean, noisy = delivered(sun), one["lamost_lrs"]
assert np.allclose(1 / np.sqrt(clean.ivar[0]), np.sqrt(clean.flux[0]) / clean.label("snr")[0], rtol=1e-3)
in_sigmas = (noisy.flux[0] - clean.flux[0]) * np.sqrt(noisy.ivar[0])
print(f"the Sun at S/N {noisy.snr[0]:.0f} less the Sun without noise, in sigmas: mean {in_sigmas.mean():+.2f}, standard deviation {in_sigmas.std():.2f}")
assert abs(in_sigmas.std() - 1) < 0.1

metallicities = np.array([0.0, -0.5, -1.0, -1.5, -2.0, -2.5, -3.0])
like_sun = np.array([[5777.0, 4.44, feh, min(0.4, -0.3 * feh), 0.0] for feh in (*metallicities, -3.9)])
# metal lines alone: against the same star without metals, so that the hydrogen lines do not count
metals = np.abs(seen(like_sun[:-1]).flux - seen(like_sun[-1:]).flux)
fig, ax = plt.subplots(figsize=(6.5, 3.4))
for snr, color, marker in ((10, sk.plots.RED, "o"), (30, sk.plots.ORANGE, "s"), (100, sk.plots.BLUE, "^")):
    ax.semilogy(metallicities, np.maximum((metals > 3 / snr).sum(1), 0.5), marker + "-", color=color, label=f"S/N {snr}")
ax.set(xlabel="[Fe/H] [dex]", ylabel="pixels with metals above 3 sigma\n(0.5: none)", title="A Sun with less and less metal, 1462 pixels")
_ = ax.legend()
counts = {snr: (metals > 3 / snr).sum(1) for snr in (10, 100)}
print({snr: dict(zip(metallicities.tolist(), n.tolist(), strict=True)) for snr, n in counts.items()})
assert (np.diff(counts[100]) < 0).all() and counts[10][-1] < 10

# %% [markdown]
# **Takeaway.** This curve is half of notebook 07: at S/N 10 and [Fe/H] = -2 nearly nothing is left to measure, whatever the network.
#
# ## 6. Normalisation
#
# The observed flux is lines times everything smooth: continuum, dust, calibration. Dividing by a polynomial removes what is smooth, real or not. Here it is a polynomial of degree five through all pixels, each
# weighted by noise *and* a tenth of the flux for the lines; what sticks out above (cosmic rays) is left out, three times. By hand:

# %%
def continuum_by_hand(wave, flux, ivar):
    basis = np.polynomial.legendre.legvander(2 * (wave - 3960) / (5640 - 3960) - 1, 5)
    level, used = np.full(len(flux), flux.mean()), np.ones(len(flux), bool)
    for _ in range(3):
        sigma = np.sqrt(1 / ivar + (0.1 * level) ** 2)
        level = basis @ np.linalg.lstsq((basis / sigma[:, None])[used], (flux / sigma)[used], rcond=None)[0]
        used &= flux - level <= 4 * sigma
    return basis @ np.linalg.lstsq((basis / sigma[:, None])[used], (flux / sigma)[used], rcond=None)[0]


raw = {name: delivered(label, perfect) for name, label in (("Sun", sun), ("a hundredth of its iron", poor))}
fig, ax = plt.subplots(figsize=(10, 3))
for (name, star), color, style in zip(raw.items(), (sk.plots.BLUE, sk.plots.RED), ("-", "--"), strict=True):
    curve = continuum_by_hand(star.wave, star.flux[0].astype("f8"), star.ivar[0].astype("f8"))
    assert np.allclose(curve, robust_continuum(star.wave, star.flux.astype("f8"), star.ivar.astype("f8"), star.mask)[0], rtol=1e-6)
    ax.plot(star.wave, star.flux[0], color=color, lw=0.4, alpha=0.7)
    ax.plot(star.wave, curve, style, color=color, lw=2, label=name)
    print(f"{name}: {100 * np.mean(star.flux[0] > curve):.0f} % of the pixels lie above the curve")
ax.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / mean", title="As delivered, and what normalising divides by")
_ = ax.legend(fontsize=8, loc="lower right")

# %% [markdown]
# **Takeaway.** The curve is no continuum: it runs through the lines, below the light that would be there without them. In return it is the same recipe for every star, and linear in the flux. SpecCLIP's published recipe pushes
# the curve up to the *upper envelope* of the pixels, which is nearer to a continuum.
#
# **Predict first.** Which recipe makes lines look deeper at low S/N, the plain weighted fit or the upper envelope? The control is either recipe on the same star at S/N 300.

# %%
n = 20 if quick else 100
shift = {"robust": [], "specclip": []}
levels = (10, 20, 50, 100, 300)
for snr in levels:
    noisy = delivered(np.repeat(sun, n, 0), replace(perfect, snr=(snr, snr)))
    for recipe in shift:
        shift[recipe].append(np.mean(sk.normalize(noisy, recipe).flux))
fig, ax = plt.subplots(figsize=(6.5, 3.2))
for (recipe, values), color, marker in zip(shift.items(), (sk.plots.BLUE, sk.plots.RED), "os", strict=True):
    ax.semilogx(levels, 100 * (np.array(values) / values[-1] - 1), marker + "-", color=color, label=recipe)
ax.axhline(0, color=sk.plots.GREY, lw=0.6)
ax.set(xlabel="S/N per pixel", ylabel="mean normalised flux\nagainst S/N 300 [%]", title="The same Sun: an upper envelope rises with the noise")
_ = ax.legend()
bias = {recipe: values[0] / values[-1] - 1 for recipe, values in shift.items()}
print({recipe: f"{100 * value:+.1f} % at S/N 10" for recipe, value in bias.items()})
assert bias["specclip"] < -0.015 and abs(bias["robust"]) < 0.01

# %% [markdown]
# **Takeaway.** A line is as deep as the curve is high. With the upper envelope line depths depend on the noise, and so will every label that is read from them; a survey's faint stars are then its metal-rich ones, by
# normalisation alone.
#
# ## 7. Dust, and the other kind of spectrum
#
# Gaia sees the whole optical range at once, at R = 20 to 100: no line, but the colour. It publishes 110 *coefficients* a star, 55 of its blue half (BP), 55 of its red one (RP); the spectrum at 343
# points is a fixed matrix times these. Dust reddens it.
#
# **Predict first.** The same star behind E(B-V) = 0.3 mag: by how much does its XP spectrum change, by how much its normalised LAMOST spectrum?

# %%
def behind(ebv):
    """The Sun behind dust, for Gaia: one spectrum of G = 10, where noise is small."""
    return sk.simulate("gaia_xp", 1, seed=2, labels=label_table(**labels, ebv=np.array([ebv]), g=np.array([10.0])), strength=0.0)


clear, dusty = behind(0.0), behind(0.3)
coefficients = np.asarray(dusty.labels["coeff"])[0]
by_hand = np.array([sum(row[k] * coefficients[k] for k in range(110)) for row in load_design().flux])
assert np.allclose(by_hand, dusty.flux[0], rtol=1e-5)
at_550 = [sk.normalize(star, "550nm").flux[0] for star in (clear, dusty)]
plain = raw["Sun"]
through = extinguish(plain.wave, np.array([0.3]), np.array([3.1]))[0]
reddened = sk.normalize(replace(plain, flux=plain.flux * through, frame="rest")).flux[0]
changed = {"XP, against the flux at 550 nm": np.abs(at_550[1] / at_550[0] - 1)[clear.wave > 4000].max(), "LAMOST, normalised": np.abs(reddened / still.flux[0] - 1).max(),
           "control: LAMOST, as delivered": np.abs(through / through.mean() - 1).max()}
print({name: f"{100 * value:.2f} %" for name, value in changed.items()})
assert changed["XP, against the flux at 550 nm"] > 0.2 > 10 * changed["LAMOST, normalised"]
assert changed["control: LAMOST, as delivered"] > 10 * changed["LAMOST, normalised"]

# %% [markdown]
# Largest change of any pixel. The control says that the dust *was* in the LAMOST spectrum, before the polynomial took it. In a picture:

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
axes[0].plot(clear.wave, at_550[0], color=sk.plots.BLUE, label="no dust")
axes[0].plot(dusty.wave, at_550[1], color=sk.plots.RED, ls="--", label="E(B-V) = 0.3 mag")
axes[0].axvline(6400, color=sk.plots.GREY, lw=0.6, ls=":")
axes[0].text(6450, 0.28, "BP | RP", fontsize=8, color=sk.plots.GREY)
axes[0].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / flux at 5500 Å", title="Gaia XP, 343 points")
axes[0].legend()
for star, color, marker in ((clear, sk.plots.BLUE, "o"), (dusty, sk.plots.RED, "s")):
    axes[1].semilogy(np.arange(1, 111), np.abs(np.asarray(star.labels["coeff"])[0]), marker, ms=2.5, color=color)
axes[1].semilogy(np.arange(1, 111), np.asarray(clear.labels["coeff_err"])[0], color=sk.plots.GREY, lw=1, label="error at G = 10 mag")
axes[1].axvline(55.5, color=sk.plots.GREY, lw=0.6, ls=":")
axes[1].set(xlabel="number of the coefficient (55 of BP, 55 of RP)", ylabel="|coefficient| [electrons/s]", title="The same as 110 coefficients")
_ = axes[1].legend(fontsize=8)

# %% [markdown]
# **Takeaway.** Dust is smooth: the continuum fit removes it from an LRS spectrum to the last per cent, together with all the colour there was. Whoever wants
# to translate a normalised spectrum into an XP spectrum (notebook 03) cannot know the dust.
#
# ## 8. All of it together: look for yourself
#
# The Sun through any of the instruments, without noise, with three knobs: its velocity, dust in front of it, and a line spread wider than declared. Above as delivered, below normalised; in grey the star that nothing
# has happened to. The knobs for velocity and line spread have no effect on XP, which resolves neither.
#
# **Predict first.** Twice the declared FWHM, 100 km/s, 0.3 mag: order the three by how much they change the *normalised* LAMOST spectrum.

# %%
def turned(survey, velocity, ebv, blur):
    """The Sun as delivered and normalised, after all three knobs."""
    if survey == "gaia_xp":
        return (star := behind(ebv)), sk.normalize(star, "550nm")
    at_4000, exponent = get_survey(survey).fwhm
    declared = replace(get_survey(survey), systematics=perfect.systematics, snr=perfect.snr, frame="heliocentric", fwhm=(blur * at_4000, exponent))
    star = delivered(sun, declared)
    dust = extinguish(to_vacuum(star.wave, star.medium), np.array([ebv]), np.array([3.1]))
    star = replace(star, flux=star.flux * dust).to_rest(-velocity / C_KMS)
    return star.to_vacuum(), sk.normalize(star, grid=star.wave) if survey == "apogee" else sk.normalize(star)


untouched = turned("lamost_lrs", 0, 0.0, 1)[1].flux[0]
alone = {what: np.std(turned("lamost_lrs", *knobs)[1].flux[0] - untouched) for what, knobs in
         (("100 km/s", (100, 0.0, 1)), ("twice the FWHM", (0, 0.0, 2)), ("E(B-V) = 0.3", (0, 0.3, 1)), ("control: nothing", (0, 0.0, 1)))}
print({what: f"{100 * value:.2f} % rms" for what, value in alone.items()})
assert alone["100 km/s"] > alone["E(B-V) = 0.3"] < alone["twice the FWHM"] and alone["control: nothing"] == 0

# %% [markdown]
# **Takeaway.** What is smooth, the polynomial takes out; what moves or smears lines, stays. The picture for any combination:

# %%
def show(survey="lamost_lrs", velocity=100, dust=30, blur=2):
    fig, axes = plt.subplots(2, 1, figsize=(10, 4.6), sharex=True)
    pairs = zip(turned(survey, 0, 0.0, 1), turned(survey, velocity, dust / 100, blur), strict=True)
    for ax, (before, after), label in zip(axes, pairs, ("flux / median", "normalised"), strict=True):
        for star, color, width, name in ((before, sk.plots.GREY, 1.2, "as declared"), (after, sk.plots.RED, 0.6, "turned")):
            level = np.median(star.flux[~star.mask]) if label == "flux / median" else 1
            ax.plot(star.wave, np.where(star.mask[0], np.nan, star.flux[0]) / level, color=color, lw=width, label=name)
        ax.set_ylabel(label)
    change = np.std((after.flux - before.flux)[~(before.mask | after.mask)])
    axes[0].set_title(f"{survey}: {velocity} km/s, E(B-V) = {dust / 100:.2f} mag, FWHM x {blur}; the normalised spectrum changes by {100 * change:.1f} % rms", fontsize=10)
    axes[0].legend(fontsize=8, ncols=2, loc="lower right")
    axes[1].set_xlabel("wavelength in vacuum [Å]")
    plt.show()


show()

# %% [markdown]
# The same with sliders, where a kernel is running; by code one line: `turned("lamost_lrs", velocity=100, ebv=0.3, blur=2)`. Turn the dust up for XP, then for DESI. At which line spread does the magnesium triplet become one line?

# %% tags=["nbval-ignore-output"]
import ipywidgets

slider = lambda value, low, high, text: ipywidgets.IntSlider(value, low, high, description=text, continuous_update=False)          # noqa: E731
_ = ipywidgets.interact(show, survey=["lamost_lrs", "desi", "miles", "stelib", "apogee", "gaia_xp"], velocity=slider(100, 0, 300, "km/s"), dust=slider(30, 0, 100, "dust [%]"), blur=slider(2, 1, 8, "FWHM x"))

# %% [markdown]
# ## 9. Real spectra beside simulated ones
#
# Now the question on which everything else in this kit stands. We take real stars with well-known labels, simulate a *twin* of each (the same
# labels, the same instrument) and look at the difference.

# %%
wanted = {"HD186408": "16 Cyg A, nearly the Sun", "HD216228": "a K giant", "HD103095": "a halo dwarf", "HD140283": "a very metal-poor subgiant"}
try:
    everything, real = sk.read("miles"), True
    everything = everything[everything.labelled("teff", "logg", "feh")]
    everything = everything[sk.experiments.in_hull(everything)]
except ValueError as missing:
    print(missing)
    everything, real = sk.simulate("miles", n=300, seed=7, strength=2.0), False
print("REAL stars of the MILES library" if real else "SIMULATED stand-ins with systematics twice as strong: without the real ones this section shows the method only")
everything = everything[:150] if quick else everything
names = np.array([str(star) for star in everything.labels["star"]])
chosen = [int(np.flatnonzero(names == star)[0]) for star in wanted if star in names] or [0, 1, 2, 3]
observed = sk.normalize(everything)


def full_labels(stars):
    """The five labels of the library; alpha_fe on the Galaxy's trend, c_fe lower in giants, which have mixed their carbon into nitrogen."""
    feh, logg = stars.label("feh"), stars.label("logg")
    return np.stack([stars.label("teff"), logg, feh, np.clip(-0.3 * feh, 0, 0.3), np.where(logg < 3.3, -0.15, 0.0)], 1)


def twins(labels, seed=0, strength=0.0):
    return sk.normalize(sk.simulate("miles", len(labels), seed=seed, labels=labels, strength=strength))


keep = library.contains(torch.as_tensor(full_labels(observed))).numpy()
chosen = [int(keep[:row].sum()) for row in chosen if keep[row]]
observed, numbers = observed[keep], full_labels(observed[keep])
simulated = twins(numbers)
print(len(observed), "stars and their twins")

# %%
species = {"CN": (4150, 4215), "Ca I": (4222, 4234), "CH": (4290, 4316), "Hγ": (4330, 4354), "Fe I 4384": (4380, 4389), "C2 4737": (4680, 4738), "Hβ": (4850, 4874),
           "C2, MgH": (5120, 5165), "Mg b": (5165, 5190), "Fe I 5271": (5262, 5278)}
fig, axes = plt.subplots(len(chosen), 1, figsize=(10, 1.9 * len(chosen)), sharex=True, sharey=True)
for ax, row in zip(axes, chosen, strict=True):
    star = observed[row]
    ax.plot(star.wave, star.flux[0], color=sk.plots.GREY, lw=0.8, label="observed")
    ax.plot(star.wave, simulated.flux[row], color=sk.plots.BLUE, lw=0.6, label="simulated, perfect instrument")
    ax.plot(star.wave, 0.1 + star.flux[0] - simulated.flux[row], color=sk.plots.RED, lw=0.6, label="difference + 0.1")
    ax.set(ylabel="flux / continuum", ylim=(-0.1, 1.4))
    text = f"{star.labels['star'][0]}: {star.label('teff')[0]:.0f} K, log g {star.label('logg')[0]:.1f}, [Fe/H] {star.label('feh')[0]:+.2f}"
    ax.text(0.005, 0.3, text, transform=ax.transAxes, fontsize=8)
for name, (low, high) in species.items():
    axes[0].text((low + high) / 2, 1.42, name, ha="left", fontsize=7, color=sk.plots.GREY, rotation=35)
axes[-1].legend(fontsize=7, ncols=3, loc="upper right", bbox_to_anchor=(1, 0.42))
_ = axes[-1].set_xlabel("wavelength in vacuum [Å]")

# %% [markdown]
# Line by line the agreement is a few per cent. Is that much? **Predict first.** 0.2 dex of iron less: does that change a spectrum by more than the difference between a star and its twin, or by less? The control for "it is only
# noise" is a second twin, with noise of its own.

# %%
difference = observed.flux - simulated.flux
metal_poorer = library.contains(torch.as_tensor(numbers - [[0, 0, 0.2, 0, 0]])).numpy()
some = np.flatnonzero(metal_poorer)[:40 if quick else 200]
sizes = {"star less its twin": difference[some].std(1), "0.2 dex less iron": (twins(numbers[some] - [[0, 0, 0.2, 0, 0]]).flux - twins(numbers[some]).flux).std(1),
         "control: twin less another twin": (twins(numbers[some], seed=3).flux - twins(numbers[some], seed=4).flux).std(1)}
for name, size in sizes.items():
    print(f"{name:32s} {100 * np.median(size):.2f} % rms of the continuum (median of {len(some)} stars; 16-84 %: {100 * np.quantile(size, 0.16):.2f}-{100 * np.quantile(size, 0.84):.2f})")
medians = [np.median(size) for size in sizes.values()]
assert medians[0] > medians[1] and medians[0] > 2 * medians[2]

# %% [markdown]
# **Takeaway.** The difference is no noise, and it is larger than what 0.2 dex of iron does. Yet notebook 00 measures iron to better than that, without a label: most of the difference cannot point where iron points. Exercise 4 asks where it does point. Where is it the *same* in all stars, and where does it depend on
# the star? We average over windows that belong to one species.

# %%
cool, poor_stars = observed.label("teff") < 5000, observed.label("feh") < -1
groups = {"cool, < 5000 K": cool & ~poor_stars, "warmer": ~cool & ~poor_stars, "[Fe/H] < -1": poor_stars}
fig, ax = plt.subplots(figsize=(9, 3.4))
for k, ((name, rows), color, marker) in enumerate(zip(groups.items(), (sk.plots.RED, sk.plots.BLUE, sk.plots.GREEN), "os^", strict=True)):
    values = np.array([[100 * difference[row][(observed.wave > low) & (observed.wave < high)].mean() for low, high in species.values()] for row in np.flatnonzero(rows)])
    ax.errorbar(np.arange(len(species)) + 0.15 * (k - 1), np.median(values, 0), 1.48 * np.median(np.abs(values - np.median(values, 0)), 0), fmt=marker, color=color,
                capsize=2, label=f"{name} (n = {rows.sum()})")
ax.axhline(0, color=sk.plots.GREY, lw=0.6)
ax.set_xticks(range(len(species)), species, rotation=20, ha="right", fontsize=8)
ax.set(ylabel="observed - simulated\n[% of the continuum]", title="Median and scatter over stars: below zero the star absorbs what the library does not know")
_ = ax.legend(fontsize=8)

# %% [markdown]
# **Takeaway.** Points far from zero with small bars are the same error in every star of the group: lines and molecules that the library treats wrongly, or abundances that a group shares and the five labels do not
# hold. Bars that are wider than the shift are the stars' own. Molecules of cool stars are the worst.
#
# ## 10. An honest number: can a classifier tell?
#
# A linear classifier is shown 40 principal components of real and simulated spectra and told to separate them. The area under its ROC is 0.5 when it
# can only guess. **Predict first.** What does it reach when the twins get every systematic the survey declares?

# %%
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def auc(a, b):
    """Area under the ROC on held-out stars; a star and its twin are held out together."""
    x, y, group = np.concatenate([a, b]), np.repeat([1, 0], len(a)), np.tile(np.arange(len(a)), 2)
    score = np.empty(len(y))
    for train, test in GroupKFold(4).split(x, y, group):
        classifier = make_pipeline(PCA(40, random_state=0), StandardScaler(), LogisticRegression(C=0.1, max_iter=2000)).fit(x[train], y[train])
        score[test] = classifier.predict_proba(x[test])[:, 1]
    return roc_auc_score(y, score)


def noisy(flux, snr):
    return flux + np.random.default_rng(5).standard_normal(flux.shape) / snr


with_all = twins(numbers, 1, 1.0)
results = {"perfect instrument": auc(observed.flux, simulated.flux), "all declared systematics": auc(observed.flux, with_all.flux),
           "the same at S/N 10": auc(noisy(observed.flux, 10), noisy(with_all.flux, 10)), "control: simulated twice": auc(twins(numbers, 2, 1.0).flux, with_all.flux)}
for name, value in results.items():
    print(f"{name:28s} AUC {value:.3f}")
assert abs(results["control: simulated twice"] - 0.5) < 0.15
assert results["all declared systematics"] > 0.9 or not real

# %% [markdown]
# **Takeaway.** Against real stars the classifier always wins: the errors of the line list are the same in every star, and no random systematic imitates that. What helps a
# network is not that simulations cannot be told from reality, but that *labels* move spectra in the same direction in both. Zero-shot results
# (notebook 00) show how far that holds; the AUC says that it may not be taken for granted.

# %% [markdown]
# ## 11. Exercises
#
# Put your lines in place of `return None` and run the cell: it says whether you are done, or gives a hint. Solutions are folded away at the very end.
#
# **Exercise 1** (easy, 5 minutes). Somebody takes air wavelengths for vacuum ones. By which velocity (km/s, a positive number) is every line displaced?

# %%
def check_air(function):
    wave_air = np.array([4000.0, 4800.0, 5600.0])
    right = C_KMS * (to_vacuum(wave_air, "air") / wave_air - 1)
    near = lambda x, y: bool(np.allclose(x, y, rtol=1e-3))                                           # noqa: E731
    told(1, function(wave_air), (3,), (
        (lambda x: near(x, -right), "Vacuum wavelengths are the longer ones: take the difference the other way round."),
        (lambda x: near(x, right / C_KMS), "That is the share of the wavelength; times the speed of light, C_KMS, it is a velocity."),
        (lambda x: near(x, right * wave_air / C_KMS), "That is in Å. A velocity is C_KMS times the share of the wavelength."),
        (lambda x: near(x, 1000 * right), "That is in m/s."),
        (lambda x: not near(x, right), "to_vacuum(wave_air, 'air') gives the vacuum wavelengths; the velocity is C_KMS times their relative difference.")))


def velocity_error(wave_air):
    """Displacement in km/s at each of these air wavelengths (Å)."""
    return None


check_air(velocity_error)

# %% [markdown]
# **Exercise 2** (easy, 10 minutes). The equivalent width of a line: the width of a black box, from the continuum (1) to zero, that takes the same light away. Pixels may be of unequal width.

# %%
def check_width(function):
    x = 5000 + 20 * np.linspace(0, 1, 4000) ** 2
    line = 1 - 0.6 * np.exp(-0.5 * ((x - 5010) / 1.2) ** 2)
    right = 0.6 * 1.2 * np.sqrt(2 * np.pi)
    near = lambda x, y: bool(np.isclose(x, y, rtol=5e-3))                                            # noqa: E731
    told(2, function(x, line), (), (
        (lambda w: near(w, -right), "Absorption takes light away: 1 - flux, not flux - 1."),
        (lambda w: near(w, np.trapezoid(line, x)), "That is the light that is left; what is missing is 1 - flux."),
        (lambda w: near(w, (1 - line).sum()), "That is in pixels: each has to count with its width in Å."),
        (lambda w: near(w, (1 - line).mean() * 20) or near(w, (1 - line).sum() * np.diff(x).mean()), "Here pixels are unequal; one mean width for all will not do."),
        (lambda w: near(w, 1000 * right), "That is in mÅ; asked for is Å."),
        (lambda w: not near(w, right), f"For this Gaussian line, depth 0.6 and sigma 1.2 Å, it is {right:.4f} Å.")))


def equivalent_width(wave, flux):
    """In Å, of what lies between the first and the last pixel; flux over continuum."""
    return None


check_width(equivalent_width)

# %% [markdown]
# **Exercise 3** (medium, 15 minutes). How well can a velocity be measured from one spectrum? A pixel whose flux changes by dF/dv per km/s and has noise 1 / (S/N) knows the velocity to 1 / (S/N dF/dv); all pixels together know
# it better. Give the least error in km/s. Then try it on a star with a hundredth of the iron, and compare with the velocity that LAMOST declares to be left over.

# %%
def check_velocity(function):
    slope = np.gradient(still.flux[0].astype("f8"), np.log(still.wave)) / C_KMS                      # F(ln wave - v / c)
    right = 1 / np.sqrt(np.sum((30 * slope) ** 2))
    near = lambda x, y: bool(np.isclose(x, y, rtol=0.03))                                            # noqa: E731
    told(3, function(still.wave, still.flux[0].astype("f8"), 30.0), (), (
        (lambda x: near(x, right / C_KMS), "That is v / c: times C_KMS it is in km/s."),
        (lambda x: near(x, right**2), "That is the variance: one over the sum. The error is its root."),
        (lambda x: near(x, right * np.sqrt(len(slope))), "That is what a single typical pixel knows. Squares add up over all pixels: a sum, not a mean."),
        (lambda x: near(x, 900 * right), "With a higher S/N the error has to be smaller."),
        (lambda x: near(x, 1 / (30 * np.abs(slope).sum())), "Independent pieces of information add up as squares: the sum of (S/N dF/dv)^2."),
        (lambda x: not near(x, right), "dF/dv is the derivative with respect to ln(wave), over C_KMS: np.gradient(flux, np.log(wave)) / C_KMS. One over the root of the sum of (S/N dF/dv)^2.")))


def least_velocity_error(wave, flux, snr):
    """One sigma in km/s; ``flux`` (n_pix,) without noise, over the continuum, ``snr`` the same in all pixels."""
    return None


check_velocity(least_velocity_error)

# %% [markdown]
# **Exercise 4** (hard, 25 minutes). A star less its twin is a curve of 1462 pixels. Which change of teff, logg and [Fe/H] *together* imitates it best? `gradient[i, k]` is how the spectrum of star i changes per unit of label k (per 100 K, 0.1 dex, 0.1 dex). That
# is the error of the labels which wrong lines alone cause. Then: which share of the difference have you explained?

# %%
steps = np.diag([50.0, -0.05, 0.05, 0, 0])[:3]
gradient = np.stack([(twins(numbers[chosen] + step).flux - twins(numbers[chosen]).flux) * scale for step, scale in zip(steps, (2, -2, 2), strict=True)], 1)


def check_imitation(function):
    d, g = difference[chosen], gradient
    fit = lambda rows: np.stack([np.linalg.lstsq(a[rows].T, b, rcond=None)[0] for a, b in zip(g, d, strict=True)])       # noqa: E731
    near, right = (lambda x, y: bool(np.allclose(x, y, rtol=1e-3, atol=1e-4))), fit(slice(None))
    single = np.einsum("np,nkp->nk", d, g) / np.square(g).sum(2)
    told(4, function(d, g), right.shape, (
        (lambda x: near(x, -right), "The other sign: observed less simulated is gradient times change."),
        (lambda x: near(x, single), "You projected on one label at a time: what looks like temperature is counted as iron as well. Solve for the three together."),
        (lambda x: near(x, np.einsum("np,nkp->nk", d, g)), "A projection has to be divided by the square of the gradient's length, and the three are not at right angles."),
        (lambda x: not near(x, right), "Least squares for each star: np.linalg.lstsq(gradient[i].T, difference[i]).")))


def imitation(difference, gradient):
    """(n, 3) changes of the labels, in the units of ``gradient`` (n, 3, n_pix), that come nearest to ``difference`` (n, n_pix)."""
    return None


check_imitation(imitation)

# %% tags=["key-figures"]
print("stars:", len(observed), "real (MILES)" if real else "simulated stand-ins")
print(f"velocity 30 km/s changes the spectrum by: {100 * change[3]:.1f} %")
print(f"0.3 dex of iron changes it by: {100 * less_iron:.1f} %")
print(f"star less its twin: {100 * medians[0]:.1f} %, 0.2 dex of iron: {100 * medians[1]:.1f} %")
print(f"AUC, all systematics: {results['all declared systematics']:.2f}")

# %% [markdown]
# ## What was shown, and what not
#
# * Resolution keeps the area of a line; velocity, noise and normalisation each cost as much as tenths of a dex when they are not declared; dust is
#   taken out of normalised spectra and is most of what XP shows.
# * Air or vacuum, grid, line spread: no two surveys deliver the same numbers for the same star, and each difference can be undone only where it is declared. Lost resolution and lost colour cannot be undone at all.
# * Simulated stars agree with real ones to a few per cent, which is no noise, and are told apart without effort. Molecules of cool giants are the worst.
# * *Not* shown: that the differences do or do not matter for labels (notebook 00 measures that); how H-band or XP spectra compare with real
#   ones line by line; what a survey does that no declaration has a word for: scattered light, bad sky, wrong stars.
#
# **Common misreadings.** "AUC 1, so the simulations are useless": it says they differ, not by how much in the direction of a label. "The residual is
# noise": it is the same in every star. "R2 and AUC near 1 are both good": one is for likeness, the other against it. "The normalised flux is flux over continuum": the curve runs through the lines. "Higher resolution is always
# better": with the same photons each pixel has fewer of them.
#
# **Next.** 02 hides parts of such spectra and lets a network fill them in.
#
# **References.** LAMOST: Luo et al. 2015, RAA 15, 1095. DESI: Guy et al. 2023, AJ 165, 144. APOGEE: Majewski et al. 2017, AJ 154, 94. MILES: Sánchez-Blázquez et al. 2006, MNRAS 371, 703; Falcón-Barroso et al. 2011, A&A 532, A95. STELIB: Le Borgne et al. 2003,
# A&A 402, 433. Gaia XP: De Angeli et al. 2023, A&A 674, A2; Montegriffo et al. 2023, A&A 674, A3. Extinction: Gordon et al. 2023, ApJ 950, 86. Air and vacuum: Ciddor 1996, Applied Optics 35, 1566. Upper envelope: Zhao et al. 2026,
# arXiv:2507.01939. How well a velocity can be known: Bouchy et al. 2001, A&A 374, 733.

# %% [markdown] tags=["solutions"]
# ## Solutions
#
# <details><summary>Exercise 1</summary>
#
# ```python
# def velocity_error(wave_air):
#     return C_KMS * (to_vacuum(wave_air, "air") / wave_air - 1)
# ```
#
# Nearly the same at all wavelengths: it is mistaken for a motion of the star.
#
# </details>
#
# <details><summary>Exercise 2</summary>
#
# ```python
# def equivalent_width(wave, flux):
#     return np.trapezoid(1 - flux, wave)
# ```
#
# </details>
#
# <details><summary>Exercise 3</summary>
#
# ```python
# def least_velocity_error(wave, flux, snr):
#     slope = np.gradient(flux, np.log(wave)) / C_KMS
#     return 1 / np.sqrt(np.sum((snr * slope) ** 2))
# ```
#
# Noise leaves far less than LAMOST's declared velocity error: that one is made of wavelength calibration, not of photons. A metal-poor star has fewer slopes, and a larger error.
#
# </details>
#
# <details><summary>Exercise 4</summary>
#
# ```python
# def imitation(difference, gradient):
#     return np.stack([np.linalg.lstsq(g.T, d, rcond=None)[0] for d, g in zip(difference, gradient, strict=True)])
# ```
#
# The share explained is one less the sum of squares of `difference - imitation @ gradient` over that of `difference`. Most is left: it points in no label's direction. Do look at the changes themselves, though, above all for a cool star. Plain
# least squares trusts every line, and pays for wrong ones with labels; a network that has met wrong lines in training trusts them less.
#
# </details>
