"""One bank's configuration, as `node_config/*.yaml` writes it. Units and the meaning of 0 stand with each field.

What all members must agree on (model, contract, training, gossip policy) is the manifest's, not this file's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from p2pfed.core.types import NAME, Address


def _address(text: str) -> str:
    Address.parse(text)
    return text


def label_word(text: str) -> str:
    """A fraud label, and a key of `data.labels`, as they are compared: without case, and 1.0 as 1."""
    return _WHOLE_NUMBER.sub(r"\1\2", text.strip().casefold())


_WHOLE_NUMBER = re.compile(r"\A\+?(-?)0*(\d+)(?:[.,]0*)?\Z")


def _label_words(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    words: dict[str, Any] = {}
    for key, said in value.items():
        if key is None or isinstance(key, bool):
            raise ValueError("put words such as yes, no, true, false and null in quotes, or YAML takes them for others")
        word = label_word(str(key))
        if words.setdefault(word, said) != said:
            raise ValueError(f"{word!r} is there twice, for case and .0 make no difference; say one thing of it")
    return words


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, ZoneInfoNotFoundError):
        raise ValueError(f"{text!r} is no time zone; write one such as Europe/Brussels or UTC") from None
    return text


AddressText = Annotated[str, AfterValidator(_address)]


class Section(BaseModel):
    """A frozen mapping that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class NodeSection(Section):
    """Who this node is and where it keeps its state."""

    name: str = Field(pattern=f"^{NAME}$")
    """The bank's name: up to 63 letters, digits, dots, dashes and underscores; the manifest lists it beside the key."""
    state_dir: Path
    """Keys, database and model live here; one daemon at a time. Relative paths start at the configuration file."""
    journal_dir: Path | None = None
    """Each start of the daemon records its inputs here, for `p2pfed replay`: models and no key, but some of this bank's
    payments, scaled (at most 100 held-out ones and 32 frauds). As private as the payments themselves.

    It only grows: by three times the model a round, and by what is received. `null` records nothing."""


class PeersSection(Section):
    """How the other members reach this node and how it finds them."""

    listen: AddressText | None = "0.0.0.0:7443"
    """Address of the mutual-TLS listener; port 0 takes a free one, and `[::]` is every address, of IPv4 too. `null`
    opens none: the bank only dials out."""
    advertise: tuple[AddressText, ...] = ()
    """Addresses the others should dial, at most 8; empty advertises `listen` itself if that is not a wildcard."""
    seeds: tuple[AddressText, ...] = ()
    """Addresses to try at the start and from time to time, besides those of the manifest; any member may answer."""
    zeroconf: bool = False
    """Announce this node and look for others on the local network; only adds addresses to try."""
    blocklist: tuple[str, ...] = ()
    """Names or ids of members this node neither dials, answers nor merges; re-read on SIGHUP."""

    @model_validator(mode="after")
    def _few_addresses(self) -> PeersSection:
        if len(self.advertise) > 8:
            raise ValueError("advertise lists at most 8 addresses")
        return self


class AdminSection(Section):
    """The status API and metrics; the command line uses a socket in the state directory instead."""

    listen: AddressText | None = "127.0.0.1:7480"
    """Loopback address of the HTTP API; port 0 takes a free one, `null` opens none."""
    hosts: tuple[str, ...] = ()
    """Host names, besides localhost, that a request's Host header may carry."""

    @model_validator(mode="after")
    def _loopback_only(self) -> AdminSection:
        if self.listen is not None and Address.parse(self.listen).host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError(f"admin.listen is {self.listen}, but the API has no TLS and only binds to loopback")
        return self


class CsvSource(Section):
    """A CSV file with a header row, or several."""

    kind: Literal["csv"]
    path: Path
    """A file, a folder (all `*.csv` and `*.csv.gz` in it, by name) or a pattern such as `exports/2026-*.csv`; all files
    have the columns. Files packed by gzip are unpacked. Relative paths start at the configuration file."""
    delimiter: str = Field(default=",", min_length=1, max_length=1)
    """The ASCII character between columns; no quote or line end."""
    decimal: Literal[".", ","] = "."
    """The character before the decimals of numbers."""

    @field_validator("delimiter")
    @classmethod
    def _one_byte(cls, text: str) -> str:
        if not text.isascii() or text in "\"'\r\n\0":
            raise ValueError("a delimiter is one ASCII character, and no quote or line end")
        return text

    @model_validator(mode="after")
    def _two_characters(self) -> CsvSource:
        if self.delimiter == self.decimal:
            raise ValueError(f"delimiter and decimal are both {self.decimal!r}: a number would be two columns")
        return self


class ParquetSource(Section):
    """A Parquet file, or several (extra `parquet`)."""

    kind: Literal["parquet"]
    path: Path
    """A file, a folder (all `*.parquet` in it, by name) or a pattern such as `exports/2026-*.parquet`; all files have
    the columns. Relative paths start at the configuration file."""


class SqlSource(Section):
    """A query against any database SQLAlchemy has a driver for (extra `sql`, or `oracle`, `mssql`, `mysql`)."""

    kind: Literal["sql"]
    query: str
    """One SELECT; rows are read in chunks."""
    url_file: Path | None = None
    """A file (mode 0600) that holds the SQLAlchemy URL; credentials never stand in this configuration."""
    url_env: str | None = None
    """Name of the environment variable that holds the SQLAlchemy URL."""

    @field_validator("url_file", "url_env", mode="before")
    @classmethod
    def _no_url(cls, value: Any) -> Any:
        if "://" in str(value):
            raise ValueError("holds the URL itself: name the file, or the environment variable, that holds it")
        return value

    @model_validator(mode="after")
    def _one_url(self) -> SqlSource:
        if (self.url_file is None) == (self.url_env is None):
            raise ValueError("give exactly one of url_file and url_env")
        return self


Source = Annotated[CsvSource | ParquetSource | SqlSource, Field(discriminator="kind")]


class DataSection(Section):
    """Where the bank's payments are and how its columns map to the feature contract."""

    source: Source
    columns: dict[str, str] = {}
    """Contract column -> this bank's column, for those named differently."""
    label: str
    """This bank's fraud column; 0/1, true/false, yes/no or y/n."""
    labels: Annotated[dict[str, Literal[0, 1]], BeforeValidator(_label_words)] = {}
    """What other words in the fraud column mean, such as `{chargeback: 1, settled: 0}`; then only these count. Case
    makes no difference; yes, no, true, false and null stand in quotes."""
    event_time: str | None = None
    """The payment-time column: ISO 8601 with zone, or seconds since 1970. Orders a time split; never a feature.
    Where all times lie before 1990 that is said, and refused with label_maturity_days."""
    time_zone: Annotated[str, AfterValidator(_zone)] | None = None
    """Zone of times that have none, such as `Europe/Brussels`; `null` refuses them. Of an hour that comes twice a time
    is in the second, of one that never was it is the next hour's first moment."""
    missing: Literal["drop", "impute"] = "drop"
    """Rows with missing or infinite features: dropped and counted, or imputed (training median, no level).
    An empty field of a column to which the contract gives an indicator is no reason to drop."""
    split: Literal["stratified", "time"] = "stratified"
    """`stratified` draws the parts by a hash of each row: new payments move none from one into another, and a new kind
    of fraud trains as soon as its labels are mature. `time` needs event_time and keeps the newest payments for
    validation and test, so that a new kind of fraud trains only once it is older than both."""
    validation_share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the rows that chooses threshold and checkpoint."""
    test_share: float = Field(default=0.15, ge=0, lt=1)
    """Share of the rows only measured on; 0 keeps none."""
    gap_days: float = Field(default=0, ge=0)
    """Days left out between the parts of a time split, so that windows and late labels do not leak; 0 is none."""
    label_maturity_days: float = Field(default=0, ge=0)
    """Rows younger than this neither train nor validate, because chargebacks arrive late.

    0 trusts every label; banks set 45."""
    window_days: float = Field(default=0, ge=0)
    """Only payments of the last so many days are read, the immature ones among them; 0 reads all.

    Needs event_time, and more days than label_maturity_days."""
    leak_alarm: bool = True
    """Stop when one column alone gives AUROC > 0.995 or repeats the label; false accepts it, after a look."""
    pooled_test: Path | None = None
    """A Parquet file of held-out rows that every node of an experiment is measured on (set by `cluster run`)."""
    seed: int = 0
    """Draws the stratified split."""

    @model_validator(mode="after")
    def _time_needs_column(self) -> DataSection:
        if self.split == "time" and self.event_time is None:
            raise ValueError("split: time needs event_time; name the column or write split: stratified")
        if self.gap_days and self.split != "time":
            raise ValueError("gap_days lies between the parts of a time split: write split: time, or leave it out")
        if self.validation_share + self.test_share >= 1:
            raise ValueError("validation_share and test_share leave no rows to train on")
        return self


class ThresholdSection(Section):
    """Above which score a payment is an alert; chosen on validation rows after each evaluation."""

    kind: Literal["max_f1", "percentile", "alerts_per_day"] | None = None
    """`max_f1` (the MLP's default; percentile 98 with fewer than five validation frauds), `percentile` of legitimate
    scores (the autoencoder's), or an alert budget."""
    value: float | None = None
    """The percentile (default 98) or the alerts a day; nothing for max_f1."""

    @model_validator(mode="after")
    def _value_fits(self) -> ThresholdSection:
        if self.kind == "percentile" and self.value is not None and not 0 < self.value < 100:
            raise ValueError("a percentile lies between 0 and 100")
        if self.kind == "alerts_per_day" and (self.value is None or self.value <= 0):
            raise ValueError("alerts_per_day needs a positive value")
        return self


class LearningSection(Section):
    """This node's share of the work; what must be equal everywhere is in the manifest."""

    rounds: int | None = Field(default=None, ge=1)
    """Stop training after this many rounds, counted over all cycles, and keep serving; `null` is by the calendar."""
    evaluate_every: int = Field(default=1, ge=1)
    """Measure the model every this many rounds; evaluation costs one pass over validation and test rows."""
    threshold: ThresholdSection = ThresholdSection()
    seed: int = 0
    """Draws batches and dropout."""
    trainer_socket: Path | None = None
    """Unix socket of a shared trainer spawner (set by `cluster run`); `null` starts a trainer of this node's own."""
    trainer_memory_mb: int = Field(default=4096, ge=256)
    """The trainer is replaced between rounds when it grows beyond this."""


class LogSection(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Re-read on SIGHUP."""
    format: Literal["text", "json"] = "text"
    """`json` writes one object a line."""


class AuditSection(Section):
    """How long the history keeps what happened; digests are kept for ever, so that what is left can be verified."""

    keep_days: float = Field(default=400.0, gt=0)
    """Of the record: rounds, evaluations, standings, models, problems."""
    keep_traffic_days: float = Field(default=35.0, gt=0)
    """Of what only came and went: updates taken or refused, peers seen or lost; more than half of all."""
    max_bytes: int = Field(default=2_000_000_000, ge=1_000_000)
    """Beyond, the oldest traffic goes first, and then the record, which raises HISTORY_SHORTENED."""


class NodeConfig(Section):
    """The whole file."""

    version: Literal[1]
    """Version of this file's format."""
    node: NodeSection
    peers: PeersSection = PeersSection()
    admin: AdminSection = AdminSection()
    data: DataSection
    learning: LearningSection = LearningSection()
    log: LogSection = LogSection()
    audit: AuditSection = AuditSection()

    @model_validator(mode="after")
    def _two_listeners(self) -> NodeConfig:
        if self.peers.listen is not None and self.admin.listen is not None:
            peers, admin = Address.parse(self.peers.listen), Address.parse(self.admin.listen)
            if peers.port == admin.port != 0 and (peers.wildcard or peers.host == admin.host):
                raise ValueError(f"peers.listen and admin.listen both take port {peers.port}: give each its own")
        return self
