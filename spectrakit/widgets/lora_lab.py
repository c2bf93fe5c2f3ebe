"""The LoRA lab: adapters ticked, lowered in rank and weakened by hand, and trained where one looks."""

from __future__ import annotations

import html
import json
from base64 import b64encode
from threading import Event, RLock, Thread

import ipywidgets as w
from matplotlib.figure import Figure

from ..adaptation.fit import Fit, adapt
from ..adaptation.members import N_MEMBERS
from ..adaptation.placements import PLACEMENTS
from ..errors import LabelError, MismatchError
from ..spectra import SpectraSet
from .lora_controls import Row, Trainer, places, small
from .lora_figure import DPI, SIZE, Panels, in_words, look, lora_figure, png

STEPS = 150                                                                      # what ``adapt`` takes when it is not told


class Stopped(Exception):
    """Raised in ``adapt`` by the button."""


class LoraLab(w.VBox):
    """Tick adapters of a fit, slide their ranks and strength, and see what they do to stars they were not trained on; train new ones on the spot.

    Every position of the switches is one call of ``Fit.predict``, which is shown (``code``) and gives the same numbers in a script.

    Parameters
    ----------
    fits : name -> fit, all of one label: ``{"spectrum": fit}`` with LoRA1 and LoRA2, ``"aligned"`` with LoRA1, LoRA3 and LoRA4, or any others.
        "Train here" replaces the fit that is looked at, in this very dict.
    test : stars with the fits' label and [Fe/H]. Where LoRA1 acts the encoder reads every star once a member: take about 100.
    train : stars of which "Train here" takes the first ones.
    seed, steps : of ``adapt`` when it trains here.

    Attributes
    ----------
    name, fit, switches : what is looked at: the name of the fit, the fit, and ``on``, ``rank`` and ``strength`` of its ``predict``.
    training : the thread of the last training, None before the first.

    Raises
    ------
    MismatchError
        No fits, fits of different labels, or one without adapters.
    LabelError
        Stars without a label, or fewer than 10 to train on.
    """

    def __init__(self, fits: dict[str, Fit], test: SpectraSet, train: SpectraSet | None = None, *, seed: int = 0, steps: int = STEPS):
        label = _common_label(fits)
        if train is not None and len(train) < 2 * N_MEMBERS:
            raise LabelError(f"{len(train)} training stars; at least {2 * N_MEMBERS} are needed to train here. Without train the lab only looks.")
        self.fits, self.test, self.train, self.seed, self.steps = fits, test, train, seed, steps
        self.training, self._panels, self._drawn, self._made = None, Panels(label), {}, {}
        self._lock, self._stop, self._muted = RLock(), Event(), True
        self.which = w.Dropdown(options=list(fits), description="fit", layout=w.Layout(width="300px"))
        self.rows = {name: Row(name) for name in dict.fromkeys([*PLACEMENTS, *(p.name for fit in fits.values() for p in fit.placements)])}
        self.strength = w.FloatSlider(1.0, min=0.0, max=1.5, step=0.05, description="strength", readout_format=".2f", style={"description_width": "174px"},
                                      layout=w.Layout(width="424px", flex="0 0 auto"))
        self.strength_note, self.line, self.picture, self.trainer = w.HTML(), w.HTML(), w.HTML(), Trainer(train)
        for control in (self.strength, *(c for row in self.rows.values() for c in (row.box, row.rank))):
            control.observe(self._show, "value")
        self.which.observe(self._look_at, "value")
        self.trainer.start.on_click(self._train)
        self.trainer.stop.on_click(lambda _: self._stop.set())
        super().__init__([self.which, *(row.line for row in self.rows.values()), w.HBox([self.strength, self.strength_note]), self.line, self.picture,
                          *self.trainer.lines])
        self._look_at()

    @property
    def name(self) -> str:
        return self.which.value

    @property
    def fit(self) -> Fit:
        return self.fits[self.name]

    @property
    def switches(self) -> dict:
        on = tuple(p.name for p in self.fit.placements if self.rows[p.name].box.value)
        lowered = {name: self.rows[name].rank.value for name in on if self.rows[name].rank.value < self.rows[name].rank.max}
        return {"on": on, "rank": lowered, "strength": self.strength.value if on else 1.0}

    @property
    def code(self) -> str:
        """What gives the numbers shown in a script where ``fits``, ``test`` and ``train`` are what the lab was given; begins with the training done here."""
        on, rank, strength = self.switches.values()
        more = (f", rank={_python(rank)}" if rank else "") + (f", strength={strength:g}" if strength != 1 else "")
        return f"{self._made.get(self.name, '')}value, sigma = fits[{_python(self.name)}].predict(test, on={_python(on)}{more})"

    def static(self) -> Figure:
        """The figure that is shown, drawn by ``lora_figure``."""
        with self._lock:
            return lora_figure(self.fit, self.test, **self.switches)

    def _look_at(self, _=None) -> None:
        """Another fit: all it has is ticked, as trained."""
        with self._lock:
            self._muted = True                                                   # one figure, not one for every control that is set
            try:
                status, no_place = self.fit.status(), places(self.fit)
                for name, row in self.rows.items():
                    row.hold(self.fit, status, no_place.get(name, ""), self.train is not None)
                self.trainer.offer(self.fit, no_place)
                self.strength.value = 1.0
            finally:
                self._muted = False
            self._show()

    def _show(self, _=None) -> None:
        """Bring everything up to the controls."""
        if self._muted:
            return
        with self._lock:
            switches = self.switches
            eager = not any(self.rows[name].acts_in_encoder for name in switches["on"])
            for row in self.rows.values():
                row.explain(eager)
            self.strength.disabled, self.strength.continuous_update = not switches["on"], eager
            self.strength_note.value = small("base + strength x update, in every layer that acts." if switches["on"] else
                                             "Nothing is ticked: this is zero-shot, there is no update to weaken.")
            self.line.value = f'<pre tabindex="0" aria-label="code of what is shown" style="{PRE}">{html.escape(self.code)}</pre>'
            state = (self.name, switches["on"], *sorted(switches["rank"].items()), switches["strength"])
            if state not in self._drawn:
                seen = look(self.fit, self.test, **switches)
                self._panels.draw(seen)
                self._drawn[state] = _image(png(self._panels.figure), in_words(seen))
            self.picture.value = self._drawn[state]

    def _train(self, _) -> None:
        with self._lock:
            self._stop.clear()
            self.trainer.begin()
            self.training = Thread(target=self._work, args=(self.name, self.trainer.placement, self.trainer.labels.value), daemon=True)
            self.training.start()

    def _work(self, name: str, placement: tuple, n: int) -> None:
        """In a thread of its own, so that everything else can be used."""
        old = self.fits[name]
        try:
            fit = adapt(old.model, self.train[:n], label=old.label, placement=placement, seed=self.seed, steps=self.steps, progress=self._tick, frozen=old.frozen)
            with self._lock:
                self.fits[name] = fit
                self._made[name] = self._recipe(name, placement, n) + "\n"
                self._drawn = {state: drawn for state, drawn in self._drawn.items() if state[0] != name}
                if self.name == name:
                    self._look_at()
            told = f"Done: this fit replaces fits[{_python(name)}]. Of {self.steps} steps the labels it had not seen chose {fit.steps}" + (
                "." if fit.steps else ": that is zero-shot, it learned nothing that helps.")
        except Stopped:
            told = "Stopped. The old fit stays."
        except Exception as error:                                               # nobody catches it after this, and the buttons must come back
            told = f"{type(error).__name__}: {error} The old fit stays."
        self.trainer.end(told)

    def _tick(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Stopped
        self.trainer.tell(done, total)

    def _recipe(self, name: str, placement: tuple, n: int) -> str:
        stars = "train" if n == len(self.train) else f"train[:{n}]"
        steps = "" if self.steps == STEPS else f", steps={self.steps}"
        return (f"fits[{_python(name)}] = sk.adapt(fits[{_python(name)}].model, {stars}, label={_python(self.fits[name].label)}, "
                f"placement={_python(placement)}, seed={self.seed}{steps})")


PRE = "user-select: all; white-space: pre-wrap; margin: 4px 0; padding: 4px 8px; line-height: 1.35; border: 1px solid #999"


def _common_label(fits: dict[str, Fit]) -> str:
    if not fits:
        raise MismatchError("There is no fit to look at; expected e.g. {'spectrum': sk.adapt(model, train, label='feh', placement=('lora1', 'lora2'), seed=0)}.")
    labels = {fit.label for fit in fits.values()}
    if len(labels) > 1:
        found = ", ".join(f"{name}: {fit.label}" for name, fit in fits.items())
        raise MismatchError(f"The fits are of different labels: {found}. Give each label a lab of its own.")
    for name, fit in fits.items():
        if not fit.placements:
            raise MismatchError(f"{name} trains weights themselves ({fit.placement[0]!r}): it has no adapter to switch. Leave it out.")
    return labels.pop()


def _python(value) -> str:
    """Source code of a string, a tuple or a dict, with double quotes."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_python, value))}{',' * (len(value) == 1)})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_python(k)}: {_python(v)}' for k, v in value.items())}}}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _image(picture: bytes, words: str) -> str:
    """An HTML image: ``ipywidgets.Image`` has no place for words."""
    width, height = (round(DPI * size) for size in SIZE)
    return (f'<img alt="{html.escape(words)}" width="{width}" height="{height}" style="max-width: 100%; height: auto" decoding="sync" '
            f'src="data:image/png;base64,{b64encode(picture).decode()}">')
