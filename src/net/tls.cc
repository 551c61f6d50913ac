#include "net/tls.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

namespace penstock {

namespace {

constexpr size_t record_bytes = 16384;
// Shorter runs are gathered with what follows them: a record costs 22 bytes and a call of the cipher.
constexpr size_t alone_bytes = 8192;

TlsFailure failure_of(unsigned long error) {
    if (ERR_GET_LIB(error) != ERR_LIB_SSL) return TlsFailure::protocol;
    int reason = ERR_GET_REASON(error);
    switch (reason) {
        case SSL_R_UNSUPPORTED_PROTOCOL:
        case SSL_R_UNKNOWN_PROTOCOL:
        case SSL_R_WRONG_SSL_VERSION:
        case SSL_R_VERSION_TOO_LOW:
        case SSL_R_WRONG_VERSION_NUMBER:
        case SSL_R_NO_PROTOCOLS_AVAILABLE: return TlsFailure::version;
        case SSL_R_NO_SHARED_CIPHER:
        case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
        case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
        case SSL_R_NO_SUITABLE_KEY_SHARE: return TlsFailure::cipher;
        case SSL_R_NO_APPLICATION_PROTOCOL: return TlsFailure::application;
        case SSL_R_CERTIFICATE_VERIFY_FAILED:
        case SSL_R_NO_CERTIFICATES_RETURNED:
        case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE: return TlsFailure::certificate;
        case SSL_R_HTTP_REQUEST:
        case SSL_R_HTTPS_PROXY_REQUEST: return TlsFailure::plain_http;
        default: break;
    }
    return reason > SSL_AD_REASON_OFFSET ? TlsFailure::refused : TlsFailure::protocol;
}

}  // namespace

std::string_view to_string(TlsFailure failure) {
    switch (failure) {
        case TlsFailure::none: break;
        case TlsFailure::version: return "version";
        case TlsFailure::cipher: return "cipher";
        case TlsFailure::application: return "application";
        case TlsFailure::certificate: return "certificate";
        case TlsFailure::refused: return "refused";
        case TlsFailure::protocol: return "protocol";
        case TlsFailure::closed: return "closed";
        case TlsFailure::timeout: return "timeout";
        case TlsFailure::plain_http: return "plain_http";
    }
    return "none";
}

std::string tls_error_text() {
    std::string out;
    while (unsigned long error = ERR_get_error()) {
        const char* reason = ERR_reason_error_string(error);
        if (!out.empty()) out += "; ";
        if (reason) {
            out += reason;
        } else {
            char text[120];
            ERR_error_string_n(error, text, sizeof text);
            out += text;
        }
    }
    return out;
}

void TlsSessions::put(SSL_SESSION* session, uint64_t maker) {
    if (maker != maker_) clear();
    maker_ = maker;
    last_ = (last_ + 1) % kept_.size();
    kept_[last_].reset(session);
}

std::unique_ptr<SSL_SESSION, SslFree> TlsSessions::take(uint64_t maker) {
    if (maker != maker_ || !kept_[last_]) return nullptr;
    std::unique_ptr<SSL_SESSION, SslFree>& newest = kept_[last_];
    if (SSL_SESSION_get_protocol_version(newest.get()) < TLS1_3_VERSION) {
        SSL_SESSION_up_ref(newest.get());
        return std::unique_ptr<SSL_SESSION, SslFree>(newest.get());
    }
    auto out = std::move(newest);
    last_ = (last_ + kept_.size() - 1) % kept_.size();
    return out;
}

Tls::Tls(ChunkPool& chunks, SslPtr ssl, std::shared_ptr<const void> maker)
    : chunks_(chunks), maker_(std::move(maker)), ssl_(std::move(ssl)) {
    BIO* bio = BIO_new(over_memory());
    if (!bio) throw std::bad_alloc();
    BIO_set_data(bio, this);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_app_data(ssl_.get(), this);
}

// A connection that ends without a goodbye says nothing against its session (RFC 8446 6.1); OpenSSL would
// hold it against it.
Tls::~Tls() {
    if (failure_ == TlsFailure::none) SSL_set_shutdown(ssl_.get(), SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
}

// --- what travels

BIO_METHOD* Tls::over_memory() {
    static BIO_METHOD* const method = [] {
        BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "penstock");
        if (!made) throw std::bad_alloc();
        BIO_meth_set_read(made, bio_read);
        BIO_meth_set_write(made, bio_write);
        BIO_meth_set_ctrl(made, bio_control);
        return made;
    }();
    return method;
}

int Tls::bio_read(BIO* bio, char* out, int bytes) {
    auto& self = *static_cast<Tls*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    uint32_t part = std::min(self.end_ - self.begin_, static_cast<uint32_t>(bytes));
    if (part == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    std::memcpy(out, self.input_->data() + self.begin_, part);
    self.begin_ += part;
    return static_cast<int>(part);
}

int Tls::bio_write(BIO* bio, const char* from, int bytes) {
    auto& self = *static_cast<Tls*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    if (self.output_.size() > most_output) return -1;
    self.output_.copy(self.chunks_, {from, static_cast<size_t>(bytes)});
    return bytes;
}

long Tls::bio_control(BIO*, int what, long, void*) { return what == BIO_CTRL_FLUSH ? 1 : 0; }

void Tls::take_input(ChunkRef chunk, uint32_t begin, uint32_t end) {
    assert(begin_ == end_);
    input_ = std::move(chunk);
    begin_ = begin;
    end_ = end;
}

std::span<char> Tls::room() {
    assert(begin_ == end_);
    begin_ = end_ = 0;
    if (!input_ || input_.is_shared() || input_->capacity < large_chunk_bytes) input_ = chunks_.take_large();
    return {input_->data(), input_->capacity};
}

void Tls::let_go_of_buffers() {
    if (begin_ == end_) input_.reset();
}

// --- plaintext

Tls::Read Tls::read(char* into, size_t room, size_t& got) {
    if (failure_ != TlsFailure::none) return Read::failed;
    if (ended_) return Read::end;
    Read out;
    if (!established_ && !shake_hands(out)) return out;
    if (room == 0) return Read::more;
    ERR_clear_error();
    int result = SSL_read_ex(ssl_.get(), into, room, &got);
    return result == 1 ? Read::bytes : stopped(result);
}

bool Tls::shake_hands(Read& out) {
    ERR_clear_error();
    int result = SSL_do_handshake(ssl_.get());
    if (result != 1) {
        out = stopped(result);
        return false;
    }
    established_ = true;
    resumed_ = SSL_session_reused(ssl_.get());
    if (!required_.empty() && application() != required_) {
        fail(TlsFailure::application, "they do not speak " + std::string(required_));
        out = Read::failed;
        return false;
    }
    return true;
}

Tls::Read Tls::stopped(int result) {
    int why = SSL_get_error(ssl_.get(), result);
    if (why == SSL_ERROR_WANT_READ) return Read::more;
    if (why == SSL_ERROR_ZERO_RETURN) {
        ended_ = true;
        return Read::end;
    }
    note_error(why);
    return Read::failed;
}

void Tls::note_error(int why) {
    if (failure_ != TlsFailure::none) return;
    unsigned long error = ERR_peek_error();
    failure_ = failure_of(error);
    text_ = tls_error_text();
    if (failure_ == TlsFailure::certificate)
        if (long verdict = SSL_get_verify_result(ssl_.get()); verdict != X509_V_OK)
            text_ += std::string(": ") + X509_verify_cert_error_string(verdict);
    if (text_.empty()) text_ = "error " + std::to_string(why);
}

void Tls::fail(TlsFailure failure, std::string text) {
    if (failure_ != TlsFailure::none) return;
    failure_ = failure;
    text_ = std::move(text);
}

bool Tls::write(Bytes& plain) {
    ChunkRef gathered;
    while (!plain.empty()) {
        std::string_view run = plain.front().substr(0, record_bytes);
        if (run.size() < alone_bytes && run.size() < plain.size()) {
            if (!gathered) gathered = chunks_.take_large();
            size_t all = 0;
            for (size_t i = 0; i < plain.pieces() && all < large_chunk_bytes; ++i) {
                std::string_view part = plain.piece(i).view().substr(0, large_chunk_bytes - all);
                if (part.empty()) continue;
                std::memcpy(gathered->data() + all, part.data(), part.size());
                all += part.size();
            }
            run = {gathered->data(), all};
        }
        ERR_clear_error();
        size_t written = 0;
        int result = SSL_write_ex(ssl_.get(), run.data(), run.size(), &written);
        if (result != 1) {
            note_error(SSL_get_error(ssl_.get(), result));
            return false;
        }
        plain.drop(written);
    }
    return true;
}

void Tls::close() {
    if (closed_ || !established_ || failure_ != TlsFailure::none) return;
    closed_ = true;
    ERR_clear_error();
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
}

std::string_view Tls::application() const {
    const unsigned char* name = nullptr;
    unsigned size = 0;
    SSL_get0_alpn_selected(ssl_.get(), &name, &size);
    return {reinterpret_cast<const char*>(name), size};
}

}  // namespace penstock
