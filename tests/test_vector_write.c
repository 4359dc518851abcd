/* Directions as .npy and as a control vector: the bytes here, their readers in consumers.sh (test_vector_write DIR writes what it reads). */
#include "scratch.h"

#include "pva/vector_write.h"

static float values[6] = {1.5f, -2.0f, 0.25f, 3e38f, -0.0f, 1e-40f};

static char *read_all(const char *path, size_t *n) {
    FILE *f = fopen(path, "r");
    char *bytes = calloc(1, 4096);
    CHECK(f != NULL);
    *n = f ? fread(bytes, 1, 4095, f) : 0;
    if (f) fclose(f);
    return bytes;
}

static void write_both(const char *directory) {
    struct pva_error err = {0};
    char path[4096];
    const int64_t one[] = {6}, two[] = {2, 3};
    snprintf(path, sizeof path, "%s/one.npy", directory);
    CHECK_INT(pva_npy_write(path, values, 1, one, &err), PVA_OK);
    snprintf(path, sizeof path, "%s/two.npy", directory);
    CHECK_INT(pva_npy_write(path, values, 2, two, &err), PVA_OK);
    snprintf(path, sizeof path, "%s/vector.gguf", directory);
    CHECK_INT(pva_gguf_control_vector_write(path, "gemma2", 26, 19, values, 6, &err), PVA_OK);
}

static void test_bytes(void) {
    char path[400];
    size_t n;
    snprintf(path, sizeof path, "%s/two.npy", scratch_directory);
    char *bytes = read_all(path, &n);
    CHECK_INT(n, 128 + sizeof values);
    CHECK(!memcmp(bytes, "\x93NUMPY\x01\x00\x76\x00", 10) && bytes[127] == '\n' && !memcmp(bytes + 128, values, sizeof values));
    CHECK_HAS(bytes + 10, "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
    free(bytes);
    snprintf(path, sizeof path, "%s/vector.gguf", scratch_directory);
    bytes = read_all(path, &n);
    CHECK_INT(n % 32, 0);
    CHECK(!memcmp(bytes, "GGUF\x03\x00\x00\x00", 8) && !memcmp(bytes + n - 32, values, sizeof values));
    free(bytes);
    snprintf(path, sizeof path, "%s/vector.gguf.partial", scratch_directory);
    CHECK(access(path, F_OK) != 0);
}

static void test_refusals(void) {
    struct pva_error err = {0};
    char path[400];
    snprintf(path, sizeof path, "%s/no.gguf", scratch_directory);
    CHECK_INT(pva_gguf_control_vector_write(path, "gemma2", 26, 0, values, 6, &err), PVA_USAGE);
    CHECK_HAS(err.msg, "blocks 1 to 25, not 0");
    err = (struct pva_error){0};
    const int64_t shape[] = {6};
    CHECK_INT(pva_npy_write("/nowhere/at/all.npy", values, 1, shape, &err), PVA_IO);
    CHECK_HAS(err.msg, "/nowhere/at/all.npy");
    CHECK(access(path, F_OK) != 0);
}

int main(int argc, char **argv) {
    if (argc == 2) {
        write_both(argv[1]);
        return check_report("test_vector_write");
    }
    scratch_make();
    write_both(scratch_directory);
    test_bytes();
    test_refusals();
    return check_report("test_vector_write");
}
