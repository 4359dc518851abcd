/* A text through the tiny tokenizer and back: what is UTF-8 survives (but for U+2581, which stands for a space), the rest is
 * refused. The same bytes as JSON lines, in both directions. */
#include "fuzz.h"
#include "pva/tokenizer.h"
#include "pva/utf8.h"
#include "tokenizer_check.h"

static struct pva_tokenizer *tiny(void) {
    static struct pva_tokenizer *t;
    struct pva_error err = {0};
    char path[600];
    if (t) return t;
    const char *source = getenv("PVA_TEST_SOURCE");
    snprintf(path, sizeof path, "%.500s/tests/data/tiny-tokenizer", source ? source : ".");
    PVA_ASSERT(!pva_tokenizer_open(path, &t, &err));
    return t;
}

static void through_tokens(const struct pva_tokenizer *t, const char *text, size_t size) {
    struct pva_error err = {0};
    int32_t *ids;
    char *back, *wanted = malloc(size + 1);
    size_t n, n_back, n_wanted = 0;
    int status = pva_tokenizer_encode(t, text, size, &ids, &n, &err);
    fuzz_check_status(status, &err);
    PVA_ASSERT(wanted && (status == 0) == (pva_utf8_valid_prefix(text, size) == size));
    if (!status) {
        for (size_t i = 0; i < size; n_wanted++) {
            int block = size - i >= 3 && !memcmp(text + i, "\xe2\x96\x81", 3);
            wanted[n_wanted] = block ? ' ' : text[i];
            i += block ? 3 : 1;
        }
        PVA_ASSERT(!pva_tokenizer_decode(t, ids, n, &back, &n_back, &err));
        PVA_ASSERT(n_back == n_wanted && !memcmp(back, wanted, n_back));
        free(back);
    }
    free(ids);
    free(wanted);
}

static void through_lines(const struct pva_tokenizer *t, const uint8_t *data, size_t size,
                          enum pva_tokenizer_direction direction) {
    struct pva_error err = {0};
    char *out = NULL;
    size_t n_out;
    int64_t n_lines, newlines = 0;
    FILE *from = fmemopen((void *)(uintptr_t)data, size, "r"), *to = open_memstream(&out, &n_out);
    PVA_ASSERT(from && to);
    fuzz_check_status(pva_tokenizer_lines(t, from, "input", to, direction, size % 2, &n_lines, &err), &err);
    fclose(from);
    fclose(to);
    for (size_t i = 0; i < n_out; i++) newlines += out[i] == '\n';
    PVA_ASSERT(newlines == n_lines);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const struct pva_tokenizer *t = tiny();
    through_tokens(t, (const char *)data, size);
    if (size == 0) return 0; /* fmemopen refuses it */
    through_lines(t, data, size, PVA_TO_IDS);
    through_lines(t, data, size, PVA_TO_TEXT);
    return 0;
}
