"""What matrix rules compute with: singular values and roots on hard matrices, against SVD and eigh."""

from __future__ import annotations

import pytest
import torch

from ravine.rules import matrices

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
CUBIC = (1.5, -0.5, 0.0)  # converges to exactly 1


def orthogonalised(x, *, coefficients=COEFFICIENTS, steps=5, eps=1e-7, dtype=torch.float64):
    return matrices.newton_schulz(x, coefficients, steps, eps, dtype)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e30, 1e150])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 5), (20, 3), (3, 20), (2, 4, 3, 5)])
def test_singular_values_come_near_one(shape, scale):
    x = scale * torch.randn(shape, dtype=torch.float64)
    result = orthogonalised(x)
    assert result.shape == x.shape
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.5
    assert values.max() < 1.25


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (2, 6, 4)])
def test_a_converging_polynomial_gives_the_polar_factor(shape):
    x = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    result = orthogonalised(x, coefficients=CUBIC, steps=60)
    torch.testing.assert_close(result, u @ v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_singular_vectors_stay_and_ranks_too(dtype):
    """Of a matrix of rank 2 the other directions stay near zero."""
    u, _ = torch.linalg.qr(torch.randn(8, 2, dtype=torch.float64))
    v, _ = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))
    x = u @ torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)) @ v.T
    result = orthogonalised(x, dtype=dtype).double()
    inside = u.T @ result @ v
    off = 0.05 if dtype is torch.bfloat16 else 1e-4
    assert torch.linalg.svdvals(inside).min() > 0.6
    if dtype is not torch.bfloat16:  # whose rounding grows in the null space, as torch's does
        assert (result - u @ inside @ v.T).abs().max() < off
        assert abs(inside - torch.diag(inside.diag())).max() < off


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_zero_stays_zero_and_beside_it_nothing_changes(dtype):
    x = torch.randn(3, 4, 6, dtype=torch.float64)
    x[1] = 0
    result = orthogonalised(x, dtype=dtype)
    assert (result[1] == 0).all()
    assert torch.linalg.svdvals(result[[0, 2]].double()).min() > 0.5


def test_tiny_is_divided_by_eps_as_torch_does():
    x = 1e-30 * torch.randn(4, 4, dtype=torch.float64)
    result = orthogonalised(x, eps=1e-7)
    torch.testing.assert_close(result, COEFFICIENTS[0] ** 5 * x / 1e-7, rtol=1e-12, atol=0)
    assert torch.linalg.svdvals(orthogonalised(x, eps=0.0)).min() > 0.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_huge_numbers_do_not_overflow_in_the_norm(dtype):
    """torch.optim.Muon's norm is infinite here, and its update zero."""
    x = 1e30 * torch.randn(6, 4)
    result = orthogonalised(x, dtype=dtype)
    assert torch.linalg.svdvals(result.float()).min() > 0.4


def test_nan_and_infinity_come_out_as_nan_without_touching_others():
    x = torch.randn(3, 4, 4, dtype=torch.float64)
    want = orthogonalised(x)
    x[0, 1, 2], x[2, 0, 0] = torch.nan, torch.inf
    result = orthogonalised(x)
    assert result[0].isnan().all()
    assert result[2].isnan().all()
    torch.testing.assert_close(result[1], want[1], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (1, 5), (5, 1)])
def test_one_matrix_is_torchs_to_the_bit(shape, dtype):
    from torch.optim._muon import _zeropower_via_newtonschulz

    x = torch.randn(shape)
    theirs = _zeropower_via_newtonschulz(x, COEFFICIENTS, 5, 1e-7)
    ours = orthogonalised(x[None], dtype=torch.bfloat16)
    assert torch.equal(ours[0], theirs)


@pytest.mark.parametrize("order", [2, 4, 6])
def test_inverse_root_of_stacks_with_diagonals(order):
    half = torch.randn(3, 5, 5, dtype=torch.float64)
    squares = half @ half.mT + 0.1 * torch.eye(5, dtype=torch.float64)
    root = matrices.inverse_root(squares, order, 1e-12)
    product = torch.linalg.matrix_power(root, order) @ squares
    torch.testing.assert_close(product, torch.eye(5).double().expand(3, 5, 5), rtol=0, atol=1e-9)
    diagonals = squares.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(
        matrices.inverse_root(diagonals, order, 1e-12), diagonals ** (-1 / order)
    )


def test_inverse_root_of_what_is_singular_or_not_finite():
    squares = torch.zeros(3, 2, 2)
    squares[1] = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # an eigenvalue of zero
    squares[2, 0, 0] = torch.nan
    root = matrices.inverse_root(squares, 4, 1e-4)
    torch.testing.assert_close(root[0], 10.0 * torch.eye(2), rtol=1e-5, atol=1e-5)
    assert root[1].isfinite().all()
    assert torch.linalg.eigvalsh(root[1]).max() < 10.001
    assert root[2].isnan().all()


def test_eigenbasis_is_sorted_and_refined_by_one_power_iteration():
    q, _ = torch.linalg.qr(torch.randn(2, 4, 4, dtype=torch.float64))
    values = torch.tensor([1.0, 100.0, 10.0, 1000.0], dtype=torch.float64)
    h = q @ torch.diag(values) @ q.mT
    basis = matrices.eigenbasis(h)
    spectrum = (basis.mT @ h @ basis).diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(spectrum, values.sort(descending=True)[0].expand(2, 4))
    # From a disturbed, shuffled basis: back in order, and nearer by the ratio of eigenvalues.
    shuffled = torch.linalg.qr(basis + 0.02 * torch.randn(2, 4, 4, dtype=torch.float64))[0]
    shuffled = shuffled[..., [2, 0, 3, 1]]
    refined, order = matrices.refined_eigenbasis(h, shuffled)
    assert order.tolist() == [[1, 3, 0, 2]] * 2

    def error(b):
        b = b.mT @ h @ b
        return (b / (b.diagonal(dim1=-2, dim2=-1)).sqrt()[..., None]).tril(-1).abs().max()

    assert error(refined) < 0.3 * error(shuffled[..., [1, 3, 0, 2]])
    identity = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(refined.mT @ refined, identity, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_along_and_gram_are_einsum(dim):
    stack = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    size = stack.size(dim + 1)
    m = torch.randn(2, size, size, dtype=torch.float64)
    letters = "abc"
    new = letters.replace(letters[dim], "z")
    want = torch.einsum(f"nz{letters[dim]},n{letters}->n{new}", m, stack)
    torch.testing.assert_close(matrices.along(stack, dim, m), want)
    want = torch.einsum(f"n{new},n{letters}->nz{letters[dim]}", stack, stack)
    torch.testing.assert_close(matrices.gram(stack, dim), want)
    want = want.diagonal(dim1=-2, dim2=-1)
    torch.testing.assert_close(matrices.gram(stack, dim, diagonal=True), want)
    diagonal = torch.randn(2, size, dtype=torch.float64)
    want = matrices.along(stack, dim, torch.diag_embed(diagonal))
    torch.testing.assert_close(matrices.along(stack, dim, diagonal), want)


def test_as_matrices():
    assert matrices.as_matrices(torch.zeros(2, 3, 4)).shape == (2, 3, 4)
    assert matrices.as_matrices(torch.zeros(2, 3, 4, 5)).shape == (2, 3, 4, 5)
    assert matrices.as_matrices(torch.zeros(2, 3, 4, 5), stacked=False).shape == (2, 3, 20)
    assert matrices.as_matrices(torch.zeros(2, 3, 4, 5, 6)).shape == (2, 3, 120)
    assert matrices.as_matrices(torch.zeros(2, 3, 4, 5, 6), stacked=True).shape == (2, 3, 4, 5, 6)
