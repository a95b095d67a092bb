"""The exact bound of the best factorised model of 2015's heartbeat, in double precision.

What matters of x_t is how many of the bits of each phase are 1: (places of a phase + 1)^phases counts.
"""

import itertools

import numpy as np
import scipy.stats

PHASES, PLACES = 5, 4


def terms(steps, p):
    """The chain's term of each step k = 1 ... steps, in nats, for beta_k = 1 / (steps - k + 1)."""
    counts = np.asarray(list(itertools.product(range(PLACES + 1), repeat=PHASES)))
    kept = 1 - np.arange(steps + 1) / steps
    found = np.zeros(steps)
    for k in range(1, steps + 1):
        a, before = kept[k], kept[k - 1]
        within = a / before
        one = (1 - a) * p + a * np.asarray([0, 1])  # q(x_t = 1 | x_0 = 0, 1)
        chance = np.prod(
            scipy.stats.binom.pmf(counts, PLACES, np.where(np.arange(PHASES) == 0, one[1], one[0])), axis=1
        )
        with np.errstate(divide="ignore"):
            logs = counts * np.log(one[1] / one[0]) + (PLACES - counts) * np.log((1 - one[1]) / (1 - one[0]))
        phase = np.exp(logs - np.max(logs, axis=1, keepdims=True))
        phase /= np.sum(phase, axis=1, keepdims=True)
        for x, x0 in itertools.product((0, 1), repeat=2):
            forward = within * (np.arange(2) == x) + (1 - within) * (p if x else 1 - p)  # q(x_t = x | x_s = 0, 1)
            first = (1 - before) * p + before * np.asarray([0, 1])  # q(x_s = 1 | x_0 = 0, 1)
            joint = np.stack([forward[0] * (1 - first), forward[1] * first])  # x_s, x_0
            posterior = joint[1] / np.sum(joint, axis=0)
            groups = [0] if x0 else range(1, PHASES)
            for group in groups:
                others = np.sum(np.delete(phase, group, axis=1), axis=1)  # 1 - phase has no digits near 1
                model = np.stack([phase[:, group] * side[1] + others * side[0] for side in (posterior, 1 - posterior)])
                q, bits = posterior[x0], counts[:, group] if x else PLACES - counts[:, group]
                weight = chance * bits
                truth = np.broadcast_to(np.asarray([[q], [1 - q]]), model.shape)
                found[k - 1] += np.sum(scipy.stats.entropy(truth, model)[weight > 0] * weight[weight > 0])
    return found


def bounds(steps, p):
    """The variational bound, and that of 2015, which counts H(x_1 | x_0) for the last step, in bits a sequence."""
    every = terms(steps, p) / np.log(2)
    flip = np.asarray([p, 1 - p]) / steps  # of a 0, of a 1
    first = scipy.stats.entropy(np.stack([flip, 1 - flip]), base=2) @ [PLACES * (PHASES - 1), PLACES]
    return -np.sum(every), -np.sum(every[1:]) - first
