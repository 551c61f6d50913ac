#include "app/server.h"

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <random>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <thread>
#include <unistd.h>

#include "app/admin.h"
#include "app/fleet.h"
#include "app/notify.h"
#include "base/line_writer.h"
#include "base/log.h"
#include "proxy/data_loop.h"

namespace penstock {

namespace {

template <class F>
class CallLetter final : public Letter {
  public:
    explicit CallLetter(F call) : call_(std::move(call)) {}
    void open(Loop&) override { call_(); }

  private:
    F call_;
};

// Has `call` run on that loop, in its next turn.
template <class F>
void on(Loop& loop, F call) {
    loop.post(std::make_unique<CallLetter<F>>(std::move(call)));
}

// A data loop, its thread, and what the main thread may read of it.
struct Station {
    explicit Station(unsigned index) : loop(index) {}
    Loop loop;
    std::unique_ptr<DataLoop> data;
    std::thread thread;
};

void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

class RunningServer final : Post, StatusSource, Loop::WakeTaker, Task {
  public:
    explicit RunningServer(const Config& config);
    ~RunningServer();
    int run();

  private:
    void wake(const Wake& wake) override;
    void wake_main() override;
    Status status() override;
    void woken(Handle) override;
    void run(Time now) override;

    Result<> start();
    Result<> open_listeners();
    Result<> open_admin();
    void limit_connections();
    void reload();
    void start_threads();
    void drain(Time now);
    void stop_threads();
    static void on_signal(int fd, short, void* self);
    void signalled(int number);

    const Config config_;
    Notify notify_ = Notify::from_environment();
    const Time started_ = monotonic_now();
    TicketKeys ticket_keys_;
    Loop loop_;  // the main thread's
    Park park_;
    MemoryTotal memory_;
    StatsBook book_;
    std::unique_ptr<LineWriter> access_writer_;
    std::unique_ptr<RateLimiter> limiter_;  // where there are rate limits
    Shared shared_;
    Fleet fleet_;
    std::unique_ptr<Snapshot> snapshot_;
    std::vector<std::unique_ptr<Station>> stations_;
    std::vector<std::string> listeners_;
    AdminPages pages_;
    std::unique_ptr<Admin> admin_;
    int signals_ = -1;
    event signal_event_{};
    Deadline drained_by_;
    bool draining_ = false;  // asked to
    bool drain_begun_ = false;
    bool cut_ = false;
    bool stopping_workers_ = false;
    bool done_ = false;
    uint64_t reloads_ = 0, failed_reloads_ = 0;
};

RunningServer::RunningServer(const Config& config)
    : config_(config),
      loop_(config.threads),
      park_(config.threads, std::random_device{}()),
      memory_(config.limits.memory, config.threads),
      shared_{park_, *this, memory_, book_, nullptr},
      fleet_(loop_, park_, *this, book_, config.resolver, *this),
      pages_(book_.series(), *this),
      drained_by_(*this) {
    loop_.take_wakes(this);
}

RunningServer::~RunningServer() {
    if (signals_ >= 0) {
        event_del(&signal_event_);
        ::close(signals_);
    }
    Task::unlink();
}

void RunningServer::wake(const Wake& wake) {
    if (wake.loop < stations_.size()) stations_[wake.loop]->loop.wake(wake.to);
}

void RunningServer::wake_main() { loop_.wake({}); }

// Whatever it was about: a tick of the park, and a look at how far draining is.
void RunningServer::woken(Handle) {
    loop_.turn().mark(fleet_);
    loop_.turn().mark(*this);
}

int RunningServer::run() {
    // Signals are read from a descriptor by the main loop; blocked before there is any other thread.
    sigset_t taken;
    sigemptyset(&taken);
    for (int number : {SIGTERM, SIGINT, SIGHUP, SIGUSR1}) sigaddset(&taken, number);
    ::pthread_sigmask(SIG_BLOCK, &taken, nullptr);
    ::signal(SIGPIPE, SIG_IGN);
    signals_ = ::signalfd(-1, &taken, SFD_NONBLOCK | SFD_CLOEXEC);
    event_assign(&signal_event_, loop_.base(), signals_, EV_READ | EV_PERSIST, on_signal, this);
    event_add(&signal_event_, nullptr);
    raise_descriptor_limit();

    log::open();
    if (auto started = start(); !started) {
        log::error("{}", started.error().message);
        stop_threads();
        log::close();
        return 1;
    }
    notify_.ready("serving");
    while (!done_) loop_.run_once();
    stop_threads();
    admin_.reset();
    log::info("stopped");
    log::close();
    return 0;
}

Result<> RunningServer::start() {
    if (config_.access_log.format != LogFormat::off) {
        auto writer = LineWriter::open(config_.access_log.path);
        if (!writer) return failure("access_log.path: " + writer.error().message);
        access_writer_ = std::move(*writer);
        shared_.access_writer = access_writer_.get();
    }
    for (const Upstream& upstream : config_.upstreams)
        if (auto added = fleet_.add(upstream); !added) return added;
    if (!config_.rate_limits.empty()) {
        std::random_device seed;
        auto word = [&seed] { return uint64_t{seed()} << 32 | seed(); };
        limiter_ = std::make_unique<RateLimiter>(limit_rules(config_), HashKey128{word(), word()});
        shared_.limiter = limiter_.get();
    }
    snapshot_ = std::make_unique<Snapshot>(config_, fleet_.upstreams(), book_);
    std::random_device seed;
    for (unsigned i = 0; i < config_.threads; ++i) {
        auto& station = *stations_.emplace_back(std::make_unique<Station>(i));
        station.data =
            std::make_unique<DataLoop>(station.loop, shared_, *snapshot_, (uint64_t{seed()} << 32) | seed());
    }
    LoadedCredentials credentials = load_credentials(config_, Places(), ticket_keys_);
    if (!credentials.credentials) return failure(credentials.errors.front().text());
    fleet_.use(credentials.credentials);
    for (auto& station : stations_) station->data->use(credentials.credentials);
    std::vector<DataLoop*> all;
    for (auto& station : stations_) all.push_back(station->data.get());
    for (auto& station : stations_) station->data->deal_to(all);
    if (auto opened = open_listeners(); !opened) return opened;
    if (auto opened = open_admin(); !opened) return opened;
    limit_connections();
    start_threads();
    fleet_.start_workers();
    for (const std::string& listener : listeners_) log::info("listening on {}", listener);
    if (admin_) log::info("admin on {}", admin_->address());
    return {};
}

Result<> RunningServer::open_listeners() {
    for (unsigned number = 0; number < config_.listen.size(); ++number) {
        auto address = socket_address(config_.listen[number].address);
        if (!address) return failure(address.error().message);
        // The kernel spreads TCP connections over sockets that share a port; a unix socket is loop 0's.
        size_t sockets = address->is_unix() ? 1 : stations_.size();
        for (size_t i = 0; i < sockets; ++i) {
            auto fd = open_listener(*address, sockets > 1);
            if (!fd) return failure(fd.error().message);
            if (i == 0) {
                *address = address->is_unix() ? *address
                                              : local_address(*fd);  // port 0: the others share what it got
                listeners_.push_back(address->text());
            }
            stations_[i]->data->listen(*fd, number);
        }
    }
    return {};
}

Result<> RunningServer::open_admin() {
    if (!config_.admin) return {};
    auto address = socket_address(*config_.admin);
    if (!address) return failure(address.error().message);
    auto fd = open_listener(*address, false, 128);
    if (!fd) return failure(fd.error().message);
    admin_ = std::make_unique<Admin>(loop_, *fd, pages_);
    return {};
}

// Clients may not take the descriptors that serving them needs: for backends, new workers, the admin address.
void RunningServer::limit_connections() {
    rlimit limit{};
    ::getrlimit(RLIMIT_NOFILE, &limit);
    uint64_t open = 0;
    for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) ++open;
    uint64_t left = limit.rlim_cur > open ? limit.rlim_cur - open : 0;
    uint64_t kept = 16;
    for (const LiveUpstream* upstream : fleet_.upstreams()) {
        kept += upstream->settings.workers ? upstream->settings.workers->count * uint64_t{8} : 0;
        bool unlimited = false;
        for (const Server& server : upstream->settings.servers) {
            kept += server.concurrency;
            unlimited |= server.concurrency == 0;
        }
        if (upstream->settings.workers)
            kept += uint64_t{upstream->settings.workers->count} * upstream->settings.concurrency;
        if (unlimited) kept += left / 2;  // each request may need a connection of its own
    }
    uint64_t room = left - std::min(kept, left / 2);
    shared_.most_connections =
        static_cast<uint32_t>(std::min<uint64_t>(config_.limits.connections, std::max<uint64_t>(room, 1)));
    if (shared_.most_connections < config_.limits.connections)
        log::warn("at most {} client connections, not {}: this process may open {} files (ulimit -n)",
                  shared_.most_connections, config_.limits.connections, limit.rlim_cur);
}

void RunningServer::start_threads() {
    for (auto& station : stations_) station->thread = std::thread([loop = &station->loop] { loop->run(); });
}

// --- ending

void RunningServer::on_signal(int fd, short, void* self) {
    signalfd_siginfo info;
    while (::read(fd, &info, sizeof info) == sizeof info)
        static_cast<RunningServer*>(self)->signalled(static_cast<int>(info.ssi_signo));
}

void RunningServer::signalled(int number) {
    switch (number) {
        case SIGTERM:
        case SIGINT:
            if (draining_) {
                log::warn("signalled again: leaving at once");
                log::flush();
                ::_exit(1);
            }
            draining_ = true;
            loop_.turn().mark(*this);
            return;
        case SIGUSR1:
            if (access_writer_) access_writer_->reopen();
            log::info("logs reopened");
            return;
        case SIGHUP: return reload();
        default: return;
    }
}

// The files of certificates, keys and authorities are read again. New connections get what they hold now;
// those that are open keep what they began with. Where something is wrong with them, all stays as it was.
void RunningServer::reload() {
    LoadedCredentials found = load_credentials(config_, Places(), ticket_keys_);
    for (const Problem& error : found.errors) log::error("reload: {}", error.text());
    for (const Problem& warning : found.warnings) log::warn("reload: {}", warning.text());
    if (!found.credentials) {
        ++failed_reloads_;
        log::error("reload: certificates stay as they were");
        return;
    }
    for (auto& station : stations_)
        on(station->loop,
           [data = station->data.get(), credentials = found.credentials] { data->use(credentials); });
    fleet_.use(found.credentials);
    ++reloads_;
    log::info("reload: certificates are read again; other settings take a restart");
}

void RunningServer::drain(Time now) {
    drain_begun_ = true;
    Time until = now + config_.limits.drain;
    log::info("draining: {} connections, at most {}", shared_.connections.load(),
              format_duration(config_.limits.drain));
    notify_.stopping("draining");
    Wakes wakes;
    park_.drain(until, now, wakes);
    deliver(park_, wakes, now, *this);
    for (auto& station : stations_) on(station->loop, [data = station->data.get()] { data->drain(); });
    loop_.turn().arm(drained_by_, until);
}

void RunningServer::run(Time now) {
    if (!draining_) return;
    if (!drain_begun_) drain(now);
    if (drained_by_.expired() && !cut_) {
        cut_ = true;
        log::warn("drain time is over: {} connections are cut", shared_.connections.load());
        for (auto& station : stations_) on(station->loop, [data = station->data.get()] { data->stop_now(); });
    }
    bool idle = shared_.connections.load() == 0;  // also none that is being dealt to a loop
    for (auto& station : stations_) idle &= station->data->finished();
    if (idle && !stopping_workers_) {
        stopping_workers_ = true;
        drained_by_.disarm();
        log::info("drained");
        fleet_.shut_down();
    }
    if (fleet_.is_stopped()) done_ = true;
}

void RunningServer::stop_threads() {
    for (auto& station : stations_) {
        if (!station->data) continue;
        auto last = [station = station.get()] { station->data->leave(); };
        if (station->thread.joinable())
            on(station->loop, last);
        else
            last();
    }
    for (auto& station : stations_) {
        if (station->thread.joinable()) station->thread.join();
        station->data.reset();
    }
    stations_.clear();
}

Status RunningServer::status() {
    Status out;
    out.version = PENSTOCK_VERSION;
    // Said when it is true: no loop takes anything new.
    bool all_drain = std::ranges::all_of(stations_, [](auto& station) { return station->data->draining(); });
    out.state = draining_ && all_drain ? "draining" : "ready";
    out.listeners = listeners_;
    if (admin_) out.admin = admin_->address();
    out.loops = config_.threads;
    out.up = loop_.now() - started_;
    fleet_.describe(out, loop_.now());
    for (size_t i = 0; i < config_.rate_limits.size(); ++i) {
        const RateLimit& limit = config_.rate_limits[i];
        LimitTally tally = limiter_->tally(i);
        out.rate_limits.push_back({limit.name, limit.dry_run, tally.keys, limit.most_keys(), tally.in_flight,
                                   tally.passed, tally.held,
                                   limit.dry_run ? tally.dry_refused : tally.refused, tally.forgiven});
    }
    out.reloads = reloads_;
    out.failed_reloads = failed_reloads_;
    out.memory_reserved = static_cast<uint64_t>(memory_.borrowed());
    out.memory_limit = config_.limits.memory;
    for (auto& station : stations_) out.turns.push_back(station->loop.turn().number());
    if (access_writer_) out.access_log_dropped = access_writer_->dropped_lines();
    out.log_dropped = log::dropped_lines();
    return out;
}

}  // namespace

int run(const Config& config) { return RunningServer(config).run(); }

}  // namespace penstock
