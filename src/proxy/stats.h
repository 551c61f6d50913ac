// Stats: what the data path says about itself, as typed calls; the names of the series are in stats.cc and
// in nobody else's mouth.
//
// StatsBook is one for the process. It gives small numbers for the names of upstreams, routes and models:
// a snapshot keeps those of its upstreams and routes, an exchange asks once for its model. Stats is one for
// each thread that counts, made on that thread; its calls take tens of nanoseconds and neither lock nor
// allocate once a label set has been seen. StatsBook outlives every Stats.
//
// A model's name may come from a client's path, so an upstream has at most 200 of them; what comes later, is
// longer than 128 bytes or is not clean UTF-8 is counted as `other`.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/counters.h"
#include "base/time.h"
#include "codec/h2_error.h"
#include "codec/h2_floods.h"

namespace penstock {

enum class UpstreamLabel : uint16_t { none = 0 };
enum class RouteLabel : uint16_t { none = 0 };
enum class ModelLabel : uint16_t { none = 0, other = 1 };

// One of a closed set: its number in that set, and what a scrape shows.
struct ReasonLabel {
    uint8_t number;
    std::string_view name;
};

enum class Wire : uint8_t { client, backend };                     // label side
enum class Flow : uint8_t { in, out };                             // label direction: in is what we read
enum class RetryOutcome : uint8_t { succeeded, failed, refused };  // refused: by the budget or max_retries
enum class AbandonOutcome : uint8_t {
    completed,    // the response came to its end and was thrown away
    closed,       // the worker ended the connection
    worker_exit,  // the worker's process ended, by itself or by our restart
    given_up,     // another's server was still at it after abandon_limit
};

// How one exchange ended. A negative duration was not measured (it never queued, no backend was reached).
struct RequestEnd {
    static constexpr Duration not_measured = Duration(-1);

    UpstreamLabel upstream = UpstreamLabel::none;
    RouteLabel route = RouteLabel::none;
    ModelLabel model = ModelLabel::none;
    uint16_t code = 0;  // as logged: 499 where the client left
    Duration whole = not_measured;
    Duration queue = not_measured;       // from admit to the grant
    Duration backend = not_measured;     // from the grant to the end of the response
    Duration first_byte = not_measured;  // from the grant to the first byte of the response
};

class StatsBook {
  public:
    static constexpr size_t models_per_upstream = 200;
    static constexpr size_t longest_model_name = 128;

    StatsBook();

    UpstreamLabel upstream(
        std::string_view name);  // slow; the same name gives the same label, over reloads too
    RouteLabel route(std::string_view name);
    SeriesBook& series() { return series_; }

  private:
    friend class Stats;

    struct Model {
        uint64_t key;  // upstream and name, hashed
        std::string name;
        ModelLabel label;
    };
    struct Names {
        std::map<std::string, uint16_t, std::less<>> by_name;
        std::vector<std::string> names = {""};  // the first is the empty label of none
        uint16_t number_of(std::string_view name);
    };

    std::string upstream_name(UpstreamLabel);
    std::string route_name(RouteLabel);

    SeriesBook series_;
    std::mutex mutex_;
    Names upstreams_;
    Names routes_;
    std::vector<std::map<std::string, std::unique_ptr<Model>, std::less<>>> models_;  // one map an upstream

    // Families, all made in the constructor.
    FamilyId requests_, rejections_, request_duration_, queue_duration_, backend_duration_, first_byte_;
    FamilyId in_flight_, connections_, connections_total_, bytes_, retries_, abandoned_, wasted_, grpc_;
    FamilyId accept_pauses_, http2_floods_, http2_resets_;
    FamilyId tls_handshakes_, tls_failures_, proxy_headers_;
};

class Stats {
  public:
    explicit Stats(StatsBook& book);

    ModelLabel model(UpstreamLabel upstream, std::string_view name);  // empty: none

    void request_ended(const RequestEnd& end);
    void rejected(UpstreamLabel upstream, ModelLabel model, ReasonLabel reason);
    void grpc_ended(UpstreamLabel upstream, ModelLabel model, ReasonLabel status);
    void retry(UpstreamLabel upstream, RetryOutcome outcome);
    void abandoned(UpstreamLabel upstream, AbandonOutcome outcome);
    void wasted(UpstreamLabel upstream, ModelLabel model, ReasonLabel cause, Duration backend_time);

    void connection_opened(Wire side) { opened(connections_[at(side)], connections_total_[at(side)]); }
    void connection_closed(Wire side) { page_.subtract(connections_[at(side)]); }
    void bytes(Wire side, Flow direction, uint64_t n) { page_.add(bytes_[at(side)][at(direction)], n); }
    void http2_flood(H2Flood kind) { page_.add(http2_floods_[at(kind)]); }
    void http2_reset(Wire side, H2Error code) {
        page_.add(http2_resets_[at(side)][std::min(at(code), h2_error_count)]);
    }
    void accept_paused() { page_.add(accept_pauses_); }
    void tls_handshake(Wire side, bool resumed) { page_.add(tls_handshakes_[at(side)][resumed]); }
    void tls_failed(Wire side, ReasonLabel reason);
    void proxy_header_failed(ReasonLabel reason);

    // In flight on a backend of an upstream without limits. The park counts the others: its numbers are shown
    // for them.
    SeriesId in_flight_of(UpstreamLabel upstream, std::string_view backend);  // slow; once a backend and loop
    void sent_to(SeriesId in_flight) { page_.add(in_flight); }
    void done_with(SeriesId in_flight) { page_.subtract(in_flight); }

  private:
    struct Durations {
        SeriesId whole, queue, backend, first_byte;
    };
    enum class Kind : uint8_t {
        requests = 1,
        rejections,
        retries,
        abandoned,
        wasted,
        tls_failures,
        proxy_headers,
        grpc
    };

    static size_t at(auto e) { return static_cast<size_t>(e); }
    void opened(SeriesId now, SeriesId total) { page_.add(now), page_.add(total); }
    SeriesId series_of(Kind kind, UpstreamLabel, RouteLabel, ModelLabel, uint16_t code,
                       std::string_view name);
    SeriesId make_series(Kind kind, UpstreamLabel, RouteLabel, ModelLabel, uint16_t code,
                         std::string_view name);
    const Durations& durations_of(UpstreamLabel, ModelLabel);
    ModelLabel learn_model(UpstreamLabel, std::string_view name, uint64_t key);
    void remember(const StatsBook::Model& model);
    std::string model_name(UpstreamLabel, ModelLabel);

    StatsBook& book_;
    CounterPage& page_;
    KeyIndex ids_;
    KeyIndex duration_at_;
    std::vector<Durations> durations_;
    KeyIndex model_at_;
    std::vector<const StatsBook::Model*> models_;
    std::vector<bool> models_full_;  // by upstream: all its models are in model_at_; another one is `other`
    SeriesId connections_[2], connections_total_[2], bytes_[2][2], accept_pauses_;
    SeriesId http2_floods_[h2_flood_count];
    SeriesId http2_resets_[2][h2_error_count + 1];  // the last: other codes
    SeriesId tls_handshakes_[2][2];
};

}  // namespace penstock
