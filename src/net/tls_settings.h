// What TlsServer and TlsClient have in common: how an SSL_CTX is made, and how files come into it. Nothing in
// here says anything of a key but its path.
#pragma once

#include <string>
#include <vector>

#include "base/error.h"
#include "net/tls.h"

namespace penstock {

// What is wrong, or looks wrong, about a file; `setting` names it within the settings: certificates[1].key.
struct FileProblem {
    std::string setting;
    std::string message;
};

struct FileFindings {
    std::vector<FileProblem> errors;
    std::vector<FileProblem> warnings;
};

struct CertificatePaths {
    std::string certificate;
    std::string key;
    std::string setting;  // of both, for findings: "certificates[1].", or nothing
};

// TLS 1.2 and 1.3, forward secrecy, authenticated ciphers: Mozilla's "intermediate" list, 5.7.
SslSettings tls_settings(const SSL_METHOD* method);

// The certificate with its chain, and its key; false where there is an error.
bool use_certificate(SSL_CTX* settings, const CertificatePaths& paths, FileFindings& findings);

// Whom to trust: all certificates of a file. false where there is an error.
bool trust(SSL_CTX* settings, const std::string& path, std::string_view setting, FileFindings& findings);

}  // namespace penstock
