"""How a node merges the models of others into its own: the rules, and the registry they are named in.

Every rule is self-centred: it answers with the node's own model moved towards others. The default, `clip`, bounds how
far by the node's own recent training, so that no vector whatever, and no number of peers, can throw the model away.
"""

from p2pfed.core.aggregation.clip import Clip
from p2pfed.core.aggregation.geometry import coordinate_median
from p2pfed.core.aggregation.mean import Mean
from p2pfed.core.aggregation.registry import RULES, rule_from_name
from p2pfed.core.aggregation.rule import AggregationRule, Candidate, Merged

__all__ = ["RULES", "AggregationRule", "Candidate", "Clip", "Mean", "Merged", "coordinate_median", "rule_from_name"]
