"""Situation 5, watched by a real Prometheus: a constant rate, then half as much again as the service can take. The
configurations are those that we ship, conf/triton.yaml and conf/prometheus/. $PENSTOCK_ATTACK_SECONDS=60 makes the runs
as long as one likes (a minute at most, as the queries look back a minute), $PENSTOCK_ATTACK_RATE=100 the first one as
fast as the service can take, -s shows their numbers."""
import os

import pytest

from lib.constant_rate import attack
from lib.kserve import image, infer_body
from lib.load import percentile
from lib.prometheus import Prometheus
from lib.proxy import repository

seconds = int(os.environ.get("PENSTOCK_ATTACK_SECONDS", "8"))
# A little more than half of what it can take: what comes late, and all at once, finds room too.
steady_rate = int(os.environ.get("PENSTOCK_ATTACK_RATE", "60"))
path = "/v2/models/resnet50/infer"
delay = 0.9                      # of an inference; so 100 connections do a little more than 100 a second
capacity = 100 / delay
bodies = [infer_body(image(i)) for i in range(20)]


@pytest.fixture
def triton(penstock, reference_worker):
    """penstock with conf/triton.yaml before two workers."""
    with open(f"{repository}/conf/triton.yaml", encoding="utf-8") as file:
        text = file.read()
    workers = [reference_worker(model="resnet50", threads=100, delay=f"{int(delay * 1000)}ms") for _ in range(2)]
    for number, worker in enumerate(workers):
        text = text.replace(f"address: 127.0.0.1:800{number + 1}", f"address: {worker.address}")
    text = text.replace("127.0.0.1:8000", "127.0.0.1:0").replace("127.0.0.1:9901", "127.0.0.1:0")
    proxy = penstock(text)
    return proxy, workers


@pytest.fixture
def prometheus(lab, triton):
    made = Prometheus(triton[0].admin)
    lab.backends.append(made)
    return made


def rate_of(prometheus, series, time, window=60):
    """What rate(series[1m]) is, by the definition in Prometheus' documentation: the increase between the first and the
    last sample, extrapolated to the window where those are near its ends. (rate, first value, last value)"""
    result, = prometheus.query(f"{series}[1m]", time)
    samples = [(at, float(value)) for at, value in result["values"]]
    (begin, first), (end, last) = samples[0], samples[-1]
    between = (end - begin) / (len(samples) - 1)
    to_start, to_end = begin - (time - window), time - end
    if last > first:
        to_start = min(to_start, (end - begin) * first / (last - first))     # a counter is not below zero
    covered = end - begin
    covered += to_start if to_start < 1.1 * between else between / 2
    covered += to_end if to_end < 1.1 * between else between / 2
    return (last - first) * covered / (end - begin) / window, first, last


def quantile(fraction, values, bounds):
    """histogram_quantile of these values, in buckets with these bounds."""
    rank, below, lower = fraction * len(values), 0, 0.0
    for upper in bounds:
        inside = sum(lower < value <= upper for value in values)
        if below + inside >= rank:
            return lower + (upper - lower) * (rank - below) / inside
        below, lower = below + inside, upper
    return bounds[-1]


def test_the_breaker_trips_at_half_as_much_again_and_prometheus_answers_the_five_queries_with_what_was_counted(
        triton, prometheus):
    proxy, workers = triton
    # One request, so that every series begins before what is counted.
    first = attack(proxy.address, path, 1, 1, bodies)
    assert first.counts() == {200: 1}
    success = 'triton_inference_request_success_total'
    unavailable = 'triton_inference_request_failure_total{reason="UNAVAILABLE"}'
    prometheus.wait(success, lambda values: values == {"resnet50": 1})
    prometheus.wait(unavailable, lambda values: values == {"resnet50": 0})

    steady = attack(proxy.address, path, steady_rate, seconds, bodies)
    assert steady.counts() == {200: steady_rate * seconds}, "the service can take this"
    assert proxy.metrics().value("penstock_circuit_open_total") == 0

    overload = attack(proxy.address, path, 1.5 * capacity, seconds, bodies)
    served, refused = overload.counts()[200], overload.counts()[503]
    assert served + refused == len(overload.answers), "nothing else than an answer or a refusal"
    tripped = proxy.metrics()
    hold = tripped.value("penstock_backend_duration_seconds_sum") / tripped.value(
        "penstock_backend_duration_seconds_count")
    print(f"steady: {steady_rate}/s for {seconds} s, half within {steady.percentile(0.5, 200):.3f} s, 99 % within "
          f"{steady.percentile(0.99, 200):.3f} s; overload: {1.5 * capacity:.0f}/s, {served / seconds:.1f}/s served, "
          f"half within {overload.percentile(0.5, 200):.3f} s, 99 % within {overload.percentile(0.99, 200):.3f} s; "
          f"{refused / seconds:.1f}/s refused, half within {1e3 * overload.percentile(0.5, 503):.1f} ms, 99 % within "
          f"{1e3 * overload.percentile(0.99, 503):.1f} ms")

    # The breaker has tripped, is seen to have, and nothing but the excess was refused.
    assert refused > 0
    assert tripped.value("penstock_rejections_total", upstream="triton", reason="circuit_open") == refused
    assert tripped.value("penstock_circuit_open_total", upstream="triton") == refused
    assert sum(worker.counts().value("nv_inference_request_success") for worker in workers) == (
        1 + len(steady.answers) + served)
    # Fast, and the rest keeps its latency: its own time, and that of the fifty before it.
    assert overload.percentile(0.99, 503) < overload.seconds(200)[0]
    assert overload.percentile(0.99, 200) < 2 * hold * (1 + 50 / 100)
    assert served >= 0.9 * 100 / hold * seconds

    # Now what Prometheus says.
    total = 1 + len(steady.answers) + served
    prometheus.wait(success, lambda values: values == {"resnet50": total})
    now = prometheus.query(success)[0]["value"][0]
    assert prometheus.values(unavailable, now) == {"resnet50": refused}

    expected, begin, end = rate_of(prometheus, unavailable, now)
    assert (begin, end) == (0, refused)
    query = 'sum(rate(triton_inference_request_failure_total{reason="UNAVAILABLE"}[1m])) by (model)'
    assert prometheus.values(query, now) == {"resnet50": pytest.approx(expected)}

    expected, begin, end = rate_of(prometheus, success, now)
    assert end == total and begin <= total
    query = "sum(rate(triton_inference_request_success_total[1m])) by (model)"
    assert prometheus.values(query, now) == {"resnet50": pytest.approx(expected)}

    # The quantile is of what came after the first sample: what the access log says of both runs, in penstock's buckets;
    # and not far from what they measured themselves.
    bounds = sorted(float(dict(labels)["le"]) for name, labels in tripped
                    if name == "penstock_request_duration_seconds_bucket")[:-1]
    logged = [max(line["total_ms"], 0.001) / 1e3 for line in proxy.access_log()[1:]]
    measured = sorted(answer.seconds for answer in steady.answers + overload.answers)
    query = ("histogram_quantile(0.99, sum by (le, model) "
             "(rate(triton_inference_request_duration_seconds_bucket[5m])))")
    found = prometheus.values(query, now)
    assert found == {"resnet50": pytest.approx(quantile(0.99, logged, bounds), rel=0.1)}
    assert percentile(measured, 0.98) * 0.5 < found["resnet50"] < 2.5 * percentile(measured, 0.995)

    scraped, = prometheus.query("process_cpu_seconds_total", now)
    assert scraped["metric"]["job"] == "penstock"
    assert 0 < float(scraped["value"][1]) <= proxy.metrics().value("process_cpu_seconds_total")

    # By penstock's own access log, request by request.
    queued_ms = sum(line.get("queue_ms", 0) for line in proxy.access_log() if line["status"] == 200)
    assert prometheus.values("triton_request_queue_duration_us", now) == {
        "resnet50": pytest.approx(1e3 * queued_ms, rel=0.01)}
    assert queued_ms > 0
