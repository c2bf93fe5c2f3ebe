"""The controls of the LoRA lab, one row a placement and two for training; those that cannot be used say why."""

from __future__ import annotations

import html
import time
from itertools import combinations

import ipywidgets as w

from ..adaptation.fit import Fit
from ..adaptation.kinds import LOW_RANK
from ..adaptation.members import N_MEMBERS
from ..adaptation.placements import PLACEMENTS, Placement, target_modules
from ..errors import MismatchError
from ..spectra import SpectraSet
from .lora_figure import display_name


def places(fit: Fit) -> dict[str, str]:
    """Why the model of this fit has no place for each of LoRA1 to LoRA4, "" where it has one."""
    network, reasons = fit.model.network(fit.label), {}
    for name, placement in PLACEMENTS.items():
        try:
            target_modules(network, placement)
            reasons[name] = ""
        except MismatchError as error:
            reasons[name] = str(error)
    return reasons


class Row:
    """One placement: a box, a slider for its rank, and what it is or why it cannot be used."""

    def __init__(self, name: str):
        self.name, self.acts_in_encoder, self._closed, self._fixed = name, False, "", ""
        self.box = w.Checkbox(False, description=display_name(name), indent=False, layout=w.Layout(width="90px", flex="0 0 auto"))
        self.rank = w.IntSlider(1, min=1, max=1, description=f"{display_name(name)} rank", style={"description_width": "80px"},
                                layout=w.Layout(width="330px", flex="0 0 auto"))
        self.note = w.HTML()
        self.line = w.HBox([self.box, self.rank, self.note])

    def hold(self, fit: Fit, status, no_place: str, can_train: bool) -> None:
        """What this ``fit``, whose ``status`` table is given, has of it: ticked and of full rank, or closed."""
        own = status[status.placement == self.name]
        placement = next((p for p in fit.placements if p.name == self.name), None)
        self._closed = self._fixed = ""
        if placement is None:
            self._closed = no_place or f"This fit was trained without {display_name(self.name)}." + (" Train it below." if can_train else "")
        elif placement.kind not in LOW_RANK:
            self._fixed = f"kind {placement.kind} has no B A whose rank could be lowered"
        elif int(own["rank"].iloc[0]) == 1:
            self._fixed = "trained with rank 1, nothing to lower"
        self.acts_in_encoder = own.module.str.startswith("encoder.").any()
        self.box.value, self.box.disabled = placement is not None, placement is None
        self.rank.max = 1 if self._closed or self._fixed else int(own["rank"].iloc[0])
        self.rank.value = self.rank.max
        self._about = "" if placement is None else f"{placement.where}; {len(own)} Linear{'s' * (len(own) > 1)}"

    def explain(self, eager: bool) -> None:
        """Open or close the slider; ``eager``: it tells of every value that it is dragged over."""
        why = self._fixed if self.box.value else "tick the box to choose one"
        self.rank.disabled, self.rank.continuous_update = bool(self._closed or why), eager
        self.note.value = small(self._closed or (f"{self._about}. Rank: {why}." if why else f"{self._about}."))


class Trainer:
    """What to train, on how many labels; start, stop, and how far it is."""

    def __init__(self, train: SpectraSet | None):
        least = 2 * N_MEMBERS
        most = least if train is None else len(train)
        self._can, self._declared = train is not None, {}
        self.what = w.Dropdown(description="train", layout=w.Layout(width="300px"))
        self.labels = w.IntSlider(most, min=least, max=most, description="labels", continuous_update=False, layout=w.Layout(width="330px"))
        self.start, self.stop = w.Button(description="Train here"), w.Button(description="Stop")
        self.bar, self.note = w.IntProgress(0, layout=w.Layout(width="300px")), w.HTML()
        self.lines = [w.HBox([self.what, self.labels, self.start, self.stop]), w.HBox([self.bar, self.note])]
        self.end("Trains five members on the first stars of train; until it is done the old fit acts. Stop: nothing is being trained." if self._can else
                 "Nothing to train on: give the lab labelled stars, LoraLab(fits, test, train).")

    def offer(self, fit: Fit, no_place: dict[str, str]) -> None:
        """All placements, alone and together, that the model of ``fit`` has; those that the fit holds as they were declared there."""
        self._declared = {name: name for name, why in no_place.items() if not why} | {p.name: p for p in fit.placements if PLACEMENTS.get(p.name) != p}
        names = list(self._declared)
        self.what.options = [(" + ".join(map(display_name, some)), some) for k in range(1, len(names) + 1) for some in combinations(names, k)]
        self.what.value = tuple(name for name in names if name in {p.name for p in fit.placements})

    @property
    def placement(self) -> tuple[str | Placement, ...]:
        """For ``sk.adapt``."""
        return tuple(self._declared[name] for name in self.what.value)

    def begin(self) -> None:
        """It is being trained: the only thing to do is to stop."""
        self.what.disabled = self.labels.disabled = self.start.disabled = True
        self.stop.disabled, self.bar.value, self._since = False, 0, time.monotonic()
        self.note.value = small("Training; a second one can start when this one is done or stopped.")

    def tell(self, done: int, total: int) -> None:
        """Steps done and in all; a hundred messages are enough."""
        if done % max(1, total // 100) == 0:
            left = (time.monotonic() - self._since) / done * (total - done)
            self.bar.max, self.bar.value = total, done
            self.note.value = small(f"{done} of {total} steps, about {left:.0f} s to go. The old fit still acts; everything can be used meanwhile.")

    def end(self, told: str) -> None:
        """Nothing is being trained, and why."""
        self.what.disabled = self.labels.disabled = self.start.disabled = not self._can
        self.labels.disabled |= self.labels.min == self.labels.max
        self.stop.disabled, self.note.value = True, small(told)


def small(text: str) -> str:
    """Text beside a control."""
    return f'<span style="font-size: 12px; line-height: 1.2; display: inline-block; padding: 4px 0 0 8px">{html.escape(text)}</span>'
