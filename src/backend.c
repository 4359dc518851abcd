/* backend.c - which backends this build and this machine have. */
#include "pva/backend.h"

#include <string.h>

const struct pva_backend_ops *pva_backend_find(const char *name, struct pva_error *err) {
    if (!strcmp(name, "cpu") || !strcmp(name, "auto")) return &pva_backend_cpu;
    if (!strcmp(name, "cuda")) pva_fail(err, PVA_IO, "this build has no CUDA backend; use --backend cpu");
    else pva_fail(err, PVA_USAGE, "backend \"%s\" is unknown: auto, cpu or cuda", name);
    return NULL;
}
