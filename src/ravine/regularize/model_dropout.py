"""Sets the dropout of a whole model, or gives dropout to a model that has none."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from ravine.engine.philox import stream_seed
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.regularize.checks import probability, seed_number
from ravine.regularize.dropout import Dropout

_KEPT_TYPES = (
    nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip
_FLOATS = ("dropout", "dropout_p")
_ACTIVATIONS = (
    nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.LeakyReLU,
    nn.LogSigmoid, nn.Mish, nn.RReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus,
    nn.Softsign, nn.Tanh, nn.Tanhshrink,
)  # fmt: skip


class DropoutChange(int):
    """How many layers were changed, as a number that also knows them.

    Attributes:
        names: the places in the model, by their names in ``model.named_modules()``.
        note: one sentence for the user.
    """

    names: tuple[str, ...]
    note: str

    def __new__(cls, names: list[str], note: str) -> DropoutChange:
        change = super().__new__(cls, len(names))
        change.names = tuple(names)
        change.note = note
        return change


def set_dropout(model: nn.Module, p: float, *, seed: int = 0) -> DropoutChange:
    """Set the probability of every dropout that a model has, in place.

    * `ravine.regularize.Dropout`: gets p and a seed of its own, made of ``seed`` and its number.
    * ``torch.nn.Dropout``: is replaced by `Dropout` with the same. Where that would lose something
      (a subclass, hooks, ``model`` itself) it stays and gets p.
    * ``Dropout1d/2d/3d``, ``AlphaDropout``, ``FeatureAlphaDropout``: stay and get p.
    * modules with a float attribute ``dropout`` or ``dropout_p`` (``MultiheadAttention``, recurrent
      layers of two and more layers, modules that call ``F.dropout(x, self.dropout)``): get p.

    Those that stay draw their masks from torch's global generator.

    Args:
        model: the module to change.
        p: the probability of zero, in [0, 1].
        seed: 0 <= seed < 2^63. Calling again with the same seed starts the same masks anew.

    Returns:
        The number of dropouts, as an int that also has their ``names`` and a ``note``.

    Raises:
        ArgumentError: the model has no dropout (and p > 0), or p or seed is out of bounds.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 1))
        >>> changed = set_dropout(model, 0.2)
        >>> int(changed), changed.names, model[2]
        (1, ('2',), Dropout(p=0.2))

    Differs from torch, optax and Keras, which have no such function.
    """
    p = probability("set_dropout: p", p)
    seed = seed_number("set_dropout: seed", seed)
    _check_model("set_dropout", model)
    replaced: dict[int, Dropout] = {}  # a layer may have several places
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if type(child) is nn.Dropout and not _hooked(child):
                if id(child) not in replaced:
                    replaced[id(child)] = _layer(model, p, 0, child.training)
                parent._modules[name] = replaced[id(child)]
    names: list[str] = []
    for name, module in model.named_modules():
        if isinstance(module, Dropout):
            module.p = p
            module.reseed(stream_seed(seed, len(names)))
        elif isinstance(module, _KEPT_TYPES):
            module.p = p
        elif not _floats(module):
            continue
        for attribute in _floats(module):
            setattr(module, attribute, p)
        names.append(name or type(module).__name__)
    if not names and p > 0:
        raise ArgumentError(
            "the model has no dropout to set",
            where=f"set_dropout({type(model).__name__}, {p})",
            expected="layers such as ravine.regularize.Dropout or torch.nn.Dropout",
            do="put ravine.regularize.Dropout into the model, "
            "or call ravine.regularize.insert_dropout",
        )
    return DropoutChange(names, f"dropout p={p:g} set in {_listed(names)}")


def insert_dropout(model: nn.Module, p: float, *, seed: int = 0) -> DropoutChange:
    """Give dropout to a model that has none: after each activation between its weights, in place.

    In a ``torch.nn.Sequential`` (and those nested in it) an activation that a module with weights
    follows is replaced by ``Sequential(activation, Dropout(p))`` in the same place, so that the
    other modules keep their index and the weights their names. Activations after the last weights
    belong to the output and are left alone, as are activations with weights (``PReLU``). So is
    what a module of the user's own does in its ``forward``.

    Args:
        model: the module to change.
        p: the probability of zero, in [0, 1].
        seed: 0 <= seed < 2^63; each layer gets one of its own made of it.

    Returns:
        The number of layers inserted, as an int that also has their ``names`` and a ``note``.

    Raises:
        ArgumentError: there is no such activation, or p or seed is out of bounds.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1), nn.Sigmoid())
        >>> insert_dropout(model, 0.2).note
        'dropout p=0.2 inserted after 1'
        >>> model
        Sequential(
          (0): Linear(in_features=3, out_features=8, bias=True)
          (1): Sequential(
            (0): ReLU()
            (1): Dropout(p=0.2)
          )
          (2): Linear(in_features=8, out_features=1, bias=True)
          (3): Sigmoid()
        )

    Differs from torch, optax and Keras, which have no such function.
    """
    p = probability("insert_dropout: p", p)
    seed = seed_number("insert_dropout: seed", seed)
    _check_model("insert_dropout", model)
    names: list[str] = []
    done: set[int] = set()
    for name, module in list(model.named_modules()):
        if not _is_chain(module) or id(module) in done:
            continue
        done.update(id(inner) for inner in module.modules())
        leaves = list(_leaves(module, name))
        weighty = [bool(list(leaf.parameters())) for _, _, leaf, _ in leaves]
        for position, (parent, key, leaf, path) in enumerate(leaves):
            if type(leaf) in _ACTIVATIONS and any(weighty[position + 1 :]):
                layer = _layer(model, p, stream_seed(seed, len(names)), leaf.training)
                parent._modules[key] = nn.Sequential(leaf, layer).train(leaf.training)
                names.append(path)
    if not names:
        raise ArgumentError(
            "there is no place where dropout could be inserted",
            where=f"insert_dropout({type(model).__name__}, {p})",
            got="no activation between the weights of a torch.nn.Sequential",
            do="put ravine.regularize.Dropout into the model, for instance after each activation",
        )
    return DropoutChange(names, f"dropout p={p:g} inserted after {_listed(names)}")


def _layer(model: nn.Module, p: float, seed: int, training: bool) -> Dropout:
    """Return a layer whose counter lies where the model's weights do."""
    weight = next(model.parameters(), None)
    layer = Dropout(p, seed=seed).train(training)
    return layer if weight is None else layer.to(weight.device)


def _leaves(chain: nn.Module, prefix: str) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Yield (parent, key, module, name) in the order in which a chain of chains runs them."""
    for key, child in chain._modules.items():
        path = f"{prefix}.{key}" if prefix else key
        if child is not None and _is_chain(child):
            yield from _leaves(child, path)
        elif child is not None:
            yield chain, key, child, path


def _is_chain(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def has_dropout(model: nn.Module) -> bool:
    """Return whether `set_dropout` finds something to set.

    >>> has_dropout(nn.MultiheadAttention(4, 2)), has_dropout(nn.Linear(4, 2))
    (True, False)
    """
    kinds = (Dropout, *_KEPT_TYPES)
    return any(isinstance(module, kinds) or _floats(module) for module in model.modules())


def dropout_places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return the modules that drop, with the attribute that holds their probability."""
    kinds = (Dropout, *_KEPT_TYPES)
    places = []
    for module in model.modules():
        names = ["p"] if isinstance(module, kinds) else _floats(module)
        places += [(module, name) for name in names]
    return places


def _floats(module: nn.Module) -> list[str]:
    """Return the attributes of a module that are numbers and mean a dropout."""
    if isinstance(module, nn.RNNBase) and module.num_layers == 1:
        return []  # its dropout acts between layers only
    return [name for name in _FLOATS if type(getattr(module, name, None)) in (float, int)]


def _hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


def _check_model(owner: str, model: object) -> None:
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            f"{owner}: the model is not a torch module", got=f"{model!r} ({type(model).__name__})"
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:4])
    return shown + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "nothing"
