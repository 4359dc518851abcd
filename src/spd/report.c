#include "pva/spd.h"
int pva_spd_report(const char *const *directories, int n, const char *title, const char *path, struct pva_error *err) {
    (void)directories, (void)n, (void)title, (void)path, (void)err;
    return PVA_OK;
}
