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
# # 00 Start here: from a pretrained model to the metallicity of real stars
#
# | | |
# |---|---|
# | **Question** | Can a network that has only ever seen *computed* spectra measure real stars, and how far do 89 labels carry it? |
# | **You will** | look at spectra the way the network does; train a beginner to fill gaps, and see what the trained one knows; measure [Fe/H] without a single label; adapt with LoRA and 89 labelled stars, and judge it against three rivals and a control; find where it fails, and what noise does to it |
# | **You need** | Python, what a spectrum is; no machine learning beyond "a network has weights" |
# | **Time** | 35 minutes to read, about 2 minutes to run on 2 cores, about 1.5 GB of memory |
# | **Data** | MILES, 725 real stars, when `SPECTRAKIT_DATA` names a folder that has them; otherwise simulated stars. The notebook says which. |

# %% tags=["parameters"]
profile = "full"                  # "ci" does the same in seconds, with fewer splits
device = "cpu"

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

import spectrakit as sk
from spectrakit.exercises import told

sk.plots.use_style()
quick = profile == "ci"
assert profile in ("full", "ci") and device in ("cpu", "cuda"), "profile is full or ci, device is cpu or cuda"

# %% [markdown]
# ## 1. Stars
#
# A `SpectraSet` holds many spectra on one wavelength grid, and everything one has to know about the numbers: are the wavelengths in air or in
# vacuum, is the star at rest, how sharp was the instrument, is the continuum still in, are the errors measured or guessed. Nothing of that has a
# default. We take FGK stars (4200-7000 K) whose labels lie where the library of computed spectra has models.

# %%
try:
    stars, real = sk.read("miles"), True
except ValueError as missing:
    print(missing)
    stars, real = sk.simulate("miles", n=400, seed=7), False

stars = stars[stars.labelled("teff", "logg", "feh")]
stars = stars[(stars.label("teff") > 4200) & (stars.label("teff") < 7000)]
stars = stars[sk.experiments.in_hull(stars)]
print("REAL stars of the MILES library" if real else "SIMULATED stars seen by a MILES-like instrument")
print(stars)

# %% [markdown]
# The flux falls and rises with the star's temperature, with dust, with the flux calibration. The lines are what we are after. So the first step is
# to divide by a smooth curve. Here it is a polynomial of degree five through *all* pixels between 3960 and 5640 Å: not the true continuum, but the
# same curve for a simulated and a real star, and noise does not lift it.

# %%
spectra = sk.normalize(stars)
feh = spectra.label("feh")
solar_like = np.abs(spectra.label("teff") - 5700) + 300 * np.abs(spectra.label("logg") - 4.3)
rows = [int(np.argmin(solar_like + 1500 * np.abs(feh - target))) for target in (-2.0, -1.0, -0.5, 0.0)]
ax = sk.plots.spectra(spectra, rows)
_ = ax.set_title("Four stars of nearly one temperature: every line that fades away is metal that is missing", fontsize=10, pad=28)
strength = spectra.flux[rows].std(1)
assert strength[0] < 0.7 * strength[-1]

# %% [markdown]
# **Takeaway.** At [Fe/H] = -2 the spectrum is almost bare: the hydrogen lines remain, the metal lines drown in the noise. Keep this picture in mind
# for the last section.
#
# ## 2. What the network sees: tokens
#
# The encoder reads a spectrum as a text of 147 *tokens*: windows of 20 pixels (about 20 Å), each beginning 10 pixels after the one before, and one
# token in front for the strength of the lines. Written out:

# %%
def tokens_by_hand(flux, window=20, stride=10):
    mean, std = flux.mean(), flux.std()
    standard = (flux - mean) / std
    starts = list(range(0, len(flux) - window + 1, stride))
    starts.append(len(flux) - window)                            # the last window ends with the spectrum
    rows = [[0.0, *standard[a:a + window]] for a in starts]
    return np.array([[np.log10(std)] + [0.0] * window, *rows])


model = sk.load_model("small")
flux, mask = model.prepare(spectra)
by_hand = tokens_by_hand(flux[rows[0]].double().numpy())
tokens = model.encoder.tokenize(flux[rows[0]][None])[0]
assert np.allclose(tokens, by_hand, atol=1e-4)
print("tokens, numbers a token:", tuple(tokens.shape))

# %% [markdown]
# ## 3. Pretraining: guess what is hidden
#
# Nobody tells the network what a spectrum means. It is shown spectra with six gaps of ten tokens, 41 % of the whole, and has to fill them in. To do
# that well it has to find out that a deep Mg line here goes with deep Fe lines there.
#
# Let us train a very small one for a moment.

# %%
from spectrakit.models.foundation import new_model

beginner = new_model("tiny", survey="pretraining", recipe="robust", seed=0).encoder
practice = torch.as_tensor(sk.normalize(sk.simulate("pretraining", n=512 if quick else 4096, seed=1)).flux, dtype=torch.float32)
optimizer = torch.optim.AdamW(beginner.parameters(), lr=2e-3)
generator, losses = torch.Generator().manual_seed(0), []
for _step in range(15 if quick else 200):
    batch = practice[torch.randint(len(practice), (32,), generator=generator)]
    loss = beginner.masked_loss(batch, beginner.draw_chunks(32, generator))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert np.mean(losses[-5:]) < 0.9 * losses[0]

# %% [markdown]
# **Predict first.** A standardised spectrum has variance one: who always answers "the mean" has a loss of 1. How low can the loss get, if neighbouring
# pixels are all one has? And if one understands stars? Now look at how the trained model (`small`) fills gaps it has never seen, beside the
# beginner, and beside a straight line, which understands nothing. Order the three.

# %%
hidden = model.encoder.draw_chunks(1, torch.Generator().manual_seed(3)).expand(len(flux), -1)      # the same places in every star


@torch.no_grad()
def restored(encoder):
    guess = encoder.restore(encoder.encode(encoder.tokenize(flux, hidden), hidden))[:, 1:, 1:]
    std, mean = encoder.statistics(flux, hidden)                 # of the visible pixels
    place = encoder.pixels.flatten()
    total = torch.zeros(flux.shape).index_add_(1, place, guess.flatten(1))
    count = torch.zeros(flux.shape[1]).index_add_(0, place, torch.ones(len(place)))
    return (total / count * std + mean).numpy()


gone = np.ones(flux.shape[1], dtype=bool)
gone[model.encoder.pixels[~hidden[0, 1:]].flatten()] = False     # pixels that no visible window shows
truth, wave = flux.numpy(), spectra.wave
guesses = {"straight line": np.stack([np.interp(wave, wave[~gone], star[~gone]) for star in truth]), "beginner": restored(beginner), "small": restored(model.encoder)}
error = {name: np.std((guess - truth)[:, gone], axis=1) for name, guess in guesses.items()}
print({name: round(float(value.mean()), 3) for name, value in error.items()}, f"mean of {len(flux)} stars")
best = (error["small"] < np.minimum(error["straight line"], error["beginner"])).mean()
print(f"small is nearest in {best:.0%} of the stars")

# %% [markdown]
# The unit is the continuum: 0.03 means that a restored pixel is wrong by 3 % of it, noise included. In a picture, one star, without the beginner:

# %%
fig, ax = plt.subplots(figsize=(10, 3.2))
ax.plot(wave, truth[rows[-1]], color=sk.plots.GREY, lw=0.8, label="the star")
ax.plot(wave, np.where(gone, guesses["small"][rows[-1]], np.nan), color=sk.plots.RED, lw=1.4, label="restored by small")
ax.plot(wave, np.where(gone, guesses["straight line"][rows[-1]], np.nan), color=sk.plots.BLUE, ls="--", label="straight line")
ax.fill_between(wave, 0.3, 1.4, where=gone, color="0.93", zorder=0, label="hidden")
ax.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", ylim=(0.3, 1.4), title="The network has never seen this star" + ", nor any real one" * real)
_ = ax.legend(ncols=4, loc="lower right", fontsize=8)
assert best > 0.99 and error["small"].mean() < 0.4 * error["straight line"].mean()

# %% [markdown]
# **Takeaway.** Lines that nobody showed it are put back at their places, at about their depths. **Control.** The straight line uses what is visible next to the gap and nothing else. What `small` does better than the line, it knows from other stars. The beginner has the same
# visible pixels and the same design, only fewer stars, steps and weights: what it lacks is practice.
#
# ## 4. Zero-shot: no label at all
#
# `small` was trained on simulated stars only, first with gaps, then with the labels that a simulation knows. Its [Fe/H] for our stars is therefore
# *zero-shot*: not one of them has told it anything.
#
# **Predict first.** MILES labels are literature values, good to about 0.1 dex. What scatter do you expect: 0.05, 0.15, 0.5 dex?

# %%
zero, _ = model.predict(spectra, "feh")
zero_score = sk.metrics.score(feh, zero)
print(zero_score)
assert 0.05 < zero_score.sigma < 0.3 and abs(zero_score.bias) < 0.15

# %% [markdown]
# `sigma` is a robust scatter about the median: it does not see a constant offset (that is the `bias`) and hardly sees the worst stars (these are in
# `r2`). Read all three, always. The brackets are 68 % bootstrap intervals.
#
# ## 5. Adaptation: 89 labels and LoRA
#
# The instrument is another one, the labels are on another scale, real stars are richer than computed ones. A few labelled stars can tell the network.
# But a network with a million weights learns 89 numbers by heart. LoRA keeps every weight $W$ as it is and learns a small correction of rank $r$:
#
# $$ W x + \frac{\alpha}{r} B A x, \qquad A: r \times n_{\rm in}, \quad B: n_{\rm out} \times r, \quad B = 0 \text{ at the start.} $$
#
# By hand, on one layer of the head, against peft:

# %%
from spectrakit.adaptation.adapters import LabelNetwork, insert, label_network

network = insert(LabelNetwork(model.encoder, model.heads["feh"]), ("lora2",), seed=0)
layer = label_network(network).head.linears[0]
A, B = layer.lora_A["lora2"].weight, layer.lora_B["lora2"].weight
x = torch.linspace(-1, 1, layer.in_features)[None]
assert torch.equal(layer(x), layer.base_layer(x))                # B = 0: nothing has changed yet
with torch.no_grad():
    B += 0.1
by_hand = layer.base_layer(x) + 16 / 8 * (x @ A.T) @ B.T
assert torch.allclose(layer(x), by_hand, atol=1e-5)
print("weights in this layer:", layer.base_layer.weight.numel(), " in its adapter:", A.numel() + B.numel())
model = sk.load_model("small").to(device)

# %% [markdown]
# Now 89 stars for training, 9 for validation, all others for the test. A star is in one group only. The two *placements* of this first notebook:
# `lora1` sits in the attention of the encoder, `lora2` in the head that turns an embedding into a number.
#
# **Predict first.** The head has learned from simulated stars, and the zero-shot answer was good. What will 97 labels improve: `sigma`, `bias`, both, neither?

# %%
splits = sk.experiments.splits(np.asarray(spectra.labels["star"]), n_train=89, n_valid=9, n_splits=2 if quick else 5, seed=0)
split = splits[0]
train, valid, test = (spectra[rows] for rows in split)
fit = sk.adapt(model, train, validation=valid, label="feh", placement=("lora2",), seed=0)
value, sigma = fit.predict(test)
print("labels used:", fit.budget, " weights trained:", fit.n_trained, " steps kept:", fit.steps)
before, after = (sk.metrics.score(test.label("feh"), guess) for guess in (zero[split.test], value))
print("zero-shot:", before, "\nadapted:  ", after)
assert abs(after.bias) < 0.1 and after.sigma < 1.2 * before.sigma

# %% [markdown]
# Each star of this test set, before and after. Is what you see on the right a smaller scatter, or another tilt?

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True, sharey=True)
sk.plots.predictions(test.label("feh"), zero[split.test], "feh", axes[0], color=sk.plots.BLUE)
axes[0].set_title("zero-shot: no label")
sk.plots.predictions(test.label("feh"), value, "feh", axes[1], sigma=sigma, color=sk.plots.RED, marker="s")
_ = axes[1].set_title("adapted: 89 + 9 labels, one-sigma errors")

# %% [markdown]
# **Takeaway.** Left: a cloud about the line, without a label. Right: a narrower one, or hardly. One split is an anecdote, though: with 89 stars luck is large.
#
# ## 6. Is that any good? Baselines on the same splits
#
# A figure without a baseline is no result. Three methods without any pretraining get the same 89 stars: ridge regression and a Gaussian process on
# the principal components of the spectra, and a Cannon (every pixel a quadratic function of the labels; it needs teff and logg of the training stars as well). On several splits, because of the luck.
#
# **Predict first.** Order the five by `sigma`. Who knows more: a network without a label, or a Gaussian process with 89?

# %%
from spectrakit.models.baselines import GaussianProcessPCA, RidgePCA
from spectrakit.models.cannon import Cannon


def baseline(make):
    return lambda train, valid, test, k: make().fit(train, "feh").predict(test)


def adapted(train, valid, test, k):
    return fit.predict(test) if k == 0 else sk.adapt(model, train, validation=valid, label="feh", placement=("lora2",), seed=k).predict(test)


methods = {"zero-shot": lambda train, valid, test, k: model.predict(test, "feh"), "LoRA2": adapted, "ridge on PCA": baseline(RidgePCA),
           "Gaussian process on PCA": baseline(GaussianProcessPCA), "Cannon": baseline(Cannon)}
table = sk.experiments.compare(spectra, methods, "feh", splits, progress=False)
summary = sk.experiments.summary(table)
everyone = summary[summary.regime == "all"].set_index("method")
assert everyone.sigma["LoRA2"] < everyone.sigma[["ridge on PCA", "Gaussian process on PCA", "Cannon"]].min()
summary[["method", "regime", "n", "sigma", "sigma_scatter", "bias", "r2"]].round(3)

# %% [markdown]
# **Takeaway.** `sigma_scatter` is the scatter between splits: a difference smaller than that is none yet. The step from the baselines to zero-shot is the pretraining; the step from zero-shot to
# LoRA2 is the labels. Compare their sizes.
#
# **Control.** The same adaptation with the labels of the training stars shuffled among them must not help: what it learns then is noise.

# %%
shuffled = train.labels.copy()
shuffled["feh"] = np.random.default_rng(0).permutation(train.label("feh")) * train.labels["feh"].unit
nonsense = sk.adapt(model, replace(train, labels=shuffled), label="feh", placement=("lora2",), seed=0).predict(test)[0]
print("labels shuffled:", sk.metrics.score(test.label("feh"), nonsense))
assert sk.metrics.score(test.label("feh"), nonsense).r2 < sk.metrics.score(test.label("feh"), value).r2

# %% [markdown]
# ## 7. Where it fails
#
# **Predict first.** Of our 89 training stars about one in seven has [Fe/H] < -1. Where will the adapted model be worst, and in which direction? Is it the few labels? The control is zero-shot, which has
# never had any.

# %%
fig, ax = plt.subplots(figsize=(7.5, 3.6))
sk.plots.residuals(test.label("feh"), zero[split.test] - test.label("feh"), ax, name="zero-shot", color=sk.plots.BLUE)
sk.plots.residuals(test.label("feh"), value - test.label("feh"), ax, name="adapted", color=sk.plots.RED, marker="s")
ax.set_title("Below -1: few stars, and a larger scatter")
_ = ax.legend()
poor, rich = (summary[summary.regime == regime].set_index("method") for regime in ("< -1", ">= -1"))
for name in ("zero-shot", "LoRA2"):
    print(f"{name:9s} below -1: sigma {poor.sigma[name]:.3f} dex, bias {poor.bias[name]:+.3f}; above: {rich.sigma[name]:.3f}, {rich.bias[name]:+.3f}")
    assert poor.sigma[name] > rich.sigma[name] or not real

# %% [markdown]
# Below -1 there are few labels, the lines are weak, and a network that is unsure leans towards what is common, more metal: look at the sign of the bias. In the LoRA study of
# SpecCLIP every adapter was *worse* than zero-shot there (R2 from -0.5 to -1.3). On these stars that does not appear: the table above has the
# metal-poor rows of both, and the adapted ones are not the worse. With real stars the scatter is the larger one either way, with labels and without: few labels are not the whole
# reason. (Simulated stars do not show it: there is hardly any noise in them, and their lines are the ones that the network knows.) Notebook 07 takes that apart. One of the reasons can be tried at once.
#
# ## 8. Noise: look for yourself
#
# MILES is nearly free of noise; survey stars are not. We add noise to the stars and ask again, zero-shot.
#
# **Predict first.** At S/N 10 a pixel, do the answers only scatter more, or do they also move? Which way, for a metal-poor star, whose spectrum should be bare? And does it matter more above
# or below -1?

# %%
def with_noise(stars, snr, n=1):
    """Every star ``n`` times, with noise of this S/N a pixel added to what it has."""
    many = stars[np.repeat(np.arange(len(stars)), n)]
    return replace(many, flux=many.flux + np.random.default_rng(0).standard_normal(many.flux.shape) / snr, ivar=np.full(many.flux.shape, float(snr) ** 2))


groups = {name: np.flatnonzero(chosen)[:20 if quick else 60] for name, chosen in (("[Fe/H] < -1", feh < -1), (">= -1", feh >= -1))}
moved = {}
for name, chosen in groups.items():
    for snr in (100, 30, 10):
        change = model.predict(with_noise(spectra[chosen], snr), "feh")[0] - zero[chosen]
        moved[name, snr] = sk.metrics.score(zero[chosen], zero[chosen] + change, n_boot=200)
        print(f"{name:12s} n = {len(chosen)}, S/N {snr:3d}: moved by {{:+.3f}} [{{:+.3f}}, {{:+.3f}}] dex, scatter {{:.3f}} dex".format(
            moved[name, snr].bias, *moved[name, snr].bias_interval, moved[name, snr].sigma))
assert moved["[Fe/H] < -1", 10].sigma > moved[">= -1", 10].sigma and moved["[Fe/H] < -1", 10].sigma > 2 * moved["[Fe/H] < -1", 100].sigma

# %% [markdown]
# **Takeaway.** Noise that was not there before costs most where lines are weak: that is the share of the metal-poor scatter which no label and no network takes away. Most people expect noise to pass for lines,
# and so for metal. A network that falls for it would move up; compare the sign of the median with its 68 % interval before you say that yours does. *Control*: the metal-rich stars, with the very same noise.
#
# This function shows one star, counted from the most metal-poor, with new noise eight times. By code that is one line: `model.predict(with_noise(spectra[[k]], 30, 8), "feh")`.

# %%
order = np.argsort(feh)
place = int(np.flatnonzero(order == rows[1])[0])


def show(star=place, snr=30):
    k = order[star]
    many = with_noise(spectra[[k]], snr, 8)
    value = model.predict(many, "feh")[0]
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.2), width_ratios=(3, 1))
    left.plot(many.wave, many.flux[0], color=sk.plots.ORANGE, lw=0.5, label=f"with noise, S/N {snr}")
    left.plot(many.wave, spectra.flux[k], color=sk.plots.BLUE, lw=0.9, label="without it")
    left.set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", ylim=(0.2, 1.5), title=f"Star {star} of {len(order)}: {spectra.label('teff')[k]:.0f} K, log g {spectra.label('logg')[k]:.1f}")
    left.legend(fontsize=8, ncols=2, loc="lower right")
    right.axhline(feh[k], color=sk.plots.GREY, ls="--", label="label")
    right.axhline(zero[k], color=sk.plots.BLUE, label="without noise")
    right.plot(np.arange(1, 9), value, "o", color=sk.plots.ORANGE, label="with noise")
    right.set(xlabel="draw of the noise", ylabel="[Fe/H], zero-shot [dex]", ylim=(feh[k] - 1, feh[k] + 1.4), title=f"scatter {value.std(ddof=1):.2f} dex")
    right.legend(fontsize=7, loc="upper center")
    plt.show()


show()

# %% [markdown]
# The same with two sliders, where a kernel is running. Down to which S/N would you trust the answer for a star like the Sun, and for the most metal-poor one?

# %% tags=["nbval-ignore-output"]
import ipywidgets

_ = ipywidgets.interact(show, star=ipywidgets.IntSlider(place, 0, len(order) - 1, continuous_update=False), snr=ipywidgets.IntSlider(30, 5, 100, description="S/N", continuous_update=False))

# %% [markdown]
# ## 9. Exercises
#
# Put your lines in place of `return None` and run the cell: it says whether you are done, or gives a hint. Solutions are folded away at the very end.
#
# **Exercise 1** (easy, 5 minutes). Into how many tokens does a spectrum of `n_pix` pixels fall? Windows of `window` pixels, one every `stride`; if pixels are left over, one more window that ends with the spectrum; and the token in front.

# %%
def check_tokens(function):
    cases, right = ((1462, 20, 10), (1460, 20, 10), (100, 30, 15)), np.array([147, 146, 7])
    answer = None if function(*cases[0]) is None else np.array([function(*case) for case in cases], float)
    told(1, answer, (3,), (
        (lambda x: (x == right - 1).all(), "One token is missing, always: the one in front, with the strength of the lines."),
        (lambda x: (x == [146, 146, 6]).all(), "1462 pixels leave two over: one more window, that ends with the spectrum."),
        (lambda x: x[0] > 147, "A window needs all its pixels: the last one begins `window` pixels before the end."),
        (lambda x: x[1] == 147, "With 1460 pixels the last window ends with the spectrum by itself: no further one."),
        (lambda x: (x != right).any(), f"For 1462, 1460 and 100 pixels (windows of 20, 20, 30 every 10, 10, 15) it is {right}.")))


def n_tokens(n_pix, window, stride):
    """How many tokens, the one in front included."""
    return None


check_tokens(n_tokens)

# %% [markdown]
# **Exercise 2** (easy, 10 minutes). A scatter that ten wild stars in a hundred cannot spoil: 1.4826 times the median distance from the median. Return it, and the bias, as two numbers. How does it compare with `sk.metrics.score(truth, value).sigma`, and with the standard deviation?

# %%
def check_scatter(function):
    rng = np.random.default_rng(0)
    truth = rng.uniform(-2, 0, 400)
    error = rng.normal(0.2, 0.1, 400) + np.where(np.arange(400) < 40, 2.0, 0.0)
    mad = np.median(np.abs(error - np.median(error)))
    near = lambda x, y: bool(np.isclose(x, y, rtol=1e-6))                                            # noqa: E731
    told(2, function(truth, truth + error), (2,), (
        (lambda x: near(x[1], -np.median(error)), "The bias is predicted minus true: yours has the other sign."),
        (lambda x: near(x[1], error.mean()), "The mean follows the wild stars; take the median for the bias."),
        (lambda x: near(x[0], error.std()) or near(x[0], error.std(ddof=1)), "That is the standard deviation: forty wild stars rule it."),
        (lambda x: near(x[0], mad), "The factor 1.4826 is missing, which makes it the standard deviation of a Gaussian."),
        (lambda x: near(x[0], 1.4826 * np.median(np.abs(error))), "Distances are to be taken from the median, not from zero: a constant offset is no scatter."),
        (lambda x: not (near(x[0], 1.4826 * mad) and near(x[1], np.median(error))), "Return (scatter, bias), in this order, of value - truth.")))


def scatter_and_bias(truth, value):
    """Robust scatter and median of value - truth."""
    return None


check_scatter(scatter_and_bias)

# %% [markdown]
# **Exercise 3** (medium, 10 minutes). After training, a LoRA layer can be *merged*: one matrix that does what both did, so that the adapted network costs nothing more. Which? And how many numbers must be stored for a hundred adapted surveys, merged and not merged?

# %%
def check_merged(function):
    rng = np.random.default_rng(0)
    w, a, b, alpha = rng.normal(size=(6, 5)), rng.normal(size=(2, 5)), rng.normal(size=(6, 2)), 16.0
    same = lambda x, y: bool(np.allclose(x, y))                                                      # noqa: E731
    told(3, function(w, a, b, alpha), (6, 5), (
        (lambda x: same(x, alpha / 2 * b @ a), "That is the correction alone: W is still there."),
        (lambda x: same(x, w + b @ a), "The factor alpha / r is missing; r is the number of rows of A."),
        (lambda x: same(x, w + alpha * b @ a), "alpha is to be divided by the rank r, the number of rows of A."),
        (lambda x: not same(x, w + alpha / 2 * b @ a), "Merged(W) x has to be W x + alpha / r B A x for every x; compare the order of B and A.")))


def merged(W, A, B, alpha):
    """One matrix (n_out, n_in) in place of W (n_out, n_in), A (r, n_in) and B (n_out, r)."""
    return None


check_merged(merged)

# %% [markdown]
# **Exercise 4** (hard, 20 minutes). A sceptic asks: is LoRA more than a straight line? Correct the zero-shot answers by one: slope and zero point from the labelled stars, applied to the others. Then score it on `test` beside `before` and `after`: how much of the gain do two numbers have?

# %%
def check_line(function):
    x, y, new = zero[split.train], feh[split.train], zero[split.test]
    told(4, function(x, y, new), (len(new),), (
        (lambda v: np.allclose(v, new), "These are the zero-shot answers as they were."),
        (lambda v: np.allclose(v, new + np.mean(y - x)) or np.allclose(v, new + np.median(y - x)), "That shifts all stars alike; a line also has a slope."),
        (lambda v: np.allclose(v, np.polyval(np.polyfit(y, x, 1), new)), "You fitted the answer as a function of the truth and applied that to answers. Fit what you want to know as a function of what you have."),
        (lambda v: np.allclose(v, np.polyval(np.polyfit(new, feh[split.test], 1), new)), "That line was fitted to the test stars, whose labels nobody has."),
        (lambda v: not np.allclose(v, np.polyval(np.polyfit(x, y, 1), new), atol=1e-4), "Least squares of truth against answer, of the labelled stars: np.polyfit(answer, truth, 1).")))


def straight_line(answer, truth, new_answer):
    """Corrected ``new_answer`` (m,), given zero-shot answers (n,) and labels (n,) of the labelled stars."""
    return None


check_line(straight_line)

# %% tags=["key-figures"]
print("stars:", len(spectra), "real (MILES)" if real else "simulated")
print(f"zero-shot sigma: {everyone.sigma['zero-shot']:.3f} dex")
print(f"adapted sigma: {everyone.sigma['LoRA2']:.3f} dex")
print(f"Gaussian process sigma: {everyone.sigma['Gaussian process on PCA']:.3f} dex")
print(f"metal-poor r2, adapted: {poor.r2['LoRA2']:.2f}")
print(f"noise of S/N 10 moves metal-poor stars by: {moved['[Fe/H] < -1', 10].bias:+.3f} dex")

# %% [markdown]
# ## What was shown, and what not
#
# * A transformer trained on computed spectra measures [Fe/H] without a label, of real stars if you have them; 89 labels change that less than pretraining had given before. It beats what the same 89 labels
#   give without pretraining.
# * Below [Fe/H] = -1 the scatter of real stars is larger, with labels and without; noise hurts there first.
# * *Not* shown: that masked pretraining was needed (the labels of the simulation were used too), that LoRA in the attention would do better, that the errors are calibrated for metal-poor stars, that it works on
#   another survey.
#
# **Common misreadings.** "sigma went down, so the model is better": look at bias and R2. "The network knows iron": it knows what goes with iron in the stars it was shown. "This sigma is the model's
# error": the literature labels have about 0.1 dex of their own. "It restores a real star, so it understands stars": a straight line is a weak rival; notebook 02 has a stronger one.
#
# **Next.** 01: what instruments do to a spectrum. 02: masked pretraining, and a fair rival for it. 04: LoRA in every place where it can be put. 07: metal-poor stars.
#
# **References.** SpecCLIP: Zhao et al. 2026, arXiv:2507.01939. LoRA for stellar spectra: Zhao et al. 2025, arXiv:2507.20972. MILES: Sánchez-Blázquez et
# al. 2006, MNRAS 371, 703; Falcón-Barroso et al. 2011, A&A 532, A95; Cenarro et al. 2007, MNRAS 374, 664. The Cannon: Ness et al. 2015, ApJ 808, 16. LoRA:
# Hu et al. 2021, arXiv:2106.09685. Robust scatter: Beers et al. 1990, AJ 100, 32.

# %% [markdown] tags=["solutions"]
# ## Solutions
#
# <details><summary>Exercise 1</summary>
#
# ```python
# def n_tokens(n_pix, window, stride):
#     return 1 + 1 + -(-(n_pix - window) // stride)
# ```
#
# The token in front, the first window, and one more for every stride that is begun.
#
# </details>
#
# <details><summary>Exercise 2</summary>
#
# ```python
# def scatter_and_bias(truth, value):
#     error = value - truth
#     bias = np.median(error)
#     return 1.4826 * np.median(np.abs(error - bias)), bias
# ```
#
# `score` has the same idea with a smoother weight (Tukey's biweight), which uses more of the good stars.
#
# </details>
#
# <details><summary>Exercise 3</summary>
#
# ```python
# def merged(W, A, B, alpha):
#     return W + alpha / len(A) * B @ A
# ```
#
# Merged, each survey needs n_out n_in numbers; not merged, W once and r (n_in + n_out) for each survey.
#
# </details>
#
# <details><summary>Exercise 4</summary>
#
# ```python
# def straight_line(answer, truth, new_answer):
#     return np.polyval(np.polyfit(answer, truth, 1), new_answer)
# ```
#
# `sk.metrics.score(test.label("feh"), straight_line(zero[split.train], feh[split.train], zero[split.test]))` beside `before` and `after`. What the line does not reach has to come from the spectra.
#
# </details>
