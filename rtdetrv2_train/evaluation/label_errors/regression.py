"""Softmax regression: which kind something is, by a few numbers about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Floats = NDArray[np.float64]

_PENALTY = 1.0  # of squared coefficients, as if so many observations said that there is no effect


@dataclass(frozen=True)
class SoftmaxRegression:
    """A fitted model of F features and K kinds.

    Attributes:
        mean: ``[F]``, of the features.
        scale: ``[F]``, their standard deviations.
        coefficients: ``[F + 1, K]``, of the scaled features and of 1.
    """

    mean: Floats
    scale: Floats
    coefficients: Floats

    @classmethod
    def fit(cls, features: Floats, kinds: NDArray[np.int64], weights: Floats, num_kinds: int) -> SoftmaxRegression:
        """The most likely coefficients, with a penalty on large ones.

        Args:
            features: ``[N, F]``.
            kinds: ``[N]``, from 0.
            weights: ``[N]``, how many times each observation counts.
            num_kinds: K.
        """
        mean = np.average(features, axis=0, weights=weights)
        scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights)) + 1e-6
        inputs = _with_one((features - mean) / scale)
        wanted = weights[:, None] * np.eye(num_kinds)[kinds]
        shape = (inputs.shape[1], num_kinds)

        def loss(flat: Floats) -> tuple[float, Floats]:
            coefficients = flat.reshape(shape)
            logs = _log_softmax(inputs @ coefficients)
            penalised = coefficients.copy()
            penalised[-1] = 0
            gradient = inputs.T @ (weights[:, None] * np.exp(logs) - wanted) + _PENALTY * penalised
            return float(-(wanted * logs).sum() + _PENALTY / 2 * (penalised**2).sum()), gradient.ravel()

        found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 500})
        return cls(mean, scale, found.x.reshape(shape))

    def probabilities(self, features: Floats) -> Floats:
        """The probability of each kind, ``[N, K]``."""
        return np.exp(_log_softmax(_with_one((features - self.mean) / self.scale) @ self.coefficients))


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def _log_softmax(values: Floats) -> Floats:
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
