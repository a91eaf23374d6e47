"""What Prometheus is told."""

from __future__ import annotations

import re
from pathlib import Path

from gatecrew.common import metrics
from gatecrew.common.histogram import BOUNDS, Histogram
from gatecrew.common.observation import Observation
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = (*metrics.GAUGES, *metrics.COUNTERS, *metrics.BY_REASON, metrics.HANDLERS)


def told(observation: Observation) -> dict[tuple[str, str], float]:
    """Return the value of each sample, by its name and its last label."""
    text = metrics.page("gateway", "gateway-1", observation).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    for sample in samples:
        assert (sample.labels.pop("role"), sample.labels.pop("process")) == ("gateway", "gateway-1")
    return {(sample.name, "/".join(sample.labels.values())): sample.value for sample in samples}


def test_what_is_counted_is_told_by_its_name_or_its_reason() -> None:
    stats = {"connections": 3, "handshake.refused": 2, "handshake.denied": 1, "closed.slow": 4, "name": "not a number"}

    assert told(Observation("", stats)) == {
        ("gatecrew_connections", ""): 3,
        ("gatecrew_handshakes_refused_total", ""): 2,
        ("gatecrew_handshake_faults_total", "denied"): 1,
        ("gatecrew_closed_total", "slow"): 4,
    }


def test_a_histogram_counts_what_took_that_long_at_most() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], 0.2, 99.0):
        histogram.observe(seconds)
    samples = told(Observation("", {}, {"message": histogram}))

    assert samples["gatecrew_handler_seconds_bucket", f"message/{BOUNDS[0]}"] == 2
    assert samples["gatecrew_handler_seconds_bucket", "message/0.1"] == 2
    assert samples["gatecrew_handler_seconds_bucket", "message/0.25"] == 3
    assert samples["gatecrew_handler_seconds_bucket", "message/+Inf"] == 4
    assert samples["gatecrew_handler_seconds_count", "message"] == 4
    assert samples["gatecrew_handler_seconds_sum", "message"] == 99.2 + BOUNDS[0]


def test_names_keep_the_conventions() -> None:
    names = [known.name for known in EVERYTHING]

    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"gatecrew(_[a-z]+)+", name)] == []
    assert all(known.name.endswith("_total") for known in (*metrics.COUNTERS, *metrics.BY_REASON))
    assert not any(known.name.endswith("_total") for known in metrics.GAUGES)


def test_all_metrics_are_described() -> None:
    rows = re.findall(
        r"^\| `(gatecrew_\w+)` \| .* \| (.*) \|$", (ROOT / "docs/monitoring.md").read_text(), re.MULTILINE
    )

    assert rows == [(known.name, known.help) for known in EVERYTHING]


def test_nothing_that_is_counted_is_left_out() -> None:
    folders = ("common", "register", "gateway", "business")
    source = "\n".join(path.read_text() for folder in folders for path in (ROOT / folder).glob("*.py"))
    counted = set(re.findall(r"counters\[f?\"([a-z]+\.[a-z_]*)", source))
    keys = {known.key for known in metrics.COUNTERS}
    kinds = {known.key for known in metrics.BY_REASON}

    assert len(counted) > 15
    assert {name for name in counted if name not in keys and name.partition(".")[0] not in kinds} == set()
