"""The Transformer for stars: its vocabulary and counts, the table it is trained on against formulas, its questions, its answers, its files."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from spectrakit import gaia_xp, population
from spectrakit.errors import DataFileError, LabelError, MismatchError
from spectrakit.library import load_library
from spectrakit.models.shipped import ASSETS, load_model
from spectrakit.models.star_transformer import COLOURS, IDENTITY, PRESETS, UNSEEN, VOCABULARY, StarCard, StarTransformer
from spectrakit.models.tokens import PADDING, Tokens
from spectrakit.pretraining import stars as pretraining
from spectrakit.pretraining.stars import StarTokens, absolute_g, metals, pretrain_stars, simulate_stars
from spectrakit.weights import load_tensors, save_tensors

pytestmark = pytest.mark.usefixtures("single_thread")


@pytest.fixture(scope="module")
def table():
    return simulate_stars(768, seed=3)


def card(size="tiny", training=True):
    return StarCard(PRESETS[size], load_library("xp").sha256, 3.1, {}, {"steps": 0} if training else {})


@pytest.fixture(scope="module")
def model(table):
    model = StarTransformer(card(), seed=0).eval()
    centre = np.nanmedian(table.value, 0)
    model.network.centre[1:] = torch.as_tensor(centre)
    model.network.spread[1:] = torch.as_tensor(1.4826 * np.nanmedian(np.abs(table.value - centre), 0))
    return model


NAMES = ("bp0", "bp3", "rp0", "j_h", "teff")


# sizes ---------------------------------------------------------------------------------------------------------------------------------------

def test_paper_size():
    paper = card("paper")                                                                                # reads the library, not into nothing
    with torch.device("meta"):
        network = StarTransformer(paper).network
    count = lambda module: sum(p.numel() for p in module.parameters())                                   # noqa: E731
    assert count(network) == 8_845_529
    assert count(network.embedding) == 30_464
    assert count(network.encoder) == 528_640
    assert count(network.decoder) + count(network.head) + count(network.mean) + count(network.log_variance) == 8_286_425


def test_small_can_be_shipped():
    model = StarTransformer(card("small"))
    assert 4 * sum(p.numel() for p in model.parameters()) < 10e6


def test_vocabulary():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 118
    assert set(IDENTITY.values()) == set(range(1, 119))
    assert set(UNSEEN) < set(VOCABULARY)


# the table -----------------------------------------------------------------------------------------------------------------------------------

def test_metallicity_of_enhanced_stars():
    """Salaris et al. 1993: all metals alike give [Fe/H]; +0.3 dex of alpha elements adds 0.21 dex."""
    assert metals(np.array([-1.0, -1.0]), np.array([0.0, 0.3])) == pytest.approx([-1.0, -0.786], abs=2e-3)


def test_absolute_magnitude_of_the_sun():
    """4.67 mag in Gaia's G (Casagrande & VandenBerg 2018, MNRAS 479, L102); the library, which has strong lines only, lets 0.1 mag more through.
    Dust of E(B-V) = 0.1 dims by A_G = 2.6 E(B-V)."""
    sun = population.catalogue("gaia", 2, 0, load_library("xp"))
    for name, value in (("teff", 5772.0), ("logg", 4.438), ("feh", 0.0), ("alpha_fe", 0.0), ("c_fe", 0.0), ("mass", 1.0), ("r_v", 3.1)):
        sun[name] = np.full(2, value)
    sun["ebv"] = [0.0, 0.1]
    bright, dim = absolute_g(sun)
    assert bright == pytest.approx(4.67, abs=0.15)
    assert dim - bright == pytest.approx(0.26, abs=0.02)


def test_gaps_have_the_published_shares():
    gaps = pretraining._gaps(100_000, np.random.default_rng(0))
    share = lambda name: gaps[:, IDENTITY[name] - 1].mean()                                              # noqa: E731
    assert share("teff") == pytest.approx(1 - 263_808 / 396_718, abs=0.01)
    assert share("bp0") == pytest.approx(1 - 363_261 / 396_718, abs=0.01)
    assert share("g_luminosity") == pytest.approx(12_065 / 396_718, abs=0.003)
    assert share("ln_ebv") == pytest.approx(11_947 / 396_718, abs=0.003)
    assert share("j_k") == pytest.approx(2_031 / 396_718, abs=0.002)
    assert (gaps[:, IDENTITY["bp0"] - 1] == gaps[:, IDENTITY["rp54"] - 1]).all(), "spectra are missing as a whole"


def test_errors_are_those_of_the_values(table):
    for name in ("teff", "logg", "m_h", "ln_ebv", "g_luminosity"):
        deviation = (table.column(name) - table.column(name, "truth")) / table.column(name, "error")
        assert np.nanstd(deviation) == pytest.approx(1.0, abs=0.12), name
        assert abs(np.nanmean(deviation)) < 0.15


def test_dust_is_the_published_one(table):
    """ln E(B-V): median -2.41 and robust scatter 1.83 as published, but for the cut at 2 mag; the standard error of the median of 768 is 0.08."""
    ln_ebv = table.column("ln_ebv", "truth")
    assert np.median(ln_ebv) == pytest.approx(-2.408, abs=0.3)
    assert 1.4826 * np.median(np.abs(ln_ebv - np.median(ln_ebv))) == pytest.approx(1.834, abs=0.25)
    assert ln_ebv.min() > -7
    assert ln_ebv.max() < 0.7


def test_spectra_do_not_depend_on_brightness(table):
    """Coefficients over the G flux have a G of G_FLUX, whatever the star's was."""
    g = gaia_xp.load_design().magnitudes(table.truth[:, :110])[:, 0]
    assert g == pytest.approx(np.full(len(g), gaia_xp.G_FLUX), abs=1e-6)


def test_noise_is_no_context(table):
    """The first coefficients always stand out; of pure noise, next to nothing is kept."""
    assert table.relevant[:, IDENTITY["bp0"] - 1].all()
    assert table.relevant[:, IDENTITY["rp0"] - 1].all()
    noise = pretraining.relevant(np.random.default_rng(0).standard_normal((2000, 110)) + 1e3 * (np.arange(110) % 55 == 0))
    assert noise[:, 55 + 1:110].mean() < 0.05
    assert noise[:, 110:].all()
    assert np.isnan(table.known(["bp54"])["bp54"][~table.relevant[:, 54]]).all()


def test_tables_differ_by_seed_alone(table):
    again = simulate_stars(768, seed=3)
    assert np.array_equal(again.value, table.value, equal_nan=True)
    assert not np.array_equal(simulate_stars(8, seed=4).truth, simulate_stars(8, seed=5).truth)


def test_dust_of_another_shape_reddens_otherwise():
    """Same stars, same E(B-V): a larger R_V means more dust, and stars that look fainter."""
    steep, flat = (simulate_stars(64, seed=6, r_v=r_v) for r_v in (2.5, 4.0))
    dusty = steep.column("ln_ebv", "truth") > -1
    assert np.array_equal(steep.column("ln_ebv", "truth"), flat.column("ln_ebv", "truth"))
    assert (steep.column("g_luminosity", "truth") < flat.column("g_luminosity", "truth"))[dusty].all()


# questions -----------------------------------------------------------------------------------------------------------------------------------

def drawn(table, step=0, **options):
    parts = StarTokens(table, 64, 128, seed=1, **options)(step)
    return Tokens(*parts[:3]), Tokens(*parts[3:])


def test_what_is_asked_for_is_not_in_the_context(table):
    for step in range(6):
        context, requests = drawn(table, step)
        for told, asked in zip(context.identity.tolist(), requests.identity.tolist(), strict=True):
            told, asked = [i for i in told if i], [i for i in asked if i]
            assert len(set(told)) == len(told) <= 64
            assert len(set(asked)) == len(asked) <= 32
            assert not set(told) & set(asked)
            assert not {IDENTITY[name] for name in UNSEEN} & set(asked)


def test_published_questions_may_be_answered_by_the_context(table):
    context, requests = drawn(table, requested_in_context=True)
    common = [bool(set(a) & set(b) - {PADDING}) for a, b in zip(context.identity.tolist(), requests.identity.tolist(), strict=True)]
    assert np.mean(common) > 0.5


def test_tokens_hold_the_tables_numbers(table):
    context, requests = drawn(table)
    for tokens in (context, requests):
        for star in range(128):
            row = next(i for i in range(len(table.value)) if all(
                j == PADDING or np.float32(table.value[i, j - 1]) == v for j, v in zip(tokens.identity[star].tolist(), tokens.value[star].numpy(), strict=True)))
            there = tokens.identity[star] != PADDING
            columns = tokens.identity[star][there].numpy() - 1
            assert np.array_equal(tokens.error[star][there].numpy(), table.error[row, columns].astype("f4"))
            assert not tokens.value[star][~there].any()
            if star > 8:
                break


def test_every_star_has_a_context_of_its_own(table):
    for step in range(6):                                             # the same few things are told of two stars by chance, the same many rarely
        many = [tuple(row) for row in drawn(table, step)[0].identity.tolist() if np.count_nonzero(row) >= 5]
        assert len(many) > 40
        assert len(set(many)) > 115 / 128 * len(many)
    sizes = np.concatenate([(drawn(table, step)[0].identity != PADDING).sum(1).numpy() for step in range(10)])
    assert sizes.min() <= 2
    assert sizes.max() > 32


def test_questions_depend_on_the_step_alone(table):
    stream = StarTokens(table, 64, 32, seed=1)
    first = stream(5)
    stream(6)
    assert all(torch.equal(a, b) for a, b in zip(first, stream(5), strict=True))
    assert not torch.equal(first[0], stream(7)[0][:, :first[0].shape[1]])


# answers -------------------------------------------------------------------------------------------------------------------------------------

def test_answers_do_not_depend_on_what_else_is_asked(model, table):
    known = table.known(NAMES, slice(0, 20))
    together = model.request(known, ["logg", "m_h", "rp7"])
    for name, (value, sigma) in together.items():
        alone = model.request(known, [name])[name]
        assert np.allclose(alone[0], value, rtol=1e-5, atol=1e-5)
        assert np.allclose(alone[1], sigma, rtol=1e-5, atol=1e-5)
        assert (sigma > 0).all()


def test_missing_observables_are_as_if_never_given(model, table):
    known = table.known(NAMES, slice(0, 20))
    gap = {**known, "j_h": np.full(20, np.nan)}
    without = {name: value for name, value in known.items() if name != "j_h"}
    assert np.allclose(model.request(gap, ["logg"])["logg"], model.request(without, ["logg"])["logg"], rtol=1e-5, atol=1e-5)
    assert not np.allclose(model.request(known, ["logg"])["logg"], model.request(without, ["logg"])["logg"], rtol=1e-5, atol=1e-5)


def test_order_of_what_is_known_does_not_matter(model, table):
    known = table.known(NAMES, slice(0, 20))
    turned = dict(reversed(known.items()))
    assert np.allclose(model.request(known, ["logg"])["logg"], model.request(turned, ["logg"])["logg"], rtol=1e-5, atol=1e-5)


def test_one_star_and_batches(model, table):
    known = table.known(NAMES)
    value, sigma = model.request(known, ["logg"], batch=100)["logg"]
    one = model.request({name: v[5:6] for name, v in known.items()}, ["logg"])["logg"]
    assert value.shape == sigma.shape == (768,)
    assert np.allclose([value[5], sigma[5]], np.ravel(one), rtol=1e-5, atol=1e-5)
    assert model.request({name: v[:0] for name, v in known.items()}, ["logg"])["logg"][0].shape == (0,)


def test_attention_is_in_the_order_of_what_is_known(model, table):
    known = {**table.known(NAMES, slice(0, 7)), "rp0": np.full(7, np.nan)}
    maps = model.attention(known, ["logg", "m_h"])
    assert maps.shape == (7, 2, 4, 2, 5)
    assert torch.allclose(maps.sum(-1), torch.ones(7, 2, 4, 2), atol=1e-6)
    assert not maps[..., 2].any()


@pytest.mark.parametrize(("known", "wanted", "says"), [
    ({"teff": 3}, ["teff"], "'teff' is known and asked for: the answer would be a copy. Leave it out of one of the two."),
    ({"temperature": 3}, ["logg"], "No observable 'temperature'; the vocabulary is bp0-bp54, rp0-rp54, bp_rp, j_h, j_k, teff, logg, m_h, ln_ebv, g_luminosity."),
    ({"teff": 3}, ["fe_h"], "No observable 'fe_h'"),
    ({"teff": 3, "logg": 2}, ["m_h"], r"known has the shapes {'teff': \(3,\), 'logg': \(2,\)}; expected one value a star of each"),
    ({}, ["m_h"], "known has the shapes of nothing; expected one value a star of each, and at least one observable."),
    ({f"bp{i}": 3 for i in range(55)} | {f"rp{i}": 3 for i in range(10)}, ["teff"], "65 observables of a star are known; this model was trained on at most 64."),
])
def test_questions_that_make_no_sense(model, known, wanted, says):
    with pytest.raises(LabelError, match=says):
        model.request({name: np.ones(n) for name, n in known.items()}, wanted)


def test_untrained_model_gives_no_numbers():
    with pytest.raises(MismatchError, match="This model is untrained: its answers are random numbers. Use a shipped one"):
        StarTransformer(card(training=False)).request({"teff": np.ones(2)}, ["logg"])


# training and files --------------------------------------------------------------------------------------------------------------------------

def test_training_leaves_a_model_that_says_what_it_is(tmp_path):
    made = lambda: pretrain_stars("tiny", tmp_path, n_stars=256, steps=2, batch=32, lr=1e-3, seed=0, precision="no")        # noqa: E731
    model = made()
    assert model.card.training["n_stars"] == 256
    assert set(model.card.scatter) == {"teff", "logg", "m_h", "ln_ebv", "g_luminosity"}
    assert model.network.stretch[0, IDENTITY["teff"]] != 1
    again = made()
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    model.save(tmp_path / "stars.safetensors")
    loaded = StarTransformer.load(tmp_path / "stars.safetensors")
    assert json.dumps(asdict(loaded.card)) == json.dumps(asdict(model.card))
    known = {"teff": np.array([5000.0, 6000.0]), "logg": np.array([2.5, 4.2])}
    assert np.array_equal(loaded.request(known, ["bp0"])["bp0"], model.request(known, ["bp0"])["bp0"])


def test_training_can_go_on_from_a_model_in_other_dust(tmp_path):
    made = lambda name, **how: pretrain_stars("tiny", tmp_path / name, n_stars=256, steps=2, batch=32, seed=0, precision="no", **how)      # noqa: E731
    first = made("first", lr=1e-3)
    kept, other = made("kept", lr=0.0, r_v=2.5, start=first), made("other", lr=1e-3, r_v=2.5, start=first)
    same = [torch.equal(value, first.state_dict()[name]) for name, value in kept.state_dict().items() if name != "network.stretch"]
    assert all(same) and any(not torch.equal(value, first.state_dict()[name]) for name, value in other.state_dict().items() if name != "network.stretch")
    assert (kept.card.r_v, kept.card.training["start"]) == (2.5, first.card.training)


def test_files_of_another_kind_or_library(tmp_path, model):
    with pytest.raises(DataFileError, match="There is no file nothing.safetensors"):
        StarTransformer.load(tmp_path / "nothing.safetensors")
    model.save(path := tmp_path / "stars.safetensors")
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, {**meta, "kind": "foundation"})
    with pytest.raises(MismatchError, match="stars.safetensors holds 'foundation', not a Transformer for stars."):
        StarTransformer.load(path)
    other = StarTransformer(replace(model.card, library_sha256="ab" * 32))
    other.save(path)
    with pytest.raises(MismatchError, match="The model stars.safetensors was made with library abababababab"):
        StarTransformer.load(path)


def test_shipped_model_is_good_enough_and_knows_how_good():
    """4,608 held-out stars, the published inputs. Scatter below that of a tenth of the training; 68 % of the truths within one sigma."""
    assert (ASSETS / "small_stars.safetensors").stat().st_size <= 10e6
    table, model = simulate_stars(4608, seed=777), load_model("small_stars")
    names = [f"{arm}{order}" for arm in ("bp", "rp") for order in range(30)] + list(COLOURS)
    for name, (value, sigma) in model.request(table.known(names, np.isfinite(table.column("bp0"))), ["teff", "logg", "m_h", "ln_ebv"]).items():
        residual = value - table.column(name, "truth")[np.isfinite(table.column("bp0"))]
        assert 1.4826 * np.median(np.abs(residual)) < {"teff": 120, "logg": 0.3, "m_h": 0.2, "ln_ebv": 0.4}[name], name
        assert np.mean(np.abs(residual) < sigma) == pytest.approx(0.68, abs=0.08), name
