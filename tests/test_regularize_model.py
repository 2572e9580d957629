"""Setting the dropout of a model, and the grouping of its weights for decay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import ravine.optim
from ravine.errors import ArgumentError, ArgumentTypeError
from ravine.regularize import Dropout, decay_groups, describe_groups, insert_dropout, set_dropout


def mlp(*between: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), *between, nn.Linear(8, 2))


# --- set_dropout ---------------------------------------------------------------------------------


def test_torchs_layers_become_ours_with_seeds_of_their_own():
    model = nn.Sequential(nn.Dropout(0.1), nn.Linear(2, 2), nn.Dropout(0.2), Dropout(0.3)).eval()
    changed = set_dropout(model, 0.4, seed=5)
    assert changed == 3
    assert changed.names == ("0", "2", "3")
    layers = [model[0], model[2], model[3]]
    assert all(type(layer) is Dropout and layer.p == 0.4 for layer in layers)
    assert not any(layer.training for layer in layers)
    assert len({int(layer.stream[0]) for layer in layers}) == 3
    twin = nn.Sequential(nn.Dropout(), nn.Linear(2, 2), nn.Dropout(), nn.Dropout())
    set_dropout(twin, 0.4, seed=5)
    assert twin[2].stream.tolist() == model[2].stream.tolist()
    set_dropout(twin, 0.4, seed=6)
    assert twin[2].stream.tolist() != model[2].stream.tolist()


def test_a_shared_layer_stays_shared():
    layer = nn.Dropout(0.1)
    model = nn.ModuleDict({"a": layer, "b": nn.Sequential(layer), "c": layer})
    assert set_dropout(model, 0.5) == 1
    assert model["a"] is model["b"][0] is model["c"]
    assert type(model["a"]) is Dropout


def test_the_channel_wise_layers_stay():
    kinds = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
    model = nn.Sequential(*(kind(0.1) for kind in kinds))
    assert set_dropout(model, 0.25) == 5
    assert [type(layer) for layer in model] == list(kinds)
    assert {layer.p for layer in model} == {0.25}


def test_a_transformer_layer_and_its_attention():
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True), 2
    )
    assert set_dropout(model, 0.3) == 8
    layers = [layer for layer in model.modules() if isinstance(layer, Dropout)]
    assert len({int(layer.stream[0]) for layer in layers}) == len(layers) == 6
    assert {layer.self_attn.dropout for layer in model.layers} == {0.3}
    x = torch.randn(2, 3, 8)
    assert model(x).shape == model.eval()(x).shape


def test_float_attributes_count_where_they_act():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = 0.1
            self.dropout_p = 0.0

    own = Own()
    assert set_dropout(nn.ModuleList([own]), 0.2) == 1
    assert (own.dropout, own.dropout_p) == (0.2, 0.2)
    deep = nn.LSTM(2, 2, num_layers=2)
    assert set_dropout(deep, 0.2) == 1
    assert deep.dropout == 0.2
    with pytest.raises(ArgumentError):
        set_dropout(nn.LSTM(2, 2), 0.2)


def test_a_layer_with_hooks_or_the_model_itself_is_not_replaced():
    hooked = nn.Dropout(0.1)
    hooked.register_forward_hook(lambda *_: None)
    model = nn.Sequential(hooked)
    assert set_dropout(model, 0.5) == 1
    assert model[0] is hooked
    assert hooked.p == 0.5
    alone = nn.Dropout(0.1)
    assert set_dropout(alone, 0.5).names == ("Dropout",)


def test_a_model_without_dropout():
    with pytest.raises(ArgumentError, match=r"(?s)no dropout.*ravine.regularize.Dropout"):
        set_dropout(mlp(), 0.1)
    assert set_dropout(mlp(), 0.0) == 0
    with pytest.raises(ArgumentTypeError, match="not a torch module"):
        set_dropout([mlp()], 0.1)


def test_masks_do_not_depend_on_the_weights_start():
    def run(offset):
        torch.manual_seed(offset)
        model = mlp(nn.Dropout(0.5))
        set_dropout(model, 0.5, seed=1)
        return model[2](torch.ones(100))

    assert torch.equal(run(0), run(1))


# --- insert_dropout ------------------------------------------------------------------------------


def test_inserted_between_the_weights_only():
    model = nn.Sequential(
        nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten()),
        nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid(),
    )  # fmt: skip
    before = copy.deepcopy(model)
    changed = insert_dropout(model, 0.5)
    assert changed.names == ("0.1", "4")
    weights = dict(model.named_parameters())
    assert weights.keys() == dict(before.named_parameters()).keys()
    assert len(model) == len(before)
    x = torch.randn(3, 1, 6)[..., :4]
    assert torch.equal(model.eval()(x), before(x))
    assert not torch.equal(model.train()(x), before(x))


def test_inserted_in_the_chains_of_a_users_module():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = mlp()
            self.head = nn.Sequential(nn.ReLU(), nn.Linear(2, 1))

        def forward(self, x):
            return self.head(self.body(x))

    assert insert_dropout(Own(), 0.5).names == ("body.1", "head.0")


@pytest.mark.parametrize(
    "model", [nn.Linear(2, 1), nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()), nn.GRU(2, 2)]
)
def test_no_place_to_insert(model):
    with pytest.raises(ArgumentError, match=r"(?s)no place.*activation"):
        insert_dropout(model, 0.1)


# --- decay_groups --------------------------------------------------------------------------------


class ScaleNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))


class NormalLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Parameter(torch.zeros(12))  # flattened: one dimension, and yet a weight
        self.attention_norm_scale = nn.Parameter(torch.ones(2))


def names_of(model: nn.Module, group: dict) -> set[str]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in group["params"]}


def test_groups_by_type_and_name():
    model = nn.ModuleDict(
        {
            "linear": nn.Linear(2, 3), "batch": nn.BatchNorm1d(3), "layer": nn.LayerNorm(3),
            "group": nn.GroupNorm(1, 3), "rms": nn.RMSNorm(3), "own": ScaleNorm(3),
            "instance": nn.InstanceNorm1d(3, affine=True), "normal": NormalLayer(),
            "prelu": nn.PReLU(), "lstm": nn.LSTM(2, 2), "attention": nn.MultiheadAttention(2, 1),
            "embedding": nn.Embedding(3, 2),
        }
    )  # fmt: skip
    decayed, other = decay_groups(model, weight_decay=0.1, l1=0.2)
    assert names_of(model, decayed) == {
        "linear.weight", "normal.flat", "lstm.weight_ih_l0", "lstm.weight_hh_l0",
        "attention.in_proj_weight", "attention.out_proj.weight", "embedding.weight",
    }  # fmt: skip
    assert {key: decayed[key] for key in decayed if key != "params"} == {
        "weight_decay": 0.1,
        "l1": 0.2,
    }
    assert {key: other[key] for key in other if key != "params"} == {"weight_decay": 0, "l1": 0}
    assert len(decayed["params"]) + len(other["params"]) == len(list(model.parameters()))
    without = decay_groups(model, weight_decay=0.1, exclude_embeddings=True)
    assert "embedding.weight" in names_of(model, without[1])


def test_frozen_tied_and_parametrised_weights():
    model = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "head": nn.Linear(4, 5)})
    model["head"].weight = model["embedding"].weight
    model["head"].bias.requires_grad_(False)
    groups = decay_groups(model, weight_decay=0.1)
    assert len(groups) == 1
    assert groups[0]["params"] == [model["embedding"].weight]
    groups = decay_groups(model, weight_decay=0.1, exclude_embeddings=True)
    assert groups[0]["weight_decay"] == 0
    text = describe_groups(model, exclude_embeddings=True)
    assert "embedding.weight = head.weight" in text
    assert "0 weights decayed, 20 not decayed, 5 frozen" in text

    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    nn.utils.parametrize.register_parametrization(normed, "bias", nn.Identity())
    decayed, other = decay_groups(normed)
    assert names_of(normed, other) == {"parametrizations.bias.original"}
    assert len(decayed["params"]) == 2


def test_the_reason_is_said():
    text = describe_groups(nn.Sequential(ScaleNorm(2), nn.Linear(2, 2)), skip="1.we*")
    assert "the class name ScaleNorm contains 'norm'" in text
    assert "skip='1.we*'" in text
    assert text.splitlines()[0].split() == ["parameter", "shape", "group", "reason"]


def test_what_cannot_be_grouped():
    model = mlp()
    with pytest.raises(
        ArgumentError, match=r"(?s)skip names no parameter.*did you mean '0.weight'"
    ):
        decay_groups(model, skip=["0.wieght"])
    with pytest.raises(ArgumentError, match="decay_groups: l2"):
        decay_groups(model, l2=-1.0)
    with pytest.raises(ArgumentTypeError, match="give the model"):
        decay_groups(model.parameters())
    with pytest.raises(ArgumentError, match="all frozen"):
        decay_groups(model.requires_grad_(False))


@pytest.mark.parametrize("module", [torch.optim, ravine.optim])
def test_an_optimizer_decays_only_what_it_should(module):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = module.SGD(decay_groups(model, weight_decay=0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if name == "0.weight" else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor, rtol=1e-15, atol=0)


def test_penalties_of_ravines_optimizer_by_group():
    model = mlp().double()
    before = copy.deepcopy(model)
    optimizer = ravine.optim.SGD(decay_groups(model, l2=0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, before[0].weight * 0.9, rtol=1e-14, atol=0)
    assert torch.equal(model[0].bias, before[0].bias)
