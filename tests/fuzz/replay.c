/* replay.c - runs a fuzz target over the files and directories of its command line, without libFuzzer: each file as it is,
 * then cut in half, then with one bit of every 37th byte flipped. */
#include "fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

static int n_inputs;

static void run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    if (!f || fstat(fileno(f), &st)) {
        fprintf(stderr, "%s: cannot read\n", path);
        exit(1);
    }
    size_t size = (size_t)st.st_size;
    uint8_t *bytes = malloc(size + 1);
    PVA_ASSERT(bytes && fread(bytes, 1, size, f) == size);
    fclose(f);
    LLVMFuzzerTestOneInput(bytes, size);
    LLVMFuzzerTestOneInput(bytes, size / 2);
    for (size_t i = 0; i < size; i += 37) {
        bytes[i] ^= (uint8_t)(1 << i % 8);
        LLVMFuzzerTestOneInput(bytes, size);
        bytes[i] ^= (uint8_t)(1 << i % 8);
    }
    free(bytes);
    n_inputs++;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            run_file(argv[i]);
            continue;
        }
        for (struct dirent *e; (e = readdir(d));) {
            char path[2000];
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] != '.') run_file(path);
        }
        closedir(d);
    }
    printf("replayed %d inputs\n", n_inputs);
    return n_inputs ? 0 : 1; /* a lost corpus is a failure, not a success */
}
