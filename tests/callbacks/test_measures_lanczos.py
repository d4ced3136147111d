"""Lanczos on operators of known spectrum."""

from __future__ import annotations

import pytest
import torch
from otoscope.callbacks.measures import lanczos
from otoscope.store import ConfigError
from torch import Tensor


def operator(spectrum: Tensor, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(spectrum), len(spectrum))
    rotation = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=torch.float64)).Q
    return rotation @ torch.diag(spectrum) @ rotation.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_values_come_first_with_their_vectors(dtype):
    spectrum = torch.cat([torch.tensor([9.0, 7.0, 5.5, -3.0]), torch.linspace(0, 1, 60)]).double()
    matrix = operator(spectrum).to(dtype)

    found = lanczos(matrix.mv, torch.ones(64, dtype=dtype), k=3, tol=1e-4)

    expected = torch.tensor([9.0, 7.0, 5.5], dtype=torch.float64)
    torch.testing.assert_close(found.values, expected, rtol=1e-4, atol=0)
    assert found.smallest == pytest.approx(-3.0, rel=1e-3)
    images = (matrix @ found.vectors.T).T
    torch.testing.assert_close(
        images, found.vectors * found.values[:, None].to(dtype), rtol=0, atol=0.02
    )


def test_products_are_counted_and_capped():
    calls = []
    matrix = operator(torch.linspace(-1, 1, 50).double())

    def product(v: Tensor) -> Tensor:
        calls.append(1)
        return matrix @ v

    found = lanczos(product, torch.ones(50).double(), k=2, tol=0, max_products=7)
    assert found.products == len(calls) == len(found.ritz_values) == 7


def test_it_stops_when_the_bounds_are_within_the_tolerance():
    spectrum = torch.cat([torch.tensor([100.0]), torch.ones(99)]).double()
    found = lanczos(operator(spectrum).mv, torch.ones(100).double(), k=1, tol=1e-3)
    assert found.products <= 3
    assert found.values[0].item() == pytest.approx(100.0)


def test_sixty_products_raise_no_ghosts():
    spectrum = torch.cat([torch.tensor([50.0]), torch.linspace(0, 1, 99)]).float()
    found = lanczos(
        operator(spectrum.double()).float().mv, torch.ones(100), k=5, tol=0, max_products=60
    )
    assert found.values[0].item() == pytest.approx(50.0, rel=1e-4)
    assert found.values[1].item() <= 1.001


def test_a_start_within_an_invariant_space_still_gives_k_values():
    diagonal = torch.tensor([4.0, 3.0, 2.0, 1.0]).double()
    start = torch.tensor([0.0, 0.0, 1.0, 0.0]).double()
    found = lanczos(lambda v: diagonal * v, start, k=3, max_products=4)
    torch.testing.assert_close(found.values, torch.tensor([4.0, 3.0, 2.0]).double())
    # The start's energy lies where the start lies.
    assert found.ritz_weights[(found.ritz_values - 2).abs().argmin()].item() == pytest.approx(1.0)


def test_the_weights_are_the_energy_of_the_start_over_the_spectrum():
    diagonal = torch.tensor([8.0, 2.0]).double()
    found = lanczos(lambda v: diagonal * v, torch.tensor([3.0, 4.0]).double(), k=1, max_products=2)
    torch.testing.assert_close(found.ritz_values, torch.tensor([2.0, 8.0]).double())
    torch.testing.assert_close(found.ritz_weights, torch.tensor([0.64, 0.36]).double())


def test_the_same_input_gives_the_same_bits():
    matrix = operator(torch.linspace(-1, 3, 40).double()).float()
    one, two = (lanczos(matrix.mv, torch.ones(40), k=2) for _ in range(2))
    assert torch.equal(one.values, two.values)
    assert torch.equal(one.vectors, two.vectors)


@pytest.mark.parametrize("start", [torch.zeros(3), torch.tensor([1.0, float("nan")])])
def test_a_start_that_points_nowhere_is_refused(start):
    with pytest.raises(ConfigError, match="start must be finite and not zero"):
        lanczos(lambda v: v, start)


def test_a_product_that_is_not_finite_is_an_error_not_a_value():
    with pytest.raises(FloatingPointError, match="product 1"):
        lanczos(lambda v: v * float("inf"), torch.ones(3))


SPECTRA = {
    "degenerate": [5.0, 5.0, 5.0, 2.0, 2.0, -1.0],
    "negative": [-0.5, -1.0, -2.0, -4.0, -8.0, -16.0],
    "mixed": [3.0, 1.0, 0.0, 0.0, -2.0, -7.0],
    "tiny": [3e-12, 2e-12, 1e-12, 0.0, 0.0, -1e-12],
}


@pytest.mark.parametrize("name", SPECTRA)
def test_the_whole_of_a_small_spectrum_is_found_with_multiplicities(name):
    spectrum = torch.tensor(SPECTRA[name], dtype=torch.float64)
    size = float(spectrum.abs().max())

    found = lanczos(operator(spectrum).mv, torch.ones(6).double(), k=6, max_products=6)

    torch.testing.assert_close(found.values, spectrum, rtol=0, atol=1e-9 * size)
    assert found.smallest == pytest.approx(float(spectrum.min()), abs=1e-9 * size)
    assert found.ritz_weights.sum().item() == pytest.approx(1)


def test_an_operator_of_zeros_has_eigenvalues_of_zero():
    found = lanczos(torch.zeros_like, torch.ones(5), k=2)
    assert found.values.tolist() == [0.0, 0.0]
    assert found.bounds.tolist() == [0.0, 0.0]


def test_one_dimension_has_one_eigenvalue_whatever_is_asked_for():
    found = lanczos(lambda v: -4 * v, torch.tensor([2.0]), k=3, max_products=10)
    assert found.values.tolist() == [-4.0]
    assert (found.products, found.smallest, found.ritz_weights.tolist()) == (1, -4.0, [1.0])


def test_more_values_than_dimensions_give_as_many_as_there_are():
    diagonal = torch.tensor([1.0, 3.0, 2.0]).double()
    found = lanczos(lambda v: diagonal * v, torch.ones(3).double(), k=8, max_products=20)
    torch.testing.assert_close(found.values, torch.tensor([3.0, 2.0, 1.0]).double())
    assert found.vectors.shape == (3, 3)


@pytest.mark.parametrize(
    ("start", "asked", "said"),
    [
        (torch.ones(2, 2), {}, r"vector of floating numbers, got \(2, 2\)"),
        (torch.ones(3, dtype=torch.long), {}, "vector of floating numbers, got .* of torch.int64"),
        (torch.ones(3), {"k": 0}, "got k=0"),
        (torch.ones(3), {"k": 5, "max_products": 4}, "max_products at least k"),
        (torch.ones(3), {"tol": -1.0}, "tol=-1.0"),
        (torch.ones(0), {}, "start must be finite and not zero"),
    ],
)
def test_what_cannot_be_asked_is_refused(start, asked, said):
    with pytest.raises(ConfigError, match=said):
        lanczos(lambda v: v, start, **asked)


def test_an_operator_that_changes_the_size_is_refused():
    with pytest.raises(ConfigError, match=r"map a vector \[3\] to one of that size, got \(1,\)"):
        lanczos(lambda v: v[:1], torch.ones(3))
