"""The embedded library: gradients against differences, interpolation against scipy, physics against textbooks, and a hull that holds."""

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

import spectrakit
from spectrakit import population
from spectrakit.errors import DataFileError, LabelError, MismatchError
from spectrakit.library import CENTRE, LABELS, SCALE, Library, load_library

ASSET = Path(str(files("spectrakit") / "assets" / "library_optical.safetensors"))
LIBRARY = load_library()
SUN = [5777.0, 4.44, 0.0, 0.0, 0.0]
GIANT = [4600.0, 2.3, -0.5, 0.15, 0.0]
HALO = [5800.0, 4.2, -2.0, 0.3, 0.0]
STARS = {"sun": SUN, "giant": GIANT, "halo": HALO}
STAR = pytest.mark.parametrize("labels", STARS.values(), ids=STARS)
POOL = population.draw("training", 3000, np.random.default_rng(0), LIBRARY)
inside = st.integers(0, len(POOL) - 1).map(lambda i: POOL[i])
anywhere = st.tuples(st.floats(2500, 9500), st.floats(-1, 7), st.floats(-7, 2), st.floats(-1.5, 1.5), st.floats(-2, 2))


def tensor(*rows):
    return torch.tensor(np.array(rows), dtype=torch.float64)


def flux(labels, **changes):
    values = dict(zip(LABELS, labels, strict=True)) | changes
    return LIBRARY.flux(tensor(list(values.values())))[0].numpy().astype("f8")


def depth(labels, low, high, **changes):
    """Mean depth between two vacuum wavelengths."""
    wave = LIBRARY.wave.numpy()
    return 1 - flux(labels, **changes)[(wave > low) & (wave < high)].mean()


def printed(message):
    """The labels that an error calls allowed."""
    return [float(number) for number in re.findall(r"= ([+-]?[0-9.]+[0-9])", message.split("nearest allowed labels are")[1])]


# the interpolation ---------------------------------------------------------------------------------------------------------------------------

def test_interpolation_is_the_thin_plate_spline_through_the_nodes():
    """The weights in the file solve the interpolation system of r^4 ln r plus a quadratic (in 64 bits, here), and the torch code evaluates it."""
    raw = {k: v.astype("f8") for k, v in load(ASSET.read_bytes()).items()}
    nodes, values, count = raw["nodes"], {}, len(raw["nodes"])
    powers = [(i, j) for i in range(5) for j in range(i, 5)]
    quadratic = lambda x: np.stack([np.ones(len(x)), *x.T, *(x[:, i] * x[:, j] for i, j in powers)], 1)               # noqa: E731
    thin_plate = lambda x: (lambda r: np.where(r > 0, r**4 * np.log(np.maximum(r, 1e-30)), 0))(cdist(x, nodes))         # noqa: E731
    system = np.block([[thin_plate(nodes), quadratic(nodes)], [quadratic(nodes).T, np.zeros((21, 21))]])
    x = (np.stack([5040 / POOL[:60, 0], *POOL[:60, 1:].T], 1) - CENTRE) / SCALE
    for name in ("flux", "cont"):
        at_nodes = thin_plate(nodes) @ raw[f"{name}_radial"] + quadratic(nodes) @ raw[f"{name}_polynomial"]
        weights = np.linalg.solve(system, np.concatenate([at_nodes, np.zeros((21, at_nodes.shape[1]))]))
        components = raw[f"{name}_components"] * raw[f"{name}_step"][:, None]
        values[name] = raw[f"{name}_mean"] + (thin_plate(x) @ weights[:count] + quadratic(x) @ weights[count:]) @ components
    np.testing.assert_allclose(LIBRARY.flux(tensor(*POOL[:60])).numpy(), np.exp(-values["flux"] ** 2), atol=5e-4)
    knots = 10 ** values["cont"]
    expected = [np.interp(LIBRARY.wave.numpy(), raw["cont_wave"], row) for row in knots]
    np.testing.assert_allclose(LIBRARY.continuum(tensor(*POOL[:60])).numpy(), expected, rtol=2e-4)


@STAR
@pytest.mark.parametrize("what", ["flux_unchecked", "continuum"])
def test_gradient_is_the_finite_difference(labels, what):
    """Differences in float64, where they do not drown in rounding; the gradient as it is used, in float32. Means over 20 pieces of the spectrum."""
    double = replace(LIBRARY, tensors={k: v.double() for k, v in LIBRARY.tensors.items()})
    pieces = lambda library, x: torch.stack([part.mean() for part in getattr(library, what)(x)[0].chunk(20)])       # noqa: E731
    jacobian = torch.autograd.functional.jacobian(lambda x: pieces(LIBRARY, x), tensor(labels))[:, 0].numpy()
    for k, step in enumerate([5.0, 0.01, 0.01, 0.01, 0.01]):
        up, down = tensor(labels), tensor(labels)
        up[0, k] += step
        down[0, k] -= step
        difference = ((pieces(double, up) - pieces(double, down)) / (2 * step)).numpy()
        np.testing.assert_allclose(jacobian[:, k], difference, atol=0.01 * np.abs(difference).max(), err_msg=LABELS[k])
        assert np.abs(difference).max() > 0


def test_gradient_at_a_node_is_finite():
    """The derivative of a distance is 0 / 0 there, unless it is written with care."""
    node = LIBRARY.tensors["nodes"][7] * torch.tensor(SCALE) + torch.tensor(CENTRE)
    node[0] = 5040 / node[0]
    labels = node[None].clone().requires_grad_()
    LIBRARY.flux_unchecked(labels).sum().backward()
    assert torch.isfinite(labels.grad).all()


def test_stars_do_not_see_each_other_and_flux_is_a_fraction():
    together = LIBRARY.flux(tensor(*POOL[:40]))
    alone = torch.cat([LIBRARY.flux(tensor(row)) for row in POOL[:40]])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    every = LIBRARY.flux(tensor(*POOL[:1000]))
    assert ((every > 0) & (every <= 1)).all()
    assert (LIBRARY.continuum(tensor(*POOL[:1000])) > 0).all()


def test_sixteen_bits_a_component_change_the_flux_by_less_than_a_ten_thousandth():
    """Another rounding of the stored integers (up to half a step, what rounding lost) is invisible; the components are still orthonormal."""
    raw = load(ASSET.read_bytes())
    assert raw["flux_components"].dtype == np.int16
    components = raw["flux_components"] * raw["flux_step"][:, None].astype("f8")
    np.testing.assert_allclose(components @ components.T, np.eye(len(components)), atol=2e-4)
    lost = np.random.default_rng(0).uniform(-0.5, 0.5, components.shape) * raw["flux_step"][:, None]
    shaken = {**LIBRARY.tensors, "flux_components": torch.as_tensor(components + lost, dtype=torch.float32)}
    other = Library(LIBRARY.wave, LIBRARY.resolution, LIBRARY.sha256, LIBRARY.hull, LIBRARY.box, LIBRARY.c_over_alpha, shaken)
    assert (other.flux(tensor(*POOL[:500])) - LIBRARY.flux(tensor(*POOL[:500]))).abs().max() < 3e-4


# the physics ---------------------------------------------------------------------------------------------------------------------------------

@STAR
def test_more_metals_deepen_the_spectrum(labels):
    total = [depth(labels, 3960, 5640, feh=feh) for feh in np.arange(-3.0, 0.3, 0.25)]
    assert (np.diff(total) > 0).all()


@pytest.mark.parametrize(("label", "low", "high", "line", "star", "values"), [
    ("alpha_fe", 5164, 5188, "Mg b", GIANT, (-0.1, 0.1, 0.3, 0.5)),
    ("c_fe", 4295, 4316, "CH, the G band", [5000.0, 3.0, -1.5, 0.4, 0.0], (-0.4, -0.1, 0.2, 0.5)),
    ("teff", 4858, 4867, "H beta", [6000.0, 4.2, -1.5, 0.3, 0.0], (5600, 6000, 6400)),
    ("logg", 5164, 5188, "Mg b, pressure broadened", [4800.0, 4.5, -0.5, 0.15, 0.0], (3.0, 3.6, 4.2, 4.7)),
])
def test_lines_answer_to_the_label_that_makes_them(label, low, high, line, star, values):
    here = [depth(star, low, high, **{label: float(value)}) for value in values]
    assert (np.diff(here) > 0.002).all(), f"{line} against {label}: {here}"


def test_iron_weakens_with_temperature():
    assert (np.diff([depth(SUN, 5268, 5275, teff=teff) for teff in (5000.0, 5500.0, 6000.0)]) < -0.01).all()


@pytest.mark.parametrize(("star", "vacuum", "line"), [(HALO, 4862.69, "H beta"), (HALO, 4341.69, "H gamma"), (SUN, 5185.05, "Mg b1"), (SUN, 5174.13, "Mg b2"),
                                                      (HALO, 4227.92, "Ca I 4226.73 in air")])
def test_lines_stand_at_their_vacuum_wavelengths(star, vacuum, line):
    """An air wavelength would be off by 1.2-1.5 A, three pixels."""
    wave, near = LIBRARY.wave.numpy(), np.abs(LIBRARY.wave.numpy() - vacuum) < 3
    assert abs(wave[near][flux(star)[near].argmin()] - vacuum) < 0.45, line


@STAR
def test_continuum_is_a_photospheres(labels):
    """Near the Planck function at the effective temperature (pi B, erg / cm2 / s / A), above it in the blue, where lines take it away again."""
    wave = LIBRARY.wave.numpy() * 1e-8
    planck = np.pi * 2 * 6.62607e-27 * 2.99792e10**2 / wave**5 / np.expm1(6.62607e-27 * 2.99792e10 / (wave * 1.38065e-16 * labels[0])) * 1e-8
    continuum = LIBRARY.continuum(tensor(labels))[0].numpy()
    ratio = continuum / planck
    assert 0.9 < ratio[-1] < 1.3
    assert ratio[-1] < ratio[0] < 2
    hotter = LIBRARY.continuum(tensor([labels[0] + 200, *labels[1:]]))[0].numpy()
    assert (hotter > continuum).all()


# the hull ------------------------------------------------------------------------------------------------------------------------------------

@settings(max_examples=60)
@given(inside, inside, st.floats(0, 1))
def test_between_allowed_labels_all_labels_are_allowed(a, b, t):
    assert LIBRARY.contains(tensor(t * a + (1 - t) * b))[0]


@settings(max_examples=60)
@given(anywhere)
def test_hull_is_the_walls_of_the_file(labels):
    """Each wall on its own, in numpy; labels on the very border are not asked for."""
    raw = load(ASSET.read_bytes())
    walls = [*(raw["hull"][:, :3] @ np.array([labels[0] / 1000, *labels[1:3]]) + raw["hull"][:, 3]), labels[4] - labels[3] - 0.15]
    for value, (low, high) in zip(labels, raw["box"].astype("f8"), strict=True):
        walls += [(low - value) / (high - low), (value - high) / (high - low)]
    assume(abs(max(walls)) > 1e-4)
    assert bool(LIBRARY.contains(tensor(labels))[0]) == (max(walls) < 0)


def test_hull_holds_every_computed_model_and_no_carbon_star():
    nodes = LIBRARY.tensors["nodes"] * torch.tensor(SCALE) + torch.tensor(CENTRE)
    nodes[:, 0] = 5040 / nodes[:, 0]
    assert (LIBRARY.excess(nodes) < 0.02).float().mean() > 0.9
    carbon = tensor([5000, 3.0, -1.0, 0.1, 0.26], [5000, 3.0, -1.0, 0.1, 0.24])
    assert LIBRARY.contains(carbon).tolist() == [False, True]


@pytest.mark.parametrize(("changes", "says"), [
    ({"teff": 7600.0}, "Star 1 has teff = 7600 K, logg = .4.44, feh = .0.00"),
    ({"teff": 3500.0}, "teff = 3500 K"), ({"logg": 0.2}, "logg = .0.20"), ({"feh": 0.9}, "feh = .0.90"), ({"feh": -5.0}, "feh = -5.00"),
    ({"alpha_fe": 1.1}, "alpha_fe = .1.10"), ({"c_fe": -1.0}, "c_fe = -1.00"), ({"c_fe": 0.4}, "c_fe = .0.40"),
])
def test_labels_outside_are_refused_and_the_named_ones_accepted(changes, says):
    bad = list((dict(zip(LABELS, SUN, strict=True)) | changes).values())
    for method in (LIBRARY.flux, LIBRARY.continuum, LIBRARY.check):
        with pytest.raises(LabelError, match=rf"1 of 3 stars lie outside the library. .*{says}.*; the nearest allowed labels are teff = ") as caught:
            method(tensor(SUN, bad, SUN))
    allowed = printed(str(caught.value))
    assert LIBRARY.flux(tensor(allowed)).shape == (1, len(LIBRARY.wave))
    name = next(iter(changes))
    moved = {key: abs(a - b) for key, a, b in zip(LABELS, bad, allowed, strict=True)}
    assert moved[name] > 0


def test_outside_only_by_carbon_keeps_the_other_labels():
    with pytest.raises(LabelError) as caught:
        LIBRARY.check(tensor([5777, 4.4, 0.0, 0.0, 0.55]))
    teff, logg, feh, alpha_fe, c_fe = printed(str(caught.value))
    assert (teff, logg, feh) == (5777, 4.4, 0.0)
    assert alpha_fe == pytest.approx(0.2, abs=0.02)      # half the way in each of the two, by symmetry
    assert c_fe == pytest.approx(0.35, abs=0.02)


@settings(max_examples=80)
@given(anywhere)
def test_nearest_labels_are_allowed_as_printed_and_none_is_nearer(labels):
    outside = tensor(labels)
    assume(LIBRARY.excess(outside)[0] > 1e-5)
    with pytest.raises(LabelError) as caught:
        LIBRARY.check(outside)
    assert LIBRARY.contains(tensor(printed(str(caught.value))))[0]
    nearest, unit = LIBRARY.nearest(outside[0]).numpy(), np.array([1000, 1, 1, 0.5, 0.5])
    distance = np.linalg.norm((nearest - labels) / unit)
    others = np.linalg.norm((POOL - labels) / unit, axis=1)
    assert distance <= others.min() + 0.05               # it stays 0.011 inside slanted walls
    np.testing.assert_allclose(LIBRARY.nearest(tensor(nearest)[0]).numpy() / unit, nearest / unit, atol=1e-3)


def test_nearest_labels_are_what_a_general_optimiser_finds():
    """Sequential least squares from several starts, the best of them that is allowed; where it fails, it is no referee."""
    unit, rng = np.array([1000, 1, 1, 0.5, 0.5]), np.random.default_rng(0)
    hull, (low, high) = LIBRARY.hull.double().numpy(), LIBRARY.box.double().numpy().T / unit
    room = lambda x: -np.append(hull[:, :3] @ x[:3] + hull[:, 3], (x[4] - x[3]) / 2 - LIBRARY.c_over_alpha) - 0.011          # noqa: E731
    for _ in range(40):
        x0 = rng.uniform([2500, -1, -7, -1.5, -2], [9500, 7, 2, 1.5, 2]) / unit
        runs = (minimize(lambda x, x0=x0: ((x - x0) ** 2).sum(), np.clip(start / unit, low, high), bounds=list(zip(low, high, strict=True)), method="SLSQP",
                         constraints=[{"type": "ineq", "fun": room}]) for start in (x0 * unit, SUN, GIANT))
        best = min((run for run in runs if run.success), key=lambda run: run.fun)
        np.testing.assert_allclose(LIBRARY.nearest(torch.as_tensor(x0 * unit)).numpy() / unit, best.x, atol=2e-3)


@pytest.mark.parametrize(("library", "teff", "says"), [
    (LIBRARY, np.nan, "A label is NaN or infinite; no allowed labels are nearest to it."),
    (LIBRARY, 5.777e12, "No allowed labels were found near teff = 5777000000000 K, .*; expected K and dex. Check the units"),
    (replace(LIBRARY, box=LIBRARY.box.flip(1)), 5777.0, "No allowed labels were found near teff = 5777 K"),
], ids=["no number", "far away", "no inside"])
def test_nearest_labels_that_cannot_be_found_are_no_labels(library, teff, says):
    with pytest.raises(LabelError, match=says):
        library.nearest(tensor([teff, *SUN[1:]])[0])


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", range(5))
def test_labels_that_are_no_number_are_refused(junk, column):
    labels = tensor(SUN, SUN)
    labels[1, column] = junk
    with pytest.raises(LabelError, match="A label is NaN or infinite; the library needs finite teff, logg, feh, alpha_fe, c_fe."):
        LIBRARY.flux(labels)


# the file ------------------------------------------------------------------------------------------------------------------------------------

def test_another_library_is_refused_by_name():
    LIBRARY.require(LIBRARY.sha256, "The model tiny")
    with pytest.raises(MismatchError, match=f"The model tiny was made with library 000000000000, the one installed is {LIBRARY.sha256[:12]}: its labels would"):
        LIBRARY.require(64 * "0", "The model tiny")


def test_truncated_library_is_refused(tmp_path):
    path = tmp_path / "library.safetensors"
    path.write_bytes(ASSET.read_bytes()[:-1])
    with pytest.raises(DataFileError, match="library.safetensors cannot be read .* truncated"):
        Library.load(path)


def test_library_is_small_even_and_wide_enough():
    assert ASSET.stat().st_size <= 5_000_000 and load_library() is load_library()
    wave = LIBRARY.wave.numpy()
    np.testing.assert_allclose(np.diff(np.log(wave)), 1e-4, rtol=1e-9)
    assert wave[0] < 3955 < 5645 < wave[-1]
    assert re.fullmatch("[0-9a-f]{64}", LIBRARY.sha256)


def test_no_pickle_in_assets_nor_in_the_code_that_reads_them():
    package = Path(spectrakit.__file__).parent
    for path in (package / "assets").iterdir():
        assert path.suffix == ".safetensors", path.name
        load(path.read_bytes())
    for path in package.rglob("*.py"):
        text = path.read_text()
        if path.name == "released.py":                                # other people's checkpoints: tensors only, and pickle for the name of an error
            text = re.sub(r"torch\.load\([^)]*weights_only=True|^import pickle$|pickle\.UnpicklingError", "", text, flags=re.M)
        assert not re.search(r"torch\.load\(|pickle\.|import pickle|allow_pickle=True|joblib", text), path.name
