"""log_prob of Gaussians of any width is exact to its stated error at the default options, whatever the process."""

import numpy as np
import pytest
from widths import PROCESSES, certificates, errors


@pytest.mark.slow_except("2-VP", "2-Rectified", "2-pure noise")
@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("dim", [2, 64, 3072])
def test_errors_are_those_of_rounding(process, dim):
    error, quadratic, log_volume, _ = errors(PROCESSES[process], dim)
    # Both parts of log p = -quadratic - log_volume are summed in float32, over as many as a hundred steps.
    rounding = 16 * np.finfo(np.float32).eps * (quadratic + np.abs(log_volume))
    assert np.all(error <= max(1e-3, 1e-6 * dim) + rounding)
    if dim < 1000:
        assert np.all(error[:3] <= 1e-3)  # up to three deviations


def test_levels_beyond_the_width_of_any_data_take_few_steps():
    pure_noise, rectified = (np.asarray(errors(PROCESSES[name], 2)[3].nfe) for name in ("pure noise", "Rectified"))
    assert np.all(pure_noise <= rectified + 36)  # Six steps; 78 to 102 more, were no step longer there.


@pytest.mark.slow_except("mixed-VP")
@pytest.mark.parametrize("process", ["VP", "VE"])
@pytest.mark.parametrize("kind", ["isotropic", "mixed", "one"])
def test_no_certificate_is_false(process, kind):
    error, converged, _ = certificates(PROCESSES[process], 8, kind, accuracy=0.01, n=128, seed=0)
    assert np.all(error[converged] <= 0.01)
    assert np.mean(converged) > 0.97
