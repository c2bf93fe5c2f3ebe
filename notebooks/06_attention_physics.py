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
# # 06 Attention physics: does the network look where the physics is?
#
# | | |
# |---|---|
# | **Question** | Papers draw attention over wavelength, mark some lines below the peaks and conclude that a network has learned physics. How would we notice if it had not? |
# | **You will** | compute where a label truly stands in a spectrum, lines and all; bring attention from tokens to pixels; turn "it sits on lines" into an area under a curve, a null distribution and a corrected p-value, each by hand; let gradients, integrated gradients and occlusion compete; see what survives random weights, shuffled labels and a rival that needs no network |
# | **You need** | notebooks 00 to 02; derivatives; what a p-value is |
# | **Time** | 50 minutes to read, about 2 minutes to run on 2 cores, about 1.5 GB of memory |
# | **Data** | simulated |

# %% tags=["parameters"]
profile = "full"                  # "ci" does the same with fewer stars and the network `tiny`
device = "cpu"

# %%
import matplotlib.pyplot as plt
import numpy as np
import torch

import spectrakit as sk
from spectrakit.attention import attention_maps, rollout, to_pixels, token_scores
from spectrakit.library import LABELS
from spectrakit.lines import load_lines, name_lines, share_near
from spectrakit.models.foundation import HEAD_LABELS, new_model
from spectrakit.models.spectra_fm import SpectraFM
from spectrakit.saliency import integrated_gradients, label_function, occlusion, pixel_scores
from spectrakit.sensitivity import clean_spectra, positives, sensitivity
from spectrakit.significance import holm, roc_auc, shift_test
from spectrakit.surveys import LRS_GRID as wave

sk.plots.use_style()
quick = profile == "ci"
assert profile in ("full", "ci") and device in ("cpu", "cuda"), "profile is full or ci, device is cpu or cuda"

# %% [markdown]
# ## 1. Lines have names
#
# A giant and a dwarf of the same temperature and the same composition, 5000 K and [Fe/H] = -0.2, as LAMOST would see them without noise. `load_lines` has a table of lines and bands, with
# wavelengths in air and in vacuum, what makes them and what they are used for.
#
# **Predict first.** A dwarf's atmosphere is a hundred times denser. Which lines are stronger in it, and which are stronger in the giant?

# %%
dwarf, giant = clean_spectra("lamost_lrs", np.array([[5000, 4.6, -0.2, 0.1, 0.0], [5000, 2.6, -0.2, 0.1, 0.0]]))
lines = load_lines(wave[0], wave[-1])
known = ("Fe I 4046", "Sr II 4078", "Hδ", "CN 4216", "Ca I 4227", "Fe I 4272", "G band", "Hγ", "Fe I 4384", "Ti II 4444", "Ba II 4554", "C2 4737", "Hβ", "Fe II 4924", "Fe II 5018", "C2 5165",
         "Mg b4", "Mg b1", "MgH 5211", "Fe I 5270", "Fe I 5328", "Fe I 5430", "Mg I 5528", "Ca I 5589")
few = lines[np.isin(lines["name"], known)]                                        # as many as there is room for
fig, axes = plt.subplots(2, 1, figsize=(11, 5), sharex=True, height_ratios=(2, 1))
axes[0].plot(wave, dwarf, color=sk.plots.BLUE, label="dwarf, log g = 4.6")
axes[0].plot(wave, giant, color=sk.plots.RED, ls="--", lw=0.9, label="giant, log g = 2.6")
axes[1].plot(wave, dwarf - giant, color="black", lw=0.8)
axes[1].axhline(0, color=sk.plots.GREY, lw=0.6)
axes[0].set(ylabel="flux / continuum", xlim=(wave[0], wave[-1]))
axes[1].set(ylabel="dwarf - giant", xlabel="wavelength in vacuum [Å]")
axes[0].legend(fontsize=8, loc="lower right", ncols=2)
name_lines(axes[0], few)
at = {line["name"]: dwarf[near].min() - giant[near].min() for line in lines if (near := np.abs(wave - line["wave"]) < 5).any()}
order = sorted(at, key=at.get)
print(f"{len(lines)} lines in the window; stronger in the dwarf:", ", ".join(order[:5]), "   stronger in the giant:", ", ".join(order[-5:]))
assert {"Mg b1", "Ca I 4227"} & set(order[:8]) and {"Sr II 4078", "CN 4216", "Sr II 4216"} & set(order[-10:])

# %% [markdown]
# **Takeaway.** Pressure widens the wings of strong neutral lines (Mg b, Ca I 4227) and binds MgH: the dwarf's. Low pressure leaves more atoms ionised: Sr II in the giant, with CN around it. That is what a
# network *should* use for log g at this temperature. So far it is textbook knowledge about two stars. To test a network we need it for any star, as numbers.
#
# ## 2. Where a label truly stands
#
# The library has derivatives. Move one label a little, look at how each pixel's flux moves, divide by the pixel's noise: so many sigma a pixel gives per unit of the label.
#
# That is not the whole truth yet. A hotter star has weaker iron lines, and so has a poorer one. What a pixel says about [Fe/H] *alone* is what is left when everything that a combination of the other labels
# could imitate is taken off: the part of its derivative at right angles to the others, in units of the noise.

# %%
n = 2 if quick else 12
everybody = sk.simulate("lamost_lrs", 70 * n, seed=60)
logg = everybody.label("logg")
groups = {"giants": sk.normalize(everybody[np.flatnonzero(logg < 3)[:n]]), "dwarfs": sk.normalize(everybody[np.flatnonzero(logg > 4)[:n]])}
assert all(len(stars) == n for stars in groups.values())


def sensitivity_by_hand(star):
    """d flux / d label in sigma, and the part of it that is the label's own; each (5, n_pix)."""
    labels, sigma, rows = np.array([star.label(name)[0] for name in LABELS]), 1 / np.sqrt(star.ivar[0]), []
    for k, step in enumerate((20, 0.02, 0.02, 0.02, 0.02)):                       # K, dex
        change = step * np.eye(5)[k]
        up, down = clean_spectra("lamost_lrs", np.stack([labels + change, labels - change]))
        rows.append((up - down) / (2 * step) / sigma)
    own = []
    for k in range(5):
        others = np.delete(rows, k, 0).T
        own.append(rows[k] - others @ np.linalg.lstsq(others, rows[k], rcond=None)[0])
    return np.array(rows), np.array(own)


raw, own = sensitivity_by_hand(groups["giants"][0])
package = sensitivity(groups["giants"][0])[0]
assert all(np.allclose(a, b, atol=5e-3 * np.abs(b).max()) for a, b in zip(own, package, strict=True))   # 32-bit spectra, small differences
for k, label in enumerate(HEAD_LABELS):
    print(f"{label:9s} of what the label does to this star, {np.square(own[k]).sum() / np.square(raw[k]).sum():5.1%} is its own")

# %% [markdown]
# So most of what a label does to a spectrum could be another label's doing. From here on, the **positives** of a star and a label are the tenth of the pixels where its own part is largest.
#
# The second print asks whether the dwarfs' positives are pixels that matter in giants, too. Its number is the *area under the ROC curve* (AUC), which section 4 writes out: 1 is yes, 0.5 is chance.
#
# **Predict first.** For which label do giants and dwarfs share their pixels, for which not? Do the positives lie on lines that have names?

# %%
own = {name: np.abs(sensitivity(stars))[:, :4] for name, stars in groups.items()}
positive = {name: positives(value) for name, value in own.items()}
fig, axes = plt.subplots(4, 1, figsize=(11, 7.5), sharex=True)
for k, (ax, label) in enumerate(zip(axes, HEAD_LABELS, strict=True)):
    for (name, value), color, sign in zip(own.items(), (sk.plots.RED, sk.plots.BLUE), (1, -1), strict=True):
        mean = (value[:, k] / value[:, k].max(1, keepdims=True)).mean(0)
        ax.fill_between(wave, sign * mean / mean.max(), color=color, lw=0, alpha=0.8, label=name)
    ax.set(ylabel=sk.plots.NAMES[label], yticks=(), ylim=(-1.1, 1.1), xlim=(wave[0], wave[-1]))
    near = {name: share_near(p[:, k].mean(0), wave, lines["wave"], 5) for name, p in positive.items()}
    print(f"{label:9s} positives within 5 Å of a named line: " + ", ".join(f"{name} {found:.0%}" for name, (found, _) in near.items()) + f"; of all pixels {near['giants'][1]:.0%}")
axes[0].legend(fontsize=8, ncols=2, loc="lower right")
axes[3].set_xlabel("wavelength in vacuum [Å]")
fig.supylabel("own part of d flux / d label, over its largest; dwarfs downwards", fontsize=9)
name_lines(axes[0], few)
both = {label: roc_auc(own["giants"].mean(0)[k:k + 1], positives(own["dwarfs"].mean(0)[k:k + 1]))[0] for k, label in enumerate(HEAD_LABELS)}
print("do the dwarfs' pixels matter in giants, too (1 yes, 0.5 chance):", {label: round(float(value), 2) for label, value in both.items()})
assert all(value > 0.5 for value in both.values())

# %% [markdown]
# **Takeaway.** The truth is sharp, spread over the whole window, and not the same for giants and dwarfs. It is not a list of famous lines either: compare the shares of positives near a name with the share of
# *all* pixels that are near a name. A peak with a name under it is no rarity in this crowd. That is why nothing here will be decided by eye.
#
# ## 3. Attention, brought to pixels
#
# Notebook 02 computed attention by hand. Each layer has one matrix of weights a head: row = the token that reads, column = the token that is read. Which row do we draw? The embedding is the mean over all
# tokens, so all tokens are its readers: average the rows. And the *statistics token* is a reader of its own, as others use a "CLS" token.
#
# First the proof that these are the weights that were used: with them, softmax($q k$) $v$ must be what the layer really gave.

# %%
model = sk.load_model("tiny" if quick else "small").to(device)
encoder, flux, sigma = model.encoder, {}, {}
for name, stars in groups.items():
    flux[name] = torch.as_tensor(stars.flux, dtype=torch.float32, device=device)
    sigma[name] = torch.as_tensor(stars.ivar, device=device).rsqrt().float()
maps = {name: attention_maps(encoder, x) for name, x in flux.items()}

last, heard = encoder.blocks[-1].attention, []
hook = last.register_forward_hook(lambda layer, inputs, output: heard.append((inputs[0], output[0])))
with torch.no_grad():
    encoder(flux["giants"])                                                       # the ordinary pass, in which nobody asks for weights
    hook.remove()
    x, given = heard[0]
    v = last.kv(x).chunk(2, dim=-1)[1].unflatten(-1, (last.n_head, -1))            # (star, token, head, d_head)
    read = torch.einsum("nhij,njhd->nihd", maps["giants"][:, -1], v).flatten(2)
    assert torch.allclose(last.out(read), given, atol=1e-4)
print("weights (star, layer, head, reader, read):", tuple(maps["giants"].shape), "  rows sum to", float(maps["giants"].sum(-1).mean().round(decimals=4)))

# %% [markdown]
# Two steps are left. A token in the last layer has heard of all others in the layers before. *Roll-out* follows that: half of a token stays what it was, half is what its heads read, layer by layer. And a
# token is a window of 20 pixels, every second ten of them shared: a pixel gets the mean of its windows' scores.

# %%
def rollout_by_hand(layers):
    path = np.eye(layers.shape[-1])
    for heads in layers:
        path = (0.5 * heads.mean(0) + 0.5 * np.eye(len(path))) @ path
    return path


def to_pixels_by_hand(score):
    total, count = np.zeros(wave.size), np.zeros(wave.size)
    for start, value in zip(encoder.config.starts, score, strict=True):
        total[start:start + 20] += value
        count[start:start + 20] += 1
    return total / count


one = maps["giants"][0].double().cpu().numpy()
assert np.allclose(rollout_by_hand(one), rollout(maps["giants"][:1])[0].cpu().numpy(), atol=1e-5)
score = one[-1].mean(0)[:, 1:].mean(0)                                            # last layer, mean over heads and readers, without the statistics token
spread = lambda x: to_pixels(x, encoder.pixels, wave.size).double().cpu().numpy()                                        # noqa: E731
assert np.allclose(to_pixels_by_hand(score), spread(token_scores(maps["giants"][:1, -1].mean(1)))[0], atol=1e-6)
drawn = {name: {"last layer, all tokens": spread(token_scores(m[:, -1].mean(1))), "last layer, statistics token": spread(token_scores(m[:, -1].mean(1), "statistics")),
                "roll-out, all tokens": spread(token_scores(rollout(m)))} for name, m in maps.items()}

# %% [markdown]
# Three ways to draw the attention of one network on the same stars, each divided by its mean: 1 is an even share. Dotted are lines that have names. **Predict first.** Where will the highest peak
# of the last layer be, and will it be at the same place for giants and dwarfs?

# %%
fig, axes = plt.subplots(3, 1, figsize=(11, 6.4), sharex=True)
for ax, kind in zip(axes, drawn["giants"], strict=True):
    for name, color, style in zip(drawn, (sk.plots.RED, sk.plots.BLUE), ("-", "--"), strict=True):
        mean = drawn[name][kind].mean(0)
        ax.plot(wave, mean / mean.mean(), style, color=color, label=name)
    ax.axhline(1, color=sk.plots.GREY, lw=0.6)
    ax.set(ylabel="weight / mean", xlim=(wave[0], wave[-1]), ylim=(0, None))
    ax.text(0.005, 0.93, kind, transform=ax.transAxes, va="top", fontsize=9)
axes[0].legend(fontsize=8, ncols=2, loc="upper right")
axes[2].set_xlabel("wavelength in vacuum [Å]")
name_lines(axes[0], few)
peaks = {name: lines["name"][np.abs(lines["wave"] - wave[drawn[name]["last layer, all tokens"].mean(0).argmax()]).argmin()] for name in drawn}
assert quick or set(peaks.values()) <= {"Hβ", "Hγ", "Hδ"}
print("the named line next to the highest weight:", {name: str(peak) for name, peak in peaks.items()})

# %% [markdown]
# **Takeaway.** It looks like a finding, and a beautiful one: the last layer of `small` stands on the Balmer lines, the thermometer of the textbook, and higher on Hδ and Hγ in dwarfs than in giants. Most papers would stop here. But count the dotted lines, and how far one can go
# from any of them: a peak 20 Å wide meets *some* line almost anywhere. And the label appears nowhere in this figure. All heads read the same embedding; there is one attention for temperature, gravity and iron.
#
# ## 4. From "it looks like" to a number
#
# Two questions, each with a number for an answer.
#
# *How well do scores tell positives from other pixels?* The area under the ROC: take one positive pixel and one other at random; how often has the positive one the higher score? 0.5 is guessing.
#
# *Would other scores, just as smooth, do as well?* Lines come in crowds, and attention is smooth; a test that shuffles pixels ignores both, and finds significance in noise. So move the scores as a whole along log
# wavelength, what leaves at one end coming back at the other. All that is destroyed is *where* they are. The share of shifts that do as well as the true place is the p-value.

# %%
def auc_by_hand(score, positive):
    wins = sum((a > b) + 0.5 * (a == b) for a in score[positive] for b in score[~positive][::10])       # every tenth: patience
    return wins / (positive.sum() * len(score[~positive][::10]))


scores, mine = drawn["dwarfs"]["last layer, all tokens"], positive["dwarfs"][:, 0]
by_hand, exact = auc_by_hand(scores[0], mine[0]), roc_auc(scores[:1], mine[:1])[0]
assert abs(by_hand - exact) < 0.03
null = np.array([roc_auc(np.roll(scores, -shift, axis=1), mine).mean() for shift in range(0, wave.size, 40 if quick else 1)])
test = shift_test(scores, mine, wave)
assert np.isclose(null[0], test.auc) and (quick or np.isclose((null >= null[0] - 1e-12).mean(), test.p))
fig, axes = plt.subplots(1, 2, figsize=(11, 3.3), width_ratios=(1.6, 1))
axes[0].plot(np.arange(0, wave.size, 40 if quick else 1), null, color=sk.plots.GREY, lw=0.8)
axes[0].plot(0, null[0], "o", color=sk.plots.RED, clip_on=False)
axes[0].set(xlabel="shift to the blue [pixels of 69 km/s]", ylabel="area under the ROC, mean of the dwarfs", xlim=(0, wave.size), title=r"Attention and the pixels of $T_{\rm eff}$, shifted")
axes[1].hist(null[1:], 40, color=sk.plots.GREY)
axes[1].axvline(null[0], color=sk.plots.RED)
axes[1].set(xlabel="area under the ROC", ylabel="shifts", title=f"area {test.auc:.2f}, p = {test.p:.4f}")
print(f"{test.n_shifts} shifts of {test.n} dwarfs: area {test.auc:.3f} [{test.low:.3f}, {test.high:.3f}], shifted {test.null_mean:.3f}, 95 % of them below {test.null_95:.3f}")

# %% [markdown]
# **Takeaway.** Look at the width of the null before you look at the red line. Scores as smooth as attention, put *anywhere*, reach areas that a textbook would call good. And mind how p can get small at all: the
# shifts next to zero are nearly the true place, so that scores 20 pixels wide can hardly get a p below 20/1462, however good they are.
#
# With five methods, four labels and two kinds of stars we will ask 40 questions, and one in twenty comes out below 0.05 for nothing. Holm's correction: sort the p-values; the smallest must be below 0.05/40,
# the next below 0.05/39, and so on. As p-values to be compared with 0.05:

# %%
def holm_by_hand(p):
    adjusted, largest = {}, 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = largest
    return np.array([adjusted[i] for i in range(len(p))])


example = np.array([0.01, 0.04, 0.03, 0.005])
assert np.allclose(holm_by_hand(example), holm(example)) and np.allclose(holm(example), [0.03, 0.06, 0.06, 0.02])
print("p:", example, "  after Holm:", holm(example).round(3))

# %% [markdown]
# ## 5. The rivals
#
# Attention says where was read. Three others ask what *moves the answer*, and they know which label is asked for.
#
# **Gradient.** How much does the answer change if this pixel alone changes? To be compared with the truth it must be multiplied by the pixel's noise: for the best linear estimate there is, the theorem of Gauss and Markov says that
# gradient times sigma *is* our truth, pixel by pixel. Here with a linear toy:

# %%
slope, noise = sensitivity_by_hand(groups["giants"][0])[0], 1 / np.sqrt(groups["giants"].ivar[0])
weights = np.linalg.solve(slope @ slope.T, slope / noise)                         # d estimate / d flux of weighted least squares, (5, n_pix)
toy = np.abs(weights * noise)
_, truth = sensitivity_by_hand(groups["giants"][0])
assert all(np.allclose(a / a.max(), np.abs(b) / np.abs(b).max(), atol=1e-5) for a, b in zip(toy, truth, strict=True))
print("area of gradient x sigma of the best linear estimate:", {label: float(roc_auc(a[None], positives(b[None]))[0].round(6)) for label, a, b in zip(HEAD_LABELS, toy, truth, strict=False)})

# %% [markdown]
# So whoever used the spectrum in the best way would reach an area of 1. **Integrated gradients** ask along the way from a baseline, here the mean star of the class: what share has each pixel in the difference between
# this star's answer and the baseline's? The shares must sum to the difference. **Occlusion** bridges one window with a straight line and looks how the answer moves.

# %%
function = label_function(encoder, [model.heads[label] for label in HEAD_LABELS])


def integrated_by_hand(star, baseline, k, steps):
    total = torch.zeros_like(star)
    for step in range(steps):
        point = (baseline + (step + 0.5) / steps * (star - baseline)).requires_grad_(True)
        function(point)[0, k].backward()
        total += point.grad / steps
    return (star - baseline) * total


def occluded_by_hand(star, start, k):
    bridged, inside = star[0].cpu().numpy().copy(), np.arange(start, start + 20)
    bridged[inside] = np.interp(inside, [start - 1, start + 20], bridged[[start - 1, start + 20]])
    with torch.no_grad():
        return (function(star) - function(torch.as_tensor(bridged[None], device=device)))[0, k]


star, baseline = flux["dwarfs"][:1], flux["dwarfs"].mean(0)
shares = integrated_gradients(function, star, baseline, steps=4)[0]
assert torch.allclose(integrated_by_hand(star, baseline[None], 2, 4)[0], shares[2], atol=1e-5)
change = occlusion(function, star, encoder.pixels[30:32])[0]
assert torch.allclose(occluded_by_hand(star, encoder.config.starts[30], 0), change[0, 0], atol=0.05)
many = integrated_gradients(function, star, baseline, steps=32)[0]
with torch.no_grad():
    difference = (function(star) - function(baseline[None]))[0]
for k, label in enumerate(HEAD_LABELS):
    print(f"{label:9s} this star less the mean star: {difference[k]:+9.3f}; sum of the shares: 4 steps {shares[k].sum():+9.3f}, 32 steps {many[k].sum():+9.3f}")
assert (many.sum(1) - difference).abs()[0] < 60

# %% [markdown]
# Now all five for all stars (`pixel_scores` is these lines together), for the shipped network and, as controls, for
#
# * **random**: an encoder and heads with random weights. What it shows was not learned from any star;
# * **shuffled**: the shipped encoder, frozen, with linear heads fitted to labels that were *shuffled* among 300 other stars. The heads know nothing. Attention is the encoder's: it *cannot* notice;
# * **line depth**: 1 - flux. No network at all, only the knowledge that something is where the spectrum is dark.
#
# **Predict first.** Which method finds the physics best? Which will be fooled by the shuffled labels? Will line depth be worse than attention?

# %%
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

learned = sk.normalize(sk.simulate("lamost_lrs", 60 if quick else 300, seed=61))
z, mixed = model.embed(learned), np.random.default_rng(0).permutation(len(learned))


def linear_head(target):
    """A ridge regression from the embedding, as a layer that gradients can pass."""
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(z, target)
    weight = ridge[1].coef_ / ridge[0].scale_
    head = torch.nn.Linear(z.shape[1], 1)
    head.weight.data, head.bias.data = torch.tensor(weight[None]).float(), torch.tensor([ridge[1].intercept_ - weight @ ridge[0].mean_]).float()
    return head.to(device)


untrained = new_model("tiny" if quick else "small", survey="pretraining", recipe="robust", seed=0).to(device)
nets = {"trained": (encoder, [model.heads[label] for label in HEAD_LABELS]), "shuffled": (encoder, [linear_head(learned.label(label)[mixed]) for label in HEAD_LABELS]),
        "random": (untrained.encoder, [untrained.heads[label] for label in HEAD_LABELS])}
found = {(net, name): {method: x.double().cpu().numpy() for method, x in pixel_scores(*nets[net], flux[name], sigma[name], 4 if quick else 8).items()} for net in nets for name in groups}
METHODS = list(found["trained", "giants"])
for name in groups:
    assert np.array_equal(found["trained", name]["attention"], found["shuffled", name]["attention"])
print("scores (star, label, pixel):", found["trained", "giants"]["gradient"].shape, "of", ", ".join(METHODS))

# %% [markdown]
# One dwarf and one label, everything on one axis. Grey: the positives.

# %%
rows = ["truth", *METHODS]
fig, axes = plt.subplots(len(rows), 1, figsize=(11, 7.5), sharex=True)
for ax, row, color in zip(axes, rows, ("black", sk.plots.ORANGE, sk.plots.ORANGE, sk.plots.BLUE, sk.plots.BLUE, sk.plots.GREEN), strict=True):
    value = own["dwarfs"][0, 2] if row == "truth" else found["trained", "dwarfs"][row][0, 2]
    ax.fill_between(wave, 0, 1, where=positive["dwarfs"][0, 2], color="0.85", step="mid", lw=0, transform=ax.get_xaxis_transform())
    ax.plot(wave, value / value.max(), color=color, lw=0.8)
    area = "" if row == "truth" else f", area {roc_auc(value[None], positive['dwarfs'][:1, 2])[0]:.2f}"
    ax.text(0.005, 0.95, row + area, transform=ax.transAxes, va="top", fontsize=9, bbox={"color": "white", "alpha": 0.7, "pad": 1})
    ax.set(ylim=(0, 1.35), yticks=(), xlim=(wave[0], wave[-1]))
name_lines(axes[0], few)
axes[-1].set_xlabel("wavelength in vacuum [Å]")
fig.supylabel("score / largest score")
_ = fig.suptitle(f"One dwarf, [Fe/H] = {groups['dwarfs'].label('feh')[0]:+.2f}, and its pixels of [Fe/H]", fontsize=10)

# %% [markdown]
# **Takeaway.** All five have peaks, and under most of them there is something grey: by eye each could be called a success. The areas differ, though, and one star is an anecdote.
#
# ## 6. The table
#
# Every method, label and class against 1461 shifts; Holm over the 40 questions asked of each network.

# %%
import pandas as pd

tests = pd.DataFrame([{"network": net, "class": name, "method": method, "label": label} | shift_test(score[:, k], positive[name][:, k], wave, n_boot=200).to_dict()
                      for (net, name), scores in found.items() for method, score in scores.items() for k, label in enumerate(HEAD_LABELS)])
tests["p_holm"] = tests.groupby("network")["p"].transform(lambda p: holm(p.to_numpy()))
depth = pd.DataFrame([{"class": name, "label": label} | shift_test(1 - stars.flux, positive[name][:, k], wave, n_boot=200).to_dict()
                      for name, stars in groups.items() for k, label in enumerate(HEAD_LABELS)])
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6), sharey=True)
for ax, name in zip(axes, groups, strict=True):
    part = tests[(tests["network"] == "trained") & (tests["class"] == name)]
    area, p = (part.pivot(index="method", columns="label", values=column).loc[METHODS, list(HEAD_LABELS)] for column in ("auc", "p_holm"))
    area = pd.concat([area, depth[depth["class"] == name].set_index("label")[["auc"]].T.rename(index={"auc": "line depth"})])
    image = ax.imshow(area, vmin=0.2, vmax=0.8, cmap="PuOr_r", aspect="auto")
    for i, method in enumerate(area.index):
        for k, label in enumerate(HEAD_LABELS):
            star = "*" if method in p.index and p.loc[method, label] <= 0.05 else ""
            ax.text(k, i, f"{area.loc[method, label]:.2f}{star}", ha="center", va="center", fontsize=9, color="white" if abs(area.loc[method, label] - 0.5) > 0.22 else "black")
    ax.set_xticks(range(4), [sk.plots.NAMES[label] for label in HEAD_LABELS])
    ax.set_yticks(range(len(area)), area.index)
    ax.axhline(len(METHODS) - 0.5, color="black", lw=1)
    ax.set_title(f"{n} {name}; * p ≤ 0.05 after Holm", fontsize=10)
fig.colorbar(image, ax=axes, label="area under the ROC")
print(tests[tests["network"] == "trained"].groupby(["method", "class"]).agg(area=("auc", "mean"), p=("p", "median"), found=("p_holm", lambda p: f"{(p <= 0.05).sum()} of 4")).round(4).to_string())
print(f"line depth: areas {depth['auc'].min():.2f} to {depth['auc'].max():.2f}, after Holm over its 8 questions {(holm(depth['p'].to_numpy()) <= 0.05).sum()} pass")
assert quick or (tests[(tests["network"] == "trained") & (tests["method"] == "integrated gradients")]["p_holm"] <= 0.05).all()

# %% [markdown]
# **Takeaway** (for the full profile; `tiny`, in the short one, has gradients that find nothing). **Integrated gradients** find the pixels of every label in both classes, **gradients** nearly all. **Attention of the last layer**,
# the one that papers draw, is the poorest of the five, and passes nowhere. **Roll-out** has the largest areas and hardly passes: it is as smooth as attention, and smooth scores have a wide null. That is no proof that there is
# nothing; there is too little spectrum to prove it. And **line depth**, which knows nothing but where it is dark, passes almost everywhere. "Significantly on lines" is a low bar.
#
# Two objections must be heard before that stands.
#
# *"The methods are not equally sharp."* True: truth and gradient know single pixels, attention windows of twenty. So give all of them attention's resolution: the mean score in each window, spread back to pixels.

# %%
def blurred(score):
    """Scores (n, n_pix) at the resolution of the tokens."""
    return spread(torch.as_tensor(score[:, encoder.pixels.cpu().numpy()].mean(2), device=device))


alike = []
for name, stars in groups.items():
    contest = found["trained", name] | {"line depth": np.repeat(1 - stars.flux[:, None], 4, 1)}
    for method, score in contest.items():
        for k, label in enumerate(HEAD_LABELS):
            coarse = score[:, k] if method in ("attention", "roll-out", "occlusion") else blurred(score[:, k])
            alike.append({"class": name, "method": method, "label": label} | shift_test(coarse, positive[name][:, k], wave, n_boot=2).to_dict())
alike = pd.DataFrame(alike)
alike["p_holm"] = holm(alike["p"].to_numpy())
print("all at the resolution of the tokens; Holm over these 48 questions")
print(alike.groupby("method").agg(area=("auc", "mean"), least=("auc", "min"), most=("auc", "max"), p=("p", "median"), found=("p_holm", lambda p: f"{(p <= 0.05).sum()} of 8")).round(3).to_string())
area = alike.groupby("method")["auc"].mean()
assert quick or area["roll-out"] > max(area["gradient"], area["integrated gradients"], area["line depth"])

# %% [markdown]
# The order changes: seen through attention's spectacles, roll-out has the largest areas, integrated gradients keep most of theirs, and the gradient's and the line depth's success is gone. It was made of details inside the windows, which attention cannot know.
# Which method "finds the physics" is a question of resolution as much as of insight. And hardly anything passes any more: 146 windows are few.
#
# *"The area judges all pixels. What about the peaks?"* Then ask another number: which share of the whole score falls on positives, compared with the tenth that they are? 1 is chance. The null is the same.

# %%
def lift(score, mine):
    total = np.fft.irfft(np.fft.rfft(score, axis=1) * np.fft.rfft(mine, axis=1).conj(), wave.size, axis=1)                 # at every shift
    every = (total / score.sum(1, keepdims=True) / mine.mean(1, keepdims=True)).mean(0)
    return every[0], (every >= every[0] - 1e-12).mean()


assert np.isclose(lift(scores, mine)[0], np.mean([a[b].sum() / a.sum() for a, b in zip(scores, mine, strict=True)]) / mine.mean())
peaked = pd.DataFrame([{"method": method, "class": name, "label": label} | dict(zip(("lift", "p"), lift(found["trained", name][method][:, k], positive[name][:, k]), strict=True))
                       for method in METHODS for name in groups for k, label in enumerate(HEAD_LABELS)])
peaked["p_holm"] = holm(peaked["p"].to_numpy())
print("share of the score on the positives, over their share of the pixels; Holm over 40 questions")
print(peaked.pivot_table(index="method", columns=["class", "label"], values="lift").loc[METHODS].round(1).to_string())
print("pass:", {method: f"{(part['p_holm'] <= 0.05).sum()} of 8" for method, part in peaked.groupby("method")})

# %% [markdown]
# Now the last layer has one thing to show: its peaks are the Balmer lines, and where these are the truth, the temperature of dwarfs before all, its lift is as large as that of any method. But it looks there for *every* star and label; for [α/Fe] it is hardly above
# chance. Methods that know the label pass far more often.
#
# ## 7. The controls
#
# The same areas beside those of the controls: each point one label and class.

# %%
fig, ax = plt.subplots(figsize=(10, 3.8))
for k, (net, color, marker) in enumerate((("trained", sk.plots.BLUE, "o"), ("shuffled", sk.plots.ORANGE, "^"), ("random", sk.plots.RED, "s"))):
    part = tests[tests["network"] == net]
    for i, method in enumerate(METHODS):
        y = part[part["method"] == method]["auc"].to_numpy()
        ax.plot(i + 0.22 * (k - 1) + np.linspace(-0.07, 0.07, len(y)), y, marker, color=color, ms=4, alpha=0.8, label=net if i == 0 else None)
ax.plot(len(METHODS) + np.linspace(-0.2, 0.2, len(depth)), depth["auc"], "D", color="black", ms=4, label="no network")
ax.axhline(0.5, color=sk.plots.GREY, lw=0.8)
ax.set_xticks(range(len(METHODS) + 1), [*METHODS, "line depth"])
ax.set(ylabel="area under the ROC", title="Each point: one label, giants or dwarfs", ylim=(0.2, 0.9))
ax.legend(fontsize=8, ncols=4, loc="upper right")
mean = tests.pivot_table(index="method", columns="network", values="auc").loc[METHODS, ["trained", "shuffled", "random"]]
plain = np.mean([roc_auc(1 / np.sqrt(stars.ivar), positive[name][:, k]).mean() for name, stars in groups.items() for k in range(4)])
print(mean.round(3).to_string(), f"\nno network: line depth {depth['auc'].mean():.3f}, sigma of the pixels {plain:.3f}")
assert np.allclose(mean.loc["attention", "trained"], mean.loc["attention", "shuffled"])
assert all(mean.loc[method, "trained"] > mean.loc[method, "random"] + 0.05 for method in ("roll-out", "gradient", "integrated gradients"))

# %% [markdown]
# One random network is one draw. Ten of them cost ten passes, for attention; and while we are at it, every layer, not the last one alone. (Choosing the best layer *afterwards* would be one more question to correct for.)

# %%
def by_layer(network):
    """Mean area over labels and classes of each layer's attention, and of the roll-out."""
    out = []
    for name in groups:
        m = attention_maps(network, flux[name])
        for attention in (*m.mean(2).unbind(1), rollout(m)):
            score = spread(token_scores(attention))
            out.append(np.mean([roc_auc(score, positive[name][:, k]).mean() for k in range(4)]))
    return np.reshape(out, (len(groups), -1)).mean(0)


seeds = [by_layer(new_model("tiny" if quick else "small", survey="pretraining", recipe="robust", seed=seed).encoder.to(device)) for seed in range(3 if quick else 10)]
trained, columns = by_layer(encoder), [*(f"layer {k + 1}" for k in range(encoder.config.n_layer)), "roll-out"]
layer_table = pd.DataFrame({"trained": trained, "random, mean": np.mean(seeds, 0), "random, least": np.min(seeds, 0), "random, most": np.max(seeds, 0)}, index=columns)
print(f"area, mean over labels and classes; {len(seeds)} random networks\n" + layer_table.round(3).to_string())
assert layer_table.loc["roll-out", "trained"] > layer_table.loc["roll-out", "random, most"]

# %% [markdown]
# **Takeaway.** *Random weights*: the trained network's last layer lies within the range of ten untrained ones. The one untrained network in the figure even has larger areas, and on its own would have been a discovery: most likely an untrained network reacts to
# unusual windows, and what is unusual in a spectrum are its lines. Layers differ as much as networks do, and the third *avoids* the physics: who draws one layer draws a choice. The first two layers and the roll-out are above all ten: where the encoder gathers its information *was* learned, and it gathers early. What the last layer reads has been mixed before.
#
# *Shuffled labels*: attention and roll-out are the same to the last digit, for heads that know nothing. Whatever they show is a finding about the encoder, not about a label. The gradient loses most of its area here (with held-out models,
# `benchmarks/results/attention_small_held_out.csv`, less: there nearly all of its questions pass with nonsense labels). Integrated gradients lose less, and many pass even so: their factor (star - mean star) is large where spectra differ, whoever asks. A small p-value against *shifts* has not shown that a label was understood; it takes the control to see it. (That linear heads can do better with the right labels is in `benchmarks/results/attention.csv`, as network `ridge`: both gradients pass all their questions.)
#
# *Gradients of random weights* lie far below 0.5: they are about the same everywhere, and sigma, by which they are multiplied, is smaller in dark pixels. Compare with the area of sigma alone.
#
# One more question goes with it: is it *this label's* physics? Score each method's answer for one label against the pixels of every label. Who knows what was asked for has a dark diagonal.

# %%
fig, axes = plt.subplots(1, len(METHODS) - 1, figsize=(11, 3), sharey=True)
advantage = {}
for ax, method in zip(axes, METHODS[1:], strict=True):
    cross = np.mean([[[roc_auc(found["trained", name][method][:, a], positive[name][:, b]).mean() for b in range(4)] for a in range(4)] for name in groups], 0)
    advantage[method] = np.diag(cross).mean() - cross[~np.eye(4, dtype=bool)].mean()
    image = ax.imshow(cross, vmin=0.2, vmax=0.8, cmap="PuOr_r")
    for a in range(4):
        for b in range(4):
            ax.text(b, a, f"{cross[a, b]:.2f}", ha="center", va="center", fontsize=8)
    ax.set_xticks(range(4), [sk.plots.NAMES[label] for label in HEAD_LABELS], fontsize=8)
    ax.set_title(method, fontsize=10)
axes[0].set_yticks(range(4), [sk.plots.NAMES[label] for label in HEAD_LABELS])
axes[0].set_ylabel("asked for")
fig.supxlabel("pixels of", fontsize=10)
fig.colorbar(image, ax=axes, label="area under the ROC")
print("the label's own pixels less those of the others:", {method: round(float(value), 3) + 0.0 for method, value in advantage.items()})
assert quick or advantage["gradient"] > 0.05
assert abs(advantage["roll-out"]) < 1e-9                                          # the same scores for every label: it cannot prefer one

# %% [markdown]
# **Takeaway.** Here the witnesses part. Gradients know what they were asked: their own label's pixels beat those of the others. Integrated gradients and occlusion know it less clearly, and attention cannot know it at all.
#
# *This* attention cannot. SpectraFM (notebook 08) is asked for one label at a time, and each request has an attention of its own, which its authors draw, label by label. It reads means of three pixels. The *control*: the same network with random weights,
# three times.
#
# **Predict first.** Requests are trained to find what they are asked for. For how many of the four labels does the request's attention find the label's own pixels?

# %%
fm, asked = sk.load_model("small_spectrafm"), {}
networks = {"trained": fm} | {f"random weights, seed {seed}": SpectraFM(fm.card, seed=seed).eval() for seed in range(3)}
for title, network in networks.items():
    network.network.centre[:], network.network.spread[:] = fm.network.centre, fm.network.spread           # of labels and flux: the units that tokens are in
    cross, p_values = [], []
    for name, stars in groups.items():
        shares = network.attention(stars, HEAD_LABELS).mean((1, 2))               # (star, label, token), mean over blocks and heads
        score = shares.repeat_interleave(3, -1)[..., :wave.size].double().numpy()   # a token's share, to each of its pixels
        cross.append([[roc_auc(score[:, a], positive[name][:, b]).mean() for b in range(4)] for a in range(4)])
        p_values += [shift_test(score[:, k], positive[name][:, k], wave).p for k in range(4)]
    asked[title] = np.mean(cross, 0), holm(np.array(p_values)).reshape(2, 4).max(0)
fig, ax = plt.subplots(figsize=(7.5, 3.4))
for k, (cross, _) in enumerate(asked.values()):
    ax.plot(np.arange(4) + 0.06 * k, np.diag(cross), "o" if k == 0 else "x", color=sk.plots.BLUE if k == 0 else sk.plots.GREY, ls="none", label=("trained", "random weights, three seeds")[k] if k < 2 else None)
    ax.plot(np.arange(4) + 0.06 * k, (cross.sum(1) - np.diag(cross)) / 3, "_", ms=10, color=sk.plots.BLUE if k == 0 else sk.plots.GREY, ls="none")
ax.axhline(0.5, color=sk.plots.GREY, lw=0.6)
ax.set_xticks(range(4), [sk.plots.NAMES[label] for label in HEAD_LABELS])
ax.set(ylabel="area under the ROC", title="Attention of a request: its own pixels (symbols) and those of the other labels (dashes)", xlabel="asked for")
ax.legend(fontsize=8, loc="upper right")
cross, passed = asked["trained"][0], asked["trained"][1] < 0.05
ahead = np.diag(cross) - (cross.sum(1) - np.diag(cross)) / 3
print("trained, larger p after Holm of giants and dwarfs:", dict(zip(HEAD_LABELS, asked["trained"][1].round(3).tolist(), strict=True)))
print("own pixels less those of the others:", dict(zip(HEAD_LABELS, ahead.round(2).tolist(), strict=True)), "  looks most at the pixels of:", [HEAD_LABELS[k] for k in cross.argmax(1)])
untrained = np.array([np.diag(areas) for title, (areas, _) in asked.items() if title != "trained"])
print("areas:", {name: f"{own:.2f}, random weights {low:.2f} to {high:.2f}" for name, own, low, high in zip(HEAD_LABELS, np.diag(cross), untrained.min(0), untrained.max(0), strict=True)})
assert quick or passed.tolist() == [True, True, True, False]
assert quick or (cross.argmax(1) == 0).all() and ahead[0] > 0.05 > ahead[1:].max()

# %% [markdown]
# **Takeaway.** For three of four, if one stops at the p-value: the requests for Teff, log g and [Fe/H] find their label's own pixels, in giants and in dwarfs, better than shifts do. The printed lines take most of it back. Only for Teff is the area out of reach of untrained networks. *All four* requests look most at the
# pixels of Teff; the one for log g finds the pixels of Teff better than its own, and so does the one for [Fe/H]; the one for [α/Fe], which does not pass, looks at its own less than at the others'. The network answers all four questions well (notebook 08).
#
# And ask another training. The same network with three fifths of the steps and an older optimiser, half as good at its labels, had it the other way round: [α/Fe] alone passed (area 0.67, the others' pixels 0.59), Teff, log g and [Fe/H] did not (0.54 to 0.57).
# A figure of either would have been a fine proof that attention has learned physics.
#
# A label is a sum of elements. [α/Fe] raises Mg, Si, Ca, Ti (and O) together; [Fe/H] raises everything, iron included. For reference stars the library has spectra with *one* abundance raised by 0.2 dex (notebook 01), which no emulator has smoothed. The positives are now
# the tenth of the pixels that one element changes most, in units of the noise; nothing is taken off for other labels.
#
# **Predict first.** Where does the network find [α/Fe]: at Mg, Si, Ca or Ti? And do the scores for [Fe/H] find iron better than those for [α/Fe] do?

# %%
from spectrakit.elements import load_elements
from spectrakit.sensitivity import element_jacobian, jacobian

elements, COUNTED = load_elements("optical"), {"Fe": 2, "Mg": 3, "Si": 3, "Ca": 3, "Ti": 3}                # element -> the label that counts it
few_stars = np.arange(len(elements.labels))[::5 if quick else 1]
reference = sk.normalize(sk.simulate("lamost_lrs", len(few_stars), seed=62, labels=elements.labels[few_stars]))
per_dex = dict(zip(elements.names, element_jacobian("lamost_lrs", elements)[few_stars].swapaxes(0, 1), strict=True))
whole = jacobian("lamost_lrs", elements.labels[few_stars])[:, 3].ravel()          # the emulator's [alpha/Fe], all five at once
alike = np.corrcoef(sum(per_dex[name].ravel() for name in ("O", "Mg", "Si", "Ca", "Ti")), whole)[0, 1]
made = {name: positives(per_dex[name] * np.sqrt(reference.ivar)) for name in COUNTED}
tensors, single = [torch.as_tensor(x, dtype=torch.float32, device=device) for x in (reference.flux, 1 / np.sqrt(reference.ivar))], []
for net in ("trained", "shuffled"):
    for method, score in {m: x.double().cpu().numpy() for m, x in pixel_scores(*nets[net], *tensors, 4 if quick else 8).items()}.items():
        single += [{"net": net, "method": method, "element": name, "other": roc_auc(score[:, 5 - k], made[name]).mean()} | shift_test(score[:, k], made[name], wave, n_boot=200).to_dict()
                   for name, k in COUNTED.items()]
single = pd.DataFrame(single).assign(own=lambda t: t["auc"] - t["other"], p_holm=lambda t: t.groupby("net")["p"].transform(lambda p: holm(p.to_numpy())))
fig, axes = plt.subplots(1, len(METHODS) - 1, figsize=(11, 3), sharey=True)
for ax, method in zip(axes, METHODS[1:], strict=True):
    part, control = (single[(single["net"] == net) & (single["method"] == method)] for net in ("trained", "shuffled"))
    ax.errorbar(range(5), part["auc"], (part["auc"] - part["low"], part["high"] - part["auc"]), fmt="o", color=sk.plots.BLUE, label="the label that counts it")
    ax.plot(range(5), part["other"], "_", ms=14, color=sk.plots.BLUE, label="the other label")
    ax.plot(np.arange(5) + 0.2, control["auc"], "^", color=sk.plots.ORANGE, label="control: shuffled labels")
    ax.plot(np.arange(5) - 0.2, [roc_auc(1 - reference.flux, made[name]).mean() for name in COUNTED], "x", color=sk.plots.GREY, label="line depth")
    ax.axhline(0.5, color=sk.plots.GREY, lw=0.6)
    ax.set(xticks=range(5), xticklabels=COUNTED, title=method)
axes[0].set(ylabel="area under the ROC", xlabel="pixels of the element")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
print(f"the five elements of [alpha/Fe] together against the emulator's [alpha/Fe]: correlation {alike:.3f}; {len(few_stars)} stars, Holm over {len(single) // 2} questions of each network")
print(single.pivot(index=["net", "method"], columns="element", values=["auc", "own", "p_holm"]).round(2).to_string())
assert alike > 0.9 and (quick or (single[single["method"] == "integrated gradients"].groupby("element")["auc"].agg(lambda auc: auc.iloc[1] - auc.iloc[0]) > -0.01).all())

# %% [markdown]
# **Takeaway.** Nobody answers. Integrated gradients find the pixels of four of the five elements, with small p-values; heads that learned shuffled labels find them as well or better. The scores for [Fe/H] do not find iron better than those for [α/Fe] do. For Ca and Ti the label that counts them
# is ahead of the other by 0.05 to 0.07, the control by 0.02 to 0.04. From which element the network reads [α/Fe] cannot be told from any of these. Nor need it be where magnesium is strongest: section 2 took off what other labels can imitate, and then little is left of a strong line.
#
# ## 8. The Attention Explorer
#
# Pick a line, a label, a layer and a star: the spectrum, the attention of that layer, the label's true sensitivity and the names of the lines, on one axis; below them the attention as code. First the giants, then the dwarfs.

# %%
from matplotlib.lines import Line2D

HERE = {str(line["name"]): float(line["wave"]) for line in lines}
shown = np.concatenate([stars.flux for stars in groups.values()])
truths = np.concatenate(list(own.values()))
layers = torch.cat([m.mean(2) for m in maps.values()])                            # (star, layer, reader, read), mean over heads
weight = np.stack([spread(token_scores(layer)) for layer in layers.unbind(1)], 1)


def show(line="Mg b1", label="logg", layer=1, star=0):
    near = np.abs(wave - HERE[line]) < 120
    fig, ax = plt.subplots(figsize=(10, 4))
    attention, truth = weight[star, layer - 1], truths[star, HEAD_LABELS.index(label)]
    ax.fill_between(wave[near], attention[near] / attention.max() - 1.1, -1.1, color=sk.plots.ORANGE, alpha=0.6, lw=0)
    ax.fill_between(wave[near], truth[near] / truth.max() - 2.2, -2.2, color=sk.plots.BLUE, lw=0)
    ax.plot(wave[near], shown[star, near], color="black", lw=0.9)
    ax.set(xlabel="wavelength in vacuum [Å]", xlim=(HERE[line] - 120, HERE[line] + 120), yticks=(0, 1), ylim=(-2.25, 1.4), ylabel="flux / continuum")
    name_lines(ax, lines)
    ax.axvline(HERE[line], color=sk.plots.RED, lw=0.8)
    handles = [Line2D([], [], color=c, lw=4) for c in ("black", sk.plots.ORANGE, sk.plots.BLUE)]
    names = (f"{'giant' if star < n else 'dwarf'} {star}", f"attention of layer {layer}", f"true sensitivity to {sk.plots.NAMES[label]}")
    fig.legend(handles, names, fontsize=8, loc="outside lower center", ncols=3)
    plt.show()
    print(f"area under the ROC, whole spectrum: {roc_auc(attention[None], positives(truth[None]))[0]:.2f}")
    print(f"to_pixels(token_scores(attention_maps(encoder, flux['{'giants' if star < n else 'dwarfs'}'])[{star % n}:{star % n + 1}, {layer - 1}].mean(1)), encoder.pixels, {wave.size})")


show()

# %% [markdown]
# The same with sliders, where a kernel is running. Is there a layer that reads at Mg b in giants and not in dwarfs? Does it in *all* giants?

# %% tags=["nbval-ignore-output"]
import ipywidgets

_ = ipywidgets.interact(show, line=ipywidgets.Dropdown(options=list(HERE), value="Mg b1"), label=ipywidgets.Dropdown(options=HEAD_LABELS, value="logg"),
                        layer=ipywidgets.IntSlider(1, 1, weight.shape[1], continuous_update=False), star=ipywidgets.IntSlider(0, 0, len(shown) - 1, continuous_update=False))

# %% [markdown]
# ## 9. Exercises
#
# Put your lines in place of `return None`, below the check, and run the cell: it says whether you are done, or gives a hint. Solutions are folded away at the very end.

# %% tags=["hide-input"]
from scipy.ndimage import uniform_filter1d

from spectrakit.exercises import told
from spectrakit.significance import shifted_auc

gradient, feh_pixels = found["trained", "dwarfs"]["gradient"][:, 2], positive["dwarfs"][:, 2]                             # scores and pixels of [Fe/H], (star, pixel)
same = lambda x, y, tol=1e-6: bool(np.allclose(x, y, rtol=tol, atol=1e-12))                                              # noqa: E731

# %% [markdown]
# **Exercise 1** (easy, 10 minutes). The area under the ROC without comparing pairs: from the *ranks* of the scores (`scipy.stats.rankdata`). How many ranks, at the least, can the positives have together?

# %%
def check_area(function):
    score, mine = gradient[0], feh_pixels[0]
    told(1, function(score, mine), (), (
        (lambda x: same(x, 1 - roc_auc(score[None], mine[None])[0]), "That is the area for the others: the positive pixel should have the higher score."),
        (lambda x: not same(x, roc_auc(score[None], mine[None])[0]), f"The package says {roc_auc(score[None], mine[None])[0]:.4f}. Sum the ranks of the positives; what would they sum to at worst?"),
        (lambda x: not same(function(np.ones(8), np.arange(8) < 3), 0.5), "Where all scores are equal the area is 0.5: tied scores share the mean of their ranks.")))


def area_of_ranks(score, positive):
    """Area under the ROC of one star; score (n_pix,), positive (n_pix,) boolean."""
    return None


check_area(area_of_ranks)

# %% [markdown]
# **Exercise 2** (medium, 15 minutes). Whose lines are they? Take as positives not the truth, but all pixels within 10 Å of the lines of one species in `lines`, and test attention against them with `shift_test`. Try `"H I"`, `"Fe I"`, `"Mg I"`. If the last layer
# is *significantly* on hydrogen, why is its area for the labels so poor?

# %%
def check_species(function):
    score = found["trained", "dwarfs"]["attention"][:, 0]
    near = lambda width: np.tile((np.abs(wave[:, None] - np.array(lines["wave"][lines["species"] == "H I"])) <= width).any(1), (n, 1))           # noqa: E731
    pair = lambda mine: (lambda t: np.array([t.auc, t.p]))(shift_test(score, mine, wave, n_boot=2))                    # noqa: E731
    told(2, function(score, "H I"), (2,), (
        (lambda x: same(x[::-1], pair(near(10))), "Area first, then p."),
        (lambda x: same(x, pair(np.tile((np.abs(wave[:, None] - np.array(lines["wave_air"][lines["species"] == "H I"])) <= 10).any(1), (n, 1)))), "The pixels are in vacuum: these lines are in air."),
        (lambda x: same(x, pair(near(5))), "That is 5 Å to each side; asked for are 10."),
        (lambda x: not same(x, pair(near(10)), 1e-3), f"Asked for is an area of {pair(near(10))[0]:.3f}. Positives: pixels at most 10 Å from a line of this species, the same in all stars.")))


def at_species(score, species):
    """Area and p (2,) of scores (n, n_pix) against the pixels near the lines of a species."""
    return None


check_species(at_species)

# %% [markdown]
# **Exercise 3** (medium, 15 minutes). The blue end has more lines than the red one. A score that merely falls from blue to red has an area above 0.5, and shifts do not forgive that: they destroy the trend with the rest. Take off the running mean over
# 301 pixels (at the ends: of the pixels there are) before you compute the mean area over stars. What is left of attention?

# %%
running = lambda x, width: uniform_filter1d(x, width, axis=1, mode="constant") / uniform_filter1d(np.ones_like(x), width, axis=1, mode="constant")   # noqa: E731


def check_trend(function):
    score = found["trained", "dwarfs"]["attention"][:, 2]
    want = roc_auc(score - running(score, 301), feh_pixels).mean()
    told(3, function(score, feh_pixels), (), (
        (lambda x: same(x, roc_auc(score, feh_pixels).mean()), "The trend is still in."),
        (lambda x: same(x, roc_auc(running(score, 301), feh_pixels).mean()), "That is the area of the trend alone. Interesting, but take it off."),
        (lambda x: same(x, roc_auc(score - uniform_filter1d(score, 301, axis=1, mode="constant"), feh_pixels).mean()), "At the ends your mean counts zeros beyond the spectrum as pixels."),
        (lambda x: not same(x, want, 2e-3), f"Asked for is {want:.4f}. 301 pixels, 150 to each side.")))


def without_trend(score, positive):
    """Mean area over stars of score (n, n_pix) less its running mean."""
    return None


check_trend(without_trend)

# %% [markdown]
# **Exercise 4** (hard, 25 minutes). Holm pretends to know nothing of how the 40 questions hang together. But attention and roll-out are nearly one question. `areas` (40, 1462) has the mean area of each question at each shift, the true place first. A shift moves *all*
# scores: compare each question with the best that any of the 40 reaches at that shift (Westfall & Young 1993). Who gains against Holm?

# %%
asked = [(method, name, k) for method in METHODS for name in groups for k in range(4)]
areas = np.array([shifted_auc(found["trained", name][method][:, k], positive[name][:, k]).mean(0) for method, name, k in asked])


def check_together(function):
    raw = (areas >= areas[:, :1] - 1e-12).mean(1)
    want = (areas.max(0) >= areas[:, :1] - 1e-12).mean(1)
    told(4, function(areas), (len(areas),), (
        (lambda x: same(x, raw), "These are the p-values as they are. What is the largest area that *any* question reaches at a shift?"),
        (lambda x: (x < raw - 1e-9).any(), "A corrected p-value cannot be smaller than the uncorrected one."),
        (lambda x: same(x, (areas[:, 1:].max(0) >= areas[:, :1] - 1e-12).mean(1)), "The true place is one of the places: count it, or p can be 0."),
        (lambda x: not same(function(np.tile(areas[:1], (5, 1))), np.tile(raw[0], 5)), "Five times the same question is one question: p must stay as it is."),
        (lambda x: np.abs(x - want).max() > 0.002, "At each shift, the largest area of all questions; then the share of shifts where it is at least the area at the true place.")))


def corrected_together(areas):
    """p-values (m,), corrected for all m questions by their common shifts."""
    return None


check_together(corrected_together)

# %% tags=["key-figures"]
for method in METHODS:
    part = tests[tests["method"] == method].groupby("network")
    area, passed = part["auc"].mean(), part["p_holm"].apply(lambda p: int((p <= 0.05).sum()))
    print(f"{method}: mean area " + ", ".join(f"{net} {area[net]:.3f} ({passed[net]} of 8 pass)" for net in nets))
print(f"line depth, no network: mean area {depth['auc'].mean():.3f}")
print("own label less others: " + ", ".join(f"{method} {round(float(value), 3) + 0.0:+.3f}" for method, value in advantage.items()))

# %% [markdown]
# ## What was shown, and what not
#
# * Attention maps, roll-out, area, shifts, Holm, integrated gradients and occlusion are a few lines each, and these lines are what the package computes. The weights drawn are the weights used.
# * Against the pixels where labels really stand: gradients and integrated gradients of `small` find them, for nearly every label and class. Attention of the last layer does not do better than untrained networks.
# * Roll-out does better than all untrained networks, and best of all at its own coarse resolution. It is the same for every label: it shows where the encoder gathers information, not what for.
# * Being on lines is easy: the depth of the spectrum alone passes nearly everywhere. Surviving the control is not: integrated gradients stay significant when the labels are nonsense.
#   What sets the true heads apart is a larger area, and that they prefer their own label's pixels to those of the others.
# * A request's attention can be its own, and still be nobody's: three of SpectraFM's four find their label's pixels, all four look most at those of Teff, and another training of the same network turns it round.
# * From which element [α/Fe] is read, no method can say: heads with shuffled labels find Mg, Si, Ca, Ti and Fe as well.
# * *Not* shown: anything about real stars, where the library's derivatives are not the truth; that a pixel without a high score is not used. One network was trained
#   once: other trainings may have other layers. And a spectrum of 1462 pixels has room for few independent shifts of a smooth score: absence of proof.
#
# **Common misreadings.** "The peak is at a known line": so is nearly everything. "p is small, so it understands": so it is for line depth. "The attention differs between giants and dwarfs, so it knows gravity": it differs because their spectra do. "The saliency
# survives the null, so it is faithful": shuffle the labels first. "Layer 2 looks where the physics is": would you have drawn layer 3?
#
# **Next.** 07 takes stars in which there is little to look at: metal-poor ones.
#
# **References.** Attention: Vaswani et al. 2017, arXiv:1706.03762. Roll-out: Abnar & Zuidema 2020, arXiv:2005.00928. Not an explanation: Jain & Wallace 2019, arXiv:1902.10186; not not one: Wiegreffe & Pinter 2019, arXiv:1908.04626. Integrated gradients: Sundararajan
# et al. 2017, arXiv:1703.01365. Controls for saliency: Adebayo et al. 2018, arXiv:1810.03292. Occlusion: Zeiler & Fergus 2014, arXiv:1311.2901. Attention over stellar spectra: Koblischke & Bovy 2024, arXiv:2411.04750; Leung & Bovy 2024, MNRAS 527, 1494. The network: Zhao et al. 2026,
# arXiv:2507.01939. Rank sums: Mann & Whitney 1947, Ann. Math. Stat. 18, 50. Groups of transformations: Hemerik & Goeman 2018, TEST 27, 811. Holm 1979, Scand. J. Statist. 6, 65. Westfall & Young 1993, Resampling-Based Multiple Testing. Lines: NIST Atomic
# Spectra Database; Smith et al. 2021, AJ 161, 254.

# %% [markdown] tags=["solutions"]
# ## Solutions
#
# <details><summary>Exercise 1</summary>
#
# ```python
# def area_of_ranks(score, positive):
#     from scipy.stats import rankdata
#     n = positive.sum()
#     return (rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(score) - n))
# ```
#
# The ranks 1 to n are the least that n positives can have. The statistic is that of Mann and Whitney.
#
# </details>
#
# <details><summary>Exercise 2</summary>
#
# ```python
# def at_species(score, species):
#     near = np.abs(wave[:, None] - np.array(lines["wave"][lines["species"] == species])) <= 10
#     test = shift_test(score, np.tile(near.any(1), (len(score), 1)), wave)
#     return np.array([test.auc, test.p])
# ```
#
# For `small`, hydrogen passes, with an area near one, and magnesium is *avoided*. Three lines are where the temperature of dwarfs stands, and little else: "it found hydrogen" and "it looks where the label is" are two claims.
#
# </details>
#
# <details><summary>Exercise 3</summary>
#
# ```python
# def without_trend(score, positive):
#     box = np.ones(301)
#     total = np.stack([np.convolve(row, box, "same") for row in score])
#     return roc_auc(score - total / np.convolve(np.ones(score.shape[1]), box, "same"), positive).mean()
# ```
#
# What the trend alone reaches, the same function tells you when it returns the mean in place of the difference.
#
# </details>
#
# <details><summary>Exercise 4</summary>
#
# ```python
# def corrected_together(areas):
#     return (areas.max(0) >= areas[:, :1] - 1e-12).mean(1)
# ```
#
# Sharp scores have narrow nulls, smooth ones wide nulls; the largest area at a shift is mostly one of a smooth score, so that the sharp ones pay for their company. Standardising each row first is fairer.
#
# </details>
