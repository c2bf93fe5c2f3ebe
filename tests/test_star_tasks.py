"""The tasks of the Transformer for stars, asked of somebody who knows the answer exactly."""

import numpy as np
import pytest
import torch

from spectrakit import gaia_xp, population
from spectrakit.errors import LabelError
from spectrakit.library import load_library
from spectrakit.models.star_transformer import BP, COLOURS, PRESETS, RP, STAR_LABELS, VOCABULARY, StarCard, StarTransformer
from spectrakit.pretraining.stars import StarTable, simulate_stars
from spectrakit.stars import attention, extinction, inpainting, inputs, scores, sequences
from spectrakit.stars.oracle import Oracle
from spectrakit.stars.search import StarSearch, memory

COEFFICIENTS = (*BP, *RP)


class Linear:
    """The hidden arm's coefficients are twice the other's of the same order; 0 where that is not told."""

    def request(self, known, wanted):
        n, other = len(next(iter(known.values()))), {"b": "rp", "r": "bp"}
        value = {name: 2 * np.nan_to_num(known.get(other[name[0]] + name[2:], np.zeros(n))) for name in wanted}
        self.known = known
        return {name: (found, np.full(n, 0.5)) for name, found in value.items()}


@pytest.fixture(scope="module")
def table():
    return simulate_stars(300, seed=5)


@pytest.fixture(scope="module")
def tiny():
    model = StarTransformer(StarCard(PRESETS["tiny"], load_library("xp").sha256, 3.1, {}, {"n_stars": 1}), seed=1)
    return model.eval()


def complete(n):
    """A table that lacks nothing: star i has the value i + column / 1000."""
    value = np.arange(n)[:, None] + np.arange(len(VOCABULARY)) / 1000
    return StarTable(value, np.ones_like(value), value, np.ones(value.shape, bool))


# --- inputs


def test_the_six_published_sets():
    sizes = {name: len(names) for name, names in inputs.INPUT_SETS.items()}
    assert sizes == {"BP/RP 0-29, colours": 63, "BP/RP 0-4, colours": 13, "64 random": 113, "BP/RP 25-54": 60, "BP/RP 25-54, labels": 63, "BP/RP 0-31": 64}
    assert set(inputs.INPUT_SETS["BP/RP 0-4, colours"]) == {f"{arm}{k}" for arm in ("bp", "rp") for k in range(5)} | set(COLOURS)
    assert set(inputs.INPUT_SETS["BP/RP 25-54"]) == {f"{arm}{k}" for arm in ("bp", "rp") for k in range(25, 55)}
    assert set(inputs.INPUT_SETS["BP/RP 25-54, labels"]) - set(inputs.INPUT_SETS["BP/RP 25-54"]) == {"teff", "logg", "m_h"}


def test_inputs_are_the_table_without_its_noise(table):
    known = inputs.inputs(table, "BP/RP 25-54", np.random.default_rng(0))
    for name in ("bp25", "rp54"):
        column = VOCABULARY.index(name)
        told = np.isfinite(table.value[:, column]) & table.relevant[:, column]
        assert np.array_equal(np.isfinite(known[name]), told) and np.array_equal(known[name][told], table.value[told, column])
    assert not np.isfinite(known["rp54"]).all()                                                     # some are noise


def test_random_inputs_are_64_of_its_own_for_each_star():
    known = np.stack(list(inputs.inputs(complete(40), "64 random", np.random.default_rng(0)).values()), 1)
    there = np.isfinite(known)
    assert (there.sum(1) == 64).all() and (there[0] != there[1]).any()
    assert 0.2 < there.mean(0).min() and there.mean(0).max() < 0.9                                  # 64 of 113, all observables alike


def test_unknown_inputs_are_named():
    with pytest.raises(LabelError, match=r"No set of inputs 'BP/RP'; there are: BP/RP 0-29, colours, "):
        inputs.inputs(complete(3), "BP/RP", np.random.default_rng(0))


def test_copies_are_what_the_network_says_of_what_it_is_told(tiny):
    known = sequences.labels(teff=[4000.0, 6000.0], logg=2.0)
    with pytest.raises(LabelError, match="'teff' is known and asked for"):
        tiny.request(known, ["teff"])
    found = inputs.copies(tiny, known, ["teff"])["teff"]
    alone = tiny(tiny.context({k: v[1:] for k, v in known.items()}), tiny.requests(["teff"]))[0].item()
    assert found.shape == (2,) and found[1] == pytest.approx(alone, rel=1e-4, abs=1e-4)
    with pytest.raises(LabelError, match="'m_h' is not known, so it cannot be copied"):
        inputs.copies(tiny, known, ["m_h"])


# --- labels -> spectra, labels -> labels


def test_sequences_have_published_lines():
    dwarfs, giants = sequences.main_sequence(np.array([5000.0, 6000.0]), m_h=-0.5), sequences.giant_branch(np.array([1.65, 2.65]), ln_ebv=-1.0)
    assert np.array_equal(dwarfs["logg"], population.main_sequence(np.array([5000.0, 6000.0]), np.array([-0.5, -0.5])))
    assert giants["teff"] == pytest.approx([5200 - 882, 5200 - 441]) and (giants["ln_ebv"] == -1).all() and (dwarfs["ln_ebv"] == sequences.NO_DUST).all()
    with pytest.raises(LabelError, match=r"Labels of different length: teff \(2,\), logg \(3,\)"):
        sequences.labels(teff=np.zeros(2), logg=np.zeros(3))


def test_spectra_are_the_instrument_of_the_library():
    model, known = Oracle(), sequences.main_sequence(np.array([5000.0, 6500.0]))
    found = sequences.spectra(model, known, g=14.0)
    assert gaia_xp.load_design().magnitudes(gaia_xp.g_flux(found.g)[:, None] * found.coeff)[:, 0] == pytest.approx([14.0, 14.0], abs=1e-9)
    bluer = found.flux[1] / found.flux[0]
    assert bluer[20] > 1.5 > 1 > bluer[-20] and (found.sigma == 0).all()


def test_errors_of_spectra_are_those_of_independent_coefficients():
    class Flat:
        def request(self, known, wanted):
            return {name: (np.full(2, 0.1), np.array([1e-3, 2e-3])) for name in wanted}

    found, design = sequences.spectra(Flat(), sequences.labels(teff=[5000.0, 5000.0]), g=14.0), gaia_xp.load_design().flux
    assert found.sigma[1] == pytest.approx(gaia_xp.g_flux(found.g)[0] * 2e-3 * np.sqrt((design**2).sum(1)), rel=1e-9)


def test_absolute_spectra_dim_as_the_luminosity_says():
    model, known = Oracle(), sequences.giant_branch(np.array([2.0]))
    luminosity = model.request(known, ["g_luminosity"])["g_luminosity"][0]
    found = sequences.spectra(model, known)
    assert found.g == pytest.approx(5 * np.log10(luminosity) - 10)
    sun = sequences.spectra(model, sequences.labels(teff=5772.0, logg=4.438, m_h=0.0, ln_ebv=-7.0))
    assert sun.g[0] == pytest.approx(4.67, abs=0.15)                                                # Casagrande & VandenBerg 2018 (MNRAS 479, L102)
    with pytest.raises(LabelError, match="1 luminosities are not positive"):
        sequences.absolute_magnitude(np.array([1.0, -1.0]))


def test_grids_keep_the_order_of_their_axes():
    class Sum:
        def request(self, known, wanted):
            return {name: (known["logg"] + 10 * known["m_h"] + 100 * known["ln_ebv"], known["logg"]) for name in wanted}

    value, sigma = sequences.on_grid(Sum(), {"logg": np.arange(3.0), "m_h": np.arange(2.0)}, ["teff"], ln_ebv=1.0)["teff"]
    assert np.array_equal(value, [[100, 110], [101, 111], [102, 112]]) and np.array_equal(sigma[:, 0], [0, 1, 2])


def test_the_oracle_says_what_it_does_not_know():
    known = sequences.main_sequence(np.array([5000.0]))
    with pytest.raises(LabelError, match="tells coefficients, bp_rp and g_luminosity, not j_h"):
        Oracle().request(known, ["j_h"])
    with pytest.raises(LabelError, match="Known are teff; the oracle needs teff, logg, m_h, ln_ebv"):
        Oracle().request({"teff": known["teff"]}, ["bp0"])
    with pytest.raises(LabelError):
        Oracle().request(sequences.labels(teff=9000.0, logg=4.0, m_h=0.0, ln_ebv=-7.0), ["bp0"])


# --- inpainting


@pytest.mark.parametrize(("arm", "other"), [("bp", slice(55, 110)), ("rp", slice(0, 55))])
def test_one_arm_from_52_coefficients_of_the_other(arm, other):
    coeff, model = np.random.default_rng(0).normal(size=(4, 110)), Linear()
    found = inpainting.inpaint(model, coeff, arm)
    own = inpainting.ARMS[arm]
    assert len(model.known) == 52 and all(name.startswith(inpainting.OTHER[arm]) for name in model.known)
    assert np.array_equal(found.coeff[:, other], coeff[:, other]) and (found.sigma[:, other] == 0).all() and (found.sigma[:, own] == 0.5).all()
    assert np.allclose(found.coeff[:, own][:, :52], 2 * coeff[:, other][:, :52]) and (found.coeff[:, own][:, 52:] == 0).all()
    assert np.allclose(inpainting.in_errors(found, coeff, np.full(coeff.shape, 2.0)), (found.coeff - coeff)[:, own] / 2)


def test_noise_is_not_told_and_unknown_arms_are_named():
    told, model = np.ones((2, 110), bool), Linear()
    told[:, 57] = False
    inpainting.inpaint(model, np.ones((2, 110)), "bp", told)
    assert np.isnan(model.known["rp2"]).all() and (model.known["rp3"] == 1).all()
    with pytest.raises(LabelError, match="No arm 'BP'; expected 'bp' or 'rp'"):
        inpainting.inpaint(model, np.ones((2, 110)), "BP")


def test_noise_is_what_has_nothing_but_noise_behind_it():
    coeff = np.random.default_rng(0).normal(size=(1, 110))
    coeff[0, [0, 20, 55, 56]] = 100.0
    told = inpainting.relevant(coeff, np.ones((1, 110)))[0]
    assert told[:21].all() and not told[21:55].any() and told[55:57].all() and not told[57:].any()


@pytest.mark.parametrize("arm", ["bp", "rp"])
def test_joined_at_640_nm(arm):
    """Observed on one side, predicted on the other; the two meet where the sampled spectrum itself blends the arms."""
    coeff = Oracle().request(sequences.main_sequence(np.array([5800.0])), COEFFICIENTS)
    coeff = np.stack([coeff[name][0] for name in COEFFICIENTS], 1)
    found, observed = inpainting.inpaint(Linear(), coeff, arm), coeff @ gaia_xp.load_design().flux.T
    same = np.isclose(found.spectrum[0], observed[0], rtol=1e-9, atol=0)
    wave = gaia_xp.WAVE
    blue, red = wave < inpainting.BLEND[0], wave > inpainting.BLEND[1]
    kept, made = (red, blue) if arm == "bp" else (blue, red)
    assert same[kept].all() and not same[made].any() and np.array_equal(found.hidden, made)
    assert inpainting.BLEND[0] < inpainting.JOIN < inpainting.BLEND[1]


# --- extinction


@pytest.mark.parametrize("r_v", [2.5, 3.1, 4.0])
def test_the_curve_that_is_in_comes_out(r_v):
    found = extinction.curve(Oracle(r_v), absolute=True)
    fit = extinction.fit_rv(found)
    assert abs(fit.r_v - r_v) < 0.03 and abs(fit.r_v - r_v) < 2 * fit.sigma < 0.12 and fit.at_edge == 0, fit
    away, above = extinction.deviation(found, r_v), found.wave[found.use] > 4150
    assert np.abs(away[above]).max() < 0.04 and np.abs(away).max() < 0.08                           # what the line spread makes of cool giants at 400 nm


def test_magnitudes_and_their_normalisation():
    """In a law without slope nothing is left but A(550 nm) = A(G); of a grey one the ratio is 0."""
    class Grey:
        def request(self, known, wanted):
            n, dust = len(known["teff"]), 2.0 * np.exp(known["ln_ebv"])                              # mag
            at = Oracle().request(sequences.labels(teff=5000.0, logg=3.0, m_h=0.0, ln_ebv=-7.0), COEFFICIENTS)
            value = {name: np.full(n, at[name][0][0]) for name in COEFFICIENTS} | {"g_luminosity": 10 ** (0.2 * (4.0 + dust + 10))}
            return {name: (value[name], np.zeros(n)) for name in wanted}

    found = extinction.curve(Grey(), sequences.labels(teff=5000.0, logg=3.0, m_h=0.0), ebv=(0.5, 1.0), absolute=True)
    assert np.allclose(found.ratio, 0, atol=1e-9) and np.allclose(found.absolute[:, found.use], 2.0) and np.array_equal(found.ebv, [0.5, 1.0])


@pytest.mark.parametrize("name", extinction.LAWS)
def test_laws_are_those_of_dust_extinction(name):
    from astropy import units as u
    from dust_extinction import parameter_averages
    wave = np.array([4400.0, 5500.0, 9000.0])
    assert extinction.law(wave, 3.1, name) == pytest.approx(3.1 * getattr(parameter_averages, name)(Rv=3.1)(wave * u.AA))
    blue, visual = extinction.law(np.array([4400.0, 5500.0]), 3.1, name)
    assert blue - visual == pytest.approx(1.0, abs=0.08) and visual == pytest.approx(3.1, abs=0.08)   # E(B-V) = 1 by definition, of broad bands


def test_a_curve_of_another_law_is_told_by_its_misfit():
    wave = gaia_xp.WAVE
    ratio = extinction.law(wave, 3.1, "CCM89") - extinction.law(wave, 3.1, "CCM89")[gaia_xp.AT_550]
    found = extinction.Curve(wave, np.stack([ratio, ratio]), None, np.ones(2))
    own, other = extinction.fit_rv(found, "CCM89"), extinction.fit_rv(found, "F99")
    assert abs(own.r_v - 3.1) < 1e-3 and own.rms < 1e-4 < 0.01 < other.rms and own.sigma < 1e-3 < other.sigma


def test_extinction_refuses_what_it_cannot_mean():
    with pytest.raises(LabelError, match="ln_ebv is among the labels"):
        extinction.curve(Oracle(), sequences.giant_branch(np.array([2.0])))
    with pytest.raises(LabelError, match=r"Law 'G32' with R_V = 3.1; there are G23, F99, CCM89, for R_V from 2.3 to 5.6"):
        extinction.law(gaia_xp.WAVE, 3.1, "G32")

    class Dark(Oracle):
        def request(self, known, wanted):
            return {name: (-value, sigma) for name, (value, sigma) in super().request(known, wanted).items()}

    with pytest.raises(LabelError, match="has no light somewhere between 400 and 950 nm"):
        extinction.curve(Dark())


# --- attention, search, scores


def test_attention_is_the_last_block_and_sums_to_1(tiny):
    known = sequences.labels(teff=[4500.0, 5500.0], m_h=0.0, ln_ebv=-1.0)
    found = attention.heat_map(tiny, known, ["teff", "bp0"])
    assert found.shape == (2, 3) and found.sum(1) == pytest.approx([1, 1])
    assert np.allclose(found, tiny.attention(known, ["teff", "bp0"])[:, -1].mean((0, 1)).numpy())


def test_memory_is_the_mean_over_what_is_known(tiny):
    known = {"teff": np.array([5000.0, 5000.0]), "logg": np.array([4.0, np.nan])}
    both = memory(tiny, known)
    context = tiny.context({"teff": known["teff"][:1], "logg": known["logg"][:1]})
    assert torch.allclose(both[0], tiny.network.encode(context)[0][0].mean(0), atol=1e-5)
    assert torch.allclose(both[1], memory(tiny, {"teff": known["teff"][:1]})[0], atol=1e-5)


def test_search_learns_who_is_who_both_ways(tiny, table):
    sides = (("j_h", "j_k", "bp_rp"), ("bp0", "bp1", "bp2", "rp0", "rp1"))
    centre = np.nanmedian(table.value, 0)
    tiny.network.centre[1:], tiny.network.spread[1:] = torch.as_tensor(centre), torch.as_tensor(1.4826 * np.nanmedian(np.abs(table.value - centre), 0))
    from spectrakit.retrieval import ranks
    has = np.isfinite(table.column("bp0"))
    found = StarSearch(tiny, sides).fit(table, steps=80)
    first, second = (found.embed({k: v[has] for k, v in table.known(names).items()}, side) for side, names in enumerate(sides))
    for a, b in ((first, second), (second, first)):
        assert np.median(ranks(a, b)) < 0.15 * has.sum()                                            # chance: half


def test_scores_against_closed_forms():
    rng = np.random.default_rng(0)
    x = rng.normal(size=4000)
    own = scores.scatter(x)
    assert own == pytest.approx(1.0, abs=0.05) and scores.scatter(np.stack([x, 3 * x + 7])) == pytest.approx([own, 3 * own])
    ratio, share = scores.scatter_ratio(2 * x, x, rng, 100), scores.coverage(x, np.ones(4000), rng, 200)
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2, 2, 2)) and abs(share.value - 0.683) < 0.02
    assert share.high - share.low == pytest.approx(2 * (0.683 * 0.317 / 4000) ** 0.5, rel=0.3)
    with pytest.raises(LabelError, match="Arrays of 2, 2 stars with 1 NaN or infinite"):
        scores.scatter_ratio(np.array([1.0, np.nan]), np.zeros(2), rng)


def test_vocabulary_is_covered():
    assert set(COEFFICIENTS) | set(COLOURS) | set(STAR_LABELS) == set(VOCABULARY)
