#include "pva/hook.h"

#include <string.h>

static const char *const names[PVA_N_POINTS] = {"resid_pre", "resid_mid", "resid_post"};

const char *pva_point_name(enum pva_point point) { return names[point]; }

int pva_point_parse(const char *name, enum pva_point *out, struct pva_error *err) {
    for (int i = 0; i < PVA_N_POINTS; i++) {
        if (strcmp(name, names[i])) continue;
        *out = (enum pva_point)i;
        return PVA_OK;
    }
    return pva_fail(err, PVA_USAGE, "hook point \"%s\" is unknown: resid_pre, resid_mid or resid_post", name);
}
