// A TlsServer is what a listener is in TLS: its certificates, chosen by the name that a client asks for
// (SNI), the protocols it offers (ALPN), and whose certificates it asks of clients. Immutable; any thread. A
// reload of the files makes a new one; connections that the old one accepted keep it alive.
//
// TicketKeys outlive it. Sessions are kept by the clients alone, in tickets.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "net/tls_settings.h"
#include "net/tls_tickets.h"

namespace penstock {

class TlsServer {
  public:
    struct Settings {
        std::vector<CertificatePaths> certificates;  // the first is for clients that name nobody we know
        std::string client_ca;                       // set: clients must show a certificate that it signed
        bool http1 = true;
        bool http2 = false;
    };

    // Null where there are errors.
    static std::shared_ptr<const TlsServer> load(const Settings& settings, TicketKeys& keys,
                                                 FileFindings& findings);

    static std::unique_ptr<Tls> accept(const std::shared_ptr<const TlsServer>& server, ChunkPool& chunks);

    TlsServer(const TlsServer&) = delete;
    TlsServer& operator=(const TlsServer&) = delete;

  private:
    TlsServer() = default;
    bool add(const CertificatePaths& paths, const Settings& settings, FileFindings& findings);
    SSL_CTX* find(std::string_view asked) const;
    static int choose_certificate(SSL* ssl, int*, void* self);
    static int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                               const unsigned char* in, unsigned in_size, void* self);

    struct Certificate {
        std::vector<std::string> names;  // sorted
        std::vector<int> key_types;      // one of each kind may stand beside another for the same names
        SslSettings settings;
    };
    std::vector<Certificate> certificates_;
    std::map<std::string, SSL_CTX*, std::less<>> by_name_;  // exact ones, and *.example.com
    std::string protocols_;                                 // as ALPN writes them, what we like best first
    TicketKeys* keys_ = nullptr;
};

}  // namespace penstock
