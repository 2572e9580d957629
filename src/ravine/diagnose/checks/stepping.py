"""Is the step itself right: gradients cleared, of the right sign, weights held and moved."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.loss_kind import loss_kind
from ravine.diagnose.probes.stepping import stepping
from ravine.diagnose.program import Change, joined
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.model import REGISTER, UNFREEZE, WITHOUT_HOOKS
from ravine.diagnose.treatments.steps import adam, rebuilt
from ravine.watch.finding import Finding


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def stepping_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what one step shows."""
    seen = evidence.probe(stepping)
    optimizer = evidence.fresh().optimizer
    same = Change(
        f"hold all weights in a new {type(optimizer).__name__}",
        optimizer=rebuilt(optimizer, maximize=False),
    )
    if not seen.cleared:
        yield Suspicion(
            Finding(
                "missing-zero-grad",
                "critical",
                "high",
                "gradients are not cleared: optimizer.zero_grad() leaves them, and each step adds "
                "to the last ones",
            ),
            (same,),
            certain=True,
        )
    # A gradient that is 0 for all weights is not the step's fault.
    pushed = not seen.held or len(seen.without_gradient) < len(seen.held)
    if not seen.moved and (pushed or seen.lr == 0):
        cause = "lr is 0" if seen.lr == 0 else "no weight changed at all"
        yield Suspicion(
            Finding(
                "step-has-no-effect",
                "critical",
                "high",
                f"optimizer.step() changes nothing: {cause}",
                where=type(optimizer).__name__,
                evidence={"lr": seen.lr, "held": len(seen.held)},
            ),
            (same, adam()),
            certain=True,
        )
    elif seen.outside:
        yield Suspicion(
            Finding(
                "optimizer-misses-parameters",
                "critical",
                "high",
                f"{len(seen.outside)} weights take part and are none of model.parameters() "
                f"({_listed(seen.outside)}): layers in a list or dict are not seen by a module",
            ),
            (REGISTER, joined(REGISTER, adam())),
            certain=True,
        )
    elif seen.missing:
        yield Suspicion(
            Finding(
                "optimizer-misses-parameters",
                "critical",
                "high",
                f"{len(seen.missing)} trainable weights are not held by the optimizer: "
                + _listed(seen.missing),
                where=seen.missing[0],
            ),
            (same, adam()),
        )
    if seen.frozen:
        yield Suspicion(
            Finding(
                "frozen-parameters",
                "critical",
                "high",
                f"{len(seen.frozen)} weights do not require a gradient and never change: "
                + _listed(seen.frozen),
                where=seen.frozen[0],
            ),
            (joined(UNFREEZE, same),),
        )
    if evidence.probe(loss_kind).factor > 0 and (
        seen.ratio < -0.5 or (seen.descends is False and seen.moved)
    ):
        how = (
            "the gradient is the negative of the loss's slope"
            if seen.ratio < -0.5
            else "the step goes up along the gradient"
        )
        yield Suspicion(
            Finding(
                "gradient-sign-flipped",
                "critical",
                "high",
                f"training climbs: {how}",
                evidence={"slope ratio": seen.ratio, "step descends": seen.descends},
            ),
            (joined(WITHOUT_HOOKS, same), adam()),
            certain=True,
            weight=1.5,
        )
