"""Adapting a pretrained model with few labels, and what comes of it: predictions whose adapters can be switched, weakened and lowered in rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import LabelError, MismatchError
from ..models.aligned import AlignedModel
from ..models.foundation import FoundationModel
from ..objects import require_stars
from ..spectra import SpectraSet, same_scale
from .adapters import insert, label_network, load, switched, trainable
from .frozen import Frozen, prepared
from .kinds import KINDS, LOW_RANK
from .members import N_CHECKS, N_MEMBERS, Data, choose, evaluate, folds, ticking, train_members
from .network import first_stage
from .placements import WHOLE, Placement, get_placement
from .rank import truncate_state


@dataclass(frozen=True, eq=False)
class Fit:
    """An adapted model for one label.

    ``predict`` and ``status`` take the same three switches; the stored weights stay as they are.

    on : the placements that act, e.g. ``("lora1",)``; all by default, ``()`` is zero-shot.
    rank : ``{"lora2": 3}`` truncates each update of that placement to its three largest singular values (kinds lora, dora, rslora, pissa).
    strength : every adapted layer gives base + strength (adapted - base); 1 is as trained.

    Attributes
    ----------
    network : the peft model; ``states`` holds the trained weights of each member, in turn loaded into it.
    residual_sigma : scatter of the labels that members had not seen, in the label's unit.
    steps : where training was stopped; 0 is zero-shot.
    budget : number of labelled stars used, those for validation included.
    history : mean absolute error on unseen labels at every check, the first at step 0.
    """

    model: FoundationModel | AlignedModel
    label: str
    placement: tuple
    network: nn.Module
    states: list[dict[str, Tensor]]
    residual_sigma: float
    steps: int
    budget: int
    history: list[float]
    frozen: Frozen = field(repr=False)

    @property
    def placements(self) -> list[Placement]:
        """The declarations of its adapters; none for ``"full"``, ``"head"`` and ``"residual"``."""
        return [get_placement(p) for p in self.placement if p not in WHOLE]

    @property
    def n_trained(self) -> int:
        """Number of trained parameters of one member."""
        from .status import counted
        if not self.placements:
            return sum(v.numel() for v in self.states[0].values())
        return sum(sum(counted(self.network, p, self.states[0])[0].values()) for p in self.placements)

    def predict(self, stars: SpectraSet, on: Sequence[str] | None = None, rank: Mapping[str, int] | None = None,
                strength: float | int = 1.0) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """``(value, sigma)`` in the label's unit: the mean of the members; sigma adds their variance to that of labels they had not seen.

        With other switches than the default sigma still tells of the scatter as trained.

        Raises
        ------
        MismatchError
            Spectra the model was not made for, or switches that this fit does not have.
        SpectrumError
            Spectra of what is no star (``labels["object_class"]``).
        """
        members = self._members(stars, on, rank, strength).numpy()
        return members.mean(0), np.sqrt(self.residual_sigma**2 + members.var(0, ddof=1))

    def members(self, stars: SpectraSet) -> Float[np.ndarray, "m n"]:
        """What each member says, in the label's unit; member k has not seen the training stars of ``members.folds`` k."""
        return self._members(stars, None, None, 1.0).numpy()

    def embed(self, stars: SpectraSet) -> Float[np.ndarray, "n d"]:
        """What the head of the model reads, before anything was adapted."""
        return self.frozen(self.model.network(self.label), 2, *prepared(self.model, stars))[0].cpu().numpy()

    def zero_shot(self, stars: SpectraSet) -> Float[np.ndarray, " n"]:
        """What the model said before it was adapted, in the label's unit."""
        network = self.model.network(self.label)
        return evaluate(network, 2, *self.frozen(network, 2, *prepared(self.model, stars))).double().numpy()

    def _members(self, stars, on, rank, strength) -> Float[Tensor, "m n"]:
        require_stars(stars)
        on, states = self._switches(on, rank, strength)
        inputs, members = prepared(self.model, stars), []
        with switched(self.network, on, strength) if self.placements else nullcontext():
            acting = [name for name in states[0] if not self.placements or set(on) & set(name.split("."))]
            stage = first_stage(acting)
            features = self.frozen(label_network(self.network), stage, *inputs)
            for state in states:
                load(self.network, state)
                members.append(evaluate(self.network, stage, *features))
        return torch.stack(members).double()

    def status(self, on: Sequence[str] | None = None, rank: Mapping[str, int] | None = None, strength: float | int = 1.0):
        """pandas table, one row an adapted Linear (or trained part): placement, module, kind, rank, alpha, parameters, norm, on, share.

        ``norm`` is the Frobenius norm of the change of the weight matrix, the mean over the members. ``share`` are the parameters over those of the
        placement's ``part`` of the network and all of its adapters; the sum over a placement is the share that is published. PiSSA's ``rank`` and
        ``alpha`` are twice the placement's (``kinds.start_from_singular_vectors``).
        """
        from .status import table
        on, states = self._switches(on, rank, strength)
        return table(self, on, states, rank or {}, strength)

    def save(self, folder) -> None:
        """Write the adapters in peft's own format, ``member0/lora1`` ..., and ``fit.json``; see ``files.load_fit``. A saved fit in its place is replaced."""
        from .files import save_fit
        save_fit(self, folder)

    def _switches(self, on, rank, strength) -> tuple[tuple[str, ...], list[dict[str, Tensor]]]:
        """Names that act, and the members' weights of the ranks asked for."""
        kinds = {p.name: p.kind for p in self.placements}
        if not kinds and (on is not None or rank or strength != 1):
            raise MismatchError(f"{self.placement[0]!r} trains weights themselves: there is no adapter to switch. Zero-shot is model.predict(stars, label).")
        on = tuple(kinds) if on is None else (on,) if isinstance(on, str) else tuple(on)
        for name in (*on, *(rank or {})):
            if name not in kinds:
                raise MismatchError(f"This fit has no placement {name!r}; it has: {', '.join(kinds)}. Train it: sk.adapt(..., placement=({name!r}, ...)).")
        if not np.isfinite(strength):
            raise MismatchError(f"strength is {strength}; expected a finite number, 1 as trained.")
        states = self.states
        for name, k in (rank or {}).items():
            if kinds[name] not in LOW_RANK:
                raise MismatchError(f"{name} is of kind {kinds[name]!r}, which has no B A whose rank could be lowered; that is for {', '.join(LOW_RANK)}.")
            states = [truncate_state(state, name, k) for state in states]
        return on, states


def adapt(model: FoundationModel | AlignedModel, train: SpectraSet, *, label: str, placement: str | Placement | Sequence[str | Placement] | None = None,
          seed: int, recipe: str | None = None, validation: SpectraSet | None = None, steps: int = 150, lr: float | None = None,
          progress: bool | Callable[[int, int], object] = False, frozen: Frozen | None = None,
          weights: Float[np.ndarray, " n"] | None = None, rehearsal: SpectraSet | None = None):
    """Adapt ``model`` to the survey of ``train`` with its labels.

    Five members are trained, each on four fifths of the stars. What each did not see, and the validation stars, decide when all of them stop: at
    one of 15 checks, or at zero-shot. The model that is passed in is left as it is. Parts before the first adapted one are computed once.

    Parameters
    ----------
    train, validation : spectra with ``label``; both are counted in ``Fit.budget``.
    placement : names or declarations. ``"lora1"`` (attention of the encoder) with any model; ``"lora2"`` (label head) with a spectrum model; ``"lora3"``
        (projection) and ``"lora4"`` (head on the projected embedding) with an aligned pair. Any of them together: ``("lora1", "lora2")``; other ranks
        and kinds: ``Placement``. Alone, for comparison: ``("full",)`` fine-tunes every weight, ``("head",)`` the head, ``("residual",)`` trains a small
        network beside it.
    recipe : ``"robust"`` in place of a placement: ``model`` and the shipped flux model are adapted both and held back where labels are few. It returns
        a ``remedies.robust.Robust``, which predicts like a ``Fit``, has intervals that cover and warns of stars without support. It helps where labels are
        few and some regime, such as [Fe/H] < -1, has a handful of them; see ``docs/metal_poor.md`` for where it does not.
    seed : of the adapters' initial weights, the folds and the order of the stars.
    steps, lr : of AdamW with batches of 16, linear warm-up and cosine decay. ``lr`` by default 1e-3; 2e-4 for ``"full"``, 1e-2 for the kinds vera and ia3.
    progress : True for a bar; or a function called with steps done and in all, which may raise to stop.
    frozen : results of the frozen parts to share between fits, ``Frozen(model)``.
    weights : (n,) of the training stars in the loss, any unit; see ``remedies.density``. None: all alike.
    rehearsal : further spectra with ``label``, not in the budget and not on the target's label scale either: simulated ones, or ones labelled by the model itself
        (``remedies.rehearsal``). Each step sees as many of them as of the training stars; they have no say in when to stop.

    Raises
    ------
    LabelError
        No head for the label, a star without it, or fewer than 10 training stars.
    MismatchError
        Neither a placement nor a recipe, or both; spectra the model was not made for, a placement that does not fit it, or fewer steps than checks.
    """
    if (recipe is None) == (placement is None) or recipe not in (None, "robust"):
        raise MismatchError(f"placement={placement!r} and recipe={recipe!r}; expected one of them: placement=('lora2',) and the like, or recipe='robust'.")
    if recipe is not None:
        from ..remedies.robust import robust_beside_flux
        return robust_beside_flux(model, train, frozen, label=label, seed=seed, validation=validation, steps=steps, lr=lr, progress=progress, weights=weights,
                                  rehearsal=rehearsal)
    model.require_label(label)
    if len(train) < 2 * N_MEMBERS:
        raise LabelError(f"{len(train)} training stars; at least {2 * N_MEMBERS} are needed, each member leaves a fifth of them out.")
    if steps < N_CHECKS:
        raise MismatchError(f"steps={steps}; at least {N_CHECKS} are needed, training may stop at one of {N_CHECKS} checks.")
    placement = (placement,) if isinstance(placement, str | Placement) else tuple(placement)
    sets = [train] if validation is None else [train, validation]
    same_scale(*sets)
    frozen = Frozen(model) if frozen is None else frozen
    frozen.require(model)
    network = insert(model.network(label), placement, seed)
    stage, inputs = first_stage(trainable(network)), prepared(model, *sets)
    y = torch.as_tensor(np.concatenate([s.label(label) for s in sets]), dtype=torch.float32, device=inputs[0].device)
    data = Data(frozen(label_network(network), stage, *inputs), stage, y, len(y) - len(train), *_beside(label, train, weights, rehearsal, network, stage, frozen, y))
    left_out = folds(train, np.random.default_rng(seed))
    with ticking(progress, N_MEMBERS * steps, "+".join(map(_name, placement))) as tick:
        members = train_members(network, data, left_out, steps, _rate(placement) if lr is None else lr, seed, tick)
    check, history, sigma = choose(members, data, left_out)
    states = [states[check] for states, _ in members]
    return Fit(model, label, placement, network, states, sigma, check * (steps // N_CHECKS), len(y), history, frozen)


def _beside(label: str, train: SpectraSet, weights, rehearsal: SpectraSet | None, network, stage: int, frozen: Frozen, y: Tensor) -> tuple:
    """``weights`` and ``rehearsal`` as ``Data`` has them."""
    if weights is not None:
        if weights.shape != (len(train),) or not (np.isfinite(weights).all() and weights.min() >= 0 and weights.max() > 0):
            raise MismatchError(f"weights has shape {weights.shape}; expected ({len(train)},), one number for each training star, at least 0 and not all 0.")
        weights = torch.as_tensor(weights / weights.mean(), dtype=y.dtype, device=y.device)
    if rehearsal is not None:
        features = frozen(label_network(network), stage, *prepared(frozen.model, rehearsal))
        rehearsal = features, torch.as_tensor(rehearsal.label(label), dtype=y.dtype, device=y.device)
    return weights, rehearsal


def _rate(placement: tuple) -> float:
    if placement[0] in WHOLE:
        return 2e-4 if placement[0] == "full" else 1e-3
    return KINDS[get_placement(placement[0]).kind].lr


def _name(placement: str | Placement) -> str:
    return placement if isinstance(placement, str) else placement.name
