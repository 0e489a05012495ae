"""Attacks on the published model. mu and s are mean and deviation of the honest models known, by coordinate."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from p2pfed.adversary.attack import Attack, View, distances, largest, pairwise
from p2pfed.core.weights import Vector


@dataclass
class SignFlip(Attack):
    """Sign flip (Li et al., AAAI 2019): -scale * honest."""

    scale: float = 1.0

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return -np.float32(self.scale) * view.honest


@dataclass
class Drip(SignFlip):
    """Slow drip: honest for 29 rounds, to be trusted, and from the 30th a sign flip: -scale * honest."""

    start = 30


@dataclass
class OnOff(SignFlip):
    """On-off: 20 rounds of a sign flip, 20 honest rounds, and so on: -scale * honest."""

    duty: tuple[int, int] = (20, 20)


@dataclass
class DutyCycle(SignFlip):
    """Duty cycle, `duty:1:2`: one round of a sign flip, two honest ones, and so on: -scale * honest."""

    duty: tuple[int, int] = (1, 2)


@dataclass
class Backtrack(Attack):
    """Walks back what its training gained: begun - scale * (honest - begun), the flipped gradient of FedSGD papers."""

    scale: float = 1.0

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return view.begun - np.float32(self.scale) * (view.honest - view.begun)


@dataclass
class Gaussian(Attack):
    """Gaussian noise on every weight (Blanchard et al., NeurIPS 2017): honest + N(0, scale^2)."""

    scale: float = 1.0

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return view.honest + np.float32(self.scale) * view.rng.standard_normal(view.honest.size, np.float32)


@dataclass
class Scaled(Attack):
    """Model replacement (Bagdasaryan et al., AISTATS 2020, eq. 3): begun + scale * (honest - begun)."""

    scale: float = 10.0

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return view.begun + np.float32(self.scale) * (view.honest - view.begun)


@dataclass
class InnerProduct(Attack):
    """Inner product manipulation (Xie, Koyejo and Gupta, UAI 2019): -scale * mu."""

    scale: float = 0.5

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return (-self.scale * view.benign().mean(axis=0)).astype(np.float32)


@dataclass
class Alie(Attack):
    """A little is enough (Baruch, Baruch and Goldberg, NeurIPS 2019): mu - scale * s, within the honest spread."""

    scale: float = 1.5

    def poison(self, view: View) -> Vector:
        """See `Attack`; the scale is the paper's z, about 1 to 1.5 for 16 members of which 4 or 5 attack."""
        models = view.benign()
        return (models.mean(axis=0) - self.scale * models.std(axis=0)).astype(np.float32)


@dataclass
class MinMax(Attack):
    """Min-max (Shejwalkar and Houmansadr, NDSS 2021, eq. 9): mu - g * s, no farther than honest models are apart.

    g is the largest with max_i |x - x_i| <= max_ij |x_i - x_j| over the honest models x_i.
    """

    MOST = 100.0

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        models = view.benign()
        mean, deviation = models.mean(axis=0), models.std(axis=0)
        diameter = pairwise(models).max(initial=0.0)

        def within(g: float) -> bool:
            return bool(distances(models, mean - g * deviation).max() <= diameter)

        return (mean - largest(within, self.MOST) * deviation).astype(np.float32)


@dataclass
class Mimic(Attack):
    """Mimic (Karimireddy, He and Jaggi, ICLR 2022): everybody who colludes copies one and the same honest peer."""

    def poison(self, view: View) -> Vector:
        """See `Attack`; the peer is the known one with the smallest id."""
        return view.peers[min(view.peers)] if view.peers else view.honest


@dataclass
class Stale(Attack):
    """Free rider with an old model: the first one that it trained, again and again."""

    _first: Vector | None = field(default=None, repr=False)

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        if self._first is None:
            self._first = view.honest
        return self._first


@dataclass
class Zero(Attack):
    """Free rider without any work (Lin et al., 2019, arXiv 1911.12560): the initial weights that everybody knows."""

    def poison(self, view: View) -> Vector:
        """See `Attack`."""
        return view.manifest.initial.vector
