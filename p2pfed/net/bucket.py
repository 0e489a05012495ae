"""How much somebody may ask for: a rate, some of it at once, and a debt for what cost more than it seemed."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Bucket:
    """Lets `rate` a second through, and `burst` at once."""

    rate: float
    burst: float
    at: float
    """When it was looked at last, in seconds."""
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Whether `cost` is within the rate at `now`; only then it is taken."""
        if self._fill(now) < cost:
            return False
        self.tokens -= cost
        return True

    def owe(self, now: float, cost: float) -> float:
        """Take `cost`, whatever is left; answers the seconds until that is made good."""
        self.tokens = self._fill(now) - cost
        return max(0.0, -self.tokens / self.rate)

    def _fill(self, now: float) -> float:
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        return self.tokens
