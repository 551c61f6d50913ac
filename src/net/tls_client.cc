#include "net/tls_client.h"

#include <atomic>
#include <new>
#include <openssl/err.h>
#include <openssl/x509v3.h>

namespace penstock {

namespace {

std::atomic<uint64_t> last_number{0};

constexpr std::string_view h2 = "h2";
const std::string localhost = "localhost";
constexpr unsigned char offer_h2[] = {2, 'h', '2'};
constexpr unsigned char offer_http1[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

}  // namespace

TlsClient::TlsClient() : number_(++last_number), settings_(tls_settings(TLS_client_method())) {}

std::shared_ptr<const TlsClient> TlsClient::load(const Settings& settings, FileFindings& findings) {
    std::shared_ptr<TlsClient> out(new TlsClient);
    SSL_CTX* to = out->settings_.get();
    out->http2_ = settings.http2;
    bool good = true;
    if (settings.verify) {
        SSL_CTX_set_verify(to, SSL_VERIFY_PEER, nullptr);
        if (settings.ca.empty())
            SSL_CTX_set_default_verify_paths(to);
        else
            good = trust(to, settings.ca, "ca", findings);
    }
    if (!settings.certificate.empty())
        good &= use_certificate(to, {settings.certificate, settings.key, ""}, findings);
    SSL_CTX_set_session_cache_mode(to, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(to, keep_session);
    SSL_CTX_set_app_data(to, out.get());
    if (settings.http2)
        SSL_CTX_set_alpn_protos(to, offer_h2, sizeof offer_h2);
    else
        SSL_CTX_set_alpn_protos(to, offer_http1, sizeof offer_http1);
    ERR_clear_error();
    return good ? out : nullptr;
}

std::unique_ptr<Tls> TlsClient::connect(const std::shared_ptr<const TlsClient>& client,
                                        const std::string& name, TlsSessions* sessions, ChunkPool& chunks) {
    const std::string& host = name.empty() ? localhost : name;  // of a unix socket, as its Host field says
    SslPtr ssl(SSL_new(client->settings_.get()));
    if (!ssl) throw std::bad_alloc();
    SSL_set_connect_state(ssl.get());
    X509_VERIFY_PARAM* wanted = SSL_get0_param(ssl.get());
    X509_VERIFY_PARAM_set_hostflags(wanted, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    // SNI is for names (RFC 6066 3); an address is found among the certificate's addresses.
    if (X509_VERIFY_PARAM_set1_ip_asc(wanted, host.c_str()) != 1) {
        X509_VERIFY_PARAM_set1_host(wanted, host.data(), host.size());
        SSL_set_tlsext_host_name(ssl.get(), host.c_str());
    }
    if (sessions)
        if (auto session = sessions->take(client->number_)) SSL_set_session(ssl.get(), session.get());
    ERR_clear_error();
    auto tls = std::make_unique<Tls>(chunks, std::move(ssl), client);
    if (client->http2_) tls->require_application(h2);
    tls->keep_sessions_in(sessions);
    return tls;
}

int TlsClient::keep_session(SSL* ssl, SSL_SESSION* session) {
    auto& self = *static_cast<Tls*>(SSL_get_app_data(ssl));
    if (!self.sessions()) return 0;
    auto& maker = *static_cast<const TlsClient*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    self.sessions()->put(session, maker.number_);
    return 1;
}

}  // namespace penstock
