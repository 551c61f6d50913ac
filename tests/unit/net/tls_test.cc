// TLS over memory: a server and a client that pass each other what lies in output().
#include "net/tls.h"

#include <cstdlib>
#include <doctest/doctest.h>
#include <filesystem>
#include <fstream>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "net/tls_client.h"
#include "net/tls_server.h"

using namespace penstock;

namespace {

struct Folder {
    Folder() {
        char name[] = "/tmp/penstock-tls-XXXXXX";
        REQUIRE(::mkdtemp(name));
        path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    std::string path;
};

// A certificate that signs itself, for these names ("DNS:a.example,IP:127.0.0.1"), in FOLDER/NAME.pem and
// .key.
CertificatePaths make_certificate(const Folder& folder, const std::string& name, const std::string& names,
                                  int days = 2, bool rsa = false) {
    EVP_PKEY* key = rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256");
    X509* made = X509_new();
    X509_set_version(made, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(made), static_cast<long>(std::hash<std::string>()(name) >> 16));
    X509_gmtime_adj(X509_getm_notBefore(made), days < 0 ? days * 86400L * 2 : 0);
    X509_gmtime_adj(X509_getm_notAfter(made), days * 86400L);
    X509_set_pubkey(made, key);
    X509_NAME* subject = X509_get_subject_name(made);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    X509_set_issuer_name(made, subject);
    for (auto& [nid, value] :
         {std::pair{NID_basic_constraints, std::string("CA:TRUE")}, std::pair{NID_subject_alt_name, names}}) {
        X509V3_CTX with;
        X509V3_set_ctx(&with, made, made, nullptr, nullptr, 0);
        X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &with, nid, value.c_str());
        REQUIRE(extension);
        X509_add_ext(made, extension, -1);
        X509_EXTENSION_free(extension);
    }
    X509_sign(made, key, EVP_sha256());
    CertificatePaths paths{folder.path + "/" + name + ".pem", folder.path + "/" + name + ".key", ""};
    FILE* file = std::fopen(paths.certificate.c_str(), "w");
    PEM_write_X509(file, made);
    std::fclose(file);
    file = std::fopen(paths.key.c_str(), "w");
    PEM_write_PrivateKey(file, key, nullptr, nullptr, 0, nullptr, nullptr);
    std::fclose(file);
    X509_free(made);
    EVP_PKEY_free(key);
    return paths;
}

std::string joined(const std::vector<FileProblem>& problems) {
    std::string out;
    for (const FileProblem& problem : problems) out += problem.setting + ": " + problem.message + "\n";
    return out;
}

std::shared_ptr<const TlsServer> server_of(TlsServer::Settings settings, TicketKeys& keys) {
    FileFindings findings;
    auto made = TlsServer::load(settings, keys, findings);
    CHECK(joined(findings.errors) == "");
    REQUIRE(made);
    return made;
}
std::shared_ptr<const TlsClient> client_of(const TlsClient::Settings& settings) {
    FileFindings findings;
    auto made = TlsClient::load(settings, findings);
    CHECK(joined(findings.errors) == "");
    REQUIRE(made);
    return made;
}

// One end, and what it has read so far.
struct End {
    explicit End(std::unique_ptr<Tls> made) : tls(std::move(made)) {}
    std::unique_ptr<Tls> tls;
    std::string got;
    Tls::Read last = Tls::Read::more;

    void read() {
        char into[5000];
        size_t size;
        while ((last = tls->read(into, sizeof into, size)) == Tls::Read::bytes) got.append(into, size);
    }
    void take(std::string_view bytes) {
        while (!bytes.empty()) {
            std::span<char> room = tls->room();
            std::string_view part = bytes.substr(0, room.size());
            std::memcpy(room.data(), part.data(), part.size());
            tls->received(part.size());
            bytes.remove_prefix(part.size());
            read();
        }
    }
    std::string take_output() {
        std::string out;
        for (Bytes& from = tls->output(); !from.empty(); from.drop_piece()) out += from.front();
        return out;
    }
};

struct Pair {
    Pair(const std::shared_ptr<const TlsServer>& s, const std::shared_ptr<const TlsClient>& c,
         const std::string& host = "a.example", TlsSessions* sessions = nullptr)
        : server(TlsServer::accept(s, chunks)), client(TlsClient::connect(c, host, sessions, chunks)) {
        client.read();
    }
    // Until nobody has anything to say. `step`: so many bytes at a time.
    void talk(size_t step = SIZE_MAX) {
        for (int quiet = 0; quiet < 2;) {
            quiet = 0;
            for (auto [from, to] : {std::pair{&client, &server}, std::pair{&server, &client}}) {
                std::string bytes = from->take_output();
                quiet += bytes.empty();
                for (size_t at = 0; at < bytes.size(); at += std::min(step, bytes.size()))
                    to->take(std::string_view(bytes).substr(at, step));
            }
        }
    }
    bool is_established() const { return server.tls->is_established() && client.tls->is_established(); }

    ChunkPool chunks;
    End server;
    End client;
};

struct Place {
    Folder folder;
    TicketKeys keys;
    CertificatePaths paths = make_certificate(folder, "a", "DNS:a.example,IP:127.0.0.1");
    std::shared_ptr<const TlsServer> server = server_of({{paths}, "", true, true}, keys);
    TlsClient::Settings trusting{true, paths.certificate, "", "", false};
    std::shared_ptr<const TlsClient> client = client_of(trusting);
};

std::string pattern(size_t size) {
    std::string out;
    for (size_t i = 0; out.size() < size; ++i) out += std::to_string(i) + ",";
    return out.substr(0, size);
}

void write(End& end, ChunkPool& chunks, std::string_view text) {
    Bytes plain;
    plain.copy(chunks, text);
    REQUIRE(end.tls->write(plain));
    CHECK(plain.empty());
}

}  // namespace

TEST_CASE_FIXTURE(Place, "two ends agree, whole or one byte at a time, and what one writes the other reads") {
    for (size_t step : {SIZE_MAX, size_t{1}, size_t{7}}) {
        CAPTURE(step);
        Pair pair(server, client);
        pair.talk(step);
        REQUIRE(pair.is_established());
        CHECK(pair.client.tls->application() == "http/1.1");
        CHECK(pair.server.tls->application() == "http/1.1");
        std::string text = pattern(100'000);
        write(pair.client, pair.chunks, text);
        write(pair.server, pair.chunks, text);
        pair.talk(step);
        CHECK(pair.server.got == text);
        CHECK(pair.client.got == text);
    }
}

TEST_CASE_FIXTURE(Place,
                  "small pieces of a turn leave in one record, large ones in records of up to 16 KiB") {
    Pair pair(server, client);
    pair.talk();
    auto records = [&](Bytes& plain) {
        REQUIRE(pair.server.tls->write(plain));
        std::string sealed = pair.server.take_output();
        size_t count = 0;
        for (size_t at = 0; at < sealed.size(); ++count)
            at += 5 + (static_cast<uint8_t>(sealed[at + 3]) << 8 | static_cast<uint8_t>(sealed[at + 4]));
        pair.client.take(sealed);
        return count;
    };
    ChunkRef apart = pair.chunks.take_small();
    std::memcpy(apart->data(), "0123456789", 10);
    Bytes small;
    for (uint32_t i = 0; i < 100; ++i) small.link(apart, i % 2, i % 2 + 9);
    CHECK(small.pieces() == 100);
    CHECK(records(small) == 1);
    CHECK(pair.client.got.size() == 900);

    Bytes large;
    large.copy(pair.chunks, pattern(64 * 1024));
    CHECK(records(large) <= 6);
    CHECK(pair.client.got.size() == 900 + 64 * 1024);
}

TEST_CASE_FIXTURE(Place, "an end that was said is an end; what comes after it is not read") {
    Pair pair(server, client);
    pair.talk();
    write(pair.server, pair.chunks, "last");
    pair.server.tls->close();
    pair.talk();
    CHECK(pair.client.got == "last");
    CHECK(pair.client.last == Tls::Read::end);
    write(pair.client, pair.chunks, "but this still goes");
    pair.talk();
    CHECK(pair.server.got == "but this still goes");
}

TEST_CASE_FIXTURE(Place, "a changed byte breaks the connection, and the reason is there to be told") {
    Pair pair(server, client);
    pair.talk();
    write(pair.client, pair.chunks, "untouched");
    std::string sealed = pair.client.take_output();
    sealed[sealed.size() - 3] ^= 1;
    pair.server.take(sealed);
    CHECK(pair.server.last == Tls::Read::failed);
    CHECK(pair.server.tls->failure() == TlsFailure::protocol);
    CHECK(pair.server.tls->what_failed().find("bad record mac") != std::string::npos);
    CHECK(!pair.server.take_output().empty());  // an alert
}

TEST_CASE_FIXTURE(Place, "an idle connection holds no buffers") {
    Pair pair(server, client);
    pair.talk();
    write(pair.client, pair.chunks, pattern(50'000));
    pair.talk();
    pair.server.tls->let_go_of_buffers();
    pair.client.tls->let_go_of_buffers();
    CHECK(pair.chunks.live() == 0);
}

TEST_CASE_FIXTURE(Place, "a client comes back with its session, also to another server of the same keys") {
    TlsSessions sessions;
    {
        Pair pair(server, client, "a.example", &sessions);
        pair.talk();
        CHECK(!pair.server.tls->is_resumed());
    }
    auto reloaded = server_of({{paths}, "", true, true}, keys);
    for (auto& again : {server, server, reloaded, reloaded}) {
        Pair pair(again, client, "a.example", &sessions);
        pair.talk();
        CHECK(pair.is_established());
        CHECK(pair.server.tls->is_resumed());
        CHECK(pair.client.tls->is_resumed());
    }
    // Made where others were trusted: not used.
    Pair pair(server, client_of(trusting), "a.example", &sessions);
    pair.talk();
    CHECK(pair.is_established());
    CHECK(!pair.server.tls->is_resumed());
}

TEST_CASE_FIXTURE(Place, "a session that was given without a certificate is no good where one is asked for") {
    TlsSessions sessions;
    {
        Pair pair(server, client, "a.example", &sessions);
        pair.talk();
    }
    auto strict = server_of({{paths}, paths.certificate, true, true}, keys);
    Pair pair(strict, client, "a.example", &sessions);
    pair.talk();
    CHECK(!pair.server.tls->is_established());
    CHECK(pair.server.tls->failure() == TlsFailure::certificate);
    CHECK(pair.client.tls->failure() == TlsFailure::refused);

    auto ours = make_certificate(folder, "me", "DNS:me");
    auto both = client_of({true, paths.certificate, ours.certificate, ours.key, false});
    Pair stranger(strict, both);
    stranger.talk();
    CHECK(stranger.server.tls->failure() == TlsFailure::certificate);
    Pair known(server_of({{paths}, ours.certificate, true, true}, keys), both);
    known.talk();
    CHECK(known.is_established());
}

TEST_CASE_FIXTURE(Place, "a client refuses a server that it does not trust, or that is somebody else") {
    auto other = make_certificate(folder, "b", "DNS:b.example,DNS:*.wild.example,IP:::1");
    auto b = server_of({{other}, "", true, false}, keys);
    auto trusts_b = client_of({true, other.certificate, "", "", false});
    auto says = [&](const std::shared_ptr<const TlsClient>& who, const std::string& host) {
        Pair pair(b, who, host);
        pair.talk();
        return pair.is_established() ? "fine" : pair.client.tls->what_failed();
    };
    CHECK(says(client, "b.example") == "certificate verify failed: self-signed certificate");
    CHECK(says(trusts_b, "b.example") == "fine");
    CHECK(says(trusts_b, "a.example") == "certificate verify failed: hostname mismatch");
    CHECK(says(trusts_b, "x.wild.example") == "fine");
    CHECK(says(trusts_b, "x.y.wild.example") == "certificate verify failed: hostname mismatch");
    CHECK(says(trusts_b, "::1") == "fine");
    CHECK(says(trusts_b, "127.0.0.1") == "certificate verify failed: IP address mismatch");
    CHECK(says(client_of({false, "", "", "", false}), "whoever") == "fine");
}

TEST_CASE_FIXTURE(
    Place, "the name that a client asks for chooses the certificate; the first one is for all others") {
    auto exact = make_certificate(folder, "exact", "DNS:x.wild.example");
    auto wild = make_certificate(folder, "wild", "DNS:*.wild.example");
    auto many = server_of({{paths, exact, wild}, "", true, false}, keys);
    auto anybody = client_of({false, "", "", "", false});
    auto shown = [&](const std::string& host) {
        Pair pair(many, anybody, host);
        pair.talk();
        REQUIRE(pair.is_established());
        for (auto& [name, file] : {std::pair{"a", &paths}, {"exact", &exact}, {"wild", &wild}}) {
            auto only_it = client_of({true, file->certificate, "", "", false});
            std::string valid = host == "nobody.example" || host == "wild.example" ? "a.example" : host;
            Pair again(many, only_it, host);
            again.talk();
            if (again.is_established() ||
                again.client.tls->what_failed().find("mismatch") != std::string::npos)
                return std::string(name);
        }
        return std::string("none");
    };
    CHECK(shown("a.example") == "a");
    CHECK(shown("x.wild.example") == "exact");
    CHECK(shown("X.Wild.Example") == "exact");
    CHECK(shown("y.wild.example") == "wild");
    CHECK(shown("z.y.wild.example") == "a");
    CHECK(shown("wild.example") == "a");
    CHECK(shown("nobody.example") == "a");
    CHECK(shown("127.0.0.1") == "a");
}

TEST_CASE_FIXTURE(Place,
                  "protocols are agreed upon in the server's order, and having none in common is said") {
    auto h2_only = client_of({true, paths.certificate, "", "", true});
    auto agreed = [&](bool http1, bool http2, const std::shared_ptr<const TlsClient>& who) {
        Pair pair(server_of({{paths}, "", http1, http2}, keys), who);
        pair.talk();
        return pair.is_established() ? std::string(pair.server.tls->application())
                                     : "none: " + std::string(to_string(pair.server.tls->failure()));
    };
    CHECK(agreed(true, true, h2_only) == "h2");
    CHECK(agreed(true, true, client) == "http/1.1");
    CHECK(agreed(false, true, h2_only) == "h2");
    CHECK(agreed(true, false, h2_only) == "none: application");
    CHECK(agreed(false, true, client) == "none: application");
}

TEST_CASE_FIXTURE(Place, "files that are no good are named, with what would be right") {
    auto other = make_certificate(folder, "b", "DNS:b.example");
    auto complaints = [&](const TlsServer::Settings& settings) {
        FileFindings findings;
        CHECK(!TlsServer::load(settings, keys, findings));
        return joined(findings.errors);
    };
    std::string missing = folder.path + "/none.pem";
    std::ofstream(folder.path + "/empty.pem") << "nothing\n";
    std::string empty = folder.path + "/empty.pem";
    CHECK(complaints({{{missing, paths.key, "certificates[0]."}}, "", true, false}) ==
          "certificates[0].certificate: " + missing +
              " cannot be read (No such file or directory); give the path of a PEM file\n");
    CHECK(complaints({{{missing, missing, ""}}, "", true, false}).find("\nkey: " + missing) !=
          std::string::npos);
    CHECK(complaints({{{paths.certificate, other.key, ""}}, "", true, false}) ==
          "key: " + other.key + " is not the key of " + paths.certificate +
              "; give the one that the certificate was made for\n");
    CHECK(complaints({{{empty, paths.key, ""}}, "", true, false}).find("holds no usable certificate") !=
          std::string::npos);
    CHECK(
        complaints({{{paths.certificate, empty, ""}}, "", true, false}).find("holds no usable private key") !=
        std::string::npos);
    CHECK(complaints({{paths}, empty, true, false}).find("client_ca: " + empty + " holds no certificate") ==
          0);
    CHECK(complaints({{{folder.path, paths.key, ""}}, "", true, false}).find("(Is a directory)") !=
          std::string::npos);
}

TEST_CASE_FIXTURE(Place, "a certificate that has expired is served, and warned of") {
    auto old = make_certificate(folder, "old", "DNS:a.example", -1);
    FileFindings findings;
    REQUIRE(TlsServer::load({{old}, "", true, false}, keys, findings));
    CHECK(joined(findings.errors) == "");
    CHECK(joined(findings.warnings).find("certificate: " + old.certificate + " has expired on ") == 0);
    Pair pair(server_of({{old}, "", true, false}, keys), client_of({true, old.certificate, "", "", false}));
    pair.talk();
    CHECK(pair.client.tls->what_failed() == "certificate verify failed: certificate has expired");
}

TEST_CASE_FIXTURE(Place, "certificates for the same names with two kinds of key stand beside each other") {
    auto rsa = make_certificate(folder, "rsa", "DNS:a.example,IP:127.0.0.1", 2, true);
    auto both = server_of({{paths, rsa}, "", true, false}, keys);
    Pair ec(both, client);
    ec.talk();
    CHECK(ec.is_established());
}
