"""How long things take in a scenario, and how long they may."""

from __future__ import annotations

from p2pfed.learning.learner import training_rows
from p2pfed.sim.churn import timetable
from p2pfed.sim.population import Population, Roles
from p2pfed.sim.scenario import Scenario

PATIENCE = 10
"""A simulation that takes so many times longer than it should, in virtual time, is ended."""

AFTER_ROUNDS = 5
"""A node's closing merges and its last evaluation cost about as much as so many rounds."""


def usual_seconds(p: Population, scenario: Scenario) -> list[float]:
    """Of a round's training at each node."""
    model, policy = p.manifest.model, p.manifest.training
    rows = [len(training_rows(model, bank.rows)) for bank in p.banks]
    steps = [policy.local_steps or -(-count // policy.batch) for count in rows]
    one_step = scenario.compute.seconds_per_step
    return [n * one_step * p.roles.stragglers.get(i, 1.0) for i, n in enumerate(steps)]


def longest(s: Scenario, roles: Roles, slowest: float) -> float:
    """Virtual seconds after which something must be wrong; `slowest` is what the slowest round of training takes."""
    fixed = max([at for at, _, _ in timetable(s, roles)] + [outage.end for outage in s.outages])
    away = 1 + s.churn.mean_down / s.churn.mean_up if s.churn else 1
    one_round = max(slowest, s.gossip.round_interval_seconds)
    rounds = s.rounds + 10
    if s.calendar is not None:
        calendar = s.agreed_calendar
        fixed = max(fixed, (calendar.begins(s.calendar.cycles - 1) + calendar.length) / (1 - s.clock_skew.drift))
        one_round, rounds = max(one_round, calendar.round_seconds), AFTER_ROUNDS
    usual = s.compute.load_seconds + s.gossip.adoption_seconds + rounds * one_round
    return fixed + PATIENCE * (usual * away + 60 * s.gossip.heartbeat_seconds)
