#include "app/metrics.h"

#include <doctest/doctest.h>
#include <string>
#include <unistd.h>

#include "app/process_facts.h"
#include "proxy/stats.h"

using namespace penstock;

namespace {

struct FixedStatus final : StatusSource {
    Status status() override { return value; }
    Status value;
};

Status busy_status() {
    Status status;
    status.version = "0.1.0";
    status.state = "ready";
    status.memory_limit = 1 << 30;
    UpstreamStatus& ocr = status.upstreams.emplace_back();
    ocr.name = "ocr";
    ocr.serving = "serving";
    ocr.queue = {3, 100, 4096};
    ocr.abandoned = 1;
    ocr.backends.push_back({.name = "ocr/0",
                            .state = "ready",
                            .slots = 2,
                            .in_flight = 2,
                            .ejections = EjectionStatus{0, {{"consecutive_5xx", 2}}, 1, 0},
                            .health = HealthStatus{true, "", {}, {{"passed", 5}}}});
    ocr.backends.push_back({.name = "10.0.0.5:80", .state = "down", .counted_by_loops = true});
    ocr.workers.push_back({.name = "ocr/0", .pid = 7, .state = "ready", .rss_bytes = 123456789});
    ocr.names.push_back({.name = "gpu.test:80", .addresses = {"10.0.0.5:80"}, .found = 7, .failed = 2});
    ocr.worker_starts = 4;
    ocr.worker_exits = {{"signal 9", 3}};
    return status;
}

bool has_line(const std::string& text, const std::string& line) {
    return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

}  // namespace

TEST_CASE("a scrape shows counters with their labels, and durations in seconds") {
    StatsBook book;
    Stats stats(book);
    UpstreamLabel ocr = book.upstream("ocr");
    stats.request_ended({.upstream = ocr,
                         .route = book.route("/"),
                         .model = stats.model(ocr, "m"),
                         .code = 200,
                         .whole = 1500ms,
                         .queue = 2500us});
    stats.wasted(ocr, ModelLabel::none, {1, "client_gone"}, 250ms);
    FixedStatus source;
    std::string text = Metrics(book.series(), source).text();
    CHECK(has_line(text, "# TYPE penstock_requests_total counter"));
    CHECK(has_line(text, R"(penstock_requests_total{upstream="ocr",route="/",model="m",code="200"} 1)"));
    CHECK(has_line(
        text, R"(penstock_wasted_backend_seconds_total{upstream="ocr",model="",cause="client_gone"} 0.25)"));
    CHECK(has_line(text, "# TYPE penstock_request_duration_seconds histogram"));
    CHECK(has_line(text, R"(penstock_request_duration_seconds_sum{upstream="ocr",model="m"} 1.5)"));
    CHECK(has_line(text, R"(penstock_request_duration_seconds_count{upstream="ocr",model="m"} 1)"));
}

TEST_CASE("each bucket of a histogram holds all that is not longer, and +Inf holds all") {
    StatsBook book;
    Stats stats(book);
    for (Duration d : {Duration(1ms), Duration(2ms), Duration(2500us), Duration(1s), Duration(11min)})
        stats.request_ended({.code = 200, .whole = d});
    FixedStatus source;
    std::string text = Metrics(book.series(), source).text();
    auto bucket = [&text](const std::string& bound, int count) {
        return has_line(text, R"(penstock_request_duration_seconds_bucket{upstream="",model="",le=")" +
                                  bound + "\"} " + std::to_string(count));
    };
    CHECK(bucket("0.001", 1));
    CHECK(bucket("0.0025", 3));
    CHECK(bucket("0.5", 3));
    CHECK(bucket("1", 4));
    CHECK(bucket("600", 4));
    CHECK(bucket("+Inf", 5));
}

TEST_CASE("a scrape shows the state of queues, backends and workers") {
    StatsBook book;
    FixedStatus source;
    source.value = busy_status();
    std::string text = Metrics(book.series(), source).text();
    for (const char* line : {
             R"(penstock_queue_depth{upstream="ocr"} 3)",
             R"(penstock_queue_size{upstream="ocr"} 100)",
             R"(penstock_queue_bytes{upstream="ocr"} 4096)",
             R"(penstock_abandoned_in_flight{upstream="ocr"} 1)",
             R"(penstock_in_flight{upstream="ocr",backend="ocr/0"} 2)",
             R"(penstock_slots{upstream="ocr",backend="ocr/0"} 2)",
             R"(penstock_backend_state{upstream="ocr",backend="ocr/0",state="ready"} 1)",
             R"(penstock_backend_state{upstream="ocr",backend="ocr/0",state="down"} 0)",
             R"(penstock_backend_state{upstream="ocr",backend="10.0.0.5:80",state="down"} 1)",
             R"(penstock_worker_state{upstream="ocr",worker="ocr/0",state="ready"} 1)",
             R"(penstock_worker_state{upstream="ocr",worker="ocr/0",state="down"} 0)",
             R"(penstock_ejections_total{upstream="ocr",backend="ocr/0",reason="consecutive_5xx"} 2)",
             R"(penstock_ejections_prevented_total{upstream="ocr",backend="ocr/0",limit="min_healthy"} 1)",
             R"(penstock_health_checks_total{upstream="ocr",backend="ocr/0",result="passed"} 5)",
             R"(penstock_worker_rss_bytes{upstream="ocr",worker="ocr/0"} 123456789)",
             R"(penstock_worker_starts_total{upstream="ocr"} 4)",
             R"(penstock_worker_exits_total{upstream="ocr",reason="signal 9"} 3)",
             R"(penstock_resolved_addresses{upstream="ocr",name="gpu.test:80"} 1)",
             R"(penstock_resolutions_total{upstream="ocr",name="gpu.test:80",result="found"} 7)",
             R"(penstock_resolutions_total{upstream="ocr",name="gpu.test:80",result="failed"} 2)",
             R"(penstock_build_info{version="0.1.0"} 1)",
             R"(penstock_ready 1)",
             R"(penstock_memory_limit_bytes 1073741824)",
             R"(penstock_log_lines_dropped_total{log="access"} 0)",
             R"(# TYPE penstock_worker_starts_total counter)",
         })
        CHECK_MESSAGE(has_line(text, line), line);
    CHECK(text.find(R"(penstock_in_flight{upstream="ocr",backend="10.0.0.5:80"})") == text.npos);
}

TEST_CASE("every name has one family, however many places it comes from") {
    StatsBook book;
    Stats stats(book);
    stats.sent_to(stats.in_flight_of(book.upstream("ocr"), "10.0.0.5:80"));
    FixedStatus source;
    source.value = busy_status();
    std::string text = Metrics(book.series(), source).text();
    CHECK(has_line(text, R"(penstock_in_flight{upstream="ocr",backend="10.0.0.5:80"} 1)"));
    size_t families = 0;
    for (size_t at = 0; (at = text.find("# TYPE penstock_in_flight ", at)) != text.npos; ++at) ++families;
    CHECK(families == 1);
}

TEST_CASE("what the kernel knows of the process is shown as every Prometheus client shows it") {
    ProcessFacts facts = facts_of_this_process();
    CHECK(facts.cpu_seconds > 0);
    CHECK(facts.resident_bytes > 1 << 20);
    CHECK(facts.virtual_bytes > facts.resident_bytes);
    CHECK(facts.start_time > 1.6e9);
    CHECK(facts.start_time < 1e10);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    CHECK(facts_of_this_process().open_descriptors == facts.open_descriptors + 2);
    CHECK(facts.max_descriptors >= facts.open_descriptors);
    close(ends[0]);
    close(ends[1]);

    StatsBook book;
    FixedStatus source;
    std::string text = Metrics(book.series(), source).text();
    for (const char* name : {"process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds",
                             "process_max_fds", "process_start_time_seconds"})
        CHECK_MESSAGE(text.find(std::string("\n") + name + " ") != text.npos, name);
}
