"""Made-up card payments of several banks, to try p2pfed with: ordinary life, and six kinds of fraud in it.

Customers pay at favourite, local, online and holiday merchants. Each kind of fraud first strikes a few banks only and
reaches the others in the last quarter of the time, so a bank that learned alone has never seen most of what hits it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from p2pfed.core.types import DAY
from p2pfed.data.windows import History
from p2pfed.errors import UsageError

LABEL = "fraud"
EVENT_TIME = "event_time"
BANK = "bank"
IDENTIFIERS = ("payment_id", "customer_id", "terminal_id", "pattern")
"""What is no feature: numbers of things, and the kind of fraud (0 is none), which is only there to study results."""

PATTERNS = ("card testing", "spree abroad", "skimmed terminal", "account takeover", "bust-out", "contactless run")
CHANNELS = ("chip", "contactless", "magstripe", "online")
CATEGORIES = ("groceries", "fuel", "restaurant", "transit", "clothing", "electronics", "travel", "gift cards")
FRAUD_SHARE = 0.008
SPREAD_FROM = 0.75
"""Share of the days after which every kind of fraud strikes every bank."""

START = 1_736_121_600  # Monday, 2025-01-06 00:00 UTC
HOUR = 3600
REGIONS = 12
PAYMENTS_A_BANK = 25_000
"""How many an experiment generates for each of its banks unless told."""
MIN_PAYMENTS = 1000

_CHIP, _CONTACTLESS, _MAGSTRIPE, _ONLINE = range(4)
_ELECTRONICS, _GIFT_CARDS = 5, 7
_PRICE = np.array([1.0, 1.3, 0.9, 0.12, 1.8, 5.0, 6.0, 1.5])
_SHARE = np.array([0.30, 0.10, 0.18, 0.14, 0.12, 0.06, 0.05, 0.05])
_SOLD_ONLINE = np.array([0.05, 0.0, 0.1, 0.1, 0.35, 0.5, 0.7, 0.8])

Ints = NDArray[Any]
"""Whole numbers, one a payment or one a customer."""
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Payments:
    """Equal-length columns; `seconds` since the start, `pattern` 0 for legitimate."""

    seconds: Ints
    customer: Ints
    terminal: Ints
    amount: Floats
    channel: Ints
    pattern: Ints

    def __len__(self) -> int:
        return len(self.seconds)

    def take(self, index: NDArray[np.intp]) -> _Payments:
        return _Payments(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def _together(parts: list[_Payments]) -> _Payments:
    return _Payments(*(np.concatenate([getattr(p, n) for p in parts]) for n in _Payments.__dataclass_fields__))


class _World:
    """Who there is: customers with their banks and habits, merchants' terminals with their places and wares."""

    def __init__(self, payments: int, banks: int, days: int, rng: np.random.Generator) -> None:
        self.rng, self.days, self.banks = rng, days, banks
        customers, terminals = max(40 * banks, payments // 60), max(240, payments // 120)
        self._found_merchants(terminals)
        self._open_accounts(customers, banks, days)

    def _found_merchants(self, terminals: int) -> None:
        rng = self.rng
        self.category = rng.choice(len(CATEGORIES), terminals, p=_SHARE)
        self.online = rng.random(terminals) < _SOLD_ONLINE[self.category]
        self.terminal_region = np.sort(rng.integers(0, REGIONS, terminals))
        self._shops = np.flatnonzero(~self.online)
        self._shop_bounds = np.searchsorted(self.terminal_region[self._shops], np.arange(REGIONS + 1))
        self._web = np.flatnonzero(self.online)
        self._web_gifts = self._web[np.isin(self.category[self._web], (_ELECTRONICS, _GIFT_CARDS))]
        self._luxury = np.flatnonzero(~self.online & (self.category == _ELECTRONICS))

    def _open_accounts(self, customers: int, banks: int, days: int) -> None:
        rng = self.rng
        sizes = np.exp(0.5 * rng.standard_normal(banks))
        self.bank = np.sort(rng.choice(banks, customers, p=sizes / sizes.sum()))
        self.bank[:banks] = np.arange(banks)  # no bank without a customer
        self.bank.sort()
        self._bank_bounds = np.searchsorted(self.bank, np.arange(banks + 1))
        # a bank is at home in three regions, which it shares with others
        self.region = (3 * self.bank + rng.integers(0, 3, customers)) % REGIONS
        self.spend = np.exp(3.1 + 0.6 * rng.standard_normal(customers))
        self.rate = rng.gamma(2.0, 0.5, customers)
        self.night = 0.3 * rng.beta(1, 6, customers)
        # the day an account was opened, most of them long before the first day
        newcomer = rng.random(customers) < 0.12
        self.opened = np.where(newcomer, rng.uniform(-90, 0.8 * days, customers), -rng.gamma(1.5, 700, customers))
        self.favourites = self.shop(np.repeat(self.region, 8)).reshape(customers, 8)
        self.trip_start = np.where(rng.random(customers) < 0.6, rng.random(customers) * days, np.inf)
        self.trip_days = 3 + rng.gamma(2.0, 2.5, customers)
        self.trip_region = (self.region + rng.integers(3, REGIONS - 3, customers)) % REGIONS

    def shop(self, region: Ints) -> Ints:
        """A random shop in each region."""
        low, high = self._shop_bounds[region], self._shop_bounds[region + 1]
        return self._shops[
            np.minimum(low + (self.rng.random(len(region)) * (high - low)).astype(int), len(self._shops) - 1)
        ]

    def web_shop(self, count: int) -> Ints:
        """A random online merchant each."""
        return self.rng.choice(self._web, count)

    def web_gifts(self, count: int) -> Ints:
        """A random online merchant of what is easily sold on."""
        return self.rng.choice(self._web_gifts if len(self._web_gifts) else self._web, count)

    def luxury(self, count: int) -> Ints:
        """A random shop of expensive things."""
        return self.rng.choice(self._luxury if len(self._luxury) else self._shops, count)

    def victim(self, bank: Ints) -> Ints:
        """A random customer of each bank."""
        low, high = self._bank_bounds[bank], self._bank_bounds[bank + 1]
        return low + (self.rng.random(len(bank)) * (high - low)).astype(int)

    def clock(self, count: int, night: Floats) -> Ints:
        """A second of the day each: the afternoon, or any hour with probability `night`."""
        awake = (14.0 + 3.7 * self.rng.standard_normal(count)) % 24
        hours = np.where(self.rng.random(count) < night, 24 * self.rng.random(count), awake)
        return (hours * HOUR).astype(np.int64)


def generate(payments: int, banks: int = 4, seed: int = 0, days: int = 120) -> pd.DataFrame:
    """`payments` card payments of `banks` banks over `days` days in order of time; the same for the same arguments.

    Columns: `event_time` (Unix seconds, UTC), `bank` (0 to banks - 1), the label `fraud` (0/1, 0.8 % are 1), the
    features, windows over the bank's own earlier payments among them, and `IDENTIFIERS`. Raises UsageError.
    """
    if payments < MIN_PAYMENTS or banks < 1 or days < 8:
        raise UsageError(f"generated data needs at least {MIN_PAYMENTS} payments, 1 bank and 8 days")
    rng = np.random.default_rng(seed)
    world = _World(payments, banks, days, rng)
    frauds = _frauds(world, round(payments * FRAUD_SHARE))
    everything = _together([_ordinary_life(world, payments - len(frauds)), frauds])
    ordered = everything.take(np.argsort(everything.seconds, kind="stable"))
    return _frame(world, ordered)


def _ordinary_life(world: _World, count: int) -> _Payments:
    """Legitimate payments, with the holidays, shopping hours and big purchases that fraud resembles."""
    rng = world.rng
    reach = np.cumsum(world.rate)
    customer = np.searchsorted(reach, rng.random(count) * reach[-1])
    weekday = np.array([1.0, 1.0, 1.0, 1.1, 1.3, 1.5, 0.8])[np.arange(world.days) % 7]
    reach = np.cumsum(weekday)
    day = np.searchsorted(reach, rng.random(count) * reach[-1])
    seconds = day * DAY + world.clock(count, world.night[customer])
    # an outing: some payments follow another of the same customer by minutes
    follows = rng.random(count) < 0.12
    leader = rng.integers(0, count, count)
    customer = np.where(follows, customer[leader], customer)
    seconds = np.where(follows, seconds[leader] + (rng.exponential(1500, count)).astype(np.int64) + 20, seconds)
    # nobody pays before the account is open: such payments are made some day after it
    too_early = seconds < world.opened[customer] * DAY
    open_days = world.days - np.maximum(world.opened[customer], 0)
    later = ((world.opened[customer] + rng.random(count) * open_days) * DAY).astype(np.int64)
    seconds = np.minimum(np.where(too_early, later, seconds), world.days * DAY - 1)
    day = seconds // DAY

    terminal = world.favourites[customer, np.minimum(rng.geometric(0.35, count) - 1, 7)]
    elsewhere = rng.random(count)
    terminal = np.where(elsewhere < 0.18, world.shop(world.region[customer]), terminal)
    online_share = 0.15 + 0.06 * day / world.days  # shopping moves to the web
    terminal = np.where(elsewhere > 1 - online_share, world.web_shop(count), terminal)
    start = world.trip_start[customer]
    away = (day >= start) & (day < start + world.trip_days[customer]) & ~world.online[terminal]
    terminal = np.where(away, world.shop(world.trip_region[customer]), terminal)

    amount = world.spend[customer] * _PRICE[world.category[terminal]] * np.exp(0.6 * rng.standard_normal(count))
    amount *= np.where(away, 1.6, 1.0) * np.where(rng.random(count) < 0.015, 4.0, 1.0) * _inflation(world, seconds)
    channel = np.where(rng.random(count) < 0.75 - 0.5 * (amount > 50), _CONTACTLESS, _CHIP)
    channel = np.where(rng.random(count) < np.where(away, 0.12, 0.015), _MAGSTRIPE, channel)
    channel = np.where(world.online[terminal], _ONLINE, channel)
    return _Payments(seconds, customer, terminal, amount, channel, np.zeros(count, np.int64))


def _inflation(world: _World, seconds: Ints) -> Floats:
    return 1 + 0.08 * seconds / (world.days * DAY)


# --- fraud ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Incidents:
    """The payments of one kind of fraud by incident: which, when it began, whose, and the how-manieth payment it is."""

    incident: Ints
    start: Ints
    customer: Ints
    step: Ints
    boldness: Floats
    """1 at first, less later: fraudsters learn what is noticed."""

    def __len__(self) -> int:
        return len(self.step)


def _frauds(world: _World, count: int) -> _Payments:
    """`count` fraudulent payments, the kinds in equal shares."""
    parts = []
    for kind, (make, size) in enumerate(_KINDS):
        wanted = count * (kind + 1) // len(_KINDS) - count * kind // len(_KINDS)
        incidents = _incidents(world, kind, wanted, size)
        seconds, customer, terminal, amount, channel = make(world, incidents)
        seconds = np.minimum(seconds, world.days * DAY - 1)
        amount = amount * _inflation(world, seconds)
        parts.append(_Payments(seconds, customer, terminal, amount, channel, np.full(wanted, kind + 1)))
    return _together(parts)


def patterns_of(bank: int, banks: int) -> set[int]:
    """The kinds of fraud (1 to 6, see PATTERNS) that strike a bank from the start: two, or more if banks are few."""
    each = max(2, math.ceil(len(PATTERNS) / banks))
    return {(each * bank + i) % len(PATTERNS) + 1 for i in range(each)}


def _incidents(world: _World, kind: int, count: int, size: float) -> _Incidents:
    rng = world.rng
    sizes = 1 + rng.poisson(size - 1, max(count, 1))
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), count)) + 1]
    # spread evenly over time and in turn over the banks, so that little data shows what much data would
    turn = np.arange(len(sizes))
    when = rng.permutation((turn + rng.random(len(sizes))) / len(sizes))
    known = np.array([b for b in range(world.banks) if kind + 1 in patterns_of(b, world.banks)])
    known = known if len(known) else np.arange(world.banks)
    bank = np.where(when < SPREAD_FROM, known[turn % len(known)], turn % world.banks)
    customer = world.victim(bank)
    day = np.floor(when * world.days).astype(np.int64)
    incident = np.repeat(np.arange(len(sizes)), sizes)[:count]
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)[:count]
    return _Incidents(
        incident, day[incident] * DAY, customer[incident], np.arange(count) - first, 1 - 0.3 * when[incident]
    )


_Made = tuple[Ints, Ints, Ints, Floats, Ints]
"""Seconds, customer, terminal, amount, channel."""


def _once(values: Ints, incidents: _Incidents) -> Ints:
    """One value an incident, out of one a payment."""
    return values[np.searchsorted(incidents.incident, incidents.incident)]


def _card_testing(world: _World, i: _Incidents) -> _Made:
    """Tiny online payments in quick succession, to see which stolen numbers work; the last one is worth it."""
    rng = world.rng
    start = _once(world.clock(len(i), np.full(len(i), 0.7)), i)
    seconds = i.start + start + i.step * 70 + rng.integers(0, 60, len(i))
    last = np.append(i.incident[1:] != i.incident[:-1], True) if len(i) else np.zeros(0, bool)
    amount = np.where(last, 90 * i.boldness, 1.2) * np.exp(0.7 * rng.standard_normal(len(i)))
    return seconds, i.customer, _once(world.web_shop(len(i)), i), amount, np.full(len(i), _ONLINE)


def _spree_abroad(world: _World, i: _Incidents) -> _Made:
    """A stolen card in another region, spent within hours by its stripe or chip."""
    rng = world.rng
    start = _once(world.clock(len(i), np.full(len(i), 0.5)), i)
    seconds = i.start + start + i.step * 45 * 60 + rng.integers(0, 40 * 60, len(i))
    region = _once((world.region[i.customer] + rng.integers(3, REGIONS - 3, len(i))) % REGIONS, i)
    terminal = world.shop(region)
    amount = world.spend[i.customer] * np.sqrt(_PRICE[world.category[terminal]]) * 2.4 * i.boldness
    channel = np.where(rng.random(len(i)) < 0.6, _MAGSTRIPE, _CHIP)
    return seconds, i.customer, terminal, amount * np.exp(0.6 * rng.standard_normal(len(i))), channel


def _skimmed_terminal(world: _World, i: _Incidents) -> _Made:
    """Copies of the cards used at one terminal, used there again within days: ordinary amounts, one place."""
    rng = world.rng
    day = rng.integers(0, 12, len(i))
    seconds = i.start + day * DAY + world.clock(len(i), np.full(len(i), 0.3))
    customer = world.victim(world.bank[i.customer])
    terminal = _once(world.shop(world.region[i.customer]), i)
    amount = 38 * i.boldness * np.exp(0.5 * rng.standard_normal(len(i)))
    return seconds, customer, terminal, amount, np.where(rng.random(len(i)) < 0.5, _MAGSTRIPE, _CHIP)


def _account_takeover(world: _World, i: _Incidents) -> _Made:
    """A few online purchases of what sells on, far above what this customer spends, often at night."""
    rng = world.rng
    start = _once(world.clock(len(i), np.full(len(i), 0.8)), i)
    seconds = i.start + start + i.step * 20 * 60 + rng.integers(0, 900, len(i))
    amount = world.spend[i.customer] * 9.0 * i.boldness * np.exp(0.5 * rng.standard_normal(len(i)))
    return seconds, i.customer, world.web_gifts(len(i)), amount, np.full(len(i), _ONLINE)


def _bust_out(world: _World, i: _Incidents) -> _Made:
    """An account opened to be emptied: round sums in expensive shops over some days, in plain daylight."""
    rng = world.rng
    seconds = i.start + i.step * (DAY // 3) + world.clock(len(i), np.zeros(len(i))) // 2 + 6 * HOUR
    amount = 20 * np.round(np.exp(2.9 + 0.5 * rng.standard_normal(len(i))) * i.boldness + 1)
    world.opened[i.customer] = np.maximum(world.opened[i.customer], i.start / DAY - 20 - 60 * rng.random(len(i)))
    return seconds, i.customer, world.luxury(len(i)), amount, np.full(len(i), _CHIP)


def _contactless_run(world: _World, i: _Incidents) -> _Made:
    """A lost card tapped just below the limit that asks for a PIN, shop after shop."""
    rng = world.rng
    start = _once(world.clock(len(i), np.full(len(i), 0.1)), i)
    seconds = i.start + start + i.step * 11 * 60 + rng.integers(0, 600, len(i))
    amount = (50 - 12 * rng.random(len(i))) * np.sqrt(i.boldness)
    return seconds, i.customer, world.shop(world.region[i.customer]), amount, np.full(len(i), _CONTACTLESS)


_KINDS: tuple[tuple[Callable[[_World, _Incidents], _Made], float], ...] = (
    (_card_testing, 6.0),
    (_spree_abroad, 4.0),
    (_skimmed_terminal, 14.0),
    (_account_takeover, 2.0),
    (_bust_out, 5.0),
    (_contactless_run, 5.0),
)


# --- features ---------------------------------------------------------------------------------------------------------


def _frame(world: _World, p: _Payments) -> pd.DataFrame:
    """The payments with what their bank could know when each was made."""
    bank = world.bank[p.customer]
    fraud = (p.pattern > 0).astype(np.float64)
    amount = np.maximum(np.round(p.amount, 2), 0.01)
    hour = p.seconds % DAY / HOUR
    customer = History(p.customer, p.seconds)
    # a bank knows only its own customers' payments at a terminal
    terminal = History(bank * len(world.category) + p.terminal, p.seconds)
    usual = customer.mean(amount, 30 * DAY, prior=40.0, weight=1.0)
    columns = {
        "payment_id": np.arange(len(p)),
        EVENT_TIME: START + p.seconds,
        BANK: bank.astype(np.int16),
        "customer_id": p.customer.astype(np.int32),
        "terminal_id": p.terminal.astype(np.int32),
        "amount": amount,
        "channel": pd.Categorical.from_codes(p.channel, pd.Index(CHANNELS)),
        "category": pd.Categorical.from_codes(world.category[p.terminal], pd.Index(CATEGORIES)),
        "night": ((hour < 6) | (hour >= 23)).astype(np.int8),
        "weekend": (p.seconds // DAY % 7 >= 5).astype(np.int8),
        "abroad": ((world.terminal_region[p.terminal] != world.region[p.customer]) & (p.channel != _ONLINE)).astype(
            np.int8
        ),
        "account_age_days": np.maximum(p.seconds / DAY - world.opened[p.customer], 0).round().astype(np.int32),
        "customer_count_1h": customer.count(HOUR),
        "customer_count_1d": customer.count(DAY),
        "customer_count_7d": customer.count(7 * DAY),
        "customer_mean_7d": customer.mean(amount, 7 * DAY),
        "amount_to_usual": amount / usual,
        "hours_since_previous": customer.since_previous(30 * DAY) / HOUR,
        "terminal_count_1d": terminal.count(DAY),
        "terminal_mean_7d": terminal.mean(amount, 7 * DAY),
        "terminal_risk_30d": terminal.mean(fraud, 30 * DAY, delay=3 * DAY, prior=FRAUD_SHARE, weight=5.0),
        LABEL: fraud.astype(np.int8),
        "pattern": p.pattern.astype(np.int8),
    }
    return pd.DataFrame({n: v.astype(np.float32) if n in _WINDOWS else v for n, v in columns.items()})


_WINDOWS = {
    "customer_count_1h",
    "customer_count_1d",
    "customer_count_7d",
    "customer_mean_7d",
    "amount_to_usual",
    "hours_since_previous",
    "terminal_count_1d",
    "terminal_mean_7d",
    "terminal_risk_30d",
}
