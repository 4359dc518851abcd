/* A config.json. One that is accepted must pass its own check and give a table that finds each of its names. */
#include "fuzz.h"
#include "pva/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pva_error err = {0};
    struct pva_model_config c;
    int status = pva_model_config_parse("config.json", (const char *)data, size, &c, &err);
    fuzz_check_status(status, &err);
    if (status) return 0;
    PVA_ASSERT(!pva_model_config_check("again", &c, &err));
    int n = pva_model_config_n_tensors(&c), step = n > 200 ? n / 100 : 1;
    int64_t total = 0;
    for (int i = 0; i < n; i++) {
        struct pva_model_tensor t;
        pva_model_config_tensor(&c, i, &t);
        PVA_ASSERT(t.n_elements > 0 && !__builtin_add_overflow(total, t.n_elements, &total));
        if (i % step == 0) PVA_ASSERT(pva_model_config_tensor_find(&c, t.name) == i);
    }
    PVA_ASSERT(total == pva_model_config_n_parameters(&c));
    return 0;
}
