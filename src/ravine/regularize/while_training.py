"""The regularisers that act while a run trains, as expressions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ravine.engine.philox import stream_seed
from ravine.errors import ArgumentError
from ravine.regularize import checks
from ravine.regularize.max_norm import MaxNorm
from ravine.regularize.mixing import CutMix, Mixup
from ravine.regularize.regularizer import Regularizer
from ravine.regularize.sharpness import SharpnessAware
from ravine.regularize.weight_averaging import StochasticWeightAverage


@dataclass(frozen=True, repr=False)
class mixup(Regularizer):  # noqa: N801 (written as in an expression)
    """Train on mixtures of two rows, and of their targets.

    Equation:
        x = s x_i + (1 - s) x_j,  y = s y_i + (1 - s) y_j,  s drawn from Beta(alpha, alpha)

    One s a batch, j the rows in another order. Classes become probabilities, which the loss must
    take; targets that are numbers are mixed as they are.

    Args:
        alpha: finite, > 0; the larger, the more even the mixtures.

    Source: Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization".
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        checks.positive("mixup: alpha", self.alpha)

    def part(self, *, seed: int = 0) -> Mixup:
        return Mixup(self.alpha, stream_seed(seed, 0))


@dataclass(frozen=True, repr=False)
class cutmix(Regularizer):  # noqa: N801
    """Train on images (rows, channels, height, width) with a rectangle of another image.

    Equation:
        s drawn from Beta(alpha, alpha), sides of the rectangle sqrt(1 - s) of the image's,
        y = a y_i + (1 - a) y_j,  a the share of the area that stayed

    Args:
        alpha: finite, > 0.

    Source: Yun et al. 2019, "CutMix", equation 1 and 2.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("cutmix: alpha", self.alpha)

    def part(self, *, seed: int = 0) -> CutMix:
        return CutMix(self.alpha, stream_seed(seed, 1))


@dataclass(frozen=True, repr=False)
class sam(Regularizer):  # noqa: N801
    """Sharpness-aware minimisation: step by the gradient of the worst place at a distance rho.

    Equation:
        w <- w - step(g(w + rho g(w) / |g(w)|))
        adaptive: g(w + rho w^2 g(w) / | |w| g(w) |)

    The gradient is taken twice a step, which costs twice the time. Both times see the same batch;
    dropout draws anew. Batch norm keeps the statistics of the first time.

    Args:
        rho: finite, > 0. 0.05 for sam; ASAM wants about 0.5.
        adaptive: ASAM, which moves each weight in proportion to its size.

    Differs from: implementations that divide by |g| + 1e-12; here a gradient of 0 moves nothing.

    Source: Foret et al. 2021, algorithm 1; Kwon et al. 2021 (ASAM), with eta = 0.
    """

    rho: float = 0.05
    adaptive: bool = False

    def __post_init__(self) -> None:
        checks.positive("sam: rho", self.rho)

    def part(self, *, seed: int = 0) -> SharpnessAware:
        return SharpnessAware(self.rho, self.adaptive)


@dataclass(frozen=True, repr=False)
class max_norm(Regularizer):  # noqa: N801
    """After each step, shorten a unit's incoming weights to this length where they are longer.

    Equation:
        w_i <- w_i min(1, limit / |w_i|)   for each row i (output unit) of a weight

    Weights of one dimension, such as biases, are left alone.

    Args:
        limit: finite, > 0; 3 to 4 are usual.

    Differs from: Keras's ``MaxNorm`` adds 1e-7 to the length; ``torch.renorm`` does as this, and
    is what computes it.

    Source: Srivastava et al. 2014, section 5.1.
    """

    limit: float = 3.0

    def __post_init__(self) -> None:
        checks.positive("max_norm: limit", self.limit)

    def part(self, *, seed: int = 0) -> MaxNorm:
        return MaxNorm(self.limit)


@dataclass(frozen=True, repr=False)
class swa(Regularizer):  # noqa: N801
    """Stochastic weight averaging: evaluate with the mean of the weights of the last epochs.

    Equation:
        w_SWA = mean over the epochs after start * epochs of the weights at the epoch's end

    Statistics of batch norm are taken anew for the averaged weights. The learning rate of those
    epochs should stay high: ``lr=cosine(900, peak=0.1, end=0.05) >> 0.05``.

    Args:
        start: the share of the epochs after which averaging begins, in [0, 1).

    Source: Izmailov et al. 2018, algorithm 1.
    """

    start: float = 0.75

    def __post_init__(self) -> None:
        checks.number("swa: start", self.start, low=0, high=1, expected="a share in [0, 1)")
        if self.start == 1:
            raise ArgumentError("swa: start 1 leaves no epoch", got="1", expected="in [0, 1)")

    def part(self, *, seed: int = 0) -> StochasticWeightAverage:
        return StochasticWeightAverage(self.start)


@dataclass(frozen=True, repr=False)
class ema(Regularizer):  # noqa: N801
    """Evaluate with an exponential moving average of the weights, kept in the optimizer's step.

    Equation:
        average <- decay average + (1 - decay) w   after every step

    The optimizer's option ``average``; statistics of batch norm are taken anew for it.

    Args:
        decay: in (0, 1).

    Source: Polyak & Juditsky 1992; as used by Tarvainen & Valpola 2017.
    """

    decay: float = 0.999

    def __post_init__(self) -> None:
        checks.positive("ema: decay", self.decay)
        checks.probability("ema: decay", self.decay)
        if self.decay == 1:
            raise ArgumentError("ema: decay 1 keeps the first weights", got="1", expected="< 1")

    def optimizer_options(self) -> dict[str, Any]:
        return {"average": float(self.decay)}
