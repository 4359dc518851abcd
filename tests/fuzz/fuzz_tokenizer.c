/* A tokenizer.model. One that is accepted must encode and decode: every id within the vocabulary, every text UTF-8. */
#include "fuzz.h"
#include "pva/tokenizer.h"
#include "pva/utf8.h"
#include "tokenizer_check.h"

static void use(const struct pva_tokenizer *t) {
    static const char *const texts[] = {"",
                                        " ",
                                        "ab ab\n  aabb",
                                        "def f(x):\n\treturn x[1:] + 'a'",
                                        "\xe2\x96\x81",
                                        "<s><unk><0x41>",
                                        "caf\xc3\xa9 \xe4\xbd\xa0\xe5\xa5\xbd \xf0\x9f\x99\x82",
                                        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    int n_vocab = pva_tokenizer_n_vocab(t);
    PVA_ASSERT(n_vocab > 0 && pva_tokenizer_bos(t) < n_vocab && pva_tokenizer_eos(t) < n_vocab);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct pva_error err = {0};
        int32_t *ids;
        char *back;
        size_t n, n_back;
        int status = pva_tokenizer_encode(t, texts[i], strlen(texts[i]), &ids, &n, &err);
        fuzz_check_status(status, &err);
        if (status) continue; /* a piece of the text is a control token: the library refuses it */
        for (size_t k = 0; k < n; k++) PVA_ASSERT(ids[k] >= 0 && ids[k] < n_vocab);
        status = pva_tokenizer_decode(t, ids, n, &back, &n_back, &err);
        fuzz_check_status(status, &err);
        if (!status) PVA_ASSERT(pva_utf8_valid_prefix(back, n_back) == n_back && !back[n_back]);
        free(ids);
        free(back);
    }
    for (int id = 0; id<n_vocab; id += n_vocab> 4000 ? n_vocab / 1000 : 1) {
        struct pva_error err = {0};
        char *back;
        size_t n_back;
        fuzz_check_status(pva_tokenizer_decode(t, (int32_t[]){id}, 1, &back, &n_back, &err), &err);
        free(back);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pva_error err = {0};
    struct pva_tokenizer *t;
    struct fuzz_file f;
    fuzz_file_open(&f, data, size);
    int status = pva_tokenizer_open(f.path, &t, &err);
    fuzz_check_status(status, &err);
    PVA_ASSERT((status == 0) == (t != NULL));
    if (t) use(t);
    pva_tokenizer_close(&t);
    fuzz_file_close(&f);
    return 0;
}
