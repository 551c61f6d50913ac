#include "app/discovery.h"

#include <algorithm>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "app/fleet.h"
#include "base/log.h"

namespace penstock {

constexpr Duration first_pause = 500ms;  // after a failed look-up; doubles with each more
constexpr Duration longest_pause = 30s;

class Discovery::Name final : Task {
  public:
    Name(Discovery& all, LiveUpstream& upstream, const Server& server)
        : fleet_(all.fleet_),
          turn_(all.loop_.turn()),
          upstream_(upstream),
          server_(server),
          lookup_(all.resolver_, *this),
          again_(*this) {
        const Duration patience = all.settings_.timeout * all.settings_.attempts;
        if (auto added = fleet_.expect_server(upstream_, server_, turn_.now() + patience))
            stands_in_ = *added;
        ask();
    }
    ~Name() { Task::unlink(); }

    void describe(NameStatus& out) const {
        out.name = server_.address.text;
        for (const Known& known : known_) out.addresses.push_back(known.address.text());
        out.found = found_count_;
        out.failed = failed_count_;
        out.failure = failure_;
    }
    const LiveUpstream& upstream() const { return upstream_; }

  private:
    using Family = Lookup::Family;
    using Kind = Lookup::Answer::Kind;
    struct Known {
        SocketAddress address;
        Family family;
        BackendId backend;
    };

    void ask() {
        kinds_ = {};
        lookup_.ask(server_.address.host, server_.address.port);
    }

    void run(Time now) override {
        if (again_.expired()) {
            again_.disarm();
            ask();
        }
        for (const Family family : {Family::ipv4, Family::ipv6}) {
            auto answer = lookup_.take(family);
            if (!answer) continue;
            kinds_[static_cast<size_t>(family)] = answer->kind;
            if (answer->kind == Kind::found)
                set(family, answer->addresses);
            else
                why_ = answer->why;
        }
        if (!lookup_.is_asking() && !again_.is_armed()) settle(now);
    }

    // Both questions are over.
    void settle(Time now) {
        const auto is = [&](Family family, Kind kind) { return kinds_[static_cast<size_t>(family)] == kind; };
        const bool has_4 = is(Family::ipv4, Kind::found), has_6 = is(Family::ipv6, Kind::found);
        if (has_4 && is(Family::ipv6, Kind::none)) set(Family::ipv6, {});
        if (has_6 && is(Family::ipv4, Kind::none)) set(Family::ipv4, {});
        if (has_4 || has_6) {
            ++found_count_;
            if (!failure_.empty())
                log::info("upstream {}: {} is found again", upstream_.name(), server_.address.text);
            failure_.clear();
            pause_ = first_pause;
            if (server_.resolve > Duration{}) turn_.arm(again_, now + server_.resolve);
            return;
        }
        ++failed_count_;
        if (failure_ != why_)
            log::warn("upstream {}: {} is not found: {}; {}", upstream_.name(), server_.address.text, why_,
                      known_.empty() ? "it has no backend yet" : "its addresses stay as they are");
        failure_ = why_;
        if (stands_in_ && failed_count_ == 1) fleet_.gave_up(upstream_, *stands_in_);
        turn_.arm(again_, now + pause_);
        const Duration longest = server_.resolve > Duration{} ? server_.resolve : longest_pause;
        pause_ = std::min(pause_ * 2, std::max(longest, first_pause));
    }

    void set(Family family, const std::vector<SocketAddress>& addresses) {
        std::vector<std::string> came, went;
        for (const SocketAddress& address : addresses) {
            const auto is_it = [&](const Known& known) { return known.address.ip() == address.ip(); };
            if (std::ranges::any_of(known_, is_it)) continue;
            // What was there at the first look-up has served before we came.
            auto added = fleet_.add_server(upstream_, server_, address, found_count_ == 0);
            if (!added) {
                if (found_count_ == 0)
                    log::warn("upstream {}: {}: {}", upstream_.name(), server_.address.text,
                              added.error().message);
                continue;
            }
            known_.push_back({address, family, *added});
            came.push_back(address.text());
        }
        for (const Known& known : known_) {
            if (known.family != family) continue;
            const auto is_it = [&](const SocketAddress& one) { return one.ip() == known.address.ip(); };
            if (std::ranges::any_of(addresses, is_it)) continue;
            fleet_.remove_server(upstream_, known.backend);
            went.push_back(known.address.text());
        }
        std::erase_if(known_, [&](const Known& known) {
            return std::ranges::find(went, known.address.text()) != went.end();
        });
        if (stands_in_ && !known_.empty()) {
            fleet_.remove_server(upstream_, *stands_in_);
            stands_in_.reset();
        }
        if (!came.empty())
            log::info("upstream {}: {} has {}", upstream_.name(), server_.address.text,
                      fmt::join(came, ", "));
        if (!went.empty())
            log::info("upstream {}: {} has no longer {}", upstream_.name(), server_.address.text,
                      fmt::join(went, ", "));
    }

    Fleet& fleet_;
    Turn& turn_;
    LiveUpstream& upstream_;
    const Server server_;
    Lookup lookup_;
    Deadline again_;
    std::optional<BackendId> stands_in_;  // until the first answer
    std::vector<Known> known_;
    std::array<Kind, Lookup::families> kinds_{};
    Duration pause_ = first_pause;
    std::string why_, failure_;  // of this look-up; as last logged
    uint64_t found_count_ = 0, failed_count_ = 0;
};

Discovery::Discovery(Loop& loop, Fleet& fleet, const ResolverSettings& settings)
    : loop_(loop), fleet_(fleet), settings_(settings), resolver_(loop) {}

Discovery::~Discovery() = default;

Result<> Discovery::add(LiveUpstream& upstream, const Server& server) {
    if (!resolver_.is_open())
        if (auto opened = resolver_.open(settings_.nameservers, settings_.timeout, settings_.attempts);
            !opened)
            return opened;
    names_.push_back(std::make_unique<Name>(*this, upstream, server));
    return {};
}

void Discovery::describe(Status& status) const {
    for (const auto& name : names_) {
        auto at = std::ranges::find_if(
            status.upstreams, [&](const UpstreamStatus& u) { return u.name == name->upstream().name(); });
        if (at != status.upstreams.end()) name->describe(at->names.emplace_back());
    }
}

}  // namespace penstock
