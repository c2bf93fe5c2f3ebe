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
# # 03 Contrastive alignment: a star seen by two instruments
#
# | | |
# |---|---|
# | **Question** | Two instruments see one star and share no measurement. Can two networks bring both spectra to one place of one space, and what is that place good for? |
# | **You will** | measure what each of two spectra knows; write attention with a learned query, the InfoNCE loss and retrieval by hand and prove them equal to the package; train two heads without a label; find stars of one survey in the other, against rivals and chance; predict one spectrum from the other, and tell what a model lacks from what nobody can know |
# | **You need** | notebooks 00 to 02; what a softmax is |
# | **Time** | 55 minutes to read, about 2 minutes to run on 2 cores, about 1.5 GB of memory |
# | **Data** | simulated pairs; section 2 also uses real Gaia XP spectra when `SPECTRAKIT_DATA` names a folder that has them, and says so |

# %% tags=["parameters"]
profile = "full"                  # "ci" does the same with fewer stars and fewer steps
device = "cpu"

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import torch

import spectrakit as sk
from spectrakit.models.alignment import PRESETS, Alignment, info_nce
from spectrakit.retrieval import ranks, search, similarity
from spectrakit.surveys import GAIA_XP, LAMOST

sk.plots.use_style()
quick = profile == "ci"
assert profile in ("full", "ci") and device in ("cpu", "cuda"), "profile is full or ci, device is cpu or cuda"

# %% [markdown]
# ## 1. One star, two spectra
#
# LAMOST (LRS) delivers lines: 1462 pixels, divided by the continuum. Gaia XP delivers colour: 343 points from the near ultraviolet to the near infrared, divided by
# the flux at 550 nm. `simulate_pairs` shows the same stars to both. Noise and systematics are drawn for each apart, so the two have nothing in common but the star.
#
# Three stars to begin with: a hot one, the same one behind dust, and a cooler one without dust.

# %%
survey = replace(LAMOST, population="gaia", snr=(50.0, 50.0))
columns = {"teff": [6000, 6000, 5200], "logg": [4.3, 4.3, 4.6], "feh": [0, 0, 0], "alpha_fe": [0, 0, 0], "c_fe": [0, 0, 0], "ebv": [0, 0.2, 0], "r_v": [3.1] * 3, "g": [11] * 3}
three = sk.simulate_pairs(survey, 3, seed=30, labels=sk.spectra.label_table(**{name: np.array(values, float) for name, values in columns.items()}))
fig, axes = plt.subplots(1, 2, figsize=(10, 3.6), width_ratios=(1.3, 1))
for i, (color, style) in enumerate(zip((sk.plots.BLUE, sk.plots.RED, sk.plots.GREEN), ("-", "--", "-."), strict=True)):
    name = f"{columns['teff'][i]} K, E(B-V) = {columns['ebv'][i]}"
    axes[0].plot(three.lrs.wave, three.lrs.flux[i] + 0.8 * i, color=color, lw=0.6)
    axes[0].text(5590, (1.17, 1.97, 2.87)[i], name, ha="right", fontsize=8, color=color)
    axes[1].plot(three.xp.wave, three.xp.flux[i], style, color=color, label=name)
axes[0].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum + offset", title="LRS: lines, no colour")
axes[1].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / flux at 550 nm", title="Gaia XP: colour, hardly a line")
axes[1].legend(fontsize=8)
apart = {m: [np.abs(s.flux[1] / s.flux[k] - 1)[s.flux[k] > 0.2].mean() for k in (0, 2)] for m, s in (("lrs", three.lrs), ("xp", three.xp))}
print("the dusty star differs from itself without dust / from the cool star:", {m: f"{100 * a:.0f} % / {100 * b:.0f} %" for m, (a, b) in apart.items()})
assert apart["lrs"][0] < 0.7 * apart["lrs"][1] and apart["xp"][0] > 1.3 * apart["xp"][1]

# %% [markdown]
# **Takeaway.** To LRS the dusty star is the hot star; the difference is noise. To XP it looks more like the cool one: whoever has the colour only must tell dust from
# temperature by small features.
#
# **Predict first.** Temperature, gravity, iron, alpha elements, dust: which is known better from the lines, which from the colour, and which from one of them not at all?
#
# From here on we use stars of the Galaxy as Gaia meets them. The shipped model `small_aligned` has a head for four labels on either side, trained on other
# simulated stars. For dust there is none: a linear regression on each embedding must do, scored on stars it was not fitted to. As a control, somebody who knows nothing
# and answers the median for every star.

# %%
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

n = 70 if quick else 1000
pairs, model = sk.simulate_pairs(survey, n, seed=31), sk.load_model("small_aligned").to(device)
z = {"lrs": model.embed(pairs.lrs), "xp": model.embed(pairs.xp)}
true = {label: pairs.xp.label(label) for label in ("teff", "logg", "feh", "alpha_fe", "ebv")}
teff, ebv, labels, read, known = true["teff"], true["ebv"], list(true)[:4], {}, {}
for m in z:
    with torch.no_grad():
        read[m] = {label: model.heads[m][label](torch.as_tensor(z[m], device=device))[:, 0].double().cpu().numpy() for label in labels}
    assert np.allclose(read[m]["feh"][:5], model.predict(getattr(pairs, m)[:5], "feh")[0], atol=1e-3)         # what predict does
    read[m]["ebv"] = cross_val_predict(make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 7))), z[m], ebv, cv=5)
    known[m] = {label: sk.metrics.score(true[label], read[m][label], n_boot=20 if quick else 100) for label in true}
spread = {label: sk.metrics.score(true[label], np.full(n, np.median(true[label])), n_boot=1).sigma for label in true}
print(f"{'scatter of':10s}{'the stars':>11s}{'error from LRS':>16s}{'error from XP':>15s}")
for label in true:
    print(f"{label:10s}{spread[label]:11.3f}{known['lrs'][label].sigma:16.3f}{known['xp'][label].sigma:15.3f}")
assert known["lrs"]["ebv"].sigma > 0.75 * spread["ebv"] and known["xp"]["ebv"].sigma < 0.75 * spread["ebv"]
assert all(known["lrs"][label].sigma < known["xp"][label].sigma for label in ("teff", "logg", "feh"))

# %% [markdown]
# Five units in one picture: each error as a share of what the control has.

# %%
fig, ax = plt.subplots(figsize=(7, 3.4))
for k, (m, color, marker, name) in enumerate((("lrs", sk.plots.BLUE, "o", "from the lines (LRS)"), ("xp", sk.plots.RED, "s", "from the colour (XP)"))):
    value = np.array([[known[m][label].sigma, *known[m][label].sigma_interval] for label in true]) / np.array(list(spread.values()))[:, None]
    ax.errorbar(np.arange(5) + 0.16 * (k - 0.5), value[:, 0], np.abs(value[:, 1:] - value[:, :1]).T, fmt=marker, color=color, capsize=3, label=name)
ax.axhline(1, color=sk.plots.GREY, lw=0.8, ls="--")
ax.text(-0.4, 1.03, "the median for all", fontsize=8, color=sk.plots.GREY)
ax.set_xticks(range(5), [*(sk.plots.NAMES[label] for label in labels), "E(B-V)"])
ax.set(ylabel="error / scatter of the stars", ylim=(0, 1.45), xlim=(-0.5, 4.5), title=f"What each spectrum knows, {n} stars, 68 % intervals")
_ = ax.legend(fontsize=8, ncols=2, loc="upper right")

# %% [markdown]
# **Takeaway.** Of what a star *is*, the lines know more. Of what lies *between* the star and us only the colour knows; the lines do no better than the median. Only what
# both know can be aligned, and the weaker of the two sets the limit.
#
# ## 2. An autoencoder for XP
#
# LRS has the transformer of notebook 02. XP gets an autoencoder: 343 fluxes in, a short latent vector in the middle, the same fluxes out.
#
# *Why is nothing masked?* Masking is a task where a gap is wider than what its neighbours tell. An XP spectrum is smooth over many of its points: whoever sees the edges of a
# gap can fill it without knowing a thing about stars. Here the narrow middle forces the network to choose instead.
#
# It reads standardised fluxes. What standardising takes away, mean and standard deviation, stands in front as two more numbers:

# %%
def standardize_by_hand(flux):
    rows = []
    for spectrum in flux:
        mean = sum(spectrum) / len(spectrum)
        std = (sum((f - mean) ** 2 for f in spectrum) / (len(spectrum) - 1)) ** 0.5      # n - 1, as published
        rows.append([mean, std] + [(f - mean) / std for f in spectrum])
    return np.array(rows)


autoencoder = model.alignment.xp
few = torch.as_tensor(pairs.xp.flux[:5], dtype=torch.float32, device=device)
by_hand = standardize_by_hand(few.double().cpu().numpy())
assert np.allclose(by_hand, autoencoder.standardize(few).cpu().numpy(), atol=1e-4)
with torch.no_grad():
    numbers = autoencoder.decode(autoencoder.encode(few)).cpu().numpy()
    assert np.allclose(numbers[:, 2:] * numbers[:, 1:2] + numbers[:, :1], autoencoder.reconstruct(few).cpu().numpy(), atol=1e-5)
    loss = np.mean((numbers - by_hand) ** 2)
    assert np.isclose(loss, autoencoder(few)["restore"].item(), rtol=1e-3)
print(f"numbers in: {by_hand.shape[1]}, latent: {autoencoder.config.d_latent}, loss of these five stars: {loss:.4f}")

# %% [markdown]
# In the loss, mean and standard deviation weigh no more than any single point, though every point comes back with *their* errors.
#
# The obvious rival is as old as statistics: principal components, as many as the latent has numbers, fitted to simulated stars. The control is the mean star.
#
# **Predict first.** A million weights against a matrix. Who restores better: on simulated stars, on computed models that neither has seen, on real stars?

# %%
from sklearn.decomposition import PCA

others = sk.simulate_pairs(survey, 80 if quick else 1500, seed=32)                     # no rival is fitted to the stars it is judged on
pca = PCA(autoencoder.config.d_latent, random_state=0).fit(others.xp.flux)
sets = {"simulated": pairs.xp, "held-out models": sk.normalize(sk.simulate("gaia_xp", 60 if quick else 400, seed=33, models="held_out"), "550nm")}
try:
    real = sk.read("gaia_xp")
    real = sk.normalize(real[~real.mask.any(1)], "550nm")                               # sources without published errors are masked
    sets["REAL"] = real[:200] if quick else real
except ValueError as missing:
    print(missing)
fig, axes = plt.subplots(1, len(sets), figsize=(10, 3.2), sharey=True)
restored, typical = {}, {}
for ax, (title, stars) in zip(axes, sets.items(), strict=True):
    with torch.no_grad():
        restored["autoencoder"] = autoencoder.reconstruct(torch.as_tensor(stars.flux, dtype=torch.float32, device=device)).double().cpu().numpy()
    restored["components"], restored["mean star"] = pca.inverse_transform(pca.transform(stars.flux)), others.xp.flux.mean(0)
    for (name, guess), color, style in zip(restored.items(), (sk.plots.RED, sk.plots.BLUE, sk.plots.ORANGE), ("-", "--", "-."), strict=True):
        typical[title, name] = np.median(np.sqrt(np.square(guess - stars.flux).mean(1)))
        ax.semilogy(stars.wave, 100 * np.median(np.abs(guess / stars.flux - 1), 0), style, color=color, label=name)
    ax.semilogy(stars.wave, 100 * np.median(0.6745 / np.sqrt(stars.ivar) / stars.flux, 0), ":", color=sk.plots.GREY, lw=1.4, label="noise, as given")
    ax.set(title=f"{title} (n = {len(stars)})", xlabel="wavelength in vacuum [Å]", ylim=(0.05, 100))
    print(f"{title:16s} rms of the typical star [flux at 550 nm]:", {name: round(float(typical[title, name]), 4) for name in restored})
    assert max(typical[title, "autoencoder"], typical[title, "components"]) < 0.6 * typical[title, "mean star"]
axes[0].set_ylabel("typical |error| / flux [%]")
fig.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower center")
for title in sets:
    print(f"{title}: the lower error is that of the {min(('autoencoder', 'components'), key=lambda name: typical[title, name])}")

# %% [markdown]
# **Takeaway.** Read the last lines before you believe in depth. Where the components are the lower curve, they are *better* at the autoencoder's own trade, after a fit of
# seconds. That is no wonder: simulated spectra are nearly linear in a few numbers, and of all linear methods with as many numbers components are the best. An error below the
# noise is no merit either, it means that noise has been copied. Real sources are harder for both: not all of them are the FGK stars that both were fitted to.
#
# Then why a network? The latent vector is not an end. What counts is what the next stage makes of it, and this kit follows SpecCLIP there. Whether components would serve as
# well is *not* shown here.
#
# ## 3. Two heads
#
# Both encoders stay frozen from now on. What is trained are two *heads*, which turn what the encoders say into vectors of equal size. For XP, whose latent is one vector already,
# a perceptron does. The LRS head has to make one vector from 147 tokens. A mean would treat all tokens alike. Instead there is one *learned query*, a vector that belongs to no
# star: it puts the same question to every spectrum. Each token answers with a key and a value; how well a key fits the query decides how much of the value is heard. As a loop:

# %%
def read_by_hand(query, tokens, layers, n_head):
    """Attention of one query to tokens (n_tok, d): weights (n_head, n_tok), and what was read."""
    (w_q, b_q), (w_kv, b_kv), (w_out, b_out) = layers
    q, d_head = w_q @ query + b_q, len(query) // n_head
    weights, words = [], []
    for h in range(n_head):
        part, fit, value = slice(h * d_head, (h + 1) * d_head), [], []
        for token in tokens:
            k, v = np.split(w_kv @ token + b_kv, 2)
            fit.append(q[part] @ k[part] / np.sqrt(d_head))
            value.append(v[part])
        e = np.exp(np.array(fit) - max(fit))
        weights.append(e / e.sum())
        words.append(sum(a * v for a, v in zip(weights[-1], value, strict=True)))
    return np.array(weights), w_out @ np.concatenate(words) + b_out


head = model.alignment.shared["lrs"]
array = lambda x: x.detach().double().cpu().numpy()                                                                 # noqa: E731
with torch.no_grad():
    tokens, hidden = model.alignment.features("lrs", *model.prepare(three.lrs))
    package, heard = head.attention_map(tokens, hidden).cpu().numpy(), head.attention(head.query, tokens, hidden).cpu().numpy()
layers = [(array(layer.weight), array(layer.bias)) for layer in (head.attention.q, head.attention.kv, head.attention.out)]
by_hand, words = read_by_hand(array(head.query), array(tokens[0]), layers, head.attention.n_head)
assert np.allclose(by_hand, package[0], atol=1e-5) and np.allclose(by_hand.sum(1), 1) and np.allclose(words, heard[0], atol=1e-3)
print("weights of the frozen encoders and of the two heads:", *(f"{sum(p.numel() for p in part.parameters()):,}" for part in
      (model.alignment.lrs, model.alignment.xp, head, model.alignment.shared["xp"])))

# %% [markdown]
# Where does the query read? Weights are given as multiples of an even share, 1/147, for the 6000 K star. The control is a head of the same sizes with random weights: what it shows
# was not learned.

# %%
fresh = Alignment(model.alignment.lrs, model.alignment.xp, model.alignment.config, seed=1).to(device).shared["lrs"]
with torch.no_grad():
    untrained = fresh.attention_map(tokens, hidden).cpu().numpy()
centre = three.lrs.wave[[start + 10 for start in model.alignment.lrs.config.starts]]
fig, axes = plt.subplots(2, 1, figsize=(10, 4.8), sharex=True)
axes[0].plot(three.lrs.wave, three.lrs.flux[0], color=sk.plots.GREY, lw=0.7)
for i, (line, at) in enumerate(sk.plots.LINES.items()):
    axes[0].text(at, 1.12 + 0.14 * (i % 2), line, ha="center", fontsize=8, color=sk.plots.GREY)
axes[0].set(ylabel="flux / continuum", ylim=(0.2, 1.4), title="The 6000 K star, and how much each attention head reads of it")
for h, (color, style) in enumerate(zip((sk.plots.BLUE, sk.plots.RED, sk.plots.GREEN, sk.plots.ORANGE), ("-", "--", "-.", ":"), strict=True)):
    axes[1].plot(centre, 147 * package[0, h, 1:], style, color=color, lw=1.3, label=f"head {h + 1}")
axes[1].plot(centre, 147 * untrained[0, :, 1:].mean(0), color="black", lw=0.8, label="untrained, mean of heads")
axes[1].set(xlabel="wavelength in vacuum [Å], middle of the window", ylabel="weight / even share", ylim=(0, 1.25 * 147 * package[0, :, 1:].max()))
axes[1].legend(fontsize=8, ncols=5, loc="upper center")
even = {name: float(np.exp(-(a * np.log(a)).sum(-1)).mean()) for name, a in (("trained", package), ("untrained", untrained))}
print("tokens read, were they read evenly:", {name: round(value, 1) for name, value in even.items()}, "of 147")
assert even["trained"] < even["untrained"]

# %% [markdown]
# **Takeaway.** Training made the reading uneven, and each head uneven in its own way; compare the peaks with the names above them. Do not take it for a list of important lines,
# though: every token has already heard all others in the encoder (notebook 02), so that a weight says where the query picked up its news, not where the news came from.
#
# ## 4. InfoNCE: which of all these is my partner?
#
# Training needs no label. Take $n$ pairs, embed all $2n$ spectra, and ask of each LRS spectrum $a_i$: which of the $n$ XP spectra is your star? The cosines,
# times a *logit scale* $s$, go into a softmax; the loss is the cross-entropy of the right answer. Then the same in the other direction:
#
# $$ L = -\frac{1}{2n} \sum_i \left[ \ln \frac{e^{s \cos(a_i, b_i)}}{\sum_j e^{s \cos(a_i, b_j)}} + \ln \frac{e^{s \cos(a_i, b_i)}}{\sum_j e^{s \cos(a_j, b_i)}} \right] $$

# %%
def info_nce_by_hand(a, b, scale):
    n, total = len(a), 0.0
    cosine = np.empty((n, n))
    for i in range(n):
        for j in range(n):
            cosine[i, j] = a[i] @ b[j] / np.sqrt((a[i] @ a[i]) * (b[j] @ b[j]))
    for i in range(n):
        total -= scale * cosine[i, i] - np.log(sum(np.exp(scale * cosine[i, j]) for j in range(n)))
        total -= scale * cosine[i, i] - np.log(sum(np.exp(scale * cosine[j, i]) for j in range(n)))
    return total / (2 * n)


def package_loss(a, b, scale=15.5):
    return info_nce(torch.as_tensor(a), torch.as_tensor(b), scale).item()


a, b = z["lrs"][:64].astype("f8"), z["xp"][:64].astype("f8")
assert np.isclose(info_nce_by_hand(a, b, 15.5), package_loss(a, b))
assert np.isclose(package_loss(np.ones_like(a), np.ones_like(b)), np.log(64))     # all alike: everyone is as good a partner as any other
print(f"64 pairs: loss {package_loss(a, b):.3f}; who cannot tell them apart at all: ln 64 = {np.log(64):.3f}")

# %% [markdown]
# Two knobs are hidden in it. **Predict first.**
#
# 1. *The number of negatives.* The same embeddings, asked among 2, 8, 64, 512 stars: does the loss change?
# 2. *The logit scale.* SpecCLIP keeps it at 15.5, a temperature of 0.065. What happens near 0, what at 200? And to the order in which partners are found?
#
# The control are random vectors, which know nothing.

# %%
sizes, scales, among = [k for k in (2, 4, 8, 16, 32, 64, 128, 256, 512) if k < n], (0.1, 0.5, 1, 2, 5, 10, 15.5, 25, 50, 100, 200), 64
candidates = {"small_aligned": tuple(z.values()), "random vectors": np.random.default_rng(0).standard_normal((2, n, model.d_embed))}
by_size = {name: [np.mean([package_loss(u[i:i + k], v[i:i + k]) for i in range(0, n - k + 1, k)]) for k in sizes] for name, (u, v) in candidates.items()}
by_scale = {name: [package_loss(u[:among], v[:among], s) for s in scales] for name, (u, v) in candidates.items()}
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
for name, color, marker in zip(candidates, (sk.plots.RED, sk.plots.ORANGE), "so", strict=True):
    axes[0].semilogx(sizes, by_size[name], marker + "-", color=color, ms=4, label=name)
    axes[1].loglog(scales, by_scale[name], marker + "-", color=color, ms=4, label=name)
axes[0].semilogx(sizes, np.log(sizes), "--", color=sk.plots.GREY, label="chance: ln n")
axes[1].axhline(np.log(among), ls="--", color=sk.plots.GREY, label=f"chance: ln {among}")
axes[1].axvline(15.5, color=sk.plots.GREY, lw=0.8, ls=":")
axes[1].text(15.5, 0.92, " 15.5", fontsize=8, color=sk.plots.GREY, transform=axes[1].get_xaxis_transform())
axes[0].set(xlabel="pairs in the batch, n", ylabel="InfoNCE", title="More strangers, larger loss", ylim=(0, None))
axes[1].set(xlabel="logit scale", title=f"One embedding, {among} pairs, several scales")
axes[0].set_xticks(sizes[::2], sizes[::2])
axes[1].set_yticks((2, 5, 10, 20), (2, 5, 10, 20))
for ax in axes:
    ax.minorticks_off()
    ax.legend(fontsize=8, loc="upper left")
assert np.all(np.diff(by_size["small_aligned"]) > 0) and by_size["small_aligned"][-1] < 0.9 * np.log(sizes[-1])
assert min(by_scale["small_aligned"]) < min(by_scale["small_aligned"][0], by_scale["small_aligned"][-1])

# %% [markdown]
# **Takeaway.** Chance is ln *n*: a loss without its *n* says nothing, and losses of batches of different size cannot be compared. With a scale near zero all answers are
# equally likely, and the loss is chance whatever the embedding knows. With a very large one every answer is given with certainty, and a wrong one costs the whole
# difference; random vectors are punished most. Between them lies the scale that fits how far *this* embedding can be trusted; 15.5 is a choice made in advance, to which training adapts the
# embedding. The *order* of the answers does not depend on the scale: a loss lowered by it finds not one star more.
#
# ### A short training
#
# Both heads in the size `tiny`, on the frozen encoders of `tiny_aligned`, some hundred pairs, some seconds. Encoders that are frozen need to be asked only once. Held-out pairs tell whether it
# learns about stars or these stars by heart. And the control: the same training with the partners *shuffled*, where there is nothing to learn.

# %%
n_train, n_valid, n_steps = (192, 64, 120) if quick else (768, 256, 400)
tiny = sk.load_model("tiny_aligned").alignment
lesson = sk.simulate_pairs(survey, n_train + n_valid, seed=34)
with torch.no_grad():
    lrs, xp = (tiny.features(m, flux)[0] for m, flux in zip(("lrs", "xp"), lesson.tensors(), strict=True))


def align(partner):
    """Heads trained on pairs (i, partner[i]): curve of (step, loss, held-out loss), and embeddings of the held-out pairs before and after."""
    learner = Alignment(tiny.lrs, tiny.xp, replace(PRESETS["tiny"], variant="base"), seed=0).shared
    optimizer, generator, curve = torch.optim.AdamW(learner.parameters(), lr=2e-3, weight_decay=0.05), torch.Generator().manual_seed(0), []
    held_out = lambda: [learner["lrs"](lrs[n_train:]).detach(), learner["xp"](xp[n_train:]).detach()]               # noqa: E731
    before = held_out()
    for step in range(n_steps):
        rows = torch.randperm(n_train, generator=generator)[:64]
        loss = info_nce(learner["lrs"](lrs[rows]), learner["xp"](xp[partner[rows]]), 15.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 5 == 0 or step == n_steps - 1:
            curve.append((step, loss.item(), info_nce(*(x[:64] for x in held_out()), 15.5).item()))
    return np.array(curve), [x.numpy() for x in before], [x.numpy() for x in held_out()]


curve, before, after = align(torch.arange(n_train))
nonsense, _, astray = align(torch.as_tensor(np.random.default_rng(0).permutation(n_train)))

# %% [markdown]
# **Predict first.** Sort the held-out stars by temperature and draw all cosines between their LRS and XP embeddings. Nobody has told the heads a temperature. What will the picture show
# before the training, what after?

# %%
fig, axes = plt.subplots(1, 3, figsize=(11, 3.5), width_ratios=(1.1, 1, 1))
for values, k, color, style, name in ((curve, 1, sk.plots.GREY, "-", "training pairs"), (curve, 2, sk.plots.RED, "--", "held-out pairs"),
                                      (nonsense, 2, sk.plots.BLUE, "-.", "held-out, trained on shuffled pairs")):
    axes[0].plot(values[:, 0], values[:, k], style, color=color, label=name)
axes[0].axhline(np.log(64), ls=":", color="black", label="chance: ln 64")
axes[0].set(xlabel="step", ylabel="InfoNCE among 64", ylim=(0, None))
axes[0].legend(fontsize=8, loc="lower left")
valid_teff = lesson.xp.label("teff")[n_train:]
order, ticks = np.argsort(valid_teff), np.linspace(0, n_valid - 1, 4).astype(int)
for ax, (title, pair) in zip(axes[1:], (("before", before), ("after", after)), strict=True):
    image = ax.imshow(similarity(*(x[order] for x in pair)), vmin=-1, vmax=1, cmap="PuOr_r")
    ax.set_xticks(ticks, [f"{t:.0f}" for t in valid_teff[order][ticks]], fontsize=8)
    ax.set_yticks(ticks, [f"{t:.0f}" for t in valid_teff[order][ticks]], fontsize=8)
    ax.set(title=f"{title}: {n_valid} held-out stars", xlabel=r"XP, sorted by $T_{\rm eff}$ [K]")
axes[1].set_ylabel(r"LRS, sorted by $T_{\rm eff}$ [K]")
fig.colorbar(image, ax=axes[2], label="cosine")
near = np.abs(valid_teff[:, None] - valid_teff) < 200
contrast = {name: float(c[near].mean() - c[~near].mean()) for name, c in (("before", similarity(*before)), ("after", similarity(*after)))}
median = {name: float(np.median(ranks(*pair))) for name, pair in (("before", before), ("after", after), ("shuffled pairs", astray))}
print("cosine of stars within 200 K less that of all others:", {name: round(value, 2) for name, value in contrast.items()})
print(f"median place of the partner among {n_valid}:", median, "chance", (n_valid + 1) / 2)
assert contrast["after"] > contrast["before"] + 0.05 and curve[-1, 2] < np.log(64) - 0.2
assert median["after"] < 0.6 * median["shuffled pairs"] and nonsense[-1, 2] > np.log(64) - 0.05

# %% [markdown]
# **Takeaway.** The stars fall into place by temperature: it is what both spectra know best, so it tells most of the wrong partners from the right one. The bright band is broad: neighbours in
# temperature are hard to tell apart. From shuffled pairs nothing was learned that holds for other stars.
#
# ## 5. Retrieval: find my star in the other survey
#
# Now the shipped model, on pairs that it has never seen. A query in one survey, all stars of the other as the base, sorted by cosine. The *rank* of a query is the place of its
# partner, *recall@k* the share of queries whose rank is at most k.

# %%
def ranks_by_hand(queries, base):
    places = []
    for i, query in enumerate(queries):
        cosine = [query @ candidate / np.sqrt((query @ query) * (candidate @ candidate)) for candidate in base]
        places.append(sum(c >= cosine[i] for c in cosine))                        # who is as good comes first: ties count against the partner
    return np.array(places)


by_hand = ranks_by_hand(a, b)
assert np.array_equal(by_hand, ranks(a, b)) and np.isclose((by_hand <= 10).mean(), sk.retrieval.recall(a, b, k=10))
print("among 64 stars, the first eight find their partners at places", by_hand[:8])

# %% [markdown]
# A recall alone is no result. What to compare it with:
#
# * **chance**, k/n, and **shuffled pairs** through the same code, which must give chance;
# * **in-modal**: find the star in a second exposure by the *same* survey, with new noise and systematics: what could be reached if the other modality were no obstacle;
# * two rivals that need no common space. **Labels**: read four labels off both spectra, take the nearest, each label in units of its error. **Translation**: predict the XP spectrum
#   from LRS (section 6) and take the nearest to the prediction, in the metric of its errors (Mahalanobis), learned from other stars.
#
# **Predict first.** Which is easiest: LRS-LRS, XP-XP or LRS-XP? Which is hardest? And does the common space beat four labels?

# %%
from scipy.spatial.distance import cdist
from sklearn.covariance import LedoitWolf

again = sk.simulate_pairs(survey, n, seed=35, labels=pairs.xp.labels)                      # the same stars and dust, another night
z_again, shuffled = {"lrs": model.embed(again.lrs), "xp": model.embed(again.xp)}, np.random.default_rng(0).permutation(n)
in_sigma = [np.stack([read[m][label] / np.hypot(*(model.card.sigma[side][label] for side in z)) for label in labels], 1) for m in z]
said = {"xp": model.translate(pairs.lrs), "lrs": model.translate(pairs.xp)}
error = others.xp.flux - model.translate(others.lrs).flux
unit = error.std(0).clip(1e-6)                                                             # at 550 nm all fluxes are 1
whiten = np.linalg.cholesky(LedoitWolf().fit(error / unit).precision_)
distance = {"labels": cdist(*in_sigma), "translation": cdist((said["xp"].flux + error.mean(0)) / unit @ whiten, pairs.xp.flux / unit @ whiten)}
found = {"LRS finds LRS": ranks(z["lrs"], z_again["lrs"]), "XP finds XP": ranks(z["xp"], z_again["xp"]), "LRS finds XP": ranks(z["lrs"], z["xp"]),
         "XP finds LRS": ranks(z["xp"], z["lrs"]), **{f"LRS finds XP by {name}": (d <= np.diag(d)[:, None]).sum(1) for name, d in distance.items()},
         "control: shuffled pairs": ranks(z["lrs"], z["xp"][shuffled])}
drawn = np.random.default_rng(0).integers(n, size=(300, n))                                # bootstrap over stars
interval = lambda x: "{:7.3f} [{:.3f}, {:.3f}]".format(x.mean(), *np.quantile(x[drawn].mean(1), (0.16, 0.84)))          # noqa: E731
print(f"{f'{n} stars, 68 % intervals':30s}{'recall@1':>22s}{'recall@10':>23s}{'median rank':>13s}")
for name, r in {**found, "chance": np.arange(1, n + 1)}.items():
    print(f"{name:30s}{interval(r <= 1)} {interval(r <= 10)}{np.median(r):13.0f}")
for name in distance:
    print(f"recall@10 of the common space less that by {name}:", interval((found["LRS finds XP"] <= 10) * 1.0 - (found[f"LRS finds XP by {name}"] <= 10)))
place = {name: np.exp(np.log(r).mean()) for name, r in found.items()}                      # geometric mean: the first places count
assert place["LRS finds LRS"] < place["LRS finds XP"] < 0.4 * place["control: shuffled pairs"] and np.median(found["control: shuffled pairs"]) > n / 3

# %% [markdown]
# How deep must one dig? On the left recall for every k. On the right: when the star put first is the wrong one, in what does it resemble the right one? One there would be no more than a random star.

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1.2, 1))
shown = {"LRS finds LRS": (sk.plots.BLUE, "-"), "XP finds XP": (sk.plots.GREEN, "-"), "LRS finds XP": (sk.plots.RED, "-"), "LRS finds XP by labels": (sk.plots.ORANGE, "--"),
         "LRS finds XP by translation": (sk.plots.ORANGE, ":"), "control: shuffled pairs": (sk.plots.GREY, "-.")}
for name, (color, style) in shown.items():
    axes[0].plot(np.arange(1, n + 1), [(found[name] <= k).mean() for k in range(1, n + 1)], style, color=color, lw=1.5, label=name)
axes[0].plot([1, n], [1 / n, 1], color="black", lw=0.6, label="chance")
axes[0].set(xscale="log", yscale="log", xlabel=f"k, of {n} stars", ylabel="recall@k", ylim=(0.5 / n, 1.3), title="What the two surveys share is less than what each knows")
axes[0].legend(fontsize=8, loc="lower right")
first = {"LRS finds XP": search(z["lrs"], z["xp"], 1)[0][:, 0], "XP finds XP": search(z["xp"], z_again["xp"], 1)[0][:, 0]}
like = {}
for (name, chosen), color, marker in zip(first.items(), (sk.plots.RED, sk.plots.GREEN), "so", strict=True):
    wrong = chosen != np.arange(n)
    like[name] = {k: float(np.median(np.abs(v[chosen] - v)[wrong]) / np.median(np.abs(v[shuffled] - v))) for k, v in true.items()}
    axes[1].plot(range(5), like[name].values(), marker, color=color, ms=7, label=f"{name}: {wrong.sum()} of {n} wrong")
axes[1].axhline(1, color=sk.plots.GREY, ls="--", lw=0.8)
axes[1].text(-0.4, 1.03, "two random stars", fontsize=8, color=sk.plots.GREY)
axes[1].set_xticks(range(5), [*(sk.plots.NAMES[label] for label in labels), "E(B-V)"])
axes[1].set(ylabel="typical difference, wrong star - right one\n/ of two random stars", ylim=(0, 1.6), xlim=(-0.5, 4.5), title="Who is taken for whom")
axes[1].legend(fontsize=8, loc="upper right")
print({name: {k: round(v, 2) for k, v in values.items()} for name, values in like.items()})
assert like["LRS finds XP"]["teff"] < 0.5 and like["XP finds XP"]["ebv"] < like["LRS finds XP"]["ebv"]

# %% [markdown]
# **Takeaway.** Across surveys the partner is found far more often than by chance, and is mostly not the first. A wrong star is a near twin in temperature and less so in everything else. Between
# LRS and XP it is not much closer in dust than any star; between two XP spectra it is, because there the dust is seen twice. Before you call the red curve a triumph look at the broken
# ones: what both spectra share is little more than a few labels, so that a common space can hold little more. What it does offer is that nobody had to name them.
#
# ### The experiment: dust
#
# Temperature helps both. Dust is known to one side only. So give the *same stars* more and more of it, a different amount each, and leave everything else alone.
#
# **Predict first.** What happens to LRS-XP? To XP-XP? And why is the second the control for the first?
#
# This is *the* figure of the notebook: on the left the place at which the partner is found (geometric mean over stars; down is good) against the
# largest reddening given to a star, on the right the same over the place without dust.

# %%
largest, column = (0.0, 0.3, 1.0) if quick else (0.0, 0.1, 0.2, 0.4, 0.7, 1.0), np.random.default_rng(1).uniform(0, 1, n)
dust = {"LRS finds XP": [], "XP finds XP": []}
for most in largest:
    given = pairs.xp.labels.copy()
    given["ebv"] = most * column
    nights = [model.embed(sk.normalize(sk.simulate("gaia_xp", n, seed=seed, labels=given), "550nm")) for seed in (36, 37)]
    for name, query in (("LRS finds XP", z["lrs"]), ("XP finds XP", nights[1])):
        dust[name].append(np.log(ranks(query, nights[0])))
by_chance = np.exp(np.log(np.arange(1, n + 1)).mean())
fig, axes = plt.subplots(1, 2, figsize=(10, 3.8))
for (name, values), color, style in zip(dust.items(), (sk.plots.RED, sk.plots.GREEN), ("s-", "o--"), strict=True):
    for ax, logs in ((axes[0], values), (axes[1], [r - values[0] for r in values])):       # star by star against itself without dust
        low, middle, high = np.exp([[np.quantile(r[drawn].mean(1), 0.16), r.mean(), np.quantile(r[drawn].mean(1), 0.84)] for r in logs]).T
        ax.errorbar(largest, middle, [middle - low, high - middle], fmt=style, color=color, capsize=3, label=name)
axes[0].axhline(by_chance, color=sk.plots.GREY, ls=":")
axes[0].text(1.0, 0.86 * by_chance, "chance", ha="right", va="top", fontsize=8, color=sk.plots.GREY)
axes[0].set(yscale="log", ylabel=f"place of the partner, of {n}", ylim=(1, 1.5 * by_chance), title="How far from the first place")
axes[0].set_yticks(ticks := [t for t in (1, 3, 10, 30, 100, 300) if t < by_chance], ticks)
axes[0].minorticks_off()
axes[1].axhline(1, color=sk.plots.GREY, lw=0.8)
axes[1].set(ylabel="place with dust / place without", title="A disturbance to the one, a mark to the other")
for ax in axes:
    ax.set_xlabel("largest E(B-V) [mag]; every star has between zero and this")
    ax.legend(fontsize=8, loc="lower left" if ax is axes[0] else "upper left")
worse = {name: float(np.exp(values[-1].mean() - values[0].mean())) for name, values in dust.items()}
print("place with most dust over that without:", {name: round(value, 2) for name, value in worse.items()})
assert worse["LRS finds XP"] > 1.2 and worse["XP finds XP"] < 0.8 * worse["LRS finds XP"]

# %% [markdown]
# **Takeaway.** One cause, two effects. To LRS the dust is a disturbance of the answers that it cannot know of; to XP it is one more mark to know a star by. That the second curve does
# not rise with the first is the control: dust does not make XP spectra *worse*, it makes them *different from what lines can foretell*. A contrastive loss rewards what both sides
# know. What only one side knows is in the way.
#
# ## 6. Translation: predict the other spectrum
#
# The model also has decoders: from the embedding of one spectrum they predict the other. The band is the error that such predictions have over simulated stars, point by
# point; for XP it contains the dust.

# %%
row = int(np.argmax(np.where(ebv < 0.6, ebv, 0)))                                           # a dusty star
fig, axes = plt.subplots(2, 2, figsize=(10, 5), sharex="col", height_ratios=(2, 1))
for (top, bottom), m, title in zip(axes.T, ("xp", "lrs"), ("LRS to XP", "XP to LRS"), strict=True):
    seen, foretold = getattr(pairs, m)[[row]], said[m][[row]]
    sigma = foretold.ivar[0] ** -0.5
    top.fill_between(foretold.wave, foretold.flux[0] - sigma, foretold.flux[0] + sigma, color=sk.plots.ORANGE, alpha=0.4, lw=0, label="predicted, one sigma")
    top.plot(foretold.wave, foretold.flux[0], color=sk.plots.RED, lw=1, label="predicted")
    top.plot(seen.wave, seen.flux[0], color="black", lw=0.7, ls="--" if m == "xp" else "-", label="observed")
    top.set(title=f"{title}: {teff[row]:.0f} K, E(B-V) = {ebv[row]:.2f}", ylabel="flux / flux at 550 nm" if m == "xp" else "flux / continuum")
    top.legend(fontsize=8)
    bottom.plot(seen.wave, sk.translation.residuals(seen, foretold)[0], color=sk.plots.BLUE, lw=0.7)
    bottom.axhline(0, color=sk.plots.GREY, lw=0.6)
    bottom.set(xlabel="wavelength in vacuum [Å]", ylabel="residual [sigma]", ylim=(-4.5, 4.5), xlim=None if m == "xp" else (4800, 5300))
    every = sk.translation.residuals(getattr(pairs, m), said[m])
    night = (getattr(pairs, m).flux - getattr(again, m).flux)[:, 1:-1]                      # the control: the same star in two nights
    alike = [np.median([np.corrcoef(r[:-1], r[1:])[0, 1] for r in rows]) for rows in (every[:, ~np.isnan(every).any(0)], night[:, night.std(0) > 0])]
    print(f"{title}, {n} stars: typical |residual| {np.nanmedian(np.abs(every)):.2f} sigma (Gaussian: 0.67), beyond 3 sigma {100 * np.nanmean(np.abs(every) > 3):.1f} % (0.3 %), "
          f"correlation of neighbours {alike[0]:.2f}, between two nights {alike[1]:.2f}")
    assert 0.3 < np.nanmedian(np.abs(every)) < 1.5

# %% [markdown]
# **Takeaway.** Sizes of residuals do not say whether a prediction is good. Those of XP are not noise: on one side of zero in the blue, on the other in the red, hundreds of points that err
# together by one amount of dust. Those of LRS do look like noise, and are no more alike from pixel to pixel than two nights of one star: most of them is the instrument.
#
# ### What cannot be predicted
#
# **Predict first.** Give a simulator *all* labels of each star without error, but not its dust; for that it takes the median. This **oracle** knows all that lines could ever tell. Who
# is nearer to the true XP spectrum, oracle or network? And if the dust is *known*, that is, if one number a star is fitted and taken out (`remove_dust`)?

# %%
from spectrakit.pairs import bright

some = n if quick else 300
perfect_xp, perfect_lrs = (replace(s, systematics=s.systematics.scaled(0.0)) for s in (GAIA_XP, bright(survey)))
given = pairs.xp.labels[:some].copy()
given["g"] = 6.0                                                                            # so bright that noise does not matter
truth = sk.simulate_pairs(perfect_lrs, some, seed=38, labels=given, xp=perfect_xp)
given["ebv"] = np.median(ebv)
oracle = sk.simulate_pairs(perfect_lrs, some, seed=38, labels=given, xp=perfect_xp).xp
mean_star = replace(truth.xp, flux=np.repeat(np.median(others.xp.flux, 0)[None], some, 0))
scatter, spans, counts = {}, {}, truth.xp.flux > 0.05
resampled = [np.random.default_rng(k).integers(some, size=some) for k in range(10 if quick else 50)]
print(f"{f'XP from LRS, {some} stars':26s}{'|error| / flux [%], dust unknown':>36s}{'dust known, 68 % intervals':>30s}")
for name, guess in {"mean star (control)": mean_star, "network": said["xp"][:some], "oracle: all but the dust": oracle}.items():
    for kind, target in (("unknown", truth.xp), ("known", sk.translation.remove_dust(truth.xp, guess)[0])):
        off = 100 * np.abs(guess.flux / target.flux - 1)
        scatter[name, kind] = np.median(off[counts])
        spans[name, kind] = "{:.2f} [{:.2f}, {:.2f}]".format(scatter[name, kind], *np.quantile([np.median(off[i][counts[i]]) for i in resampled], (0.16, 0.84)))
    print(f"{name:26s}{spans[name, 'unknown']:>36s}{spans[name, 'known']:>30s}")
lines = {name: 100 * np.median(np.abs(guess - truth.lrs.flux)) for name, guess in (("mean star (control)", np.median(others.lrs.flux, 0)), ("network", said["lrs"].flux[:some]))}
print("LRS from XP, |error| [% of the continuum]:", {name: round(float(value), 2) for name, value in lines.items()})
assert scatter["network", "unknown"] < scatter["mean star (control)", "unknown"] and lines["network"] < 0.8 * lines["mean star (control)"]
assert scatter["network", "unknown"] < 1.5 * scatter["oracle: all but the dust", "unknown"]
assert scatter["network", "known"] < 0.5 * scatter["network", "unknown"] and scatter["oracle: all but the dust", "known"] < scatter["network", "known"]

# %% [markdown]
# **Takeaway.** With the dust unknown, the network and somebody who knows everything else differ little: dust rules both errors. With the dust known, the oracle is nearly perfect and the
# network is not: only now one sees what it still lacks. A test dominated by what nobody can know tells nothing about the model. And what could not be predicted can be *measured*: the
# number that `remove_dust` fits is in exercise 3.
#
# ## 7. Stars that do not fit: unresolved binaries
#
# Two stars in one spectrum: the cool companion adds light, most in the red, and its own lines. Line and colour no longer tell of *one* star. SpecCLIP proposes the translation error as an
# anomaly score. We make binaries by adding the light of two stars, and make it easy: bright stars, a perfect line list. What is not found here will not be found on the sky. The groups:
#
# * **binaries**, and **the same primaries alone**, so that no difference of temperature can pass for a companion; other single stars are the *reference* of what is ordinary;
# * **twins**, two equal stars, whose spectrum is that of one. Whoever finds them has found a flaw of the simulation;
# * **dustier**: the same single stars behind 0.3 mag more. Nothing is odd about *them*.

# %%
from spectrakit.binaries import draw_binaries, simulate_binaries
from spectrakit.gaia_xp import complete

n_ref, n_bin = (64, 32) if quick else (800, 400)
bright_xp, bright_lrs = (replace(s, systematics=replace(s.systematics, lines=0.0)) for s in (GAIA_XP, replace(survey, snr=(100.0, 100.0))))


def drawn_binaries(count, seed):
    """Primaries with a companion each, dust, and a magnitude."""
    table, rng = draw_binaries(count, seed), np.random.default_rng(seed)
    complete(table, 0.2, rng)
    table["g"] = rng.uniform(9, 13, count)
    return table


def together(table, seed):
    return sk.Pairs(*(sk.normalize(simulate_binaries(s, table, seed + k), recipe) for k, (s, recipe) in enumerate(((bright_lrs, "robust"), (bright_xp, "550nm")))))


def alone(table, seed):
    return sk.simulate_pairs(bright_lrs, len(table), seed, labels=table[[name for name in table.colnames if not name.endswith("_b")]], xp=bright_xp)


binaries = drawn_binaries(n_bin, 40)
twins, dustier = binaries.copy(), binaries.copy()
twins["teff_b"], twins["logg_b"], twins["light_b"], dustier["ebv"] = np.asarray(twins["teff"]), np.asarray(twins["logg"]), 1.0, np.asarray(dustier["ebv"]) + 0.3
cases = {"binaries": together(binaries, 41), "single": alone(binaries, 43), "twins": together(twins, 44), "reference": alone(drawn_binaries(n_ref, 46), 47)}
predicted = {name: model.translate(pair.lrs) for name, pair in cases.items()}
cases["dustier"], predicted["dustier"] = sk.Pairs(cases["single"].lrs, alone(dustier, 48).xp), predicted["single"]              # dust is not in the lines

# %% [markdown]
# The score is the squared Mahalanobis distance of a star's translation error from the errors of ordinary stars, over the number of points. We leave out points below 4200 Å: where dust has
# taken most of the light, fitting it out blows up the noise. How well two groups are told apart is the **AUC**: of all couples of a star of each, the share in which the strange one has the higher
# score; 0.5 is guessing.
#
# **Predict first.** The AUC of the binaries with the dust fitted out: 0.6, 0.8, 0.95? And of the dustier single stars, dust left in or fitted out?

# %%
red = cases["single"].xp.wave > 4200


def score_by_hand(strange, ordinary):
    unit = ordinary.std(0).clip(1e-6)
    fitted = LedoitWolf().fit(ordinary / unit)
    away = strange / unit - fitted.location_
    return np.array([star @ fitted.precision_ @ star for star in away]) / len(unit)


def errors(name, fit_dust, guess=predicted):
    """Observed minus predicted XP flux, the dust fitted out first or left in."""
    return (sk.translation.remove_dust(cases[name].xp, guess[name])[0] if fit_dust else cases[name].xp).flux - guess[name].flux


def told_apart(name, fit_dust, guess=predicted):
    """For all couples (star of ``name``, single star): is the first one stranger? (n, n)"""
    a, b = (score_by_hand(errors(k, fit_dust, guess)[:, red], errors("reference", fit_dust, guess)[:, red]) for k in (name, "single"))
    return a[:, None] > b


small = [cases[name][:20] for name in ("single", "reference")]                              # the package's score, at all wavelengths; a small case shows it
assert np.allclose(score_by_hand(errors("single", True)[:20], errors("reference", True)[:20]), sk.translation.anomaly(model, *small), rtol=0.01)
tables = {name: pair.xp.labels[["star", "teff", "logg", "feh", "alpha_fe", "c_fe"]] for name, pair in cases.items()}
for table in tables.values():
    table["ebv"], table["r_v"], table["g"] = np.median(ebv), 3.1, 6.0
ideal = {name: sk.normalize(sk.simulate(perfect_xp, len(table), seed=49, labels=table), "550nm") for name, table in tables.items()}
couples = {(name, fit): told_apart(name, fit) for name in ("binaries", "twins", "dustier") for fit in (True, False)}
couples["oracle: binaries", True] = told_apart("binaries", True, ideal)

# %% [markdown]
# The ROC says it for every threshold: of the strange stars, which share lies above it; of the ordinary ones, which share is taken along. A last line asks whether the *network* is to blame: an
# **oracle** that knows every label of the primary, and of no companion, predicts instead of it.

# %%
def interval_of(couple, n_boot=100):
    """AUC and its 68 % bootstrap interval over primaries: row i and column i are one primary."""
    rows = np.random.default_rng(0).integers(len(couple), size=(n_boot, len(couple)))
    return couple.mean(), *np.quantile([couple[np.ix_(r, r)].mean() for r in rows], (0.16, 0.84))


fig, axes = plt.subplots(1, 2, figsize=(9, 5), sharey=True)
shown = ((0, "binaries", True, sk.plots.RED, "-"), (0, "binaries", False, sk.plots.RED, ":"), (0, "oracle: binaries", True, "black", "-."), (0, "twins", True, sk.plots.GREY, "--"),
         (1, "dustier", False, sk.plots.BLUE, ":"), (1, "dustier", True, sk.plots.BLUE, "-"))
areas = {}
for k, name, fit, color, style in shown:
    couple = couples[name, fit]
    areas[name, fit] = interval_of(couple)
    above = np.sort((~couple).mean(1))                                                      # share of single stars that each strange one does not exceed
    label = f"{name}, dust {'fitted out' if fit else 'left in'}"
    axes[k].step([0, *above, 1], [0, *np.arange(1, n_bin + 1) / n_bin, 1], style, where="post", color=color, lw=1.5, label=f"{label}: AUC {areas[name, fit][0]:.2f}")
    print(f"{label:34s}AUC {{:.3f}} [{{:.3f}}, {{:.3f}}]".format(*areas[name, fit]))
for ax, title in zip(axes, ("A companion", "No companion, 0.3 mag more dust"), strict=True):
    ax.plot([0, 1], [0, 1], color=sk.plots.GREY, lw=0.6)
    ax.set(xlabel="share of single stars above the threshold", title=title, aspect="equal")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18))
axes[0].set_ylabel("share of the strange stars above it")
gap = np.asarray(binaries["teff"]) - np.asarray(binaries["teff_b"])
for low, high in ((300, 700), (700, 1150), (1150, 2600)):
    rows = np.flatnonzero((gap >= low) & (gap < high))
    print(f"companion {low:4d}-{high:4d} K cooler: n = {len(rows):3d}, AUC {{:.2f}} [{{:.2f}}, {{:.2f}}]".format(*interval_of(couples["binaries", True][np.ix_(rows, rows)])))
assert abs(areas["twins", True][0] - 0.5) < (0.2 if quick else 0.1) and areas["binaries", True][0] < 0.85
assert areas["dustier", False][0] > areas["dustier", True][0]

# %% [markdown]
# **Takeaway.** On the right: a single star with more dust than usual looks odd, and less so once the dust is fitted out. Without that step, "anomaly" is a word for dust. On the left: a
# cut that finds a fair share of the binaries takes along many single stars, *with the oracle's prediction too*. A companion nearly as hot changes line and colour alike, so that both
# still tell of one star; a much cooler one differs more and gives less light. What is missing is missing in the spectra, not in the network alone. Twins cannot be found, and are not.
#
# Binaries on the sky follow a distribution of mass ratios, their velocities shift lines against each other, and there are triple and odd stars among them. None of that is in here.
#
# ## 8. Look for yourself
#
# A star of LRS, and its nearest neighbours among the XP spectra. As code that is one line, `search(model.embed(lrs), model.embed(xp), k=3)`:

# %%
def show(star=0, neighbours=3):
    chosen, cosine = search(z["lrs"][[star]], z["xp"], k=neighbours)
    fig, axes = plt.subplots(1, 2, figsize=(10, 3.4))
    axes[0].plot(pairs.lrs.wave, pairs.lrs.flux[star], color=sk.plots.BLUE, lw=0.7)
    axes[0].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / continuum", title=f"LRS, star {star}: {teff[star]:.0f} K, [Fe/H] {true['feh'][star]:+.2f}")
    axes[1].plot(pairs.xp.wave, pairs.xp.flux[star], color="black", lw=1.6, label=f"its own XP, E(B-V) {ebv[star]:.2f}, place {found['LRS finds XP'][star]}")
    for k, other in enumerate(chosen[0]):
        axes[1].plot(pairs.xp.wave, pairs.xp.flux[other], ("--", "-.", ":")[k % 3], color=(sk.plots.RED, sk.plots.GREEN, sk.plots.ORANGE)[k % 3],
                     label=f"{k + 1}: cosine {cosine[0, k]:.2f}, {teff[other]:.0f} K, E(B-V) {ebv[other]:.2f}")
    axes[1].set(xlabel="wavelength in vacuum [Å]", ylabel="flux / flux at 550 nm", title="XP: itself and its neighbours")
    axes[1].legend(fontsize=8)
    plt.show()


show(row)

# %% [markdown]
# The same with two sliders, where a kernel is running. Look for stars whose neighbours have the right temperature and the wrong dust, and for a high cosine between different stars.

# %% tags=["nbval-ignore-output"]
import ipywidgets

_ = ipywidgets.interact(show, star=ipywidgets.IntSlider(row, 0, n - 1, continuous_update=False), neighbours=ipywidgets.IntSlider(3, 1, 6, continuous_update=False))

# %% [markdown]
# ## 9. Exercises
#
# Put your lines in place of `return None`, below the check, and run the cell: it says whether you are done, or gives a hint. The next cell holds what the checks need; solutions are folded away at the very end.

# %% tags=["hide-input"]
from scipy.stats import binom, hypergeom

from spectrakit.exercises import told

cross_entropy = lambda x, y: torch.nn.functional.cross_entropy(15.5 * torch.as_tensor(x @ y.T), torch.arange(64)).item()          # noqa: E731
unit_a, unit_b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
rows_only, columns_only, dots = cross_entropy(unit_a, unit_b), cross_entropy(unit_b, unit_a), (cross_entropy(a, b) + cross_entropy(b, a)) / 2
best = np.geomspace(0.1, 1000, 2000)[np.argmin([package_loss(a, b, s) for s in np.geomspace(0.1, 1000, 2000)])]
exact = lambda k, m: hypergeom.cdf(k - 1, n - 1, found["LRS finds XP"] - 1, m - 1).mean()                             # noqa: E731
same = lambda x, y, tol=1e-6: bool(np.isclose(x, y, rtol=tol, atol=0))                                                # noqa: E731

# %% [markdown]
# **Exercise 1** (easy, 10 minutes). InfoNCE without a loop over stars, in numpy, such that a logit scale of 10,000 does not overflow.

# %%
def check_loss(function):
    eye = np.eye(64)
    told(1, function(a, b, 15.5), (), (
        (lambda x: x < 0, "A cross-entropy is never negative: it is minus the logarithm of a probability."),
        (lambda x: same(x, dots), "The lengths of the vectors are still in it; divide each row by its length first."),
        (lambda x: same(x, rows_only) or same(x, columns_only), "That is one direction; the softmax over the other axis is missing."),
        (lambda x: same(x, rows_only + columns_only), "That is the sum of both directions; the loss is their mean."),
        (lambda x: not same(x, package_loss(a, b), 1e-4), f"The package says {package_loss(a, b):.4f}. Compare three stars with the loop."),
        (lambda x: not same(function(eye, np.roll(eye, 1, 0), 1e4), 1e4), "It overflows at scale 1e4: take the largest logit off before the exponential.")))


def contrastive_loss(a, b, scale):
    """Symmetric InfoNCE of embeddings a and b, each (n, d); one number."""
    return None


check_loss(contrastive_loss)

# %% [markdown]
# **Exercise 2** (medium, 15 minutes). 15.5 was chosen in advance. For embeddings that are given, which logit scale has the least loss? Does it lie above or below 15.5, and what does that say of the
# embedding's confidence? How many more partners are found with it? (The last needs no computation.)

# %%
def check_scale(function):
    told(2, function(a, b), (), (
        (lambda x: x <= 0, "A logit scale is positive; search in its logarithm."),
        (lambda x: same(1 / x, best, 0.05), "That is the temperature; the scale is one over it."),
        (lambda x: same(np.exp(x), best, 0.05), "That is the logarithm of the scale."),
        (lambda x: same(x, 15.5), "That is the published one. Vary it, with a and b as they are."),
        (lambda x: package_loss(a, b, float(x)) > package_loss(a, b, best) + 1e-4,
         "A scale nearby has a lower loss. Does your search stop at an end of its range?")))


def best_scale(a, b):
    """The logit scale at which package_loss(a, b, scale) is least."""
    return None


check_scale(best_scale)

# %% [markdown]
# **Exercise 3** (medium, 15 minutes). Lines cannot tell the dust, but lines and colour *together* can: `sk.translation.remove_dust(observed, predicted)` returns how much more E(B-V) a star has
# than its prediction. Make a measurement of E(B-V) of it. Mind what dust is in the prediction already; of the `others` you know the dust, of the stars to be measured you do not. How does the error compare
# with that from XP alone in section 1, and why may this one be better?

# %%
def check_dust(function):
    told(3, function(pairs), (n,), (
        (lambda x: np.corrcoef(x, ebv)[0, 1] < 0, "Where there is more dust you find less: look at the sign of what remove_dust returns."),
        (lambda x: sk.metrics.score(ebv, x, n_boot=1).sigma > 0.5 * spread["ebv"], "The scatter is hardly less than that of the stars. Is the XP set compared with the right prediction?"),
        (lambda x: abs(np.median(x - ebv)) > 0.04, "All stars are off by the same amount. The prediction holds the dust of typical training stars: "
         "find this zero point on `others`, not on the stars themselves."),
        (lambda x: same(np.median(x), np.median(ebv)), "The zero point was taken from the very stars to be measured. Use `others`.")))


def measure_dust(pairs):
    """E(B-V) (n,) in mag, from both spectra of each star."""
    return None


check_dust(measure_dust)

# %% [markdown]
# **Exercise 4** (hard, 25 minutes). Recall depends on how many stars are in the base, so that recalls from bases of different size cannot be compared. From the `ranks` of *n* queries among *n* stars compute
# what recall@k would be among *m* of them, in the mean over all ways to choose the *m* - 1 strangers. It needs no new search, and no random numbers.

# %%
def check_among(function):
    r, m = found["LRS finds XP"], n // 2
    told(4, function(r, m, 10), (), (
        (lambda x: not same(function(r, n, 10), (r <= 10).mean()), "With m = n nobody is left out: that has to be the recall as it is."),
        (lambda x: same(x, (r * m / n <= 10).mean()), "A rank of r does not become r m / n: how many better ones stay in is left to chance."),
        (lambda x: same(x, binom.cdf(9, r - 1, (m - 1) / (n - 1)).mean()), "Close, but strangers are drawn without being put back."),
        (lambda x: not same(function(r, 10, 10), 1), "With m = k nobody can be worse than the last of k: that has to be 1. Does the star count among the strangers?"),
        (lambda x: not same(x, exact(10, m)), "Of a star's r - 1 better ones, how many are among m - 1 strangers out of n - 1? It is found when fewer than k.")))


def recall_among(ranks, m, k):
    """Expected recall@k if the base held the partner and m - 1 of the other n - 1 stars; n is the number of ranks."""
    return None


check_among(recall_among)

# %% tags=["key-figures"]
for name in ("LRS finds LRS", "XP finds XP", "LRS finds XP", "LRS finds XP by labels", "LRS finds XP by translation", "control: shuffled pairs"):
    print(f"{name}, {n} stars: recall@1 {(found[name] <= 1).mean():.3f}, recall@10 {(found[name] <= 10).mean():.3f}, median place {np.median(found[name]):.0f}")
for title in sets:
    print(f"XP, {title}, typical rms: autoencoder {typical[title, 'autoencoder']:.4f}, components {typical[title, 'components']:.4f}")
for kind in ("unknown", "known"):
    print(f"XP from LRS, dust {kind}: network {scatter['network', kind]:.2f} %, oracle {scatter['oracle: all but the dust', kind]:.2f} %")
print("place of the partner with most dust over that without: " + ", ".join(f"{name} {value:.2f}" for name, value in worse.items()))
print("binaries, AUC: " + ", ".join(f"{name}, dust {'fitted out' if fit else 'left in'} {area[0]:.2f}" for (name, fit), area in areas.items()))

# %% [markdown]
# ## What was shown, and what not
#
# * Attention with a learned query, InfoNCE, retrieval and anomaly score are a few lines each, and these lines are what the package computes.
# * Two spectra without a common measurement can be brought into one space without any label. What both know, temperature before all, orders it.
# * Retrieval across surveys is far above chance and far below retrieval within one survey. Dust is a disturbance to one side and a mark to the other.
# * One spectrum can be predicted from the other, up to what the other cannot know; an oracle tells how much that is.
# * The translation error finds dust before it finds companions. With the dust out, unresolved binaries are somewhat more conspicuous than single stars, under kinder
#   conditions than the sky offers.
# * *Not* shown: anything about real *pairs*, as there are none here; that alignment is better than comparing four labels, or an autoencoder than components; that anything of this
#   holds for stars outside the library.
#
# **Common misreadings.** "The cosine is high, so it is the same star": section 5 mostly puts another one first. "Retrieval finds the star, so it tells which stars are known": it
# never says "none of these". "The contrastive loss is low, so labels will be good": it rewards whatever tells *these* stars apart, and a batch of very different stars makes it low for
# free. "The XP embedding has lost the dust, because lines have none": section 1 read it off. "The residuals are about one sigma, so the prediction is good": sigma was estimated with the dust
# in it. "The score is high, so it is a binary": ask first what dust does to it.
#
# **Next.** Notebook 04 adapts a pretrained network to another survey with few labels.
#
# **References.** SpecCLIP: Zhao et al. 2026, arXiv:2507.01939. CLIP: Radford et al. 2021, arXiv:2103.00020. InfoNCE: van den Oord et al. 2018, arXiv:1807.03748. AstroCLIP, where the
# learned query comes from: Parker et al. 2024, MNRAS 531, 4990. Attention is not explanation: Jain & Wallace 2019, arXiv:1902.10186. Gaia XP: De Angeli et al. 2023, A&A 674, A2; Montegriffo et
# al. 2023, A&A 674, A3. LAMOST: Luo et al. 2015, RAA 15, 1095. Extinction: Gordon et al. 2023, ApJ 950, 86. Covariance: Ledoit & Wolf 2004, J. Multivariate Anal. 88, 365. Masses of
# companions: Torres et al. 2010, A&A Rev. 18, 67.

# %% [markdown] tags=["solutions"]
# ## Solutions
#
# <details><summary>Exercise 1</summary>
#
# ```python
# def contrastive_loss(a, b, scale):
#     a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
#     total = 0.0
#     for logits in (scale * a @ b.T, scale * b @ a.T):
#         logits = logits - logits.max(1, keepdims=True)
#         total += np.mean(np.log(np.exp(logits).sum(1)) - np.diag(logits))
#     return total / 2
# ```
#
# </details>
#
# <details><summary>Exercise 2</summary>
#
# ```python
# def best_scale(a, b):
#     from scipy.optimize import minimize_scalar
#     return np.exp(minimize_scalar(lambda s: package_loss(a, b, float(np.exp(s))), bounds=(-2, 7), method="bounded").x)
# ```
#
# A best scale above 15.5: the cosines deserve more trust than the softmax gave them; below: less. No partner more is found, the order of the cosines is the same.
#
# </details>
#
# <details><summary>Exercise 3</summary>
#
# ```python
# def measure_dust(pairs):
#     more = lambda x: sk.translation.remove_dust(x.xp, model.translate(x.lrs))[1]
#     return more(pairs) + np.median(others.xp.label("ebv") - more(others))
# ```
#
# Lines fix the temperature, which XP alone confuses with dust. The regression of section 1 is a weak rival, too: it had no physics. And the extinction law is the same in simulation and
# fit; on the sky it varies.
#
# </details>
#
# <details><summary>Exercise 4</summary>
#
# ```python
# def recall_among(ranks, m, k):
#     from scipy.stats import hypergeom
#     n = len(ranks)
#     return hypergeom.cdf(k - 1, n - 1, ranks - 1, m - 1).mean()
# ```
#
# </details>
