"""Softmax regression: which kind something is, by a few numbers about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_PENALTY = 1.0  # of squared coefficients, as if so many observations said that there is no effect
_PENALTY_OF_ONE = 1e-3  # of those of 1, so that a kind that never occurs has one
_STEPS, _HALVINGS, _SMALL = 50, 30, 1e-7


@dataclass(frozen=True)
class SoftmaxRegression:
    """A fitted model of F features and K kinds, of which the first is what the others are compared with.

    Attributes:
        mean: ``[F]``, of the features.
        scale: ``[F]``, their standard deviations.
        coefficients: ``[F + 1, K - 1]``, of the scaled features and of 1.
    """

    mean: Floats
    scale: Floats
    coefficients: Floats

    @classmethod
    def fit(cls, features: Floats, kinds: NDArray[np.int64], weights: Floats, num_kinds: int) -> SoftmaxRegression:
        """The most likely coefficients, with a penalty on large ones; by Newton's method.

        Args:
            features: ``[N, F]``.
            kinds: ``[N]``, from 0.
            weights: ``[N]``, how many times each observation counts.
            num_kinds: K.
        """
        mean = np.average(features, axis=0, weights=weights)
        scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights)) + 1e-6
        inputs = _with_one((features - mean) / scale)
        problem = _Problem(inputs, np.eye(num_kinds)[kinds], weights)
        coefficients = np.zeros((inputs.shape[1], num_kinds - 1))
        loss = problem.loss(coefficients)
        for _ in range(_STEPS):
            step = problem.newton_step(coefficients)
            for _ in range(_HALVINGS):
                if (new_loss := problem.loss(coefficients + step)) <= loss:
                    break
                step /= 2
            coefficients = coefficients + step
            converged = loss - new_loss < _SMALL * max(loss, 1.0)
            loss = new_loss
            if converged:
                break
        return cls(mean, scale, coefficients)

    def probabilities(self, features: Floats) -> Floats:
        """The probability of each kind, ``[N, K]``."""
        return np.exp(_log_softmax(_with_one((features - self.mean) / self.scale) @ self.coefficients))


@dataclass(frozen=True)
class _Problem:
    """What is minimised: inputs ``[N, F + 1]``, kinds as ``[N, K]`` of 0 and 1, weights ``[N]``."""

    inputs: Floats
    wanted: Floats
    weights: Floats

    def loss(self, coefficients: Floats) -> float:
        logs = _log_softmax(self.inputs @ coefficients)
        likelihood = self.weights @ (self.wanted * logs).sum(axis=1)
        return float(0.5 * (self._penalties[:, None] * coefficients**2).sum() - likelihood)

    def newton_step(self, coefficients: Floats) -> Floats:
        num_inputs, others = coefficients.shape
        shares = np.exp(_log_softmax(self.inputs @ coefficients))[:, 1:]
        wrong = self.weights[:, None] * (shares - self.wanted[:, 1:])
        gradient = self.inputs.T @ wrong + self._penalties[:, None] * coefficients
        hessian = np.zeros((others, num_inputs, others, num_inputs))
        for one in range(others):
            for other in range(others):
                curvature = self.weights * shares[:, one] * ((one == other) - shares[:, other])
                hessian[one, :, other] = self.inputs.T @ (curvature[:, None] * self.inputs)
            hessian[one, :, one] += np.diag(self._penalties)
        size = others * num_inputs
        step = np.linalg.solve(hessian.reshape(size, size), -gradient.T.ravel())
        return step.reshape(others, num_inputs).T

    @property
    def _penalties(self) -> Floats:
        return np.append(np.full(self.inputs.shape[1] - 1, _PENALTY), _PENALTY_OF_ONE)


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1))], axis=1)


def _log_softmax(values: Floats) -> Floats:
    """Logarithms of the shares of all kinds, ``[N, K]``, by the values of all but the first, which has 0."""
    values = np.concatenate([np.zeros((len(values), 1)), values], axis=1)
    shifted = values - values.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
