// A TlsClient is what we are in TLS to the servers of one upstream: whom we trust, what we show. Immutable;
// any thread. Verification is on unless the settings say otherwise: the chain, the dates, and that the
// certificate is for the host that was meant, by name or by IP address. A connection keeps its TlsClient
// alive.
#pragma once

#include <memory>
#include <string>

#include "net/tls_settings.h"

namespace penstock {

class TlsClient {
  public:
    struct Settings {
        bool verify = true;
        std::string ca;           // empty: those that the system trusts
        std::string certificate;  // ours, and its key; or empty
        std::string key;
        bool http2 = false;  // the server must choose h2; else we offer http/1.1
    };

    // Null where there are errors.
    static std::shared_ptr<const TlsClient> load(const Settings& settings, FileFindings& findings);

    // `host`: a name, which the server is told (SNI), or an IP address. `sessions`: with this server, to go
    // on with, and where the next ones are kept; or null.
    static std::unique_ptr<Tls> connect(const std::shared_ptr<const TlsClient>& client,
                                        const std::string& host, TlsSessions* sessions, ChunkPool& chunks);

    TlsClient(const TlsClient&) = delete;
    TlsClient& operator=(const TlsClient&) = delete;

  private:
    TlsClient();
    static int keep_session(SSL* ssl, SSL_SESSION* session);

    const uint64_t number_;  // of all of this process: a session is used only with the one that verified it
    bool http2_ = false;
    SslSettings settings_;
};

}  // namespace penstock
