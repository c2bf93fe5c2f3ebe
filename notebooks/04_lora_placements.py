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
# # 04 LoRA placements: where does adaptation knowledge sit?
#
# | | |
# |---|---|
# | **Question** | A pretrained network meets another survey and a few labelled stars. In which of its layers should the few new numbers go, how many labels does that take, and what does the rank do? |
# | **You will** | write LoRA by hand and prove it equal to peft's layer; count the four published placements and find 24,576 numbers that never learn; disturb stars in ways you know and see which placement repairs what; put the published tables beside ours and let paired intervals judge; lower the rank, and ask whether a large update is an important one |
# | **You need** | notebooks 00 to 02; for section 2 what the projection of notebook 03 does; what a singular value is |
# | **Time** | 60 minutes to read, about 4 minutes to run on 2 cores, about 2 GB of memory |
# | **Data** | simulated DESI; tables of finished runs from `benchmarks/results` of the repository; sections 6 and 7 use real MILES stars when `SPECTRAKIT_DATA` names a folder that has them, and say so |

# %% tags=["parameters"]
profile = "full"                  # "ci" does the same with fewer stars, fewer steps and a smaller network
device = "cpu"

# %%
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

import spectrakit as sk
from spectrakit.adaptation.adapters import insert, label_network, trainable
from spectrakit.adaptation.frozen import Frozen
from spectrakit.adaptation.placements import PLACEMENTS

sk.plots.use_style()
quick = profile == "ci"
assert profile in ("full", "ci") and device in ("cpu", "cuda"), "profile is full or ci, device is cpu or cuda"

# %% [markdown]
# ## 1. LoRA is one line
#
# A network is mostly matrices, $y = W x + b$ (in torch: a `Linear`). To adapt one, LoRA (low-rank adaptation) leaves $W$ and $b$ as they are and adds a matrix of low rank $r$,
# made of two thin ones. The pair $A$, $B$ is called an *adapter*:
#
# $$ y = W x + b + \frac{\alpha}{r} B A x, \qquad A: r \times n_{\rm in}, \quad B: n_{\rm out} \times r. $$
#
# $A$ starts at random, $B$ at zero.
#
# **Predict first.** Why not both at zero? Why not both at random? And in the first step of training, which of the two gets a gradient?

# %%
class LoRA(torch.nn.Module):
    """A Linear with an update of low rank beside it."""

    def __init__(self, linear, A, B, alpha):
        super().__init__()
        self.linear, self.scale = linear.requires_grad_(False), alpha / len(A)
        self.A, self.B = torch.nn.Parameter(A), torch.nn.Parameter(B)

    def forward(self, x):
        return self.linear(x) + self.scale * (x @ self.A.T) @ self.B.T

    def merged(self):
        """One matrix for all three: the update costs nothing any more, and cannot be switched off."""
        return self.linear.weight + self.scale * self.B @ self.A


model = sk.load_model("small").to(device)
adapted = insert(model.network("feh"), ("lora2",), seed=0)                        # peft, in the four Linears of the head
layer = label_network(adapted).head.linears[0]
copies = [value.weight.detach().clone() for value in (layer.lora_A["lora2"], layer.lora_B["lora2"])]
by_hand = LoRA(model.network("feh").head.linears[0], *copies, alpha=16)
x = torch.randn(64, layer.in_features, generator=torch.Generator().manual_seed(0)).to(device)
assert torch.equal(by_hand(x), model.heads["feh"].linears[0](x)) and torch.equal(by_hand(x), layer(x))       # B = 0: bitwise the network as it was
by_hand(x).square().mean().backward()
assert by_hand.A.grad.abs().max() == 0 < by_hand.B.grad.abs().max()
print(f"W: {layer.in_features} x {layer.out_features} = {layer.in_features * layer.out_features:,} numbers.  A and B, rank {len(by_hand.A)}: {by_hand.A.numel() + by_hand.B.numel():,}")
print("first gradient, root mean square: " + ", ".join(f"{name} {p.grad.square().mean().sqrt():.1e}" for name, p in (("A", by_hand.A), ("B", by_hand.B))))

# %% [markdown]
# Both at zero is a saddle point: neither gets a gradient, ever. Both at random spoils the pretrained network before the first label is seen. So $B$ moves first, and $A$
# follows as soon as $B$ is not zero.
#
# Equal at the start is not yet equal. Twenty steps of training for both, and then the merging:

# %%
goal = torch.sin(3 * by_hand.linear(x).detach())                                  # something to learn
for one in (by_hand, layer):
    optimizer = torch.optim.AdamW([p for p in one.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(20):
        optimizer.zero_grad()
        loss = (one(x) - goal).square().mean()
        loss.backward()
        optimizer.step()
with torch.no_grad():
    change = (by_hand(x) - by_hand.linear(x)).square().mean().sqrt()
    assert torch.allclose(by_hand(x), layer(x), atol=1e-4) and change > 0.05
    assert torch.allclose(torch.nn.functional.linear(x, by_hand.merged(), by_hand.linear.bias), by_hand(x), atol=1e-4)
    rank = int(torch.linalg.matrix_rank(by_hand.merged() - by_hand.linear.weight, atol=1e-5))
    whole = adapted.merge_and_unload().head.linears[0]                            # peft's merging
    assert type(whole) is torch.nn.Linear and torch.allclose(whole.weight, by_hand.merged(), atol=1e-5)
print(f"after 20 steps: by hand = peft; the output has changed by {change:.2f} (rms); rank of the change of W: {rank}")
assert rank == 8

# %% [markdown]
# **Takeaway.** That is all of LoRA. Merged, it is an ordinary network and costs nothing in use; but $W + \Delta W - \Delta W$ is not $W$ in floating point. Whoever wants to
# go back *exactly* must not merge. This kit never does.
#
# **Why $\alpha / r$?** With a larger rank more terms are added up, each of which takes a step of the same length (Adam steps have the length of the learning rate, whatever the
# gradient). So the output moves further in a step, and a learning rate that was right for rank 2 is too large for rank 64. Divided by $r$, one learning rate should do for all.
# That is the idea of the authors. Others divide by $\sqrt r$ (rsLoRA).
#
# **Predict first.** From rank 1 to rank 64: by what factor does the first step grow, if nothing is divided? By 64, by 8, or by something else?

# %%
stars = sk.normalize(sk.simulate("desi", 16, seed=1))
z = torch.as_tensor(model.embed(stars), device=device)
head, y = model.heads["feh"], torch.as_tensor(stars.label("feh"), dtype=torch.float32, device=device) + 0.4     # labels on a scale that is off


def first_step(rank, seed):
    """How far one Adam step of 1e-3 moves the first layer's output for 16 stars (rms), with a scale of 1."""
    A = (torch.rand(rank, layer.in_features, generator=torch.Generator().manual_seed(seed)) * 2 - 1) / layer.in_features**0.5        # peft's start
    learner = deepcopy(head)
    one = learner.linears[0] = LoRA(learner.linears[0], A.to(device), torch.zeros(layer.out_features, rank, device=device), alpha=rank)
    optimizer = torch.optim.Adam([one.A, one.B], lr=1e-3)
    ((learner(z)[:, 0] - y) / head.y_std).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        standard = (z - head.x_mean) / head.x_std                                # what the first layer is given
        return float((one(standard) - one.linear(standard)).square().mean().sqrt())


ranks = np.array((1, 4, 16, 64) if quick else (1, 2, 4, 8, 16, 32, 64))
step = np.array([[first_step(int(r), seed) for seed in range(5)] for r in ranks]).mean(1)
power = np.polyfit(np.log(ranks), np.log(step), 1)[0]
fig, ax = plt.subplots(figsize=(6, 3.4))
for scale, name, color, style in ((1 + 0 * ranks, "not divided", sk.plots.RED, "o-"), (1 / np.sqrt(ranks), r"divided by $\sqrt{r}$", sk.plots.ORANGE, "^-."), (1 / ranks, r"divided by $r$", sk.plots.BLUE, "s--")):
    ax.loglog(ranks, step * scale / step[0], style, color=color, ms=4, label=name)
ax.set(xlabel="rank", ylabel="first step of the output\nover that of rank 1", title="One learning rate, one step of Adam, 16 stars, mean of 5 seeds")
ax.set_xticks(ranks, [str(r) for r in ranks])
ax.minorticks_off()
_ = ax.legend(fontsize=8)
print(f"the first step grows as rank to the power of {power:.2f}: by {step[-1] / step[0]:.0f} from rank 1 to {ranks[-1]}")
assert 0.5 < power < 1.2

# %% [markdown]
# **Takeaway.** A power of 1 would make $r$ the right divisor, a power of 1/2 would make it $\sqrt r$. In the first step the terms nearly all push the same way, downhill, so the power
# lies nearer to 1; not being quite 1, it makes a large rank a little slow. Later in training this can change, which is the case for $\sqrt r$. In this kit $\alpha = 2 r$ everywhere, as
# published: $\alpha / r = 2$ at every rank, and ranks can be compared at one learning rate.
#
# ## 2. Four places
#
# The study of SpecCLIP (arXiv:2507.20972) tried four places, alone and together. Two paths lead from a spectrum to [Fe/H]. One goes through the encoder to the *mean* of its tokens and a
# head. The other goes through the encoder, the *projection* into the space shared with Gaia XP (notebook 03), and a head of its own:
#
# | placement | sits in | path |
# |---|---|---|
# | LoRA1 | `q`, `kv` and `out` of the attention in every layer of the encoder | both |
# | LoRA2 | the four Linears of the head | mean |
# | LoRA3 | `out` of the projection's attention, and the two Linears of its perceptron | projected |
# | LoRA4 | the four Linears of the head | projected |
#
# An adapter of rank $r$ on a Linear has $r (n_{\rm in} + n_{\rm out})$ numbers. **Predict first.** 768 numbers a token, six layers, rank 4: how many has LoRA1?
#
# At the published size (`paper`, 43 million weights) we only need shapes. On torch's `meta` device tensors have nothing else.

# %%
from spectrakit.adaptation.network import LabelNetwork
from spectrakit.adaptation.status import counted
from spectrakit.models.heads import LabelHead
from spectrakit.models.projection import CrossAttentionHead, Widened
from spectrakit.models.spectrum_transformer import PRESETS, SpectrumTransformer

published_counts = {"lora1": 129_024, "lora2": 31_752, "lora3": 147_456, "lora4": 31_752}
rows = []
for name, published in published_counts.items():
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        projection = CrossAttentionHead(768, 768, 4, 0.1) if name in ("lora3", "lora4") else None
        network = insert(LabelNetwork(SpectrumTransformer(PRESETS["paper"], 0), LabelHead(768), projection), (name,), seed=0)
    place, inside = PLACEMENTS[name], label_network(network)
    sizes, whole = counted(network, place, trainable(network))
    shapes = [(inside.get_submodule(m).in_features, inside.get_submodule(m).out_features) for m in sizes]
    total = sum(place.rank * (n_in + n_out) for n_in, n_out in shapes)
    assert total == sum(sizes.values()) == published
    kinds = ", ".join(f"{shapes.count(s)} x ({s[0]}, {s[1]})" if shapes.count(s) > 1 else f"({s[0]}, {s[1]})" for s in dict.fromkeys(shapes))
    rows.append({"placement": name, "Linears (in, out)": kinds, "rank": place.rank, "alpha": place.alpha, "numbers": f"{total:,}", "published": f"{published:,}",
                 "of": f"{whole:,}", "share [%]": f"{100 * total / whole:.3f}"})
pd.DataFrame(rows).set_index("placement")

# %% [markdown]
# All four agree with the publication, shares included (it counts the part of the network an adapter sits in, and the adapter with it).
#
# ### 24,576 numbers that never learn
#
# Counting is one thing. Is everything that is counted also *trained*? The projection begins with an attention layer, and torch has one ready: `nn.MultiheadAttention`. peft finds the Linear
# `out_proj` in it, and wraps it. The counts are right, training runs, the loss falls.
#
# To find out, do not count numbers but *gradients*: run a step or two of training, and note for each number of each adapter whether a gradient other than zero ever came by.
# (Two steps, because in the first one $A$ has none, as section 1 showed.)

# %%
from peft import LoraConfig, get_peft_model


class NaiveProjection(torch.nn.Module):
    """The projection of LoRA3 with torch's own attention layer."""

    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.mlp = torch.nn.MultiheadAttention(768, 4, batch_first=True), torch.nn.LayerNorm(768), Widened(768, 0.0)

    def forward(self, tokens):
        return self.mlp(self.norm(self.attention(tokens[:, :1], tokens, tokens)[0][:, 0]))


def reached(network, run, steps=2):
    """Of each adapted Linear: numbers, and how many of them a gradient has reached in so many steps."""
    weights = {name: p for name, p in network.named_parameters() if "lora_" in name}
    optimizer, seen = torch.optim.AdamW(weights.values(), lr=1e-3, weight_decay=0.0), {name: torch.zeros_like(p, dtype=torch.bool) for name, p in weights.items()}
    for _ in range(steps):
        optimizer.zero_grad()
        run(network).square().mean().backward()
        for name, p in weights.items():
            seen[name] |= (torch.zeros_like(p) if p.grad is None else p.grad) != 0
        optimizer.step()
    places = [name.split(".lora_")[0].removeprefix("base_model.model.") for name in seen]
    return {place: np.sum([(m.numel(), int(m.sum())) for p, m in zip(places, seen.values(), strict=True) if p == place], axis=0) for place in dict.fromkeys(places)}


# %% [markdown]
# **Predict first.** Three Linears are adapted. In which of them does no number ever learn? And what happens to the output if we set the $B$ of *that* adapter to one everywhere?

# %%
with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    naive, tokens = NaiveProjection(), torch.randn(2, 3, 768)
    naive = get_peft_model(naive, LoraConfig(r=16, lora_alpha=32, target_modules=["attention.out_proj", "mlp.up", "mlp.down"]))
    before = naive(tokens)
for name, (n, alive) in (found := reached(naive, lambda network: network(tokens))).items():
    print(f"{name:22s}{n:8,} numbers, reached by a gradient: {alive:8,}")
dead = sum(n - alive for n, alive in found.values())
dead_layer = naive.base_model.model.attention.out_proj
with torch.no_grad():
    now = naive(tokens)
    dead_layer.lora_B["default"].weight.fill_(1.0)
    assert torch.equal(naive(tokens), now) and not torch.equal(now, before)
print(f"dead: {dead:,} of {sum(n for n, _ in found.values()):,}. With B = 1 the output stays bitwise the same.")
assert dead == 24_576 == 16 * (768 + 768)

# %% [markdown]
# **Takeaway.** `nn.MultiheadAttention` never *calls* its `out_proj`: it hands the weight to a function, and the adapter around it is left out. Nothing fails. A sixth of the
# published count can be dead in this way; whether it was in the published runs nobody can say, their code is not public. The kit writes its attention out of plain Linears.
#
# A count is therefore not enough, so here is the same test of all four placements on the shipped models. A ReLU that is silent for all sixteen stars keeps a row of $B$
# before it and a column of $A$ behind it waiting, so *every Linear* has to be reached, and most of its numbers.

# %%
name, pair_name = ("tiny", "tiny_aligned") if quick else ("small", "small_aligned")
spectrum, pair = (sk.load_model(n).to(device) for n in (name, pair_name))
rows = []
for place in ("lora1", "lora2", "lora3", "lora4"):
    source = spectrum if place in ("lora1", "lora2") else pair
    network = insert(source.network("feh"), (place,), seed=0)
    inputs = source.prepare(stars)
    found = reached(network, lambda net, inputs=inputs: label_network(net)(*inputs) + 1)
    n, alive = np.sum(list(found.values()), axis=0)
    least = min(found, key=lambda m: found[m][1] / found[m][0])
    rows.append({"placement": place, "model": name if source is spectrum else pair_name, "Linears": len(found), "numbers": f"{n:,}", "reached [%]": round(100 * alive / n, 1),
                 "least reached": least, "there [%]": round(100 * found[least][1] / found[least][0], 1)})
    assert all(reached_there > 0.3 * size for size, reached_there in found.values())
pd.DataFrame(rows).set_index("placement")

# %% [markdown]
# ## 3. The published protocol, live
#
# 89 labelled stars to train, 9 to validate, 396 to test: that is what the study had on DESI. We simulate it. The labelled stars are drawn from the DESI survey's population and our emulator. The test
# stars are 47 *computed models that the emulator has never seen*, each as several spectra with noise and systematics of their own. Nearly half of these are below [Fe/H] = -1,
# by design; in the study it was 60 of 396.
#
# `small` comes as it is shipped: pretrained on simulated stars, seen by an instrument whose sharpness, calibration and velocity differ from star to star, more than any one survey's do. DESI itself was not
# among them.
#
# `sk.adapt` trains five *members*, each on four fifths of the labelled stars. The fifth that a member has not seen, and the 9 validation stars, decide when all members stop: that is the *stopping rule*.
# It may choose step 0, which is zero-shot. The answer is the members' mean.
#
# **Predict first.** By how much will 98 labels lower the scatter: by a fifth, as LoRA4 did in the study? By more? Not at all? Write it down, with your reason.

# %%
n_test = 2 * 47 if quick else 8 * 47
labelled = sk.normalize(sk.simulate("desi", 98, seed=51))
test = sk.normalize(sk.simulate("desi", n_test, seed=52, models="held_out"))
train, valid, feh = labelled[:89], labelled[89:], test.label("feh")
frozen = {id(m): Frozen(m) for m in (spectrum, pair)}                             # what comes before the first adapter is computed once


def fit_to(source, train, valid, *placement, steps=30 if quick else 150, **settings):
    return sk.adapt(source, train, validation=valid, label="feh", placement=placement, seed=0, steps=steps, frozen=frozen[id(source)], **settings)


zero = {"zero-shot": spectrum.predict(test, "feh")[0], "zero-shot, projected": pair.predict(test, "feh")[0]}
fits = {"LoRA2": fit_to(spectrum, train, valid, "lora2"), "LoRA3": fit_to(pair, train, valid, "lora3"), "LoRA4": fit_to(pair, train, valid, "lora4")}
after = {method: fit.predict(test)[0] for method, fit in fits.items()}
starts_from = {"LoRA2": "zero-shot", "LoRA3": "zero-shot, projected", "LoRA4": "zero-shot, projected"}
for method, fit in fits.items():
    assert np.array_equal(fit.predict(test, on=())[0], zero[starts_from[method]])          # off: bitwise the network as it was
    assert fit.steps == 0 or not np.allclose(after[method], zero[starts_from[method]], atol=1e-4)      # on: something else
    print(f"{method}: {fit.n_trained:,} numbers trained, stopped at step {fit.steps}, labels used {fit.budget}; off it is bitwise {starts_from[method]}")


# %% [markdown]
# Eight spectra of one model share its oddities, so what is resampled for the intervals are the *models*.

# %%
def over_models(a, b, n_boot=100 if quick else 500):
    """Sigma of a less that of b on the test stars, with its 68 % interval over models."""
    models, rng, found = np.asarray(test.labels["star"]), np.random.default_rng(0), []
    rows = [np.flatnonzero(models == m) for m in np.unique(models)]
    sigma = lambda value, i: sk.metrics.score(feh[i], value[i], n_boot=1).sigma                     # noqa: E731
    for _ in range(n_boot):
        i = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        found.append(sigma(a, i) - sigma(b, i))
    every = np.arange(len(feh))
    return sigma(a, every) - sigma(b, every), *np.quantile(found, (0.16, 0.84))


print(f"{len(test)} spectra of {len(np.unique(test.labels['star']))} held-out models, {np.mean(feh < -1):.0%} below [Fe/H] = -1")
gain = {}
for method, value in {**zero, **after}.items():
    print(f"{method:21s}", sk.metrics.score(feh, value, n_boot=200))
for method, value in after.items():
    gain[method] = over_models(value, zero[starts_from[method]])
    print(f"{method} less {starts_from[method]}: sigma {gain[method][0]:+.4f} [{gain[method][1]:+.4f}, {gain[method][2]:+.4f}] dex")
fig, axes = plt.subplots(1, 2, figsize=(9, 4.3), sharex=True, sharey=True)
for ax, title, value, color, marker in ((axes[0], "zero-shot", zero["zero-shot"], sk.plots.BLUE, "o"), (axes[1], "LoRA2, 89 + 9 labels", after["LoRA2"], sk.plots.RED, "s")):
    sk.plots.predictions(feh, value, "feh", ax, color=color, marker=marker)
    ax.set(title=title, xlabel="[Fe/H], true [dex]", ylabel="[Fe/H], predicted [dex]" if ax is axes[0] else "")
assert all(abs(difference) < 0.3 * sk.metrics.score(feh, zero[starts_from[m]], n_boot=1).sigma for m, (difference, _, _) in gain.items())

# %% [markdown]
# **Takeaway.** Where pretraining has already met instruments *like* this one, there may be next to nothing to learn from 98 labels: zero-shot has hardly any bias, and what scatter it has
# is noise, unknown calibration and the limits of the network. The stopping rule sees that too, and stops where unseen labels can no longer tell the difference. The study had real spectra and a
# network pretrained on another survey, so a gap was there to be closed. No figure of the section says that LoRA does not work: it says that *this* network was not off.
#
# ## 4. Where does the knowledge sit? An experiment with a known answer
#
# So let us put something off, on purpose, one thing at a time:
#
# * **another label scale**: the catalogue has 0.8 [Fe/H] + 0.2. Nothing is wrong with the spectra.
# * **diluted lines**: scattered light lifts every spectrum, (flux + 0.15) / 1.15. All lines are shallower by 13 %.
# * **two pixels off**: somebody took the velocity zero point wrong by 138 km/s.
#
# Each time the labelled stars and the test stars have the same fault. The rival is humble: a **straight line** through the zero-shot answers and the labels, two numbers for the whole
# survey. If it does as well, the "knowledge" was two numbers, and where it sat was no question.
#
# LoRA1 needs a gradient through the whole encoder, five members of it, so this section takes `tiny`, which reads [Fe/H] only roughly.
#
# **Predict first.** Which fault can LoRA1 repair and LoRA2 cannot, or the other way round? Which the straight line?

# %%
def faulty(stars, fault):
    """The same stars with one thing wrong."""
    if fault == "another label scale":
        labels = stars.labels.copy()
        labels["feh"] = (0.8 * stars.label("feh") + 0.2) * stars.labels["feh"].unit
        return replace(stars, labels=labels)
    if fault == "diluted lines":
        return replace(stars, flux=(stars.flux + 0.15) / 1.15, ivar=stars.ivar * 1.15**2)
    return replace(stars, flux=np.roll(stars.flux, 2, axis=1)) if fault == "two pixels off" else stars


tiny = sk.load_model("tiny").to(device)
frozen[id(tiny)] = Frozen(tiny)
faults = ("another label scale", "diluted lines", "two pixels off") if quick else ("none", "another label scale", "diluted lines", "two pixels off")
steps, rich, errors, repaired = 15 if quick else 45, feh >= -1, {}, []
for fault in faults:
    known, target = faulty(labelled, fault), faulty(test, fault)
    zero_shot, line = tiny.predict(target, "feh")[0], np.polyfit(tiny.predict(known, "feh")[0], known.label("feh"), 1)
    answers = {"zero-shot": zero_shot, "straight line": np.polyval(line, zero_shot)}
    for method, placement in (("LoRA1", ("lora1",)), ("LoRA2", ("lora2",)), ("LoRA1+LoRA2", ("lora1", "lora2"))):
        if not quick or placement == ("lora2",):                                  # a gradient through the encoder takes its time
            answers[method] = fit_to(tiny, known[:89], known[89:], *placement, steps=steps).predict(target)[0]
    for method, value in answers.items():
        errors[fault, method] = np.abs(value - target.label("feh"))
        score = sk.metrics.score(target.label("feh"), value, n_boot=1)
        repaired.append({"fault": fault, "method": method, "sigma": score.sigma, "bias": score.bias, "R2": score.r2, "mean |error|": errors[fault, method].mean(),
                         ">= -1": errors[fault, method][rich].mean(), "< -1": errors[fault, method][~rich].mean()})

# %% [markdown]
# Sigma does not see a bias, and a bias is what these faults bring. So the picture has the mean absolute error, which sees both. **Predict once more:** on which side of [Fe/H] = -1 will adapting do more good?
# Most of the labelled stars are on one of them.

# %%
fig, axes = plt.subplots(1, 2, figsize=(10, 3.9), sharey=True)
looks = {"zero-shot": (sk.plots.GREY, "x"), "straight line": ("black", "_"), "LoRA1": (sk.plots.ORANGE, "^"), "LoRA2": (sk.plots.BLUE, "o"), "LoRA1+LoRA2": (sk.plots.RED, "s")}
for ax, chosen, title in ((axes[0], rich, "[Fe/H] >= -1"), (axes[1], ~rich, "[Fe/H] < -1")):
    labels_here = np.sum((labelled.label("feh") >= -1) == (chosen is rich))
    for k, (method, (color, marker)) in enumerate(looks.items()):
        found = [(i + 0.14 * (k - 2), (e := errors[fault, method][chosen]).mean(), e.std() / len(e) ** 0.5) for i, fault in enumerate(faults) if (fault, method) in errors]
        ax.errorbar(*np.reshape(found, (-1, 3)).T, fmt=marker, color=color, ms=8 if marker in "x_" else 6, mew=2 if marker in "x_" else 0, capsize=3, label=method)
    ax.set_xticks(range(len(faults)), [fault.replace(" ", "\n", 1).replace("label scale", "label\nscale") for fault in faults])
    ax.set_title(f"{title}: {labels_here} labels, {chosen.sum()} test spectra")
axes[0].set(ylabel="mean |error| of [Fe/H] [dex]", ylim=(0, None))
fig.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=5, loc="outside lower center")
print(pd.DataFrame(repaired).round(3).to_string(index=False))
for fault in faults:
    for chosen, regime in ((rich, ">= -1"), (~rich, "< -1")):
        against = [(a, b, (errors[fault, a] - errors[fault, b])[chosen]) for a, b in (("LoRA2", "zero-shot"), ("LoRA2", "straight line"), ("LoRA2", "LoRA1")) if (fault, b) in errors]
        print(f"{fault:20s}{regime:6s}" + ", ".join(f"{a} less {b} {d.mean():+.3f} ± {d.std() / len(d)**0.5:.3f}" for a, b, d in against))
better = {fault: errors[fault, "LoRA2"][rich].mean() / errors[fault, "zero-shot"][rich].mean() for fault in faults}
assert better["two pixels off"] < 0.9
assert quick or errors["none", "LoRA2"][~rich].mean() > errors["none", "zero-shot"][~rich].mean()

# %% [markdown]
# **Takeaway.** Look at three things.
#
# * *Above -1, where most labels are*, faults are repaired, and mostly by any placement. A head can undo what was done to the spectra, and the encoder what was done to the labels: both are functions
#   of the same 98 stars, and much of what one can learn from these the other can learn too. "Instrument in the encoder, label scale in the head" is a neat story that this experiment does not tell. The printed
#   differences say where one placement is ahead, and how far the straight line is behind, or not.
# * *Below -1, where labels are few*, the same training can do harm even where **nothing is wrong** (fault "none" of the full profile). That is what the study reports of its metal-poor stars, and here we
#   know the reason: not the instrument, not the rank, but a correction learned on metal-rich stars and carried on to where hardly anybody asked for it. Adapters do not harm by *being* adapters: the straight
#   line does the same, and worse.
# * One set of labelled stars, one small network: an experiment to think with, no law.
#
# ## 5. The published tables beside ours
#
# One split of 89 stars is an anecdote. `benchmarks/adaptation.py` runs every method on the *same* splits of several targets; what it has finished lies in `benchmarks/results`, one row a method, split
# and regime of metallicity. "Zero-shot, projected" is the path through the projection (MLP2 in the study), "zero-shot" the one through the mean (MLP1).

# %%
folder = next((p / "benchmarks" / "results" for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks" / "results").is_dir()), None)
if folder is None:
    raise FileNotFoundError(f"No benchmarks/results in {Path.cwd()} or above it, and sections 5 and 6 show its tables: open this notebook inside the repository.")
TITLES = {"miles": "MILES, real", "miles_all": "MILES, real, beyond the hull too", "stelib": "STELIB, real", "lamost": "LAMOST, real", "desi0": "simulated DESI, no systematics",
          "desi1": "simulated DESI", "desi2": "simulated DESI, systematics x 2"}
runs = {}
for path in sorted(folder.glob("adaptation_*_feh_*.csv")):
    target, n = re.fullmatch(r"adaptation_(\w+)_feh_(\d+)", path.stem).groups()
    runs[target, int(n)] = pd.read_csv(path)
for (target, n), table in runs.items():
    counts = table.groupby("method").split.nunique()
    print(f"{TITLES[target]}, {n} labels: {len(counts)} methods on {counts.min()}-{counts.max()} splits, {table[table.regime == 'all'].n.iloc[0]} test spectra, "
          f"{table[table.regime == '< -1'].n.mean():.0f} of them below -1")
study = pd.DataFrame({"zero-shot": (0.2730, 0.7358, 0.2479, 0.0702, 0.4444, -0.5130), "LoRA2": (0.2663, 0.7156, 0.2272, 0.2378, 0.5872, -1.2881),
                      "LoRA1+LoRA2": (0.2227, 0.7719, 0.1924, 0.4173, 0.5151, -0.9143), "zero-shot, projected": (0.2560, 0.7203, 0.2371, 0.0725, np.nan, np.nan),
                      "LoRA4": (0.2023, 0.7937, 0.1621, 0.5106, 0.5803, -0.8357), "LoRA1+LoRA3+LoRA4": (0.2297, 0.7801, 0.1851, 0.4274, 0.5970, -0.8159)},
                     index=pd.MultiIndex.from_product([("all", ">= -1", "< -1"), ("sigma", "r2")])).T
targets = [target for target in TITLES if (target, 89) in runs]
groups = {key: dict(list(table.set_index("split").groupby(["method", "regime"]))) for key, table in runs.items()}


def values(target, n, method, regime="all", figure="sigma"):
    """One number a split, indexed by split; empty if there is none."""
    found = groups[target, n].get((method, regime))
    return pd.Series(dtype=float) if found is None else found[figure]


# %% [markdown]
# The study's main table (all, metal-rich) and its ablation (metal-poor), and ours at 89 labels. ± is the scatter between splits (standard deviation); the study has one split and no interval.

# %%
order = [*study.index, *dict.fromkeys(m for target in targets for m in runs[target, 89].method if "LoRA" in m or "zero-shot" in m)]
rows = {}
for regime in ("all", ">= -1", "< -1"):
    for method in dict.fromkeys(order):
        known = method in study.index and np.isfinite(study.loc[method, (regime, "sigma")])
        row = {("study, real DESI", "sigma"): f"{study.loc[method, (regime, 'sigma')]:.3f}" if known else "", ("study, real DESI", "R2"): f"{study.loc[method, (regime, 'r2')]:.2f}" if known else ""}
        for target in targets:
            sigma, r2 = (values(target, 89, method, regime, figure) for figure in ("sigma", "r2"))
            row[TITLES[target], "sigma"] = f"{sigma.mean():.3f} ± {sigma.std():.3f}" if len(sigma) else "not run"
            row[TITLES[target], "R2"], row[TITLES[target], "splits"] = f"{r2.mean():.2f}" if len(r2) else "", len(sigma)
        rows[regime, method] = row
pd.DataFrame(rows.values(), index=pd.MultiIndex.from_tuples(rows, names=("[Fe/H]", "method")), columns=pd.MultiIndex.from_tuples(row))

# %% [markdown]
# The same with everything that adapters have to be compared with. Mind the stars: the study's are real and faint, with labels from APOGEE; MILES is bright, with labels from the literature. Heights
# cannot be compared between columns or colours, *order* can. A mark without a bar is one split.

# %%
broad = [target for target in targets if runs[target, 89].method.nunique() > 15]                            # the order is theirs: elsewhere few methods were run
mean_sigma = {m: np.mean([v.mean() for target in broad if len(v := values(target, 89, m))] or [np.inf])
              for m in [*study.index, *(m for target in targets for m in runs[target, 89].method)]}
methods = ["zero-shot", *(m for m in sorted(mean_sigma, key=mean_sigma.get) if m != "zero-shot")]            # best first; what has not been run last
fig, axes = plt.subplots(1, 3, figsize=(10, 1.6 + 0.23 * len(methods)), sharey=True)
for ax, regime in zip(axes, ("all", ">= -1", "< -1"), strict=True):
    known = [(study.loc[m, (regime, "sigma")], i) for i, m in enumerate(methods) if m in study.index]
    ax.plot(*zip(*known, strict=True), "*", color="black", ms=8, label="study, real DESI, one split")
    for k, (target, color, marker) in enumerate(zip(targets, (sk.plots.RED, sk.plots.BLUE, sk.plots.GREEN, sk.plots.ORANGE, sk.plots.GREY) * 2, "osD^vPX", strict=False)):
        found = [(v.mean(), i + 0.2 * (k - (len(targets) - 1) / 2), v.std()) for i, m in enumerate(methods) if len(v := values(target, 89, m, regime))]
        x, y, error = np.array(found).T
        ax.errorbar(x, y, xerr=error, fmt=marker, color=color, ms=4, capsize=2, label=f"{TITLES[target]}, scatter between splits")
        ax.axvline(x[0], color=color, ls=":", lw=0.8)
    ax.set(xscale="log", xlabel="sigma of [Fe/H] [dex]", title=f"[Fe/H] {regime}" if regime != "all" else "all")
    ax.set_xticks((0.1, 0.2, 0.3, 0.6), ("0.1", "0.2", "0.3", "0.6"))
    ax.minorticks_off()
axes[0].set_yticks(range(len(methods)), methods)
axes[0].invert_yaxis()
fig.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=3, loc="outside upper center")
assert targets and all(len(values(target, 89, "zero-shot")) for target in targets)

# %% [markdown]
# ### Which findings hold?
#
# Each finding of the study is a sentence "a has a smaller sigma than b". For each we take the difference *split by split*: what a split has of luck, it has for both. The finding **holds** when the 95 %
# interval of the mean difference lies below zero; **the opposite** holds when it lies above; otherwise these splits cannot tell.
# Where neither method uses a label and all splits have the same test stars, there is one difference and no interval.
#
# **Predict first.** Nine sentences. On how many will real MILES stars agree with real DESI stars?

# %%
verdicts, CLAIMS = {}, (("LoRA4 is better than its zero-shot", "LoRA4", "zero-shot, projected", "all"), ("LoRA2 is better than zero-shot", "LoRA2", "zero-shot", "all"),
                       ("the projected path is better zero-shot", "zero-shot, projected", "zero-shot", "all"), ("LoRA4 is better than LoRA2", "LoRA4", "LoRA2", "all"),
                       ("LoRA4 is better than LoRA1+LoRA2", "LoRA4", "LoRA1+LoRA2", "all"), ("LoRA1 helps LoRA2", "LoRA1+LoRA2", "LoRA2", "all"),
                       ("LoRA4 alone is better than 1+3+4", "LoRA4", "LoRA1+LoRA3+LoRA4", "all"), ("below -1 zero-shot is better than LoRA2", "zero-shot", "LoRA2", "< -1"),
                       ("below -1 zero-shot is better than LoRA4", "zero-shot", "LoRA4", "< -1"))


def judge(target, a, b, regime):
    """Difference of sigma with its 95 % interval over splits, and the verdict."""
    both = pd.concat([values(target, 89, m, regime).rename(i) for i, m in enumerate((a, b))], axis=1).dropna()
    if len(both) < 3:
        return "", f"not run ({len(both)} common splits)"
    if np.ptp(both[0] - both[1]) < 1e-9:
        return f"{(both[0] - both[1]).mean():+.3f}", "no interval"                # no label, the same test stars: nothing differs between splits
    low, high = (found := sk.metrics.paired(both[0].to_numpy(), both[1].to_numpy(), level=0.95)).interval
    return f"{found.mean:+.3f} [{low:+.3f}, {high:+.3f}], {found.n} splits", "holds" if high < 0 else "the opposite" if low > 0 else "cannot tell"


for claim, a, b, regime in CLAIMS:
    published = study.loc[a, (regime, "sigma")] - study.loc[b, (regime, "sigma")]
    assert published < 0                                                          # it is what the study found
    print(f"{claim}: study {published:+.3f}")
    for target in targets:
        difference, verdicts[claim, target] = judge(target, a, b, regime)
        print(f"    {TITLES[target]:32s}{verdicts[claim, target]:14s}{difference}")
for target in targets:
    count = pd.Series([v.split(" (")[0] for (_, t), v in verdicts.items() if t == target]).value_counts()
    wider = np.sqrt(1 + len(values(target, 89, "zero-shot")) * values(target, 89, "zero-shot", figure="n").mean() / 98)
    print(f"{TITLES[target]}:", ", ".join(f"{v} {k}" for k, v in count.items()),
          "" if target.startswith("desi") else f"\n    for other stars than these, intervals would be wider by a factor of about {wider:.1f} (Nadeau & Bengio 2003)")

# %% [markdown]
# **Takeaway.** Why simulated DESI has so little to gain, and loses below -1, was the matter of sections 3 and 4. Where real stars contradict the study, remember what is different: our network was pretrained on simulations only, its Gaia XP side too, and MILES is not DESI. That LoRA4 wins there
# *because* it brings knowledge of Gaia XP is an explanation, and no table can prove it: LoRA4 differs from LoRA2 in the embedding it reads and in nothing else. In the study, LoRA2 lowers sigma
# while R2 falls: sigma is blind to tails. And the study has one split of 89 stars; the bars in the picture tell how far one split can be off.
#
# All this is for *these* stars: ten splits of a few hundred stars share most of them, and for simulated DESI the test stars are the same in all splits. The last line has what the intervals would have to be for a
# statement about other stars. "Not run" stands where a method has no finished runs; the notebook shows them as soon as the tables have them.
#
# ## 6. How many labels does it take?
#
# The tables have the answer for whatever has been run. Live we can afford a cheap placement: LoRA2 works on embeddings that are computed once. Its rivals get the same labels: a **straight line** through the
# zero-shot answers, and a **ridge regression on the embedding**, which uses the pretrained encoder and forgets the pretrained head. Stars outside the library's *hull*, the range of labels for which it has spectra, are left out.
#
# **Predict first.** From how many labels on is the ridge better than zero-shot? Than LoRA2? And what happens to LoRA2 with ten labels?

# %%
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

try:
    world, origin = sk.read("miles"), "REAL stars of MILES"
except ValueError as missing:
    print(missing)
    world, origin = sk.simulate("miles", n=404, seed=7), "SIMULATED stars seen by a MILES-like instrument"
world = world[world.labelled("teff", "logg", "feh")]
world = world[(world.label("teff") > 4200) & (world.label("teff") < 7000)]
world = world[sk.experiments.in_hull(world)]
world = sk.normalize(world[:120] if quick else world)
y, zero_world, z_world, star = world.label("feh"), spectrum.predict(world, "feh")[0], spectrum.embed(world).astype(float), np.asarray(world.labels["star"])
sizes, n_splits, curve = (10, 40) if quick else (10, 20, 40, 89, 200), 3 if quick else 4, []
for n in sizes:
    for k, split in enumerate(sk.experiments.splits(star, n_train=n, n_valid=max(1, round(n / 10)), n_splits=n_splits, seed=0)):
        both, judged = np.concatenate([split.train, split.valid]), split.test
        ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 4, 29))).fit(z_world[both], y[both])
        answers = {"zero-shot": zero_world[judged], "straight line": np.polyval(np.polyfit(zero_world[both], y[both], 1), zero_world[judged]),
                   "ridge on embedding": ridge.predict(z_world[judged]),
                   "LoRA2": fit_to(spectrum, world[split.train], world[split.valid], "lora2", steps=15 if quick else 150).predict(world[judged])[0]}
        curve += [{"method": method, "labels": n, "split": k, **sk.metrics.score(y[judged], value, n_boot=1).to_dict()} for method, value in answers.items()]
curve = pd.DataFrame(curve)
print(origin, len(world))
print(curve.pivot_table(index="method", columns="labels", values=["sigma", "bias"]).round(3).to_string())

# %% [markdown]
# Beside it what the tables have, each target in a panel of its own.

# %%
shown = [target for target in TITLES if sum(t == target for t, _ in runs) > 1][:4]                  # where the number of labels was varied
fig, axes = plt.subplots(1, 1 + len(shown), figsize=(min(3.3 + 3.2 * len(shown), 11), 4), sharey=True, squeeze=False)
looks = {"zero-shot": (sk.plots.GREY, "x:"), "straight line": ("black", "v--"), "ridge on embedding": (sk.plots.ORANGE, "^-."), "LoRA2": (sk.plots.BLUE, "o-"), "LoRA4": (sk.plots.RED, "s-"),
         "residual head": (sk.plots.GREEN, "D--"), "Gaussian process on PCA": ("#CC79A7", "P:")}
for method, (color, style) in list(looks.items())[:4]:
    part = curve[curve.method == method].groupby("labels").sigma
    axes[0, 0].errorbar(part.mean().index, part.mean(), part.std(), fmt=style, color=color, ms=4, capsize=2)
axes[0, 0].set(ylabel="sigma of [Fe/H] [dex]", title=f"live, {name}, {n_splits} splits\n{origin.split()[0].lower()} stars")
for ax, target in zip(axes[0, 1:], shown, strict=True):
    for k, (method, (color, style)) in enumerate(looks.items()):
        found = [(n * 1.04 ** (k - 3), v.mean(), v.std()) for t, n in sorted(runs) if t == target and len(v := values(target, n, method))]
        if found:
            ax.errorbar(*zip(*found, strict=True), fmt=style, color=color, ms=4, capsize=2)
    ax.set_title(f"tables\n{TITLES[target]}")
for ax, most in zip(axes[0], (sizes[-1], *(max(n for t, n in runs if t == target) for target in shown)), strict=True):
    ax.set(xscale="log", yscale="log", xlabel="labels to train", xlim=(8, 1.3 * max(most, 200)))
    ax.set_xticks(ticks := [n for n in (10, 30, 89, 200, 2000) if n <= max(most, 200)], map(str, ticks))
    ax.set_yticks((0.1, 0.15, 0.2, 0.3, 0.5), ("0.1", "0.15", "0.2", "0.3", "0.5"))
    ax.minorticks_off()
fig.legend([plt.Line2D([], [], color=c, marker=s[0], ls=s[1:], ms=4) for c, s in looks.values()], looks, fontsize=8, ncols=4, loc="outside lower center")
pivot = curve.pivot(index=["labels", "split"], columns="method", values="sigma")
for n in sizes:
    for rival in ("zero-shot", "straight line", "ridge on embedding"):
        print(f"{n:4d} labels, LoRA2 less {rival:20s}", sk.metrics.paired(pivot.loc[n, "LoRA2"].to_numpy(), pivot.loc[n, rival].to_numpy()))
assert pivot.loc[sizes[0], "LoRA2"].mean() < pivot.loc[sizes[0], "ridge on embedding"].mean()

# %% [markdown]
# **Takeaway.** Adapters keep the pretrained answer as their starting point, so with ten labels they are about level with zero-shot, where a regression that starts from nothing is far behind. The stopping
# rule has a part in that: it may stop at zero-shot. With 200 labels the ridge on the embedding has caught up: then the pretrained *encoder* is what counts, and the pretrained head is nearly
# forgotten. Mind the line too: as long as it is level with LoRA2, two numbers were all there was to learn.
#
# ## 7. What does the rank do?
#
# Two questions that are often mixed up:
#
# * How much of a *trained* update is needed? Cut $B A$ after its largest singular values: of all matrices of rank $k$ none is nearer to it (Eckart & Young 1936). That is `fit.predict(stars, rank={"lora2": k})`; the
#   stored weights stay as they are.
# * With which rank should one *train*?
#
# Two sets of stars again: those of section 6, and the simulated ones two pixels off, where there is much to be learned.
#
# **Predict first.** LoRA2 was trained with rank 8. How much of its gain does rank 1 have?

# %%
n_lab, repeats = (47, 1) if quick else (94, 3)
broken = faulty(sk.normalize(sk.simulate("desi", 98 * repeats, seed=53)), "two pixels off")
broken_test = faulty(test[:n_lab], "two pixels off")
sets = {"two pixels off": [(broken[98 * k:98 * k + 89], broken[98 * k + 89:98 * (k + 1)], broken_test) for k in range(repeats)],
        origin.split()[0].lower() + " stars": [tuple(world[rows] for rows in s) for s in sk.experiments.splits(star, n_train=89, n_valid=9, n_splits=repeats, seed=1)]}
cut, trained, energy, rank_steps = {}, {}, {}, 15 if quick else 75
trained_ranks = (1, 8) if quick else (1, 2, 4, 8, 16)
absolute = lambda value, stars: np.abs(value - stars.label("feh")).mean()                       # noqa: E731
for title, parts in sets.items():
    for k, (a, b, judged) in enumerate(parts):
        for r in trained_ranks:
            fit = fit_to(spectrum, a, b, replace(PLACEMENTS["lora2"], rank=r, alpha=2 * r), steps=rank_steps)
            trained[title, k, r] = absolute(fit.predict(judged)[0], judged)
            if r == 8:
                for j in range(9):
                    cut[title, k, j] = absolute(fit.predict(judged, rank={"lora2": j})[0], judged)
                assert np.allclose(fit.predict(judged, rank={"lora2": 0})[0], spectrum.predict(judged, "feh")[0], atol=1e-4)      # rank 0 is zero-shot
                keys = [key for key in fit.states[0] if ".lora_A." in key]
                energy[title, k] = np.mean([[np.cumsum((s := torch.linalg.svdvals(state[key.replace("lora_A", "lora_B")].double() @ state[key].double())[:8]) ** 2 / (s**2).sum())[[0, 1, 3]]
                                             for key in keys[:3]] for state in fit.states], axis=0) if fit.steps else np.full((3, 3), np.nan)

# %% [markdown]
# Left and middle: the mean absolute error by rank, cut and trained (full profile: mean and scatter of three sets of labels). Right: which share of the squared norm of the update is in its first singular values, in the first three Linears of the head (the
# fourth has one output, so its update has rank one anyway).

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 3.6))
for ax, title in zip(axes, sets, strict=False):
    for found, ranks, label, color, style in ((cut, range(9), "rank 8, cut afterwards", sk.plots.RED, "s--"), (trained, trained_ranks, "trained with this rank", sk.plots.BLUE, "o-")):
        value = np.array([[found[title, k, r] for r in ranks] for k in range(repeats)])
        ax.errorbar(list(ranks), value.mean(0), value.std(0, ddof=1) if repeats > 1 else None, fmt=style, color=color, ms=4, capsize=2, label=label)
    ax.axhline(np.mean([cut[title, k, 0] for k in range(repeats)]), color=sk.plots.GREY, lw=0.8, ls=":", label="zero-shot")
    ax.set(xlabel="rank", title=f"{title}, {len(sets[title][0][2])} test spectra", ylim=(0, None))
axes[0].set_ylabel("mean |error| of [Fe/H] [dex]")
axes[0].legend(fontsize=8, loc="lower right")
for k, (title, color, marker) in enumerate(zip(sets, (sk.plots.RED, sk.plots.BLUE), "sP", strict=True)):
    share = np.mean([energy[title, j] for j in range(repeats)], axis=0)
    axes[2].plot(np.arange(3) + 0.1 * (k - 0.5), 100 * share[:, 0], marker, color=color, ms=6, label=f"{title}: first")
    axes[2].plot(np.arange(3) + 0.1 * (k - 0.5), 100 * share[:, 2], marker, color=color, ms=6, mfc="white", label="first four")
axes[2].set(ylabel="share of the squared norm [%]", ylim=(0, 105), xlim=(-0.4, 2.4), title="Singular values of B A")
axes[2].set_xticks(range(3), ["head.0", "head.1", "head.2"])
axes[2].legend(fontsize=8, loc="lower right")
gained = {}
for title in sets:
    base, one, full = (np.mean([cut[title, k, r] for k in range(repeats)]) for r in (0, 1, 8))
    gained[title] = (base - one) / (base - full) if base != full else np.nan
    print(f"{title}: mean |error| {base:.3f} zero-shot, {one:.3f} cut to rank 1, {full:.3f} rank 8: rank 1 has {gained[title]:.0%} of the gain")
    print("    trained with rank " + ", ".join(f"{r}: {np.mean([trained[title, k, r] for k in range(repeats)]):.3f}" for r in trained_ranks))

# %% [markdown]
# **Takeaway.** A fault that is *one* thing needs an update of hardly more than rank one: what is cut off can even have been noise. Real stars differ from simulated ones in more than one way, each of them small, and there the gain is
# spread over more singular values. The rank to *train* with matters little between 1 and 16, with $\alpha / r$ held and the stopping rule at work. "We use rank 16" is rarely a finding.
#
# A trained rank cannot be raised afterwards: `rank={"lora2": 9}` is refused.
#
# ## 8. Where in the network does the update live?
#
# `fit.status()` has a row for each adapted Linear, with the norm of its update. It is tempting to read it as a map: large update, much knowledge. A map needs a control. We adapt LoRA1 and LoRA2
# together to the stars two pixels off, and then once more with the **labels shuffled** among the stars: what is learned there is no knowledge.
#
# Norms are divided by that of the pretrained matrix $W$.
#
# **Predict first.** Will the two maps look different? In height, or in shape?

# %%
a, b, judged = sets["two pixels off"][0]
if quick:
    a, b = a[:20], b[:2]
shuffled = sk.concatenate(a, b).labels
shuffled["feh"] = np.random.default_rng(0).permutation(shuffled["feh"].value) * shuffled["feh"].unit
together = fit_to(spectrum, a, b, "lora1", "lora2", steps=15 if quick else 30)
nonsense = fit_to(spectrum, replace(a, labels=shuffled[:len(a)]), replace(b, labels=shuffled[len(a):]), "lora1", "lora2", steps=15 if quick else 30)
status = together.status()
weights = {m: spectrum.network("feh").get_submodule(m).weight.norm().item() for m in status.module}
relative = {title: fit.status().norm.to_numpy() / np.array(list(weights.values())) for title, fit in (("true labels", together), ("shuffled labels", nonsense))}
print(f"stopped at step {together.steps} (true) and {nonsense.steps} (shuffled); errors: zero-shot {absolute(spectrum.predict(judged, 'feh')[0], judged):.3f}, "
      f"adapted {absolute(together.predict(judged)[0], judged):.3f}, adapted to shuffled labels {absolute(nonsense.predict(judged)[0], judged):.3f} dex")
status.round(4).head(8)

# %% [markdown]
# What an update *does* can be measured without its norm: switch off one Linear's update, leave the others on, and see how far the answers move, and whether they get worse. (For two of the five members, to save time.)

# %%
def without(modules):
    """Predictions with the updates of these Linears set to zero."""
    states = [{key: torch.zeros_like(value) if any(f".{m}.lora_B." in key for m in modules) else value for key, value in state.items()} for state in two.states]
    return replace(two, states=states).predict(judged)[0]


two = replace(together, states=together.states[:2])
truth, complete = judged.label("feh"), two.predict(judged)[0]
assert np.allclose(without(status.module), spectrum.predict(judged, "feh")[0], atol=1e-3)                    # all of them off is zero-shot
alone = np.array([without([m]) for m in status.module])
moved, worse = np.abs(alone - complete), np.abs(alone - truth) - np.abs(complete - truth)
names = [m.removeprefix("encoder.").replace("blocks.", "layer ").replace(".attention.", ", ").replace("head.linears.", "head, ") for m in status.module]
fig, axes = plt.subplots(1, 2, figsize=(10, 1.4 + 0.24 * len(names)), sharey=True)
for k, (title, color, marker) in enumerate((("true labels", sk.plots.RED, "s"), ("shuffled labels", sk.plots.GREY, "o"))):
    axes[0].plot(100 * relative[title], np.arange(len(names)) + 0.2 * (k - 0.5), marker, color=color, ms=5, label=title)
for k, (what, title, color, marker) in enumerate(((moved, "the answers move by (mean)", sk.plots.RED, "s"), (worse, "mean |error| rises by", sk.plots.BLUE, "D"))):
    axes[1].errorbar(what.mean(1), np.arange(len(names)) + 0.2 * (k - 0.5), xerr=what.std(1) / len(truth) ** 0.5, fmt=marker, color=color, ms=5, capsize=2, label=title)
axes[1].axvline(0, color=sk.plots.GREY, lw=0.8)
axes[0].set(xlabel="norm of the update / norm of W [%]", title="How large", xlim=(0, None))
axes[1].set(xlabel="[Fe/H] [dex]; bars: error of the mean", title="When this one is switched off")
axes[0].set_yticks(range(len(names)), names)
axes[0].invert_yaxis()
for ax, side in zip(axes, ("outside lower left", "outside lower right"), strict=True):
    fig.legend(*ax.get_legend_handles_labels(), fontsize=8, ncols=2, loc=side)
alike, tells = (spearmanr(relative["true labels"], other).statistic for other in (relative["shuffled labels"], moved.mean(1)))
print(f"rank correlation of the norms, true and shuffled: {alike:+.2f}; of norm and move of the answers: {tells:+.2f}, {len(names)} Linears")
for chosen, regime in ((truth >= -1, ">= -1"), (truth < -1, "< -1")):
    rises = {p: (np.abs(without(status.module[status.placement == p]) - truth) - np.abs(complete - truth))[chosen] for p in ("lora1", "lora2")}
    print(f"[Fe/H] {regime}: mean |error| rises when a whole placement is switched off: " + ", ".join(f"{p} {e.mean():+.3f} ± {e.std() / len(e)**0.5:.3f} dex" for p, e in rises.items()))
assert alike > 0.5

# %% [markdown]
# **Takeaway.** Shuffled labels know nothing of any star but the mean of all (and that alone lowers the error: all stars are off in one direction). Their map has nearly the same shape: a norm says first of all where gradients are
# large and matrices small. Nor is a large update one that does much; the second correlation says how far the one tells of the other. Look at q: who is asked matters little, what is said (kv) and how it is heard (out) more.
#
# Moving the answers is not improving them. Where a blue mark is left of zero, these stars would be better off without this update; where most marks are, all updates together overshoot. And leaving out one has a
# limit of its own: what one Linear loses, its neighbours make up for. Compare the single marks with what a whole placement is worth.
#
# ## 9. LoRA Lab
#
# Everything on the table at once: which placements act, with which rank, how strongly. Strength 0 is zero-shot, 1 as trained, 2 goes twice as far. The picture is one function of a script:

# %%
fits = {"spectrum": together, "aligned": fit_to(pair, a, b, "lora3", "lora4", steps=15 if quick else 60)}
train, test = a, judged
sk.widgets.lora_figure(fits["spectrum"], test, on=("lora1", "lora2"), rank={"lora2": 3}, strength=0.8)

# %% [markdown]
# The same with ticks and sliders, where a kernel is running. The line of code below the picture makes it again without the widget. Three things to try: is the residual's slope against [Fe/H] the business of LoRA1
# or of LoRA2? At which strength is the bias zero, and is sigma least there? Down to which rank can you go before anything moves?

# %% tags=["nbval-ignore-output"]
lab = sk.widgets.LoraLab(fits, test, train, seed=0, steps=15 if quick else 60)
lab

# %% [markdown]
# ## 10. Exercises
#
# Put your lines in place of `return None`, below the check, and run the cell: it says whether you are done, or gives a hint. Solutions are folded away at the very end.
#
# **Exercise 1** (easy, 5 minutes). LoRA is only thrifty up to a point. What is the largest rank at which A and B together have *fewer* numbers than $W$? Try it on the last Linear of the head, (64, 1), and look at the
# rank that LoRA2 has there.

# %%
from spectrakit.exercises import told

same = lambda x, y, tol=1e-6: bool(np.allclose(x, y, rtol=tol, atol=1e-9))                                            # noqa: E731


def check_rank(function):
    told(1, function(768, 3072), (), (
        (lambda x: same(x, 768), "That is the largest rank the matrix can have. Count: how many numbers have A and B?"),
        (lambda x: same(x, 768 * 3072 / (768 + 3072)), "A rank is a whole number."),
        (lambda x: x != 614, "A has rank x n_in numbers, B n_out x rank, W n_in x n_out."),
        (lambda x: function(100, 100) == 50, "At (100, 100) and rank 50 they have exactly as many. Asked for is fewer."),
        (lambda x: function(100, 100) != 49 or function(64, 1) != 0, "Try (100, 100) and (64, 1): there it should be 49 and 0.")))


def largest_rank(n_in, n_out):
    """The largest rank at which an adapter is smaller than its Linear; 0 if there is none."""
    return None


check_rank(largest_rank)

# %% [markdown]
# **Exercise 2** (medium, 10 minutes). Section 7 showed which share of an update's squared norm is in its first singular values. Compute it for an A (8, 40) and a B (30, 8): the share that the best approximation of rank k
# keeps.

# %%
rng = np.random.default_rng(7)
demo_a, demo_b = rng.normal(size=(8, 40)), rng.normal(size=(30, 8)) * np.geomspace(1, 0.05, 8)
singular = np.linalg.svd(demo_b @ demo_a, compute_uv=False)


def check_kept(function):
    told(2, function(demo_a, demo_b, 3), (), (
        (lambda x: same(x, singular[:3].sum() / singular.sum()), "These are the singular values themselves; a squared norm is the sum of their *squares*."),
        (lambda x: same(x, (singular[:3] ** 2).sum()), "That is the squared norm that is kept. Asked for is its share of the whole."),
        (lambda x: same(x, singular[2] ** 2 / (singular**2).sum()), "That is the third one alone; rank 3 keeps the first three."),
        (lambda x: same(x, (np.linalg.svd(demo_b, compute_uv=False)[:3] ** 2).sum() / (demo_b**2).sum()), "These are the singular values of B. The update is the product B A."),
        (lambda x: same(x, np.square(demo_b[:, :3] @ demo_a[:3]).sum() / np.square(demo_b @ demo_a).sum()), "The first three rows of A are not the three largest directions."),
        (lambda x: same(x, ((singular[:3] ** 2).sum() / (singular**2).sum()) ** 0.5), "That is the share of the norm, not of its square."),
        (lambda x: not same(x, (singular[:3] ** 2).sum() / (singular**2).sum()), "Take the singular values of B A, square them, add up the first k, divide by the sum of all.")))


def kept(A, B, k):
    """Share of the squared Frobenius norm of B A that its best approximation of rank k has."""
    return None


check_kept(kept)

# %% [markdown]
# **Exercise 3** (medium, 20 minutes). Somebody fine-tuned *all* weights of a Linear: W was `old` and is now `new`. Make a LoRA adapter of it: A and B of a given rank, such that `old + alpha / rank * B @ A` is as near to `new` as
# that rank allows. (Such adapters are handed around for language models, where nobody wants to ship the weights twice.)

# %%
rng = np.random.default_rng(8)
old = rng.normal(size=(30, 40))
new = old + demo_b @ demo_a + 0.02 * rng.normal(size=(30, 40))


def best_of_rank(matrix, k):
    u, s, v = np.linalg.svd(matrix)
    return (u[:, :k] * s[:k]) @ v[:k]


def check_extract(function):
    found, best = function(old, new, 3, 6), best_of_rank(new - old, 3)
    A, B = found if isinstance(found, tuple) and len(found) == 2 else (np.zeros((3, 40)), np.zeros((30, 3)))
    update = None if found is None else 6 / 3 * B @ A if np.shape(B)[1:] == np.shape(A)[:1] else np.zeros(old.shape)
    left, least = (np.linalg.norm(old + u - new) if np.shape(u) == old.shape else 0.0 for u in (update, best))
    told(3, update, old.shape, (
        (lambda x: np.shape(A) != (3, 40), f"A should be (rank, n_in) = (3, 40), yours is {np.shape(A)}. Return A, B: both carry the rank, and no more."),
        (lambda x: same(x, 2 * best, 1e-4), "The update is twice too large: alpha / rank is multiplied to it afterwards."),
        (lambda x: same(x, 2 * best_of_rank(new, 3), 1e-4) or same(x, best_of_rank(new, 3), 1e-4), "That approximates `new`. `old` is there already: approximate what was *added*."),
        (lambda x: same(x, -best, 1e-4), "The sign: new is old plus the update."),
        (lambda x: left > 1.001 * least, f"It leaves a difference of {left:.2f} (Frobenius norm) where {least:.2f} is possible. The SVD of new - old has the answer.")))


def extract(old, new, rank, alpha):
    """A (rank, n_in) and B (n_out, rank) of the best adapter."""
    return None


check_extract(extract)

# %% [markdown]
# **Exercise 4** (hard, 20 minutes). Two methods, their sigma on the same ten splits. The study had one split. How many splits are needed until the *standard error* of the mean difference is at most half of the
# mean difference (then it is a two-sigma result), if the scatter stays what it is? Apply it to two rows of the tables, e.g. `values("miles", 89, "LoRA4")` and `values("miles", 89, "LoRA2")`.

# %%
rng = np.random.default_rng(9)
luck = 0.01 * rng.normal(size=10)                                                 # what a split has of luck, both methods have
sigma_a, sigma_b = 0.131 + luck + 0.002 * rng.normal(size=10), 0.135 + luck + 0.002 * rng.normal(size=10)


def needed(difference, scatter):
    return int(np.ceil((2 * scatter / abs(difference)) ** 2))


def check_splits(function):
    d = sigma_a - sigma_b
    apart = np.hypot(sigma_a.std(ddof=1), sigma_b.std(ddof=1))
    told(4, function(sigma_a, sigma_b), (), (
        (lambda x: same(x, needed(d.mean(), apart)), "You took the scatter of both methods apart. They share the luck of a split: take the scatter of the difference, split by split."),
        (lambda x: same(x, (2 * d.std(ddof=1) / abs(d.mean())) ** 2), "Half a split cannot be run; round up."),
        (lambda x: same(x, np.ceil((d.std(ddof=1) / abs(d.mean())) ** 2)), "That is where the standard error *equals* the difference. Asked for is half of it."),
        (lambda x: same(x, np.ceil(2 * d.std(ddof=1) / abs(d.mean()))), "The standard error falls with the root of the number of splits."),
        (lambda x: x != needed(d.mean(), d.std(ddof=1)), "standard error = scatter of the differences (with n - 1) / root of the number of splits."),
        (lambda x: function(sigma_b, sigma_a) != x, "Swap the two methods: the answer must stay the same.")))


def splits_needed(a, b):
    """Number of splits after which the mean of a - b is two standard errors from zero."""
    return None


check_splits(splits_needed)

# %% tags=["key-figures"]
print(f"first step over rank, power: {power:.2f}")
print(f"dead numbers of a naive LoRA3: {dead:,} of 147,456")
for method, (difference, low, high) in gain.items():
    print(f"simulated DESI, {name}, {method} less {starts_from[method]}, sigma: {difference:+.3f} [{low:+.3f}, {high:+.3f}] dex")
for fault in (faults[0], faults[-1]):
    for chosen, regime in ((rich, ">= -1"), (~rich, "< -1")):
        print(f"tiny, fault {fault}, [Fe/H] {regime}, mean |error|: " + ", ".join(f"{method} {e[chosen].mean():.3f}" for (f, method), e in errors.items() if f == fault) + " dex")
for target in targets:
    print(f"{TITLES[target]}, findings: " + "; ".join(f"{claim}: {verdicts[claim, target]}" for claim, *_ in CLAIMS))
for title, share in gained.items():
    print(f"{title}, LoRA2 cut to rank 1: {share:.0%} of the gain")
print(f"norms with true and shuffled labels, rank correlation: {alike:+.2f}; norm and move of the answers: {tells:+.2f}")

# %% [markdown]
# ## What was shown, and what not
#
# * LoRA is one line; off it is bitwise the pretrained network, merged it is an ordinary one. The published counts follow from the sizes of the Linears, and a count does not say that anything is trained.
# * A network that has met instruments like the new one has nothing to gain from 98 labels on simulated stars. Where something is off, labels repair it *where the labels are*.
# * Metal-poor stars can suffer from what metal-rich labels teach, even where nothing is wrong. Where all labels are off alike, they gain.
# * Which findings of the study hold on which stars stands in section 5, with intervals. Order between placements differs from set to set; the differences are of the size of the luck of a split.
# * For a single fault one singular value is enough; for real stars it is not. A map of norms looks much the same when the labels are shuffled.
# * *Not* shown: that a placement is the place of some knowledge. One that repairs a fault *can* hold the repair; the others often can, too. Nothing here tests [alpha/Fe], other surveys' real spectra, or `paper` with its 43 million weights.
#
# **Common misreadings.** "LoRA4 was best, so Gaia XP helped": change one thing at a time. "0.3 % of the weights, so it cannot overfit": 8,200 numbers and 98 labels. "The update is largest in the third layer, so iron is
# recognised there": ask the shuffled labels. "Rank 1 is enough": for this fault and so many labels. "The interval excludes zero": over splits of these stars.
#
# **Next.** 05 asks whether a foundation model is needed at all.
#
# **References.** LoRA: Hu et al. 2021, arXiv:2106.09685. The study: Zhao et al. 2025, arXiv:2507.20972; SpecCLIP: Zhao et al. 2026, arXiv:2507.01939. rsLoRA: Kalajdzievski 2023, arXiv:2312.03732. Adapters around `out_proj`: peft,
# github.com/huggingface/peft, issue 761. Best approximation of low rank: Eckart & Young 1936, Psychometrika 1, 211. Intervals over splits that share stars: Nadeau & Bengio 2003, Machine Learning 52, 239. MILES:
# Sánchez-Blázquez et al. 2006, MNRAS 371, 703; Falcón-Barroso et al. 2011, A&A 532, A95; labels Cenarro et al. 2007, MNRAS 374, 664. DESI: DESI Collaboration 2024, AJ 168, 58.

# %% [markdown] tags=["solutions"]
# ## Solutions
#
# <details><summary>Exercise 1</summary>
#
# ```python
# def largest_rank(n_in, n_out):
#     return (n_in * n_out - 1) // (n_in + n_out)
# ```
#
# On (64, 1) no rank is thrifty. LoRA2 has rank 8 there: 520 numbers for an update of 64.
#
# </details>
#
# <details><summary>Exercise 2</summary>
#
# ```python
# def kept(A, B, k):
#     s = np.linalg.svd(B @ A, compute_uv=False) ** 2
#     return s[:k].sum() / s.sum()
# ```
#
# </details>
#
# <details><summary>Exercise 3</summary>
#
# ```python
# def extract(old, new, rank, alpha):
#     u, s, v = np.linalg.svd(new - old)
#     root = np.sqrt(s[:rank] * rank / alpha)
#     return root[:, None] * v[:rank], u[:, :rank] * root
# ```
#
# </details>
#
# <details><summary>Exercise 4</summary>
#
# ```python
# def splits_needed(a, b):
#     d = np.asarray(a) - np.asarray(b)
#     return int(np.ceil((2 * d.std(ddof=1) / d.mean()) ** 2))
# ```
#
# Splits of one set of stars share these stars: more splits tell more and more surely which method is better *on them*, and nothing more about others.
#
# </details>
