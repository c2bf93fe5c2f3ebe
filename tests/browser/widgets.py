"""The widgets of the notebooks, each with the least that it needs before it: what the tests touch and the benchmark times."""

from dataclasses import dataclass
from functools import cached_property

import jupytext

from tools import notebooks

FIRST, LAST = "sk.plots.use_style()", ("def show(", "ipywidgets.interact(")


@dataclass(frozen=True)
class Entry:
    """The widget of a notebook. The cells are the notebook's own: those that hold ``pieces``, with ``setup`` after the first."""

    notebook: str
    sliders: tuple[str, ...]            # their labels, and those of ``menus`` and tick ``boxes``
    setup: str
    menus: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    twin: tuple[str, ...] = ()          # keys that bring the first slider where the static figure, in the last cell but one, was drawn
    pieces: tuple[str, ...] = (FIRST, *LAST)

    @cached_property
    def cells(self) -> list[str]:
        code = [cell.source for cell in jupytext.read(notebooks.FOLDER / f"{self.notebook}.py").cells if cell.cell_type == "code"]
        first, *rest = [next(source for source in code if piece in source) for piece in self.pieces]
        return ['profile, device = "ci", "cpu"', first, self.setup, *rest]


GAPS = """
stars = sk.normalize(sk.simulate("lamost_lrs", n=32, seed=20, models="held_out"))
encoder, one, components = sk.load_model("small").encoder, stars.flux[:1], PrincipalComponents.fit(stars.flux, 10)


def chunks(n, n_chunks, seed):
    return SpectrumTransformer(replace(PRESETS["tiny"], n_chunks=n_chunks), seed=0).draw_chunks(n, torch.Generator().manual_seed(seed))
"""
NEIGHBOURS = """
n, row = 40, 3
pairs, model = sk.simulate_pairs(replace(LAMOST, population="gaia", snr=(50.0, 50.0)), n, seed=31), sk.load_model("small_aligned")
z = {"lrs": model.embed(pairs.lrs), "xp": model.embed(pairs.xp)}
true = {label: pairs.xp.label(label) for label in ("teff", "feh", "ebv")}
teff, ebv, found = true["teff"], true["ebv"], {"LRS finds XP": ranks(z["lrs"], z["xp"])}
"""
EXPLORER = """
n, lines, encoder = 3, load_lines(wave[0], wave[-1]), sk.load_model("small").encoder
six = sk.normalize(sk.simulate("lamost_lrs", 2 * n, seed=60))
groups = {"giants": six[:n], "dwarfs": six[n:]}
own = {name: np.abs(sensitivity(stars))[:, :4] for name, stars in groups.items()}
maps = {name: attention_maps(encoder, torch.as_tensor(stars.flux, dtype=torch.float32)) for name, stars in groups.items()}


def spread(x):
    return to_pixels(x, encoder.pixels, wave.size).double().numpy()
"""
OBJECTIONS = """
from spectrakit.witnesses import library_spectra, measure

networks = {name: sk.load_model(name) for name in ("small", "small_flux")}
witnesses, limit = (*networks, "physical"), 11.5
stars = sk.normalize(sk.simulate(replace(get_survey("lamost_lrs"), snr=(300.0, 300.0)), 6, seed=70))
spectrum, groups = stars[0], {name: stars[k:k + 1] for k, name in enumerate(("hot stars", "M stars", "galaxies", "noise"), 2)}
found = {name: ({"snr": [300.0]}, {}) for name in groups}
"""
START = """
n = 24
spectra, model = sk.normalize(sk.simulate("miles", n, seed=7)), sk.load_model("small")
feh, zero, rows = spectra.label("feh"), model.predict(spectra, "feh")[0], [0, 5]
"""
KNOBS = """
sun, poor = np.array([[5777.0, 4.44, 0.0, 0.0, 0.0]]), np.array([[5777.0, 4.44, -2.0, 0.4, 0.0]])
labels = dict(zip(("teff", "logg", "feh", "alpha_fe", "c_fe"), sun.T, strict=True))
"""
INSTRUMENTS = """
n = 4
labels = population.draw("desi_x_apogee", 40, np.random.default_rng(80), load_library("hband"))
labels = labels[load_library("optical").contains(torch.as_tensor(labels)).numpy()][:n]
names = {"APOGEE": "apogee", "LAMOST": "lamost_lrs", "DESI": "desi"}
seen = {title: model.prepare(sk.simulate(survey, n, seed=81 + k, labels=labels)) for k, (title, survey) in enumerate(names.items())}
looks = dict(zip(names, ((sk.plots.RED, "o"), (sk.plots.BLUE, "s"), (sk.plots.GREEN, "^")), strict=True))
truth = {name: labels[:, k] for k, name in enumerate(LABELS)}
spread = dict(zip(LABELS, (600.0, 1.0, 0.4, 0.1, 0.15), strict=True))
"""
STRATEGIES = """
real = sk.normalize(sk.simulate("miles", n=24, seed=5))
feh, regimes = real.label("feh"), {"all": (-9, 9), ">= -1": (-1, 9), "< -1": (-9, -1)}
splits = sk.experiments.splits(np.asarray(real.labels["star"]), n_train=6, n_valid=2, n_splits=1, seed=0)
truth, rng = feh[splits[0].test], np.random.default_rng(0)
live = [{f"{what}: zero-shot": truth + 0.1 * rng.standard_normal(len(truth)) for what in ("flux", "embedding")}]
sigma = lambda residual: biweight_scale(residual, c=sk.metrics.CUT)
"""
FEW_METALS = """
edges, counts, snrs, n_bin, rng = (-2.5, -1.0, 0.4), (2, 13), (15.0, 40.0), 5, np.random.default_rng(0)
feh = np.linspace(-2.4, 0.3, 2 * n_bin)
cells = np.stack([0 * feh + 5777, 0 * feh + 4.44, feh, 0 * feh, 0 * feh], 1)
answers = {(way, n, snr): feh + 0.1 * rng.standard_normal(len(feh)) for way in ("zero-shot", "recipe", "LoRA2") for n in counts for snr in snrs}
"""


@dataclass(frozen=True)
class Written:
    """A widget of the package, with cells of its own."""

    sliders: tuple[str, ...]
    cells: list[str]
    menus: tuple[str, ...] = ()
    boxes: tuple[str, ...] = ()
    twin: tuple[str, ...] = ()


def lora_lab(size: str, n_test: int, sliders: tuple[str, ...], off: tuple[str, ...] = ()) -> Written:
    """The LoRA lab on models of this size, its figure by ``lora_figure`` in the cell before; the placements ``off`` are not ticked."""
    return Written(sliders, [f"""
import spectrakit as sk
from IPython.display import Image
from spectrakit.widgets.lora_figure import png

stars = sk.normalize(sk.simulate("miles", n={n_test + 30}, seed=5))
train, test, how = stars[:30], stars[30:], {{"label": "feh", "seed": 0, "steps": 15}}
fits = {{"spectrum": sk.adapt(sk.load_model("{size}"), train[:20], placement=("lora1", "lora2"), **how),
        "aligned": sk.adapt(sk.load_model("{size}_aligned"), train[:20], placement=("lora3", "lora4"), **how)}}
""", f"""Image(png(sk.widgets.lora_figure(fits["spectrum"], test, on=[p for p in ("lora1", "lora2") if p not in {off}])))""", f"""
lab = sk.widgets.LoraLab(fits, test, train)
for name in {off}:
    lab.rows[name].box.value = False
lab"""])


WIDGETS = {
    "noise": Entry("00_start_here", ("star", "S/N"), START, pieces=(FIRST, "def with_noise(", *LAST)),
    "knobs": Entry("01_spectra_and_surveys", ("km/s", "dust [%]", "FWHM x"), KNOBS, menus=("survey",),
                   pieces=(FIRST, "perfect = replace(", "def continuum_by_hand(", "def behind(", "def turned(", *LAST)),
    "gaps": Entry("02_masked_pretraining", ("gaps",), GAPS, twin=("End",)),
    "explorer": Entry("06_attention_physics", ("star", "layer"), EXPLORER, menus=("line", "label")),
    "neighbours": Entry("03_contrastive_alignment", ("star", "neighbours"), NEIGHBOURS),
    "instruments": Entry("08_cross_instrument", ("star", "piece"), INSTRUMENTS, menus=("instrument",)),
    "requests": Entry("09_any_to_any", ("star",), "stars = simulate_stars(120, seed=9009)\ntest = np.flatnonzero(np.isfinite(stars.value).all(1))[:40]",
                      menus=("wanted",), boxes=("BP", "RP", "colours", "teff", "m_h", "ln_ebv", "g_luminosity")),
    "strategies": Entry("05_do_we_need_a_foundation_model", (), STRATEGIES, menus=("a", "b", "regime")),
    "few metals": Entry("07_metal_poor_stars", (), FEW_METALS, menus=("labels", "snr", "remedy")),
    "objections": Entry("10_bring_your_own", ("star", "S/N"), OBJECTIONS),
    "lora": lora_lab("tiny", 40, ("LoRA2 rank",)),
}
