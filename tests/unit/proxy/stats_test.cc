#include "proxy/stats.h"

#include <doctest/doctest.h>
#include <map>
#include <string>
#include <thread>
#include <vector>

using namespace penstock;

namespace {

// Every series by family and labels: {"penstock_requests_total{a,,b}", value}; of a histogram its count.
std::map<std::string, double> read(StatsBook& book) {
    std::map<std::string, double> all;
    for (auto& family : book.series().read())
        for (auto& series : family.series) {
            std::string name = family.family->name + "{";
            for (size_t i = 0; i < series.labels.size(); ++i) name += (i ? "," : "") + series.labels[i];
            double value = series.value;
            for (uint64_t n : series.buckets) value += static_cast<double>(n);
            all[name + "}"] = value;
        }
    return all;
}

}  // namespace

TEST_CASE("an ended request counts with its labels, and only the times that were measured") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr");
    RouteLabel api = book.route("/api/");
    Stats stats(book);
    ModelLabel model = stats.model(ocr, "resnet50");
    stats.request_ended({.upstream = ocr,
                         .route = api,
                         .model = model,
                         .code = 200,
                         .whole = 2s,
                         .queue = 1s,
                         .backend = 1s,
                         .first_byte = 900ms});
    stats.request_ended({.upstream = ocr, .route = api, .model = model, .code = 429, .whole = 1ms});
    auto all = read(book);
    CHECK(all["penstock_requests_total{ocr,/api/,resnet50,200}"] == 1);
    CHECK(all["penstock_requests_total{ocr,/api/,resnet50,429}"] == 1);
    CHECK(all["penstock_request_duration_seconds{ocr,resnet50}"] == 2);
    CHECK(all["penstock_queue_duration_seconds{ocr,resnet50}"] == 1);
    CHECK(all["penstock_backend_duration_seconds{ocr,resnet50}"] == 1);
    CHECK(all["penstock_first_byte_seconds{ocr,resnet50}"] == 1);
}

TEST_CASE("a request without upstream, route and model has empty labels") {
    StatsBook book;
    Stats stats(book);
    stats.request_ended({.code = 404, .whole = 1ms});
    CHECK(read(book)["penstock_requests_total{,,,404}"] == 1);
}

TEST_CASE("a status that is none counts as other") {
    StatsBook book;
    Stats stats(book);
    for (uint16_t code : {0, 99, 600, 999}) stats.request_ended({.code = code});
    CHECK(read(book)["penstock_requests_total{,,,other}"] == 4);
}

TEST_CASE("what two loops count of the same labels is one series") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr");
    Stats a(book), b(book);
    CHECK(a.model(ocr, "m") == b.model(ocr, "m"));
    a.rejected(ocr, ModelLabel::none, {3, "queue_full"});
    b.rejected(ocr, ModelLabel::none, {3, "queue_full"});
    b.rejected(ocr, b.model(ocr, "m"), {4, "queue_timeout"});
    auto all = read(book);
    CHECK(all["penstock_rejections_total{ocr,,queue_full}"] == 2);
    CHECK(all["penstock_rejections_total{ocr,m,queue_timeout}"] == 1);
}

TEST_CASE("the other counters carry their labels") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr");
    Stats stats(book);
    stats.retry(ocr, RetryOutcome::refused);
    stats.abandoned(ocr, AbandonOutcome::worker_exit);
    stats.wasted(ocr, ModelLabel::none, {5, "client_gone"}, 1500ms);
    stats.wasted(ocr, ModelLabel::none, {5, "client_gone"}, -1s);
    stats.connection_opened(Wire::client);
    stats.connection_opened(Wire::client);
    stats.connection_closed(Wire::client);
    stats.bytes(Wire::backend, Flow::in, 1000);
    stats.accept_paused();
    SeriesId in_flight = stats.in_flight_of(ocr, "10.0.0.5:8000");
    stats.sent_to(in_flight);
    auto all = read(book);
    CHECK(all["penstock_retries_total{ocr,refused}"] == 1);
    CHECK(all["penstock_abandoned_total{ocr,worker_exit}"] == 1);
    CHECK(all["penstock_wasted_backend_seconds_total{ocr,,client_gone}"] == doctest::Approx(1.5));
    CHECK(all["penstock_connections{client}"] == 1);
    CHECK(all["penstock_connections{backend}"] == 0);
    CHECK(all["penstock_connections_total{client}"] == 2);
    CHECK(all["penstock_bytes_total{backend,in}"] == 1000);
    CHECK(all["penstock_accept_pauses_total{}"] == 1);
    CHECK(all["penstock_in_flight{ocr,10.0.0.5:8000}"] == 1);
}

TEST_CASE("a client that thinks up models makes 200 series, then other, and costs no more lock") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr"), llm = book.upstream("llm");
    Stats a(book), b(book);
    for (int i = 0; i < 150; ++i) CHECK(a.model(ocr, "a" + std::to_string(i)) != ModelLabel::other);
    for (int i = 0; i < 50; ++i) CHECK(b.model(ocr, "b" + std::to_string(i)) != ModelLabel::other);
    CHECK(a.model(ocr, "one more") == ModelLabel::other);
    CHECK(b.model(ocr, "and another") == ModelLabel::other);
    // Both loops know all names by now, those of the other loop too.
    CHECK(a.model(ocr, "b7") == b.model(ocr, "b7"));
    CHECK(a.model(ocr, "b7") != ModelLabel::other);
    CHECK(b.model(ocr, "a149") == a.model(ocr, "a149"));
    CHECK(a.model(llm, "one more") != ModelLabel::other);  // another upstream has room of its own
    a.request_ended({.upstream = ocr, .model = a.model(ocr, "one more"), .code = 200});
    CHECK(read(book)["penstock_requests_total{ocr,,other,200}"] == 1);
}

TEST_CASE("a model that is no clean label counts as other") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr");
    Stats stats(book);
    CHECK(stats.model(ocr, "") == ModelLabel::none);
    for (std::string_view name : {"\xff", "a\nb", "a\x7f", "\xc2\x9b", "other"})
        CHECK(stats.model(ocr, name) == ModelLabel::other);
    CHECK(stats.model(ocr, std::string(129, 'a')) == ModelLabel::other);
    CHECK(stats.model(ocr, std::string(128, 'a')) != ModelLabel::other);
    CHECK(stats.model(ocr, "h\xc3\xa9") != ModelLabel::other);
}

TEST_CASE("names keep their labels, over reloads too") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr");
    CHECK(ocr != UpstreamLabel::none);
    CHECK(book.upstream("llm") != ocr);
    CHECK(book.upstream("ocr") == ocr);
    CHECK(book.upstream("") == UpstreamLabel::none);
    CHECK(book.route("/") == book.route("/"));
}

TEST_CASE("loops that count at once, with the same new models, lose nothing") {
    StatsBook book;
    UpstreamLabel ocr = book.upstream("ocr");
    std::vector<std::thread> threads;
    threads.reserve(3);
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&book, ocr] {
            Stats stats(book);
            for (int i = 0; i < 3000; ++i) {
                ModelLabel model = stats.model(ocr, "m" + std::to_string(i % 300));
                stats.request_ended({.upstream = ocr, .model = model, .code = 200, .whole = 1ms});
            }
        });
    for (int i = 0; i < 20; ++i) read(book);
    for (auto& thread : threads) thread.join();
    double requests = 0, models = 0;
    for (auto& [name, value] : read(book))
        if (name.starts_with("penstock_requests_total")) requests += value, ++models;
    CHECK(requests == 9000);
    CHECK(models == 201);
}
