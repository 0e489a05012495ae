"""What this node thinks of each peer, by first-hand evidence alone.

`params` has every number with what it trades off; `assess` says of one model how bad it is, and is a pure function;
`yardstick` keeps what it is measured in; `ledger` adds evidence up to a standing, `explanation` says why and what would
change it; `judging` joins them.
"""

from p2pfed.core.reputation.judging import Judged, Reputation
from p2pfed.core.reputation.params import ReputationParams

__all__ = ["Judged", "Reputation", "ReputationParams"]
