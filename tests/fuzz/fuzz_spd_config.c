/* Settings of a decomposition. What is accepted must be printed as YAML that is accepted again and means the same. */
#include "fuzz.h"
#include "pva/spd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pva_error err = {0};
    struct pva_spd_config c, again;
    char *text = malloc(size + 1);
    PVA_ASSERT(text);
    memcpy(text, data, size);
    text[size] = 0;
    int status = pva_spd_config_parse(text, "config.yaml", NULL, &c, &err);
    free(text);
    fuzz_check_status(status, &err);
    if (status) return 0;
    text = pva_spd_config_print(&c);
    PVA_ASSERT(text);
    status = pva_spd_config_parse(text, "printed", NULL, &again, &err);
    fuzz_check_status(status, &err);
    PVA_ASSERT(!status && !strcmp(c.json, again.json));
    free(text);
    pva_spd_config_free(&c);
    pva_spd_config_free(&again);
    return 0;
}
