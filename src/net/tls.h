// The TLS of one connection, over memory: it knows no socket. Its channel gives it what came (room(),
// received()), takes plaintext out of it (read()), puts plaintext in (write()) and sends what lies in
// output(). OpenSSL never waits for a socket, so writing always succeeds, into an output that its user
// bounds; and however many small pieces a turn has made, they leave in records of up to 16 KiB.
//
// It keeps alive whoever made it (TlsServer, TlsClient), so that a reload of certificates ends nothing. While
// a connection idles it holds no buffer for bytes, neither OpenSSL's nor ours.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <openssl/ssl.h>
#include <span>
#include <string>
#include <string_view>

#include "base/bytes.h"

namespace penstock {

struct SslFree {
    void operator()(SSL* ssl) const { SSL_free(ssl); }
    void operator()(SSL_CTX* settings) const { SSL_CTX_free(settings); }
    void operator()(SSL_SESSION* session) const { SSL_SESSION_free(session); }
    void operator()(X509* certificate) const { X509_free(certificate); }
};
using SslPtr = std::unique_ptr<SSL, SslFree>;
using SslSettings = std::unique_ptr<SSL_CTX, SslFree>;

// Why a handshake failed, or what broke a connection later.
enum class TlsFailure : uint8_t {
    none,
    version,      // no common version
    cipher,       // no common cipher
    application,  // no common protocol by ALPN
    certificate,  // theirs is missing, or is not trusted
    refused,      // they sent an alert: it is ours that they do not like
    protocol,     // rubbish
    closed,       // the connection ended in the middle
    timeout,
    plain_http,  // they speak HTTP in clear
};
std::string_view to_string(TlsFailure failure);

// The last sessions with one server, for the next connections to it. One loop's; it outlives the connections
// that were made with it. Those of TLS 1.3 are used once, and each connection brings new ones.
class TlsSessions {
  public:
    void put(SSL_SESSION* session, uint64_t maker);  // takes it over
    // Null if there is none that the TlsClient of this number has made.
    std::unique_ptr<SSL_SESSION, SslFree> take(uint64_t maker);
    void clear() { kept_ = {}; }

  private:
    std::array<std::unique_ptr<SSL_SESSION, SslFree>, 4> kept_;
    size_t last_ = 0;
    uint64_t maker_ = 0;  // what one has verified is nothing to another
};

class Tls {
  public:
    enum class Read : uint8_t { bytes, more, end, failed };

    // `ssl` knows already whether it accepts or connects.
    Tls(ChunkPool& chunks, SslPtr ssl, std::shared_ptr<const void> maker);
    ~Tls();
    Tls(const Tls&) = delete;
    Tls& operator=(const Tls&) = delete;

    // --- plaintext
    // more: there is none until more has come from the other side; end: it has said so (close_notify).
    // Does the handshake first.
    Read read(char* into, size_t room, size_t& got);
    bool has_input() const { return begin_ != end_ || SSL_pending(ssl_.get()) > 0; }
    bool write(Bytes& plain);  // takes all of it; false: failed
    void close();              // close_notify, once

    bool is_established() const { return established_; }
    bool is_resumed() const { return resumed_; }
    std::string_view application() const;  // by ALPN: h2, http/1.1, or nothing
    // The handshake fails where another one, or none, is chosen. The text is a literal.
    void require_application(std::string_view protocol) { required_ = protocol; }
    // Where the sessions go that a server gives us, or null.
    void keep_sessions_in(TlsSessions* session) { sessions_ = session; }
    TlsSessions* sessions() const { return sessions_; }
    TlsFailure failure() const { return failure_; }
    const std::string& what_failed() const { return text_; }  // in OpenSSL's words
    void fail(TlsFailure failure, std::string text);

    // --- what travels
    void take_input(ChunkRef chunk, uint32_t begin,
                    uint32_t end);  // the first bytes, read before there was TLS
    std::span<char> room();         // only where all that came before has been read
    void received(size_t bytes) { end_ += static_cast<uint32_t>(bytes); }
    Bytes& output() { return output_; }
    const Bytes& output() const { return output_; }
    void let_go_of_buffers();  // of those that hold nothing: before an idle time

  private:
    // The other side makes us write too (alerts, answers to renegotiation): not without end.
    static constexpr size_t most_output = 256 * 1024;

    static BIO_METHOD* over_memory();
    static int bio_read(BIO* bio, char* out, int bytes);
    static int bio_write(BIO* bio, const char* from, int bytes);
    static long bio_control(BIO* bio, int what, long, void*);
    Read stopped(int result);
    bool shake_hands(Read& out);
    void note_error(int why);

    ChunkPool& chunks_;
    const std::shared_ptr<const void> maker_;  // is gone after ssl_, which calls it
    ChunkRef input_;
    uint32_t begin_ = 0;
    uint32_t end_ = 0;
    Bytes output_;
    SslPtr ssl_;
    std::string_view required_;
    TlsSessions* sessions_ = nullptr;
    std::string text_;
    TlsFailure failure_ = TlsFailure::none;
    bool established_ = false;
    bool resumed_ = false;
    bool closed_ = false;
    bool ended_ = false;
};

// All that OpenSSL has to say of the last failed call, and forgets: "wrong version number; ...".
std::string tls_error_text();

}  // namespace penstock
