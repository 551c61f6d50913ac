#include "base/counters.h"

#include <algorithm>
#include <doctest/doctest.h>
#include <random>
#include <thread>
#include <unordered_map>

using namespace penstock;

namespace {

const SeriesBook::FamilyReading& family_of(const std::vector<SeriesBook::FamilyReading>& all,
                                           std::string_view name) {
    for (auto& f : all)
        if (f.family->name == name) return f;
    FAIL("no such family");
    return all.front();
}

}  // namespace

TEST_CASE("a counter is the sum of what all threads' pages counted") {
    SeriesBook book;
    FamilyId family = book.family(SeriesKind::counter, "requests", "", {"code"});
    SeriesId ok = book.series(family, {"200"});
    CounterPage& a = book.open_page();
    CounterPage& b = book.open_page();
    a.add(ok);
    b.add(ok, 41);
    auto readings = book.read();
    auto& series = family_of(readings, "requests").series;
    REQUIRE(series.size() == 1);
    CHECK(series[0].labels[0] == "200");
    CHECK(series[0].value == 42);
}

TEST_CASE("the same labels are the same series, and labels that only join alike are not") {
    SeriesBook book;
    FamilyId family = book.family(SeriesKind::counter, "x", "", {"a", "b"});
    CHECK(book.family(SeriesKind::counter, "x", "", {"a", "b"}) == family);
    SeriesId first = book.series(family, {"1 1:2", "3"});
    CHECK(book.series(family, {"1 1:2", "3"}) == first);
    CHECK_FALSE(book.series(family, {"1", "2 1:3"}) == first);
    CHECK_FALSE(book.series(family, {"", "1 1:23"}) == first);
}

TEST_CASE("a gauge that goes up on one thread and down on another is back at zero") {
    SeriesBook book;
    SeriesId open = book.series(book.family(SeriesKind::gauge, "open", "", {}), {});
    CounterPage& a = book.open_page();
    CounterPage& b = book.open_page();
    a.add(open, 3);
    b.subtract(open, 3);
    CHECK(book.read()[0].series[0].value == 0);
    b.subtract(open);
    CHECK(book.read()[0].series[0].value == -1);
}

TEST_CASE("a duration is counted in the first bucket whose bound it does not pass") {
    SeriesBook book;
    SeriesId id = book.series(book.family(SeriesKind::histogram, "h", "", {}, 1e-9), {});
    CounterPage& page = book.open_page();
    page.observe(id, 1ms);  // on the bound: in
    page.observe(id, 1ms + 1ns);
    page.observe(id, 20s);
    page.observe(id, 2h);
    page.observe(id, -5s);  // a clock that went astray counts as nothing
    auto readings = book.read();
    auto& h = readings[0].series[0];
    CHECK(h.buckets[0] == 2);
    CHECK(h.buckets[1] == 1);
    size_t at_20s =
        std::find(histogram_bounds.begin(), histogram_bounds.end(), Duration(20s)) - histogram_bounds.begin();
    CHECK(h.buckets[at_20s] == 1);
    CHECK(h.buckets.back() == 1);
    CHECK(h.sum == doctest::Approx(7220.002));
}

TEST_CASE("the bounds of histograms rise") {
    for (size_t i = 1; i < histogram_bounds.size(); ++i) CHECK(histogram_bounds[i - 1] < histogram_bounds[i]);
    CHECK(histogram_bounds.front() == 1ms);
    CHECK(histogram_bounds.back() == 10min);
}

TEST_CASE("a full book gives the sink, which shows nowhere and leaves the others alone") {
    SeriesBook book;
    FamilyId many = book.family(SeriesKind::histogram, "many", "", {"n"}, 1e-9);
    SeriesId last;
    uint32_t made = 0;
    while ((last = book.series(many, {std::to_string(made)})).cell != 0) ++made;
    CHECK(made == (CounterPage::max_cells - 1) / histogram_cells);
    CHECK(book.refused_series() == 1);
    CounterPage& page = book.open_page();
    page.observe(last, 1s);
    page.observe(book.series(many, {std::to_string(made - 1)}), 1s);
    auto readings = book.read();
    uint64_t counted = 0;
    for (auto& series : readings[0].series)
        for (uint64_t n : series.buckets) counted += n;
    CHECK(counted == 1);
}

TEST_CASE("a scrape may read while threads count and meet new labels, and in the end nothing is lost") {
    SeriesBook book;
    FamilyId family = book.family(SeriesKind::counter, "n", "", {"label"});
    constexpr uint64_t rounds = 20'000;
    std::vector<std::thread> threads;
    threads.reserve(3);
    std::atomic<int> running{3};
    for (int t = 0; t < 3; ++t)
        threads.emplace_back([&book, &running, family] {
            CounterPage& page = book.open_page();
            std::vector<SeriesId> ids;
            for (uint64_t i = 0; i < rounds; ++i) {
                if (i % 20 == 0) ids.push_back(book.series(family, {std::to_string(i / 20)}));
                page.add(ids[i % ids.size()]);
            }
            --running;
        });
    double before = 0;
    while (running) {
        double now = 0;
        auto readings = book.read();
        for (auto& series : readings[0].series) now += series.value;
        CHECK(now >= before);
        before = now;
    }
    for (auto& thread : threads) thread.join();
    double all = 0;
    auto readings = book.read();
    for (auto& series : readings[0].series) all += series.value;
    CHECK(all == 3 * rounds);
}

TEST_CASE("a key index finds what was put in, and takes no more keys than it may") {
    std::mt19937_64 random(7);
    KeyIndex index(5000);
    std::unordered_map<uint64_t, uint32_t> model;
    while (model.size() < 5000) {
        uint64_t key = random() % 2 ? random() : (random() % 64) << 44;  // spread, and all alike below
        if (key == 0 || model.contains(key)) continue;
        CHECK(index.find(key) == KeyIndex::none);
        auto value = static_cast<uint32_t>(random() >> 33);
        CHECK(index.insert(key, value));
        model.emplace(key, value);
    }
    for (auto [key, value] : model) REQUIRE(index.find(key) == value);
    CHECK(index.full());
    CHECK_FALSE(index.insert(1, 1));
    CHECK(index.find(1) == KeyIndex::none);
}
