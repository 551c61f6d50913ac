#include "net/tls_settings.h"

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fmt/format.h>
#include <new>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <sys/stat.h>
#include <unistd.h>

namespace penstock {

namespace {

constexpr const char* ciphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
constexpr const char* groups = "X25519:P-256:P-384";

// Nobody sits at a terminal to be asked.
int no_passphrase(char*, int, int, void*) { return 0; }

// OpenSSL's words for a file that is not there are those of its reader: say it plainly.
bool is_readable(const std::string& path, const std::string& setting, FileFindings& findings) {
    struct stat found;
    int error = ::stat(path.c_str(), &found) != 0   ? errno
                : S_ISDIR(found.st_mode)            ? EISDIR
                : ::access(path.c_str(), R_OK) != 0 ? errno
                                                    : 0;
    if (error == 0) return true;
    findings.errors.push_back({setting, fmt::format("{} cannot be read ({}); give the path of a PEM file",
                                                    path, std::strerror(error))});
    return false;
}

std::string when(const ASN1_TIME* time) {
    std::tm parts{};
    if (ASN1_TIME_to_tm(time, &parts) != 1) return "an unknown time";
    return fmt::format("{:04}-{:02}-{:02} {:02}:{:02} UTC", parts.tm_year + 1900, parts.tm_mon + 1,
                       parts.tm_mday, parts.tm_hour, parts.tm_min);
}

void look_at_dates(SSL_CTX* settings, const CertificatePaths& paths, FileFindings& findings) {
    const X509* certificate = SSL_CTX_get0_certificate(settings);
    if (!certificate) return;
    std::string setting = paths.setting + "certificate";
    const ASN1_TIME* from = X509_get0_notBefore(certificate);
    const ASN1_TIME* until = X509_get0_notAfter(certificate);
    if (X509_cmp_current_time(until) < 0) {
        findings.warnings.push_back({setting, fmt::format("{} has expired on {}; most will refuse it",
                                                          paths.certificate, when(until))});
    } else if (X509_cmp_current_time(from) > 0) {
        findings.warnings.push_back({setting, fmt::format("{} is not valid before {}; most will refuse it",
                                                          paths.certificate, when(from))});
    }
}

}  // namespace

SslSettings tls_settings(const SSL_METHOD* method) {
    SslSettings out(SSL_CTX_new(method));
    if (!out) throw std::bad_alloc();
    SSL_CTX* settings = out.get();
    SSL_CTX_set_min_proto_version(settings, TLS1_2_VERSION);
    SSL_CTX_set_cipher_list(settings, ciphers);
    SSL_CTX_set1_groups_list(settings, groups);
    SSL_CTX_set_options(settings, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_mode(settings, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_default_passwd_cb(settings, no_passphrase);
    return out;
}

bool use_certificate(SSL_CTX* settings, const CertificatePaths& paths, FileFindings& findings) {
    std::string certificate = paths.setting + "certificate", key = paths.setting + "key";
    // Both are looked at, so that all that is wrong is said at once.
    bool readable = is_readable(paths.certificate, certificate, findings);
    if (!is_readable(paths.key, key, findings) || !readable) return false;
    ERR_clear_error();
    if (SSL_CTX_use_certificate_chain_file(settings, paths.certificate.c_str()) != 1) {
        findings.errors.push_back(
            {certificate, fmt::format("{} holds no usable certificate ({}); give a PEM file: "
                                      "the certificate, then those that signed it",
                                      paths.certificate, tls_error_text())});
        return false;
    }
    if (SSL_CTX_use_PrivateKey_file(settings, paths.key.c_str(), SSL_FILETYPE_PEM) != 1) {
        unsigned long error = ERR_peek_last_error();
        bool mismatch =
            ERR_GET_LIB(error) == ERR_LIB_X509 && (ERR_GET_REASON(error) == X509_R_KEY_VALUES_MISMATCH ||
                                                   ERR_GET_REASON(error) == X509_R_KEY_TYPE_MISMATCH);
        std::string why = tls_error_text();
        findings.errors.push_back(
            {key,
             mismatch
                 ? fmt::format("{} is not the key of {}; give the one that the certificate was made for",
                               paths.key, paths.certificate)
                 : fmt::format("{} holds no usable private key ({}); give a PEM file without a passphrase",
                               paths.key, why)});
        return false;
    }
    if (SSL_CTX_check_private_key(settings) != 1) {
        findings.errors.push_back(
            {key, fmt::format("{} is not the key of {} ({}); give the one that the certificate "
                              "was made for",
                              paths.key, paths.certificate, tls_error_text())});
        return false;
    }
    look_at_dates(settings, paths, findings);
    return true;
}

bool trust(SSL_CTX* settings, const std::string& path, std::string_view setting, FileFindings& findings) {
    if (!is_readable(path, std::string(setting), findings)) return false;
    ERR_clear_error();
    if (SSL_CTX_load_verify_file(settings, path.c_str()) == 1) return true;
    findings.errors.push_back(
        {std::string(setting), fmt::format("{} holds no certificate ({}); give a PEM file of "
                                           "those to trust",
                                           path, tls_error_text())});
    return false;
}

}  // namespace penstock
