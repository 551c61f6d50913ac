#include "net/tls_server.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <iterator>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include "base/text.h"

namespace penstock {

namespace {

// Seals and opens tickets: the interface is OpenSSL's. 0: no good, make a full handshake; 2: good, and time
// for a new one.
int seal_ticket(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac,
                int sealing) {
    auto& keys = *static_cast<TicketKeys*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
    Time now = monotonic_now();
    TicketKey key;
    bool is_current = true;
    if (sealing) {
        key = keys.current(now);
        std::copy(key.name.begin(), key.name.end(), name);
        if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) != 1) return -1;
    } else {
        auto found = keys.find(name, now);
        if (!found) return 0;
        key = found->key;
        is_current = found->is_current;
    }
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac.data(), key.mac.size()),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    if (EVP_MAC_CTX_set_params(mac, parameters) != 1) return -1;
    auto start = sealing ? EVP_EncryptInit_ex : EVP_DecryptInit_ex;
    if (start(cipher, EVP_aes_256_cbc(), nullptr, key.cipher.data(), iv) != 1) return -1;
    OPENSSL_cleanse(&key, sizeof key);
    // A ticket of TLS 1.3 is used once: whoever comes with one gets the next.
    return is_current && SSL_version(ssl) < TLS1_3_VERSION ? 1 : 2;
}

// The host names that a certificate is for, in lower case: its subject's common name only where it has no
// other.
std::vector<std::string> names_of(X509* certificate) {
    std::vector<std::string> out;
    auto add = [&out](const ASN1_STRING* text) {
        std::string name(reinterpret_cast<const char*>(ASN1_STRING_get0_data(text)),
                         static_cast<size_t>(ASN1_STRING_length(text)));
        if (!name.empty() && name.find('\0') == name.npos) out.push_back(lower_case(name));
    };
    auto* all =
        static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
    for (int i = 0; all && i < sk_GENERAL_NAME_num(all); ++i) {
        const GENERAL_NAME* name = sk_GENERAL_NAME_value(all, i);
        if (name->type == GEN_DNS) add(name->d.dNSName);
    }
    GENERAL_NAMES_free(all);
    if (out.empty()) {
        X509_NAME* subject = X509_get_subject_name(certificate);
        int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
        if (at >= 0) add(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    }
    std::sort(out.begin(), out.end());
    out.erase(std::unique(out.begin(), out.end()), out.end());
    return out;
}

// A ticket is good only where the same clients are asked for: not one that was given out without a
// certificate where one is needed now, nor one whose certificate another authority signed.
std::array<unsigned char, SHA256_DIGEST_LENGTH> ticket_scope(const std::string& client_ca) {
    std::string all = "penstock";
    if (!client_ca.empty()) {
        std::ifstream file(client_ca, std::ios::binary);
        all.append(std::istreambuf_iterator<char>(file), {});
        all += '!';
    }
    std::array<unsigned char, SHA256_DIGEST_LENGTH> out;
    SHA256(reinterpret_cast<const unsigned char*>(all.data()), all.size(), out.data());
    return out;
}

}  // namespace

std::shared_ptr<const TlsServer> TlsServer::load(const Settings& settings, TicketKeys& keys,
                                                 FileFindings& findings) {
    std::shared_ptr<TlsServer> out(new TlsServer);
    out->keys_ = &keys;
    if (settings.http2) out->protocols_ += "\x02h2";
    if (settings.http1) out->protocols_ += "\x08http/1.1";
    bool good = !settings.certificates.empty();
    for (const CertificatePaths& paths : settings.certificates) good &= out->add(paths, settings, findings);
    if (!good) return nullptr;
    for (const Certificate& certificate : out->certificates_)
        for (const std::string& name : certificate.names)
            out->by_name_.emplace(name, certificate.settings.get());
    return out;
}

bool TlsServer::add(const CertificatePaths& paths, const Settings& settings, FileFindings& findings) {
    SslSettings made = tls_settings(TLS_server_method());
    if (!use_certificate(made.get(), paths, findings)) return false;
    X509* certificate = SSL_CTX_get0_certificate(made.get());
    std::vector<std::string> names = names_of(certificate);
    int key_type = EVP_PKEY_get_base_id(SSL_CTX_get0_privatekey(made.get()));
    // The same names with another kind of key (RSA and ECDSA): the client's abilities choose.
    for (Certificate& other : certificates_)
        if (other.names == names && std::ranges::find(other.key_types, key_type) == other.key_types.end()) {
            other.key_types.push_back(key_type);
            FileFindings said;
            return use_certificate(other.settings.get(), paths, said);
        }
    SSL_CTX* to = made.get();
    if (!settings.client_ca.empty()) {
        if (!trust(to, settings.client_ca, "client_ca", findings)) return false;
        SSL_CTX_set_client_CA_list(to, SSL_load_client_CA_file(settings.client_ca.c_str()));
        SSL_CTX_set_verify(to, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
        ERR_clear_error();
    }
    auto scope = ticket_scope(settings.client_ca);
    SSL_CTX_set_session_id_context(to, scope.data(), scope.size());
    SSL_CTX_set_session_cache_mode(to, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_timeout(to, TicketKeys::lifetime / 1s);
    SSL_CTX_set_app_data(to, keys_);
    SSL_CTX_set_tlsext_ticket_key_evp_cb(to, seal_ticket);
    SSL_CTX_set_tlsext_servername_callback(to, choose_certificate);
    SSL_CTX_set_tlsext_servername_arg(to, this);
    SSL_CTX_set_alpn_select_cb(to, choose_protocol, this);
    certificates_.push_back({std::move(names), {key_type}, std::move(made)});
    return true;
}

std::unique_ptr<Tls> TlsServer::accept(const std::shared_ptr<const TlsServer>& server, ChunkPool& chunks) {
    SslPtr ssl(SSL_new(server->certificates_.front().settings.get()));
    if (!ssl) throw std::bad_alloc();
    SSL_set_accept_state(ssl.get());
    return std::make_unique<Tls>(chunks, std::move(ssl), server);
}

SSL_CTX* TlsServer::find(std::string_view asked) const {
    std::string name = lower_case(asked);
    if (!name.empty() && name.back() == '.') name.pop_back();
    if (auto at = by_name_.find(name); at != by_name_.end()) return at->second;
    // A wildcard stands for one label, the first.
    size_t dot = name.find('.');
    if (dot == name.npos || dot == 0) return nullptr;
    auto at = by_name_.find("*" + name.substr(dot));
    return at == by_name_.end() ? nullptr : at->second;
}

int TlsServer::choose_certificate(SSL* ssl, int*, void* self) {
    const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (!name) return SSL_TLSEXT_ERR_NOACK;
    SSL_CTX* found = static_cast<const TlsServer*>(self)->find(name);
    if (found && found != SSL_get_SSL_CTX(ssl)) SSL_set_SSL_CTX(ssl, found);
    return SSL_TLSEXT_ERR_OK;
}

// Ours in our order. A client that names protocols and none of ours is told so: speaking another one to it
// would only fail later, and less clearly.
int TlsServer::choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                               const unsigned char* in, unsigned in_size, void* self) {
    const std::string& ours = static_cast<const TlsServer*>(self)->protocols_;
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, out_size, reinterpret_cast<const unsigned char*>(ours.data()),
                              static_cast<unsigned>(ours.size()), in, in_size) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

}  // namespace penstock
