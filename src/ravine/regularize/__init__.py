"""Regularisation: what keeps a model from learning its training data by heart.

Parts for any loop (`Dropout`, `decay_groups`, `EarlyStopping`, penalties and clipping for other
optimizers), and the expressions of ``ravine train --regularize`` in `REGULARIZERS`. The optimizers
of `ravine.optim` clip, penalise, decay and average in their own step.
"""

from __future__ import annotations

from ravine.regularize.checkpointing import checkpoint_contexts
from ravine.regularize.clipping import clip_norm_, clip_value_
from ravine.regularize.decay_groups import decay_groups, describe_groups
from ravine.regularize.dropout import Dropout
from ravine.regularize.early_stopping import EarlyStopping
from ravine.regularize.expressions import REGULARIZERS
from ravine.regularize.model_dropout import insert_dropout, set_dropout
from ravine.regularize.part import Part
from ravine.regularize.penalties import l1, l2, soft_threshold_
from ravine.regularize.regularizer import Regularizer
from ravine.regularize.weight_averaging import reestimate_batch_norm

__all__ = [
    "REGULARIZERS",
    "Dropout",
    "EarlyStopping",
    "Part",
    "Regularizer",
    "checkpoint_contexts",
    "clip_norm_",
    "clip_value_",
    "decay_groups",
    "describe_groups",
    "insert_dropout",
    "l1",
    "l2",
    "reestimate_batch_norm",
    "set_dropout",
    "soft_threshold_",
]
