"""Real Gaia XP spectra through the narrow middle of the autoencoder, against as many principal components.

    SPECTRAKIT_DATA=FOLDER python benchmarks/xp_reconstruction.py [--model small_aligned]

Sources with errors, 5 splits: 500 test sources, 150 to stop by, the others to learn from, without any label. Four ways: autoencoder as pretrained on simulated
stars; the same after a short adaptation; principal components of simulated stars; of the real ones. Error of the restored flux over flux at 550 nm: in units of the
published error (root mean square over points, median over sources), and over the flux (median over points and sources).
"""

import argparse
from copy import deepcopy

import numpy as np
import torch
from sklearn.decomposition import PCA

import spectrakit as sk
from spectrakit.pairs import simulate_pairs

STEPS, BATCH, LR, PATIENCE = 3000, 128, 3e-4, 6


def real_sources():
    stars = sk.read("gaia_xp")
    stars = stars[(~stars.mask).all(1) & (stars.ivar > 0).all(1)]
    stars = stars[stars.flux[:, 107] > 0]
    return sk.normalize(stars, "550nm")


def adapt(network, learn, stop, seed):
    """A copy trained on without labels; the step with the least loss on the sources kept to stop by."""
    network, generator = deepcopy(network), torch.Generator().manual_seed(seed)
    optimizer, best, since = torch.optim.AdamW(network.parameters(), lr=LR, weight_decay=0.01), (np.inf, None), 0
    for step in range(STEPS):
        loss = network(learn[torch.randint(len(learn), (BATCH,), generator=generator)])["restore"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 100 == 99:
            with torch.no_grad():
                value = float(network(stop)["restore"])
            best, since = ((value, deepcopy(network.state_dict())), 0) if value < best[0] else (best, since + 1)
            if since == PATIENCE:
                break
    network.load_state_dict(best[1])
    return network, step + 1


def components(learn, test, k):
    pca = PCA(k).fit(learn)
    return pca.inverse_transform(pca.transform(test))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="small_aligned")
    name = parser.parse_args().model
    stars, network = real_sources(), sk.load_model(name).alignment.xp.requires_grad_(True)
    k, flux = network.config.d_latent, torch.as_tensor(stars.flux, dtype=torch.float32)
    simulated = simulate_pairs("pretraining", 8000, seed=40_001).tensors()[1].numpy()
    found = {}
    for split in range(5):
        order = np.random.default_rng(split).permutation(len(stars))
        test, stop, learn = order[:500], order[500:650], order[650:]
        adapted, steps = adapt(network, flux[learn], flux[stop], split)
        with torch.no_grad():
            ways = {"autoencoder, simulated stars": network.reconstruct(flux[test]).numpy(), "autoencoder, adapted": adapted.reconstruct(flux[test]).numpy()}
        ways["PCA of simulated stars"] = components(simulated, stars.flux[test], k)
        ways["PCA of real sources"] = components(stars.flux[learn], stars.flux[test], k)
        for way, restored in ways.items():
            error = restored - stars.flux[test]
            in_sigma = np.median(np.sqrt((error**2 * stars.ivar[test]).mean(1)))
            relative = np.median(np.abs(error) / np.maximum(np.abs(stars.flux[test]), 0.05))
            found.setdefault(way, []).append((in_sigma, 100 * relative, np.sqrt((error**2).mean())))
        print(f"split {split}: {len(learn)} sources to learn from, {steps} steps", flush=True)
    print(f"{k} numbers a source; mean and scatter over 5 splits, {len(stars)} sources")
    print(f"{'':32s}{'rms in sigma, median':>26s}{'|error| / flux, median %':>26s}{'rms, all sources':>26s}")
    for way, rows in found.items():
        mean, scatter = np.mean(rows, 0), np.std(rows, 0, ddof=1)
        print(f"{way:32s}" + "".join(f"{m:18.3f} +- {s:.3f}" for m, s in zip(mean, scatter, strict=True)))
