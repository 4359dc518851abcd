/* A thin C face on libsentencepiece; the only C++ here. No exception leaves this file. */
#include "pva/tokenizer.h"
#include "pva/utf8.h"

#include "input_file.h"
#include "tokenizer_check.h"

#include <sentencepiece_processor.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <vector>

/* The library's own switch for what it prints on stderr. Its header is not installed, and later versions may lack it: weak. */
namespace sentencepiece {
namespace logging {
__attribute__((weak)) void SetMinLogLevel(int level);
}
} // namespace sentencepiece

namespace {
constexpr size_t max_model_bytes = size_t(64) << 20;
constexpr size_t max_text_bytes = size_t(16) << 20; // the library counts in int, and needs over 100 bytes per byte of text
constexpr int log_fatal_only = 4;
} // namespace

struct pva_tokenizer {
    sentencepiece::SentencePieceProcessor model;
    std::string path;
};

/* Every public body runs in here: what it throws becomes a status. */
template <class Body> static int guarded(const char *name, struct pva_error *err, Body body) {
    try {
        return body();
    } catch (const std::bad_alloc &) {
        return pva_fail(err, PVA_IO, "%s: out of memory", name);
    } catch (const std::exception &e) {
        return pva_fail(err, PVA_INPUT, "%s: %s", name, e.what());
    } catch (...) {
        return pva_fail(err, PVA_INPUT, "%s: the tokenizer failed", name);
    }
}

static int failed(const char *name, const sentencepiece::util::Status &status, struct pva_error *err) {
    return pva_fail(err, PVA_INPUT, "%s: %s", name, std::string(status.message()).c_str()); // its type differs between versions
}

/* A model that passed all checks must also work: a short text there and back, with ids of the vocabulary. */
static int probe(const pva_tokenizer *t, struct pva_error *err) {
    static const char text[] = "a  b\n1\xc3\xa9\xf0\x9f\x99\x82"; // spaces, a digit, two characters beyond ASCII
    const char *name = t->path.c_str();
    std::vector<int> ids;
    std::string back;
    auto status = t->model.Encode(text, &ids);
    if (!status.ok()) return failed(name, status, err);
    for (int id : ids)
        if (id < 0 || id >= t->model.GetPieceSize())
            return pva_fail(err, PVA_INPUT, "%s: gives token id %d, expected 0 to %d", name, id, t->model.GetPieceSize() - 1);
    status = t->model.Decode(ids, &back);
    if (!status.ok()) return failed(name, status, err);
    if (back != text)
        return pva_fail(err, PVA_INPUT, "%s: a short text does not survive encoding and decoding: the vocabulary is damaged",
                        name);
    return 0;
}

static int load(const std::string &path, pva_tokenizer **out, struct pva_error *err) {
    char *bytes = nullptr;
    size_t size = 0;
    if (file_read(path.c_str(), max_model_bytes, &bytes, &size, err)) return err->code;
    struct release {
        char *p;
        ~release() { free(p); }
    } owner = {bytes};
    if (tokenizer_check(path.c_str(), reinterpret_cast<unsigned char *>(bytes), size, err)) return err->code;
    if (sentencepiece::logging::SetMinLogLevel) sentencepiece::logging::SetMinLogLevel(log_fatal_only);
    std::unique_ptr<pva_tokenizer> t(new pva_tokenizer);
    t->path = path;
    auto status = t->model.LoadFromSerializedProto(absl::string_view(bytes, size));
    if (!status.ok()) return failed(path.c_str(), status, err);
    if (probe(t.get(), err)) return err->code;
    *out = t.release();
    return 0;
}

int pva_tokenizer_open(const char *path, struct pva_tokenizer **out, struct pva_error *err) {
    *out = nullptr;
    return guarded(path, err, [&] {
        std::string file = path;
        if (file_is_directory(path)) file += "/tokenizer.model";
        return load(file, out, err);
    });
}

void pva_tokenizer_close(struct pva_tokenizer **tokenizer) {
    delete *tokenizer;
    *tokenizer = nullptr;
}

int pva_tokenizer_n_vocab(const struct pva_tokenizer *t) { return t->model.GetPieceSize(); }

int pva_tokenizer_bos(const struct pva_tokenizer *t) { return t->model.bos_id(); }

int pva_tokenizer_eos(const struct pva_tokenizer *t) { return t->model.eos_id(); }

int pva_tokenizer_encode(const struct pva_tokenizer *t, const char *text, size_t n_bytes, int32_t **ids, size_t *n_ids,
                         struct pva_error *err) {
    *ids = nullptr;
    *n_ids = 0;
    return guarded("text to tokens", err, [&] {
        if (n_bytes > max_text_bytes)
            return pva_fail(err, PVA_INPUT, "text has %zu bytes, expected at most %zu", n_bytes, max_text_bytes);
        size_t valid = pva_utf8_valid_prefix(text, n_bytes);
        if (valid != n_bytes) return pva_fail(err, PVA_INPUT, "text is not UTF-8 at byte %zu", valid);
        std::vector<int> found;
        auto status = t->model.Encode(absl::string_view(text, n_bytes), &found);
        if (!status.ok()) return failed("text to tokens", status, err);
        auto *copy = static_cast<int32_t *>(malloc((found.size() + 1) * sizeof(int32_t)));
        if (!copy) throw std::bad_alloc();
        for (size_t i = 0; i < found.size(); i++) copy[i] = found[i];
        *ids = copy;
        *n_ids = found.size();
        return 0;
    });
}

int pva_tokenizer_decode(const struct pva_tokenizer *t, const int32_t *ids, size_t n_ids, char **text, size_t *n_bytes,
                         struct pva_error *err) {
    *text = nullptr;
    *n_bytes = 0;
    return guarded("tokens to text", err, [&] {
        int n_vocab = t->model.GetPieceSize();
        for (size_t i = 0; i < n_ids; i++)
            if (ids[i] < 0 || ids[i] >= n_vocab)
                return pva_fail(err, PVA_INPUT, "token %zu is %d, expected 0 to %d", i, ids[i], n_vocab - 1);
        std::string decoded;
        auto status = t->model.Decode(std::vector<int>(ids, ids + n_ids), &decoded);
        if (!status.ok()) return failed("tokens to text", status, err);
        auto *copy = static_cast<char *>(malloc(decoded.size() + 1));
        if (!copy) throw std::bad_alloc();
        memcpy(copy, decoded.c_str(), decoded.size() + 1);
        *text = copy;
        *n_bytes = decoded.size();
        return 0;
    });
}
