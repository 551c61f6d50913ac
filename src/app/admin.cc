#include "app/admin.h"

#include <cassert>
#include <cstring>
#include <ctime>
#include <utility>

#include "base/log.h"
#include "codec/h1_writer.h"

namespace penstock {

namespace {

constexpr Duration idle_time = 75s;   // between requests: longer than the usual scrape interval
constexpr Duration head_time = 10s;   // from a request's first byte to the end of its head
constexpr Duration page_time = 30s;   // for taking a whole page
constexpr Duration finish_time = 2s;  // after our last words
constexpr size_t piece_bytes = 16 * 1024;

H1Limits admin_limits() {
    H1Limits limits;
    limits.head_bytes = 16 * 1024;
    limits.line_bytes = 4 * 1024;
    limits.fields = 64;
    return limits;
}

std::string http_date() {
    std::time_t now = std::time(nullptr);
    std::tm parts{};
    ::gmtime_r(&now, &parts);
    char text[40];
    return {text, std::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts)};
}

}  // namespace

// One connection: a head, a page, the next head.
class AdminConnection final : public ChannelUser, public Mortal, public Link<AdminTag> {
  public:
    AdminConnection(Admin& admin, int fd, bool is_unix)
        : admin_(admin), channel_(admin.loop_, *this), deadline_(*this) {
        channel_.adopt(fd, is_unix);
        turn().mark(*this);
    }
    ~AdminConnection() {
        channel_.unlink();  // from those with output, where it is not a turn that ends it
        Task::unlink();
        Link<GraveTag>::unlink();
        Link<AdminTag>::unlink();
    }

    void fill() override {
        if (channel_.bytes_read() == seen_bytes_ && !ended()) return;
        seen_bytes_ = channel_.bytes_read();
        turn().mark(*this);
    }
    void run(Time now) override;
    void reap() override { admin_.made_.free(this); }

    void close();

  private:
    enum class State : uint8_t { reading, writing, finishing, closed };

    Turn& turn() { return admin_.loop_.turn(); }
    bool ended() const { return channel_.at_end() || channel_.dead() || channel_.write_failed(); }
    void read(Time now);
    void answer(const Page& page, const Head& head, const Framing& framing, Time now);
    void write(Time now);
    void finish(Time now);
    void go_to(State state, Time deadline);

    Admin& admin_;
    Channel channel_;
    Deadline deadline_;
    H1RequestReader reader_;
    std::string page_;  // what is still to be written: head and body
    size_t written_ = 0;
    uint64_t seen_bytes_ = 0;
    State state_ = State::reading;
    bool keep_ = false;
    bool head_clock_ = false;
};

void AdminConnection::go_to(State state, Time deadline) {
    state_ = state;
    turn().arm(deadline_, deadline);
}

void AdminConnection::run(Time now) {
    if (state_ == State::closed) return;
    if (channel_.dead() || channel_.write_failed() || channel_.finished() || deadline_.expired())
        return close();
    if (!deadline_.is_armed()) go_to(state_, now + idle_time);
    if (channel_.readable() && !channel_.paused()) channel_.resume();  // what one turn did not read
    if (state_ == State::writing) write(now);
    if (state_ == State::reading) read(now);
}

void AdminConnection::read(Time now) {
    if (channel_.input().empty()) {
        if (channel_.at_end()) finish(now);  // an earlier page may still be on its way
        return;
    }
    admin_.heard_from(*this);
    Head head;
    switch (reader_.read(channel_.input(), admin_limits(), admin_.field_room_, head)) {
        case ReadStep::need_more:
            if (channel_.at_end()) return finish(now);
            if (!head_clock_) turn().arm(deadline_, now + head_time);
            head_clock_ = true;
            return;
        case ReadStep::failed: {
            Page page{rule_status(reader_.rule()),
                      "text/plain; charset=utf-8",
                      std::string(rule_name(reader_.rule())) + "\n",
                      {}};
            return answer(page, Head{}, Framing{}, now);
        }
        case ReadStep::complete:
            return answer(admin_.pages_.page(head.method, head.target()), head, reader_.framing(), now);
    }
}

void AdminConnection::answer(const Page& page, const Head& head, const Framing& framing, Time now) {
    // No page takes a body. One that comes nevertheless is thrown away with the connection.
    keep_ = framing.keep_alive && framing.body == BodyKind::none && !framing.upgrade;
    bool with_body = head.method != Method::head;

    std::string date = http_date();
    FieldLine fields[] = {{"date", date},
                          {"content-type", page.content_type},
                          {"cache-control", "no-store"},
                          {"x-content-type-options", "nosniff"},
                          {"allow", page.allow}};
    HeadEdit edit;
    edit.add = std::span<const FieldLine>(fields, page.allow.empty() ? 4 : 5);
    edit.declare = BodyKind::length;
    edit.length = page.body.size();
    edit.connection = !keep_                            ? ConnectionWord::close
                      : head.version == Version::http10 ? ConnectionWord::keep_alive
                                                        : ConnectionWord::none;
    page_.resize(head_bound(page.status, edit));
    page_.resize(static_cast<size_t>(write_response_head(page.status, edit, page_.data()) - page_.data()));
    if (with_body) page_ += page.body;
    written_ = 0;

    channel_.consume(reader_.consumed());
    reader_.reset();
    head_clock_ = false;
    channel_.pause();
    go_to(State::writing, now + page_time);
    write(now);
}

void AdminConnection::write(Time now) {
    while (written_ < page_.size() && channel_.has_room()) {
        auto piece = std::string_view(page_).substr(written_, piece_bytes);
        channel_.write(piece);
        written_ += piece.size();
    }
    if (written_ < page_.size()) return channel_.tell_when_drained();
    page_ = {};  // a page of metrics may be large, and the next one comes in a minute
    if (!keep_) return finish(now);
    go_to(State::reading, now + idle_time);
    channel_.resume();
    if (!channel_.input().empty() || channel_.at_end()) turn().mark(*this);
}

void AdminConnection::finish(Time now) {
    go_to(State::finishing, now + finish_time);
    channel_.tell_when_drained();
    channel_.finish();
    turn().mark(*this);
}

void AdminConnection::close() {
    if (state_ == State::closed) return;
    state_ = State::closed;
    deadline_.disarm();
    channel_.pause();
    channel_.discard_input();
    Link<AdminTag>::unlink();
    --admin_.live_;
    turn().bury(*this);
}

Admin::Admin(Loop& loop, int listening_fd, const AdminPages& pages)
    : loop_(loop),
      pages_(pages),
      listener_(loop, *this, listening_fd, 0),
      field_room_(admin_limits().fields) {}

Admin::~Admin() {
    // Those that wait to be reaped, too.
    made_.for_each([this](AdminConnection& connection) { made_.free(&connection); });
}

void Admin::accepted(Listener&, int fd, const SocketAddress& from) {
    if (live_ == most_connections) connections_.front()->close();
    connections_.push_back(*made_.make(*this, fd, from.is_unix()));
    ++live_;
}

void Admin::accept_paused(int error) {
    log::warn("admin: cannot accept a connection ({}); it waits until a descriptor is free",
              std::strerror(error));
}

void Admin::heard_from(AdminConnection& connection) {
    connection.Link<AdminTag>::unlink();
    connections_.push_back(connection);
}

}  // namespace penstock
