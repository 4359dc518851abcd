/* An index of shards beside three good shards a, b (one tensor each) and ab (both). */
#include "fuzz.h"
#include "pva/tensorfile.h"

static char directory[100], index_path[140];

static void remove_all(void) {
    static const char *const names[] = {"a", "b", "ab", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[160];
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        unlink(path);
    }
    rmdir(directory);
}

static void write_shard(const char *file, const char *const *names, int n) {
    struct pva_error err = {0};
    struct pva_tensorfile_writer *w;
    char path[160];
    const uint16_t zeros[4] = {0};
    snprintf(path, sizeof path, "%s/%s", directory, file);
    pva_tensorfile_create(path, &w, &err);
    for (int i = 0; i < n && !err.code; i++) pva_tensorfile_declare(w, names[i], PVA_BF16, 1, (int64_t[]){2}, &err);
    for (int i = 0; i < n && !err.code; i++) pva_tensorfile_append(w, zeros, 4, &err);
    PVA_ASSERT(!pva_tensorfile_finish(&w, &err));
}

static void prepare(void) {
    const char *base = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%.60s/pva-fuzz-XXXXXX", base && *base ? base : "/tmp");
    PVA_ASSERT(mkdtemp(directory));
    snprintf(index_path, sizeof index_path, "%s/model.safetensors.index.json", directory);
    write_shard("a", (const char *const[]){"x"}, 1);
    write_shard("b", (const char *const[]){"y"}, 1);
    write_shard("ab", (const char *const[]){"x", "y"}, 2);
    atexit(remove_all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct pva_error err = {0};
    struct pva_tensorfile *file;
    if (!directory[0]) prepare();
    FILE *f = fopen(index_path, "wb");
    PVA_ASSERT(f && fwrite(data, 1, size, f) == size && !fclose(f));
    int status = pva_tensorfile_open(directory, &file, &err);
    fuzz_check_status(status, &err);
    PVA_ASSERT((status == 0) == (file != NULL));
    for (size_t i = 0; file && i < pva_tensorfile_count(file); i++)
        PVA_ASSERT(pva_tensorfile_find(file, pva_tensorfile_at(file, i)->name) == pva_tensorfile_at(file, i));
    pva_tensorfile_close(&file);
    return 0;
}
