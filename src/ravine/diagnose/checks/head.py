"""Do output, loss and targets fit each other."""

from __future__ import annotations

from collections.abc import Iterator

from ravine.diagnose.evidence import Evidence
from ravine.diagnose.probes.head import head
from ravine.diagnose.probes.loss_kind import loss_kind
from ravine.diagnose.program import Change, joined
from ravine.diagnose.suspicion import Suspicion
from ravine.diagnose.treatments.data import STANDARDISE_BOTH, STANDARDISE_INPUTS
from ravine.diagnose.treatments.loss import CROSS_ENTROPY, and_also
from ravine.diagnose.treatments.model import LINEAR_HEAD, SIGMOID_HEAD
from ravine.diagnose.treatments.steps import adam, times_lr
from ravine.watch.finding import Finding

_BOUNDS = {"sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, None)}

_REMEDIES = {
    "probabilities": (SIGMOID_HEAD, joined(SIGMOID_HEAD, STANDARDISE_INPUTS)),
    "numbers": (
        LINEAR_HEAD,
        joined(LINEAR_HEAD, STANDARDISE_INPUTS),
        joined(LINEAR_HEAD, STANDARDISE_BOTH),
    ),
}
"""By what the loss takes the output for; a head that fits, and scales that then fit it."""


def head_checks(evidence: Evidence) -> Iterator[Suspicion]:
    """Yield what the range of the output, the loss and the targets say together."""
    seen, loss = evidence.probe(head), evidence.probe(loss_kind)
    facts = {"output range": seen.range, "loss": loss.name, "targets": evidence.kind}
    if seen.range == "constant":
        yield _wrong(
            f"the output is {seen.most:g} whatever the input and the weights "
            "(a softmax over one number is 1)",
            facts,
            loss.wants,
            weight=2.0,  # nothing else matters to an output that looks at nothing
        )
    elif loss.name == "cross_entropy of a softmax":
        yield Suspicion(
            Finding(
                "double-softmax",
                "critical",
                "high",
                "the loss applies a softmax before the cross-entropy, which applies its own",
                where="loss",
                evidence=facts,
            ),
            (CROSS_ENTROPY, *_with_another_rate(CROSS_ENTROPY)),
            certain=True,
        )
    elif seen.range in ("softmax", "log-softmax") and loss.wants == "logits":
        if seen.range == "softmax":
            yield Suspicion(
                Finding(
                    "double-softmax",
                    "critical",
                    "high",
                    f"the output is a softmax already, and {loss.name} applies another",
                    evidence=facts,
                ),
                (LINEAR_HEAD, *_with_another_rate(LINEAR_HEAD)),
                certain=True,
            )
    elif loss.wants == "probabilities" and seen.range in ("free", "relu", "tanh"):
        yield _wrong(
            f"{loss.name} takes probabilities, and the output reaches from {seen.least:.3g} to "
            f"{seen.most:.3g}",
            facts,
            loss.wants,
        )
    elif loss.wants == "logits" and seen.range in ("sigmoid", "relu", "tanh"):
        yield _wrong(
            f"{loss.name} takes logits of any size, and the output stays in that of a {seen.range}",
            facts,
            loss.wants,
        )
    elif loss.wants in ("numbers", "unknown") and seen.range in _BOUNDS:
        yield from _bounded(evidence, facts)


def _bounded(evidence: Evidence, facts: dict[str, str]) -> Iterator[Suspicion]:
    seen = evidence.probe(head)
    targets = evidence.sample[1].double()
    least, most = _BOUNDS[seen.range]
    outside = (targets < least - 1e-6) | (targets > most + 1e-6 if most is not None else False)
    share = float(outside.double().mean())
    if share > 0.01:
        bounds = f"above {least:g}" if most is None else f"in [{least:g}, {most:g}]"
        yield _wrong(
            f"the output is always {bounds}, and {share:.0%} of the targets are not "
            f"({float(targets.min()):.3g} to {float(targets.max()):.3g})",
            facts,
            "numbers",
        )


def _with_another_rate(remedy: Change) -> tuple[Change, ...]:
    """Return the remedy with other rates: what a wrong head was tuned for may not fit a right one."""
    return and_also(remedy, adam(0.01)), and_also(remedy, times_lr(0.1))


def _wrong(says: str, facts: dict[str, str], wants: str, weight: float = 1.0) -> Suspicion:
    remedies = _REMEDIES.get(wants, (LINEAR_HEAD,))
    return Suspicion(
        Finding("wrong-output-activation", "critical", "high", says, evidence=facts),
        (*remedies, *_with_another_rate(remedies[0])),
        certain=True,
        weight=weight,
    )
