"""How a node merges the models of others into its own: the rules, and the registry they are named in.

The default, `clip`, is self-centred: it answers with the node's own model moved towards others, and bounds how far by
the node's own recent training, so that no vector whatever, and no number of peers, can throw the model away. The other
rules are the field's, to be measured beside it.
"""

from p2pfed.core.aggregation.clip import Clip, Clipped
from p2pfed.core.aggregation.coordinates import Median, TrimmedMean
from p2pfed.core.aggregation.distances import GeometricMedian, Krum, MultiKrum, NearestNeighbours
from p2pfed.core.aggregation.geometry import coordinate_median
from p2pfed.core.aggregation.mean import Mean
from p2pfed.core.aggregation.registry import (
    PARAMETERS,
    RULES,
    code_allowed,
    is_foreign,
    rule_from_name,
    rule_problem,
)
from p2pfed.core.aggregation.rule import AggregationRule, Candidate, KnowsTraining, Loss, Merged, SeesLoss
from p2pfed.core.aggregation.screening import Balance, Ubar

__all__ = [
    "PARAMETERS",
    "RULES",
    "AggregationRule",
    "Balance",
    "Candidate",
    "Clip",
    "Clipped",
    "GeometricMedian",
    "Krum",
    "Loss",
    "Mean",
    "Median",
    "Merged",
    "MultiKrum",
    "NearestNeighbours",
    "KnowsTraining",
    "SeesLoss",
    "TrimmedMean",
    "Ubar",
    "coordinate_median",
    "code_allowed",
    "is_foreign",
    "rule_from_name",
    "rule_problem",
]
