"""Many banks' models trained side by side: the ManyLearner which fills stacks with jobs and empties them.

Stacks have one width: smaller ones are filled up with slots that stand still, and so does a bank that has fewer steps
than its neighbours. A job's numbers therefore do not depend on the jobs that it shares a stack with.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import itemgetter
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from p2pfed.core.model import ModelSpec, TrainingPolicy
from p2pfed.learning.learner import (
    BETA1,
    BETA2,
    AdamState,
    EvaluateJob,
    Evaluation,
    StackedBank,
    TrainJob,
    TrainResult,
    batches,
    mask_seed,
    measure,
    refuse_two_of_one_bank,
    training_rows,
)
from p2pfed.learning.stack import compiled
from p2pfed.learning.threads import confine_tensorflow

PROCESSORS = os.cpu_count() or 1

confine_tensorflow(PROCESSORS)


class StackedLearner:
    """ManyLearner over one pooled tensor of all banks' training rows and one compiled Stack of `width` slots.

    Stacks are trained side by side, one on each processor. A bank's optimiser state is kept as the bytes it was handed
    out in, so that whoever stores them shares the memory.
    """

    def __init__(
        self, spec: ModelSpec, policy: TrainingPolicy, banks: Sequence[StackedBank], *, width: int = 16
    ) -> None:
        """`width` is the most banks in a stack: few banks make two stacks. Raises ValueError if one has no row."""
        self._spec, self._policy, self._banks = spec, policy, banks
        self._width = min(width, -(-len(banks) // 2))
        self._schema = spec.schema()
        self._fresh = AdamState.fresh(self._schema.size)
        rows = [training_rows(spec, bank.rows) for bank in banks]
        if not all(map(len, rows)):
            raise ValueError("a learner needs at least one row to train on")
        # one gather fetches a batch with its labels; bank b's rows lie between starts[b] and starts[b + 1]
        pool = np.empty((sum(map(len, rows)), spec.inputs + 1), np.float32)
        np.concatenate([part.features for part in rows], out=pool[:, :-1])
        np.concatenate([part.labels for part in rows], out=pool[:, -1])
        self._pool = tf.constant(pool)
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in rows])])
        self._states = [b""] * len(banks)
        self._stack = compiled(spec, policy.batch, self._width)

    def train(self, jobs: Sequence[TrainJob]) -> list[TrainResult]:
        """See `ManyLearner.train`."""
        refuse_two_of_one_bank(jobs)
        tasks = [(job, self._state(job)) for job in jobs]
        # banks with like numbers of steps share a stack: the shorter ones stand still for less long
        order = sorted(range(len(jobs)), key=lambda i: self._rows(jobs[i].bank))
        stacks = [[tasks[i] for i in order[start : start + self._width]] for start in range(0, len(jobs), self._width)]
        with ThreadPoolExecutor(PROCESSORS) as threads:
            trained = [result for part in threads.map(self._train, stacks) for result in part]
        results = [result for _, result in sorted(zip(order, trained, strict=True), key=itemgetter(0))]
        for job, result in zip(jobs, results, strict=True):
            self._states[job.bank] = result.optimiser
        return results

    def evaluate(self, jobs: Sequence[EvaluateJob]) -> list[Evaluation]:
        """See `ManyLearner.evaluate`."""

        def answer(job: EvaluateJob) -> Evaluation:
            bank = self._banks[job.bank]
            return measure(self._spec, job.vector, bank.rows, bank.threshold)

        # numpy gives Python's lock away in products and sorts, which is where the time goes
        with ThreadPoolExecutor(PROCESSORS) as threads:
            return list(threads.map(answer, jobs))

    def forget(self, bank: int) -> None:
        """See `ManyLearner.forget`."""
        self._states[bank] = b""

    def _state(self, job: TrainJob) -> AdamState:
        self._schema.split(job.vector)
        data = job.optimiser or self._states[job.bank]
        return AdamState.from_bytes(data, self._schema.size) if data else self._fresh

    def _rows(self, bank: int) -> int:
        return int(self._starts[bank + 1] - self._starts[bank])

    def _train(self, tasks: Sequence[tuple[TrainJob, AdamState]]) -> list[TrainResult]:
        """Train at most `width` banks side by side."""
        begin = time.perf_counter()
        drawn = [batches(self._policy, self._rows(job.bank), self._banks[job.bank].seed, job.round) for job, _ in tasks]
        arguments = self._arguments(tasks, drawn)
        weights, mean, square, losses = self._stack.train(self._pool, *arguments)
        seconds = (time.perf_counter() - begin) / len(tasks)
        results = []
        for i, ((_, before), rows) in enumerate(zip(tasks, drawn, strict=True)):
            finite = np.isfinite(weights[i]).all()
            state = AdamState(before.step + len(rows), mean[i], square[i]) if finite else self._fresh
            loss = float(losses[i]) / len(rows)
            results.append(TrainResult(weights[i].copy(), state.to_bytes(), loss, len(rows), seconds))
        return results

    def _arguments(
        self, tasks: Sequence[tuple[TrainJob, AdamState]], drawn: Sequence[NDArray[np.int32]]
    ) -> tuple[NDArray[Any], ...]:
        """What `Stack.train` takes; unused steps and slots have the rate 0, at which a slot stands still."""
        width, longest = self._width, max(map(len, drawn))
        indices = np.zeros((longest, width, self._policy.batch), np.int32)
        rates = np.zeros((longest, width), np.float32)
        seeds, positive = np.zeros(width, np.int32), np.ones(width, np.float32)
        weights, mean, square = (np.zeros((width, self._schema.size), np.float32) for _ in range(3))
        for i, ((job, state), rows) in enumerate(zip(tasks, drawn, strict=True)):
            bank, steps = self._banks[job.bank], len(rows)
            indices[:steps, i] = rows + self._starts[job.bank]
            count = np.arange(state.step + 1, state.step + steps + 1)
            rates[:steps, i] = self._policy.rate(job.round) * np.sqrt(1 - BETA2**count) / (1 - BETA1**count)
            seeds[i], positive[i] = mask_seed(bank.seed, job.round), bank.positive_weight
            weights[i], mean[i], square[i] = job.vector, state.mean, state.square
        return indices, rates, seeds, positive, weights, mean, square
