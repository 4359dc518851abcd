/* backend.c - which backends this build and this machine have. CUDA lies in a module of its own that is opened when it is asked for, so
 * that one program serves nodes with and without a driver, and what it links stays out of every start. */
#include "pva/backend.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef PVA_MODULE_FOLDER
#define PVA_MODULE_FOLDER "../lib/pva-mpi" /* from the program's folder to the installed modules */
#endif

typedef const struct pva_backend_ops *find_function(struct pva_error *err);

/* Beside the program (a build), one above it (a build's tests), where it is installed. */
static void *open_module(const char *file, struct pva_error *err) {
    static const char *const folders[] = {".", "..", PVA_MODULE_FOLDER};
    char program[3072], path[4096];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return pva_fail(err, PVA_IO, "no CUDA backend: /proc/self/exe cannot be read, so %s is not found", file), NULL;
    program[n] = 0;
    *strrchr(program, '/') = 0;
    for (int i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s/%s", program, folders[i], file);
        if (access(path, F_OK)) continue;
        void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (!module) pva_fail(err, PVA_IO, "no CUDA backend: %s", dlerror());
        return module;
    }
    return pva_fail(err, PVA_IO, "this build has no CUDA backend: no %s beside %s or in %s; use --backend cpu", file, program, PVA_MODULE_FOLDER), NULL;
}

static const struct pva_backend_ops *find_cuda(struct pva_error *err) {
    static find_function *find; /* the module stays open */
    if (!find) {
        void *module = open_module("libpva-cuda.so", err);
        if (!module) return NULL;
        *(void **)&find = dlsym(module, "pva_backend_cuda_find");
        if (!find) return pva_fail(err, PVA_IO, "libpva-cuda.so is not of this program: %s", dlerror()), NULL;
    }
    return find(err);
}

const struct pva_backend_ops *pva_backend_find(const char *name, struct pva_error *err) {
    if (!strcmp(name, "cpu")) return &pva_backend_cpu;
    if (!strcmp(name, "cuda")) return find_cuda(err);
    if (!strcmp(name, "auto")) {
        struct pva_error why = {0};
        const struct pva_backend_ops *cuda = find_cuda(&why);
        return cuda ? cuda : &pva_backend_cpu;
    }
    pva_fail(err, PVA_USAGE, "backend \"%s\" is unknown: auto, cpu or cuda", name);
    return NULL;
}
