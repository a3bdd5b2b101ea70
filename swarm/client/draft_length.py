"""How many tokens to draft: as many as make a token cheapest, from how often drafts are right and what their rows cost.

With a share `a` of right tokens, a draft of d tokens gives 1 + a + ... + a^d; its traversal takes `fixed + work x touched(1 + d)`:
what does not depend on rows (links, Python), and reading the weights that so many rows touch. Both are measured as they come.
"""

from __future__ import annotations

from collections import defaultdict

from swarm.config import ModelConfig

MOST = 16
"""Tokens of a draft."""
GAIN = 1.05
"""What a draft must promise at least: tokens a second over those without."""
KEPT_TOKENS, KEPT_TIMES = 0.9, 0.95
"""How much of what was seen of either counts one observation later."""
PRIOR = 2.0
"""Observations, half of them right, that stand for what was not seen yet."""
CAUTION = 0.01
"""How strongly one kind of traversal alone speaks for its time being all work: until others are seen, rows are dear."""


class DraftLength:
    """Decides for one Session.

    Args:
        config: the model, for what share of its weights so many rows touch.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._touched = tuple(_touched(config, rows) for rows in range(1, MOST + 2))
        self._seen: defaultdict[int, list[float]] = defaultdict(lambda: [PRIOR / 2, PRIOR])  # by ground: right, all
        self._sums = [0.0] * 5  # of 1, x, x x, y, x y: x weights touched, y seconds

    def verified(self, ground: int, drafted: int, right: int) -> None:
        """So many tokens of a draft were right, up to its first wrong one. A draft that was not sent counts like one that was."""
        seen = self._seen[ground]
        for token in range(min(right + 1, drafted)):
            seen[0] = KEPT_TOKENS * seen[0] + (token < right)
            seen[1] = KEPT_TOKENS * seen[1] + 1

    def took(self, rows: int, seconds: float) -> None:
        """Note a traversal of one new token, or a draft."""
        if rows > len(self._touched):
            return
        x = self._touched[rows - 1]
        new = (1.0, x, x * x, seconds, x * seconds)
        self._sums = [KEPT_TIMES * old + one for old, one in zip(self._sums, new, strict=True)]

    def best(self, ground: int) -> int:
        """Tokens to draft; 0 where it does not pay, or nothing was measured yet."""
        fixed, work = self._line()
        right, every = self._seen[ground]
        share, expected, best, rate = right / every, 0.0, 0, 0.0
        for drafted, touched in enumerate(self._touched):
            expected += share**drafted
            seconds = fixed + work * touched
            if seconds > 0 and expected / seconds > (GAIN if not best else 1.0) * rate:
                best, rate = drafted, expected / seconds
        return best

    def _line(self) -> tuple[float, float]:
        """Least squares for `seconds = fixed + work x touched`, both at least 0, pulled towards no fixed part."""
        n, x, xx, y, xy = self._sums
        n += CAUTION * n
        spread = n * xx - x * x
        if spread <= 0:
            return 0.0, 0.0
        fixed, work = (y * xx - x * xy) / spread, (n * xy - x * y) / spread
        if fixed < 0:
            return 0.0, xy / xx
        return (y / self._sums[0], 0.0) if work < 0 else (fixed, work)


def _touched(config: ModelConfig, rows: int) -> float:
    """Weights that so many rows touch, over what one row does; each row draws its experts evenly."""
    qkv = (config.num_heads + 2 * config.num_kv_heads) * config.head_dim
    core = config.hidden * (qkv + config.num_heads * config.head_dim)
    expert, share = 3 * config.hidden * config.ffn, config.top_k / config.num_experts
    experts = config.num_experts * (1 - (1 - share) ** rows)
    return (core + experts * expert) / (core + config.top_k * expert)
